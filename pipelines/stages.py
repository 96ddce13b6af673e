"""The curation stages are work for the engine: each reads tables, writes parts of its own, and returns receipts."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any, ClassVar

import pyarrow as pa

from dailies.curation import observations, schema
from dailies.curation.clips import ClipRules, clip_rows, failed_row, span_of
from dailies.curation.errors import DatasetError, Defect, OutOfMemory, Refused, SourceError, item_error, stopping_error
from dailies.curation.observations import evidence_within, joined_row, unit_of
from dailies.curation.observe import EvidenceGrid
from dailies.curation.policy import SourcePolicy
from dailies.curation.tables import Receipt, conform, read_part, write_part
from dailies.curation.types import Evidence, EvidenceFrame, Resources
from dailies.pipelines.isolate import Isolated
from dailies.pipelines.recipes.own import OwnSpec

MEMORY_GB = 16
"""Address space of a child that decodes (GiB): far above what sane footage takes, below what brings a machine down."""


@dataclass(frozen=True, kw_only=True)
class ObserveWork:
    """Decode sources, or segments of long ones, once each, in a child process with a time limit."""

    table: str
    observers: Sequence[Any]
    evidence: EvidenceGrid
    stall_seconds: float
    segment_seconds: float
    policy: SourcePolicy = SourcePolicy()  # noqa: RUF009 - frozen
    name: ClassVar[str] = "observe"
    receipt: ClassVar[type] = Receipt
    resources: ClassVar[Resources] = Resources(cpus=1, memory_gb=1)

    @contextmanager
    def open(self) -> Iterator[Callable[[pa.Table], Receipt]]:
        with Isolated(
            "dailies.curation.observations:observe_row",
            answer=dict[str, Any],
            policy=self.policy,
            stall_seconds=self.stall_seconds,
            memory_gb=MEMORY_GB,
        ) as child:

            def call(bundle: pa.Table) -> Receipt:
                sources = {unit_of(source["source_id"], source["segment"]): source for source in bundle.to_pylist()}
                rows = {unit: [self._row(child, source)] for unit, source in sources.items()}
                return _write(
                    self.table, schema.OBSERVATIONS, rows, lambda unit, error: self._failed(sources[unit], error)
                )

            yield call

    def _row(self, child: Isolated, source: dict[str, Any]) -> dict[str, Any]:
        if source.get("refused"):
            return self._failed(source, Refused(source["refused"]))
        try:
            row: dict[str, Any] = child.call(source, self.observers, self.evidence, self.segment_seconds)
            # A file that took the child over must not speak for another source.
            row |= {name: source[name] for name in ("source_id", "uri", "manifest", "segment")}
            row["unit"] = unit_of(source["source_id"], source["segment"])
        except SourceError as error:  # its process hung, crashed or tripped over a defect of ours
            row = self._failed(source, error)
        return row

    def _failed(self, source: dict[str, Any], error: SourceError) -> dict[str, Any]:
        return observations.empty_row(source) | observations.failed(error, source)


@dataclass(frozen=True, kw_only=True)
class CutWork:
    """Turn tracks into clips by thresholds, and spans that manifests name into clips, without decoding.

    The keys of its receipts are source ids of sources cut as a whole, and span ids.
    """

    table: str
    detector: Any
    observers: Sequence[Any]
    rules: ClipRules
    schema: pa.Schema = field(repr=False)
    name: ClassVar[str] = "cut"
    receipt: ClassVar[type] = Receipt
    resources: ClassVar[Resources] = Resources(cpus=1, memory_gb=1)

    @contextmanager
    def open(self) -> Iterator[Callable[[pa.Table], Receipt]]:
        columns = [name for name in schema.OBSERVATIONS.names if name != "evidence"]

        def call(bundle: pa.Table) -> Receipt:
            units = {unit["source_id"]: unit for unit in bundle.to_pylist()}
            rows: dict[str, list[dict[str, Any]]] = {key: [] for unit in units.values() for key in _cut_keys(unit)}
            for source, segments in _whole(_observed(bundle, columns)):
                for row in self._clips(units[source], segments):
                    rows[row.get("span_id") or source].append(row)
            return _write(self.table, self.schema, rows, partial(_failed_cut, units))

        yield call

    def _clips(self, unit: Mapping[str, Any], segments: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        try:
            observed = joined_row(segments)
            observed = {**observed, "manifest": unit["manifest"] or observed["manifest"]}
            whole, spans = unit["whole"], unit["spans"]
            return clip_rows(observed, self.detector, self.observers, self.rules, whole=whole, spans=spans)
        except Exception as error:
            reason = item_error(error)
            return [_failed_cut({unit["source_id"]: unit}, key, reason) for key in _cut_keys(unit)]


def _cut_keys(unit: Mapping[str, Any]) -> list[str]:
    """Return the keys of what of a source is to be cut: its own id for all of its shots, and the ids of spans."""
    return [unit["source_id"]] * unit["whole"] + [span["span_id"] for span in unit["spans"]]


def _failed_cut(units: Mapping[str, Mapping[str, Any]], key: str, error: SourceError) -> dict[str, Any]:
    if key in units:
        return failed_row(key, error)
    source = next(name for name, unit in units.items() if any(span["span_id"] == key for span in unit["spans"]))
    return failed_row(source, error, key)


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredColumns:
    """Columns that workers read from the parts of an earlier step's table.

    ``file``: the column of the units that names a clip's part; ``columns``: names in the table → as the scorer knows them.
    """

    file: str
    columns: Mapping[str, str]


@dataclass(frozen=True, kw_only=True)
class ScoreWork:
    """Run one model over the evidence of clips, or over what an earlier step stored of them.

    ``stored``: the columns of lists that the scorer needs of other tables, whose parts the units name.
    """

    name: str
    table: str
    scorer: Any
    stored: tuple[StoredColumns, ...] = ()
    receipt: ClassVar[type] = Receipt

    @property
    def resources(self) -> Resources:
        return self.scorer.resources  # type: ignore[no-any-return]

    @contextmanager
    def open(self) -> Iterator[Callable[[pa.Table], Receipt]]:
        blame = self.scorer.item_error if isinstance(self.scorer, OwnSpec) else item_error
        with self.scorer.open() as score:

            def call(bundle: pa.Table) -> Receipt:
                looks = getattr(self.scorer, "needs_frames", True)
                clips = _evidence(bundle, self.scorer.needs, self.stored, looks=looks)
                sources = dict(zip(bundle["clip_id"].to_pylist(), bundle["source_id"].to_pylist(), strict=True))
                rows = [
                    {"clip_id": clip.clip_id, "source_id": sources[clip.clip_id], **columns}
                    for clip, columns in zip(
                        clips, score_rows(self.name, score, clips, self.scorer.columns, blame, looks=looks), strict=True
                    )
                ]
                return write_part(self.table, schema.scores(self.scorer.columns), rows, keys=_keys(rows, "clip_id"))

            yield call


def score_rows(
    name: str,
    score: Callable[[Sequence[Evidence]], pa.Table],
    clips: Sequence[Evidence],
    columns: Sequence[pa.Field] = (),
    blame: Callable[[Exception], SourceError] = item_error,
    *,
    looks: bool = True,
) -> list[dict[str, Any]]:
    """Return the scorer's ``columns`` for each clip, or why it has none. ``looks``: at frames, without which it cannot.

    A batch that fails is halved until the bad clip stands alone, and so is one that memory does not suffice for. ``blame``
    turns what is raised on one clip into what its row keeps. Raises what is no clip's fault: see ``stopping_error``.
    """
    if not clips:
        return []
    try:
        if looks and any(not clip.frames for clip in clips):
            raise SourceError("no evidence frame inside the clip")
        rows = _rows(score(clips))
        if len(rows) != len(clips):
            raise ValueError(f"{len(rows)} rows came out for {len(clips)} clips")
        for column in columns:  # a value that does not fit is its clip's fault
            pa.array([row.get(column.name) for row in rows], column.type)
        return [_stated(name, row) for row in rows]
    except Exception as error:
        stopping = stopping_error(error)
        if stopping is not None and (len(clips) == 1 or not isinstance(stopping, OutOfMemory)):
            raise stopping from error
        if len(clips) == 1:
            reason = blame(error)
            return [schema.failed(name, reason.kind, str(reason))]
    half = len(clips) // 2
    parts = (clips[:half], clips[half:])
    return [row for part in parts for row in score_rows(name, score, part, columns, blame, looks=looks)]


def _stated(name: str, row: dict[str, Any]) -> dict[str, Any]:
    """Return a row with its state: a captioner says one of its own, and why there is no text."""
    why = row.pop("why", None)
    if why is None:
        return {"status": "ok", "failure": None, **row}
    return row | schema.failed(name, why["kind"], why["message"]) | {"status": row["status"]}


def _rows(table: pa.Table) -> list[dict[str, Any]]:
    """Return the rows of a table; lists of floats, such as embeddings, stay arrays: as Python's numbers they would take
    longer than the model on a GPU."""
    columns = [
        column.to_numpy()
        if schema.is_listed(column.type) and pa.types.is_floating(column.type.value_type)
        else column.to_pylist()
        for column in table.columns
    ]
    return [dict(zip(table.column_names, values, strict=True)) for values in zip(*columns, strict=True)]


def _write(
    table: str,
    schema: pa.Schema,
    rows: Mapping[str, list[dict[str, Any]]],
    failed: Callable[[str, SourceError], dict[str, Any]],
) -> Receipt:
    """Write the rows of each unit as one part. A unit whose rows do not fit the schema gets the row ``failed`` instead."""

    def write() -> Receipt:
        return write_part(table, schema, [row for unit in rows.values() for row in unit], keys=tuple(rows))

    try:
        return write()
    except DatasetError:
        bad = {unit: reason for unit in rows if (reason := _unfit(rows[unit], schema, unit)) is not None}
        if not bad:
            raise
        rows = {**rows, **{unit: [failed(unit, reason)] for unit, reason in bad.items()}}
        return write()


def _unfit(rows: Sequence[Mapping[str, Any]], schema: pa.Schema, unit: str) -> Defect | None:
    try:
        conform(rows, schema, unit)
    except DatasetError as error:
        return Defect(str(error))
    return None


# ---- reading what earlier stages wrote ------------------------------------------------------------------------------


def _observed(bundle: pa.Table, columns: Sequence[str]) -> Iterator[dict[str, Any]]:
    """Yield the observations of a bundle's sources, read from the ``files`` it names, file by file."""
    wanted: dict[str, list[str]] = {}
    for source, files in zip(bundle["source_id"].to_pylist(), bundle["files"].to_pylist(), strict=True):
        for file in files:
            wanted.setdefault(file, []).append(source)
    for file, sources in wanted.items():
        for batch in read_part(file, columns, source_ids=sorted(set(sources))):
            yield from batch.to_pylist()


def _whole(rows: Iterable[dict[str, Any]]) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """Yield each source and its segments in order, as soon as all of them are read."""
    incomplete: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        parts = incomplete.setdefault(row["source_id"], [])
        parts.append(row)
        if len(parts) == row["segments"]:
            segments = sorted(incomplete.pop(row["source_id"]), key=lambda part: part["segment"])
            yield row["source_id"], segments


def _evidence(
    bundle: pa.Table, needs: Sequence[str], stored: Sequence[StoredColumns] = (), *, looks: bool = True
) -> list[Evidence]:
    """Return what a model sees of each clip of a bundle, in the bundle's order; frames only where it ``looks`` at them."""
    clips = bundle.to_pylist()
    for each in stored:
        _add_stored(clips, each)
    frames = _frames(bundle, clips) if looks else [()] * len(clips)
    return [
        Evidence(clip_id=clip["clip_id"], span=span_of(clip), frames=each, columns={name: clip[name] for name in needs})
        for clip, each in zip(clips, frames, strict=True)
    ]


def _add_stored(clips: Sequence[dict[str, Any]], stored: StoredColumns) -> None:
    """Add to each clip what the part that it names holds of it; null where no part does."""
    in_file: dict[str, dict[str, dict[str, Any]]] = {}
    for clip in clips:
        clip |= dict.fromkeys(stored.columns.values())
        if clip[stored.file] is not None:
            in_file.setdefault(clip[stored.file], {})[clip["clip_id"]] = clip
    for file, wanted in in_file.items():
        sources = sorted({clip["source_id"] for clip in wanted.values()})
        for part in read_part(file, ["clip_id", *stored.columns], source_ids=sources):
            for row in _rows(part):
                if (of_clip := wanted.get(row["clip_id"])) is not None:
                    of_clip |= {known: row[name] for name, known in stored.columns.items() if name in row}


def _frames(bundle: pa.Table, clips: Sequence[dict[str, Any]]) -> list[tuple[EvidenceFrame, ...]]:
    """Return the evidence frames of each clip, in order."""
    of_source: dict[str, list[int]] = {}
    for number, clip in enumerate(clips):
        of_source.setdefault(clip["source_id"], []).append(number)
    frames: list[dict[int, EvidenceFrame]] = [{} for _ in clips]  # by pts: a clip may lie in two segments
    for observed in _observed(bundle, ["source_id", "evidence"]):
        stored = [EvidenceFrame(pts=frame["pts"], jpeg=frame["jpeg"]) for frame in observed["evidence"]]
        for number in of_source[observed["source_id"]]:
            frames[number] |= {frame.pts: frame for frame in evidence_within(stored, span_of(clips[number]))}
    return [tuple(frame_by_pts[pts] for pts in sorted(frame_by_pts)) for frame_by_pts in frames]


def _keys(rows: Sequence[Mapping[str, Any]], name: str = "source_id") -> tuple[str, ...]:
    return tuple(row[name] for row in rows)
