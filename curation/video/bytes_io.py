"""A source's bytes lie at a local path or any fsspec URL: their identity, and a file object over them for libav."""

from __future__ import annotations

import hashlib
import os
from typing import Any, BinaryIO
from urllib.parse import urlencode

from dailies.curation.errors import Unreadable

CELLS = "parquet"  # scheme of URLs of cells, see ``cells``
CHUNK, CHUNKS = 64 * 1024, 16  # content_id: bytes per sampled range, and how many ranges at most


def local_path(uri: str) -> str | None:
    """Return the path of a local file, ``None`` for any other URL."""
    if uri.startswith("file://"):
        return uri.removeprefix("file://")
    return None if "://" in uri else uri


def cell_url(file: str, column: str, row: int) -> str:
    """Return the URL of a cell of Parquet; ``file`` is an absolute path, ``row`` counts from 0 in the file."""
    return f"{CELLS}://{file}#{urlencode({'row': row, 'column': column})}"


def stores() -> Any:
    """Return fsspec, which then knows cells of Parquet too."""
    import fsspec

    fsspec.register_implementation(CELLS, "dailies.curation.video.cells.ParquetCells", clobber=True)
    return fsspec


def content_id(uri: str) -> tuple[str, int]:
    """Return 24 hex digits, a digest over the size and up to 16 evenly spaced ranges of 64 KiB, and the size in bytes.

    The first and last ranges are always among them, and a file of up to 1 MiB is read whole. Raises ``Unreadable``.
    """
    path = local_path(uri)
    try:
        if path is not None:
            with open(path, "rb") as file:
                size = file.seek(0, os.SEEK_END)
                parts = [_read_at(file, start, end) for start, end in _ranges(size)]
        else:
            system, remote = stores().core.url_to_fs(uri)
            size = int(system.info(remote)["size"])
            ranges = _ranges(size)
            starts, ends = [start for start, _ in ranges], [end for _, end in ranges]
            parts = system.cat_ranges([remote] * len(ranges), starts, ends, on_error="raise") if ranges else []
    except Exception as error:  # each store raises its own: botocore's errors are not even OSErrors
        raise Unreadable(one_line(error)) from error
    hasher = hashlib.blake2b(size.to_bytes(8, "little"), digest_size=12)
    for part in parts:
        hasher.update(part)
    return hasher.hexdigest(), size


def _ranges(size: int) -> list[tuple[int, int]]:
    if size <= CHUNK * CHUNKS:
        return [(0, size)] if size else []
    starts = [i * (size - CHUNK) // (CHUNKS - 1) for i in range(CHUNKS)]
    return [(start, start + CHUNK) for start in starts]


def _read_at(file: BinaryIO, start: int, end: int) -> bytes:
    file.seek(start)
    return file.read(end - start)


class Remote:
    """A file object for libav that never raises into it: an error is kept, and reads as the end of the file.

    PyAV drops a second exception in a callback with a traceback on stderr, and demuxers take a failed read for damage.
    """

    def __init__(self, file: Any) -> None:
        self._file = file
        self.error: Exception | None = None
        self.seek, self.tell, self.close = file.seek, file.tell, file.close

    @classmethod
    def at(cls, url: str) -> Remote:
        """Open a URL. Raises whatever the store raises."""
        return cls(stores().open(url, "rb").open())

    def read(self, size: int) -> bytes:
        if self.error is not None:
            return b""
        try:
            return bytes(self._file.read(size))
        except Exception as error:
            self.error = error
            return b""


def one_line(error: BaseException) -> str:
    """Say what went wrong in one line of at most 200 characters; libav's errors with its last log line."""
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    log = getattr(error, "log", None)
    return " ".join(f"{text} ({log[2].strip()})".split() if log else text.split())[:200]
