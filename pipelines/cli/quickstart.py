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
    videos: Annotated[int, typer.Option("--videos", min=6, help="How many videos to render.")] = 18,
    seed: Annotated[int, typer.Option("--seed", help="Seed of the rendered videos.")] = 0,
    engine: EngineName = "auto",
    workers: Workers = None,
) -> None:
    """Render videos, curate and caption them, train in three phases, publish and sample. Offline, on two CPU cores."""
    from dailies.pipelines.cli.curation_tables import print_summary
    from dailies.pipelines.cli.progress import print_stage, show_progress
    from dailies.pipelines.cli.training_tables import print_training
    from dailies.pipelines.quickstart import run_quickstart

    result = run_quickstart(
        out,
        videos=videos,
        seed=seed,
        engine=parse_engine(engine),
        workers=workers,
        progress=show_progress,
        say=print_stage,
    )
    print_summary(result.summary, as_json=False)
    print_training(result.phases, as_json=False)
    _print_next(result)


def _print_next(result: QuickstartResult) -> None:
    """Print where the model and its video are, and what to try next."""
    from dailies.pipelines.cli.tables import near
    from dailies.pipelines.cli.terminal import stdout

    query = "select caption_coca, caption_fuse, motion from export_export limit 5"
    dataset = result.summary.dataset
    out = stdout()
    out.print(f"model   {near(result.zoo)}/{result.model}\nvideo   {near(result.video)}\n", soft_wrap=True)
    out.print("Next", style="bold")
    out.print(
        f'  dailies sql {dataset} "{query}"\n'
        f"  dailies select {dataset} --name captioned --set captioned.rules.motion.min=2\n"
        f"  dailies zoo show {result.model} --zoo {near(result.zoo)}\n"
        "  dailies curate YOUR_VIDEOS --out DATASET",
        soft_wrap=True,
    )
