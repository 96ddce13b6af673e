"""Reports count what tables hold: clips by status, failures by kind, what was kept."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from dailies.curation import schema
from dailies.curation.tables import DatasetTables
from dailies.pipelines.reports import AnnotationReport, SelectionReport, SourceReport
from tests.dataset_builder import observation


@pytest.fixture
def dataset(tmp_path: Path) -> DatasetTables:
    return DatasetTables.create(tmp_path / "dataset")


def failure(kind: str, message: str) -> dict[str, str]:
    return {"stage": "score", "kind": kind, "message": message}


def test_a_scorers_failures_are_counted_and_a_defect_is_told_first(dataset: DatasetTables) -> None:
    scores = dataset.table("scores/x@1", schema.scores([]))
    failures = [("unreadable", "a: no picture"), ("unreadable", "b: no picture"), ("defect", "z: KeyError")]
    rows: list[dict[str, Any]] = [
        {"clip_id": str(n), "source_id": "s", "status": "failed", "failure": failure(*why)}
        for n, why in enumerate(failures)
    ]
    scores.append([*rows, {"clip_id": "9", "source_id": "s", "status": "ok"}])
    report = AnnotationReport.of("x", scores)
    assert (report.failed, report.kinds) == (3, {"unreadable": 2, "defect": 1})
    assert list(report.kinds) == ["unreadable", "defect"]  # the most frequent first
    assert report.message == "z: KeyError"


def test_a_source_in_segments_is_one_and_a_failed_segment_spoils_it(dataset: DatasetTables) -> None:
    observations = dataset.table("observations@1", schema.OBSERVATIONS)
    rows = [
        observation("whole", seconds=1.0, packets_broken=2),
        observation("long", seconds=10.0, packets_broken=1, segments=2),
        observation("long", seconds=5.0, packets_broken=4, segment=1, segments=2),
        observation("half", seconds=100.0, packets_broken=50, segments=2),
        observation("half", seconds=None, segment=1, segments=2, status="failed", failure=failure("hung", "stuck")),
        observation("unnamed", seconds=1000.0, packets_broken=9),
    ]
    observations.append([{**row, "unit": f"{row['source_id']}/{row['segment']}"} for row in rows])
    report = SourceReport.of(observations, {name: f"/videos/{name}.mp4" for name in ("whole", "long", "half")}, [])
    assert (report.given, report.ok, report.seconds, report.packets_broken) == (3, 2, 16.0, 7)
    assert report.failures == (("/videos/half.mp4", "hung", "stuck"),)


def test_a_selections_seconds_are_those_of_kept_clips() -> None:
    verdicts = pa.table(
        {
            "clip_id": ["a", "b", "c", "d"],
            "keep": [True, False, False, False],
            "reason": [None, "zoom_low", "zoom_low", "motion_low"],
        }
    )
    clips = pa.table({"clip_id": ["d", "c", "b", "a"], "seconds": [1.0, 2.0, 4.0, 8.0]})
    report = SelectionReport.of("main", verdicts, clips, {})
    assert (report.clips, report.kept, report.kept_seconds) == (4, 1, 8.0)
    assert list(report.reasons.items()) == [("zoom_low", 2), ("motion_low", 1)]  # the most frequent first
