"""``dailies recipe``: parse, call, print. Nothing heavy is imported before a command needs it."""

from __future__ import annotations

from typing import Annotated

import typer

from dailies.pipelines.cli.completion import curation_recipes, named, parts_of_recipes
from dailies.pipelines.cli.help import WORK, Command, Group
from dailies.pipelines.cli.options import Json, Overrides, print_notes

recipe_app = typer.Typer(
    name="recipe",
    help="List, explain, show, check and compare recipes of curation, and say what they cost.",
    cls=Group,
    no_args_is_help=True,
    rich_markup_mode="rich",
)

Recipe = Annotated[
    str,
    typer.Argument(
        metavar="NAME|FILE",
        help="Built-in recipe, or a YAML file; a FILE.py that it names is run.",
        rich_help_panel=WORK,
        **named(curation_recipes),
    ),
]
Other = Annotated[
    str, typer.Argument(metavar="NAME|FILE", help="The recipe that it is compared with.", **named(curation_recipes))
]
Part = Annotated[
    str,
    typer.Argument(
        metavar="NAME",
        help="A recipe, or an observer, detector, scorer or captioner.",
        **named(parts_of_recipes),
    ),
]
UNMET = 2  # exit code, as where a command cannot do what is asked


@recipe_app.command("list", cls=Command)
def list_recipes(as_json: Json = False) -> None:
    """List recipes and what they are made of: observers, detectors, scorers and captioners.

    Examples:
    dailies recipe list
    """
    from dailies.pipelines.cli.recipe_tables import print_parts
    from dailies.pipelines.recipes.describe import describe_all

    print_parts(describe_all(), as_json)


@recipe_app.command("explain", cls=Command)
def explain(name: Part, as_json: Json = False) -> None:
    """Explain a recipe or a part of one: its keys as --set takes them, what each may be, and its columns.

    Examples:
    dailies recipe explain cpu
    dailies recipe explain motion
    """
    from dailies.pipelines.cli.recipe_tables import print_part
    from dailies.pipelines.recipes.describe import describe

    print_part(describe(name), as_json)


def recipes(
    name: Annotated[str | None, typer.Argument(metavar="NAME", help="As of dailies recipe explain.")] = None,
    as_json: Json = False,
) -> None:
    """Do what dailies recipe list does, or with a NAME what dailies recipe explain does."""
    if name is None:
        list_recipes(as_json)
    else:
        explain(name, as_json)


@recipe_app.command("show", cls=Command)
def show_resolved(recipe: Recipe, overrides: Overrides = [], as_json: Json = False) -> None:  # noqa: B006 - typer's
    """Print a recipe with nothing left out, as YAML that curate takes, with what each step costs and needs.

    Costs are seconds of one core, as they were measured. Nothing is downloaded.

    Examples:
    dailies recipe show cpu
    dailies recipe show svd --set cut.max_seconds=10
    """
    from dailies.pipelines.cli.recipe_report_tables import print_recipe
    from dailies.pipelines.recipes.preflight import show_recipe

    report = show_recipe(recipe, overrides)
    print_notes(report.notes)
    print_recipe(report, as_json)


@recipe_app.command("check", cls=Command)
def check(recipe: Recipe, overrides: Overrides = [], as_json: Json = False) -> None:  # noqa: B006 - typer's
    """Check a recipe as curate does before work; say what is missing, and what a run would download.

    Nothing is downloaded. Exit code 2 means that the recipe cannot run here.

    Examples:
    dailies recipe check mine.yaml
    dailies recipe check svd --set aesthetic.head=head.pth
    """
    from dailies.pipelines.cli.recipe_report_tables import print_check
    from dailies.pipelines.recipes.preflight import check_recipe

    checked = check_recipe(recipe, overrides)
    if checked.report is not None:
        print_notes(checked.report.notes)
    print_check(checked, as_json)
    if not checked.ok:
        raise typer.Exit(UNMET)


@recipe_app.command("diff", cls=Command)
def diff(recipe: Recipe, other: Other, as_json: Json = False) -> None:
    """Say what differs between two recipes, by step and parameter, rules among them.

    Examples:
    dailies recipe diff svd svd-hq
    dailies recipe diff cpu mine.yaml --json
    """
    from dailies.pipelines.cli.recipe_report_tables import print_comparison
    from dailies.pipelines.recipes.compare import compare_recipes

    print_comparison(compare_recipes(recipe, other), as_json)
