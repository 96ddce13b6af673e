"""A folder that an attack wants to reach, and what it was like before."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

SECRET = b"-----BEGIN PRIVATE KEY----- never shown"


def state(folder: Path) -> dict[str, tuple[object, ...]]:
    """What lies under ``folder``, with bytes, sizes and times, links as links."""
    found: dict[str, tuple[object, ...]] = {}
    for parent, folders, files in os.walk(folder):
        for name in (*folders, *files):
            path = Path(parent, name)
            status = path.lstat()
            content = path.read_bytes() if path.is_file() and not path.is_symlink() else None
            found[str(path.relative_to(folder))] = (status.st_mode, status.st_mtime_ns, content)
    return found


def swap(path: Path, target: Path, *, hard: bool = False) -> None:
    """Put a link to ``target`` in place of what lies at ``path``; of a folder, that stays beside the root as ``old``."""
    if path.is_dir() and not path.is_symlink():
        path.rename(target.parent / f"old-{path.name}")
    else:
        path.unlink(missing_ok=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    if hard:
        os.link(target, path)
    else:
        path.symlink_to(target)


class Hangs(BaseException):
    """A test waits for a pipe. Nothing that the code under test catches."""


@contextmanager
def ringing(seconds: int = 60) -> Iterator[None]:
    """Raise ``Hangs`` where the block takes longer."""

    def ring(*_: object) -> None:
        raise Hangs

    before = signal.signal(signal.SIGALRM, ring)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def pipe(path: Path) -> None:
    """Put a pipe that nobody writes to in place of the file at ``path``: whoever opens it to read it waits for ever."""
    path.unlink(missing_ok=True)
    os.mkfifo(path)
