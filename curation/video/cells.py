"""Videos that lie in cells of Parquet files are opened by URL: ``parquet:///DIR/FILE.parquet#row=17&column=video``.

A file system for fsspec, so that whoever opens a URL opens a cell. Rows are read in order as far as the one asked for, page
by page, and the next row goes on from there: a file's rows cost one reading of it, and a cell is in memory at a time.
"""

from __future__ import annotations

import io
import os
import threading
from collections.abc import Iterator
from typing import Any
from urllib.parse import parse_qs

import pyarrow as pa
from fsspec.spec import AbstractFileSystem

from dailies.curation.parquet_files import open_parquet
from dailies.curation.policy import CELLS
from dailies.curation.video.bytes_io import check_regular

BUFFER = 1 << 20  # bytes read at once; without it, a whole column of a row group would be


class ParquetCells(AbstractFileSystem):  # type: ignore[misc]  # fsspec has no types
    """Opens cells as files, for reading alone. Raises ``FileNotFoundError`` where there is no such cell, or it is null."""

    protocol = CELLS
    _lock = threading.Lock()
    _open_column: _Column | None = None  # the one read last, in this process

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return path.removeprefix(f"{CELLS}://")

    def info(self, path: str, **_: Any) -> dict[str, Any]:
        return {"name": path, "size": len(self.cat_file(path)), "type": "file"}

    def cat_file(self, path: str, start: int | None = None, end: int | None = None, **_: Any) -> bytes:
        file, _sharp, cell = self._strip_protocol(path).rpartition("#")
        try:
            named = parse_qs(cell, strict_parsing=True)
            row, column = int(named["row"][0]), named["column"][0]
        except (KeyError, ValueError):
            raise FileNotFoundError(f"{path}: names no cell; write FILE.parquet#row=ROW&column=COLUMN") from None
        with self._lock:
            return self._column(file, column).cell(row)[start:end]

    def _open(self, path: str, mode: str = "rb", **_: Any) -> io.BytesIO:
        if mode != "rb":
            raise PermissionError(f"{path}: cells are read, not written")
        return io.BytesIO(self.cat_file(path))

    @staticmethod
    def _column(file: str, column: str) -> _Column:
        check_regular(file)
        stat = os.stat(file)
        key = (file, column, stat.st_size, stat.st_mtime_ns)
        opened = ParquetCells._open_column
        if opened is None or opened.key != key:
            if opened is not None:
                opened.close()
            opened = ParquetCells._open_column = _Column(key)
        return opened


class _Column:
    """One column of a file, read forward; the cell read last stays."""

    def __init__(self, key: tuple[str, str, int, int]) -> None:
        self.key = key
        self._file = open_parquet(key[0], buffer_size=BUFFER)
        if key[1] not in self._file.schema_arrow.names:
            raise FileNotFoundError(f"{key[0]}: has no column {key[1]!r}")
        kind = self._file.schema_arrow.field(key[1]).type
        self._leaf = f"{key[1]}.bytes" if pa.types.is_struct(kind) else key[1]
        self._cells: Iterator[tuple[int, bytes | None]] = iter(())
        self._group = -1
        self._last: tuple[int, bytes | None] | None = None

    def close(self) -> None:
        self._file.close()

    def cell(self, row: int) -> bytes:
        group, first = self._place(row)
        if self._last is None or group != self._group or row < self._last[0]:
            self._group, self._cells, self._last = group, self._read(group, first), None
        while self._last is None or self._last[0] < row:
            self._last = next(self._cells)
        data = self._last[1]
        if data is None:
            raise FileNotFoundError(f"{self.key[0]}: row {row} of column {self.key[1]!r} is null")
        return data

    def _place(self, row: int) -> tuple[int, int]:
        """Return the row group that holds a row, and the group's first row."""
        first = 0
        for group in range(self._file.num_row_groups):
            rows = self._file.metadata.row_group(group).num_rows
            if first <= row < first + rows:
                return group, first
            first += rows
        raise FileNotFoundError(f"{self.key[0]}: has {first} rows, and no row {row}")

    def _read(self, group: int, first: int) -> Iterator[tuple[int, bytes | None]]:
        batches = self._file.iter_batches(batch_size=1, row_groups=[group], columns=[self._leaf])
        for row, batch in enumerate(batches, first):
            value = batch.column(0)[0].as_py()
            yield row, value["bytes"] if isinstance(value, dict) else value
