"""Models of the zoo are printed here, for a terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.table import Table
from rich.text import Text

from dailies.curation.progress import time_spent
from dailies.pipelines.cli.next_steps import after_publish, print_next
from dailies.pipelines.cli.tables import DASH, counted, grid, path_of
from dailies.pipelines.cli.terminal import say, stdout
from dailies.zoo.units import count, megabytes

if TYPE_CHECKING:
    from dailies.zoo.entry import ZooEntry
    from dailies.zoo.generate import GeneratedVideo


def print_entries(
    zoo: str, models: Sequence[ZooEntry], built_in: Sequence[ZooEntry], damaged: Mapping[str, str]
) -> None:
    out = stdout()
    if models:
        table = grid(zoo)
        for name in ("model", "task", "makes"):
            table.add_column(name, no_wrap=True)
        table.add_column("parameters", justify="right", no_wrap=True)
        table.add_column("licence", overflow="fold")
        for entry in models:
            table.add_row(entry.name, entry.task, _makes(entry), count(entry.parameters), entry.licence or DASH)
        out.print(table)
    else:
        out.print(f"{zoo}: nothing published yet; dailies zoo publish RUN --as NAME --to DIR", soft_wrap=True)
    if built_in:
        table = grid("ship with dailies")
        table.add_column("component", no_wrap=True)
        table.add_column("what it is", overflow="fold")
        table.add_column("parameters", justify="right", no_wrap=True)
        for entry in built_in:
            table.add_row(entry.name, entry.about or DASH, count(entry.parameters))
        out.print(table)
    for name, why in damaged.items():
        out.print(Text.assemble(("damaged", "red"), f" {name}: {why}"), soft_wrap=True)


def _makes(entry: ZooEntry) -> str:
    if entry.size is None:
        return DASH
    width, height = entry.size
    frames = f"{entry.frames} × " if entry.frames and entry.frames > 1 else ""
    return f"{frames}{width}×{height}{f', {entry.fps:g} fps' if entry.fps else ''}"


def _day(entry: ZooEntry) -> str:
    return (entry.published or DASH)[:10]


def print_entry(entry: ZooEntry, folder: Path) -> None:
    out, sampling, sources = stdout(), entry.sampling, entry.sources
    rows: list[tuple[str, str | None]] = [
        ("task", entry.task),
        ("makes", _makes(entry)) if entry.pipeline else ("what it is", entry.about or None),
        ("pipeline", entry.pipeline),
        ("weights", f"{count(entry.parameters)} parameters, {megabytes(entry.bytes)}"),
        ("licence", entry.licence or "not stated"),
        ("folder", path_of(str(folder))),
        ("card", path_of(str(folder / "README.md"))),
    ]
    if entry.pipeline:
        guidance = " → ".join(dict.fromkeys(f"{number:g}" for number in sampling.guidance))
        runs_with = f"{counted(sampling.steps, 'step')}, guidance {guidance}, motion bucket {sampling.motion_bucket}"
        rows.insert(3, ("runs with", runs_with))
        recipe = sources.recipe or "unnamed recipe"
        clips = f", {counted(sources.clips, 'clip')}" if sources.clips is not None else ""
        rows += [
            ("published", f"{_day(entry)} by dailies {entry.version or '?'}"),
            ("trained", f"{recipe}, hash {sources.recipe_hash}"),
            ("phase", f"{sources.phase}, {sources.checkpoint}, {sources.weights} weights"),
            ("data", f"{sources.data}{clips}"),
            ("selection", sources.selection),
            ("curated", f"{sources.curation}, hash {sources.curation_hash}" if sources.curation else None),
        ]
    elif entry.published:
        clips = f", {counted(sources.clips, 'clip')}" if sources.clips is not None else ""
        rows += [
            ("published", f"{_day(entry)} by dailies {entry.version or '?'}"),
            ("trained", f"{sources.recipe}, hash {sources.recipe_hash}"),
            ("data", f"{sources.data}{clips}"),
            ("selection", sources.selection),
            ("curated", f"{sources.curation}, hash {sources.curation_hash}" if sources.curation else None),
        ]
    table = Table.grid(padding=(0, 2))
    for what, value in rows:
        if value is not None:
            table.add_row(what, value)
    out.print(entry.name, style="bold")
    out.print(table, soft_wrap=True)
    print_next(after_publish(entry, folder))


def print_sample(sample: GeneratedVideo) -> None:
    width, height = sample.size
    say(
        f"{path_of(sample.out)}: {counted(sample.frames, 'frame')} of {width}×{height} at {sample.fps:g} fps; "
        f"{counted(sample.steps, 'step')} in {time_spent(sample.seconds)} on {sample.device}"
        f" (loading took {time_spent(sample.load_seconds)}), seed {sample.seed}"
    )
    for note in sample.notes:
        say(note)
    if sample.flat:
        say("the video has almost no contrast: has the model been trained?")


def print_verified(zoo: str, problems_by_model: Mapping[str, Sequence[Mapping[str, str]]]) -> None:
    out = stdout()
    if not problems_by_model:
        out.print(f"{zoo}: nothing published yet", soft_wrap=True)
    for name, problems in problems_by_model.items():
        if not problems:
            out.print(f"{name}: all files match the lock")
            continue
        table = grid(f"{name}: {counted(len(problems), 'problem')}")
        table.add_column("file", overflow="fold")
        table.add_column("what", overflow="fold")
        for problem in problems:
            table.add_row(problem["path"] or DASH, problem["what"])
        out.print(table)
