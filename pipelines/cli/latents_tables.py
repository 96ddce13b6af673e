"""Reports of ``dailies export --latents`` are printed here."""

from __future__ import annotations

from dataclasses import asdict

from dailies.pipelines.cli.next_steps import after_latents, print_next
from dailies.pipelines.cli.tables import counted, path_of
from dailies.pipelines.cli.terminal import say, say_json
from dailies.pipelines.latents import LatentsReport


def print_latents(report: LatentsReport, as_json: bool) -> None:
    """Print what latents hold: one object for programs, or two lines for people."""
    if as_json:
        say_json(asdict(report))
        return
    splits = ", ".join(f"{count} {split}" for split, count in report.splits.items())
    reasons = ", ".join(f"{count} {kind}" for kind, count in report.reasons.items())
    failed = f"; {report.failed} could not be encoded ({reasons})" if report.failed else ""
    left_out = f"; not selected: {report.not_selected}" if report.not_selected else ""
    views = counted(report.views, "view")
    say(f"{splits}; {views} each for {report.phase}, {report.bytes / 1e6:.1f} MB{failed}{left_out}")
    say(path_of(report.path))
    print_next(after_latents(report))
