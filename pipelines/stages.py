"""The curation stages are work for the engine: each reads tables, writes parts of its own, and returns receipts."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, ClassVar

import pyarrow as pa

from dailies.curation import observations, schema
from dailies.curation.clips import ClipRules, clip_rows, span_of
from dailies.curation.errors import SourceError
from dailies.curation.observations import evidence_within, joined_row
from dailies.curation.observe import EvidenceGrid
from dailies.curation.tables import Receipt, read_part, write_part
from dailies.curation.types import Evidence, EvidenceFrame, Resources
from dailies.pipelines.isolate import Isolated

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
    name: ClassVar[str] = "observe"
    resources: ClassVar[Resources] = Resources(cpus=1, memory_gb=1)

    @contextmanager
    def open(self) -> Iterator[Callable[[pa.Table], Receipt]]:
        with Isolated(
            "dailies.curation.observations:observe_row", stall_seconds=self.stall_seconds, memory_gb=MEMORY_GB
        ) as child:

            def call(bundle: pa.Table) -> Receipt:
                rows = [self._row(child, source) for source in bundle.to_pylist()]
                return write_part(self.table, schema.OBSERVATIONS, rows, keys=_keys(rows, "unit"))

            yield call

    def _row(self, child: Isolated, source: dict[str, Any]) -> dict[str, Any]:
        try:
            row: dict[str, Any] = child.call(source, self.observers, self.evidence, self.segment_seconds)
        except SourceError as error:  # its process hung, crashed or tripped over a defect of ours
            row = observations.empty_row(source) | observations.failed(error)
        return row


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
    resources: ClassVar[Resources] = Resources(cpus=1, memory_gb=1)

    @contextmanager
    def open(self) -> Iterator[Callable[[pa.Table], Receipt]]:
        columns = [name for name in schema.OBSERVATIONS.names if name != "evidence"]

        def call(bundle: pa.Table) -> Receipt:
            units = {unit["source_id"]: unit for unit in bundle.to_pylist()}
            rows: list[dict[str, Any]] = []
            keys: list[str] = []
            for observed in _whole(_observed(bundle, columns)):
                unit = units[observed["source_id"]]
                observed |= {"manifest": unit["manifest"] or observed["manifest"]}
                rows += clip_rows(
                    observed, self.detector, self.observers, self.rules, whole=unit["whole"], spans=unit["spans"]
                )
                keys += [observed["source_id"]] * unit["whole"] + [span["span_id"] for span in unit["spans"]]
            return write_part(self.table, self.schema, rows, keys=keys)

        yield call


@dataclass(frozen=True, kw_only=True)
class ScoreWork:
    """Run one model over the evidence of clips."""

    name: str
    table: str
    scorer: Any

    @property
    def resources(self) -> Resources:
        return self.scorer.resources  # type: ignore[no-any-return]

    @contextmanager
    def open(self) -> Iterator[Callable[[pa.Table], Receipt]]:
        with self.scorer.open() as score:

            def call(bundle: pa.Table) -> Receipt:
                clips = list(_evidence(bundle, self.scorer.needs))
                sources = dict(zip(bundle["clip_id"].to_pylist(), bundle["source_id"].to_pylist(), strict=True))
                rows = [
                    {"clip_id": clip.clip_id, "source_id": sources[clip.clip_id], **columns}
                    for clip, columns in zip(clips, score_rows(self.name, score, clips), strict=True)
                ]
                return write_part(self.table, schema.scores(self.scorer.columns), rows, keys=_keys(rows, "clip_id"))

            yield call


def score_rows(
    name: str, score: Callable[[Sequence[Evidence]], pa.Table], clips: Sequence[Evidence]
) -> list[dict[str, Any]]:
    """Return the scorer's columns for each clip; a batch that fails is scored clip by clip, to find the bad one."""
    if not clips:
        return []
    try:
        if any(not clip.frames for clip in clips):
            raise SourceError("no evidence frame inside the clip")
        return [{"status": "ok", "failure": None, **row} for row in score(clips).to_pylist()]
    except SourceError as error:
        if len(clips) == 1:
            failure = {"stage": name, "kind": error.kind, "message": str(error)}
            return [{"status": "failed", "failure": failure}]
        return [row for clip in clips for row in score_rows(name, score, [clip])]


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


def _whole(rows: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Yield one row per source: the segments of a long source are joined as soon as all of them are read."""
    incomplete: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        parts = incomplete.setdefault(row["source_id"], [])
        parts.append(row)
        if len(parts) == row["segments"]:
            yield joined_row(sorted(incomplete.pop(row["source_id"]), key=lambda part: part["segment"]))


def _evidence(bundle: pa.Table, needs: Sequence[str]) -> Iterator[Evidence]:
    """Yield the evidence of each clip of a bundle, in the bundle's order."""
    clips = bundle.to_pylist()
    of_source: dict[str, list[int]] = {}
    for number, clip in enumerate(clips):
        of_source.setdefault(clip["source_id"], []).append(number)
    frames: list[dict[int, EvidenceFrame]] = [{} for _ in clips]  # by pts: a clip may lie in two segments
    for observed in _observed(bundle, ["source_id", "evidence"]):
        stored = [EvidenceFrame(pts=frame["pts"], jpeg=frame["jpeg"]) for frame in observed["evidence"]]
        for number in of_source[observed["source_id"]]:
            frames[number] |= {frame.pts: frame for frame in evidence_within(stored, span_of(clips[number]))}
    for clip, frame_by_pts in zip(clips, frames, strict=True):
        columns = {name: clip[name] for name in needs}
        ordered = tuple(frame_by_pts[pts] for pts in sorted(frame_by_pts))
        yield Evidence(clip_id=clip["clip_id"], span=span_of(clip), frames=ordered, columns=columns)


def _keys(rows: Sequence[Mapping[str, Any]], name: str = "source_id") -> tuple[str, ...]:
    return tuple(row[name] for row in rows)
