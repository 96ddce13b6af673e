"""``dailies quickstart``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from dailies.pipelines.cli.options import EngineName, Workers, parse_engine

if TYPE_CHECKING:
    from dailies.pipelines.quickstart import QuickstartResult


def quickstart(
    out: Annotated[
        str, typer.Option("--out", "-o", metavar="FOLDER", help="Folder for everything it makes.")
    ] = "quickstart",
    videos: Annotated[int, typer.Option("--videos", metavar="N", min=6, help="How many videos to render.")] = 18,
    seed: Annotated[int, typer.Option("--seed", metavar="N", help="Seed of the rendered videos.")] = 0,
    engine: EngineName = "auto",
    workers: Workers = None,
) -> None:
    """Render videos, curate and caption them, train in three phases, publish and sample. Offline, on two CPU cores."""
    from dailies.pipelines.cli.curation_tables import print_summary
    from dailies.pipelines.cli.progress import print_stage, show_progress
    from dailies.pipelines.cli.training_tables import print_training
    from dailies.pipelines.quickstart import run_quickstart
    from dailies.pipelines.report import write_report

    result = run_quickstart(
        out,
        videos=videos,
        seed=seed,
        engine=parse_engine(engine),
        workers=workers,
        progress=show_progress,
        say=print_stage,
    )
    page = write_report(result.summary.dataset, progress=show_progress)
    print_summary(result.summary, as_json=False)
    print_training(result.phases, as_json=False)
    _print_next(result, page)


def _print_next(result: QuickstartResult, page: str) -> None:
    """Print where the model, its video and the report are, and what to try next."""
    from dailies.pipelines.cli.next_steps import after_quickstart, print_next
    from dailies.pipelines.cli.tables import path_of
    from dailies.pipelines.cli.terminal import say

    say(f"model   {path_of(f'{result.zoo}/{result.model}')}\nvideo   {path_of(result.video)}\nreport  {path_of(page)}")
    print_next(after_quickstart(result))
