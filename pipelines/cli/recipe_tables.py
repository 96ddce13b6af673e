"""Recipes and their parts are printed here: a table of all, or one with its keys and columns."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from rich.text import Text

from dailies.curation.select import Rule
from dailies.pipelines.cli.help import in_columns
from dailies.pipelines.cli.terminal import say_json, stdout

if TYPE_CHECKING:
    from dailies.pipelines.recipes.describe import Key, PartInfo

WIDEST = 34  # columns of a key with its value
HEADINGS = {
    "recipe": "Recipes: what curate and cuts do",
    "observer": "Observers: measured while a source is decoded",
    "detector": "Detectors: where cuts are",
    "scorer": "Scorers: measured on the evidence of clips",
    "captioner": "Captioners: text for clips",
}


def print_parts(parts: Sequence[PartInfo], as_json: bool) -> None:
    if as_json:
        say_json([_row(part) for part in parts])
        return
    out = stdout()
    rows = [(part.name, _line(part)) for part in parts]
    for kind, heading in HEADINGS.items():
        out.print(Text(heading, style="bold"))
        for line in in_columns([(part.name, _line(part)) for part in parts if part.kind == kind], rows):
            out.print(line, soft_wrap=True)
        out.print()
    out.print(
        "dailies recipe explain NAME explains one with all its keys, and dailies recipe show what it comes to, costs and "
        "needs; training recipes: dailies train --help",
    )


def _line(part: PartInfo) -> str:
    units = list(dict.fromkeys(column.unit for column in part.columns if column.unit))
    unit = f", in {units[0]}" if len(units) == 1 else ""
    makes = f" ({part.columns[0].name}{', …' if len(part.columns) > 1 else ''}{unit})" if part.columns else ""
    return f"{part.about}{makes}.{f' Needs {part.needs}.' if part.needs else ''}"


def print_part(parts: Sequence[PartInfo], as_json: bool) -> None:
    if as_json:
        say_json([_row(part) for part in parts])
        return
    for part in parts:
        _print_part(part)


def _print_part(part: PartInfo) -> None:
    out = stdout()
    out.print(Text.assemble((f"{part.kind} {part.name}", "bold")))
    out.print("".join((f"{part.about}. " if part.about else "", f"Needs {part.needs}." if part.needs else "")))
    rows = [(f"{key.name}={shown(key.value)}", _explained(key)) for key in part.keys]
    if part.keys and not part.steps:
        rows = [(key.name if key.required else row[0], row[1]) for key, row in zip(part.keys, rows, strict=True)]
        out.print(Text("\nParameters", style="bold"))
        _print_rows(rows, rows)
    for name, about in part.steps:
        out.print(Text.assemble("\n", (name, "bold"), f"  {about}"))
        _print_rows([row for row in rows if row[0].startswith(f"{name}.")], rows)
        if any(row[0].startswith(f"{name}.rules.") for row in rows):
            out.print(f"  A rule for any column: {name}.rules.COLUMN.KEY, KEY being {', '.join(Rule.model_fields)}.")
    if part.columns:
        columns = [
            (column.name, f"{column.about}{f' [{column.unit}]' if column.unit else ''}") for column in part.columns
        ]
        out.print(Text("\nColumns", style="bold"))
        _print_rows(columns, columns)
    out.print()


def _print_rows(rows: Sequence[tuple[str, str]], among: Sequence[tuple[str, str]]) -> None:
    for line in in_columns(rows, among, WIDEST):
        stdout().print(line, soft_wrap=True)


def _explained(key: Key) -> str:
    notes = [key.allowed] if key.allowed else []
    if key.required:
        notes.append("required")
    elif key.value != key.default:
        notes.append(f"left out: {shown(key.default)}")
    return f"{key.about} [{'; '.join(notes)}]" if notes else key.about


def shown(value: Any) -> str:
    """Return a value as ``--set`` takes it."""
    if isinstance(value, float):
        return json.dumps(value).removesuffix(".0")
    if isinstance(value, list):
        return f"[{', '.join(_quoted(each, '[{}]') if isinstance(each, str) else shown(each) for each in value)}]"
    return _quoted(value, "{}") if isinstance(value, str) else json.dumps(value)


def _quoted(text: str, place: str) -> str:
    """Return a text as it is, or in quotes where YAML takes it for something else: ``yes``, ``3``, or ``a, b`` in a list."""
    import yaml

    try:
        same = yaml.safe_load(place.format(text)) in (text, [text])
    except yaml.YAMLError:
        same = False
    return text if same else json.dumps(text, ensure_ascii=False)


def _row(part: PartInfo) -> dict[str, Any]:
    return {key: value for key, value in asdict(part).items() if value not in ("", ())}
