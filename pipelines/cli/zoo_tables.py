"""How the zoo looks in a terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from dailies.pipelines.cli.zoo import DEFAULT
from dailies.zoo.pipelines import PIPELINES
from dailies.zoo.units import count, megabytes

if TYPE_CHECKING:
    from dailies.zoo.entry import ZooEntry
    from dailies.zoo.generate import GeneratedVideo

USUAL = Path(DEFAULT).expanduser()  # where commands look unless told
DASH = "–"


def _console() -> Console:
    return Console(highlight=False)


def _grid(title: str) -> Table:
    return Table(title=escape(title), title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, pad_edge=False)


def print_entries(
    zoo: str, models: Sequence[ZooEntry], built_in: Sequence[ZooEntry], damaged: Mapping[str, str]
) -> None:
    out = _console()
    if models:
        table = _grid(zoo)
        for name in ("model", "task", "makes"):
            table.add_column(name, no_wrap=True)
        table.add_column("parameters", justify="right", no_wrap=True)
        table.add_column("licence", overflow="fold")
        for entry in models:
            table.add_row(entry.name, entry.task, _makes(entry), count(entry.parameters), escape(entry.licence or DASH))
        out.print(table)
    else:
        out.print(f"{escape(zoo)}: nothing published yet; dailies zoo publish RUN --as NAME --to DIR", soft_wrap=True)
    if built_in:
        table = _grid("ship with dailies")
        table.add_column("component", no_wrap=True)
        table.add_column("what it is", overflow="fold")
        table.add_column("parameters", justify="right", no_wrap=True)
        for entry in built_in:
            table.add_row(entry.name, escape(entry.about) or DASH, count(entry.parameters))
        out.print(table)
    for name, why in damaged.items():
        out.print(f"[red]damaged[/red] {escape(name)}: {escape(why)}", soft_wrap=True)


def _makes(entry: ZooEntry) -> str:
    if entry.size is None:
        return DASH
    width, height = entry.size
    frames = f"{entry.frames} × " if entry.frames and entry.frames > 1 else ""
    return f"{frames}{width}×{height}{f', {entry.fps:g} fps' if entry.fps else ''}"


def _day(entry: ZooEntry) -> str:
    return (entry.published or DASH)[:10]


def print_entry(entry: ZooEntry, folder: Path) -> None:
    out, said, came = _console(), entry.sampling, entry.sources
    rows: list[tuple[str, str | None]] = [
        ("task", entry.task),
        ("makes", _makes(entry) if entry.pipeline else entry.about or None),
        ("pipeline", entry.pipeline),
        ("weights", f"{count(entry.parameters)} parameters, {megabytes(entry.bytes)}"),
        ("licence", entry.licence or "not stated"),
        ("folder", str(folder)),
        ("card", str(folder / "README.md")),
    ]
    if entry.pipeline:
        guidance = f"guidance {said.guidance[0]:g} → {said.guidance[1]:g}"
        rows.insert(3, ("runs with", f"{said.steps} steps, {guidance}, motion bucket {said.motion_bucket}"))
        recipe = came.recipe or "recipe of no name"
        clips = f", {came.clips:,} clips" if came.clips is not None else ""
        rows += [
            ("published", f"{_day(entry)} by dailies {entry.version or '?'}"),
            ("trained", f"{recipe}, hash {came.recipe_hash}"),
            ("phase", f"{came.phase}, {came.checkpoint}, {came.weights} weights"),
            ("data", f"{came.data}{clips}"),
            ("selection", came.selection),
            ("curated", f"{came.curation}, hash {came.curation_hash}" if came.curation else None),
        ]
    table = Table.grid(padding=(0, 2))
    for what, value in rows:
        if value is not None:
            table.add_row(what, escape(value))
    out.print(f"[bold]{escape(entry.name)}[/bold]")
    out.print(table, soft_wrap=True)
    if entry.pipeline in PIPELINES:
        out.print(f"\n  {_command(entry, folder)}", soft_wrap=True)


def _command(entry: ZooEntry, folder: Path) -> str:
    where = "" if entry.built_in or folder.parent == USUAL else f" --zoo {folder.parent}"
    return f"dailies zoo run {entry.name}{where} {PIPELINES[str(entry.pipeline)].input.option} --out clip.mp4"


def print_published(entry: ZooEntry, folder: Path) -> None:
    print_entry(entry, folder)


def print_made(made: GeneratedVideo) -> None:
    width, height = made.size
    print(
        f"{made.out}: {made.frames} frames of {width}×{height} at {made.fps:g} fps; {made.steps} steps in"
        f" {made.seconds:.1f} s on {made.device} (loading took {made.load_seconds:.1f} s), seed {made.seed}"
    )
    if made.flat:
        print("the pictures hold next to no contrast: has the model been trained?")


def print_verified(zoo: str, found: Mapping[str, Sequence[Mapping[str, str]]]) -> None:
    out = _console()
    if not found:
        out.print(f"{escape(zoo)}: nothing published yet", soft_wrap=True)
    for name, problems in found.items():
        if not problems:
            out.print(f"{escape(name)}: every file is as published")
            continue
        table = _grid(f"{name}: {len(problems)} {'problem' if len(problems) == 1 else 'problems'}")
        table.add_column("file", overflow="fold")
        table.add_column("what", overflow="fold")
        for problem in problems:
            table.add_row(escape(problem["path"]) or DASH, escape(problem["what"]))
        out.print(table)
