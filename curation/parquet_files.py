"""Parquet that others may have written is opened here: a file of a kilobyte can claim, and come to, terabytes.

What a footer claims is held against the file's own size before anything is read, and what is read is counted: one value of
a dictionary, repeated, takes next to nothing in a file and its whole length in each row of memory.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.fs as pafs
import pyarrow.parquet as pq

FREE_ROWS = 1 << 20
"""Rows that any file may have. Beyond, a row takes a byte at least: what names a clip differs from row to row."""

FREE_BYTES = 256 << 20
"""What any file may come to; beyond, ``MOST_RATIO`` times its size. Captions come to 3 to 10 times."""

MOST_RATIO = 200

BATCH_BYTES = 2 << 30
"""The most that rows read at a time may take in memory."""

MOST_VALUES = 1 << 30
"""What the numbers of any column may come to per row group, in bytes: lists of frames' times, which differ by the same step,
take next to nothing."""

MOST_GROUP = 4 << 30
"""Bytes that the columns asked for may take in memory, per row group, where it is read at once."""


class Overclaims(pa.ArrowInvalid):  # type: ignore[misc]  # untyped
    """A file that claims, or comes to, more than one of its size may."""


class _Owner(pq.ParquetFile):  # type: ignore[misc]  # untyped
    """A file that closes what it reads from, ``reader_source``."""

    reader_source: pa.NativeFile

    def close(self, force: bool = False) -> None:
        super().close(force=True)


def open_parquet(
    file: str | os.PathLike[str], filesystem: pafs.FileSystem | None = None, *, whole: bool = False, **options: Any
) -> pq.ParquetFile:
    """Open a file whose footer claims no more than a file of its size may; ``whole``: see ``check_repeats``.

    ``options``: of ``pq.ParquetFile``. Raises ``pa.ArrowInvalid`` in one line for one that claims more, and what pyarrow does.
    """
    system = pafs.LocalFileSystem() if filesystem is None else filesystem
    source = system.open_input_file(os.fspath(file))
    try:
        opened = _Owner(source, **options)
        opened.reader_source = source
        _check_claims(opened.metadata, source.size())
        if whole:
            check_repeats(opened, source.size())
    except BaseException:
        source.close()
        raise
    return opened


def _check_claims(footer: pq.FileMetaData, size: int) -> None:
    groups = [footer.row_group(group) for group in range(footer.num_row_groups)]
    rows = sum(group.num_rows for group in groups)
    wide = sum(group.column(n).total_uncompressed_size for group in groups for n in range(group.num_columns))
    if rows != footer.num_rows or min([wide, *(group.num_rows for group in groups)], default=0) < 0:
        raise Overclaims("its footer contradicts itself")
    if rows > max(FREE_ROWS, size):
        raise Overclaims(f"its footer claims {rows:,} rows in a file of {size:,} bytes")
    if wide > max(FREE_BYTES, MOST_RATIO * size):
        raise Overclaims(f"its footer claims to come to {wide:,} bytes; the file has {size:,}")
    for chunk in (group.column(n) for group in groups for n in range(group.num_columns)):
        if 8 * chunk.num_values > max(MOST_VALUES, MOST_RATIO * size):  # of a list, a row may hold any number
            raise Overclaims(f"its footer claims {chunk.num_values:,} values in a file of {size:,} bytes")


def check_repeats(file: pq.ParquetFile, size: int, columns: Sequence[str] | None = None) -> None:
    """Raise ``pa.ArrowInvalid`` where columns (by default all) come to over ``MOST_GROUP`` bytes, or ``MOST_RATIO`` times the
    file's ``size``, in a row group: for what then reads many rows at once, and lets nobody count.

    Only columns whose values are stored once and repeated can; of these, where it may be too much, the lengths are added up
    without writing the values out.
    """
    most = max(MOST_GROUP, MOST_RATIO * size)
    for group in range(file.num_row_groups):
        footer = file.metadata.row_group(group)
        for n in range(footer.num_columns):
            chunk, leaf = footer.column(n), file.schema.column(n)
            if columns is not None and chunk.path_in_schema.partition(".")[0] not in columns:
                continue
            if leaf.physical_type == "FIXED_LEN_BYTE_ARRAY":
                taken = chunk.num_values * leaf.length
            elif leaf.physical_type != "BYTE_ARRAY" or chunk.num_values * chunk.total_uncompressed_size <= most:
                continue
            else:
                taken = _written_out(file, group, chunk, most)
            if taken > most:
                raise Overclaims(f"its row group {group} comes to over {most:,} bytes in memory")


REPEATING = frozenset({"PLAIN_DICTIONARY", "RLE_DICTIONARY", "DELTA_BYTE_ARRAY"})


def _written_out(file: pq.ParquetFile, group: int, chunk: Any, most: int) -> int:
    """Return the bytes that a column of texts or bytes comes to, or more than ``most`` as soon as it is more."""
    if not REPEATING & {*chunk.encodings}:
        return int(chunk.total_uncompressed_size)
    if (
        "DELTA_BYTE_ARRAY" in chunk.encodings
    ):  # a value is the one before it and a few letters: nothing tells their lengths
        return most + 1
    source = file.reader_source
    again = pq.ParquetFile(source, metadata=file.metadata, read_dictionary=[chunk.path_in_schema])
    taken = 0
    for batch in again.iter_batches(batch_size=1 << 14, row_groups=[group], columns=[chunk.path_in_schema]):
        for values in _leaves(batch.column(0)):
            lengths = pc.binary_length(values.dictionary)
            taken += int(pc.sum(pc.take(lengths, values.indices), min_count=0).as_py() or 0)
        if taken > most:
            break
    return taken


def _leaves(values: pa.Array) -> Iterator[Any]:
    """Yield the dictionaries that the columns of structs and lists end in."""
    if pa.types.is_dictionary(values.type):
        yield values
    elif pa.types.is_struct(values.type):
        for inner in values.flatten():
            yield from _leaves(inner)
    elif pa.types.is_map(values.type):
        yield from _leaves(values.keys)
        yield from _leaves(values.items)
    elif hasattr(values, "flatten"):
        yield from _leaves(values.flatten())


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
