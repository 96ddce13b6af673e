"""What is judged lies in tables: each is given to DuckDB with the columns that are needed of it, and read when asked for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from dailies.curation.select.expressions import literal, quoted

if TYPE_CHECKING:
    import pyarrow.dataset as pads

    from dailies.curation.tables import Connection

GLOB = frozenset("*?[")

BATCH_ROWS = 8192
"""Rows of a result at a time: DuckDB itself refuses a batch whose texts come to 2 GB."""


def answer(connection: Connection, statement: str) -> list[Any]:
    """Run a statement and return its rows, all of them: a connection answers one question at a time."""
    return list(connection.execute(statement).fetchall())


def read_batches(connection: Connection, statement: str) -> Iterator[pa.RecordBatch]:
    """Yield the rows of a statement, ``BATCH_ROWS`` at a time, as they are made: they need not fit in memory."""
    yield from connection.sql(statement).to_arrow_reader(BATCH_ROWS)


@dataclass(frozen=True, slots=True, kw_only=True)
class ClipRows:
    """Rows with a column ``clip_id``, one a clip. ``shown``: known name of a column → its name there, where they differ."""

    rows: pa.Table | pads.Dataset
    shown: Mapping[str, str] = field(default_factory=dict)

    @property
    def columns(self) -> Mapping[str, str]:
        """Known name of each column → its name there."""
        return self.shown or {name: name for name in self.rows.schema.names}

    def register(self, connection: Connection, view: str, columns: Sequence[str]) -> None:
        """Make a view of these columns, by their names there.

        Parquet on a disk is read by DuckDB itself: through Arrow, reading alone takes several times as long. It would take
        columns out of the names of folders, such as ``status=failed``, if it was not told to leave them.
        """
        files = self.files()
        if not files:
            connection.register(view, self.rows)
            return
        # Parts of before may lack a column, and all of them do of one that was just added: there it is null.
        kinds = pa.schema([self.rows.schema.field(name) for name in columns])
        connection.register(f"{view} of no rows", kinds.empty_table())
        listed = ", ".join(literal(path) for path in files)
        answer(
            connection,
            f"create temp view {quoted(view)} as select {', '.join(map(quoted, columns))} from ("
            f"select * from read_parquet([{listed}], union_by_name = true, hive_partitioning = false) "
            f"union all by name select * from {quoted(f'{view} of no rows')})",
        )

    def files(self) -> Sequence[str]:
        """Return the Parquet files on a disk in which all rows lie; none where they lie elsewhere."""
        import pyarrow.dataset as pads  # which looks for pandas, and recipes alone have no need of
        import pyarrow.fs as pafs

        rows = self.rows
        if not isinstance(rows, pads.FileSystemDataset) or not isinstance(rows.filesystem, pafs.LocalFileSystem):
            return ()
        return () if any(GLOB & {*path} for path in rows.files) else list(rows.files)
