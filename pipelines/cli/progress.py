"""Progress of a stage: a live line with rate and time left in a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import TYPE_CHECKING

from rich.console import Console

from dailies.pipelines.cli.terminal import stderr
from dailies.pipelines.progress import Bar, Progress, silent

if TYPE_CHECKING:
    import rich.progress

PLAIN_EVERY = 5.0  # seconds between plain lines


def print_stage(stage: str, line: str) -> None:
    """Print a line about a stage, in the columns that ``show_progress`` uses."""
    stderr().print(f"{stage:<8} {line}", soft_wrap=True)


def progress_for(as_json: bool) -> Progress:
    """Silence for a caller that reads JSON, else ``show_progress``."""
    return silent if as_json else show_progress


@contextmanager
def show_progress(stage: str, total: int, unit: str, *, already: int = 0) -> Iterator[Bar]:
    """Yield the ``Progress`` of the command line, on stderr."""
    console = stderr()
    if total == 0:
        console.print(f"{stage:<8} nothing to do, {already} {unit} done before")
        with silent(stage, total, unit) as bar:
            yield bar
    elif console.is_terminal or (console.is_jupyter and find_spec("ipywidgets")):
        with _live(console, stage, total, unit) as bar:
            yield bar
    else:
        plain = _PlainBar(console, stage, total, unit)
        yield plain
        plain.close()


class _PlainBar:
    """A line from time to time."""

    def __init__(self, console: Console, stage: str, total: int, unit: str) -> None:
        self._console, self._stage, self._total, self._unit = console, stage, total, unit
        self._done = self._failed = 0
        self._started = self._printed = time.monotonic()
        self._done_printed = 0

    def advance(self, done: int = 1, failed: int = 0) -> None:
        self._done += done
        self._failed += failed
        if time.monotonic() - self._printed >= PLAIN_EVERY:
            self._print()

    def _print(self) -> None:
        self._printed, self._done_printed = time.monotonic(), self._done
        elapsed = self._printed - self._started
        rate = self._done / elapsed if elapsed > 0 else 0.0
        left = f", {_clock((self._total - self._done) / rate)} left" if rate and self._done < self._total else ""
        failed = f", {self._failed} failed" if self._failed else ""
        self._console.print(
            f"{self._stage:<8} {self._done}/{self._total} {self._unit}, {rate:.1f}/s{left}{failed}", soft_wrap=True
        )
        sys.stderr.flush()

    def close(self) -> None:
        if self._done_printed != self._done or not self._done:
            self._print()


@contextmanager
def _live(console: Console, stage: str, total: int, unit: str) -> Iterator[Bar]:
    from rich import progress as rich_progress

    columns = (
        rich_progress.TextColumn("{task.description}", markup=False),
        rich_progress.BarColumn(bar_width=30),
        rich_progress.MofNCompleteColumn(),
        rich_progress.TextColumn("{task.fields[unit]}  {task.fields[rate]}", markup=False),
        rich_progress.TimeRemainingColumn(elapsed_when_finished=True),
        rich_progress.TextColumn("{task.fields[failed]}", style="red"),
    )
    with rich_progress.Progress(*columns, console=console) as display:
        yield _LiveBar(display, display.add_task(f"{stage:<8}", total=total, unit=unit, rate="", failed=""))


class _LiveBar:
    """A line of a live display."""

    def __init__(self, display: rich.progress.Progress, task: rich.progress.TaskID) -> None:
        self._display, self._task = display, task
        self._started = time.monotonic()
        self._done = self._failed = 0

    def advance(self, done: int = 1, failed: int = 0) -> None:
        self._done += done
        self._failed += failed
        rate = self._done / max(time.monotonic() - self._started, 1e-3)
        text = f"{self._failed} failed" if self._failed else ""
        self._display.update(self._task, advance=done, rate=f"{rate:.1f}/s", failed=text)


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
