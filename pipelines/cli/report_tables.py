"""What ``dailies stats`` prints: the funnel as a table, or JSON."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

from dailies.pipelines.cli.tables import DASH, footage, grid, length, share
from dailies.pipelines.cli.terminal import say_json, stdout

if TYPE_CHECKING:
    from dailies.pipelines.report import Funnel


def print_funnel(funnel: Funnel, as_json: bool) -> None:
    if as_json:
        say_json(asdict(funnel))
        return
    out, sources = stdout(), funnel.sources
    failed = f"; {sum(sources.failed.values()):,} failed" if sources.failed else ""
    withdrawn = f"; {sources.withdrawn:,} withdrawn" if sources.withdrawn else ""
    out.print(f"sources    {sources.ok:,} usable, {footage(sources.seconds)}{failed}{withdrawn}", soft_wrap=True)
    out.print(f"selection  {funnel.selection or 'none yet'}", soft_wrap=True)
    table = grid()
    table.add_column("step", no_wrap=True)
    for name in ("dropped", "share", "left", "footage"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("limit")
    table.add_row("clips", DASH, DASH, f"{funnel.clips.clips:,}", length(funnel.clips.seconds), "")
    for step in funnel.steps:
        dropped = step.dropped.clips
        table.add_row(
            step.reason,
            f"{dropped:,}",
            share(dropped, funnel.clips.clips),
            f"{step.left.clips:,}",
            length(step.left.seconds),
            step.limit,
        )
    lost = funnel.clips.clips - funnel.kept.clips
    table.add_row(
        "kept" if funnel.selection else "usable",
        f"{lost:,}",
        share(lost, funnel.clips.clips),
        f"{funnel.kept.clips:,}",
        length(funnel.kept.seconds),
        "",
        style="bold",
    )
    out.print(table)
