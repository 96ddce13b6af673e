"""What a worker process reports of its progress, as lines of text, and how these are reported again where people look."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from dailies.curation.progress import Bar, Progress

MARK = "\x1e"  # begins a line of a relay; no line for people does
EVERY = 0.5  # seconds between lines of one stage


class Sender:
    """A ``Progress`` that writes lines with ``write``, of each stage no more than one in ``EVERY`` seconds."""

    def __init__(self, write: Callable[[str], None]) -> None:
        self._write = write
        self._stages = 0

    @contextmanager
    def __call__(
        self,
        stage: str,
        total: float | None,
        unit: str,
        *,
        already: float = 0,
        size: float | None = None,
        after: float = 0,
    ) -> Iterator[Bar]:
        self._stages += 1
        bar = _SendingBar(self._stages, self._send)
        named = {"already": already, "size": size, "after": after}
        self._send({"open": self._stages, "what": [stage, total, unit], "named": named})
        try:
            yield bar
        finally:
            bar.flush()
            self._send({"close": bar.stage})

    def _send(self, event: dict[str, Any]) -> None:
        self._write(MARK + json.dumps(event))


class _SendingBar:
    def __init__(self, stage: int, send: Callable[[dict[str, Any]], None]) -> None:
        self.stage, self._send = stage, send
        self._sent = time.monotonic()
        self._kept: dict[str, Any] = {}

    def advance(self, done: float = 1, failed: int = 0, *, size: float | None = None, note: str | None = None) -> None:
        kept = self._kept
        kept["done"], kept["failed"] = kept.get("done", 0) + done, kept.get("failed", 0) + failed
        if size is not None:
            kept["size"] = kept.get("size", 0) + size
        if note is not None:
            kept["note"] = note
        if time.monotonic() - self._sent >= EVERY or not done:
            self.flush()

    def flush(self) -> None:
        if self._kept:
            self._send({"advance": self.stage, "named": self._kept})
        self._sent, self._kept = time.monotonic(), {}


class Receiver:
    """Reports to ``progress`` what a ``Sender`` wrote; ``close`` ends stages whose process died."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._open: dict[int, tuple[ExitStack, Bar]] = {}

    def take(self, line: str) -> bool:
        """Report what ``line`` says; returns whether it is a line of a relay."""
        if not line.startswith(MARK):
            return False
        event = json.loads(line.removeprefix(MARK))
        if "open" in event:
            stack = ExitStack()
            bar = stack.enter_context(self._progress(*event["what"], **event["named"]))
            self._open[event["open"]] = stack, bar
        elif "advance" in event and event["advance"] in self._open:
            self._open[event["advance"]][1].advance(**event["named"])
        elif "close" in event and event["close"] in self._open:
            self._open.pop(event["close"])[0].close()
        return True

    def close(self) -> None:
        while self._open:
            self._open.popitem()[1][0].close()
