"""What DuckDB says of a statement that it refuses, whole, and what the dataset has instead."""

from __future__ import annotations

import re

import duckdb

from dailies.curation.errors import QueryError
from dailies.curation.tables.dataset import DatasetTables
from dailies.curation.tables.views import KEY, MANIFEST, current, manifest_of

UNKNOWN_TABLE = re.compile(r"Table with name (?P<name>.+) does not exist")
UNKNOWN_COLUMN = re.compile(
    r'Referenced column "(?P<first>[^"]+)" not found|does not have a column named "(?P<second>[^"]+)"'
    r'|Column "(?P<third>[^"]+)" in \w+ list not found'
)
PLACE = re.compile(r"(?<![\w.:/])(?:/|[A-Za-z]:\\)[^\s\"',;:()]*[/\\][^\s\"',;:()]*")
HIDDEN = "(a place on this machine)"
ALONE = "a query sees this dataset's tables alone; --unrestricted allows more"


def explained(
    error: duckdb.Error,
    connection: duckdb.DuckDBPyConnection,
    dataset: DatasetTables,
    statement: str,
    *,
    unrestricted: bool = False,
) -> QueryError:
    """Return DuckDB's whole message as an error of ours, with the views or the columns there are where one is unknown.

    It shows no place on this machine but those that the statement or the dataset's own address names.
    """
    text = _without_places(str(error).strip() or type(error).__name__, f"{statement}\n{dataset.url}")
    lines = [line.rstrip() for line in text.splitlines() if line.strip()]
    refused = isinstance(error, duckdb.PermissionException | duckdb.InvalidInputException)
    if refused and not unrestricted:
        lines.append(ALONE)
    if (table := UNKNOWN_TABLE.search(text)) is not None:
        names = [*current(dataset), *((MANIFEST,) if "clips" in current(dataset) else ())]
        lines.append(f"views: {', '.join(sorted(set(names))) or 'none; the dataset is empty'}")
        if not unrestricted and re.search(r"[/\\.]", table["name"]):  # a file's name
            lines.append(ALONE)
    elif (column := UNKNOWN_COLUMN.search(text)) is not None:
        lines += _columns_there(connection, dataset, next(filter(None, column.groups())), statement)
    return QueryError("\n".join(lines))


def _columns_there(
    connection: duckdb.DuckDBPyConnection, dataset: DatasetTables, column: str, statement: str
) -> list[str]:
    """Return a line on each view that the statement names, with its columns, and one on short views that have ``column``."""
    listed = connection.execute("select table_name, column_name from duckdb_columns() where schema_name = 'main'")
    views: dict[str, list[str]] = {}
    for view, name in listed.fetchall():
        views.setdefault(view, []).append(name)
    if MANIFEST not in views and (manifest := manifest_of(dataset)) is not None:
        views[MANIFEST] = manifest.column_names
    terms = {word.lower() for word in re.findall(r'"[^"]+"|\w+', statement)}
    named = [view for view in views if {view.lower(), f'"{view.lower()}"'} & terms and view != column]
    lines = [f"columns of {view}: {', '.join(views[view])}" for view in named]
    for view in sorted(set(current(dataset)) | {MANIFEST}):
        names = views.get(view, [])
        if view not in named and column.lower() in (name.lower() for name in names):
            key = KEY if KEY in names else "source_id"
            if not named or any(key in views[other] for other in named):
                lines.append(f"{column} is a column of {view}: join {view} using ({key})")
    return lines


def _without_places(text: str, known: str) -> str:
    """Return ``text`` without paths of this machine, but for those that stand in ``known``."""
    return PLACE.sub(lambda match: match[0] if match[0] in known else HIDDEN, text)
