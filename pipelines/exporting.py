"""Exports a selection: clips are extracted source by source and put together to shards in a staging folder, one file at a
time, which moves into place when it is whole.

The export's name carries a fingerprint of its clips and settings, so another selection is another export and the same
one is never made twice. A file that exists is done; a killed export resumes with the next. What earlier exports of the dataset
hold of the same clips, extracted by the same settings, is taken from their shards, and only the others are extracted. Clips
that failed are tried again on request, and those that dailies tripped over by themselves: exports do not change, so
that makes a numbered one beside the first.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import reduce
from importlib.metadata import version
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from dailies.curation import export, schema
from dailies.curation.addresses import name_of, without_places
from dailies.curation.clips import SPLITS
from dailies.curation.errors import RETRIED, Changed, Damaged, NotCopied, Refused, Unreadable, UsageError
from dailies.curation.export import ExtractSettings
from dailies.curation.policy import SourcePolicy, policy_in_force
from dailies.curation.progress import Progress
from dailies.curation.tables import DatasetTables, Folder, Table, clean_columns, point_latest
from dailies.pipelines import engine as engines
from dailies.pipelines.export_work import EXTRACTED, LOCATION, TAKEN_OVER, ExtractWork, ShardWork
from dailies.pipelines.recipes import caption_makers
from dailies.pipelines.recipes.recipe import CurationRecipe
from dailies.pipelines.recipes.steps import CaptionStep, CutStep, ExportStep, ObserveStep
from dailies.pipelines.reports import ExportReport, kinds_of
from dailies.pipelines.run_rows import record_export

UNREAD = frozenset({Unreadable.kind, Changed.kind})  # what may come of an address that lacks its query

log = logging.getLogger("dailies")


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
    notes: Sequence[str] = (),
    run_id: str,
    session: engines.Session,
    progress: Progress,
    retry_failed: bool = False,
    addresses: Mapping[str, str] = {},
    private_sources: bool = False,
) -> ExportReport:
    """Export ``clips`` (the selected ones, with ``columns``), or report the export where it exists already.

    ``notes``: sentences on the footage for its card. ``retry_failed``: extract those clips again that could not be, of an
    export that exists. ``addresses``: by source id, what to read those sources by whose uri lacks a password or a query;
    clips of theirs that an export lacks are tried again.
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
    if unanswered := _unanswered(clips, recipe, step):  # which are asked again: answered, they make another export
        meaning.append(unanswered)
    if recipe.dedup(step) is not None:  # groups and splits change when clips join that are not in the export
        meaning.append(_groups(clips))
    exports = dataset.folder / "exports"
    name, previous = _place(dataset, f"{step.name}@{schema.fingerprint(meaning)}", wanted)
    retriable = previous is not None and _retriable(previous, retry_failed=retry_failed, addresses=addresses)
    secrets = previous is not None and shows_secrets(previous)
    if previous is None or retriable or secrets:
        staging = exports / f".staging-{name}"
        if (staging / "cuts").list():
            log.warning(f"{staging.url}: begun by an older dailies, whose files have other columns; it is begun anew")
            staging.delete_tree()
        extracting = ExtractWork(
            staging=staging.url,
            settings=settings,
            stall_seconds=recipe.step(ObserveStep).stall_seconds,
            policy=policy_in_force(),
            private_sources=private_sources,
        )
        # A shard's clips are held at once, as they were read and as they are written.
        putting = ShardWork(
            staging=staging.url,
            exports=exports.url,
            settings=settings,
            columns=columns,
            memory_gb=1 + 2 * step.shard_mb / 1000,
        )
        useless = len(clips) if previous is None else _failed(previous).num_rows
        shards = _make_shards(
            extracting,
            putting,
            _addressed(_marked(clips, dataset.table(recipe.observations)), addresses),
            _as_shown(clips, settings.mode, private=private_sources),
            _earlier_clips(dataset, previous, clips["clip_id"], settings, recipe.observations),
            lambda shown: export.plan_shards(shown, seed=step.seed, shard_bytes=step.shard_mb * 1_000_000),
            session,
            progress,
            useless=None if secrets else useless,
        )
        if shards is None:
            if previous is None:
                return ExportReport(name=step.name, path=None, splits={}, failed=len(clips))
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
            "extracts": settings.fingerprint,
            "private_sources": private_sources,
            "captions": caption_makers(recipe, step),
            "seed": step.seed,
            "version": version("dailies"),
            "notes": tuple(notes),
        }
        record_export(dataset, run_id, step.name, name)
        manifest = _publish(staging, exports / name, shards, origin)
        point_latest(dataset, name)
        return replace(report(step.name, exports / name), extracted=manifest.extracted, taken_over=manifest.taken_over)
    return _report_found(dataset, run_id, step, previous)


def _groups(clips: pa.Table) -> str:
    """Return a hash of the clips' splits and groups."""
    known = [column.name for column in (*schema.DUPLICATE_COLUMNS, *schema.ALIKE_COLUMNS)]
    columns = ["clip_id", "split", *(name for name in known if name in clips.column_names)]
    return schema.digest(*clips.select(columns).sort_by("clip_id").to_pydict().items())


def _unanswered(clips: pa.Table, recipe: CurationRecipe, step: ExportStep) -> dict[str, list[str]]:
    """Return the clips whose caption failed, by the captioner's name."""
    captioners = [earlier for earlier in recipe.before(step) if isinstance(earlier, CaptionStep)]
    failed = {
        each.name: clips.filter(pc.equal(clips[each.shown["status"].name], "failed"))["clip_id"] for each in captioners
    }
    return {name: sorted(ids.to_pylist()) for name, ids in failed.items() if len(ids)}


def _report_found(dataset: DatasetTables, run_id: str, step: ExportStep, previous: Folder) -> ExportReport:
    """Report an export that exists; it is the one that the run comes to."""
    name = previous.url.rpartition("/")[2]
    record_export(dataset, run_id, step.name, name)
    point_latest(dataset, name)
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
    """Return whether an export has failures that another try may mend: those that are no fault of the file, what a policy
    refused that is another now, sources that came with ``addresses`` this time, or any if asked."""
    failed = _failed(folder, "source_id").to_pylist() if addresses else []
    if any(row["source_id"] in addresses and row["failure"]["kind"] in UNREAD for row in failed):
        return True
    kinds = {failure["kind"] for failure in _failed(folder)["failure"].to_pylist()} - {NotCopied.kind}
    if Refused.kind in kinds and policy_in_force() != SourcePolicy():  # which refused them
        return True
    return bool(kinds if retry_failed else kinds & RETRIED)


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


def _earlier_clips(
    dataset: DatasetTables,
    previous: Folder | None,
    clip_ids: pa.ChunkedArray,
    settings: ExtractSettings,
    observations: str,
) -> pa.Table:
    """Return rows of ``export.PLACES`` for the clips that need not be extracted.

    They are taken from ``previous``, an export of the same name, or from the newest one of the same settings that has them.
    """
    alike = [] if previous is None else [previous]
    for name in reversed(dataset.exports_by_age()):
        folder = dataset.folder / "exports" / name
        try:
            if folder.url not in {each.url for each in alike} and export.made_alike(folder, settings, observations):
                alike.append(folder)
        except Damaged as error:
            log.warning(f"{error}; no clip is taken from there")
    places, problems = export.find_clips(alike, clip_ids)
    for problem in problems:
        log.warning(problem)
    return places


def _make_shards(
    extracting: ExtractWork,
    putting: ShardWork,
    clips: pa.Table,
    shown: pa.Table,
    places: pa.Table,
    plan: Callable[[pa.Table], list[export.Shard]],
    session: engines.Session,
    progress: Progress,
    *,
    useless: int | None,
) -> list[export.Shard] | None:
    """Extract those of ``clips`` that ``places`` does not have, put all together to shards, and return their plan.

    ``shown``: the clips as the export shows them. Clips that turn out not to be where they should are extracted then.
    ``useless``: if so many clips cannot be extracted, no shard is put together, and ``None`` is returned.
    """
    staging, batches, failed = Folder.beneath(extracting.staging), list[export.Shard](), 0
    fresh = clips.filter(pc.invert(pc.is_in(clips["clip_id"], value_set=places["clip_id"])))
    while True:
        batches += (new := export.by_source(fresh))
        failed += _make(extracting, staging / EXTRACTED, new, session, progress, elsewhere=len(places))[0]
        if useless is not None and failed >= useless:
            return None
        shards = plan(_located(shown, batches, places))
        _, lost = _make(putting, staging / "index", shards, session, progress)
        if not lost:
            return shards
        for line in export.explained(lost):
            log.warning(line)
        again = pa.array(list(lost), pa.string())
        fresh = clips.filter(pc.is_in(clips["clip_id"], value_set=again))
        places = places.filter(pc.invert(pc.is_in(places["clip_id"], value_set=again)))


def _marked(clips: pa.Table, observations: Table) -> pa.Table:
    """Return ``clips`` with a column ``faulty``: whether anything was wrong when their source was decoded."""
    rows = observations.read(["source_id", "packets_broken", "frames_corrupt"], equals={"status": "ok"})
    faults = pc.add(pc.fill_null(rows["packets_broken"], 0), pc.fill_null(rows["frames_corrupt"], 0))
    sources = pc.unique(rows["source_id"].filter(pc.greater(faults, 0)))
    return clips.append_column("faulty", pc.is_in(clips["source_id"], value_set=sources))


def _located(clips: pa.Table, batches: Sequence[export.Shard], places: pa.Table) -> pa.Table:
    """Return ``clips`` with ``LOCATION``: of those in ``batches`` the file that each is extracted into, of others their
    ``places``."""
    kinds = (pa.string(), pa.string(), pa.int32(), pa.int32(), pa.string())
    names = ["clip_id", *LOCATION]
    fresh = [
        (clip, batch.name, number, 0, None)
        for batch in batches
        for number, clip in enumerate(batch.clips["clip_id"].to_pylist())
    ]
    columns = zip(*fresh, strict=True) if fresh else ([],) * len(names)
    extracted = pa.table([pa.array(values, kind) for values, kind in zip(columns, kinds, strict=True)], names=names)
    earlier = places.select(["clip_id", "shard", "row_group", "row", "export"]).rename_columns(names)
    return clips.join(pa.concat_tables([extracted, earlier]), "clip_id", join_type="inner")


def _make(
    work: ExtractWork | ShardWork,
    done: Folder,
    files: Sequence[export.Shard],
    session: engines.Session,
    progress: Progress,
    *,
    elsewhere: int = 0,
) -> tuple[int, dict[str, str]]:
    """Run ``work`` for those of ``files`` that the folder ``done`` does not hold without a failure; return how many clips of
    ``files`` failed, and which could not be taken from an earlier export, and why.

    ``elsewhere``: clips that need no work, besides those of ``files``.
    """
    todo = [file for file in files if not _is_done(done, file)]
    if todo:
        session.prepare(work)
    units = (file.clips.append_column("file", pa.array([file.name] * len(file.clips))) for file in todo)
    total = sum(len(file.clips) for file in files)
    already = total - sum(len(file.clips) for file in todo)
    failed, lost = 0, dict[str, str]()
    sizes = {file.name: _pixels(file.clips) for file in todo}
    with progress(work.name, total - already, "clips", already=already + elsewhere, size=sum(sizes.values())) as bar:
        for written in engines.run(work, (unit.combine_chunks() for unit in units), session):
            bar.advance(written.clips, written.failed, size=0.0 if written.lost else sizes[written.name])
            failed += written.failed
            lost |= written.lost
    return failed, lost


def _pixels(clips: pa.Table) -> float:
    """Return the pixels of all frames of ``clips``, by which encoding takes its time."""
    columns = (pc.cast(clips[name], pa.float64()) for name in ("width", "height", "frames"))
    return float(pc.sum(reduce(pc.multiply, columns)).as_py() or 0)


def _is_done(folder: Folder, file: export.Shard) -> bool:
    """Return whether an unfinished export has this file, of these clips and without a failure in it; an older dailies put
    clips into shards in another order."""
    if not folder.holds(file.name):
        return False
    rows = folder.read_parquet(file.name, ["clip_id", "failure"])
    same = rows["clip_id"].to_pylist() == file.clips["clip_id"].to_pylist()
    return same and bool(rows["failure"].null_count == len(rows))


def _publish(
    staging: Folder, final: Folder, shards: Sequence[export.Shard], origin: Mapping[str, Any]
) -> export.ExportManifest:
    """Join the parts of the index, write ``export.json`` and the card, and move the whole into place.

    ``origin``: as ``ExportManifest.of`` takes it, without the numbers of clips that were extracted and taken over.
    """
    parts = [(staging / "index").read_parquet(shard.name) for shard in shards]
    ok = sum(part["status"].to_pylist().count("ok") for part in parts)
    taken_over = sum(part[TAKEN_OVER].to_pylist().count(True) for part in parts if TAKEN_OVER in part.column_names)
    index = pa.concat_tables(part.select([name for name in part.column_names if name != TAKEN_OVER]) for part in parts)
    manifest = export.ExportManifest.of(index, extracted=ok - taken_over, taken_over=taken_over, **origin)
    export.write_card(staging, manifest, index.schema)
    _write_table(staging, "index.parquet", index)
    staging.publish(final, without=(EXTRACTED, "index"), last=(export.MANIFEST, export.CARD, "index.parquet"))
    return manifest


def report(name: str, folder: Folder) -> ExportReport:
    """Return what an export holds, from its index, which lacks ``lost_seconds`` if it was made before there were copies."""
    columns = ["split", "status", "bytes", "seconds", "lost_seconds", "failure"]
    with folder.parquet("index.parquet", whole=True) as file:
        captions = tuple(name for name in file.schema_arrow.names if name.startswith("caption_"))
        rows = file.read(columns=columns).to_pylist()
    ok = [row for row in rows if row["status"] == "ok"]
    failed = [row for row in rows if row["status"] == "failed"]
    uncopied = [row for row in failed if row["failure"]["kind"] == NotCopied.kind]
    return ExportReport(
        name=name,
        path=folder.url,
        splits={split: n for split in SPLITS if (n := sum(row["split"] == split for row in ok))},
        failed=len(failed),
        kinds=kinds_of(row["failure"] for row in failed),
        bytes=sum(row["bytes"] for row in ok),
        seconds=sum(row["seconds"] for row in ok),
        lost_seconds=sum(row.get("lost_seconds", 0.0) for row in ok) + sum(row["seconds"] for row in uncopied),
        not_copied=len(uncopied),
        captions=captions,
    )
