"""Reports of training are printed here, for a terminal or as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

from dailies.curation.progress import time_spent
from dailies.pipelines.cli.tables import counted, grid, path_of
from dailies.pipelines.cli.terminal import say_json, stdout

if TYPE_CHECKING:
    from dailies.pipelines.train import PhaseReport
    from dailies.pipelines.train_captioner import CaptionerReport
    from dailies.pipelines.train_vae import VaeReport


def print_training(phases: Sequence[PhaseReport], as_json: bool) -> None:
    if as_json:
        say_json([asdict(phase) for phase in phases])
        return
    table = grid("training")
    for name in ("phase", "task"):
        table.add_column(name)
    for name in ("steps", "time", "validation loss before", "after"):
        table.add_column(name, justify="right")
    for phase in phases:
        losses = (f"{phase.first_loss:.3f}", f"{phase.last_loss:.3f}")
        table.add_row(phase.name, phase.task, str(phase.steps), time_spent(phase.seconds), *losses)
    out = stdout()
    out.print(table)
    for phase in phases:
        out.print(f"{phase.name:<8} {path_of(phase.samples)}", soft_wrap=True)


def print_vae(done: VaeReport, as_json: bool) -> None:
    """Print what finetuning a temporal decoder changed on held-out clips."""
    if as_json:
        say_json(asdict(done))
        return
    table = grid(f"temporal decoder, {counted(done.steps, 'step')} in {time_spent(done.seconds)}")
    table.add_column("on held-out clips")
    for name in ("PSNR, dB", "flicker error, levels of 255"):
        table.add_column(name, justify="right")
    rows = {"image decoder": done.image, "before the first step": done.before, "after the last": done.after}
    for name, figures in rows.items():
        if figures is not None:
            table.add_row(name, f"{figures[0]:.2f}", f"{figures[1]:.2f}")
    out = stdout()
    out.print(table)
    for note in done.notes:
        out.print(note)
    out.print(f"vae      {path_of(done.folder)}", soft_wrap=True)


MEASURES = {
    "loss": ("loss, nats a token", "{:.3f}"),
    "token_accuracy": ("tokens guessed right", "{:.1%}"),
    "cider_d": ("CIDEr-D, 0–10", "{:.2f}"),
    "chrf": ("chrF, 0–100", "{:.1f}"),
    "colors": ("colours right", "{:.0%}"),
    "shapes": ("shapes right", "{:.0%}"),
    "motion": ("motion right", "{:.0%}"),
}


def print_captioner(done: CaptionerReport, as_json: bool) -> None:
    """Print what finetuning a captioner changed on held-out clips."""
    if as_json:
        say_json(asdict(done))
        return
    table = grid(f"captioner, {counted(done.steps, 'step')} in {time_spent(done.seconds)}")
    table.add_column(f"on {counted(done.clips, 'held-out clip')}")
    for name in ("before", "after"):
        table.add_column(name, justify="right")
    for name, (label, form) in MEASURES.items():
        if name in done.after:
            table.add_row(label, form.format(done.before[name]), form.format(done.after[name]))
    out = stdout()
    out.print(table)
    for note in done.notes:
        out.print(note)
    out.print(f"model    {path_of(done.folder)}", soft_wrap=True)
