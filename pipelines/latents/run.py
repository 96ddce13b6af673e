"""Latents of an export are made here, shard by shard.

One shard is one piece of work, here or on a cluster: read row group by row group, encoded clip by clip, and written into
a staging folder beside OUT. A shard is done when its part of the index is there; a run that was killed goes on with the
next, and OUT appears when all are there. Importing this loads no torch.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.fs as pafs
import pyarrow.parquet as pq

from dailies.curation import schema
from dailies.curation.clips import SPLITS
from dailies.curation.errors import DailiesError, ExportError, RecipeError, UsageError
from dailies.curation.locking import only_writer
from dailies.curation.packages import DIFFUSION, need
from dailies.curation.policy import policy_in_force
from dailies.curation.progress import Progress, reporting, silent
from dailies.curation.tables import Folder, find_export
from dailies.pipelines import engine as engines
from dailies.pipelines.captions import check_captions
from dailies.pipelines.latents.card import card
from dailies.pipelines.latents.work import LatentsWork, passes
from dailies.pipelines.model_refs import models_of
from dailies.training.recipes.phase import Phase
from dailies.training.recipes.recipe import TrainingRecipe, check_columns

if TYPE_CHECKING:
    from dailies.training.data.manifest import LatentsManifest
    from dailies.training.diffusion.encoders import Models

MANIFEST, INDEX, CARD = "latents.json", "index.parquet", "README.md"


@dataclass(frozen=True, slots=True, kw_only=True)
class LatentsRequest:
    """A request says which latents to make.

    Args:
        export: A folder that dailies has exported, as ``find_export`` takes it.
        latents: ``RECIPE[:PHASE]``.
        out: Where they go.
        views: Crops of each clip.
        sets: See ``dailies.training.recipes.overrides``.
        start, parts: See ``dailies.pipelines.model_refs``.
    """

    export: str
    latents: str
    out: str
    views: int = 4
    sets: Sequence[str] = ()
    start: str | None = None
    parts: Mapping[str, str | None] = field(default_factory=dict)
    device: str = "auto"


@dataclass(frozen=True, slots=True, kw_only=True)
class LatentsReport:
    """A report says what latents hold.

    Args:
        views: Crops of each clip.
        splits: Clips of each split.
        failed: Clips that are rows of the index with a reason; ``reasons``: how many by which.
        not_selected: Clips of the export that the phase's select passes over.
        bytes: Of all crops.
    """

    name: str
    path: str
    phase: str
    views: int
    splits: Mapping[str, int]
    failed: int
    reasons: Mapping[str, int]
    not_selected: int
    bytes: int


def export_latents(
    request: LatentsRequest,
    *,
    engine: engines.Engine = "auto",
    workers: int | None = None,
    progress: Progress = silent,
) -> LatentsReport:
    """Make latents of an export for a recipe's phase, or report those that are there; resumes where a killed run stopped.

    Raises ``UsageError`` before any work where export, recipe, models and place do not fit each other, and
    ``DailiesError`` when not one clip could be encoded. ``engine``, ``workers``: see ``engine.session``.
    """
    need(DIFFUSION, by="export --latents")
    recipe, phase = recipe_of(request.latents, request.sets)
    export = find_export(request.export)
    check_captions(recipe, (phase,), {share.data: export for share in phase.shares})
    source, final = Folder.at(export), Folder.at(request.out)
    models = _models(recipe, request)
    names = _shard_names(request, source)
    if engine == "auto" and ":" in request.device:
        engine = "local"  # Ray would pick the GPU
    with engines.session(engine, workers=workers) as session:
        work = _work(request, recipe, phase, models, source, session)
        shards = _shards(source, names, recipe, phase)
        selected = {name: _count_selected(source, name, phase) for name, _ in shards}
        left_out = sum(rows for _, rows in shards) - sum(selected.values())
        if _is_made(final, work.manifest):
            return report(final, left_out)
        if not sum(selected.values()):
            raise UsageError(f"phase {phase.name}: select={list(phase.select)}: no clip of {request.export} passes")
        staging = Folder.beneath(work.staging)
        with _sole_maker(final):
            if not _is_made(final, work.manifest):  # another process may have made them since
                _run(work, staging, selected, session, progress)
                staging.write(MANIFEST, work.manifest.text.encode())
                _finish(staging, final, [name for name, _ in shards], work.manifest, left_out)
        return report(final, left_out)


@contextmanager
def _sole_maker(final: Folder) -> Iterator[None]:
    """Keep other processes from making latents in ``final``; on an object store nothing is locked.

    The lock lies beside the folder, which appears whole, and goes when that is there. Raises ``ExportError`` naming the
    process that makes them already.
    """
    if not final.local:
        yield
        return
    path = Path(final.path)
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = path.with_name(f".{path.name}.lock")
    with only_writer(lock, f"--out={final.url}", ExportError):
        yield
        lock.unlink()  # whoever opened it before finds the latents made


def recipe_of(latents: str, sets: Sequence[str]) -> tuple[TrainingRecipe, Phase]:
    """Load what ``RECIPE[:PHASE]`` names: the recipe, and its phase or the last. Raises ``RecipeError``."""
    from dailies.training.recipes import load_recipe

    name, colon, phase = latents.rpartition(":")
    try:
        recipe = load_recipe(latents, sets)
    except RecipeError:
        if not colon:
            raise
        recipe = load_recipe(name, sets)
        return recipe, recipe.phase(phase)
    return recipe, recipe.phases[-1]


def _models(recipe: TrainingRecipe, request: LatentsRequest) -> Models:
    """Find the frozen models' folders. Raises ``UsageError`` naming what is missing."""
    from dailies.training.diffusion.encoders import Models

    folders = asdict(models_of(recipe, start=request.start, **request.parts))
    # Workers have other working directories.
    return Models(**{name: path and str(Path(path).resolve()) for name, path in folders.items()})


def _shard_names(request: LatentsRequest, source: Folder) -> list[str]:
    """Return the names of the export's shards. Raises ``ExportError`` where ``source`` is no export with videos."""
    if not source.holds(INDEX):
        raise ExportError(f"{request.export}: holds no {INDEX}; give a folder that dailies export made")
    if source.holds(MANIFEST):
        raise ExportError(f"{request.export}: holds latents already; give the export with videos")
    data = source / "data"
    stored = (info for info in data.list() if info.type == pafs.FileType.File)
    names = [data.relative(info) for info in stored if info.path.endswith(".parquet")]
    if not names:
        raise ExportError(f"{source.url}: holds no data/*.parquet; give a folder that dailies export made")
    return names


def _work(
    request: LatentsRequest,
    recipe: TrainingRecipe,
    phase: Phase,
    models: Models,
    source: Folder,
    session: engines.Session,
) -> LatentsWork:
    from dailies.training.data.content import shards_content
    from dailies.training.data.manifest import build_manifest
    from dailies.training.distributed import pick_device

    manifest = build_manifest(
        recipe,
        phase,
        models,
        source=source.url,
        content=shards_content(source.path, source.fs),
        views=request.views,
        version=version("dailies"),
    )
    device = pick_device(request.device)
    on_ray = session.chosen(float(device.type == "cuda")) == "ray"
    base, _, name = Folder.at(request.out).url.rpartition("/")
    meaning = [manifest.fingerprint, sorted(source.relative(info) for info in (source / "data").list())]
    return LatentsWork(
        source=source.url,
        staging=f"{base}/.staging-{name}-{schema.fingerprint(meaning)}",
        manifest=manifest,
        models=models,
        device=device.type if on_ray else str(device),  # Ray says which of the GPUs
        policy=policy_in_force(),
    )


def _shards(source: Folder, names: Sequence[str], recipe: TrainingRecipe, phase: Phase) -> list[tuple[str, int]]:
    """Return each shard's name and rows. Raises ``UsageError`` where a column that the phase needs is missing."""
    data = source / "data"
    shards = []
    for name in names:
        with data.parquet(name) as file:
            check_columns(recipe, (phase,), file.schema_arrow.names)
            shards.append((name, file.metadata.num_rows))
    return shards


def _count_selected(source: Folder, name: str, phase: Phase) -> int:
    """Return how many of a shard's clips pass the phase's select."""
    columns = ["clip_id", *dict.fromkeys(column for column, _, _ in phase.select)]
    data = source / "data"
    rows = data.read_parquet(name, columns).to_pylist()
    return sum(passes(row, phase.select) for row in rows)


def _is_made(final: Folder, manifest: LatentsManifest) -> bool:
    """Return whether just these latents are there. Raises ``UsageError`` where something else is."""
    from dailies.training.data.manifest import parse_manifest

    if not final.list():
        return False
    if final.holds(MANIFEST) and final.holds(INDEX):
        existing = parse_manifest(final.read(MANIFEST), final.file(MANIFEST))
        if not (differing := manifest.differing(existing)):
            return True
        raise UsageError(f"--out={final.url}: holds other latents, by {', '.join(differing)}; name another folder")
    raise UsageError(f"--out={final.url}: is not empty; name another folder")


def _run(
    work: LatentsWork, staging: Folder, selected: Mapping[str, int], session: engines.Session, progress: Progress
) -> None:
    todo = [name for name, clips in selected.items() if clips and not (staging / "index").holds(name)]
    if todo:
        with reporting(progress):
            session.prepare(work)
    total, left = sum(selected.values()), sum(selected[name] for name in todo)
    bundles = (pa.table({"file": [name]}) for name in todo)
    with reporting(progress), progress(work.name, left, "clips", already=total - left) as bar:
        for written in engines.run(work, bundles, session):
            bar.advance(written.clips, written.failed)


def _finish(staging: Folder, final: Folder, shards: Sequence[str], manifest: LatentsManifest, left_out: int) -> None:
    """Join the parts of the index, write the card, and publish the whole.

    Raises ``DailiesError`` where no clip could be encoded.
    """
    parts = staging / "index"
    tables = [pq.read_table(parts.file(name), filesystem=parts.fs) for name in shards if parts.holds(name)]
    index = pa.concat_tables(tables)
    if not any(status == "ok" for status in index["status"].to_pylist()):
        (kind, count), *_ = Counter(failure["kind"] for failure in index["failure"].to_pylist()).most_common(1)
        first = next(failure for failure in index["failure"].to_pylist() if failure["kind"] == kind)
        staging.delete_tree()
        raise DailiesError(f"none of {len(index)} clips can be encoded; {count} are {kind}: {first['message']}")
    staging.write(CARD, card(final.url.rpartition("/")[2], index, manifest, left_out).encode())
    with staging.new_file(INDEX) as sink:
        pq.write_table(index, sink, compression="zstd")
    staging.publish(final, without=("index",), last=(CARD, MANIFEST, INDEX))


def report(folder: Folder, not_selected: int) -> LatentsReport:
    """Report what latents hold, from their index."""
    from dailies.training.data.manifest import parse_manifest

    manifest = parse_manifest(folder.read(MANIFEST), folder.file(MANIFEST))
    index = folder.read_parquet(INDEX)
    rows = index.select(["split", "status", "bytes", "failure"]).to_pylist()
    ok = [row for row in rows if row["status"] == "ok"]
    return LatentsReport(
        name=folder.url.rpartition("/")[2],
        path=folder.url,
        phase=f"{manifest.recipe}:{manifest.phase}",
        views=manifest.views,
        splits={split: n for split in SPLITS if (n := sum(row["split"] == split for row in ok))},
        failed=len(rows) - len(ok),
        reasons=dict(Counter(row["failure"]["kind"] for row in rows if row["status"] != "ok").most_common()),
        not_selected=not_selected,
        bytes=sum(row["bytes"] for row in ok),
    )
