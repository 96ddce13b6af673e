"""Parquet that others may have written is opened here: a file of a kilobyte can claim, and come to, terabytes.

What a footer claims is held against the file's own size before anything is read, and what is read is counted: one value of
a dictionary, repeated, takes next to nothing in a file and its whole length in each row of memory.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.fs as pafs
import pyarrow.parquet as pq

FREE_ROWS = 1 << 20
"""Rows that any file may have. Beyond, a row takes a byte at least: what names a clip differs from row to row."""

FREE_BYTES = 256 << 20
"""What any file may come to; beyond, ``MOST_RATIO`` times its size. Captions come to 3 to 10 times."""

MOST_RATIO = 200

BATCH_BYTES = 2 << 30
"""The most that rows read at a time may take in memory."""

MOST_GROUP = 4 << 30
"""Bytes that the columns asked for may take in memory, per row group, where it is read at once."""


class _Owner(pq.ParquetFile):  # type: ignore[misc]  # untyped
    """A file that closes what it reads from."""

    def close(self, force: bool = False) -> None:
        super().close(force=True)


def open_parquet(
    file: str | os.PathLike[str], filesystem: pafs.FileSystem | None = None, **options: Any
) -> pq.ParquetFile:
    """Open a file whose footer claims no more than a file of its size may.

    ``options``: of ``pq.ParquetFile``. Raises ``pa.ArrowInvalid`` in one line for one that claims more, and what pyarrow does.
    """
    system = pafs.LocalFileSystem() if filesystem is None else filesystem
    source = system.open_input_file(os.fspath(file))
    try:
        opened = _Owner(source, **options)
        _check_claims(opened.metadata, source.size())
    except BaseException:
        source.close()
        raise
    return opened


def _check_claims(footer: pq.FileMetaData, size: int) -> None:
    groups = [footer.row_group(group) for group in range(footer.num_row_groups)]
    rows = sum(group.num_rows for group in groups)
    wide = sum(group.column(n).total_uncompressed_size for group in groups for n in range(group.num_columns))
    if rows != footer.num_rows or min([wide, *(group.num_rows for group in groups)], default=0) < 0:
        raise pa.ArrowInvalid("its footer contradicts itself")
    if rows > max(FREE_ROWS, size):
        raise pa.ArrowInvalid(f"its footer claims {rows:,} rows in a file of {size:,} bytes")
    if wide > max(FREE_BYTES, MOST_RATIO * size):
        raise pa.ArrowInvalid(f"its footer claims to come to {wide:,} bytes; the file has {size:,}")


def read_group(file: pq.ParquetFile, group: int, columns: Sequence[str]) -> pa.Table:
    """Read columns of one row group. Raises ``pa.ArrowInvalid`` once they take over ``MOST_GROUP`` bytes in memory."""
    batches = list(_batches(file, group, columns, MOST_GROUP))
    schema = pa.schema([file.schema_arrow.field(name) for name in columns]) if not batches else batches[0].schema
    return pa.Table.from_batches(batches, schema)


def python_rows(file: pq.ParquetFile, group: int, columns: Sequence[str], size: int) -> Iterator[dict[str, Any]]:
    """Yield rows of one row group as Python values, few at a time. ``columns`` may be paths of leaves; ``size``: of the file.

    Raises ``pa.ArrowInvalid`` once they come to more than a file of its size may.
    """
    for rows in _batches(file, group, columns, max(FREE_BYTES, MOST_RATIO * size)):
        yield from rows.to_pylist()


def _batches(file: pq.ParquetFile, group: int, columns: Sequence[str], most: int) -> Iterator[pa.RecordBatch]:
    footer = file.metadata.row_group(group)
    chunks = [footer.column(n) for n in range(footer.num_columns)]
    asked = [c for c in chunks if any(f"{c.path_in_schema}.".startswith(f"{name}.") for name in columns)]
    # No value is longer than all of the chunk's, written out once: so many rows are sure to fit.
    fitting = BATCH_BYTES // max(1, sum(chunk.total_uncompressed_size for chunk in asked))
    taken = 0
    for rows in file.iter_batches(batch_size=max(1, min(64, fitting)), row_groups=[group], columns=list(columns)):
        taken += rows.nbytes
        if taken > most:
            raise pa.ArrowInvalid(f"its row group {group} comes to over {most:,} bytes in memory")
        yield rows
