"""Text from data, harmless where it is shown: names, captions and messages may come from files that others made.

A file's name or a caption can hold escape sequences that set a terminal's title, fill its clipboard or hide what it
shows, and a spreadsheet takes a text for a formula that sends its cells elsewhere.
"""

from __future__ import annotations

import re

# C0 and C1 controls but tab and newline, and what turns the direction of text or hides in it (Unicode's Bidi_Control,
# line and paragraph separators, zero width, byte order marks, interlinear annotations, tags).
_UNSEEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u00ad\u061c\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u2064\u2066-\u206f\ufeff"
    "\ufff9-\ufffb\U000e0000-\U000e007f]"
)
_FORMULA = re.compile(r"\s*[=+\-@\uff0b\uff0d\uff1d\uff20]|[\t\r\n]")  # as OWASP lists them, full-width ones too


def clean(text: str) -> str:
    """Return ``text`` without control characters, and with lone surrogates as ``?``; tabs and newlines stay."""
    return _UNSEEN.sub("", text).encode("utf-8", "replace").decode("utf-8")


def one_line(text: object) -> str:
    """Return ``text`` clean, and on one line."""
    return clean(" ".join(str(text).split()))


def shortened(text: str, most: int) -> str:
    """Return ``text`` of at most ``most`` characters: a longer one ends in an ellipsis."""
    return text if len(text) <= most else f"{text[: most - 1]}…"


def spreadsheet(text: str) -> str:
    """Return a cell of CSV that no spreadsheet takes for a formula: such a text begins with a quote."""
    return f"'{text}" if _FORMULA.match(text) else text


def counted(count: int, noun: str, verb: str = "", of_one: str = "") -> str:
    """Return a number with its noun: 1 row, 2 rows; with a ``verb``, and the one ``of_one``, 2 rows are, 1 row is."""
    word = of_one if count == 1 else verb
    return f"{count:,} {noun}{'' if count == 1 else 's'}{f' {word}' if word else ''}"


def length(seconds: float) -> str:
    """Return a duration of footage in the unit that suits it. Time that passes is written by ``progress.time_spent``."""
    if seconds < 120:
        return f"{seconds:.1f} s"
    if seconds < 7200:
        return f"{seconds / 60:.1f} min"
    return f"{seconds / 3600:,.1f} h"


def share(part: float, whole: float) -> str:
    """Return ``part`` of ``whole`` in percent; a dash where there is no whole."""
    return f"{part / whole:.0%}" if whole else "–"
