"""SQL over a dataset: DuckDB views onto its tables and exports. Nothing is copied, and no extension is fetched.

A statement sees these and nothing else: it cannot read or write a file, attach a database, load an extension or change a
setting, so that a query that somebody else wrote is safe to run. ``unrestricted`` gives DuckDB whole.

Every table has a view under its full name (``"scores/text@ab12cd34"``, in quotes) and the current ones a short name:
``observations``, ``clips``, ``scores_NAME``, ``captions_NAME``, ``selection_NAME``, ``export_NAME``, ``runs``. ``manifest``
has a column per column of the manifests. What short views call their columns is in ``views``.
"""

from __future__ import annotations

import errno
import os
import re
import tempfile
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager

import duckdb
import pyarrow as pa
import pyarrow.dataset as pads

from dailies.curation.cores import usable_cores
from dailies.curation.errors import Damaged, DatasetError, UsageError
from dailies.curation.tables.dataset import DatasetTables
from dailies.curation.tables.places import has_places, moved_sources
from dailies.curation.tables.sql_errors import explained
from dailies.curation.tables.views import MANIFEST, column_names, current, manifest_of, score_prefixes

Connection = duckdb.DuckDBPyConnection

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
LOOKS_AT_MANIFESTS = re.compile("manifest|show|describe|summarize|information_schema|duckdb_", re.IGNORECASE)
"""What stands in any statement that sees the view of manifests, which is made for such alone: it reads every clip's."""
SPILL_LEAST, SPILL_RATIO = 8 << 30, 20
"""Bytes that may go to the disk: in any case, and as many times the size of what is read, which is compressed."""
OUR_FAULT = duckdb.BinderException, duckdb.CatalogException, duckdb.ParserException, duckdb.InternalException
"""What DuckDB says of a statement of our own that is wrong, and not of the rows."""
RESTRICTED = ("set enable_external_access = false", "set lock_configuration = true")  # the lock comes last


def query(dataset: DatasetTables, statement: str, *, unrestricted: bool = False) -> pa.Table:
    """Run a statement and return its rows; a statement without a result returns an empty table.

    Args:
        unrestricted: let the statement read and write files, attach databases and load extensions.

    Raises ``QueryError`` with DuckDB's message, and what there is instead, where the statement is wrong or not allowed.
    """
    with connect(dataset, unrestricted=unrestricted, manifest=bool(LOOKS_AT_MANIFESTS.search(statement))) as connection:
        try:
            rows = connection.sql(statement)
            return pa.table({}) if rows is None else _fetched(rows.to_arrow_reader(BATCH), unrestricted)
        except duckdb.Error as error:
            raise explained(error, connection, dataset, statement, unrestricted=unrestricted) from error


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
def connect(
    dataset: DatasetTables, *, unrestricted: bool = False, manifest: bool = True, only: Collection[str] | None = None
) -> Iterator[duckdb.DuckDBPyConnection]:
    """Yield a connection with a view for each table, as of now: later commits are not seen.

    ``manifest``: whether there is the view of manifests too. ``only``: full names of tables, for a statement of our own that
    reads no others: what is damaged elsewhere is nothing to it.

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
        _register_tables(connection, dataset, dataset.tables() if only is None else only)
        if only is None:
            _register_others(connection, dataset, manifest)
        for statement in () if unrestricted else RESTRICTED:
            connection.execute(statement)
        yield connection


@contextmanager
def confined(*, memory: int, files: Sequence[str] = ()) -> Iterator[duckdb.DuckDBPyConnection]:
    """Yield a connection without tables, which reads ``files`` of this disk and nothing else, for statements of our own.

    ``memory``: bytes that it may hold, or half of the machine's where that is less; what is more goes to a folder of the
    system's for temporary files (``TMPDIR``), which is gone afterwards. There it comes to no more than ``SPILL_RATIO`` times
    the files, since a part that others wrote can repeat a text without end. Raises ``DatasetError`` where that, or the
    disk, is too little, and ``Damaged`` for a part that cannot be read.
    """
    with ExitStack() as stack:
        spill = stack.enter_context(tempfile.TemporaryDirectory(prefix="dailies-select-"))
        half = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2
        most = max(SPILL_LEAST, SPILL_RATIO * _sizes(files))
        settings = {
            "temp_directory": spill,
            "memory_limit": f"{min(memory, half)}B",
            "max_temp_directory_size": f"{most}B",
            "threads": usable_cores(),
        }
        connection = stack.enter_context(
            duckdb.connect(config={**OFFLINE, **settings, "preserve_insertion_order": "false"})
        )
        listed = ", ".join(f"'{folder}'" for folder in sorted({_literal(os.path.dirname(path)) for path in files}))
        connection.execute(f"set allowed_directories = [{listed}]")
        for statement in RESTRICTED:
            connection.execute(statement)
        try:
            yield connection
        except duckdb.OutOfMemoryException as error:
            raise DatasetError(
                f"the rows come to over {min(memory, half) / 1e9:.1f} GB in memory and {most / 1e9:.1f} GB in {spill}; "
                f"ask fewer columns of text, or give that disk room: {str(error).splitlines()[0]}"
            ) from error
        except OUR_FAULT:
            raise
        except duckdb.Error as error:  # of damaged bytes there are some of no class of their own
            raise _unreadable(error, spill) from error


def _sizes(files: Sequence[str]) -> int:
    """Return the bytes of the files. Raises ``Damaged`` naming one that is not there."""
    try:
        return sum(map(os.path.getsize, files))
    except OSError as error:
        raise Damaged(
            f"{error.filename}: cannot be read: {error.strerror}; dailies verify DATASET says what is missing"
        ) from error


def _unreadable(error: duckdb.Error, spill: str) -> DatasetError | Damaged:
    """Return what is wrong where a file cannot be read or written: statements of our own are right."""
    reason = str(error).splitlines()[0]
    if spill in reason or os.strerror(errno.ENOSPC) in reason:
        return DatasetError(
            f"{spill}: does not hold what does not fit in memory; give that disk room, or set TMPDIR to another: {reason}"
        )
    return Damaged(f"a part cannot be read; dailies verify DATASET says which ones are damaged: {reason}")


def _literal(text: str) -> str:
    return text.replace("'", "''")


def _register_tables(connection: duckdb.DuckDBPyConnection, dataset: DatasetTables, names: Iterable[str]) -> None:
    """Make a view of each of these tables."""
    moved = moved_sources(dataset)
    if len(moved):
        connection.execute(f"create schema {MOVED}")
        connection.from_arrow(moved).create(f"{MOVED}.sources")
    for name in names:
        rows = dataset.table(name).arrow()
        if len(moved) and has_places(name):
            connection.from_arrow(rows).set_alias("stored").project(PLACED).create_view(name)
        else:
            connection.register(name, rows)


def _register_others(connection: duckdb.DuckDBPyConnection, dataset: DatasetTables, manifest: bool) -> None:
    """Make the views of exports, of manifests, and those with short names."""
    for name in dataset.exports():
        connection.register(f"exports/{name}", _index(dataset, name))
    shorts = current(dataset)
    prefixes = score_prefixes(dataset)
    for short, name in shorts.items():
        if short != name:
            names = column_names(name, connection.view(name).columns, prefixes)
            chosen = ", ".join(f"{_quoted(stored)} as {_quoted(shown)}" for stored, shown in names.items())
            connection.execute(f"create view {_quoted(short)} as select {chosen} from {_quoted(name)}")
    if manifest and (told := manifest_of(dataset)) is not None:
        connection.register(MANIFEST, told)


def _index(dataset: DatasetTables, export: str) -> pads.Dataset:
    folder = dataset.folder / "exports" / export
    folder.parquet("index.parquet", whole=True).close()  # what claims more than it may is refused
    return pads.dataset(folder.file("index.parquet"), filesystem=folder.fs, format="parquet")


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
