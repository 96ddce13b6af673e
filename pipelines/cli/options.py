"""The arguments and options that several commands share."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Annotated

import typer

from dailies.pipelines.cli.terminal import say

if TYPE_CHECKING:
    from dailies.pipelines.engine import Engine

Dataset = Annotated[str, typer.Argument(metavar="DATASET", help="Folder or URL of a dataset that curate made.")]
RecipeName = Annotated[
    str,
    typer.Option(
        "--recipe", "-r", metavar="NAME|FILE", help="Built-in recipe, or a YAML file; a FILE.py that it names is run."
    ),
]
Overrides = Annotated[
    list[str], typer.Option("--set", "-s", metavar="STEP.KEY=VALUE", help="Change one value of the recipe; repeatable.")
]
EngineName = Annotated[
    str,
    typer.Option(
        "--engine",
        metavar="auto|local|ray",
        help="Processes on this machine, or Ray; auto takes Ray for the cluster at RAY_ADDRESS, and for several GPUs.",
    ),
]
Workers = Annotated[
    int | None,
    typer.Option("--workers", metavar="N", min=1, help="Processes at most; 1 is a plain loop. Default: one per CPU."),
]
AllowLocal = Annotated[
    bool, typer.Option("--allow-local", help="Let manifests name files outside of their own folder.")
]
AllowPrivateHosts = Annotated[
    bool,
    typer.Option("--allow-private-hosts", help="Read URLs on this machine or a private network too."),
]
NoLinks = Annotated[bool, typer.Option("--no-links", help="Leave out videos behind links in folders and globs.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")]
PrivateSources = Annotated[
    bool, typer.Option("--private-sources", help="Leave out of exports where their sources lie; ids stay.")
]
Vae = Annotated[str | None, typer.Option("--vae", metavar="MODEL", help="VAE, instead of the one in --from.")]
TextEncoder = Annotated[
    str | None, typer.Option("--text-encoder", metavar="MODEL", help="Text encoder, instead of the one in --from.")
]
Device = Annotated[
    str, typer.Option("--device", metavar="auto|cpu|cuda[:N]", help="Device; auto takes a GPU where there is one.")
]


def print_notes(notes: Iterable[str]) -> None:
    """Say on stderr what a recipe calls by a former name."""
    for note in notes:
        say(f"dailies: {note}", err=True)


def parse_engine(name: str) -> Engine:
    """Return the engine called ``name``. Raises ``UsageError``."""
    from dailies.pipelines.engine import check_engine

    return check_engine(name)
