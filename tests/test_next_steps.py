"""What commands print can be used: each ends with commands that run as they stand, and lines read well."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import typer

from dailies.curation import world
from dailies.curation.plain_text import counted
from dailies.curation.tables import DatasetProblem
from dailies.pipelines import quickstart
from dailies.pipelines.cli import next_steps
from dailies.pipelines.cli.main import app
from dailies.pipelines.cli.zoo_tables import print_entry
from dailies.pipelines.latents import LatentsReport
from dailies.pipelines.quickstart import QuickstartResult
from dailies.pipelines.recipes.recipe import load_recipe
from dailies.pipelines.reports import ExportReport, SelectionReport
from dailies.pipelines.run import curate
from dailies.zoo.catalog import ENTRIES
from dailies.zoo.entry import SamplingDefaults, ZooEntry
from tests.conftest import CommandResult, Dailies

RECIPE = """
name: one
steps:
  - observe: {observers: [boundary, motion], evidence: {fps: 2, short_side: 180}}
  - cut: {detector: boundary, min_seconds: 1, max_seconds: 4, validation_share: 0, test_share: 0}
  - select: {rules: {motion: {min: 0, nulls: drop}}}
  - export: {preset: ultrafast}
"""
A_FEW = re.compile(r"(?<![\d.,:])1 (?!is\b|was\b|has\b|of\b)[a-z]+[^s\W]s\b")


def parsed(line: str) -> list[str]:
    """The words of a command, checked against the options that there are."""
    program, *words = shlex.split(line)
    assert program == "dailies"
    command: Any = typer.main.get_command(app)
    context = command.make_context("dailies", list(words))
    while hasattr(command, "resolve_command"):
        _, command, words = command.resolve_command(context, list(words))
        context = command.make_context(command.name, list(words), parent=context)
    return shlex.split(line)[1:]


def steps_of(done: CommandResult) -> list[str]:
    """The commands that stand under ``next:`` at the end of what a command printed."""
    lines = done.stdout.splitlines()
    assert "next:" in lines, done.stdout
    return [line.removeprefix("  ") for line in lines[lines.index("next:") + 1 :]]


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a blank in its name and a video of one shot, of which everything is one."""
    folder = tmp_path_factory.mktemp("one at a time")
    ground = world.Background(texture="dotted", color="grey", seed=3)
    shot = world.Shot(frames=40, background=ground, camera=world.Camera(velocity=(20, 0)))
    world.encode(world.frames(world.Script(shots=(shot,))), folder / "a b.mp4", fps=24)
    (folder / "recipe.yaml").write_text(RECIPE)
    return folder


@pytest.mark.parametrize("width", ["80", "40"])
def test_each_command_ends_with_commands_that_run_and_its_lines_read_well(
    width: str, clip: Path, tmp_path: Path, dailies: Dailies, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", width)
    monkeypatch.chdir(tmp_path)
    dataset = "a dataset whose name is longer than a narrow terminal is wide, and has a 'quote'"
    local = ("--engine", "local")
    commands: list[tuple[object, ...]] = [
        ("curate", clip / "a b.mp4", "--out", dataset, "--recipe", clip / "recipe.yaml", *local),
        ("select", dataset, "--set", "main.rules.motion.min=0.01"),
        ("select", dataset, "--set", "main.rules.motion.min=900"),
        ("select", dataset, "--set", "main.rules.motion.min=0"),
        ("export", dataset, *local, "--set", "export.crf=30"),
        ("verify", dataset),
        ("verify", dataset, "--deep"),
        ("gc", dataset, "--dry-run"),
        ("gc", dataset),
        ("withdraw", dataset, clip / "a b.mp4"),
    ]
    for words in commands:
        done = dailies(*words)
        assert done.returncode == 0, done.stderr
        for line in done.stdout.splitlines():
            assert not line.endswith(" "), (words, line)
            assert not A_FEW.search(line), (words, line)
        steps = steps_of(done)
        assert steps
        for step in steps:
            assert "…" not in step
            arguments = parsed(step)
            assert dataset in arguments
            if arguments[0] not in ("export", "curate"):
                again = dailies(*arguments)
                assert again.returncode == 0, (step, again.stderr)
        assert "next:" not in dailies("gc", dataset, "--dry-run", "--json").stdout


def test_what_is_printed_as_a_path_is_one_for_a_shell(
    clip: Path, tmp_path: Path, dailies: Dailies, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    monkeypatch.chdir(tmp_path)
    done = dailies("curate", clip, "--out", "a b", "--recipe", clip / "recipe.yaml", "--engine", "local")
    lines = dict(
        line.split(maxsplit=1) for line in done.stdout.splitlines() if line.startswith(("shards", "card", "data"))
    )
    for label, name in (("dataset", "dataset.json"), ("shards", "index.parquet"), ("card", "")):
        (path,) = shlex.split(lines[label])
        assert (Path(path) / name).exists()
    assert re.search(r"^export +1 train; 1\.7 s of video, 0\.\d MB; 1 extracted$", done.stdout, re.MULTILINE)
    done = dailies("export", "a b", "--engine", "local", "--set", "export.seed=1")
    first, path = done.stdout.splitlines()[:2]
    assert first.endswith("0 extracted, 1 taken over from earlier exports")
    assert Path(*shlex.split(path), "index.parquet").exists()
    assert dailies("export", "a b", "--engine", "local").stdout.splitlines()[0].endswith("; as it was")


EXPORT = ExportReport(name="export", path="data/exports/export@1", splits={"train": 1}, failed=0)
CAPTIONS = ("caption_coca", "caption_fuse", "caption_motion")


def selection(**other: Any) -> SelectionReport:
    return SelectionReport(
        **{"name": "main", "clips": 2, "kept": 1, "kept_seconds": 1, "reasons": {}, "limits": {}, **other}
    )


def test_training_is_suggested_where_its_captions_are_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (plain,) = next_steps.after_export("data", EXPORT)
    assert parsed(plain)[:2] == ["report", "data"]
    report = ExportReport(
        name="export", path=str(tmp_path / "data/exports/export@1"), splits={}, failed=0, captions=CAPTIONS
    )
    train = "dailies train tiny --data data/exports/{} --out run"
    assert next_steps.after_export("data", report)[0] == train.format("export@1")
    (tmp_path / "data/exports/export@1").mkdir(parents=True)
    (tmp_path / "data/exports/latest").symlink_to("export@1")
    assert next_steps.after_export("data", report)[0] == train.format("latest")


def test_a_selection_is_exported_by_the_step_that_takes_it() -> None:
    assert next_steps.after_select("data", selection(exports=("export",))) == ["dailies export data"]
    assert next_steps.after_select("data", selection(exports=("small",))) == ["dailies export data --name small"]
    assert next_steps.after_select("data", selection()) == []
    (why,) = next_steps.after_select("data", selection(kept=0))
    assert "from selection_main group by reason" in why


def test_what_is_suggested_after_training_and_in_the_zoo(tmp_path: Path) -> None:
    latents = LatentsReport(
        name="l", path="my latents", phase="svd:hq", views=1, splits={}, failed=0, reasons={}, not_selected=0, bytes=0
    )
    lines = next_steps.after_latents(latents) + next_steps.after_training("my run")
    text, image = "TextToVideoPipeline", "StableVideoDiffusionPipeline"
    zoo = tmp_path / "a zoo"
    for pipeline in (text, image):
        entry = ZooEntry(name="mine", task="image-to-video", pipeline=pipeline)
        lines += next_steps.after_publish(entry, zoo / "mine")
    lines += next_steps.after_sample("mine", str(zoo))
    lines += next_steps.after_verify("data", [DatasetProblem("exports/a@1", "x", "is missing")], deep=False)
    lines += next_steps.after_verify("data", [DatasetProblem("runs", "x", "is missing")], deep=False)
    lines += next_steps.after_quickstart(quickstart_in("q/dataset"))
    assert [parsed(line)[0] for line in lines] == [
        *("train", "zoo", "zoo", "zoo", "zoo", "export", "gc", "view", "select", "zoo", "curate")
    ]
    assert parsed(lines[0]) == ["train", "svd", "--phase", "hq", "--data", "my latents", "--out", "run"]
    assert parsed(lines[1]) == ["zoo", "publish", "my run", "--as", "my-model", "--to", "my-zoo"]
    assert next_steps.after_publish(next(iter(ENTRIES.values())), zoo / "x") == []


def quickstart_in(dataset: str) -> QuickstartResult:
    summary: Any = SimpleNamespace(dataset=dataset)
    return QuickstartResult(summary=summary, phases=(), zoo="q/zoo", model="quickstart", video="q/sample.mp4")


@pytest.mark.parametrize(("guidance", "shown"), [((3, 3), "guidance 3, "), ((1, 3), "guidance 1 → 3, ")])
def test_a_model_that_is_guided_evenly_has_one_scale(
    guidance: tuple[float, float], shown: str, capsys: pytest.CaptureFixture[str]
) -> None:
    sampling = SamplingDefaults(steps=1, guidance=guidance)
    entry = ZooEntry(name="mine", task="text-to-video", pipeline="TextToVideoPipeline", sampling=sampling)
    print_entry(entry, Path("zoo/mine"))
    assert f"1 step, {shown}" in capsys.readouterr().out


def test_one_is_not_many() -> None:
    assert [counted(n, "row") for n in (0, 1, 2, 2000)] == ["0 rows", "1 row", "2 rows", "2,000 rows"]
    assert [counted(n, "clip", "are", "is") for n in (1, 2)] == ["1 clip is", "2 clips are"]


def test_the_quickstart_ends_with_the_report_and_its_path(
    clip: Path, tmp_path: Path, dailies: Dailies, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its other stages are left out, which take minutes."""
    monkeypatch.chdir(tmp_path)
    summary = curate([str(clip)], "q/dataset", load_recipe(str(clip / "recipe.yaml")), engine="local")
    made = QuickstartResult(summary=summary, phases=(), zoo="q/zoo", model="quickstart", video="q/sample.mp4")
    monkeypatch.setattr(quickstart, "run_quickstart", lambda *_, **__: made)
    done = dailies("quickstart", "--out", "q")
    assert done.returncode == 0, done.stderr
    assert "report  q/dataset/report.html" in done.stdout.splitlines()
    assert "<h1>dataset</h1>" in Path("q/dataset/report.html").read_text()
