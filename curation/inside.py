"""The one way to a path in a folder that others may have made: nothing in it leads out of it.

A *root* is what the user names, or what lies where this program says: it is trusted, and may be a link. Below it there are
folders and regular files alone. A link, a pipe, a socket or a device among them raises ``Unsafe``, and so does a name that
is absolute or goes up. What is opened here is opened part by part from the root's descriptor without following links, so
that a folder which is swapped for a link meanwhile leads nowhere either. Libraries that open a path by themselves get it
from ``inside``, right before they do.
"""

from __future__ import annotations

import errno
import os
import re
import secrets
import shutil
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from dailies.curation.errors import Unsafe

Root = str | os.PathLike[str]

_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f\\]")
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_NO_LINK = os.O_NOFOLLOW | os.O_CLOEXEC


@dataclass(frozen=True, slots=True)
class Entry:
    """Something in a folder: ``name`` relative to the folder that was asked for, and its status, of a link the link's own."""

    name: str
    status: os.stat_result

    @property
    def is_file(self) -> bool:
        return stat.S_ISREG(self.status.st_mode)

    @property
    def is_folder(self) -> bool:
        return stat.S_ISDIR(self.status.st_mode)


# ---- names ----------------------------------------------------------------------------------------------------------


def check_name(name: str) -> str:
    """Return ``name`` if it can lie below a root: parts between slashes. Raises ``Unsafe`` for any other."""
    if _UNPRINTABLE.search(name) or any(part in ("", ".", "..") for part in name.split("/")):
        raise Unsafe(f"{name!r}: does not lie in the folder that names it; get that folder whole, from whom you trust")
    return name


def inside(root: Root, name: str) -> Path:
    """Return the path of ``name`` below ``root``, which need not exist. Raises ``Unsafe`` where it leads elsewhere."""
    path = os.fspath(root)
    for part in check_name(name).split("/"):
        path = f"{path}/{part}"
        try:
            mode = os.lstat(path).st_mode
        except (FileNotFoundError, NotADirectoryError):
            break
        _check_mode(path, mode)
    return Path(root, name)


def file_inside(root: Root, name: str) -> Path:
    """Return the path of the file ``name`` below ``root``, as ``inside`` does. Raises ``Unsafe`` for a folder too."""
    path = inside(root, name)
    if path.is_dir():
        raise Unsafe(f"{path}: is a folder where a file should be; remove it")
    return path


def inside_whole(root: Root, name: str) -> Path:
    """Return the path of the folder ``name`` below ``root`` for what opens its files by itself: nothing in it may be a link."""
    for entry in walk(root, name):
        _check_mode(f"{Path(root, name)}/{entry.name}", entry.status.st_mode)
    return inside(root, name)


def _check_mode(path: str, mode: int) -> None:
    if stat.S_ISLNK(mode):
        raise Unsafe(f"{path}: is a link, which could lead anywhere; put what it stands for in its place")
    if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
        raise Unsafe(f"{path}: is neither a file nor a folder; remove it")


# ---- opening --------------------------------------------------------------------------------------------------------


@contextmanager
def _parent(root: Root, name: str, *, make: bool = False) -> Iterator[tuple[int, str]]:
    """Yield a descriptor of the folder that ``name`` lies in, and its last part."""
    *folders, last = check_name(name).split("/")
    at = os.open(root, _FOLDER)
    try:
        for folder in folders:
            if make:
                with suppress(FileExistsError):
                    os.mkdir(folder, dir_fd=at)
            below = os.open(folder, _FOLDER | os.O_NOFOLLOW, dir_fd=at)
            os.close(at)
            at = below
        yield at, last
    except (NotADirectoryError, IsADirectoryError) as error:
        raise Unsafe(f"{inside(root, name)}: leads through a file, or is a folder where a file should be") from error
    except OSError:
        inside(root, name)  # says so if a link is the reason
        raise
    finally:
        os.close(at)


def open_inside(root: Root, name: str, flags: int = os.O_RDONLY, mode: int = 0o666) -> int:
    """Open the regular file ``name`` below ``root`` and return its descriptor. Never waits for a pipe's other end.

    A file that is to be written, and was not made just now, must have no other name: another one, a hard link, may lie
    anywhere on that disk. Raises ``Unsafe``, and ``OSError`` as ``os.open`` does.
    """
    with _parent(root, name) as (parent, last):
        descriptor = os.open(last, flags & ~os.O_TRUNC | os.O_NONBLOCK | _NO_LINK, mode, dir_fd=parent)
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            _check_mode(str(Path(root, name)), status.st_mode)
            raise Unsafe(f"{Path(root, name)}: is a folder where a file should be; remove it")
        if flags & (os.O_WRONLY | os.O_RDWR) and status.st_nlink > 1:
            raise Unsafe(f"{Path(root, name)}: has another name elsewhere, a hard link; put a copy in its place")
        if flags & os.O_TRUNC:
            os.ftruncate(descriptor, 0)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def create(root: Root, name: str) -> int:
    """Make the file ``name``, which must not exist, link or not, and return its descriptor, to write."""
    return open_inside(root, name, os.O_WRONLY | os.O_CREAT | os.O_EXCL)


MOST = 64 << 20
"""Bytes of a record, an index or a card that is read at once; a file with a hole in it can claim terabytes."""


def read_bytes(root: Root, name: str, *, most: int = MOST) -> bytes:
    """Return what the file ``name`` below ``root`` holds. Raises ``Unsafe`` for one of over ``most`` bytes."""
    with os.fdopen(open_inside(root, name), "rb") as file:
        return _read(file, str(Path(root, name)), most)


def read_named(path: Root, *, most: int = MOST) -> bytes:
    """Return what the file holds that the user named, or that lies in a folder where links are followed.

    Raises ``Unsafe`` for what is no file, such as a pipe, which would keep its reader waiting, or has over ``most`` bytes.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise Unsafe(f"{os.fspath(path)}: is not a file; remove it")
        with os.fdopen(descriptor, "rb", closefd=False) as file:
            return _read(file, os.fspath(path), most)
    finally:
        os.close(descriptor)


def _read(file: IO[bytes], path: str, most: int) -> bytes:
    if os.fstat(file.fileno()).st_size <= most and len(data := file.read(most + 1)) <= most:
        return data
    raise Unsafe(f"{path}: is over {most >> 20} MB, more than such a file can need; get it whole, from whom you trust")


def read_text(root: Root, name: str) -> str:
    """Return the UTF-8 text that the file ``name`` below ``root`` holds."""
    return read_bytes(root, name).decode("utf-8")


# ---- folders --------------------------------------------------------------------------------------------------------


def make_folder(root: Root, name: str) -> Path:
    """Make the folder ``name`` below ``root``, and all above it, where they are not there; returns its path."""
    os.makedirs(root, exist_ok=True)
    with _parent(root, name, make=True) as (parent, last):
        with suppress(FileExistsError):
            os.mkdir(last, dir_fd=parent)
        os.close(os.open(last, _FOLDER | os.O_NOFOLLOW, dir_fd=parent))
    return Path(root, name)


def walk(root: Root, name: str = "", *, recursive: bool = True) -> Iterator[Entry]:
    """Yield what lies in the folder ``name`` below ``root``, or in the root itself; nothing where there is no such folder.

    Links and the like are among it, to be told of; none is followed.
    """
    try:
        descriptor = _open_folder(root, name)
    except FileNotFoundError:
        return
    try:
        yield from _entries(descriptor, "", recursive=recursive)
    finally:
        os.close(descriptor)


def _open_folder(root: Root, name: str) -> int:
    if not name:
        return os.open(root, _FOLDER)
    with _parent(root, name) as (parent, last):
        return os.open(last, _FOLDER | os.O_NOFOLLOW, dir_fd=parent)


DEEPEST = 64
"""Folders in folders. Each takes a descriptor while it is looked through."""


def _entries(descriptor: int, prefix: str, *, recursive: bool) -> Iterator[Entry]:
    if prefix.count("/") > DEEPEST:
        raise Unsafe(f"{prefix[:80]}…: over {DEEPEST} folders deep; remove it")
    with os.scandir(descriptor) as entries:
        for each in entries:
            with suppress(FileNotFoundError):  # taken away meanwhile
                entry = Entry(prefix + each.name, each.stat(follow_symlinks=False))
                yield entry
                if recursive and entry.is_folder:
                    below = os.open(each.name, _FOLDER | os.O_NOFOLLOW, dir_fd=descriptor)
                    try:
                        yield from _entries(below, f"{entry.name}/", recursive=True)
                    finally:
                        os.close(below)


Stamp = tuple[int, int, int, int]
MOST_LOG = (
    1 << 30
)  # bytes of a file that deltalake reads at once, such as _last_checkpoint, which may have a hole in it
FILES = (".parquet", ".json")  # what names end in that are opened by their paths
SETTLED = 100_000_000  # ns since a folder's last change, after which the next one gets another time on any file system's clock


def refuse_links(root: Root, name: str, known: Stamp | None = None) -> Stamp | None:
    """Raise ``Unsafe`` if a file of the folder ``name`` below ``root``, a table's or its log, is a link, none at all or vast.

    ``known``: what an earlier call returned. While that is what tells the folder's state, it is not listed again.
    """
    try:
        descriptor = _open_folder(root, name)
    except FileNotFoundError:
        return None
    try:
        now, status = time.time_ns(), os.fstat(descriptor)
        stamp = status.st_dev, status.st_ino, status.st_mtime_ns, status.st_ctime_ns
        if stamp == known:
            return known
        with os.scandir(descriptor) as entries:
            for each in entries:
                if not each.is_file(follow_symlinks=False):
                    if each.name.endswith(FILES) and each.is_dir(follow_symlinks=False):
                        raise Unsafe(f"{Path(root, name)}/{each.name}: is a folder where a file should be; remove it")
                    _check_mode(f"{Path(root, name)}/{each.name}", each.stat(follow_symlinks=False).st_mode)
                elif not each.name.endswith(".parquet") and each.stat(follow_symlinks=False).st_size > MOST_LOG:
                    raise Unsafe(f"{Path(root, name)}/{each.name}: is over {MOST_LOG >> 20} MB; no log of ours is")
        return stamp if now - status.st_ctime_ns > SETTLED else None
    finally:
        os.close(descriptor)


# ---- links that name a neighbour ----


def read_link(root: Root, name: str) -> str | None:
    """Return the neighbour that the link ``name`` below ``root`` names, ``None`` where there is no link of that name.

    Raises ``Unsafe`` for a link to anything else.
    """
    try:
        with _parent(root, name) as (parent, last):
            target = os.readlink(last, dir_fd=parent)
    except FileNotFoundError:
        return None
    except OSError as error:
        if error.errno == errno.EINVAL:  # it is a file or a folder
            return None
        raise
    if "/" in target or _UNPRINTABLE.search(target) or target in ("", ".", "..", name.rpartition("/")[2]):
        raise Unsafe(f"{Path(root, name)}: is a link to {target!r}, which does not lie beside it; remove it")
    return target


def write_link(root: Root, name: str, target: str) -> None:
    """Make ``name`` below ``root`` a link to its neighbour ``target``, in place of a link that stands there, in one go.

    Raises ``OSError`` where the disk has no links, or anything else stands there.
    """
    if "/" in check_name(target):
        raise Unsafe(f"{target!r}: does not lie beside the link {name}")
    with _parent(root, name) as (parent, last):
        with suppress(FileNotFoundError):
            if not stat.S_ISLNK(os.stat(last, dir_fd=parent, follow_symlinks=False).st_mode):
                raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(Path(root, name)))
        hidden = f".{last}.{os.getpid()}-{secrets.token_hex(4)}.tmp"
        os.symlink(target, hidden, dir_fd=parent)
        try:
            os.replace(hidden, last, src_dir_fd=parent, dst_dir_fd=parent)
        except BaseException:
            os.unlink(hidden, dir_fd=parent)
            raise


# ---- removing and renaming ------------------------------------------------------------------------------------------


def remove(root: Root, name: str) -> None:
    """Remove the file ``name`` below ``root``; of a link, the link."""
    with _parent(root, name) as (parent, last):
        os.unlink(last, dir_fd=parent)


def remove_tree(root: Root, name: str) -> None:
    """Remove the folder ``name`` below ``root`` with all that lies in it; of a link, the link."""
    with _parent(root, name) as (parent, last):
        if stat.S_ISDIR(os.stat(last, dir_fd=parent, follow_symlinks=False).st_mode):
            shutil.rmtree(last, dir_fd=parent)  # which follows no link either
        else:
            os.unlink(last, dir_fd=parent)


def replace(root: Root, name: str, final: str) -> None:
    """Give the file ``name`` below ``root`` the name ``final``, in place of what has that."""
    with _parent(root, name) as (parent, last), _parent(root, final) as (other, new):
        os.replace(last, new, src_dir_fd=parent, dst_dir_fd=other)
