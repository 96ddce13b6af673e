"""What ``info`` and ``show`` print: tables, frames as coloured half blocks in a terminal, or JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.style import Style
from rich.table import Table
from rich.text import Text

from dailies.pipelines.cli.tables import DASH, counted, footage, grid, length, near, share
from dailies.pipelines.cli.terminal import say_json, stdout

if TYPE_CHECKING:
    from dailies.curation.contact_sheet import Pixels, Strip
    from dailies.pipelines.overview import DatasetOverview
    from dailies.pipelines.showing import ClipShown, Shown

SHOWN_CLIPS = 40
ROWS = 9  # lines of a terminal that a picture takes


def print_overview(overview: DatasetOverview, as_json: bool) -> None:
    if as_json:
        say_json(asdict(overview))
        return
    out, run, sources, clips = stdout(), overview.run, overview.sources, overview.clips
    lines = [
        ("dataset", overview.dataset),
        ("recipe", f"{run.recipe} ({run.recipe_hash}), of {counted(run.count, 'run')}"),
        ("last run", f"{run.started:%Y-%m-%d %H:%M} UTC, with dailies {run.version}"),
    ]
    if sources is not None:
        failed = _others(sources.failed, "failed")
        lines.append(("sources", f"{sources.ok:,} usable, {footage(sources.seconds)}{failed}"))
        if sources.withdrawn:
            lines.append(("withdrawn", counted(sources.withdrawn, "source")))
    if clips is not None:
        others = _others({status: count for status, count in clips.counts.items() if count and status != "ok"}, "")
        lines.append(("clips", f"{clips.counts['ok']:,} usable, {footage(clips.seconds['ok'])}{others}"))
    lines.append(("size", _sizes(overview.bytes)))
    width = max(len(label) for label, _ in lines)
    for label, text in lines:
        out.print(f"{label:<{width}}  {text}", soft_wrap=True)
    if overview.annotations:
        out.print(_annotations(overview))
    if overview.selections:
        out.print(_selections(overview))
    if overview.exports:
        out.print(_exports(overview))
    if overview.missing:
        out.print("missing")
        for each in overview.missing:
            out.print(f"  {each.what}", soft_wrap=True)
            out.print(f"    {each.command}", soft_wrap=True)


def _others(counts: Mapping[str, int], word: str) -> str:
    """Return what besides the usable there is, such as ``; 3 failed (2 unreadable, 1 truncated)``."""
    if not counts:
        return ""
    kinds = ", ".join(f"{count:,} {kind}" for kind, count in counts.items())
    return f"; {sum(counts.values()):,} {word} ({kinds})" if word else f"; {kinds}"


def _sizes(sizes: Mapping[str, int]) -> str:
    parts = ", ".join(f"{name} {_size(size)}" for name, size in sizes.items() if size and name != "other")
    return f"{_size(sum(sizes.values()))} ({parts})" if parts else _size(sum(sizes.values()))


def _size(count: float) -> str:
    """Return a number of bytes in the unit that suits it."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} B" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"


def _table(*columns: str, left: int = 1) -> Table:
    """Return a table whose first ``left`` columns are texts and the others numbers."""
    table = grid()
    for number, name in enumerate(columns):
        table.add_column(name, justify="left" if number < left else "right")
    return table


def _annotations(overview: DatasetOverview) -> Table:
    table = _table("scores and captions", "clips", "failed", "missing")
    for each in overview.annotations:
        table.add_row(each.name, f"{each.ok:,}", _count(each.failed), _count(each.missing))
    return table


def _count(number: int) -> str:
    return f"{number:,}" if number else DASH


def _selections(overview: DatasetOverview) -> Table:
    table = _table("selection", "kept", "share", "footage")
    for each in overview.selections:
        table.add_row(each.name, f"{each.kept:,}", share(each.kept, each.clips), length(each.kept_seconds))
    return table


def _exports(overview: DatasetOverview) -> Table:
    table = grid()
    table.add_column("export", no_wrap=True)
    for name in ("train", "validation", "test", "failed", "size"):
        table.add_column(name, justify="right")
    for each in overview.exports:
        splits = (_count(each.splits.get(split, 0)) for split in ("train", "validation", "test"))
        name = (each.path or "").rpartition("/")[2]
        table.add_row(name, *splits, _count(each.failed), _size(each.bytes))
    return table


# ---- one clip, source or selection ----------------------------------------------------------------------------------


def print_shown(shown: Shown, sheet: str | None, as_json: bool) -> None:
    if as_json:
        values = {name: getattr(shown, name) for name in ("kind", "title", "about", "units")}
        say_json({**values, "clips": [asdict(clip) for clip in shown.clips], "sheet": sheet})
        return
    out = stdout()
    out.print(Text(shown.title, style="bold"), soft_wrap=True)
    if shown.kind == "clip":
        out.print(_clip_table(shown.clips[0], shown.units))
    elif shown.kind == "source":
        _print_pairs(out, shown.about)
        if shown.clips:
            out.print(_clips_table(shown.clips))
        if len(shown.clips) > SHOWN_CLIPS:
            out.print(f"and {len(shown.clips) - SHOWN_CLIPS} more")
    else:
        table = _table("clips", "count", "share")
        for name, count in shown.about.items():
            table.add_row(name, f"{count:,}", share(count, sum(shown.about.values())))
        out.print(table)
    if sheet is not None:
        out.print(f"contact sheet  {near(sheet)}", soft_wrap=True)
    elif not coloured():
        out.print("frames: add --out SHEET.png, or look in a terminal with colours", soft_wrap=True)
    elif not shown.strips:
        out.print("no frames: the source was not observed, or it failed")
    for strip in shown.strips if sheet is None else ():
        _print_strip(out, strip)


def coloured() -> bool:
    """Return whether results go to a terminal that has colours."""
    out = stdout()
    return out.is_terminal and out.color_system is not None


def _print_pairs(out: Console, pairs: Mapping[str, Any]) -> None:
    width = max(map(len, pairs), default=0)
    for name, value in pairs.items():
        out.print(f"{name:<{width}}  {_value(value)}", soft_wrap=True)


def _value(value: Any) -> str:
    if value is None:
        return DASH
    if isinstance(value, float):
        return f"{value:.4g}"
    return str(value)


def _clip_table(clip: ClipShown, units: Mapping[str, str]) -> Table:
    table = grid()
    table.add_column("column")
    table.add_column("value", overflow="fold")
    table.add_column("unit")
    for verdict in clip.verdicts:
        table.add_row(f"selection {verdict.selection}", verdict.text, "", style=None if verdict.keep else "red")
    for step, why in clip.failures.items():
        table.add_row(f"step {step}", f"failed: {why}", "", style="red")
    for name, value in (*clip.about.items(), *clip.measured.items()):
        if value is not None:
            table.add_row(name, _value(value), units.get(name, ""))
    return table


def _clips_table(clips: Sequence[ClipShown]) -> Table:
    table = grid()
    table.add_column("clip", no_wrap=True)
    for name in ("from", "length"):
        table.add_column(name, justify="right")
    for verdict in clips[0].verdicts if clips else ():
        table.add_column(verdict.selection, overflow="fold")
    for clip in clips[:SHOWN_CLIPS]:
        about = clip.about
        times = (DASH if about[name] is None else f"{about[name]:.2f} s" for name in ("start_seconds", "seconds"))
        table.add_row(about["clip_id"] or DASH, *times, *(verdict.text for verdict in clip.verdicts))
    return table


def _print_strip(out: Console, strip: Strip) -> None:
    """Print a strip's pictures beside each other, as many as the terminal is wide for, two pixels to a character."""
    if strip.text:
        out.print(Text(strip.text, style="dim"))
    out.print(Text(strip.label, style="red" if strip.alarm else "bold"))
    lines = [Text() for _ in range(ROWS)]
    notes, used = "", 0
    for number, picture in enumerate(strip.pictures):
        small = _scaled(picture, 2 * ROWS)
        wide = small.shape[1]
        if used + wide > out.width:
            break
        used += wide + 1
        for row, line in enumerate(lines):
            for above, below in zip(small[2 * row], small[2 * row + 1], strict=True):
                line.append("▀", Style(color=_colour(above), bgcolor=_colour(below)))
            line.append(" ")
        notes += (strip.notes[number] if strip.notes else "")[:wide].ljust(wide + 1)
    for line in lines:
        out.print(line, no_wrap=True, crop=True)
    out.print(Text(notes, style="dim"), no_wrap=True, crop=True)


def _colour(pixel: Any) -> str:
    return f"#{pixel[0]:02x}{pixel[1]:02x}{pixel[2]:02x}"


def _scaled(picture: Pixels, height: int) -> Pixels:
    import numpy as np
    from PIL import Image

    tall, wide = picture.shape[:2]
    return np.asarray(Image.fromarray(picture).resize((max(1, round(wide * height / tall)), height)))
