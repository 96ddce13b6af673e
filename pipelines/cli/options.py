"""The arguments and options that several commands share."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Annotated

import typer

from dailies.pipelines.cli.completion import choice, curation_recipes, named, zoo_references
from dailies.pipelines.cli.help import ENGINE, INPUT, MODELS, OUTPUT, WORK
from dailies.pipelines.cli.terminal import say

if TYPE_CHECKING:
    from dailies.pipelines.engine import Engine

Dataset = Annotated[
    str,
    typer.Argument(metavar="DATASET", help="Folder or URL of a dataset that curate made.", rich_help_panel=INPUT),
]
RecipeName = Annotated[
    str,
    typer.Option(
        "--recipe",
        "-r",
        metavar="NAME|FILE",
        help="Built-in recipe (dailies recipe list), or a YAML file; a FILE.py that it names is run.",
        rich_help_panel=WORK,
        **named(curation_recipes),
    ),
]
Overrides = Annotated[
    list[str],
    typer.Option(
        "--set",
        "-s",
        metavar="STEP.KEY=VALUE",
        help="Change one value of the recipe; repeatable. dailies recipe explain NAME lists the keys.",
        rich_help_panel=WORK,
    ),
]
EngineName = Annotated[
    str,
    typer.Option(
        "--engine",
        help="Processes on this machine, or Ray; auto takes Ray for the cluster at RAY_ADDRESS, and for several GPUs.",
        rich_help_panel=ENGINE,
        **choice("auto|local|ray"),
    ),
]
Workers = Annotated[
    int | None,
    typer.Option(
        "--workers",
        metavar="N",
        min=1,
        help="Processes at most; 1 is a plain loop.",
        show_default="one per CPU",
        rich_help_panel=ENGINE,
    ),
]
AllowLocal = Annotated[
    bool,
    typer.Option("--allow-local", help="Let manifests name files outside of their own folder.", rich_help_panel=INPUT),
]
AllowPrivateHosts = Annotated[
    bool,
    typer.Option(
        "--allow-private-hosts",
        help="Read URLs on this machine or a private network too.",
        rich_help_panel=INPUT,
    ),
]
NoLinks = Annotated[
    bool,
    typer.Option("--no-links", help="Leave out videos behind links in folders and globs.", rich_help_panel=INPUT),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.", rich_help_panel=OUTPUT)]
PrivateSources = Annotated[
    bool,
    typer.Option(
        "--private-sources", help="Leave out of exports where their sources lie; ids stay.", rich_help_panel=OUTPUT
    ),
]
From = Annotated[
    str | None,
    typer.Option(
        "--from",
        metavar="MODEL",
        help="Model to start from or to encode with: a diffusers folder, zoo:NAME or a hub id.",
        rich_help_panel=MODELS,
        **named(zoo_references),
    ),
]
Vae = Annotated[
    str | None,
    typer.Option(
        "--vae",
        metavar="MODEL",
        help="VAE, instead of the one in --from.",
        rich_help_panel=MODELS,
        **named(zoo_references),
    ),
]
TextEncoder = Annotated[
    str | None,
    typer.Option(
        "--text-encoder",
        metavar="MODEL",
        help="Text encoder, instead of the one in --from.",
        rich_help_panel=MODELS,
        **named(zoo_references),
    ),
]
ImageEncoder = Annotated[
    str | None,
    typer.Option(
        "--image-encoder",
        metavar="MODEL",
        help="Image encoder, instead of the one in --from.",
        rich_help_panel=MODELS,
        **named(zoo_references),
    ),
]
Device = Annotated[
    str,
    typer.Option(
        "--device",
        help="auto takes a GPU where there is one.",
        rich_help_panel=ENGINE,
        **choice("auto|cpu|cuda[:N]"),
    ),
]


def print_notes(notes: Iterable[str]) -> None:
    """Say on stderr what a recipe calls by a former name."""
    for note in notes:
        say(f"dailies: {note}", err=True)


def parse_engine(name: str) -> Engine:
    """Return the engine called ``name``. Raises ``UsageError``."""
    from dailies.pipelines.engine import check_engine

    return check_engine(name)
