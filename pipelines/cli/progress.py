"""Progress of a stage: a live line with rate and time left in a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from rich.console import Console

PLAIN_EVERY = 5.0  # seconds between plain lines


class Bar(Protocol):
    def advance(self, done: int = 1, failed: int = 0) -> None: ...


def stderr() -> Console:
    """Progress goes to stderr: stdout is for results."""
    return Console(stderr=True, highlight=False)


@contextmanager
def progress(stage: str, total: int, unit: str, *, already: int = 0, quiet: bool = False) -> Iterator[Bar]:
    """Report on ``total`` units of ``stage``, ``already`` of the stage's units being done before it started."""
    if quiet:
        yield _Plain(stage, total, unit, out=None)
        return
    console = stderr()
    if total == 0:
        console.print(f"{stage:<8} nothing to do, {already} {unit} done before")
        yield _Plain(stage, total, unit, out=None)
    elif console.is_terminal:
        with _live(console, stage, total, unit) as bar:
            yield bar
    else:
        plain = _Plain(stage, total, unit, out=console)
        yield plain
        plain.close()


class _Plain:
    def __init__(self, stage: str, total: int, unit: str, out: Console | None) -> None:
        self._stage, self._total, self._unit, self._out = stage, total, unit, out
        self._done = self._failed = 0
        self._began = self._said = time.monotonic()
        self._told = 0

    def advance(self, done: int = 1, failed: int = 0) -> None:
        self._done += done
        self._failed += failed
        if self._out and time.monotonic() - self._said >= PLAIN_EVERY:
            self._say()

    def _say(self) -> None:
        if self._out is None:
            return
        self._said, self._told = time.monotonic(), self._done
        taken = self._said - self._began
        rate = self._done / taken if taken > 0 else 0.0
        left = f", {_clock((self._total - self._done) / rate)} left" if rate and self._done < self._total else ""
        failed = f", {self._failed} failed" if self._failed else ""
        self._out.print(
            f"{self._stage:<8} {self._done}/{self._total} {self._unit}, {rate:.1f}/s{left}{failed}", soft_wrap=True
        )
        sys.stderr.flush()

    def close(self) -> None:
        if self._told != self._done or not self._done:
            self._say()


@contextmanager
def _live(console: Console, stage: str, total: int, unit: str) -> Iterator[Bar]:
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn(f"{stage:<8}"),
        BarColumn(bar_width=30),
        MofNCompleteColumn(),
        TextColumn(f"{unit}  {{task.fields[rate]}}"),
        TimeRemainingColumn(elapsed_when_finished=True),
        TextColumn("{task.fields[failed]}", style="red"),
    )
    with Progress(*columns, console=console) as live:
        task = live.add_task(stage, total=total, rate="", failed="")
        began, counts = time.monotonic(), [0, 0]

        class Live:
            def advance(self, done: int = 1, failed: int = 0) -> None:
                counts[0] += done
                counts[1] += failed
                rate = counts[0] / max(time.monotonic() - began, 1e-3)
                said = f"{counts[1]} failed" if counts[1] else ""
                live.update(task, advance=done, rate=f"{rate:.1f}/s", failed=said)

        yield Live()


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
