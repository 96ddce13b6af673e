"""Progress of a command on stderr: live lines with rate and time left in a terminal, plain lines elsewhere."""

from __future__ import annotations

import io
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import TYPE_CHECKING, Protocol

from rich.console import Console, ConsoleOptions, RenderResult

from dailies.curation.progress import Bar, Progress, silent
from dailies.pipelines.cli.progress_line import StageProgress, stage_line
from dailies.pipelines.cli.terminal import say, stderr

if TYPE_CHECKING:
    from rich.live import Live

PLAIN_EVERY = 5.0  # seconds between plain lines of a stage that began just now,
PLAIN_SHARE = 0.05  # later of what was spent,
PLAIN_MOST = 60.0  # and at most
REFRESH = 4  # a second
ECHO = 3  # columns that a terminal writes ^C into, at the end of a live line: a line that it broke would stay


def print_stage(stage: str, line: str) -> None:
    """Print a line about a stage, in the columns that ``show_progress`` uses; above the lines that are live."""
    console = _live.console if _live is not None and _live.is_open else stderr()
    console.print(stage_line(stage, line), soft_wrap=True)


def say_of_stage(line: str) -> None:
    """Print ``STAGE: TEXT``, as training says it, in the same columns; a line that names no stage as it is."""
    stage, colon, text = line.partition(": ")
    if colon and " " not in stage:
        print_stage(stage, text)
    else:
        say(line, err=True)


def progress_for(as_json: bool) -> Progress:
    """Silence for a caller that reads JSON, else ``show_progress``."""
    return silent if as_json else show_progress


@contextmanager
def show_progress(
    stage: str,
    total: float | None,
    unit: str,
    *,
    already: float = 0,
    size: float | None = None,
    after: float = 0,
) -> Iterator[Bar]:
    """Yield the ``Progress`` of the command line, on stderr."""
    if total == 0:
        if already:
            print_stage(stage, f"nothing to do, {already:,.0f} {unit} done before")
        with silent(stage, total, unit) as nothing:
            yield nothing
        return
    display = _display()
    shown = StageProgress(
        stage=stage, total=total, unit=unit, begun=time.monotonic(), already=already, size=size, after=after
    )
    display.open(shown)
    try:
        yield _ShownBar(display, shown)
    except Exception:
        shown.broken = True
        raise
    finally:
        display.close(shown)


class _ShownBar:
    """The bar of a stage that is shown."""

    def __init__(self, display: _Display, shown: StageProgress) -> None:
        self._display, self._shown = display, shown

    def advance(self, done: float = 1, failed: int = 0, *, size: float | None = None, note: str | None = None) -> None:
        self._shown.advance(time.monotonic(), done, failed, size=size, note=note)
        self._display.update(self._shown)


class _Display(Protocol):
    """Shows stages while they are open, and a last line of each."""

    def open(self, shown: StageProgress) -> None: ...
    def update(self, shown: StageProgress) -> None: ...
    def close(self, shown: StageProgress) -> None: ...


_live: _LiveDisplay | None = None  # stages within one another share a display: two would write over each other


def _display() -> _Display:
    global _live
    console = stderr()
    # FORCE_COLOR makes rich take a pipe for a terminal, and colours are all that it asks for.
    is_live = console.is_terminal and not console.is_dumb_terminal and os.isatty(_descriptor(console))
    if is_live or (console.is_jupyter and find_spec("ipywidgets")):
        if _live is None or not _live.is_open:
            _live = _LiveDisplay(_own(console) if is_live else console)
        return _live
    return _PlainDisplay(_own(console))


def _descriptor(console: Console) -> int:
    try:
        return console.file.fileno()
    except (OSError, AttributeError, ValueError):
        return -1


class _Copy(io.TextIOWrapper):
    """A file over a copy of another's descriptor."""


def _own(console: Console) -> Console:
    """Let a console write to a copy of its file's descriptor, which stays where a start of Ray redirects stderr."""
    if (descriptor := _descriptor(console)) >= 0:
        console.file.flush()
        encoding = getattr(console.file, "encoding", None) or "utf-8"
        raw = io.FileIO(os.dup(descriptor), "w")
        console.file = _Copy(io.BufferedWriter(raw), encoding=encoding, errors="replace", line_buffering=True)
    return console


def _release(console: Console) -> None:
    """Close the copy that ``_own`` made, if it did."""
    if isinstance(console.file, _Copy):
        console.file.close()


class _PlainDisplay:
    """Prints a line from time to time, also while nothing is done."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._printed = 0.0
        self._done_printed = -1.0
        self._ticker: threading.Thread | None = None

    def open(self, shown: StageProgress) -> None:
        self._printed = shown.begun
        self._ticker = threading.Thread(target=self._tick, args=(shown,), daemon=True)
        self._ticker.start()

    def _tick(self, shown: StageProgress) -> None:
        while not self._stop.wait(1.0):
            self.update(shown)

    def update(self, shown: StageProgress) -> None:
        with self._lock:
            now = time.monotonic()
            spent = now - shown.begun
            is_due = now - self._printed >= max(PLAIN_EVERY, min(PLAIN_MOST, PLAIN_SHARE * spent))
            if is_due and not self._stop.is_set():
                self._print(shown, now)

    def _print(self, shown: StageProgress, now: float) -> None:
        self._printed, self._done_printed = now, shown.done
        line = shown.plain(now)
        width = self._console.width - 1 if self._console.is_terminal else None
        self._console.print(line if width is None else line[:width], soft_wrap=True)

    def close(self, shown: StageProgress) -> None:
        self._stop.set()
        shown.end()
        with self._lock:
            if shown.is_told(time.monotonic()) and (self._done_printed != shown.done or not shown.done):
                self._print(shown, time.monotonic())
        _release(self._console)


class _LiveDisplay:
    """Shows the open stages at the bottom of a terminal, and leaves the last line of each above."""

    def __init__(self, console: Console) -> None:
        from rich.live import Live

        self.console = console
        self._stages: list[StageProgress] = []
        self._live: Live = Live(self, console=console, refresh_per_second=REFRESH, transient=True)

    @property
    def is_open(self) -> bool:
        return bool(self._stages)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        now, unicode = time.monotonic(), options.encoding.startswith("utf")
        for shown in self._stages:
            yield shown.live(now, options.max_width - ECHO, unicode=unicode)

    def open(self, shown: StageProgress) -> None:
        self._stages.append(shown)
        if len(self._stages) == 1:
            self._live.start()

    def update(self, shown: StageProgress) -> None:
        """Leave it to the next refresh."""

    def close(self, shown: StageProgress) -> None:
        shown.end()
        self._stages.remove(shown)
        unicode = self.console.encoding.startswith("utf")
        last = shown.live(time.monotonic(), self.console.width - ECHO, unicode=unicode)
        if not self._stages:
            self._live.stop()
        if shown.is_told(time.monotonic()):
            self.console.print(last, soft_wrap=True)
        if not self._stages:
            _release(self.console)
