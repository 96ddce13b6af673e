"""A source's bytes lie at a local path or any fsspec URL: their identity, and a file object over them for libav."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Callable, Container
from typing import Any, BinaryIO
from urllib.parse import urlencode

from dailies.curation.addresses import scrub
from dailies.curation.errors import Refused, SourceError, Unreadable, machine_raised
from dailies.curation.policy import (
    CELLS,
    WEB,
    check_scheme,
    local_path,
    policy_in_force,
    refused_by_store,
    scheme_of,
)
from dailies.curation.retrying import cause_of, retried

CHUNK, CHUNKS = 64 * 1024, 16  # content_id: bytes per sampled range, and how many ranges at most


def cell_url(file: str, column: str, row: int) -> str:
    """Return the URL of a cell of Parquet; ``file`` is an absolute path, ``row`` counts from 0 in the file."""
    return f"{CELLS}://{file}#{urlencode({'row': row, 'column': column})}"


def store_of(url: str) -> tuple[Any, str]:
    """Return the fsspec file system of a URL, and its path there. Raises ``Refused``, and what fsspec raises."""
    import fsspec

    policy, scheme = policy_in_force(), scheme_of(url)
    check_scheme(url, policy)
    if scheme in WEB and "::" not in scheme:  # fsspec would take an IPv6 address for a chain
        from dailies.curation.video.hosts import CheckedHTTP

        return CheckedHTTP(policy=policy), url
    fsspec.register_implementation(CELLS, "dailies.curation.video.cells.ParquetCells", clobber=True)
    return fsspec.core.url_to_fs(url)  # type: ignore[no-any-return]  # fsspec has no types


def check_regular(path: str) -> None:
    """Raise ``Unreadable`` where there is something else than a file: to open a pipe is to wait, and a device may act."""
    mode = os.stat(path).st_mode
    if not stat.S_ISREG(mode):
        raise Unreadable(f"is {KINDS.get(stat.S_IFMT(mode), 'something else')}, not a file")


KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


def store_error(error: Exception) -> SourceError:
    """Return what a store raised as what a row keeps. Raises ``error`` again where it is that, or the machine's fault."""
    if isinstance(error, SourceError):
        raise error
    if (refused := refused_by_store(error)) is not None:
        return refused
    machine_raised(error)
    return Unreadable(cause_of(error))


def content_id(uri: str) -> tuple[str, int]:
    """Return 24 hex digits, a digest over the size and up to 16 evenly spaced ranges of 64 KiB, and the size in bytes.

    The first and last ranges are always among them, and a file of up to 1 MiB is read whole. Raises ``Unreadable``.
    """
    content, size = _identified(uri, None)
    assert content is not None
    return content, size


def content_among(uri: str, sizes: Container[int | None]) -> str | None:
    """Return the content id of a source that has one of these ``sizes`` in bytes, else ``None``; a store is asked for its
    size once. Raises ``Unreadable``.
    """
    return _identified(uri, sizes)[0]


def _identified(uri: str, sizes: Container[int | None] | None) -> tuple[str | None, int]:
    """Return content id and size; no id, and nothing read, where the size is none of ``sizes``."""
    path = local_path(uri)
    parts: list[bytes] = []
    try:
        if path is not None:
            check_regular(path)
            with open(path, "rb", opener=_without_waiting) as file:
                size = file.seek(0, os.SEEK_END)
                if wanted := sizes is None or size in sizes:
                    parts = [_read_at(file, start, end) for start, end in _ranges(size)]
        else:
            system, remote, size = _found(uri)
            if (wanted := sizes is None or size in sizes) and size:
                starts, ends = zip(*_ranges(size), strict=True)
                paths = [remote] * len(starts)
                parts = retried(lambda: system.cat_ranges(paths, list(starts), list(ends), on_error="raise"))
    except Exception as error:  # each store raises its own: botocore's errors are not even OSErrors
        if path is None:  # a store's own error would show the whole address in a traceback
            raise store_error(error) from None
        raise file_error(error) from error
    if not wanted:
        return None, size
    hasher = hashlib.blake2b(size.to_bytes(8, "little"), digest_size=12)
    for part in parts:
        hasher.update(part)
    return hasher.hexdigest(), size


def _found(uri: str) -> tuple[Any, str, int]:
    """Return a remote file's file system, its path there and its size. Raises whatever the store raises."""
    system, remote = store_of(uri)
    size = retried(lambda: system.info(remote))["size"]
    if size is None:
        raise Unreadable("the server does not say how long it is (no Content-Length), so it cannot be read in parts")
    return system, remote, int(size)


def size_of(uri: str) -> int:
    """Return a source's size in bytes. Raises ``Unreadable``."""
    path = local_path(uri)
    try:
        return os.stat(path).st_size if path is not None else _found(uri)[2]
    except Exception as error:  # each store raises its own
        if path is None:  # a store's own error would show the whole address in a traceback
            raise store_error(error) from None
        raise file_error(error) from error


def file_error(error: Exception) -> SourceError:
    """Return why a local file cannot be read. Raises ``error`` again where it is one of those, or the machine's fault."""
    if isinstance(error, SourceError):
        raise error
    machine_raised(error)
    return Unreadable(one_line(error))


def _without_waiting(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK | os.O_CLOEXEC)


def _ranges(size: int) -> list[tuple[int, int]]:
    if size <= CHUNK * CHUNKS:
        return [(0, size)] if size else []
    starts = [i * (size - CHUNK) // (CHUNKS - 1) for i in range(CHUNKS)]
    return [(start, start + CHUNK) for start in starts]


def _read_at(file: BinaryIO, start: int, end: int) -> bytes:
    file.seek(start)
    return file.read(end - start)


class InputFile:
    """A file object for libav that never raises into it: an error is kept, and reads as the end of the file.

    PyAV drops a second exception in a callback with a traceback on stderr, and demuxers take a failed read for damage, or
    for the end, of a local file too: only here it is known that a disk or a store did not give what is there. ``reopen``:
    opens the file anew, for a read that failed to be tried again from there. ``name``: what libav calls it, whose ending
    tells it of what format some files are.
    """

    def __init__(self, file: Any, reopen: Callable[[], Any] | None = None, *, name: str = "<none>") -> None:
        self._file, self._reopen, self.name = file, reopen, name
        self.error: Exception | None = None

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Return the new place; -1, which libav takes for a failure, for one before the start, as damaged files name."""
        try:
            return int(self._file.seek(offset, whence))
        except (OSError, ValueError):
            return -1

    def tell(self) -> int:
        return int(self._file.tell())

    def close(self) -> None:
        self._file.close()

    def check(self) -> None:
        """Raise why reading stopped, if it did. Raises ``Refused`` and ``Unreadable``."""
        if self.error is not None:
            reason = store_error(self.error)
            if not isinstance(reason, Refused):
                reason = Unreadable(f"reading stopped: {one_line(self.error)}")
            raise reason from self.error

    @classmethod
    def at(cls, uri: str) -> InputFile:
        """Open a local path or a URL. Raises ``Unreadable``, and whatever the system or the store raises."""
        local = local_path(uri)
        if local is not None:
            check_regular(local)
            # "file:" keeps libav from reading a protocol into a name with a colon.
            return cls(open(local, "rb", buffering=0, opener=_without_waiting), name=f"file:{local}")
        system, path = store_of(uri)

        def opened() -> Any:
            return system.open(path, "rb")

        return cls(retried(opened), opened)

    def read(self, size: int) -> bytes:
        if self.error is not None:
            return b""
        at = self._file.tell()
        failed = False

        def attempt() -> bytes:
            nonlocal failed
            if failed and self._reopen is not None:
                self._file.close()
                self._file = self._reopen()
                self._file.seek(at)
            failed = True
            return bytes(self._file.read(size))

        try:
            return attempt() if self._reopen is None else retried(attempt)
        except Exception as error:
            self.error = error
            return b""


def one_line(error: BaseException) -> str:
    """Say what went wrong in one line of at most 200 characters; libav's errors with its last log line."""
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    log = getattr(error, "log", None)
    return scrub(" ".join(f"{text} ({log[2].strip()})".split() if log else text.split()))[:200]
