"""One writer of a folder at a time, by a lock of the operating system's that goes with its process however that ends."""

from __future__ import annotations

import fcntl
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager

from dailies.curation import inside
from dailies.curation.errors import Unsafe, UsageError

_descriptors: set[int] = set()
"""Descriptors of the locks of this process."""


def _close_inherited() -> None:
    # A forked child shares its parent's locks, and would keep them when the parent dies.
    for descriptor in _descriptors:
        os.close(descriptor)
    _descriptors.clear()


os.register_at_fork(after_in_child=_close_inherited)


@contextmanager
def only_writer(file: str | os.PathLike[str], what: str, error: type[UsageError]) -> Iterator[None]:
    """Hold the lock ``file`` for the block; it is not shared with children.

    Raises ``error``, which begins with ``what``, naming the process that holds it already, or why it cannot be made.
    """
    descriptor = _lock(file, what, error)
    _descriptors.add(descriptor)
    try:
        yield
    finally:
        if descriptor in _descriptors:  # not in a forked child, which has closed it
            _descriptors.discard(descriptor)
            os.close(descriptor)


@contextmanager
def in_turn(file: str | os.PathLike[str]) -> Iterator[None]:
    """Hold the lock ``file`` for the block, once others that hold it have let go of it."""
    descriptor = open_lock(file)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def open_lock(file: str | os.PathLike[str]) -> int:
    """Open a lock's file, made if it is not there, and return its descriptor.

    Raises ``Unsafe`` for a link, also a hard one, since what it stands for would be overwritten.
    """
    folder, name = os.path.split(os.fspath(file))
    return inside.open_inside(folder or ".", name, os.O_RDWR | os.O_CREAT, 0o644)


def _lock(file: str | os.PathLike[str], what: str, error: type[UsageError]) -> int:
    try:
        descriptor = open_lock(file)
    except OSError as problem:
        raise error(f"{what}: cannot be locked: {problem.strerror}") from problem
    except Unsafe as problem:
        raise error(f"{what}: cannot be locked: {problem}") from problem
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as problem:
        holder = os.pread(descriptor, 200, 0).decode(errors="replace").strip() or "another process"
        os.close(descriptor)
        raise error(f"{what}: {holder} is writing to it; only one run may at a time") from problem
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, f"pid {os.getpid()} on {socket.gethostname()}\n".encode(), 0)
    return descriptor
