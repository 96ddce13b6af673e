"""A long call reports its progress: the caller hands in what shows it, and silence is the default."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol


class Bar(Protocol):
    """The progress of one stage."""

    def advance(self, done: int = 1, failed: int = 0) -> None:
        """Count ``done`` more units, ``failed`` of which failed."""


class Progress(Protocol):
    """Opens a ``Bar`` for each stage."""

    def __call__(self, stage: str, total: int, unit: str, *, already: int = 0) -> AbstractContextManager[Bar]:
        """Report on ``total`` units of ``stage``, after ``already`` that an earlier run finished. ``unit``: a plural noun."""


class _SilentBar:
    def advance(self, done: int = 1, failed: int = 0) -> None:
        pass


@contextmanager
def silent(stage: str, total: int, unit: str, *, already: int = 0) -> Iterator[Bar]:
    """Yield a ``Progress`` that shows nothing."""
    yield _SilentBar()
