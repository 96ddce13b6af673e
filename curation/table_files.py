"""Tables that people write are read here, row by row: Parquet, CSV, TSV, JSON Lines, and text with one path a line.

Every row says where it stands, so that a mistake in it is named. Cells of CSV, TSV and JSON Lines get the type that the
whole column has: numbers are numbers, beside a word they are text, and an empty cell is null. Bytes of videos are never
read: a ``Cell`` stands for them.
"""

from __future__ import annotations

import csv
import json
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from dailies.curation.addresses import scrub
from dailies.curation.errors import UsageError
from dailies.curation.parquet_files import open_parquet, python_rows

TABLE_SUFFIXES = frozenset([".parquet", ".csv", ".tsv", ".jsonl", ".ndjson", ".txt"])
WHOLE = re.compile(r"[+-]?(0|[1-9]\d{0,17})")  # 007 is a name, and more digits than 64 bits hold are one too
NUMBER = re.compile(r"[+-]?((0|[1-9]\d*)(\.\d*)?|\.\d+)([eE][+-]?\d+)?|nan|[+-]?inf", re.IGNORECASE)

MOST_LINE = 64 << 20
"""Characters of a line, or of a cell of several lines: a file with a hole in it is one endless line."""


@dataclass(frozen=True, slots=True)
class Cell:
    """A cell of Parquet that holds bytes: its ``row`` in the file, from 0; ``name``: the file's name that stands beside it."""

    row: int
    name: str | None = None


@dataclass(frozen=True, slots=True)
class TableRow:
    """One row; ``where`` names it for people, with its line in a file of text. Rows and lines count from 1."""

    where: str
    values: dict[str, Any]


def read_rows(path: Path, *, typed: bool = True, blobs: frozenset[str] = frozenset()) -> Iterator[TableRow]:
    """Yield the rows of a table; any size will do.

    Args:
        path: Its suffix, one of ``TABLE_SUFFIXES``, says what it is.
        typed: Infer the types of columns, which takes a pass more over all but Parquet; else every cell of CSV and TSV is
            text or null, and JSON's have types of their own.
        blobs: Columns (lower case) of Parquet whose plain bytes are files. Structs of bytes and path, as Hugging Face writes
            them, are files in any column: each value is a ``Cell``, or the path where there are no bytes.

    Raises ``UsageError`` in one line, with the row where one row is to blame.
    """
    suffix = path.suffix.lower()
    if path.exists() and not path.is_file():  # a pipe would keep its reader waiting
        raise UsageError(f"{path}: cannot be read: is not a file")
    try:
        if suffix == ".parquet":
            yield from _parquet(path, blobs)
        elif suffix in (".csv", ".tsv"):
            yield from _separated(path, "," if suffix == ".csv" else "\t", typed)
        elif suffix == ".txt":
            yield from _lines(path)
        else:
            yield from _json_lines(path, typed)
    except (OSError, ValueError, pa.ArrowException) as error:
        raise UsageError(f"{path}: cannot be read: {' '.join(str(error).split())}") from error
    except RecursionError:
        raise UsageError(f"{path}: cannot be read: a row is nested too deep") from None


def _check_names(path: Path, names: Sequence[str]) -> None:
    if twice := [name for name, many in Counter(names).items() if name and many > 1]:
        raise UsageError(f"{path}: two columns are named {twice[0]!r}; rename one")


# ---- text -----------------------------------------------------------------------------------------------------------


def _text(path: Path) -> Iterator[str]:
    """Yield the lines of a file of text with their ends. Raises ``ValueError`` for one of over ``MOST_LINE`` characters."""
    with path.open(newline="", encoding="utf-8-sig") as file:
        while line := file.readline(MOST_LINE + 1):
            if len(line) > MOST_LINE:
                raise ValueError(f"a line has over {MOST_LINE:,} characters")
            yield line


def _lines(path: Path) -> Iterator[TableRow]:
    for number, line in enumerate(_text(path), 1):
        if (text := line.strip()) and not text.startswith("#"):
            yield TableRow(f"line {number}", {"path": text})


def _separated(path: Path, delimiter: str, typed: bool) -> Iterator[TableRow]:
    casts = _casts(path, delimiter) if typed else {}
    for where, values in _cells(path, delimiter):
        yield TableRow(
            where,
            {name: cell if cell is None or name not in casts else casts[name](cell) for name, cell in values.items()},
        )


def _casts(path: Path, delimiter: str) -> dict[str, Callable[[str], Any]]:
    """Return how to read the columns whose every cell is a number."""
    whole: dict[str, bool] = {}
    text: set[str] = set()
    for _, values in _cells(path, delimiter):
        for name, cell in values.items():
            if cell is None or name in text:
                continue
            digits, is_whole = cell.strip(), WHOLE.fullmatch(cell.strip()) is not None
            if not NUMBER.fullmatch(digits) or (digits.lstrip("+-").isdecimal() and not is_whole):
                text.add(name)
            else:
                whole[name] = whole.get(name, True) and is_whole
    return {name: int if only_whole else float for name, only_whole in whole.items() if name not in text}


def _cells(path: Path, delimiter: str) -> Iterator[tuple[str, dict[str, str | None]]]:
    """Yield where each row stands, and its cells as text; empty ones are None. A column without a name is left out."""
    csv.field_size_limit(MOST_LINE)  # its default of 131,072 characters is below what some captions have
    reader = csv.reader(_text(path), delimiter=delimiter, strict=True)
    names: list[str] | None = None
    rows = count(1)
    line = 1
    while True:
        try:
            cells = next(reader, None)
        except csv.Error as error:
            where = "header" if names is None else f"row {next(rows)} (line {line})"
            raise UsageError(f"{path}: {where}: {error}; check its double quotes") from None
        if cells is None:
            return
        if names is None and cells:
            names = [cell.strip() for cell in cells]
            _check_names(path, names)
        elif names is not None and cells:
            where = f"row {next(rows)} (line {line})"
            if len(cells) > len(names):
                raise UsageError(
                    f"{path}: {where}: has {len(cells)} cells where the header has {len(names)}; "
                    "put a text with commas in double quotes"
                )
            padded = [*cells, *[""] * (len(names) - len(cells))]
            yield (
                where,
                {name: cell if cell.strip() else None for name, cell in zip(names, padded, strict=True) if name},
            )
        line = reader.line_num + 1


# ---- JSON Lines -----------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Kind:
    """What stands in a column, or at one place within its values: a word of ``_KINDS``, first seen at ``where``.

    ``within``: of objects, what stands under each name; of lists, what their elements are, under ``[]``.
    """

    word: str
    where: str
    within: dict[str, _Kind]


_KINDS = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "text",
    list: "a list",
    dict: "an object",
}


def _json_lines(path: Path, typed: bool) -> Iterator[TableRow]:
    kinds: dict[str, _Kind] = {}
    for row in _json_rows(path) if typed else ():
        for name, value in row.values.items():
            _note(kinds, name, value, f"{path}: {row.where}: {name}", row.where)
    for row in _json_rows(path):
        yield TableRow(row.where, _as_kinds(row.values, kinds)) if typed else row


def _json_rows(path: Path) -> Iterator[TableRow]:
    """Yield the objects of each line as they are written."""
    rows = count(1)
    for line, text in enumerate(_text(path), 1):
        if not text.strip():
            continue
        where = f"row {next(rows)} (line {line})"
        try:
            values = json.loads(text, object_pairs_hook=_each_named_once)
        except ValueError as error:
            raise UsageError(f"{path}: {where}: is not JSON: {error}") from None
        except RecursionError:
            raise UsageError(f"{path}: {where}: is not JSON that can be read: it is nested too deep") from None
        except UsageError as error:
            raise UsageError(f"{path}: {where}: {error}") from None
        if not isinstance(values, dict):
            raise UsageError(f"{path}: {where}: is no object; write one JSON object a line")
        yield TableRow(where, values)


def _each_named_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name, many in Counter(names).items() if many > 1)
        raise UsageError(f"{twice!r} stands twice in an object; leave one out")
    return values


def _note(kinds: dict[str, _Kind], name: str, value: Any, place: str, where: str) -> None:
    """Widen the kind of what stands under ``name`` to take in ``value`` too; null fits any.

    A number beside whole ones makes all of them numbers, and text beside numbers makes all of them text, as in CSV; so
    does a whole number of more than 64 bits. Raises ``UsageError``, beginning with ``place``, where there is no such kind.
    """
    if value is None:
        return
    word = "text" if type(value) is int and not -(2**63) <= value < 2**63 else _KINDS[type(value)]
    known = kinds.setdefault(name, _Kind(word, where, {}))
    if known.word != word:
        both = {known.word, word}
        if not both <= {"a whole number", "a number", "text"}:
            shown = scrub(json.dumps(value, ensure_ascii=False))[:80]
            raise UsageError(
                f"{place}={shown}: is {word}, where {known.where} has {known.word}; give all of them one type, or null"
            )
        known.word = "text" if "text" in both else "a number"
    if isinstance(value, dict):
        for key, item in value.items():
            _note(known.within, key, item, f"{place}.{key}", where)
    elif isinstance(value, list):
        inner = f"{place}[]"
        for item in value:
            _note(known.within, "[]", item, inner, where)


def _as_kinds(values: dict[str, Any], kinds: dict[str, _Kind]) -> dict[str, Any]:
    return {name: None if value is None else _as_kind(value, kinds[name]) for name, value in values.items()}


def _as_kind(value: Any, kind: _Kind) -> Any:
    """Return a value, of what ``_note`` has taken in, as its kind says."""
    if isinstance(value, dict):
        return _as_kinds(value, kind.within)
    if isinstance(value, list):
        return [None if item is None else _as_kind(item, kind.within["[]"]) for item in value]
    if kind.word == "text" and not isinstance(value, str):
        return json.dumps(value)
    return float(value) if kind.word == "a number" else value


# ---- Parquet --------------------------------------------------------------------------------------------------------


def _parquet(path: Path, blobs: frozenset[str]) -> Iterator[TableRow]:
    with open_parquet(path) as file:
        fields, size = list(file.schema_arrow), path.stat().st_size
        _check_names(path, [field.name for field in fields])
        structs = [field.name for field in fields if _is_file(field.type)]
        plain = [field.name for field in fields if field.name.lower() in blobs and _is_bytes(field.type)]
        leaves = [
            f"{field.name}.path" if field.name in structs else field.name for field in fields if field.name not in plain
        ]
        row = 0
        for group in range(file.num_row_groups):
            filled = {name: _filled(file, group, name, "bytes") for name in structs}
            filled |= {name: _filled(file, group, name) for name in plain}
            for values in _group_rows(file, group, leaves, size):
                for name in structs:
                    beside = (values[name] or {}).get("path")
                    values[name] = Cell(row, beside) if next(filled[name]) else beside
                for name in plain:
                    values[name] = Cell(row) if next(filled[name]) else None
                row += 1
                yield TableRow(f"row {row}", {field.name: values[field.name] for field in fields})


def _group_rows(file: pq.ParquetFile, group: int, leaves: list[str], size: int) -> Iterator[dict[str, Any]]:
    if not leaves:  # a file of bytes and nothing else
        yield from ({} for _ in range(file.metadata.row_group(group).num_rows))
        return
    yield from python_rows(file, group, leaves, size)


def _is_bytes(kind: pa.DataType) -> bool:
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))


def _is_file(kind: pa.DataType) -> bool:
    """Tell whether values are what Hugging Face keeps of a file: a struct of bytes and path."""
    if not pa.types.is_struct(kind) or {field.name for field in kind} != {"bytes", "path"}:
        return False
    stored = kind.field("bytes").type
    return _is_bytes(stored) or pa.types.is_null(stored)


def _filled(file: pq.ParquetFile, group: int, *column: str) -> Iterator[bool]:
    """Yield for each row of a row group whether there are bytes: by its statistics, which need no reading, where they say."""
    facts = file.metadata.row_group(group)
    chunks = (facts.column(index) for index in range(facts.num_columns))
    chunk = next(chunk for chunk in chunks if chunk.path_in_schema == ".".join(column))
    nulls = chunk.statistics.null_count if chunk.statistics and chunk.statistics.has_null_count else None
    if nulls in (0, facts.num_rows):
        yield from (nulls == 0 for _ in range(facts.num_rows))
        return
    for batch in file.iter_batches(batch_size=16, row_groups=[group], columns=[".".join(column)]):
        values = batch.column(0)
        for name in column[1:]:
            values = pc.struct_field(values, name)
        yield from pc.is_valid(values).to_pylist()
