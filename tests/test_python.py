"""The Python door: what ``import dailies`` offers, that it is light, and that it does what the commands do."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

import dailies
from dailies.curation import world
from dailies.curation.errors import Changed
from tests.conftest import Dailies

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
OFFERED = """
CaptionStep CurationRecipe CutStep DailiesError Dataset DedupStep ExportStep ObserveStep ScoreStep SelectStep SourceError
TrainReport UsageError check_recipe compare_recipes curate curation detect_cuts expand load_recipe pipelines show_recipe silent
train training zoo
""".split()
RULES = {"motion": {"min": 0.3, "nulls": "drop"}}
STEPS = (
    dailies.ObserveStep(observers=("boundary", "motion")),
    dailies.CutStep(detector="boundary", min_seconds=1),
    dailies.SelectStep(rules=RULES),
)


def test_the_names_that_are_offered_are_frozen() -> None:
    """Whoever changes this list changes what users' programs may say: the changelog has to name it."""
    assert sorted(dailies.__all__) == OFFERED == dir(dailies)
    for name in OFFERED:
        assert getattr(dailies, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'detect_cut'"):
        _ = dailies.detect_cut


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("videos")
    moving = {"cameras": {"pan": 1.0}, "still": 0.0, "flashes": 0.0, "text": 0.0}
    for seed in (503, 504):
        script = world.write_script((seed,), transitions=["cut"], shot_frames=(72, 96), **moving)
        world.encode(script, folder / f"{seed}.mp4")
    return folder


@pytest.fixture(scope="module")
def dataset(videos: Path) -> dailies.Dataset:
    (videos / "broken.mp4").write_text("no video")
    recipe = dailies.CurationRecipe.of("mine", STEPS)
    result = dailies.curate(videos, videos / "dataset", recipe=recipe, engine="local", progress=dailies.silent)
    assert (result.sources.ok, result.sources.given) == (2, 3)
    ((uri, kind, _),) = result.sources.failures
    assert (Path(uri).name, kind) == ("broken.mp4", "unreadable")
    assert result.selections[0].clips == result.clips.counts["ok"] + result.clips.counts["too_short"]
    return dailies.Dataset(videos / "dataset")


def test_cuts_of_a_video_are_those_of_the_command(videos: Path, dailies: Dailies) -> None:
    import dailies as door

    clip = videos / "503.mp4"
    cuts = door.detect_cuts(clip)
    assert [{"frame": c.frame, "end": c.end, "kind": c.kind} for c in cuts] == json.loads(
        dailies("cuts", clip, "--json").stdout
    )[str(clip)]
    (videos / "bad.txt.mp4").write_text("no video")
    with pytest.raises(door.SourceError):
        door.detect_cuts(videos / "bad.txt.mp4")
    (videos / "bad.txt.mp4").unlink()
    with pytest.raises(door.UsageError, match="no such file"):
        door.detect_cuts(videos / "nothing.mp4")


def test_steps_as_objects_are_the_recipe_that_yaml_says(dataset: dailies.Dataset) -> None:
    from dailies.pipelines.recipes.recipe import parse_recipe

    steps = [
        {"observe": {"observers": ["boundary", "motion"]}},
        {"cut": {"detector": "boundary", "min_seconds": 1}},
        {"select": {"rules": RULES}},
    ]
    assert dataset.recipe.tables() == parse_recipe({"name": "mine", "steps": steps}).tables()


def test_a_dataset_is_asked_selected_and_its_frames_read(dataset: dailies.Dataset, videos: Path) -> None:
    assert repr(dataset) == f"Dataset({dataset.url!r})"
    assert dataset.exports == ()
    clips = dataset.clips("main")
    assert {"clip_id", "motion", "keep", "reason", "reasons"} <= set(clips.column_names)
    asked = dataset.sql("select clip_id, keep, reason from selection_main")
    by_id = {row["clip_id"]: row for row in asked.to_pylist()}
    for row in clips.to_pylist():  # verdicts stand with their own clips
        assert (row["keep"], row["reason"]) == (by_id[row["clip_id"]]["keep"], by_id[row["clip_id"]]["reason"])
    assert "keep" not in dataset.clips().column_names

    none = dataset.select(overrides=["main.rules.motion.min=1e6"])
    assert none.kept == 0
    assert dataset.select(overrides=["main.rules.motion.min=0"]).kept == none.clips
    with pytest.raises(dailies.UsageError, match="selection='other': no such selection; there are main"):
        dataset.clips("other")
    with pytest.raises(dailies.UsageError, match="has no such clip"):
        dataset.frames("x")

    row = max(clips.to_pylist(), key=lambda row: row["first_frame"])
    frames = dataset.frames(row["clip_id"])
    assert frames.pixels.shape == (row["frames"], row["height"], row["width"], 3)
    small = dataset.frames(row["clip_id"], short_side=24)
    assert (
        small.pixels.shape[1:3] == (24, round(24 * row["width"] / row["height"] / 2) * 2)
        or min(small.pixels.shape[1:3]) == 24
    )
    source = Path(row["uri"])
    script = world.write_script(
        (int(source.stem),),
        transitions=["cut"],
        shot_frames=(72, 96),
        cameras={"pan": 1.0},
        still=0.0,
        flashes=0.0,
        text=0.0,
    )
    truth = list(world.frames(script))[row["first_frame"]]
    assert np.abs(frames.pixels[0].astype(int) - truth.astype(int)).mean() < 6, (
        "the clip's own frames, not the source's first"
    )

    data = source.read_bytes()
    source.write_bytes(data + b"x")
    with pytest.raises(Changed):
        dataset.frames(row["clip_id"])
    source.write_bytes(data)


def test_an_export_is_found_for_training(dataset: dailies.Dataset, videos: Path) -> None:
    recipe = dailies.CurationRecipe.of("mine", [*STEPS, dailies.ExportStep(preset="ultrafast")])
    result = dailies.curate(str(videos), videos / "dataset", recipe=recipe, engine="local", progress=dailies.silent)
    assert dataset.exports == (result.exports[0].path,)
    again = dataset.export(overrides=["export.crf=40"], engine="local", progress=dailies.silent)
    assert dataset.exports == (result.exports[0].path, again.path)


def test_progress_is_shown_unless_another_is_given(videos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe = dailies.CurationRecipe.of("mine", STEPS)
    dailies.curate(videos, videos / "dataset", recipe=recipe, engine="local")
    assert "observe" in capsys.readouterr().err
    dailies.curate(videos, videos / "dataset", recipe=recipe, engine="local", progress=dailies.silent)
    assert not capsys.readouterr().err


SLOW = {"train.py": pytest.mark.slow}  # half a minute


@pytest.mark.parametrize(
    "example", [pytest.param(path.name, marks=SLOW.get(path.name, ())) for path in sorted(EXAMPLES.glob("*.py"))]
)
def test_the_examples_run(example: str, tmp_path: Path) -> None:
    if example == "train.py":
        for package in ("torch", "diffusers", "transformers", "open_clip"):
            pytest.importorskip(package, reason="needs the extras models and train")
    command = [sys.executable, str(EXAMPLES / example)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path, timeout=280)
    assert done.returncode == 0, done.stderr
    said = {
        "curate.py": r"(?s)3 of 3 videos are usable.*selection main: \d+ of \d+ clips kept.*with more motion: \d+ of \d+",
        "own_scorer.py": r"clip_id +colourfulness +keep\n0 +\w+ +\d+\.\d+ +True\n",
        "train.py": r"(?s)image: validation loss \d+\.\d+ → \d+\.\d+, .*clip\.mp4: \d+ frames of \d+×\d+\n",
    }
    assert re.search(said[example], done.stdout), done.stdout


def test_the_page_on_python_runs_as_written(videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All blocks but training's, which ``examples/train.py`` stands for, one after the other."""
    page = (EXAMPLES.parent / "docs" / "python.md").read_text(encoding="utf-8")
    page, _, _ = page.partition("## Train, publish, run")
    (tmp_path / "videos").mkdir()
    (tmp_path / "videos" / "a.mp4").write_bytes((videos / "503.mp4").read_bytes())
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    blocks = re.findall(r"```python\n(.*?)```", page, re.S)
    assert len(blocks) == 4
    for block in blocks:
        exec(compile(block, "docs/python.md", "exec"), names)
    result, report, export, frames = (names[name] for name in ("result", "report", "export", "frames"))
    clips = names["clips"].to_pylist()
    assert (result.sources.ok, result.sources.given) == (1, 1)
    assert [selection.kept for selection in result.selections] == [sum(row["keep"] for row in clips)]
    assert len(frames.pixels) == len(frames.pts) == clips[0]["frames"]
    assert (report.clips, report.kept) == (len(clips), sum(row["keep"] and row["motion"] >= 1.5 for row in clips))
    shards = sorted(Path(export.path, "data").glob("*.parquet"))
    assert sum(pq.read_metadata(path).num_rows for path in shards) == sum(export.splits.values()) > 0


def test_mistakes_are_one_line_before_any_work(videos: Path, tmp_path: Path) -> None:
    with pytest.raises(
        dailies.UsageError, match=r"engine=lokal: no such engine; allowed: auto, local, ray \(did you mean local\?\)"
    ):
        dailies.curate(videos, tmp_path / "new", engine="lokal")  # type: ignore[arg-type]
    assert not (tmp_path / "new").exists()
    for wrong, message in (
        (lambda: dailies.CutStep(detector="boundary", min_second=1), "CutStep: unknown key 'min_second'"),
        (lambda: dailies.CutStep(detector="boundary", min_seconds="a"), "CutStep: min_seconds='a': "),
        (lambda: dailies.SelectStep(rules={"a": {"mx": 1}}), "SelectStep: unknown key 'rules.a.mx'"),
    ):
        with pytest.raises(dailies.UsageError, match=re.escape(message)) as caught:
            wrong()
        assert "\n" not in str(caught.value)
