"""Ctrl-C of a command: a line at once where it takes time to stop, and one at the end that says what holds then."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import FrameType

from dailies.pipelines.cli.terminal import say

PATIENCE = 1.0  # seconds after which it is said that the command is stopping
STOPPING = "dailies: stopping…"
RESUMES = "what is done is kept, and the same command goes on from there"
OUTCOMES = {
    "curate": RESUMES,
    "export": RESUMES,
    "train": "the same command goes on from the last checkpoint",
    "quickstart": RESUMES,
    "select": "the selection is as it was",
    "verify": "not everything was checked",
    "gc": "the same command removes the rest",
    "withdraw": "not everything is deleted yet; the same command goes on",
    "zoo publish": "nothing was published",
    "zoo run": "no video was written",
    "zoo verify": "not everything was checked",
}
"""What holds after an interrupt, by command. The others have changed nothing."""


def stopped_line(arguments: Sequence[str]) -> str:
    """Return the line at the end of a command that was interrupted, by its ``arguments``."""
    named = [argument for argument in arguments if not argument.startswith("-")]
    command = " ".join(named[: 2 if named[:1] == ["zoo"] else 1])
    outcome = OUTCOMES.get(command)
    return f"dailies: stopped; {outcome}" if outcome else "dailies: stopped"


@contextmanager
def telling_of_interrupts() -> Iterator[None]:
    """Let the first Ctrl-C within the block say so where the command takes longer than ``PATIENCE`` to stop.

    Where Ctrl-C is ignored, as in a shell's background jobs, or another handler is in force, nothing is changed; nor off the
    main thread, where Python takes no signals.
    """
    ended = threading.Event()

    def tell() -> None:
        if not ended.wait(PATIENCE):
            say(STOPPING, err=True)

    def interrupt(number: int, frame: FrameType | None) -> None:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        threading.Thread(target=tell, daemon=True).start()
        raise KeyboardInterrupt

    on_main = threading.current_thread() is threading.main_thread()
    if not on_main or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield
        return
    signal.signal(signal.SIGINT, interrupt)
    try:
        yield
    finally:
        ended.set()
        signal.signal(signal.SIGINT, signal.default_int_handler)
