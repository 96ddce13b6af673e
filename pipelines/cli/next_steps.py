"""What to do next: each command ends with commands that can be copied, made here from its report alone."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from dailies.pipelines.cli.tables import near
from dailies.pipelines.cli.terminal import say

if TYPE_CHECKING:
    from dailies.curation.tables import DatasetProblem
    from dailies.pipelines.latents import LatentsReport
    from dailies.pipelines.quickstart import QuickstartResult
    from dailies.pipelines.reports import DuplicatesReport, ExportReport, SelectionReport, Summary
    from dailies.zoo.entry import ZooEntry

TRAINING, RUN, MODEL, ZOO, VIDEO = "tiny", "run", "my-model", "my-zoo", "clip.mp4"
"""Names that commands suggest, and README has."""


def print_next(commands: Sequence[str]) -> None:
    """Print commands to copy, one a line and whole, however narrow the terminal; nothing where there are none."""
    if commands:
        say("\nnext:")
        for command in commands:
            say(f"  {command}")


def command(*arguments: str) -> str:
    """Return a command of dailies as a shell takes it."""
    return shlex.join(["dailies", *arguments])


# ---- curation -------------------------------------------------------------------------------------------------------


def after_curate(summary: Summary, sources: Sequence[str]) -> list[str]:
    """``sources``: as the command named them."""
    dataset, exports = summary.dataset, [export for export in summary.exports if export.path]
    if not summary.sources.ok:
        return [command("sql", dataset, "select uri, failure.message from observations where status = 'failed'")]
    if not exports:
        if not summary.selections:
            return [command("sql", dataset, "show tables")]
        view = f"selection_{summary.selections[-1].name}"
        return [
            command("sql", dataset, f"select reason, count(*) as clips from {view} group by reason order by 2 desc")
        ]
    steps = after_export(dataset, exports[-1])
    if not exports[-1].captions:
        steps.append(command("curate", *sources, "--out", dataset, "--recipe", "captioned"))
    return steps


def after_dedup(dataset: str, report: DuplicatesReport) -> list[str]:
    if not report.groups:
        return []
    columns = "duplicate_group, duplicate_kind, duplicate_distance, uri"
    groups = f"duplicates_{report.name} join clips using (clip_id) where duplicate_size > 1"
    return [command("sql", dataset, f"select {columns} from {groups} order by 1, 3"), command("select", dataset)]


def after_select(dataset: str, selection: SelectionReport) -> list[str]:
    if not selection.kept:
        view = f"selection_{selection.name}"
        return [
            command("sql", dataset, f"select reason, count(*) as clips from {view} group by reason order by 2 desc")
        ]
    return [command("export", dataset, *_named(name)) for name in selection.exports[:1]]


def after_export(dataset: str, export: ExportReport) -> list[str]:
    """Training, where its captions are there; and a look at what was kept and what each rule dropped."""
    if export.path is None:
        return [command("sql", dataset, "select uri, failure.message from observations where status = 'failed'")]
    look = command("report", dataset)
    if not export.captions or "://" in export.path:  # training reads a disk
        return [look]
    captions = [] if _trains(export) else ["--set", f"caption={export.captions[-1]}"]
    return [command("train", TRAINING, "--data", near(latest_name(dataset, export)), "--out", RUN, *captions), look]


def latest_name(dataset: str, export: ExportReport) -> str:
    """Return ``exports/latest`` where that is this export, else its folder."""
    latest = Path(dataset).expanduser() / "exports" / "latest"
    assert export.path is not None
    return str(latest) if latest.is_dir() and latest.resolve() == Path(export.path).resolve() else export.path


def _named(name: str) -> list[str]:
    return [] if name == "export" else ["--name", name]


def _trains(export: ExportReport) -> bool:
    """Return whether the built-in training recipe finds its captions in the export."""
    from dailies.training.recipes import load_recipe

    return {column for column, _ in load_recipe(TRAINING).captions} <= set(export.captions)


def after_withdraw(dataset: str) -> list[str]:
    return [command("verify", dataset), command("export", dataset)]


def after_gc(dataset: str, *, dry_run: bool) -> list[str]:
    return [command("gc", dataset) if dry_run else command("verify", dataset)]


def after_verify(dataset: str, problems: Sequence[DatasetProblem], *, deep: bool) -> list[str]:
    """A dataset without problems can be looked into; an export with some is made again beside what is left of it."""
    if not problems:
        return [command("sql", dataset, "show tables")] if deep else [command("verify", dataset, "--deep")]
    if all(problem.table.startswith("exports") for problem in problems):
        return [command("export", dataset, "--set", "export.seed=1")]
    return [command("gc", dataset, "--dry-run")]


# ---- training and the zoo -------------------------------------------------------------------------------------------


def after_latents(latents: LatentsReport) -> list[str]:
    recipe, _, phase = latents.phase.rpartition(":")
    return [command("train", recipe, "--phase", phase, "--data", near(latents.path), "--out", RUN)]


def after_training(run: str) -> list[str]:
    return [command("zoo", "publish", near(run), "--as", MODEL, "--to", ZOO)]


def after_publish(entry: ZooEntry, folder: Path) -> list[str]:
    """Sample from the model, where it is one that makes videos."""
    from dailies.zoo.pipelines import PIPELINES

    if entry.pipeline not in PIPELINES:
        return []
    model = [entry.name] if entry.built_in else [entry.name, *_zoo(str(folder.parent))]
    return [f"{command('zoo', 'run', *model)} {PIPELINES[str(entry.pipeline)].input.option} --out {VIDEO}"]


def after_sample(name: str, zoo: str) -> list[str]:
    if Path(name).is_dir():  # a published folder, given by its path
        return []
    return [command("zoo", "show", name, *_zoo(zoo))]


def _zoo(folder: str) -> list[str]:
    from dailies.zoo.default import DEFAULT_ZOO

    default = Path(folder).expanduser().absolute() == Path(DEFAULT_ZOO).expanduser()
    return [] if default else ["--zoo", near(folder)]


def after_quickstart(result: QuickstartResult) -> list[str]:
    dataset = near(result.summary.dataset)
    return [
        command("view", dataset, "--open"),
        command("select", dataset, "--name", "captioned", "--set", "captioned.rules.motion.min=2"),
        command("zoo", "show", result.model, "--zoo", near(result.zoo)),
        "dailies curate YOUR_VIDEOS --out DATASET",
    ]
