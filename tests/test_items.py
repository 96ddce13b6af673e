"""One bad item among good ones is a row with kind, message and where; what is no item's fault ends the run in one line."""

from __future__ import annotations

import errno
import json
import os
import resource
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from fractions import Fraction
from importlib.metadata import version
from pathlib import Path
from typing import Any

import av
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dailies.curation import schema, video, world
from dailies.curation.errors import (
    DailiesError,
    Defect,
    NotInstalled,
    Outage,
    OutOfMemory,
    SourceError,
    Truncated,
    UsageError,
    item_error,
    stopping_error,
)
from dailies.curation.export import extraction
from dailies.curation.pictures import open_picture
from dailies.curation.tables import DatasetTables, query, verify
from dailies.curation.timing import Span
from dailies.curation.types import Evidence, EvidenceFrame
from dailies.pipelines import stages
from dailies.pipelines.stages import score_rows
from tests.conftest import Dailies
from tests.rendered_video import render

COLUMNS = [schema.field("length", pa.int32(), "of the clip's name", "letter")]
Score = Callable[[Sequence[Evidence]], pa.Table]


def clip(name: str) -> Evidence:
    span = Span(start=0, end=1, time_base=Fraction(1))
    return Evidence(clip_id=name, span=span, frames=(EvidenceFrame(pts=0, jpeg=b""),))


CLIPS = [clip(str(number)) for number in range(9)]


def scorer(bad: Callable[[Sequence[Evidence]], Any], calls: list[int] | None = None) -> Score:
    """A scorer whose values are the clips' ids; ``bad`` raises for a batch, or returns other values."""

    def score(batch: Sequence[Evidence]) -> pa.Table:
        if calls is not None:
            calls.append(len(batch))
        values = bad(batch)
        return pa.table({"length": [int(clip.clip_id) for clip in batch] if values is None else values})

    return score


def raising(error: Exception, *names: str) -> Callable[[Sequence[Evidence]], None]:
    def bad(batch: Sequence[Evidence]) -> None:
        if any(clip.clip_id in names for clip in batch):
            raise error

    return bad


@pytest.mark.parametrize("error", [KeyError("odd"), ZeroDivisionError("odd"), AssertionError("odd"), OSError("odd")])
def test_a_batch_is_halved_until_the_bad_clips_stand_alone(error: Exception) -> None:
    calls: list[int] = []
    rows = score_rows("own", scorer(raising(error, "3", "8"), calls), CLIPS, COLUMNS)
    assert [row["status"] for row in rows] == ["failed" if name in (3, 8) else "ok" for name in range(9)]
    assert [row.get("length") for row in rows] == [None if name in (3, 8) else name for name in range(9)]
    failure = rows[3]["failure"]
    assert (failure["stage"], failure["kind"]) == ("own", "defect")
    assert failure["message"].startswith(f"{type(error).__name__}: ")
    assert "odd" in failure["message"]
    assert "(test_items.py:" in failure["message"]
    assert rows[3]["failed_version"] == version("dailies")
    assert len(calls) < 2 * 9  # and not each clip alone in any case: 13


def test_a_reason_of_the_clip_keeps_its_kind() -> None:
    rows = score_rows("own", scorer(raising(Truncated("ends early"), "3")), CLIPS, COLUMNS)
    assert rows[3]["failure"] == {"stage": "own", "kind": "truncated", "message": "ends early"}


@pytest.mark.parametrize("values", [lambda n: [1] * (n - 1), lambda n: ["words"] * n], ids=["too few", "text"])
def test_what_comes_out_wrong_for_a_clip_is_its_row(values: Callable[[int], list[Any]]) -> None:
    def bad(batch: Sequence[Evidence]) -> list[Any] | None:
        return values(len(batch)) if any(clip.clip_id == "3" for clip in batch) else None

    rows = score_rows("own", scorer(bad), CLIPS, COLUMNS)
    assert [number for number, row in enumerate(rows) if row["status"] == "failed"] == [3]
    assert rows[3]["failure"]["kind"] == "defect"


def test_a_batch_that_memory_does_not_suffice_for_is_halved() -> None:
    def bad(batch: Sequence[Evidence]) -> None:
        if len(batch) > 2:
            raise MemoryError

    assert [row["status"] for row in score_rows("own", scorer(bad), CLIPS, COLUMNS)] == ["ok"] * 9


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (MemoryError("of 3 GB"), OutOfMemory),
        (OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), Outage),
        (OSError(errno.EFBIG, os.strerror(errno.EFBIG)), Outage),
        (OSError(errno.ENOMEM, os.strerror(errno.ENOMEM)), Outage),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 3 bytes"), OutOfMemory),
        (ValueError("Generic LocalFileSystem error: No space left on device (os error 28)"), Outage),
        (ImportError("No module named 'x'"), NotInstalled),
        (UsageError("model=x: no such file"), UsageError),
    ],
)
def test_what_is_no_clips_fault_ends_the_run(error: Exception, kind: type[DailiesError]) -> None:
    calls: list[int] = []
    with pytest.raises(kind) as caught:
        score_rows("own", scorer(raising(error, "3"), calls), CLIPS, COLUMNS)
    assert "\n" not in str(caught.value)
    assert str(error) in str(caught.value)
    if kind is not OutOfMemory:
        assert calls == [9]  # not tried on each half


def test_whose_fault_an_exception_is() -> None:
    assert stopping_error(OSError(errno.ENOENT, "no such file")) is None
    assert stopping_error(ValueError("x")) is None
    truncated = Truncated("x")
    assert item_error(truncated) is truncated
    assert isinstance(item_error(ValueError("two\nlines")), Defect)
    assert str(item_error(ValueError("two\nlines"))) == "ValueError: two lines"


@contextmanager
def no_more_files() -> Iterator[None]:
    """The system opens no further file for this process."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.parametrize(
    "read", [video.content_id, lambda path: video.open_source(path).probe, lambda path: open_picture(Path(path))]
)
def test_file_handles_that_run_out_are_no_fault_of_what_is_read(read: Callable[[str], Any], tmp_path: Path) -> None:
    render(tmp_path / "film.mp4", count=3)
    path = str(tmp_path / "film.mp4")
    with suppress(SourceError):
        read(path)  # and so imports what it needs
    with no_more_files(), pytest.raises(OSError, match="Too many open files") as caught:
        read(path)
    assert isinstance(stopping_error(caught.value), Outage)


# ---- through the pipeline -------------------------------------------------------------------------------------------

RECIPE = """
name: items
steps:
  - observe: {observers: [change], evidence: {fps: 2, short_side: 90}}
  - cut: {detector: content, min_seconds: 0.5, max_seconds: 4}
  - score: {scorer: text}
  - select: {duplicates: keep, rules: {frames: {min: 1}}}
  - export: {preset: ultrafast}
"""


@pytest.fixture
def command(tmp_path: Path) -> tuple[object, ...]:
    """Two videos of a few shots, and how to curate them."""
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    for number in (1, 2):
        world.encode(world.write_script(number, shots=2, shot_frames=(30, 40)), tmp_path / f"{number}.mp4")
    recipe = ("--recipe", tmp_path / "recipe.yaml", "--engine", "local", "--json")
    return ("curate", tmp_path / "*.mp4", "--out", tmp_path / "dataset", *recipe)


def test_a_source_that_cannot_be_cut_is_a_row_and_is_tried_again_by_the_next_run(
    tmp_path: Path, command: tuple[object, ...], dailies: Dailies, monkeypatch: pytest.MonkeyPatch
) -> None:
    clip_rows, calls = stages.clip_rows, []

    def odd(row: Any, *more: Any, **options: Any) -> Any:
        calls.append(row["uri"])
        if row["uri"].endswith("1.mp4"):
            raise KeyError("odd")
        return clip_rows(row, *more, **options)

    with monkeypatch.context() as patch:
        patch.setattr(stages, "clip_rows", odd)
        done = dailies(*command)
        assert done.returncode == 0, done.stderr
        counts = json.loads(done.stdout)["clips"]["counts"]
        assert counts["failed"] == 1
        assert counts["ok"] >= 1
        rows = query(
            DatasetTables.open(tmp_path / "dataset"), "select failure, failed_version from clips where status='failed'"
        )
        assert rows["failure"][0].as_py()["message"].startswith("KeyError: 'odd' (test_items.py:")
        reason = query(DatasetTables.open(tmp_path / "dataset"), "select reason from selection_main where not keep")
        assert "failed" in reason["reason"].to_pylist()
        assert verify(DatasetTables.open(tmp_path / "dataset")) == []
        assert len(calls) == 2
        done = dailies(*command[:-1])
        assert "1 could not be cut (the next run tries it again by itself)" in done.stdout
        assert [Path(uri).name for uri in calls[2:]] == ["1.mp4"]  # once in a run, and what succeeded is done
    counts = json.loads(dailies(*command).stdout)["clips"]["counts"]
    assert counts["failed"] == 0
    assert counts["ok"] >= 2


def test_a_clip_that_trips_the_extraction_is_a_row_and_a_full_disk_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def extract(clip: Any) -> dict[str, Any]:
        if clip["clip_id"] == "b":
            raise RuntimeError("odd")
        return {"frames": 1, "video": b"x"} if clip["clip_id"] != "c" else {"frames": "many", "video": b"x"}

    path = tmp_path / "clips.parquet"
    assert extraction.write_extracted(str(path), [{"clip_id": name} for name in "abcd"], extract) == 2
    rows = {row["clip_id"]: row["failure"] for row in pq.read_table(path).to_pylist()}
    assert rows["a"] is rows["d"] is None
    assert rows["b"]["message"].startswith("RuntimeError: odd")
    assert rows["c"]["kind"] == "defect"

    def full(clip: Any) -> dict[str, Any]:
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(Outage, match="No space left on device"):
        extraction.write_extracted(str(path), [{"clip_id": "a"}], full)


def test_an_odd_picture_does_not_end_the_run(tmp_path: Path, command: tuple[object, ...], dailies: Dailies) -> None:
    with av.open(str(tmp_path / "ticker.mp4"), "w") as file:
        stream = file.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 4096, 16, "yuv420p"
        frame = av.VideoFrame.from_ndarray(np.full((16, 4096, 3), 90, np.uint8), format="rgb24")
        for _ in range(40):
            file.mux(stream.encode(frame))
        file.mux(stream.encode())
    done = dailies(*command)
    assert done.returncode == 0, done.stderr
    rows = query(
        DatasetTables.open(tmp_path / "dataset"),
        "select text_status as status from clips join scores_text using (clip_id) where width = 4096",
    )
    assert len(rows) == 1
    assert set(rows["status"].to_pylist()) <= {"ok", "failed"}


def test_a_full_disk_in_a_stage_is_one_line(
    command: tuple[object, ...], dailies: Dailies, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*arguments: Any, **more: Any) -> Any:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(stages, "write_part", full)
    done = dailies(*command)
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "No space left on device; the same command resumes" in done.stderr


# ---- exports --------------------------------------------------------------------------------------------------------


def test_clips_whose_source_was_away_are_exported_on_request(
    tmp_path: Path, command: tuple[object, ...], dailies: Dailies
) -> None:
    export = ("export", tmp_path / "dataset", "--set", "export.crf=30", "--engine", "local")
    assert dailies(*command).returncode == 0
    (tmp_path / "1.mp4").rename(tmp_path / "away")
    first = json.loads(dailies(*export, "--json").stdout)
    assert first["failed"] > 0
    (before,) = [Path(first["path"])]
    kept = {row["clip_id"]: row["video"] for row in pq.read_table(before / "data").to_pylist()}
    assert kept
    assert "; --retry-failed tries them again" in dailies(*export).stdout
    still = json.loads(dailies(*export, "--retry-failed", "--json").stdout)
    found = {"extracted": 0}  # nothing is made of an export that exists
    assert still == first | found, "nothing was gained"
    (tmp_path / "away").rename(tmp_path / "1.mp4")
    assert json.loads(dailies(*export, "--json").stdout) == first | found, "not asked for"
    again = json.loads(dailies(*export, "--retry-failed", "--json").stdout)
    assert again["failed"] == 0
    assert sum(again["splits"].values()) == sum(first["splits"].values()) + first["failed"]
    videos = {row["clip_id"]: row["video"] for row in pq.read_table(Path(again["path"]) / "data").to_pylist()}
    assert kept.items() <= videos.items()  # taken over, not encoded again
    assert json.loads(dailies(*export, "--json").stdout) == again | found | {"taken_over": 0}
    assert dailies("verify", tmp_path / "dataset", "--deep").returncode == 0
    assert not list((tmp_path / "dataset" / "exports").glob(".staging*"))
