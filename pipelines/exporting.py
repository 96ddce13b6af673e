"""Exports a selection: clips are extracted source by source and put together to shards in a staging folder, one file at a
time, which moves into place when it is whole.

The export's name carries a fingerprint of its clips and settings, so another selection is another export and the same
one is never made twice. A file that exists is done; a killed export resumes with the next. Clips that failed are tried
again on request, and those that an older dailies tripped over by themselves: exports do not change, so that makes a
numbered one beside the first, which takes over what there is.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib.metadata import version
from typing import Any, ClassVar

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from dailies.curation import export, schema
from dailies.curation.addresses import name_of, without_places
from dailies.curation.clips import SPLITS
from dailies.curation.errors import Changed, Defect, NotCopied, Refused, Unreadable, UsageError
from dailies.curation.export import ExtractSettings
from dailies.curation.policy import SourcePolicy, policy_in_force
from dailies.curation.tables import DatasetTables, Folder, Table, clean_columns, shards_of
from dailies.curation.types import Resources
from dailies.pipelines import engine as engines
from dailies.pipelines.isolate import Isolated
from dailies.pipelines.progress import Progress
from dailies.pipelines.recipes.recipe import CurationRecipe
from dailies.pipelines.recipes.steps import CutStep, ExportStep, ObserveStep
from dailies.pipelines.reports import ExportReport
from dailies.pipelines.run_rows import record_export
from dailies.pipelines.stages import MEMORY_GB

EXTRACTED = "extracted"  # the folder, within a staging folder, of files that clips were extracted into
LOCATION = ["extracted", "at", "row", "reused"]  # columns that say where an extracted clip lies

UNREAD = frozenset({Unreadable.kind, Changed.kind})  # what may come of an address that lacks its query

log = logging.getLogger("dailies")


@dataclass(frozen=True, kw_only=True)
class Written:
    """Receipt of one file: of a batch's clips, or of a shard."""

    name: str
    clips: int
    failed: int


@dataclass(frozen=True, kw_only=True)
class ExtractWork:
    """Extract batches of clips into files under ``staging``, in a child process with a time limit."""

    staging: str
    settings: ExtractSettings
    stall_seconds: float
    policy: SourcePolicy = SourcePolicy()  # noqa: RUF009 - frozen
    private_sources: bool = False
    name: ClassVar[str] = "extract"
    receipt: ClassVar[type] = Written
    resources: ClassVar[Resources] = Resources(cpus=1, memory_gb=1)

    @contextmanager
    def open(self) -> Iterator[Callable[[pa.Table], Written]]:
        with Isolated(
            "dailies.curation.export.extraction:extract_clip",
            answer=dict[str, Any],
            policy=self.policy,
            stall_seconds=self.stall_seconds,
            memory_gb=MEMORY_GB,
        ) as child:

            def extract(clip: Mapping[str, Any]) -> Mapping[str, Any]:
                row: dict[str, Any] = child.call(dict(clip), self.settings)
                return row | {"clip_id": clip["clip_id"]}  # a file that took the child over speaks for no other clip

            def call(bundle: pa.Table) -> Written:
                name = bundle["file"][0].as_py()
                with (Folder.beneath(self.staging) / EXTRACTED).new_file(name) as file:
                    failed = export.write_extracted(
                        file, bundle.drop_columns("file").to_pylist(), extract, private_sources=self.private_sources
                    )
                return Written(name=name, clips=len(bundle), failed=failed)

            yield call


@dataclass(frozen=True, kw_only=True)
class ShardWork:
    """Put shards in ``staging`` together from the files that clips were extracted into, and from a ``previous`` export."""

    staging: str
    previous: str | None
    columns: Sequence[pa.Field]
    memory_gb: float
    name: ClassVar[str] = "export"
    receipt: ClassVar[type] = Written

    @property
    def resources(self) -> Resources:
        return Resources(cpus=1, memory_gb=self.memory_gb)

    @contextmanager
    def open(self) -> Iterator[Callable[[pa.Table], Written]]:
        staging, index_schema = Folder.beneath(self.staging), schema.export_index(self.columns)
        previous = None if self.previous is None else Folder.beneath(self.previous)

        def call(bundle: pa.Table) -> Written:
            name = bundle["file"][0].as_py()
            extracted = _read_extracted(staging / EXTRACTED, previous, bundle)

            def extract(clip: Mapping[str, Any]) -> Mapping[str, Any]:
                return export.read_extracted(extracted.pop(clip["clip_id"]))

            clips = bundle.drop_columns(["file", *LOCATION]).to_pylist()
            with (staging / "data").new_file(name) as file:
                index = export.write_shard(file, name, clips, self.columns, extract)
            ok = sum(row["status"] == "ok" for row in index)
            if not ok:
                (staging / "data").delete(name)
            _write_table(staging / "index", name, pa.Table.from_pylist(index, schema=index_schema))
            return Written(name=name, clips=len(index), failed=len(index) - ok)

        yield call


def _read_extracted(extracted: Folder, previous: Folder | None, bundle: pa.Table) -> dict[str, dict[str, Any]]:
    """Return rows of ``export.EXTRACTED`` by clip, for the clips of a shard; each file is opened once."""
    places: dict[tuple[bool, str], dict[int, list[int]]] = {}
    for clip in bundle.select(LOCATION).to_pylist():
        place = places.setdefault((clip["reused"], clip["extracted"]), {})
        place.setdefault(clip["at"], []).append(clip["row"])
    rows: dict[str, dict[str, Any]] = {}
    for (reused, name), groups in places.items():
        folder = previous if reused else extracted
        assert folder is not None  # clips are reused of a previous export alone
        with folder.parquet(name) as file:
            columns = [column for column in export.EXTRACTED.names if column in file.schema_arrow.names]
            for group, numbers in groups.items():
                for row in file.read_row_group(group, columns).take(numbers).to_pylist():
                    rows[row["clip_id"]] = {"failure": None, **row}
    return rows


def _names(export: Folder) -> list[str]:
    with export.parquet("index.parquet", whole=True) as file:
        return list(file.schema_arrow.names)


def _read_table(folder: Folder, name: str, columns: Sequence[str]) -> pa.Table:
    return folder.read_parquet(name, columns)


def _write_table(folder: Folder, name: str, table: pa.Table) -> None:
    with folder.new_file(name) as file:
        pq.write_table(table, file, compression="zstd")


def export_selection(
    dataset: DatasetTables,
    recipe: CurationRecipe,
    step: ExportStep,
    clips: pa.Table,
    columns: Sequence[pa.Field],
    selection: Mapping[str, Any],
    *,
    run_id: str,
    session: engines.Session,
    progress: Progress,
    retry_failed: bool = False,
    addresses: Mapping[str, str] = {},
    private_sources: bool = False,
) -> ExportReport:
    """Export ``clips`` (the selected ones, with ``columns``), or report the export where it exists already.

    ``retry_failed``: extract those clips again that could not be, of an export that exists. ``addresses``: by source id, what
    to read those sources by whose uri lacks a password or a query; clips of theirs that an export lacks are tried again.
    ``private_sources``: the export does not say where sources lie.
    """
    if not len(clips):
        return ExportReport(name=step.name, path=None, splits={}, failed=0)
    settings = replace(step.settings, min_seconds=recipe.step(CutStep).min_seconds)
    scored = [table for table in recipe.tables().values() if not table.startswith("selections/")]
    wanted = sorted(clips["clip_id"].to_pylist())
    meaning = [wanted, settings.meaning, step.seed, step.shard_mb, scored]
    if settings.mode == "none":  # its rows name the sources: where one has moved, they must name another place
        meaning.append(sorted(set(clips["uri"].to_pylist())))
    if private_sources:
        meaning.append("private sources")
    exports = dataset.folder / "exports"
    name, previous = _place(dataset, f"{step.name}@{schema.fingerprint(meaning)}", wanted)
    retriable = previous is not None and _retriable(previous, retry_failed=retry_failed, addresses=addresses)
    if previous is None or retriable or shows_secrets(previous):
        staging = exports / f".staging-{name}"
        if (staging / "cuts").list():
            log.warning(f"{staging.url}: begun by an older dailies, whose files have other columns; it is begun anew")
            staging.delete_tree()
        reused = _reusable(previous)
        fresh = clips.filter(pc.invert(pc.is_in(clips["clip_id"], value_set=reused["clip_id"])))
        batches = export.by_source(_addressed(_marked(fresh, dataset.table(recipe.observations)), addresses))
        extracting = ExtractWork(
            staging=staging.url,
            settings=settings,
            stall_seconds=recipe.step(ObserveStep).stall_seconds,
            policy=policy_in_force(),
            private_sources=private_sources,
        )
        _make(extracting, staging / EXTRACTED, batches, session, progress)
        shards = export.plan_shards(
            _located(_as_shown(clips, settings.mode, private=private_sources), batches, reused),
            seed=step.seed,
            shard_bytes=step.shard_mb * 1_000_000,
        )
        # A shard's clips are held at once, as they were read and as they are written.
        putting = ShardWork(
            staging=staging.url,
            previous=None if previous is None else previous.url,
            columns=columns,
            memory_gb=1 + 2 * step.shard_mb / 1000,
        )
        _make(putting, staging / "index", shards, session, progress)
        failures = _failures(staging, shards)
        if previous is None and failures == len(clips):
            return ExportReport(name=step.name, path=None, splits={}, failed=failures)
        if previous is not None and failures >= _failed(previous).num_rows and not shows_secrets(previous):
            staging.delete_tree()  # no clip is gained
            return _report_found(dataset, run_id, step, previous)
        origin = {
            "name": name,
            "recipe": recipe.name,
            "recipe_hash": recipe.hash,
            "selection": step.select,
            "rules": selection["rules"],
            "limits": selection["limits"],
            "tables": {**selection["tables"], recipe.observations: dataset.table(recipe.observations).version()},
            "extraction": step.extraction,
            "private_sources": private_sources,
            "seed": step.seed,
            "version": version("dailies"),
        }
        record_export(dataset, run_id, step.name, name)
        _publish(staging, exports / name, shards, origin)
        return report(step.name, exports / name)
    return _report_found(dataset, run_id, step, previous)


def _report_found(dataset: DatasetTables, run_id: str, step: ExportStep, previous: Folder) -> ExportReport:
    """Report an export that exists; it is the one that the run comes to."""
    record_export(dataset, run_id, step.name, previous.url.rpartition("/")[2])
    return report(step.name, previous)


def _place(dataset: DatasetTables, name: str, wanted: Sequence[str]) -> tuple[str, Folder | None]:
    """Return the name of a new export, and the export that exists with just these clips, if any does.

    An export that lost clips to a withdrawal keeps its name, and the new one gets a number; so does one with fewer
    failures. Of several, the one with the fewest failures is returned.
    """
    existing = dataset.exports()
    same: list[tuple[int, int, Folder]] = []
    for number in range(1, len(existing) + 2):
        numbered = name if number == 1 else f"{name}.{number}"
        if numbered not in existing:
            return numbered, min(same, key=lambda place: place[:2])[2] if same else None
        folder = dataset.folder / "exports" / numbered
        index = _read_table(folder, "index.parquet", ["clip_id", "status"])
        if sorted(index["clip_id"].to_pylist()) == wanted:
            same.append((index["status"].to_pylist().count("failed"), -number, folder))
    raise AssertionError("there are more numbers than exports")


def _failed(folder: Folder, column: str = "clip_id") -> pa.Table:
    """Return ``column`` and failure of the clips that an export could not extract."""
    index = _read_table(folder, "index.parquet", [column, "status", "failure"])
    return index.filter(pc.equal(index["status"], "failed"))


def _retriable(folder: Folder, *, retry_failed: bool, addresses: Mapping[str, str] = {}) -> bool:
    """Return whether an export has failures that another try may mend: a defect of another dailies, what a policy refused
    that is another now, sources that came with ``addresses`` this time, or any if asked."""
    failed = _failed(folder, "source_id").to_pylist() if addresses else []
    if any(row["source_id"] in addresses and row["failure"]["kind"] in UNREAD for row in failed):
        return True
    kinds = {failure["kind"] for failure in _failed(folder)["failure"].to_pylist()} - {NotCopied.kind}
    if Refused.kind in kinds and policy_in_force() != SourcePolicy():  # which refused them
        return True
    if retry_failed or Defect.kind not in kinds:
        return retry_failed and bool(kinds)
    if not folder.holds(export.MANIFEST):  # an older dailies wrote none
        return True
    return export.ExportManifest.from_json(folder.read(export.MANIFEST)).version != version("dailies")


def shows_secrets(folder: Folder) -> bool:
    """Return whether an export, of an older dailies, shows passwords or signatures of URLs."""
    names = pq.read_schema(folder.file("index.parquet"), filesystem=folder.fs).names
    columns = [name for name in ("uri", "manifest", "failure") if name in names]
    return clean_columns(_read_table(folder, "index.parquet", columns)) is not None


def _addressed(clips: pa.Table, addresses: Mapping[str, str]) -> pa.Table:
    """Return ``clips`` with a column ``address``: what their source is read by, where that is not its uri."""
    column = [addresses.get(source) for source in clips["source_id"].to_pylist()]
    return clips.append_column("address", pa.array(column, pa.string()))


def _as_shown(clips: pa.Table, mode: str, *, private: bool) -> pa.Table:
    """Return ``clips`` as an export may show them: it names files, and not where on a disk they lie, unless it is read by
    that (mode ``none``). Of ``private`` sources there is no uri, and no place in what manifests say."""
    uris, manifests = clips["uri"].to_pylist(), clips["manifest"].to_pylist()
    if private:
        uris, manifests = [None] * len(uris), [without_places(text) for text in manifests]
    elif mode != "none":
        uris = [uri if uri is None else name_of(uri) for uri in uris]
    for name, values in (("uri", uris), ("manifest", manifests)):
        at = clips.schema.get_field_index(name)
        clips = clips.set_column(at, clips.schema.field(at), pa.array(values, pa.string()))
    return clips


def check_private(step: ExportStep, private_sources: bool) -> None:
    """Raise ``UsageError`` where an export with private sources could not be read."""
    if private_sources and step.settings.mode == "none":
        raise UsageError(
            f"--private-sources: {step.name}.mode=none: such clips stay in their sources, and can be read only by where "
            "these lie; take another mode"
        )


def _reusable(previous: Folder | None) -> pa.Table:
    """Return clip, file and place of those that a previous export holds as this version would extract them."""
    columns = ["clip_id", "shard", "row_group", "row", "status"]
    if previous is not None:
        stored = _names(previous)
        if set(stored) >= schema.EXTRACTION_COLUMNS:
            index = _read_table(previous, "index.parquet", columns)
            shards_of(previous, index["shard"])
            return index.filter(pc.equal(index["status"], "ok"))
    return schema.export_index([]).empty_table().select(columns)


def _failures(staging: Folder, shards: Sequence[export.Shard]) -> int:
    """Return how many clips of an unfinished export could not be extracted."""
    parts = [_read_table(staging / "index", shard.name, ["status"])["status"].to_pylist() for shard in shards]
    return sum(status.count("failed") for status in parts)


def _marked(clips: pa.Table, observations: Table) -> pa.Table:
    """Return ``clips`` with a column ``faulty``: whether anything was wrong when their source was decoded."""
    rows = observations.read(["source_id", "packets_broken", "frames_corrupt"], equals={"status": "ok"})
    faults = pc.add(pc.fill_null(rows["packets_broken"], 0), pc.fill_null(rows["frames_corrupt"], 0))
    sources = pc.unique(rows["source_id"].filter(pc.greater(faults, 0)))
    return clips.append_column("faulty", pc.is_in(clips["source_id"], value_set=sources))


def _located(clips: pa.Table, batches: Sequence[export.Shard], reused: pa.Table) -> pa.Table:
    """Return ``clips`` with ``LOCATION``: the file that each is extracted into, row group and row, or those of a reused one."""
    names = ["clip_id", *LOCATION]
    fresh = [
        (clip, batch.name, number, 0, False)
        for batch in batches
        for number, clip in enumerate(batch.clips["clip_id"].to_pylist())
    ]
    old = [
        (row["clip_id"], row["shard"], row["row_group"], row["row"], True)
        for row in reused.select(["clip_id", "shard", "row_group", "row"]).to_pylist()
    ]
    rows = [dict(zip(names, values, strict=True)) for values in (*fresh, *old)]
    at = pa.Table.from_pylist(
        rows,
        schema=pa.schema(
            zip(names, (pa.string(), pa.string(), pa.int32(), pa.int32(), pa.bool_()), strict=True),
        ),
    )
    return clips.join(at, "clip_id", join_type="inner")


def _make(
    work: ExtractWork | ShardWork,
    done: Folder,
    files: Sequence[export.Shard],
    session: engines.Session,
    progress: Progress,
) -> None:
    """Run ``work`` for those of ``files`` that the folder ``done`` does not hold."""
    todo = [file for file in files if not _is_done(done, file)]
    units = (file.clips.append_column("file", pa.array([file.name] * len(file.clips))) for file in todo)
    total = sum(len(file.clips) for file in files)
    already = total - sum(len(file.clips) for file in todo)
    with progress(work.name, total - already, "clips", already=already) as bar:
        for written in engines.run(work, (unit.combine_chunks() for unit in units), session):
            bar.advance(written.clips, written.failed)


def _is_done(folder: Folder, file: export.Shard) -> bool:
    """Return whether an unfinished export has this file, of these clips and without a failure in it; an older dailies put
    clips into shards in another order."""
    if not folder.holds(file.name):
        return False
    rows = folder.read_parquet(file.name, ["clip_id", "failure"])
    same = rows["clip_id"].to_pylist() == file.clips["clip_id"].to_pylist()
    return same and bool(rows["failure"].null_count == len(rows))


def _publish(staging: Folder, final: Folder, shards: Sequence[export.Shard], origin: Mapping[str, Any]) -> None:
    """Join the parts of the index, write ``export.json`` and the card, and move the whole into place.

    ``origin``: as ``ExportManifest.of`` takes it.
    """
    parts = staging / "index"
    index = pa.concat_tables(parts.read_parquet(shard.name) for shard in shards)
    export.write_card(staging, export.ExportManifest.of(index, **origin), index.schema)
    _write_table(staging, "index.parquet", index)
    staging.publish(final, without=(EXTRACTED, "index"), last=(export.MANIFEST, export.CARD, "index.parquet"))


def report(name: str, folder: Folder) -> ExportReport:
    """Return what an export holds, from its index."""
    columns = ["split", "status", "bytes", "seconds", "lost_seconds", "failure"]
    rows = folder.read_parquet("index.parquet", columns).to_pylist()
    ok = [row for row in rows if row["status"] == "ok"]
    uncopied = [row for row in rows if row["status"] == "failed" and row["failure"]["kind"] == NotCopied.kind]
    return ExportReport(
        name=name,
        path=folder.url,
        splits={split: n for split in SPLITS if (n := sum(row["split"] == split for row in ok))},
        failed=len(rows) - len(ok),
        bytes=sum(row["bytes"] for row in ok),
        seconds=sum(row["seconds"] for row in ok),
        lost_seconds=sum(row["lost_seconds"] for row in ok) + sum(row["seconds"] for row in uncopied),
        not_copied=len(uncopied),
    )
