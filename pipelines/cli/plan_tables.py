"""Training plans are printed here, for a terminal or as JSON."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from dailies.pipelines.cli.tables import DASH, counted, grid
from dailies.pipelines.cli.terminal import say_json, stdout

if TYPE_CHECKING:
    from dailies.training.captioner.plan import CaptionerPlan
    from dailies.training.plan import PhasePlan, Plan
    from dailies.training.vae.plan import VaePlan


def print_plan(plan: Plan, as_json: bool) -> None:
    if as_json:
        say_json(asdict(plan))
        return
    out = stdout()
    out.print()
    for table in (_runs(plan), _costs(plan), _data(plan)):
        stdout(_uncut(table, out.width)).print(table)
    lacks = {phase.name: "; ".join(phase.lacks) for phase in plan.phases if phase.lacks}
    _print_lines(out, "what is missing", [("all", line) for line in plan.lacks] + list(lacks.items()))
    _print_lines(out, "where it differs from the paper", [("·", line) for line in plan.differs])
    _print_lines(out, "how it is computed", [("·", line) for line in plan.notes])


def print_vae_plan(plan: VaePlan, as_json: bool) -> None:
    """Print what finetuning a temporal decoder would take."""
    if as_json:
        say_json(asdict(plan))
        return
    out = stdout()
    window, window_unit = _unit(plan.tflop * 1e12)
    whole, whole_unit = _unit(plan.pflop * 1e15)
    fps = "each clip's own" if plan.fps is None else f"{plan.fps:g}"
    rows = {
        "trains": f"{plan.trains} layers: {plan.trained / 1e6:,.1f} of {plan.parameters / 1e6:,.1f} M weights",
        "window": f"{counted(plan.frames, 'frame')} of {plan.size[0]}×{plan.size[1]} px, frames a second: {fps}",
        "steps": f"{plan.steps:,} of {counted(plan.batch, 'window')} at lr {_power(plan.lr)}",
        f"{window}FLOP a window": _number(plan.tflop * 1e12 / window_unit),
        f"{whole}FLOP": _number(plan.pflop * 1e15 / whole_unit),
        "GB a device": _number(plan.gigabytes),
        "columns": ", ".join(plan.columns),
        "clips there": DASH if plan.clips is None else f"{plan.clips:,}",
        "epochs": DASH if plan.epochs is None else _number(plan.epochs),
    }
    out.print()
    _print_lines(out, "plan of vae: a temporal decoder", list(rows.items()))
    _print_lines(out, "what is missing", [("·", line) for line in plan.lacks])
    _print_lines(out, "how it is computed", [("·", line) for line in plan.notes])


def print_captioner_plan(plan: CaptionerPlan, as_json: bool) -> None:
    """Print what finetuning a captioner would take."""
    if as_json:
        say_json(asdict(plan))
        return
    out = stdout()
    what = {"coca": "a CoCa of open_clip's", "video": "a video-language model"}[plan.kind]
    learns = f"{plan.trained / 1e6:,.1f} of {plan.parameters / 1e6:,.1f} M weights"
    rows = {
        "trains": f"adapters (LoRA): {learns}" if plan.trains == "lora" else learns,
        "looks at": f"{counted(plan.frames, 'frame')} of each clip",
        "steps": f"{plan.steps:,} of {counted(plan.batch, 'clip')} at lr {_power(plan.lr)}",
        "GB a device": _number(plan.gigabytes),
        "columns": ", ".join(plan.columns),
        "clips there": DASH if plan.clips is None else f"{plan.clips:,}",
        "held out": DASH if plan.held_out is None else f"{plan.held_out:,}",
        "epochs": DASH if plan.epochs is None else _number(plan.epochs),
    }
    out.print()
    _print_lines(out, f"plan of captioner: {what}", list(rows.items()))
    _print_lines(out, "what is missing", [("·", line) for line in plan.lacks])
    _print_lines(out, "how it is computed", [("·", line) for line in plan.notes])


def _uncut(table: Table, width: int) -> int:
    """Return the least width from ``width`` on at which rich truncates no cell; headers may wrap."""
    while True:
        shown = io.StringIO()
        Console(file=shown, width=width, markup=False).print(table)
        if "…" not in shown.getvalue():
            return width
        width += 4


def _grid(title: str, texts: Sequence[str], numbers: Sequence[str]) -> Table:
    table = grid(title)
    for name in texts:
        table.add_column(name, no_wrap=True)
    for name in numbers:
        table.add_column(name, justify="right")
    return table


def _runs(plan: Plan) -> Table:
    title = f"plan of {plan.recipe}: what each phase does"
    numbers = ("frames", "fps", "w×h px", "lr", "P_mean", "P_std", "steps", "batch", "samples")
    table = _grid(title, ("phase", "task"), numbers)
    for phase in plan.phases:
        fps = DASH if phase.frames == 1 else ", ".join(f"{fps:g}" for fps in phase.trained_fps)
        what = (f"{phase.frames}", fps, _size(phase), _power(phase.lr), f"{phase.p_mean:g}", f"{phase.p_std:g}")
        table.add_row(phase.name, phase.task, *what, f"{phase.steps:,}", f"{phase.batch:,}", f"{phase.samples:,}")
    return table


def _costs(plan: Plan) -> Table:
    phases = plan.phases
    sample_prefix, sample_unit = _unit(max(phase.tflop for phase in phases) * 1e12)
    total_prefix, total_unit = _unit(max(phase.eflop for phase in phases) * 1e18)
    sample = (f"{sample_prefix}FLOP a sample forward", f"{sample_prefix}FLOP a sample trained")
    table = _grid(
        "what it costs",
        ("phase",),
        ("M weights", "temporal", "trained", *sample, f"{total_prefix}FLOP", "GPU-hours", "GB a GPU"),
    )
    for phase in phases:
        weights = (f"{number / 1e6:,.1f}" for number in (phase.parameters, phase.temporal, phase.trained))
        flop = (
            phase.forward_tflop * 1e12 / sample_unit,
            phase.tflop * 1e12 / sample_unit,
            phase.eflop * 1e18 / total_unit,
        )
        table.add_row(phase.name, *weights, *map(_number, (*flop, phase.gpu_hours, phase.gigabytes)))
    table.add_section()
    eflop, hours = sum(phase.eflop for phase in phases), sum(phase.gpu_hours for phase in phases)
    table.add_row("total", *[""] * 5, _number(eflop * 1e18 / total_unit), _number(hours), "")
    return table


def _data(plan: Plan) -> Table:
    known = any(phase.clips is not None for phase in plan.phases)
    counted = ("clips there", "too slow", "too short", "epochs") if known else ()
    table = _grid(
        "what each phase needs", ("phase", "columns"), ("clips for one batch", "seconds a clip", "px", *counted)
    )
    for phase in plan.phases:
        least = DASH if phase.frames == 1 else f"≥\N{NO-BREAK SPACE}{phase.seconds:.1f}"
        counts = (
            *([DASH] * 3 if phase.clips is None else map("{:,}".format, (phase.clips, phase.slow, phase.short))),
            DASH if phase.epochs is None else _number(phase.epochs),
        )
        needed = (", ".join(phase.columns), f"{phase.batch:,}", least, f"≥\N{NO-BREAK SPACE}{_size(phase)}")
        table.add_row(phase.name, *needed, *(counts if counted else ()))
    return table


def _print_lines(out: Console, title: str, lines: Sequence[tuple[str, str]]) -> None:
    if not lines:
        return
    out.print(title, style="bold")
    columns = Table.grid(padding=(0, 1))  # wrapped lines hang under their own text
    columns.add_column(no_wrap=True)
    for name, text in lines:
        columns.add_row(f"  {name}", text)
    out.print(columns)
    out.print()


def _size(phase: PhasePlan) -> str:
    return f"{phase.size[0]}×{phase.size[1]}"


def _power(value: float) -> str:
    """Write 3e-05 as 3e-5."""
    mantissa, exponent = f"{value:e}".split("e")
    return f"{float(mantissa):g}e{int(exponent)}"


def _unit(most: float) -> tuple[str, float]:
    """Return the largest SI prefix that ``most`` fills: its letter, and what it stands for."""
    units = (("E", 1e18), ("P", 1e15), ("T", 1e12), ("G", 1e9))
    return next(((letter, unit) for letter, unit in units if most >= unit), units[-1])


def _number(value: float) -> str:
    """Return three figures, or whole numbers with separators."""
    if 0 < value < 0.01:
        return "< 0.01"
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
