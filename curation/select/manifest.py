"""Columns of manifests, ``manifest.NAME``, which clips carry as JSON: each has one type over the whole column."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from dailies.curation.config import offered, read_json, read_object
from dailies.curation.errors import UsageError
from dailies.curation.json_columns import JsonColumn, typed_column
from dailies.curation.select.expressions import literal
from dailies.curation.select.source import answer

if TYPE_CHECKING:
    from dailies.curation.tables import Connection

PREFIX = "manifest."
WHOLE = {"BIGINT", "UBIGINT"}

PAGE = 8192
"""Values of a column of mixed types that are in Python at a time."""


def check_manifest_columns(columns: Iterable[str], names: Sequence[str], who: str) -> None:
    """Raise ``UsageError`` for one of ``columns`` that is ``manifest.NAME`` with a NAME not among the manifests' columns."""
    for column in columns:
        name = column.removeprefix(PREFIX)
        if name != column and name not in names:
            raise UsageError(
                f"{who}: unknown column {column!r}"
                f"{offered(name, names, label='the manifests have') or '; there is no manifest with further columns'}"
            )


def column_values(clips: pa.Table, column: str) -> pa.ChunkedArray:
    """Return a column by name; ``manifest.NAME`` reaches into the manifest's own columns."""
    if not column.startswith(PREFIX):
        return clips[column]
    key = column.removeprefix(PREFIX)
    texts = clips["manifest"].to_pylist()
    return typed_column([read_object(text or "{}", "manifest of a clip", UsageError).get(key) for text in texts])


def typed_sql(connection: Connection, clips: str, columns: Sequence[str]) -> dict[str, str]:
    """Return SQL for each of ``columns``, over rows that have a column ``manifest``, typed as ``column_values`` types it.

    What all values have in common decides. Columns of one plain type are read by DuckDB; where values of several types
    meet, each distinct one is read here, a page at a time, and a table maps it to what it comes to. ``clips``: relation of
    all clips.
    """
    if not columns:
        return {}
    # An inequality without the cast: DuckDB would otherwise hold all texts to say of one that it is none.
    wrong = f"select manifest from {clips} where not json_valid(manifest::varchar) limit 1"
    for (text,) in answer(connection, wrong):
        read_object(text, "manifest of a clip", UsageError)
        raise UsageError(f"manifest of a clip is not JSON that can be read: {text[:60]}")
    return {column: _column_sql(connection, clips, column, number) for number, column in enumerate(columns)}


def _column_sql(connection: Connection, clips: str, column: str, number: int) -> str:
    key = column.removeprefix(PREFIX).replace("~", "~0").replace("/", "~1")
    token = f"json_extract(manifest::varchar, {literal('/' + key)})"
    types = f"select distinct json_type(t) from (select {token} as t from {clips}) where t is not null"
    kinds = {kind for (kind,) in answer(connection, types)} - {"NULL"}
    text = f"nullif({token}::varchar, 'null')"
    if not kinds:
        return "null"
    if kinds == {"VARCHAR"}:
        return f"json_extract_string(manifest::varchar, {literal('/' + key)})"
    if kinds == {"BOOLEAN"}:
        return f"try_cast({text} as boolean)"
    if kinds <= {*WHOLE, "DOUBLE"}:
        # What no column of 64-bit integers holds is text beside any other number.
        large = f"regexp_full_match({text}, '-?[0-9]+') and try_cast({text} as bigint) is null"
        if not answer(connection, f"select 1 from {clips} where {large} limit 1"):
            return f"try_cast({text} as {'bigint' if kinds <= WHOLE else 'double'})"
    return _mapped(connection, clips, token, f"manifest_{number}")


def _mapped(connection: Connection, clips: str, token: str, table: str) -> str:
    """Return SQL of what ``token`` comes to, by a table of its distinct texts, which are read ``PAGE`` at a time."""
    answer(
        connection,
        f"create temp table {table}_tokens as "
        f"select distinct {token}::varchar as token from {clips} where {token} is not null",
    )
    column = JsonColumn()
    for texts in _pages(connection, f"{table}_tokens"):
        column.see(_parsed(texts))
    for number, texts in enumerate(_pages(connection, f"{table}_tokens")):
        rows = pa.table({"token": pa.array(texts, pa.string()), "value": column.column(_parsed(texts))})
        relation = connection.from_arrow(rows)
        relation.insert_into(table) if number else relation.create(table)
    return f"(select value from {table} where token = {token}::varchar)"


def _pages(connection: Connection, table: str) -> Iterator[list[str]]:
    """Yield the texts of a table: by its row numbers, since a connection answers one question at a time."""
    ((count,),) = answer(connection, f"select count(*) from {table}")
    for start in range(0, count, PAGE):
        rows = answer(connection, f"select token from {table} where rowid >= {start} and rowid < {start + PAGE}")
        yield [text for (text,) in rows]


def _parsed(texts: Sequence[str]) -> list[Any]:
    return [read_json(text, "manifest of a clip", UsageError) for text in texts]
