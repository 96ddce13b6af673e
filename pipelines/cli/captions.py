"""``dailies captions``: parse, call, print. Nothing heavy is imported before a command needs it."""

from __future__ import annotations

from typing import Annotated

import typer

from dailies.pipelines.cli.help import Command, Group
from dailies.pipelines.cli.lazy_pandas import keep_pandas_out
from dailies.pipelines.cli.options import Dataset, Json

captions_app = typer.Typer(
    name="captions",
    help="Compare the captions of a dataset.",
    cls=Group,
    no_args_is_help=True,
    rich_markup_mode="rich",
)


@captions_app.command("compare", cls=Command)
def compare(
    dataset: Dataset,
    first: Annotated[str, typer.Argument(metavar="A", help="Name of a captioner of the last run, such as coca.")],
    second: Annotated[str, typer.Argument(metavar="B", help="Name of another.")],
    samples: Annotated[int, typer.Option("--samples", metavar="N", min=0, help="Clips to show both captions of.")] = 6,
    seed: Annotated[int, typer.Option("--seed", metavar="N", help="Of which clips are shown.")] = 0,
    as_json: Json = False,
) -> None:
    """Compare two captioners: lengths, vocabulary, likeness, flags, and where each fits its clip better.

    Examples:
    dailies captions compare data coca video
    dailies captions compare data coca fuse --samples 20 --json
    """
    keep_pandas_out()
    from dailies.pipelines.caption_comparing import compare_captions
    from dailies.pipelines.cli.caption_tables import print_comparison

    print_comparison(compare_captions(dataset, first, second, samples=samples, seed=seed), as_json)
