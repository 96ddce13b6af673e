"""A store's file system whose calls are tried again, and which says in one line why a call failed for good.

Arrow's own client tries again as well, but not what breaks in the middle of a body; and it forgets which file it was.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import pyarrow as pa
import pyarrow.fs as pafs

from dailies.curation.errors import DailiesError, DatasetError, Outage
from dailies.curation.retrying import cause_of, lasting, refused, retried

T = TypeVar("T")


def steady(fs: pafs.FileSystem, scheme: str) -> pafs.FileSystem:
    """Return the file system of a store, whose URLs begin with ``scheme``, with every call tried again.

    What is not there is ``FileNotFoundError``, as everywhere. Whatever else fails for good is a ``DatasetError`` where
    another try would end the same, and an ``Outage`` where it may not.
    """
    return pafs.PyFileSystem(_Steady(fs, scheme))


def reached(fs: pafs.FileSystem, path: str) -> pafs.FileInfo:
    """Return what lies at ``path``, as the first call of a command: a store that no server answers for is given up at once.

    Arrow's own client has tried a few times by then.
    """
    if isinstance(fs, pafs.PyFileSystem) and isinstance(fs.handler, _Steady):
        return fs.handler.reached(path)
    return fs.get_file_info(path)


class _Steady(pafs.FileSystemHandler):  # type: ignore[misc]
    """What pyarrow asks of a file system written in Python."""

    def __init__(self, fs: pafs.FileSystem, scheme: str) -> None:
        self._fs, self._scheme = fs, scheme

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Steady) and self._fs == other._fs

    def __hash__(self) -> int:
        return hash(self._scheme)

    def _call(self, path: str, work: Callable[[], T]) -> T:
        return called(f"{self._scheme}://{path}", work)

    def get_type_name(self) -> str:
        return f"steady+{self._fs.type_name}"

    def normalize_path(self, path: str) -> str:
        return str(self._fs.normalize_path(path))

    # ---- looking ----

    def reached(self, path: str) -> pafs.FileInfo:
        return called(f"{self._scheme}://{path}", lambda: self._fs.get_file_info(path), hopeless=refused)

    def get_file_info(self, paths: Sequence[str]) -> list[pafs.FileInfo]:
        infos: list[pafs.FileInfo] = self._call(paths[0], lambda: self._fs.get_file_info(list(paths)))
        return infos

    def get_file_info_selector(self, selector: pafs.FileSelector) -> list[pafs.FileInfo]:
        infos: list[pafs.FileInfo] = self._call(selector.base_dir, lambda: self._fs.get_file_info(selector))
        return infos

    def open_input_file(self, path: str) -> pa.PythonFile:
        file = self._call(path, lambda: self._fs.open_input_file(path))
        return pa.PythonFile(_SteadyFile(f"{self._scheme}://{path}", file), mode="r")

    open_input_stream = open_input_file  # a stream that breaks could not be entered again where it broke

    # ---- changing ----

    def open_output_stream(self, path: str, metadata: Any) -> pa.NativeFile:
        return self._call(path, lambda: self._fs.open_output_stream(path, metadata=metadata))

    def open_append_stream(self, path: str, metadata: Any) -> pa.NativeFile:
        return self._fs.open_append_stream(path, metadata=metadata)

    def create_dir(self, path: str, recursive: bool) -> None:
        self._call(path, lambda: self._fs.create_dir(path, recursive=recursive))

    def delete_file(self, path: str) -> None:
        self._call(path, once_done(lambda: self._fs.delete_file(path)))

    def delete_dir(self, path: str) -> None:
        self._call(path, once_done(lambda: self._fs.delete_dir(path)))

    def delete_dir_contents(self, path: str, missing_dir_ok: bool = False) -> None:
        self._call(path, lambda: self._fs.delete_dir_contents(path, missing_dir_ok=missing_dir_ok))

    def delete_root_dir_contents(self) -> None:
        raise NotImplementedError("a whole store is never emptied")

    def copy_file(self, source: str, target: str) -> None:
        self._call(source, lambda: self._fs.copy_file(source, target))

    def move(self, source: str, target: str) -> None:
        # A store copies and deletes. As one call it could not be repeated once the copy's original is gone.
        self.copy_file(source, target)
        self.delete_file(source)


class _SteadyFile:
    """A file to read: a read that breaks off is asked for again, from where it began."""

    def __init__(self, url: str, file: pa.NativeFile) -> None:
        self._url, self._file = url, file
        self.closed = False

    def read(self, size: int = -1) -> bytes:
        at = self._file.tell()

        def attempt() -> bytes:
            self._file.seek(at)
            return bytes(self._file.read(None if size < 0 else size))

        return called(self._url, attempt)

    def seek(self, offset: int, whence: int = 0) -> int:
        return int(self._file.seek(offset, whence))

    def tell(self) -> int:
        return int(self._file.tell())

    def size(self) -> int:
        return int(self._file.size())

    def readable(self) -> bool:
        return True

    def writable(self) -> bool:
        return False

    def seekable(self) -> bool:
        return True

    def flush(self) -> None:
        pass

    def close(self) -> None:
        self._file.close()
        self.closed = True


def called(url: str, work: Callable[[], T], *, hopeless: Callable[[Exception], bool] = lambda error: False) -> T:
    """Return ``work()``, tried again; see ``steady`` for what it raises, and ``retried`` for ``hopeless``."""
    try:
        return retried(work, hopeless=hopeless)
    except (FileNotFoundError, FileExistsError, IsADirectoryError, NotADirectoryError):
        raise
    except OSError as error:
        raise failed(url, error) from error


def failed(url: str, error: OSError) -> DailiesError:
    """Return a store's error as ours, in one line that names ``url`` and the cause."""
    if lasting(error):
        return DatasetError(f"{url}: {cause_of(error)}")
    return Outage(f"{url}: the store fails: {cause_of(error)}; the same command resumes")


def once_done(work: Callable[[], None]) -> Callable[[], None]:
    """Return ``work``, which deletes something, as calls of which one may have been carried out without an answer."""
    tried = False

    def attempt() -> None:
        nonlocal tried
        again, tried = tried, True
        try:
            work()
        except FileNotFoundError:
            if not again:
                raise

    return attempt
