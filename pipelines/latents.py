"""Latents of an export: its shards once more, with views of each clip as the frozen models see them in place of its bytes.

One shard is one piece of work, here or on a cluster: read row group by row group, encoded clip by clip, and written into
a staging folder beside OUT. A shard is done when its part of the index is there; a run that was killed goes on with the
next, and OUT appears when all are there.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as pq

from dailies.curation import schema
from dailies.curation.clips import SPLITS
from dailies.curation.errors import DailiesError, RecipeError, UsageError
from dailies.curation.packages import need
from dailies.curation.tables.storage import Folder
from dailies.pipelines import engine as engines
from dailies.pipelines.latents_card import card
from dailies.pipelines.latents_work import LatentsWork, passes
from dailies.pipelines.model_refs import models_of
from dailies.pipelines.progress import Progress, silent
from dailies.training.data.manifest import FILE, Facts, facts_of, parsed
from dailies.training.recipes.phase import Phase
from dailies.training.recipes.recipe import Recipe, check_columns

if TYPE_CHECKING:
    from dailies.training.diffusion.encoders import Models


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What is to be made. ``export``: a folder that dailies has exported; ``latents``: ``RECIPE[:PHASE]``; ``sets``: see
    ``dailies.training.recipes.overrides``; ``start``, ``parts``: see ``dailies.pipelines.model_refs``."""

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
    """``not_selected``: clips of the export that the phase's select passes over. ``failed``: those that are rows of the
    index with a reason; ``reasons``: how many by which."""

    name: str
    path: str
    phase: str
    views: int
    splits: Mapping[str, int]
    failed: int
    reasons: Mapping[str, int]
    not_selected: int
    bytes: int


def export_latents(request: Request, *, engine: engines.Engine, progress: Progress = silent) -> LatentsReport:
    """Make latents of an export for a recipe's phase, or find them made already; goes on where a killed run stopped.

    Raises ``UsageError`` before any work where export, recipe, models and place do not fit each other, and
    ``DailiesError`` when not one clip could be encoded.
    """
    need(["torch", "diffusers", "transformers"], by="export --latents")
    source, final = Folder.at(request.export), Folder.at(request.out)
    recipe, phase = recipe_of(request.latents, request.sets)
    models = _models(recipe, request)
    work = _work(request, recipe, phase, models, source, engine)
    shards = _shards(source, recipe, phase)
    passed = {name: _passing(source, name, phase) for name, _ in shards}
    if _stands(final, work.facts):
        return report(final, sum(rows for _, rows in shards) - sum(passed.values()))
    if not sum(passed.values()):
        raise UsageError(f"phase {phase.name}: select: no clip of {request.export} passes")
    staging = Folder.at(work.staging)
    _run(work, staging, passed, engine, progress)
    left_out = sum(rows for _, rows in shards) - sum(passed.values())
    staging.write(FILE, work.facts.text.encode())
    _show(staging, final, [name for name, _ in shards], work.facts, left_out)
    return report(final, left_out)


def recipe_of(latents: str, sets: Sequence[str]) -> tuple[Recipe, Phase]:
    """What ``RECIPE[:PHASE]`` says: the recipe, and its phase or the last. Raises ``RecipeError``."""
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


def _models(recipe: Recipe, request: Request) -> Models:
    """Raises ``UsageError``, or ``ValueError`` naming what is missing."""
    from dailies.training.diffusion.encoders import Models

    found = asdict(models_of(recipe, start=request.start, **request.parts))
    # Workers have other working directories.
    return Models(**{name: path and str(Path(path).resolve()) for name, path in found.items()})


def _work(
    request: Request, recipe: Recipe, phase: Phase, models: Models, source: Folder, engine: engines.Engine
) -> LatentsWork:
    from dailies.training.distributed import pick_device

    if not source.holds("index.parquet"):
        raise UsageError(
            f"no export at {request.export}: expected a folder with index.parquet, as dailies export makes it"
        )
    if source.holds(FILE):
        raise UsageError(f"{request.export} holds latents already; those of an export with videos can be made")
    facts = facts_of(recipe, phase, models, source=source.url, views=request.views, version=version("dailies"))
    device = pick_device(request.device)
    base, _, name = Folder.at(request.out).url.rpartition("/")
    meaning = [facts.fingerprint, sorted(source.relative(info) for info in (source / "data").list())]
    return LatentsWork(
        source=source.url,
        staging=f"{base}/.staging-{name}-{schema.fingerprint(meaning)}",
        facts=facts,
        models=models,
        device=device.type if engine == "ray" else str(device),  # Ray says which of the GPUs
    )


def _shards(source: Folder, recipe: Recipe, phase: Phase) -> list[tuple[str, int]]:
    """Names and rows. Raises ``ValueError`` where there are none, or a column that the phase needs is missing."""
    data = source / "data"
    names = [data.relative(info) for info in data.list() if info.path.endswith(".parquet")]
    if not names:
        raise ValueError(f"data: {source.url} holds no data/*.parquet; an export of dailies is expected")
    found = []
    for name in names:
        with pq.ParquetFile(data.file(name), filesystem=data.fs) as file:
            check_columns(recipe, (phase,), file.schema_arrow.names)
            found.append((name, file.metadata.num_rows))
    return found


def _passing(source: Folder, name: str, phase: Phase) -> int:
    """How many of a shard's clips pass the phase's select."""
    wanted = ["clip_id", *dict.fromkeys(column for column, _, _ in phase.select)]
    data = source / "data"
    rows = pq.read_table(data.file(name), columns=wanted, filesystem=data.fs).to_pylist()
    return sum(passes(row, phase.select) for row in rows)


def _stands(final: Folder, facts: Facts) -> bool:
    """Whether just these latents are there. Raises ``UsageError`` where something else is."""
    if not final.list():
        return False
    if final.holds(FILE) and final.holds("index.parquet"):
        if parsed(final.read(FILE), final.file(FILE)).fingerprint == facts.fingerprint:
            return True
        raise UsageError(f"--out: {final.url} holds other latents; take another folder")
    raise UsageError(f"--out: {final.url} is not empty; take another folder")


def _run(
    work: LatentsWork, staging: Folder, passed: Mapping[str, int], engine: engines.Engine, progress: Progress
) -> None:
    todo = [name for name, clips in passed.items() if clips and not (staging / "index").holds(name)]
    total, left = sum(passed.values()), sum(passed[name] for name in todo)
    bundles = (pa.table({"file": [name]}) for name in todo)
    with (
        engines.session(engine),
        progress(work.name, left, "clips", already=total - left) as bar,
    ):
        for written in engines.run(work, bundles, engine):
            bar.advance(written.clips, written.failed)


def _show(staging: Folder, final: Folder, shards: Sequence[str], facts: Facts, left_out: int) -> None:
    """Join the parts of the index, write the card, and move the whole into place."""
    parts = staging / "index"
    tables = [pq.read_table(parts.file(name), filesystem=parts.fs) for name in shards if parts.holds(name)]
    index = pa.concat_tables(tables)
    if not any(status == "ok" for status in index["status"].to_pylist()):
        (kind, count), *_ = Counter(failure["kind"] for failure in index["failure"].to_pylist()).most_common(1)
        first = next(failure for failure in index["failure"].to_pylist() if failure["kind"] == kind)
        staging.fs.delete_dir(staging.path)
        raise DailiesError(f"none of {len(index)} clips can be encoded; {count} are {kind}: {first['message']}")
    staging.write("README.md", card(final.url.rpartition("/")[2], index, facts, left_out).encode())
    with staging.new_file("index.parquet") as sink:
        pq.write_table(index, sink, compression="zstd")
    if staging.local:
        for info in (staging / "data").list():  # what a killed run was writing
            if info.path.endswith(".tmp"):
                staging.fs.delete_file(info.path)
        parts.fs.delete_dir(parts.path)
        staging.fs.move(staging.path, final.path)
        return
    # Object stores cannot rename a folder; without their index they are no latents yet, so it goes last.
    names = [f"data/{(staging / 'data').relative(info)}" for info in (staging / "data").list()]
    for name in [*names, "README.md", "latents.json", "index.parquet"]:
        staging.fs.move(staging.file(name), final.file(name))
    staging.fs.delete_dir(staging.path)


def report(folder: Folder, not_selected: int) -> LatentsReport:
    """What latents hold, from their index."""
    facts = parsed(folder.read(FILE), folder.file(FILE))
    index = pq.read_table(folder.file("index.parquet"), filesystem=folder.fs)
    rows = index.select(["split", "status", "bytes", "failure"]).to_pylist()
    ok = [row for row in rows if row["status"] == "ok"]
    return LatentsReport(
        name=folder.url.rpartition("/")[2],
        path=folder.url,
        phase=f"{facts.recipe}:{facts.phase}",
        views=facts.views,
        splits={split: n for split in SPLITS if (n := sum(row["split"] == split for row in ok))},
        failed=len(rows) - len(ok),
        reasons=dict(Counter(row["failure"]["kind"] for row in rows if row["status"] != "ok").most_common()),
        not_selected=not_selected,
        bytes=sum(row["bytes"] for row in ok),
    )
