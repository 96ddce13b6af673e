"""Rows of a query are printed here: as a table that suits the terminal, or as JSON or CSV.

A terminal gets what fits it: a table whose texts are wrapped and whose ids, numbers and paths are whole; of few rows that do
not fit, a block each; of many, the columns that fit, and a line that names the others. A pipe gets every row and column,
one line a row.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import pyarrow as pa
from rich.cells import cell_len

from dailies.curation.addresses import scrub_data
from dailies.curation.errors import UsageError
from dailies.curation.plain_text import clean, spreadsheet
from dailies.pipelines.cli.tables import DASH, counted, grid
from dailies.pipelines.cli.terminal import say, say_json, stdout

Layout = Literal["table", "json", "csv"]

MOST_ROWS = 50  # in a terminal
MOST_BLOCKS = 10
LIST, LIST_HEAD = 8, 3  # a list that is longer is shown by its first elements
STRUCTS_HEAD = 1
TEXT = 400  # characters of a text in a terminal
SHORT = 16  # columns, of what is chosen before longer columns
NARROW = 24  # columns to which a text may be wrapped
GAP, EDGE = 3, 2  # columns between the cells of ``grid``, and beside them


def print_rows(rows: pa.Table, layout: Layout) -> None:
    """Print rows of a query; bytes are shown by their size, and in tables a long list by its first elements."""
    if layout == "csv":
        _print_csv(rows)
    elif layout == "json":
        cells = ([_plain(value) for value in column] for column in _values(rows))
        say_json([dict(zip(rows.column_names, row, strict=True)) for row in zip(*cells, strict=True)])
    else:
        console = stdout(data=True)
        _print_table(rows, console.width if console.is_terminal else None)


def _print_csv(rows: pa.Table) -> None:
    lines = io.StringIO()
    writer = csv.writer(lines, lineterminator="\n")
    writer.writerow(map(spreadsheet, rows.column_names))
    for row in zip(*_values(rows), strict=True):
        cells = map(_plain, row)
        writer.writerow([spreadsheet(cell) if isinstance(cell, str) else cell for cell in cells])
    say(lines.getvalue().removesuffix("\n"), data=True)


# ---- tables ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class _Column:
    """A column to print. ``natural``: its width unwrapped; ``least``: with words whole."""

    name: str
    numeric: bool
    cells: Sequence[str]
    natural: int
    least: int


def _print_table(rows: pa.Table, width: int | None) -> None:
    """Print rows for people. ``width``: of the terminal in columns, None where there is none."""
    shown = rows if width is None else rows.slice(0, MOST_ROWS)
    columns = _columns(shown, None if width is None else TEXT)
    left_out: list[_Column] = []
    if width is None or _total(columns, least=False) <= width:
        _print_grid(columns, [column.natural for column in columns])
    elif _total(columns, least=True) <= width:
        _print_grid(columns, _shared_out(columns, width))
    else:
        fitting = _fitting(columns, width)
        if len(shown) <= MOST_BLOCKS or not fitting:
            _print_blocks(columns, len(rows), width)
        else:
            left_out = [column for column in columns if column not in fitting]
            _print_grid(fitting, _shared_out(fitting, width))
    whole = "a pipe, --json or --csv"
    part = f", the first {len(shown)} shown; {whole} has all" if len(shown) < len(rows) else ""
    say(f"{counted(len(rows), 'row')}{part}")
    if left_out:
        names = ", ".join(column.name for column in left_out)
        say(f"too wide for this terminal, so left out: {names}; {whole} has all, and so has a select of fewer columns")


def _columns(rows: pa.Table, most: int | None) -> list[_Column]:
    """Return the columns as texts. ``most``: characters of a cell."""
    columns = []
    for field, values in zip(rows.schema, _values(rows), strict=True):
        cells = [_cell(value, most) for value in values]
        name = clean(field.name)
        natural = max(map(cell_len, [name, *cells]))
        longest_word = max(cell_len(word) for text in (name, *cells) for word in text.split(" "))
        numeric = pa.types.is_integer(field.type) or pa.types.is_floating(field.type)
        least = max(longest_word, min(natural, NARROW))
        columns.append(_Column(name=name, numeric=numeric, cells=cells, natural=natural, least=least))
    return columns


def _total(columns: Sequence[_Column], *, least: bool) -> int:
    widths = [column.least if least else column.natural for column in columns]
    return sum(widths) + GAP * (len(widths) - 1) + EDGE


def _fitting(columns: Sequence[_Column], width: int) -> list[_Column]:
    """Return those columns, in order, that fit: the first, then short ones before ids, paths and texts."""
    by_need = sorted(columns[1:], key=lambda column: column.least > SHORT)
    fitting: list[_Column] = []
    for column in (columns[0], *by_need):
        if _total([*fitting, column], least=True) <= width:
            fitting.append(column)
    return [column for column in columns if column in fitting]


def _shared_out(columns: Sequence[_Column], width: int) -> list[int]:
    """Return the columns' widths where texts are wrapped: the room is shared out evenly among those that want more."""
    widths = [column.least for column in columns]
    room = width - _total(columns, least=True)
    while room > 0:
        wanting = [at for at, column in enumerate(columns) if widths[at] < column.natural]
        if not wanting:
            break
        for at in wanting[:room]:
            more = min(max(1, room // len(wanting)), columns[at].natural - widths[at])
            widths[at] += more
            room -= more
    return widths


def _print_grid(columns: Sequence[_Column], widths: Sequence[int]) -> None:
    table = grid()
    for column, width in zip(columns, widths, strict=True):
        justify: Literal["left", "right"] = "right" if column.numeric else "left"
        table.add_column(column.name, justify=justify, width=width, overflow="fold")
    for cells in zip(*(column.cells for column in columns), strict=True):
        table.add_row(*cells)
    if columns:
        stdout(sum(widths) + GAP * len(widths) + EDGE, data=True).print(table)


def _print_blocks(columns: Sequence[_Column], total: int, width: int) -> None:
    """Print a block a row, a line a column; the terminal breaks long lines, so that what is copied from it is whole."""
    out = stdout(data=True)
    names = max(cell_len(column.name) for column in columns)
    for number in range(len(columns[0].cells)):
        head = f"row {number + 1} of {total} "
        out.print(head + "─" * max(0, width - len(head)), style="bold")
        for column in columns:
            out.print(f"{column.name}{' ' * (names - cell_len(column.name))}  {column.cells[number]}", soft_wrap=True)


# ---- values ---------------------------------------------------------------------------------------------------------


def _values(rows: pa.Table) -> list[list[Any]]:
    """Return each column as Python values; two may have one name. Raises ``UsageError`` for a date that Python has not."""
    try:
        return [column.to_pylist() for column in rows.columns]
    except (OverflowError, ValueError) as error:
        raise UsageError(f"the result has a time that cannot be shown: {error}; cast it to varchar") from error


def _plain(value: Any) -> Any:
    if isinstance(value, bytes):
        return f"<{len(value)} bytes>"
    if isinstance(value, Mapping):
        return {key: _plain(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_plain(inner) for inner in value]
    return value


def _cell(value: Any, most: int | None) -> str:
    """Return a value on one line, without secrets. Of a text over ``most`` characters it says how many there are."""
    text = clean(scrub_data(_short(value))).replace("\n", "⏎").replace("\t", " ")
    return text if most is None or len(text) <= most else f"{text[:most]}… {len(text):,} characters in all"


def _short(value: Any) -> str:
    if value is None:
        return DASH
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return f"{value:.4g}" if not 1e4 <= abs(value) < 1e15 else f"{value:.1f}"
    if isinstance(value, bytes):
        return f"<{len(value)} bytes>"
    if isinstance(value, Mapping):
        return f"{{{', '.join(f'{key}: {_short(inner)}' for key, inner in value.items())}}}"
    if isinstance(value, list):
        nested = bool(value) and isinstance(value[0], Mapping | list)
        head = STRUCTS_HEAD if nested else LIST_HEAD
        if len(value) > (head if nested else LIST):
            return f"[{', '.join(map(_short, value[:head]))}, … {len(value)} in all]"
        return f"[{', '.join(map(_short, value))}]"
    return str(value)
