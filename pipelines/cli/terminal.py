"""Everything that dailies prints passes here: names, captions and messages may come from files that others made.

A file's name or a caption can hold escape sequences that set a terminal's title, fill its clipboard or hide what it shows.
``clean`` takes them out of every line; colours and bars, which are rich's own, stay.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterable
from typing import Any

from rich.console import Console, ConsoleOptions
from rich.segment import Segment

# C0 and C1 controls but tab and newline, and what turns the direction of text or hides in it (Unicode's Bidi_Control,
# line and paragraph separators, byte order marks, tags).
_UNSEEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff\U000e0000-\U000e007f]"
)


def clean(text: str) -> str:
    """Return ``text`` without control characters, and with lone surrogates as ``?``; tabs and newlines stay."""
    return _UNSEEN.sub("", text).encode("utf-8", "replace").decode("utf-8")


def say(text: str, *, err: bool = False) -> None:
    """Print a line, to stderr with ``err``, which is then shown at once."""
    print(clean(text), file=sys.stderr if err else sys.stdout, flush=err)


def say_json(value: Any) -> None:
    """Print an object for programs on one line: whatever is no plain ASCII is escaped, so nothing of it is lost."""
    say(json.dumps(value, default=str).replace("\x7f", "\\u007f"))


class _CleanConsole(Console):
    """rich's console, whose own control codes (colours, the cursor of a bar) are apart from a segment's text."""

    def render(self, renderable: Any, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        for segment in super().render(renderable, options):
            yield segment if segment.control else segment._replace(text=clean(segment.text))


def stdout(width: int | None = None) -> Console:
    """Return the console for results, on stdout; ``width`` in columns, by default the terminal's."""
    return _CleanConsole(highlight=False, width=width)


def stderr() -> Console:
    """Return the console for progress, on stderr."""
    return _CleanConsole(stderr=True, highlight=False)
