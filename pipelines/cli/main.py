"""The command line: parse, call, print. Nothing heavy is imported before a command needs it."""

from __future__ import annotations

import sys
import traceback
from typing import Annotated, Any

import typer

from dailies.curation.addresses import hide_arguments
from dailies.curation.errors import DailiesError, QueryError, UsageError, machine_error
from dailies.pipelines.cli.captions import captions_app
from dailies.pipelines.cli.curate import curate, cuts, dedup, export, select
from dailies.pipelines.cli.doctor import doctor
from dailies.pipelines.cli.expand import expand
from dailies.pipelines.cli.help import SETTINGS, Command, Group, is_help, misuse
from dailies.pipelines.cli.interrupt import stopped_line, telling_of_interrupts
from dailies.pipelines.cli.lazy_pandas import process_is_ours
from dailies.pipelines.cli.look import diff, info, show, sql
from dailies.pipelines.cli.maintenance import gc, verify, withdraw
from dailies.pipelines.cli.quick_help import prepare_help
from dailies.pipelines.cli.quickstart import quickstart
from dailies.pipelines.cli.recipe import recipe_app, recipes
from dailies.pipelines.cli.report import report, stats, view
from dailies.pipelines.cli.terminal import say
from dailies.pipelines.cli.train import train
from dailies.pipelines.cli.zoo import zoo_app

DEFECT = "dailies: this is a defect in dailies, not a mistake of yours; please report it with the lines above"
INTERRUPTED = 130  # exit code
PANELS: dict[str, tuple[Any, ...]] = {
    "From videos to models": (quickstart, curate, dedup, select, export, train, zoo_app, expand),
    "Look, ask and keep in order": (
        *(info, show, stats, report, view, diff, captions_app, recipe_app, doctor, cuts, sql, verify, withdraw, gc),
    ),
}
"""Heading of the help → commands, and groups of them, in the order in which they stand there."""


class Root(Group):
    """All commands, in the order of ``PANELS``; typer itself puts groups behind commands."""

    def list_commands(self, ctx: Any) -> list[str]:
        names = [_name(command) for panel in PANELS.values() for command in panel]
        return sorted(super().list_commands(ctx), key=lambda name: names.index(name) if name in names else len(names))


def _name(command: Any) -> str:
    return str(command.info.name if isinstance(command, typer.Typer) else command.__name__)


app = typer.Typer(
    name="dailies",
    help="Raw video in; a curated, captioned dataset, a trained model and a zoo out.",
    cls=Root,
    context_settings=SETTINGS,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)
for heading, panel in PANELS.items():
    for command in panel:
        if isinstance(command, typer.Typer):
            app.add_typer(command, name=_name(command), rich_help_panel=heading)
        else:
            app.command(cls=Command, rich_help_panel=heading)(command)
app.command(cls=Command, hidden=True)(recipes)  # what there was before ``recipe``


def _version(show: bool) -> None:
    if show:
        from importlib.metadata import version

        say(f"dailies {version('dailies')}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass


# Typer carries its own copy of click, whose error for misuse it shows only as the base of this one.
_Misused: Any = typer.BadParameter.__base__


def main(arguments: list[str] | None = None) -> None:
    """Run a command and exit with its code.

    A mistake in the request is one line and code 2. Any other error of the project is one line and code 1, and so are
    memory, room and file handles that run out; an interrupt is one line and code 130. Every other exception is a defect:
    its traceback stays, a line asks to report it, code 1.
    """
    stopped = stopped_line(sys.argv[1:] if arguments is None else arguments)
    if arguments is None:  # a process of its own
        hide_arguments()
        process_is_ours()
        prepare_help(sys.argv[1:])
    try:
        with telling_of_interrupts():
            code = app(arguments, standalone_mode=False)
        if code == INTERRUPTED:  # what Typer makes of Ctrl-C
            say(stopped, err=True)
    except _Misused as error:  # a missing argument, an unknown option
        code = 2 if is_help(error) else _fail(f"dailies: {misuse(error)}", 2)
    except (typer.Abort, KeyboardInterrupt) as error:
        if isinstance(error.__cause__, EOFError):  # Typer takes it for Ctrl-D at a prompt, and there are no prompts
            say("".join(traceback.format_exception(error.__cause__)).rstrip(), err=True)
            code = _fail(DEFECT, 1)
        else:
            code = _fail(stopped, INTERRUPTED)
    except QueryError as error:
        first, *more = str(error).splitlines()
        code = _fail(f"dailies: {first}", 2)
        for line in more:  # indented as they are, a caret stays under its place; and none can pass for a line of ours
            say(f"  {line}", err=True)
    except UsageError as error:
        code = _fail(f"dailies: {error}", 2)
    except DailiesError as error:
        code = _fail(f"dailies: {error}", 1)
    except Exception as error:
        if (stopping := machine_error(error)) is not None:
            code = _fail(f"dailies: {stopping}", 1)
        else:
            say(traceback.format_exc().rstrip(), err=True)
            code = _fail(DEFECT, 1)
    sys.exit(code if isinstance(code, int) else 0)


def _fail(line: str, code: int) -> int:
    say(" ".join(line.splitlines()), err=True)  # a name with a newline in it makes no line of its own
    return code


if __name__ == "__main__":
    main()
