"""``dailies info`` and ``dailies show``: what a dataset holds and lacks, and why a clip was kept or dropped."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import dailies as door
from dailies.curation import world
from dailies.curation.errors import UsageError
from dailies.curation.tables import DatasetTables
from dailies.pipelines.overview import overview
from dailies.pipelines.run_rows import record_run
from dailies.pipelines.selecting import last_recipe
from dailies.pipelines.showing import clock, show
from tests.conftest import Dailies

RECIPE = """
name: looked-at
steps:
  - observe:
      observers: [boundary, luma, motion]
      evidence: {fps: 4, short_side: 90}
  - cut: {detector: boundary, min_seconds: 1}
  - select:
      name: main
      rules:
        motion: {min: 0.3, nulls: drop}
  - select:
      name: dark
      rules:
        motion: {min: 0.3, nulls: drop}
        luma: {max: 0, nulls: drop}
        motion_camera: {one_of: [nothing], nulls: drop}
  - export: {preset: ultrafast}
"""


@pytest.fixture(scope="module")
def footage(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A still video, one that moves, and one that is none."""
    folder = tmp_path_factory.mktemp("footage")
    for name, seed, still, cameras in (("still", 3, 1.0, {"static": 1.0}), ("moves", 4, 0.0, {"pan": 1.0})):
        script = world.write_script(
            (seed,),
            shots=2,
            shot_frames=(48, 60),
            transitions=["cut"],
            still=still,
            cameras=cameras,
            text=0.0,
            flashes=0.0,
        )
        world.encode(script, folder / f"{name}.mp4")
    (folder / "broken.mp4").write_text("no video")
    (folder / "recipe.yaml").write_text(RECIPE)
    return folder


@pytest.fixture(scope="module")
def curated(footage: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("looked") / "dataset"
    recipe = str(footage / "recipe.yaml")
    door.curate(str(footage / "*.mp4"), out, recipe=recipe, engine="local", progress=door.silent)
    return out


@pytest.fixture
def dataset(curated: Path, tmp_path: Path) -> Path:
    """A dataset of the test's own."""
    return Path(shutil.copytree(curated, tmp_path / "dataset", symlinks=True))


def clips(dataset: Path, name: str) -> list[str]:
    rows = door.Dataset(dataset).sql(f"select clip_id from clips where uri like '%{name}.mp4' order by start")
    return [str(row) for row in rows["clip_id"].to_pylist()]


# ---- info -----------------------------------------------------------------------------------------------------------


def test_info_counts_what_is_there_and_misses_nothing(curated: Path) -> None:
    overviewed = overview(str(curated))
    assert (overviewed.sources.ok, dict(overviewed.sources.failed), overviewed.sources.withdrawn) == (
        2,
        {"unreadable": 1},
        0,
    )
    assert overviewed.clips.counts["ok"] == 4
    assert {each.name: each.kept for each in overviewed.selections} == {"main": 2, "dark": 0}
    assert [(each.name, sum(each.splits.values())) for each in overviewed.exports] == [("export", 2)]
    assert (overviewed.run.count, overviewed.run.recipe, overviewed.missing) == (1, "looked-at", ())
    on_disk = sum(path.stat().st_size for path in curated.rglob("*") if path.is_file())
    assert sum(overviewed.bytes.values()) == on_disk
    assert overviewed.bytes["exports"] == sum(p.stat().st_size for p in (curated / "exports").rglob("*") if p.is_file())


def test_info_says_what_is_missing_and_which_command_makes_it(dataset: Path, dailies: Dailies) -> None:
    shutil.rmtree(dataset / "exports")
    assert [(each.what, each.command) for each in overview(str(dataset)).missing] == [
        ("export export: not made yet", f"dailies export {dataset} --name export")
    ]
    assert dailies("export", dataset, "--engine", "local").returncode == 0
    assert not overview(str(dataset)).missing
    assert dailies("select", dataset, "--set", "main.rules.motion.min=0").returncode == 0
    # The other selection is as its rules say; the export lacks what is kept now.
    (lacking,) = overview(str(dataset)).missing
    assert lacking.what == "export export: lacks 2 clips of selection main, and holds 0 that it does not keep"
    done = dailies("info", dataset)
    assert lacking.what in done.stdout
    assert lacking.command in done.stdout


def test_info_tells_clips_that_a_step_has_not_seen(dataset: Path) -> None:
    shutil.rmtree(next((dataset / "clips").iterdir()))
    missing = [each.what for each in overview(str(dataset)).missing]
    assert missing == ["not cut into clips yet: 2 observed sources"], "one command does the rest"


def test_info_tells_a_selection_by_other_rules_than_the_last_run_has(dataset: Path) -> None:
    """As a run leaves it that is killed before it selects."""
    tables = DatasetTables.open(dataset)
    record_run(tables, last_recipe(tables, ["main.rules.motion.min=2"]))
    (missing,) = overview(str(dataset)).missing
    assert missing.what == "selection main: made by other rules"
    assert missing.command == f"dailies select {dataset} --name main"


@pytest.mark.parametrize("command", ["info", "show"])
def test_they_need_a_dataset_with_a_run(command: str, tmp_path: Path, dailies: Dailies) -> None:
    done = dailies(command, tmp_path / "nowhere")
    assert (done.returncode, done.stdout) == (2, "")
    assert "there is no dataset; dailies curate creates one" in done.stderr


def test_info_tells_what_it_can_where_the_recipe_is_not_here(dataset: Path, dailies: Dailies) -> None:
    tables = DatasetTables.open(dataset)
    recipe = last_recipe(tables, ())
    source = dict(recipe.source) | {"steps": [*recipe.source["steps"], {"score": {"scorer": "/gone/own.py:Own"}}]}
    (row,) = tables.table("runs").read().slice(0, 1).to_pylist()
    text = json.dumps(source | {"name": "theirs"})
    tables.table("runs").append([row | {"run_id": "x", "number": 9, "recipe": text}], keys=("x",))
    seen = overview(str(dataset))
    assert (seen.sources, seen.run.recipe, len(seen.exports)) == (None, "theirs", 1)
    assert "/gone/own.py" in seen.missing[0].what
    assert "/gone/own.py" in dailies("info", dataset).stdout


def test_info_tells_an_export_that_cannot_be_read(dataset: Path) -> None:
    (index,) = dataset.glob("exports/*@*/index.parquet")
    index.write_bytes(b"no Parquet")
    seen = overview(str(dataset))
    assert (seen.exports, seen.missing[0].command) == ((), f"dailies verify {dataset}")
    assert seen.sources is not None


# ---- show -----------------------------------------------------------------------------------------------------------


def test_a_clip_has_its_numbers_its_verdicts_and_what_broke_them(curated: Path) -> None:
    shown = show(str(curated), clips(curated, "moves")[1])
    (clip,) = shown.clips
    main, dark = clip.verdicts
    assert (main.text, dark.keep) == ("kept", False)
    luma = clip.measured["luma"]
    assert dark.text == f"dropped: luma_high (luma {luma:.4g} > 0), motion_camera_other"
    assert clip.about["clip_id"] not in clip.measured.values()
    assert shown.units["luma"] == "0-255"
    (strip,) = shown.strips
    assert len(strip.pictures) == 8
    first, last = clip.about["start_seconds"], clip.about["start_seconds"] + clip.about["seconds"]
    times = [60 * float(note.split(":")[0]) + float(note.split(":")[1]) for note in strip.notes]
    assert times == sorted(times)
    assert first - 0.06 <= times[0] <= times[-1] <= last


def test_pictures_of_a_clip_are_of_that_clip(curated: Path) -> None:
    """Each shot has another ground, so frames of the neighbour would show."""
    ids = clips(curated, "still")
    frames = door.Dataset(curated).frames(ids[1], short_side=90).pixels[0].astype(int)
    pictures = [show(str(curated), identity).strips[0].pictures[0].astype(int) for identity in ids]
    far, near = (abs(frames - picture).mean() for picture in pictures)
    assert near < 8 < far
    last = show(str(curated), ids[0]).strips[0].pictures[-1].astype(int)
    assert abs(pictures[0] - last).mean() < 8


@pytest.mark.parametrize("by", ["path", "name", "id", "id's beginning"])
def test_a_source_is_named_in_any_way(curated: Path, footage: Path, by: str) -> None:
    ((identity,),) = door.Dataset(curated).sql("select source_id from observations where uri like '%moves.mp4'").columns
    named = {
        "path": str(footage / "moves.mp4"),
        "name": "moves.mp4",
        "id": identity.as_py(),
        "id's beginning": identity.as_py()[:8],
    }
    shown = show(str(curated), named[by])
    assert shown.kind == "source"
    assert [clip.about["clip_id"] for clip in shown.clips] == clips(curated, "moves")
    assert len(shown.strips) == 2


def test_a_source_that_failed_says_why(curated: Path, dailies: Dailies) -> None:
    done = dailies("show", curated, "broken.mp4")
    assert done.returncode == 0
    assert "failed" in done.stdout
    assert "unreadable: Invalid data" in done.stdout


def test_a_selection_shows_what_each_rule_dropped(curated: Path) -> None:
    shown = show(str(curated), selection="main", frames=1)
    assert shown.about == {"kept": 2, "dropped: motion_low": 2}
    assert [(strip.label, strip.alarm, len(strip.pictures)) for strip in shown.strips] == [
        ("kept", False, 1),
        ("dropped: motion_low motion < 0.3", True, 1),
    ]
    (note,) = shown.strips[1].notes
    assert note.startswith("motion 0")
    assert show(str(curated)).title.startswith("selection dark: 0 of 4")  # the last of the recipe


def test_a_rule_over_words_shows_the_word(dataset: Path, dailies: Dailies) -> None:
    done = dailies(
        "select", dataset, "--name", "dark", "--set", "dark.rules.luma.max=255", "--set", "dark.rules.motion.min=0"
    )
    assert done.returncode == 0, done.stderr
    shown = show(str(dataset), selection="dark")
    (strip,) = [strip for strip in shown.strips if strip.label == "dropped: motion_camera_other"]
    assert all(note.startswith("motion_camera ") for note in strip.notes)


def test_no_frame_is_read_where_none_is_shown(curated: Path, monkeypatch: pytest.MonkeyPatch, dailies: Dailies) -> None:
    def refuse(data: bytes) -> None:
        raise AssertionError("decoded")

    monkeypatch.setattr("dailies.curation.video.unjpeg", refuse)
    for item in (["moves.mp4"], []):
        assert dailies("show", curated, *item, "--json").returncode == 0
        assert "add --out SHEET.png" in dailies("show", curated, *item).stdout


@pytest.mark.parametrize(
    ("item", "message"),
    [
        ("move.mp4", "no clip and no source of .* (did you mean moves.mp4?); "),
        ("0123456789abcdef01234567", "no clip and no source of "),
        ("xy", "no clip and no source of "),
    ],
)
def test_what_is_not_there_is_refused_in_one_line(curated: Path, item: str, message: str, dailies: Dailies) -> None:
    done = dailies("show", curated, item)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    for part in message.split(".*"):
        assert part in done.stderr


def test_a_selection_that_is_not_there_is_refused(curated: Path) -> None:
    with pytest.raises(
        UsageError, match=r"--selection=man: no such selection; there are main, dark \(did you mean main\?\)"
    ):
        show(str(curated), selection="man")


def test_a_sheet_is_written_whole_or_not_at_all(curated: Path, tmp_path: Path, dailies: Dailies) -> None:
    sheet = tmp_path / "sheet.png"
    done = dailies("show", curated, "moves.mp4", "--out", sheet)
    assert done.returncode == 0
    assert str(sheet) in done.stdout.replace("\n", "") or "sheet.png" in done.stdout
    with Image.open(sheet) as picture:
        assert np.asarray(picture).std() > 20
    for wrong, message in (
        (tmp_path / "sheet.jpg", "ends in .png"),
        (tmp_path / "no" / "sheet.png", "there is no folder"),
    ):
        done = dailies("show", curated, "moves.mp4", "--out", wrong)
        assert (done.returncode, done.stdout) == (2, "")
        assert message in done.stderr
        assert not wrong.exists()


def test_json_has_the_numbers_and_no_pictures(curated: Path, dailies: Dailies) -> None:
    done = dailies("show", curated, "moves.mp4", "--json")
    shown: dict[str, Any] = json.loads(done.stdout)
    assert shown["kind"] == "source"
    assert [clip["about"]["clip_id"] for clip in shown["clips"]] == clips(curated, "moves")
    assert "strips" not in shown
    assert json.loads(dailies("info", curated, "--json").stdout)["sources"]["ok"] == 2


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.0, "0:00.0"), (59.96, "1:00.0"), (62.54, "1:02.5"), (3600.0, "1:00:00.0"), (3599.99, "1:00:00.0")],
)
def test_a_place_reads_as_on_a_player(seconds: float, text: str) -> None:
    assert clock(seconds) == text
