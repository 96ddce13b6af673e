"""Ctrl-C between two steps, never within one."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def defer_sigint(say: Callable[[str], None]) -> Iterator[Callable[[], bool]]:
    """Let Ctrl-C wait within the block, and yield a function that says whether it came.

    Weights, their average, the optimizer and the number of steps belong together: cut in half, a step must not be
    saved. A second Ctrl-C ends the process at once. Off the main thread, where Python takes no signals, nothing is
    changed.
    """
    asked = False

    def ask(number: int, frame: FrameType | None) -> None:
        nonlocal asked
        if asked:
            raise SystemExit(130)  # the shell's code for Ctrl-C; no KeyboardInterrupt, upon which the loop would save
        asked = True
        say("stopping after this step; Ctrl-C again stops at once and saves nothing")

    def came() -> bool:
        return asked

    if threading.current_thread() is not threading.main_thread():
        yield came
        return
    before = signal.signal(signal.SIGINT, ask)
    try:
        yield came
    finally:
        signal.signal(signal.SIGINT, before)
