"""How ``--help`` and mistakes in a command line read: usage that can be copied, one column of options, examples to the end.

A command's docstring is its help. What stands in it under ``Examples:`` is shown as it is written.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator, Sequence
from typing import Any

from rich.text import Text
from typer.core import TyperArgument, TyperCommand, TyperGroup, TyperOption

from dailies.curation.errors import UsageError
from dailies.pipelines.cli.terminal import stdout

INPUT, WORK, MODELS, ENGINE, OUTPUT = "Input", "What to do", "Models", "Engine", "Output"
"""Headings that the options of a command with many of them stand under (``rich_help_panel``)."""
ARGUMENTS, OPTIONS, COMMANDS = "Arguments", "Options", "Commands"
MANY = 8  # options from which on they stand under several headings
WIDEST = 100  # columns of a page: longer lines are hard to read
LABEL = 27  # columns of an option's name; its help begins on the next line where it is longer
FIXED = "\u00a0"  # a space that no line is broken at
SETTINGS = {"help_option_names": ["-h", "--help"]}

Row = tuple[str, str]


class Command(TyperCommand):
    """A command whose help is a page of ``print_help``."""

    def __init__(self, name: str | None, *, help: str | None = None, epilog: str | None = None, **rest: Any) -> None:
        text, _, examples = (help or "").partition("\n\nExamples:\n")
        super().__init__(name, help=text, epilog=epilog or textwrap.dedent(examples).strip() or None, **rest)

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        return [*_arguments(self, ctx), *_required(self, ctx), "[OPTIONS]"]

    def format_help(self, ctx: Any, formatter: Any) -> None:
        print_help(self, ctx)


class Group(TyperGroup):
    """A group of commands whose help is a page of ``print_help``."""

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        return ["COMMAND", "[OPTIONS]"]

    def resolve_command(self, ctx: Any, args: list[str]) -> tuple[str | None, Any, list[str]]:
        names = self.list_commands(ctx)
        if not args[0].startswith("-") and args[0] not in names and not ctx.resilient_parsing:
            from dailies.curation.config import did_you_mean

            see = f"(see {ctx.command_path} --help)"
            raise UsageError(f"{args[0]}: no such command{did_you_mean(args[0], names)} {see}")
        return super().resolve_command(ctx, args)

    def summaries(self, ctx: Any) -> Iterator[tuple[str, str, str]]:
        """Yield heading, name and the first sentence of the help of each command."""
        for name in self.list_commands(ctx):
            command = self.get_command(ctx, name)
            if command is not None and not command.hidden:
                panel = getattr(command, "rich_help_panel", None)
                yield panel if isinstance(panel, str) else COMMANDS, name, first_sentence(command.help or "")

    def format_help(self, ctx: Any, formatter: Any) -> None:
        print_help(self, ctx)


def first_sentence(text: str) -> str:
    """Return the first sentence of a docstring, with its full stop."""
    sentence, stop, _ = " ".join(text.split()).partition(". ")
    return f"{sentence}." if stop else sentence


# ---- the page -------------------------------------------------------------------------------------------------------


def print_help(command: Any, ctx: Any) -> None:
    """Print the page of a command or group."""
    sections = [*_options(command, ctx)]
    if isinstance(command, Group):
        commands: dict[str, list[Row]] = {}
        for panel, name, text in command.summaries(ctx):
            commands.setdefault(panel, []).append((name, text))
        sections = [*commands.items(), *sections]
    out = stdout()
    width = page_width()
    rows = [row for _, section in sections for row in section]
    lines = [Text.assemble(("Usage: ", "bold"), command.get_usage(ctx).removeprefix("Usage: ")), Text()]
    for paragraph in (command.help or "").split("\n\n"):
        if (table := _table(paragraph)) is not None:
            sections.insert(0, table)
        else:
            lines += [*map(Text, textwrap.wrap(" ".join(paragraph.split()), width)), Text()]
    for heading, section in sections:
        lines.append(Text(heading, style="bold"))
        lines += [*in_columns(section, rows), Text()]
    if command.epilog:
        lines.append(Text("Examples", style="bold"))
        lines += [Text(f"  {line}") for line in command.epilog.splitlines()]
    for line in lines:
        out.print(line, soft_wrap=True)


def _table(paragraph: str) -> tuple[str, list[Row]] | None:
    """Return the heading and rows of a paragraph ``HEADING:`` with lines ``NAME  TEXT``; ``None`` for prose."""
    heading, *lines = textwrap.dedent(paragraph).splitlines()
    if not heading.endswith(":") or not lines:
        return None
    rows: list[Row] = []
    for line in lines:
        name, _, text = line.partition("  ")
        if name.strip():
            rows.append((name, text.strip()))
        else:
            rows[-1] = (rows[-1][0], f"{rows[-1][1]} {text.strip()}")
    return heading.removesuffix(":"), rows


def in_columns(rows: Sequence[Row], among: Sequence[Row], widest: int = LABEL) -> Iterator[Text]:
    """Yield the lines of ``rows``: names in a column as wide as those ``among`` all need, ``widest`` at most, texts beside."""
    width = page_width()
    label = min(widest, max(len(name) for name, _ in among)) + 2
    for name, text in rows:
        yield from _row(name, text, label, width)


def page_width() -> int:
    """Return the columns of a page on this terminal."""
    return min(stdout().width, WIDEST)


def _row(name: str, text: str, label: int, width: int) -> Iterator[Text]:
    """Yield the lines of one row: its name in a column of ``label``, and its text beside it."""
    wrapped = textwrap.wrap(text, width - label - 2, break_long_words=False, break_on_hyphens=False)
    wrapped = [line.replace(FIXED, " ") for line in wrapped]
    if len(name) > label - 2:
        yield Text(f"  {name}", style="cyan")
        name = ""
    elif wrapped:
        yield Text.assemble("  ", (f"{name:<{label}}", "cyan"), wrapped.pop(0))
    for line in wrapped:
        yield Text(f"  {'':<{label}}{line}")


def _options(command: Any, ctx: Any) -> Iterator[tuple[str, list[Row]]]:
    """Yield each heading with its rows; arguments first, and what every command has last."""
    parameters = [parameter for parameter in command.get_params(ctx) if not getattr(parameter, "hidden", False)]
    arguments = [parameter for parameter in parameters if isinstance(parameter, TyperArgument)]
    options = [parameter for parameter in parameters if not isinstance(parameter, TyperArgument)]
    panels: dict[str, list[Row]] = {}
    for parameter in [*arguments, *options]:
        named = getattr(parameter, "rich_help_panel", None) or OPTIONS
        panel = named if len(options) > MANY else ARGUMENTS if parameter in arguments else OPTIONS
        panels.setdefault(panel, []).append((_label(parameter), _explained(parameter, ctx)))
    yield from ((panel, rows) for panel, rows in panels.items() if panel != OPTIONS)
    if OPTIONS in panels:
        yield OPTIONS, panels[OPTIONS]


def _label(parameter: Any) -> str:
    """Return ``-o, --out DATASET``; names without a short form stand under those with one."""
    if isinstance(parameter, TyperArgument):
        return _argument(parameter)
    short = [name for name in parameter.opts if not name.startswith("--")]
    names = ", ".join([*short, *(name for name in parameter.opts if name not in short)])
    value = "" if parameter.is_flag or parameter.count else f" {_metavar(parameter)}"
    return f"{'' if short else '    '}{names}{value}"


def _metavar(parameter: Any) -> str:
    return str(parameter.metavar or (parameter.name or "").upper())


def _argument(parameter: Any) -> str:
    return f"{_metavar(parameter).rstrip('.…')}{'...' if parameter.nargs != 1 else ''}"


def _arguments(command: Any, ctx: Any) -> Iterator[str]:
    for parameter in command.get_params(ctx):
        if isinstance(parameter, TyperArgument):
            yield _argument(parameter) if parameter.required else f"[{_argument(parameter)}]"


def _required(command: Any, ctx: Any) -> Iterator[str]:
    for parameter in command.get_params(ctx):
        if isinstance(parameter, TyperOption) and parameter.required:
            longest = max(parameter.opts, key=len)
            yield f"{longest} {_metavar(parameter)}"


def _explained(parameter: Any, ctx: Any) -> str:
    """Return the help with what it is by default, where that is a value."""
    notes = []
    if isinstance(parameter.show_default, str):
        notes.append(f"[default: {parameter.show_default}]")
    elif not getattr(parameter, "is_flag", False) and parameter.default not in (None, "", [], ()):
        notes.append(f"[default: {parameter.default}]")
    if parameter.envvar:
        notes.append(f"[env: {parameter.envvar}]")
    if parameter.required and not isinstance(parameter, TyperArgument):
        notes.append("[required]")
    return " ".join([*(parameter.help or "").split(), *(note.replace(" ", FIXED) for note in notes)])


# ---- mistakes -------------------------------------------------------------------------------------------------------


def is_help(error: Any) -> bool:
    """Return whether a group was called without a command; its help is printed then."""
    return type(error).__name__ == "NoArgsIsHelpError"


def misuse(error: Any) -> str:
    """Say in one line what is wrong with a command line, and what may have been meant.

    Typer's errors are told apart by name: it carries its own copy of click, and shows the base of these errors alone.
    """
    from pydantic import ValidationError

    from dailies.curation.config import did_you_mean, plain_words

    ctx, kind = error.ctx, type(error).__name__
    if kind == "BadOptionUsage":  # has no context
        wrong = "its value is missing" if "requires" in error.message else "takes no value"
        return f"{error.option_name}: {wrong}"
    if ctx is None:
        return " ".join(error.format_message().split())
    see = f" (see {ctx.command_path} --help)"
    usage = " ".join(ctx.command.get_usage(ctx).split()).removeprefix("Usage: ").removesuffix(" [OPTIONS]")
    if kind == "NoSuchOption":
        names = [name for parameter in ctx.command.get_params(ctx) for name in parameter.opts]
        known = did_you_mean(error.option_name, names)
        return f"{error.option_name}: {ctx.command_path} has no such option{known}{see}"
    if kind == "MissingParameter":
        return f"{_named(error.param)}: missing; write {usage}{see}"
    if kind == "BadParameter" and error.param is not None:
        cause = error.__cause__
        value = f"={cause.errors()[0]['input']}" if isinstance(cause, ValidationError) else ""
        return f"{_named(error.param)}{value}: {plain_words(error.message)}{see}"
    if extra := re.search(r"unexpected extra argument\(s\) \((.*)\)", error.message, re.DOTALL):
        return f"{extra[1]}: not expected here; write {usage}{see}"
    return f"{' '.join(error.format_message().split())}{see}"


def _named(parameter: Any) -> str:
    return _argument(parameter) if isinstance(parameter, TyperArgument) else max(parameter.opts, key=len)
