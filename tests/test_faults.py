"""Small inputs beside the repository that once went wrong, each with what is right for it, in both engines. Slow."""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import numpy as np
import pyarrow.parquet as pq
import pytest

from dailies.curation import video
from dailies.curation.errors import ExportError, NoVideo
from dailies.curation.pictures import GROUND, open_picture
from dailies.curation.tables import DatasetTables, query
from dailies.training.data.pictures import folder_pictures, parquet_pictures
from dailies.zoo.generate import open_image
from tests.conftest import Dailies
from tests.test_curate import comparable, table
from tests.test_geometry import roundness

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]

ENGINES = ("local", "ray")
MODES = ("encode", "copy", "smart", "none")
EVERYTHING = """
name: everything
steps:
  - observe:
      observers: [boundary, {luma: {fps: 2, short_side: 240}}, motion, sharpness, borders, combing]
      evidence: {fps: 1, short_side: 384, quality: 80}
  - cut: {detector: boundary, min_seconds: 2, max_seconds: 10}
  - score: {scorer: text}
  - select: {name: main, rules: {}}
  - export: {select: main}
"""
"""The default recipe without its rules, so that every clip is exported."""

# Of each source the frames, and the seconds from its first frame to its end.
SOURCES = {
    "abr.ts": (125, 5.0),
    "c_ticker_4096x16.mp4": (75, 3.0),
    "cmaf_gap.mp4": (150, 10.0),
    "deck1.mp4": (7, 7.0),
    "fps01.mp4": (16, 16.0),
    "rec.webm": (76, 7.04),
    "screen.mp4": (151, 36.04),
    "title_big.mp4": (25, 2.5),
    "turned.ts": (150, 6.0),
}
# Of each source its clips: status, first frame, frames, seconds from its first frame on, length in seconds, size.
SMALL, LARGE, TALL = (320, 180), (640, 360), (180, 320)
CLIPS: dict[str, list[tuple[str, int, int, float, float, tuple[int, int]]]] = {
    "abr.ts": [("ok", 0, 125, 0, 5, LARGE)],
    "c_ticker_4096x16.mp4": [("ok", 0, 75, 0, 3, (4096, 16))],
    "cmaf_gap.mp4": [("ok", 50 * part, 50, 4 * part, 2, SMALL) for part in range(3)],
    "deck1.mp4": [("too_short", picture, 1, picture, 1, SMALL) for picture in range(7)],
    "fps01.mp4": [("ok", 4 * shot, 4, 4 * shot, 4, SMALL) for shot in range(4)],
    "rec.webm": [("ok", 0, 76, 0, 7.04, SMALL)],
    "screen.mp4": [
        ("ok", 0, 74, 0, 2.96, SMALL),
        ("too_long", 74, 1, 2.96, 10.04, SMALL),
        ("ok", 75, 74, 13, 2.96, SMALL),
        ("too_long", 149, 1, 15.96, 20.04, SMALL),
        ("too_short", 150, 1, 36, 0.04, SMALL),
    ],
    "title_big.mp4": [("ok", 0, 25, 0, 2.5, LARGE)],
    "turned.ts": [("ok", 0, 75, 0, 3, SMALL), ("ok", 75, 75, 3, 3, TALL)],
}


@pytest.fixture(scope="session")
def faults(shared_data: Path) -> Path:
    if not (shared_data / "faults").is_dir():
        pytest.skip(f"no inputs at {shared_data / 'faults'}")
    return shared_data / "faults"


# ---- media ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def datasets(faults: Path, tmp_path_factory: pytest.TempPathFactory, dailies: Dailies) -> Callable[[str], Path]:
    """The folder of media curated by an engine, once, and exported in each mode."""
    folder = tmp_path_factory.mktemp("faults")
    (folder / "everything.yaml").write_text(EVERYTHING)
    failed: dict[str, str] = {}

    def made(engine: str) -> Path:
        out = folder / engine
        if not out.exists() and engine not in failed:
            for command in (
                ("curate", faults / "media", "--out", out, "--recipe", folder / "everything.yaml"),
                *(("export", out, "--set", f"export.mode={mode}") for mode in MODES[1:]),
            ):
                done = dailies(*command, "--engine", engine)
                if done.returncode:
                    failed[engine] = done.stderr
        assert engine not in failed, failed[engine]
        return out

    return made


@pytest.fixture(scope="module", params=ENGINES)
def curated(request: pytest.FixtureRequest, datasets: Callable[[str], Path]) -> Path:
    return datasets(request.param)


def exported(dataset: Path, source: str, mode: str) -> list[tuple[dict[str, Any], bytes | None]]:
    """(index row, its file's bytes) of each clip of a source in the export of ``mode``, in order."""
    for folder in (dataset / "exports").iterdir():
        if json.loads((folder / "export.json").read_text())["extraction"]["mode"] == mode:
            index = pq.read_table(folder / "index.parquet").to_pylist()
            shards = [row for shard in (folder / "data").glob("*.parquet") for row in pq.read_table(shard).to_pylist()]
            data = {row["clip_id"]: row["video"] for row in shards}
            rows = [row for row in index if Path(row["uri"]).name == source]
            return [(row, data.get(row["clip_id"])) for row in sorted(rows, key=lambda row: row["source_start"] or 0)]
    raise AssertionError(f"no export in mode {mode}")


def test_the_truncated_file_alone_fails(curated: Path) -> None:
    rows = {Path(row["uri"]).name: row for row in table(curated, "observations").to_pylist()}
    assert set(rows) == {*SOURCES, "late_cut.mkv"}
    failed = {name: row["failure"]["kind"] for name, row in rows.items() if row["status"] != "ok"}
    assert failed == {"late_cut.mkv": "truncated"}


@pytest.mark.parametrize("source", SOURCES)
def test_frames_and_ends_are_the_sources(source: str, curated: Path) -> None:
    (row,) = [row for row in table(curated, "observations").to_pylist() if Path(row["uri"]).name == source]
    assert len(row["pts"]) == SOURCES[source][0]
    assert row["seconds"] == pytest.approx(SOURCES[source][1], abs=0.0005)


@pytest.mark.parametrize("source", CLIPS)
def test_clips_have_their_bounds_and_sizes(source: str, curated: Path) -> None:
    rows = [row for row in table(curated, "clips/boundary").to_pylist() if Path(row["uri"]).name == source]
    rows.sort(key=lambda row: row["first_frame"])
    expected = CLIPS[source]
    assert [
        (row["status"], row["first_frame"], row["frames"], (row["width"], row["height"])) for row in rows
    ] == [(status, first, frames, size) for status, first, frames, _, _, size in expected]  # fmt: skip
    for row, (_, _, _, start, seconds, _) in zip(rows, expected, strict=True):
        assert (row["start_seconds"], row["seconds"]) == pytest.approx((start, seconds), abs=0.0005)


def test_a_large_title_is_text_and_a_ticker_costs_no_more_than_its_score(curated: Path) -> None:
    rows = query(DatasetTables.open(curated), "select uri, text_area from clips join scores_text using (clip_id)")
    areas = {Path(row["uri"]).name: row["text_area"] for row in rows.to_pylist()}
    assert areas["title_big.mp4"] == pytest.approx(0.38, abs=0.08)
    assert {name for name, area in areas.items() if area is None} <= {"c_ticker_4096x16.mp4"}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("source", CLIPS)
def test_every_file_is_what_its_row_says(source: str, mode: str, curated: Path) -> None:
    clips = [clip for clip in CLIPS[source] if clip[0] == "ok"]
    rows = exported(curated, source, mode)
    assert len(rows) == len(clips)
    for (row, data), (_, _, frames, _, seconds, size) in zip(rows, clips, strict=True):
        if (
            row["status"] == "failed"
        ):  # of what was recorded as the screen changed, the second part begins at no keyframe
            assert (mode, source, row["failure"]["kind"]) == ("copy", "screen.mp4", "not_copied")
            continue
        assert (row["width"], row["height"]) == size
        if mode != "copy":
            assert (row["frames"], row["seconds"]) == (frames, pytest.approx(seconds, abs=0.0005))
        assert row["seconds"] + row["lost_seconds"] == pytest.approx(seconds, abs=0.0005)
        assert (data is None) == (mode == "none")
        if data is not None:
            with av.open(io.BytesIO(data)) as container:
                sizes = [(frame.width, frame.height) for frame in container.decode(video=0)]
                assert sizes == [size] * row["frames"]
                assert container.duration is not None
                assert container.duration / 1e6 == pytest.approx(row["seconds"], abs=0.002)
        assert video.clip_frames({**row, "video": data}).pixels.shape == (row["frames"], size[1], size[0], 3)


@pytest.mark.parametrize("mode", MODES)
def test_circles_stay_round(mode: str, curated: Path) -> None:
    for row, data in exported(curated, "turned.ts", mode):
        middle = video.clip_frames({**row, "video": data}).pixels[row["frames"] // 2][24:]  # below the frame's number
        white = middle.min(axis=-1, keepdims=True) > 230
        assert roundness(np.where(white, 255, 0).repeat(3, axis=-1)) == pytest.approx(1, abs=0.06)


def test_verify_finds_nothing(curated: Path, dailies: Dailies) -> None:
    done = dailies("verify", curated, "--deep")
    assert done.returncode == 0, done.stdout


def test_ray_makes_the_same_tables(datasets: Callable[[str], Path]) -> None:
    local, ray = (datasets(engine) for engine in ENGINES)
    for name in ("observations", "clips/boundary", "scores/text", "selections/main"):
        rows = [table(dataset, name) for dataset in (local, ray)]
        key = "source_id" if name == "observations" else "clip_id"
        ours, theirs = (
            repr(t.drop_columns({"seconds_taken"} & {*t.column_names}).sort_by(key).to_pylist()) for t in rows
        )
        assert ours == theirs, name
    for mode in MODES:
        for source in CLIPS:
            ours, theirs = (
                [repr({**row, "bytes": None}) for row, _ in exported(dataset, source, mode)] for dataset in (local, ray)
            )
            assert ours == theirs, (mode, source)


# ---- manifests ------------------------------------------------------------------------------------------------------

# Of each manifest its clips: source, start in seconds, split where the manifest says it, other columns. LONG: a caption.
LONG = 200_000
MANIFESTS: dict[str, list[tuple[str, float, str | None, dict[str, Any]]]] = {
    "segments.parquet": [
        ("a.mp4", 0, None, {"caption": "one"}),
        ("a.mp4", 1, None, {"caption": "two"}),
        ("a.mp4", 2, None, {"caption": "three"}),
        ("b.mp4", 0, None, {"caption": "b"}),
    ],
    "urlpath.parquet": [
        (f"{letter}.mp4", 0, None, {"caption": word, "url": f"https://www.youtube.com/watch?v={4 * letter}"})
        for letter, word in (("a", "x"), ("b", "y"))
    ],
    "split.parquet": [
        ("a.mp4", 0, "validation", {"split": "val"}),
        ("b.mp4", 0, "test", {"split": "Test"}),
        ("c.mp4", 0, "train", {"split": "train"}),
    ],
    "num.csv": [
        ("a.mp4", 0, None, {"license": "CC0", "score": 0.9}),
        ("b.mp4", 0, None, {"license": "CC-BY", "score": 0.1}),
        ("c.mp4", 0, None, {"license": "CC0", "score": None}),
    ],
    "late.csv": [("a.mp4", 0, None, {"caption": "x"}), ("b.mp4", 0, None, {"caption": "y" * LONG})],
    "hfvideo.parquet": [("a.mp4", 0, None, {"caption": "x"}), ("b.mp4", 0, None, {"caption": "y"})],
    "list.jsonl": [("a.mp4", 0, None, {"text": "x"}), ("b.mp4", 0, None, {"text": "y"})],
}


@pytest.mark.parametrize("manifest", MANIFESTS)
def test_manifests_are_read_whole(manifest: str, faults: Path, tmp_path: Path, dailies: Dailies) -> None:
    recipe = Path(__file__).with_name("plain.yaml")
    for engine in ENGINES:
        done = dailies(
            "curate",
            faults / "manifests" / manifest,
            "--out",
            tmp_path / engine,
            "--recipe",
            recipe,
            "--engine",
            engine,
        )
        assert done.returncode == 0, done.stderr
        assert dailies("verify", tmp_path / engine, "--deep").returncode == 0
    assert comparable(tmp_path / "local") == comparable(tmp_path / "ray")
    rows = table(tmp_path / "local", "clips/boundary").to_pylist()
    rows.sort(key=lambda row: (row["uri"], row["start_seconds"]))
    expected = MANIFESTS[manifest]
    assert {row["status"] for row in rows} == {"ok"}
    found = [(Path(row["uri"]).name, row["start_seconds"], json.loads(row["manifest"])) for row in rows]
    assert found == [(name, start, columns) for name, start, _, columns in expected]
    for row, (_, _, split, _) in zip(rows, expected, strict=True):
        assert split in (None, row["split"])
    (export,) = DatasetTables.open(tmp_path / "local").exports()
    index = pq.read_table(tmp_path / "local" / "exports" / export / "index.parquet")
    assert index["status"].to_pylist() == ["ok"] * len(expected)


# ---- pictures -------------------------------------------------------------------------------------------------------

SIZE = (48, 48)  # width, height that training and the zoo ask for


def seen(path: Path, tmp_path: Path) -> list[np.ndarray]:
    """A picture as it is opened, as training has it, which is to cover ``SIZE``, and as ``zoo run --image``, cropped to it."""
    folder = tmp_path / "one"
    folder.mkdir()
    shutil.copy(path, folder)
    (folder / path.with_suffix(".txt").name).write_text("a picture")
    pictures = folder_pictures(folder, SIZE)
    assert len(pictures.clip_ids) == 1
    return [open_picture(path), pictures.frames(0, 0, 1)[0], np.asarray(open_image(path, SIZE))]


def test_a_turned_photo_is_upright(faults: Path, tmp_path: Path) -> None:
    """It is stored 80 x 48, lying on its side; upright it is 48 x 80."""
    with av.open(str(faults / "pictures" / "exif6.jpg")) as container:
        stored = next(container.decode(video=0)).to_ndarray(format="rgb24").astype(int)
    *whole, cropped = seen(faults / "pictures" / "exif6.jpg", tmp_path)
    turned = np.rot90(stored, -1)  # EXIF 6: the stored left column is the upper row
    for pixels, expected in ((whole[0], turned), (whole[1], turned), (cropped, turned[16:64])):
        assert pixels.shape == expected.shape
        assert np.abs(pixels - expected).mean() < 4
    assert cropped.shape == (48, 48, 3)


def test_sixteen_bits_are_scaled(faults: Path, tmp_path: Path) -> None:
    for pixels in seen(faults / "pictures" / "gray16.png", tmp_path):
        assert (pixels.min(), pixels.max()) == (8192 // 257 + 1, 32768 // 257 + 1)  # rounded


def test_no_hidden_colour_is_seen(faults: Path, tmp_path: Path) -> None:
    whole, *others = seen(faults / "pictures" / "rgba_green.png", tmp_path)
    assert {tuple(pixel) for pixel in whole.reshape(-1, 3).tolist()} == {(255, 0, 0), GROUND}
    for pixels in others:
        assert (pixels[..., 1].astype(int) - pixels[..., 0]).max() <= 0
        assert (pixels.reshape(-1, 3) == (255, 0, 0)).all(axis=1).any()


def test_a_null_picture_has_a_reason(faults: Path) -> None:
    pictures = parquet_pictures(faults / "pictures" / "null.parquet", SIZE)
    assert len(pictures.captions) == 2
    assert pictures.frames(0, 0, 1).shape[0] == 1
    with pytest.raises(NoVideo, match="holds no picture"):
        pictures.frames(1, 0, 1)


def test_a_caption_with_unquoted_commas_is_refused_with_its_line(faults: Path, tmp_path: Path) -> None:
    shutil.copy(faults / "pictures" / "rgba_green.png", tmp_path / "a.png")
    shutil.copy(faults / "pictures" / "metadata-commas.csv", tmp_path / "metadata.csv")
    with pytest.raises(ExportError, match=r"metadata\.csv: row 1 \(line 2\): has 4 cells where the header has 2"):
        folder_pictures(tmp_path, SIZE)
