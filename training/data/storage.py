"""Files that training has listed: damage within one costs its items, a storage that went away ends the run."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa

from dailies.curation import inside
from dailies.curation.errors import Unreadable, Unsafe, outage, stopping_error

MOST_FILE = 1 << 30
"""Bytes of a picture's file: all that it may have px, not compressed, in 16 bits."""

AWAY = frozenset(
    {
        *(errno.ESTALE, errno.ETIMEDOUT, errno.ENOTCONN, errno.EHOSTDOWN, errno.EHOSTUNREACH, errno.ENETDOWN),
        *(errno.ENETUNREACH, errno.ECONNREFUSED, errno.ECONNRESET, errno.ECONNABORTED),
    }
)
"""Of an ``OSError``: a file system that a network brings does not answer."""


@contextmanager
def of_row_group(shard: Path, group: int) -> Iterator[None]:
    """Turn damage within a shard into ``Unreadable``: it costs the items of a row group, not the run.

    Raises ``Outage`` for what the system says of the file: it could be read when the run began. Arrow has no errno for
    bytes that are no Parquet.
    """
    try:
        yield
    except (pa.ArrowException, OSError) as error:
        if (stopping := stopping_error(error)) is not None:
            raise stopping from error
        if isinstance(error, OSError) and error.errno is not None:
            raise outage(str(error)) from error
        raise Unreadable(f"{shard.name}, row group {group}: {error}") from error


def read_file(root: Path, name: str) -> bytes:
    """Read a file that was listed under ``root``.

    Raises ``Outage`` where ``root`` itself is away or was unmounted, and ``OSError`` where it is that file alone.
    """
    try:
        return inside.read_named(root / name, most=MOST_FILE)
    except Unsafe as error:
        raise Unreadable(str(error)) from error
    except OSError as error:
        if error.errno in AWAY or not _holds_files(root):
            raise outage(str(error)) from error
        raise


def _holds_files(folder: Path) -> bool:
    try:
        return any(folder.iterdir())
    except OSError:
        return False
