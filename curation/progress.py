"""A long call reports its progress: the caller hands in what shows it, and silence is the default.

What lies deep below a command, such as a download, reports to what the command put in force with ``reporting``.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from typing import Protocol


class Bar(Protocol):
    """The progress of one stage."""

    def advance(self, done: float = 1, failed: int = 0, *, size: float | None = None, note: str | None = None) -> None:
        """Count ``done`` more units, ``failed`` of which failed; ``size``: of these, where the stage has sizes.

        ``note``: a few words on what is going on, which stay until the next.
        """


class Progress(Protocol):
    """Opens a ``Bar`` for each stage."""

    def __call__(
        self,
        stage: str,
        total: float | None,
        unit: str,
        *,
        already: float = 0,
        size: float | None = None,
        after: float = 0,
    ) -> AbstractContextManager[Bar]:
        """Report on ``total`` units of ``stage``, after ``already`` that an earlier run finished.

        Args:
            total: ``None`` where nobody knows.
            unit: a plural noun; what is being done where ``total`` is ``None``.
            size: of all units together, in any measure: the time left is by size, where units differ.
            after: size of what follows this stage, in the same measure.
        """


class _SilentBar:
    def advance(self, done: float = 1, failed: int = 0, *, size: float | None = None, note: str | None = None) -> None:
        pass


@contextmanager
def silent(
    stage: str,
    total: float | None,
    unit: str,
    *,
    already: float = 0,
    size: float | None = None,
    after: float = 0,
) -> Iterator[Bar]:
    """Yield a ``Bar`` that shows nothing."""
    yield _SilentBar()


_in_force: ContextVar[Progress] = ContextVar("progress", default=silent)


@contextmanager
def reporting(progress: Progress) -> Iterator[None]:
    """Let what is called within the block, in this thread, report to ``progress``."""
    token = _in_force.set(progress)
    try:
        yield
    finally:
        _in_force.reset(token)


def progress_in_force() -> Progress:
    """Return what ``reporting`` put in force; ``silent`` outside of it."""
    return _in_force.get()


def time_spent(seconds: float) -> str:
    """Return a time that passes or is left, as a clock shows it: 0:42, 1:02:33."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
