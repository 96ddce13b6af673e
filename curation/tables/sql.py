"""SQL over a dataset: DuckDB views onto its tables and exports. Nothing is copied, and no extension is fetched.

A statement sees these and nothing else: it cannot read or write a file, attach a database, load an extension or change a
setting, so that a query that somebody else wrote is safe to run. ``unrestricted`` gives DuckDB whole.

Every table has a view under its full name (``"scores/text@ab12cd34"``, in quotes) and the current ones a short name:
``observations``, ``clips``, ``scores_NAME``, ``captions_NAME``, ``selection_NAME``, ``export_NAME``, ``runs``.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import duckdb
import pyarrow as pa
import pyarrow.dataset as pads

from dailies.curation.errors import UsageError
from dailies.curation.tables.dataset import DatasetTables, tables_named
from dailies.curation.tables.places import has_places, moved_sources
from dailies.curation.tables.storage import one_line

OFFLINE = {
    "autoinstall_known_extensions": "false",
    "autoload_known_extensions": "false",
    "python_enable_replacements": "false",  # or a misspelt table could be a variable of this program
}

MOVED = "moved"  # a schema of its own keeps the table out of `show tables`
# As a subquery and not as a join, whose smaller side DuckDB would guess wrong, and so hold the evidence in memory.
LIES = f"(select moved.uri from {MOVED}.sources as moved where moved.source_id = stored.source_id)"
PLACED = f"stored.* replace (coalesce({LIES}, stored.uri) as uri)"
"""The columns of a table as stored, with the ``uri`` where each source lies now."""


MEMORY = "50%"  # of the machine's
BATCH = 8192  # rows of a result at a time: a batch whose texts come to 2 GB is refused by DuckDB itself
MOST = 4 << 30
"""Bytes of a result, which lies outside of what DuckDB's limit counts: a line of SQL can repeat a text without end."""
RESTRICTED = ("set enable_external_access = false", "set lock_configuration = true")  # the lock comes last


def query(dataset: DatasetTables, statement: str, *, unrestricted: bool = False) -> pa.Table:
    """Run a statement and return its rows; a statement without a result returns an empty table.

    Args:
        unrestricted: let the statement read and write files, attach databases and load extensions.

    Raises ``UsageError`` with the first line of DuckDB's message where the statement is wrong or not allowed.
    """
    with connect(dataset, unrestricted=unrestricted) as connection:
        try:
            rows = connection.sql(statement)
            return pa.table({}) if rows is None else _fetched(rows.to_arrow_reader(BATCH), unrestricted)
        except (duckdb.PermissionException, duckdb.InvalidInputException) as error:
            allowed = "" if unrestricted else "; a query sees this dataset's tables alone (--unrestricted allows more)"
            raise UsageError(f"{one_line(error)}{allowed}") from error
        except duckdb.Error as error:
            raise UsageError(one_line(error)) from error


def _fetched(rows: pa.RecordBatchReader, unrestricted: bool) -> pa.Table:
    """Return the rows of a result. Raises ``UsageError`` once they take over ``MOST`` bytes."""
    batches, taken = [], 0
    for batch in rows:
        taken += batch.nbytes
        if taken > MOST and not unrestricted:
            raise UsageError(
                f"the result comes to over {MOST >> 30} GB; select less of it (--unrestricted allows more)"
            )
        batches.append(batch)
    return pa.Table.from_batches(batches, rows.schema)


@contextmanager
def connect(dataset: DatasetTables, *, unrestricted: bool = False) -> Iterator[duckdb.DuckDBPyConnection]:
    """Yield a connection with a view for each table, as of now: later commits are not seen.

    Only the columns that a statement names are read, and ``count(*)`` reads footers alone, or source ids where sources
    were moved; but a field of a struct in a list brings its neighbours along, so that ``evidence[1].pts`` reads the JPEGs
    too.
    """
    # What does not fit in memory goes to a folder that nobody else can have made: by default it is the working directory's.
    with ExitStack() as stack:
        spill = stack.enter_context(tempfile.TemporaryDirectory(prefix="dailies-sql-"))
        connection = stack.enter_context(
            duckdb.connect(config={**OFFLINE, "temp_directory": spill, "memory_limit": MEMORY})
        )
        _register(connection, dataset)
        for statement in () if unrestricted else RESTRICTED:
            connection.execute(statement)
        yield connection


def _register(connection: duckdb.DuckDBPyConnection, dataset: DatasetTables) -> None:
    """Make the views."""
    moved = moved_sources(dataset)
    if len(moved):
        connection.execute(f"create schema {MOVED}")
        connection.from_arrow(moved).create(f"{MOVED}.sources")
    for name in dataset.tables():
        rows = dataset.table(name).arrow()
        if len(moved) and has_places(name):
            connection.from_arrow(rows).set_alias("stored").project(PLACED).create_view(name)
        else:
            connection.register(name, rows)
    for name in dataset.exports():
        connection.register(f"exports/{name}", _index(dataset, name))
    for short, name in current(dataset).items():
        if short != name:
            connection.execute(f"create view {_quoted(short)} as select * from {_quoted(name)}")


def current(dataset: DatasetTables) -> dict[str, str]:
    """Map each short name to the table it stands for: the last run's that has one, else the last that was written.

    Of exports it is the one that the newest run made or found again. The clock orders only what no run names.
    """
    age = {name: dataset.table(name).committed() or 0.0 for name in dataset.tables()}
    short = {_short(name): name for name in sorted(age, key=lambda name: (age[name], name))}
    for line in dataset.runs(["tables"])["tables"].to_pylist():
        short |= {_short(name): name for name in tables_named(line) if name in age}
    short |= {_short(name): name for name in (f"exports/{export}" for export in dataset.exports_by_age())}
    return dict(sorted(short.items()))


def _short(name: str) -> str:
    group, _, rest = name.partition("@")[0].partition("/")
    singular = {"selections": "selection", "exports": "export"}.get(group, group)
    return singular if group == "clips" or not rest else f"{singular}_{rest}"


def _index(dataset: DatasetTables, export: str) -> pads.Dataset:
    folder = dataset.folder / "exports" / export
    folder.parquet("index.parquet", whole=True).close()  # what claims more than it may is refused
    return pads.dataset(folder.file("index.parquet"), filesystem=folder.fs, format="parquet")


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
