"""What a selection would keep, and two selections beside each other, for a terminal or as JSON."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

from rich.text import Text

from dailies.pipelines.cli.tables import DASH, footage, grid, length, share
from dailies.pipelines.cli.terminal import say_json, stdout

if TYPE_CHECKING:
    from dailies.pipelines.reports import Held, SelectionDiff, SelectionPreview


def print_preview(preview: SelectionPreview, as_json: bool) -> None:
    from dailies.pipelines.reports import broken_limit

    previewed = preview.previewed
    if as_json:
        say_json({"name": preview.name, **asdict(previewed), "bounds": preview.limits})
        return
    out = stdout()
    kept = f"{previewed.kept:,} of {previewed.clips:,} clips, {footage(previewed.kept_seconds)}"
    _head(f"selection {preview.name} would keep {kept}")
    table = grid()
    table.add_column("drops", overflow="fold")
    for name in ("clips", "share", "alone"):
        table.add_column(name, justify="right")
    table.add_column("limit", overflow="fold")
    for each in previewed.reasons:
        limit = broken_limit(each.reason, preview.limits)
        table.add_row(each.reason, f"{each.clips:,}", share(each.clips, previewed.clips), f"{each.alone:,}", limit)
    out.print(table)
    out.print("alone: dropped by this and nothing else", soft_wrap=True)
    if not previewed.limits:
        return
    out.print()
    shares = list(dict.fromkeys(name for each in previewed.limits for name in each.at))
    _head("limits that would keep other shares of the clips with a value")
    table = grid()
    table.add_column("rule", overflow="fold")
    table.add_column("now", justify="right")
    table.add_column("keeps", justify="right")
    for name in shares:
        table.add_column(f"{float(name):.0%}", justify="right")
    for side in previewed.limits:
        sign = "≥" if side.side == "min" else "≤"
        now = DASH if side.limit is None else f"{side.limit:.4g}"
        others = (f"{side.at[name]:.3g}" if name in side.at else DASH for name in shares)
        table.add_row(f"{side.rule} {sign}", now, f"{side.keeps:.0%}", *others)
    out.print(table)


def print_diff(diff: SelectionDiff, as_json: bool) -> None:
    if as_json:
        say_json(asdict(diff))
        return
    out = stdout()
    _head(f"selections {diff.a} and {diff.b}")
    table = grid()
    for name, justify in (("kept by", "left"), ("clips", "right"), ("footage", "right")):
        table.add_column(name, justify=justify)  # type: ignore[arg-type]
    for label, previewed in (("both", diff.both), (f"{diff.a} alone", diff.only_a), (f"{diff.b} alone", diff.only_b)):
        table.add_row(label, *_held(previewed))
    table.add_row("neither", *_held(diff.neither))
    out.print(table)
    for keeps, drops, reasons in ((diff.a, diff.b, diff.b_drops), (diff.b, diff.a, diff.a_drops)):
        if reasons:
            _head(f"what {keeps} alone keeps: why {drops} drops it")
            table = grid()
            table.add_column("reason", overflow="fold")
            table.add_column("clips", justify="right")
            table.add_column("footage", justify="right")
            for reason, previewed in reasons.items():
                table.add_row(reason, *_held(previewed))
            out.print(table)
    table = grid()
    table.add_column("split")
    for name in ("both", f"{diff.a} alone", f"{diff.b} alone"):
        table.add_column(name, justify="right")
    for split, parts in diff.splits.items():
        table.add_row(split, *(f"{parts[name].clips:,}" for name in ("both", "only_a", "only_b")))
    if diff.splits:
        _head("by split, in clips")
        out.print(table)


def _head(text: str) -> None:
    """Print the line above a table, whole: a title would be broken at the table's width."""
    stdout().print(Text(text, style="bold"), soft_wrap=True)


def _held(previewed: Held) -> tuple[str, str]:
    return f"{previewed.clips:,}", length(previewed.seconds)
