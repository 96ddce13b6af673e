"""Spans that manifests name, from end to end: one decode of a source, a clip for each span, and more of them later."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dailies.curation import video
from dailies.curation.errors import UsageError
from dailies.curation.policy import SourcePolicy
from dailies.curation.tables import DatasetTables, query, verify
from dailies.pipelines import run
from dailies.pipelines.again import select_again
from dailies.pipelines.maintenance import take_down, verify_dataset
from dailies.pipelines.recipes.recipe import CurationRecipe, load_recipe
from dailies.pipelines.spans import record_spans, stored_spans
from tests.rendered_video import number, numbered, render

RECIPE = """
name: spans
steps:
  - observe: {observers: [change, luma: {fps: 5, short_side: 90}], evidence: {fps: 5, short_side: 90}}
  - cut: {detector: content, min_seconds: 0.2, max_seconds: 4}
  - select: {rules: {manifest.text: {one_of: [one, two, three, late], nulls: drop}}}
  - export: {preset: ultrafast, crf: 12}
"""


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> CurationRecipe:
    path = tmp_path_factory.mktemp("recipe") / "spans.yaml"
    path.write_text(RECIPE)
    return load_recipe(str(path), ())


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """50 frames, 25 a second, that count."""
    path = tmp_path_factory.mktemp("film") / "film.mp4"
    render(path, count=50)
    return path


def manifest(folder: Path, *rows: tuple[float | None, float | None, str], path: Path) -> str:
    table = [{"path": str(path), "start": start, "end": end, "text": text} for start, end, text in rows]
    pq.write_table(pa.Table.from_pylist(table), folder / "list.parquet")
    return str(folder / "list.parquet")


def asked(dataset: Path, statement: str) -> list[dict[str, Any]]:
    return list(query(DatasetTables.open(str(dataset)), statement).to_pylist())


curate = partial(run.curate, policy=SourcePolicy(local=True))  # the film lies elsewhere
ONE, TWO = (0.2, 0.8, "one"), (0.8, 1.2, "two")


def test_spans_are_clips_with_their_own_text_and_frames_up_to_the_export(
    tmp_path: Path, film: Path, recipe: CurationRecipe
) -> None:
    out = tmp_path / "out"
    summary = curate(
        [manifest(tmp_path, ONE, TWO, (1.2, 1.4, "unasked"), (1.8, 5, "far"), path=film)],
        str(out),
        recipe,
        engine="local",
    )
    (report,) = summary.selections
    assert (report.clips, report.kept, dict(report.reasons)) == (4, 2, {"manifest_text_other": 1, "outside": 1})
    assert (summary.clips.counts["ok"], summary.clips.counts["outside"]) == (3, 1)
    rows = pq.read_table(f"{summary.exports[0].path}/data").to_pylist()
    shown = {}
    for row in rows:
        (out / "clip.mp4").write_bytes(row["video"])
        with video.open_source(str(out / "clip.mp4")) as source:
            shown[json.loads(row["manifest"])["text"]] = [number(frame.rgb().mean(-1)) for frame in source.frames()]
    assert shown == {"one": list(range(5, 20)), "two": list(range(20, 30))}
    assert verify(DatasetTables.open(str(out))) == []


def test_spans_that_are_added_later_need_no_other_decode(tmp_path: Path, film: Path, recipe: CurationRecipe) -> None:
    """Neither does the whole file, whose shots are clips beside them. A run that names nothing new changes nothing."""
    out = tmp_path / "out"

    def run(*rows: tuple[float | None, float | None, str]) -> tuple[Any, list[dict[str, Any]]]:
        curate([manifest(tmp_path, *rows, path=film)], str(out), recipe, engine="local")
        (name,) = [name for name in DatasetTables.open(str(out)).tables() if name.startswith("observations")]
        clips = "select clip_id, span_id, start, frames, manifest->>'text' as text from clips order by start, text"
        return DatasetTables.open(str(out)).table(name).version(), asked(out, clips)

    version, before = run(ONE)
    again = run(ONE)
    more = run(TWO, ONE, (1.4, 1.8, "late"))
    whole = run(ONE, TWO, (None, None, "all"))
    assert again == (version, before)
    assert [row["text"] for row in before] == ["one"]
    assert (more[0], [row["text"] for row in more[1]]) == (version, ["one", "two", "late"])
    assert before[0] in more[1]
    assert whole[0] == version
    shots = [row for row in whole[1] if row["span_id"] is None]
    assert [row for row in whole[1] if row["span_id"] is not None] == more[1]
    assert sum(row["frames"] for row in shots) == 50
    assert {row["text"] for row in shots} == {"all"}
    assert run(ONE) == whole


def test_a_changed_source_keeps_the_spans_of_its_manifest(tmp_path: Path, recipe: CurationRecipe) -> None:
    """The run that notices the change names only the folder. What is taken down loses its spans too."""
    videos, out = tmp_path / "videos", tmp_path / "out"
    videos.mkdir()
    render(videos / "film.mp4", count=50)
    curate([manifest(tmp_path, ONE, TWO, path=videos / "film.mp4")], str(out), recipe, engine="local")
    clips = "select span_id, frames, manifest->>'text' as text from clips where span_id is not null order by text"
    before = asked(out, clips)
    render(videos / "film.mp4", count=50, picture=lambda index, *size: numbered(index + 30, *size))
    summary = curate([str(videos)], str(out), recipe, engine="local")
    assert summary.sources.changed == (str(videos / "film.mp4"),)
    assert asked(out, clips) == before
    assert take_down(str(out), [str(videos / "film.mp4")])["spans"] == 3  # the folder named it as a whole


def test_a_corrected_row_reaches_its_clip_and_the_export(
    tmp_path: Path, film: Path, recipe: CurationRecipe, caplog: pytest.LogCaptureFixture
) -> None:
    """The clip keeps its id, and other clips stay as they are. A manifest without the columns, or a folder, says nothing."""
    out = tmp_path / "out"

    def run(*rows: tuple[float | None, float | None, str]) -> tuple[dict[str, str], list[str]]:
        caplog.clear()
        (export,) = curate([manifest(tmp_path, *rows, path=film)], str(out), recipe, engine="local").exports
        clips = {
            row["text"]: row["clip_id"] for row in asked(out, "select clip_id, manifest->>'text' as text from clips")
        }
        exported = pq.read_table(f"{export.path}/data")["manifest"].to_pylist()
        assert verify_dataset(str(out), deep=False) == []
        return clips, sorted(json.loads(text)["text"] for text in exported)

    before, _ = run(ONE, TWO)
    after, exported = run((*ONE[:2], "three"), TWO)
    assert after == {"three": before["one"], "two": before["two"]}
    assert exported == ["three", "two"]
    assert f"{film} start=0.2 end=0.8: the row says other things than before (such rows: 1)" in caplog.text
    assert run((*ONE[:2], "three"), TWO) == (after, exported)
    assert caplog.text == ""
    assert run(TWO) == (after, exported)
    assert f"{film} start=0.2 end=0.8: named by a manifest before, but by no row now (such spans: 1)" in caplog.text
    (tmp_path / "bare.csv").write_text(f"path,start,end\n{film},0.2,0.8\n{film},0.8,1.2\n")
    caplog.clear()
    curate([str(tmp_path / "bare.csv")], str(out), recipe, engine="local")
    assert run((*ONE[:2], "three"), TWO) == (after, exported)
    whole = "select distinct manifest->>'text' as text from clips where span_id is null"
    for text in ("late", "three"):
        run((*ONE[:2], "three"), TWO, (None, None, text))
        assert asked(out, whole) == [{"text": text}]


TOLD = """
name: told
steps:
  - observe: {observers: [change, luma: {fps: 5, short_side: 90}], evidence: {fps: 5, short_side: 90}}
  - cut: {detector: content, min_seconds: 0.2, max_seconds: 1}
  - caption: {captioner: words.py:Frames, name: frames}
  - caption: {captioner: {fuse: {scene: manifest.text, motion: caption_frames}}, name: told}
  - caption: {captioner: {fuse: {scene: caption_told, motion: caption_frames}}, name: twice}
  - select: {rules: {manifest.text: {one_of: [one, two], nulls: drop}}}
  - export: {preset: ultrafast, crf: 12}
"""

WORDS = """
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
import pyarrow as pa
from dailies.curation.captioners import COLUMNS

@dataclass(frozen=True, kw_only=True)
class Frames:
    columns = COLUMNS
    needs = ()

    @contextmanager
    def open(self):
        def caption(evidence):
            with open(Path(__file__).with_name("calls"), "a") as file:
                file.write("x" * len(evidence))
            return pa.Table.from_pylist([{"text": f"{len(clip.frames)} frames", "tokens": 2} for clip in evidence])
        yield caption
"""


def test_a_corrected_row_of_a_whole_video_reaches_all_that_follows_from_it(
    tmp_path: Path, film: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Rules, captions that take the manifest's text in, those that take these in, splits and exports; without a decode,
    and what looks at frames alone is not run again. Other sources keep their rows, and an earlier export its own."""
    (tmp_path / "told.yaml").write_text(TOLD)
    (tmp_path / "words.py").write_text(WORDS)
    render(tmp_path / "other.mp4", count=20, picture=lambda index, *size: numbered(index + 30, *size))
    told, out = load_recipe(str(tmp_path / "told.yaml"), ()), tmp_path / "out"

    def run(text: str, split: str = "train") -> list[dict[str, Any]]:
        rows = [(film, text, split), (tmp_path / "other.mp4", "two", "train")]
        lines = [json.dumps({"path": str(path), "text": text, "split": split}) for path, text, split in rows]
        (tmp_path / "list.jsonl").write_text("\n".join(lines))
        caplog.clear()
        (export,) = curate([str(tmp_path / "list.jsonl")], str(out), told, engine="local").exports
        assert verify_dataset(str(out), deep=False) == []
        rows_of_export = pq.read_table(f"{export.path}/data").to_pylist()
        for row in rows_of_export:
            scene = json.loads(row["manifest"])["text"]
            assert row["caption_told"] == f"{scene}, {row['caption_frames']}"
            assert row["caption_twice"] == row["caption_told"]
        return sorted(rows_of_export, key=lambda row: str(row["clip_id"]))

    def texts(rows: list[dict[str, Any]]) -> dict[str, tuple[str, str]]:
        return {row["clip_id"]: (json.loads(row["manifest"])["text"], row["split"]) for row in rows}

    first = texts(run("one"))
    calls, tables = (tmp_path / "calls").read_text(), DatasetTables.open(str(out)).tables()
    (observations,) = [name for name in tables if name.startswith("observations")]
    version = DatasetTables.open(str(out)).table(observations).version()
    assert set(first.values()) == {("one", "train"), ("two", "train")}
    again = texts(run("two"))
    assert f"{film}: the row says other things than before (such rows: 1); clips are made again" in caplog.text
    assert again == dict.fromkeys(first, ("two", "train"))
    others = {clip: said for clip, said in first.items() if said[0] == "two"}
    assert texts(run("none")) == others  # the rule drops it
    assert texts(run("one", "val")) == {c: said if c in others else ("one", "validation") for c, said in first.items()}
    assert run("one", "val") != []
    assert caplog.text == ""
    curate([str(film)], str(out), told, engine="local")  # which says nothing against the manifest
    assert caplog.text == ""
    assert DatasetTables.open(str(out)).table(observations).version() == version
    assert (tmp_path / "calls").read_text() == calls


def test_a_video_that_had_no_manifest_takes_one(tmp_path: Path, film: Path, recipe: CurationRecipe) -> None:
    """Also where the same manifest names its first span, beside which it is still a whole."""
    out, texts = tmp_path / "out", "select distinct manifest->>'text' as text from clips order by text"
    (tmp_path / "clips.yaml").write_text(RECIPE.partition("  - select")[0])
    curate([str(film)], str(out), load_recipe(str(tmp_path / "clips.yaml"), ()), engine="local")
    curate([manifest(tmp_path, (None, None, "one"), path=film)], str(out), recipe, engine="local")
    assert asked(out, texts) == [{"text": "one"}]
    curate([manifest(tmp_path, (None, None, "late"), TWO, path=film)], str(out), recipe, engine="local")
    assert asked(out, texts) == [{"text": "late"}, {"text": "two"}]


def test_a_caption_over_a_column_that_no_row_has_is_refused_before_any_work(tmp_path: Path, film: Path) -> None:
    (tmp_path / "told.yaml").write_text(TOLD.replace("scene: manifest.text", "scene: manifest.txet"))
    (tmp_path / "words.py").write_text(WORDS)
    told = load_recipe(str(tmp_path / "told.yaml"), ())
    with pytest.raises(UsageError, match=r"step caption_told: unknown column 'manifest.txet'.*did you mean text\?"):
        curate([manifest(tmp_path, (None, None, "one"), path=film)], str(tmp_path / "out"), told, engine="local")
    assert not (tmp_path / "calls").exists()


@pytest.mark.parametrize(
    ("stored", "named", "same"),
    [
        ('{"score": "0.90", "note": ""}', '{"score": 0.9, "note": null}', True),
        ('{"score": "0.9"}', '{"score": 0.8}', False),
        ('{"score": 0.9, "n": 1}', '{"score": "0.9", "n": 1.0}', True),
        ('{"score": 0.9}', '{"score": "0.8"}', False),
        ('{"text": "a"}', '{"text": 1}', False),
        ('{"text": "a"}', '{"text": "a", "split": "val"}', False),
        ('{"text": "a", "split": "val"}', '{"text": "a"}', False),
        ('{"text": "a"}', None, True),
        (None, '{"text": "a"}', False),
    ],
)
def test_numbers_stored_as_text_are_no_correction(
    tmp_path: Path, stored: str | None, named: str | None, same: bool
) -> None:
    dataset = DatasetTables.create(tmp_path)

    def record(text: str | None) -> int | None:
        span = {"start": 0.0, "end": 1.0, "manifest": text}
        row = {"source_id": "s", "uri": "/s.mp4", "manifest": None, "whole": False, "spans": [span]}
        record_spans(dataset, "observations@00000000", [row])
        return dataset.table("spans").version()

    assert (record(stored) == record(named)) is same
    assert stored_spans(dataset)["manifest"].to_pylist() == [stored if same else named]


def test_a_source_that_was_whole_stays_so_when_spans_are_added(
    tmp_path: Path, film: Path, recipe: CurationRecipe
) -> None:
    out = tmp_path / "out"
    (tmp_path / "clips.yaml").write_text(RECIPE.partition("  - select")[0])
    cutting = load_recipe(str(tmp_path / "clips.yaml"), ())
    curate([str(film)], str(out), cutting, engine="local")
    shots = asked(out, "select clip_id from clips")
    curate([manifest(tmp_path, ONE, path=film)], str(out), recipe, engine="local")
    assert len(asked(out, "select * from clips")) == len(shots) + 1
    other = load_recipe(str(tmp_path / "clips.yaml"), ["cut.max_seconds=3"])  # another table of clips, from nothing
    curate([str(film)], str(out), other, engine="local")
    assert len(asked(out, "select * from clips where span_id is null")) == len(shots)
    assert len(asked(out, "select * from clips where span_id is not null")) == 1


def test_a_rule_over_a_column_that_no_row_has_is_refused_before_any_work(
    tmp_path: Path, film: Path, recipe: CurationRecipe
) -> None:
    with pytest.raises(
        UsageError, match=r"select main: unknown column 'manifest.text'; there is no manifest with further columns"
    ):
        curate([str(film)], str(tmp_path / "out"), recipe, engine="local")
    assert DatasetTables.open(str(tmp_path / "out")).tables() == []
    curate([manifest(tmp_path, ONE, path=film)], str(tmp_path / "out"), recipe, engine="local")
    curate([str(film)], str(tmp_path / "out"), recipe, engine="local")  # a row of before has the column
    with pytest.raises(UsageError, match=r"'manifest.txet'.*did you mean text\?"):
        select_again(str(tmp_path / "out"), "main", ["main.rules={manifest.txet: {one_of: [one], nulls: drop}}"])


def test_videos_in_cells_are_curated_like_files(tmp_path: Path, film: Path, recipe: CurationRecipe) -> None:
    render(tmp_path / "other.mp4", count=20, picture=lambda index, *size: numbered(index + 30, *size))
    cells = [
        {"video": {"bytes": path.read_bytes(), "path": path.name}, "text": text}
        for path, text in ((film, "one"), (tmp_path / "other.mp4", "two"))
    ]
    pq.write_table(pa.Table.from_pylist(cells), tmp_path / "cells.parquet")
    summary = curate([str(tmp_path / "cells.parquet")], str(tmp_path / "out"), recipe, engine="local")
    assert (summary.sources.ok, summary.exports[0].failed) == (2, 0)
    frames = asked(
        tmp_path / "out", "select manifest->>'text' as text, len(pts) as frames from observations order by 1"
    )
    assert frames == [{"text": "one", "frames": 50}, {"text": "two", "frames": 20}]
    exported = asked(
        tmp_path / "out", "select distinct exported_manifest->>'text' as text from export_export order by 1"
    )
    assert exported == [{"text": "one"}, {"text": "two"}]
    again = curate([str(tmp_path / "cells.parquet")], str(tmp_path / "out"), recipe, engine="local")
    assert again.clips == summary.clips
