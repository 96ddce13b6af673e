"""Everything that dailies prints passes here, and loses its control characters: see ``plain_text``.

Colours and bars, which are rich's own, stay.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterable, Mapping
from typing import Any

from rich.console import Console, ConsoleOptions
from rich.segment import Segment

from dailies.curation.plain_text import clean


def say(text: str, *, err: bool = False) -> None:
    """Print a line, to stderr with ``err``, which is then shown at once."""
    print(clean(text), file=sys.stderr if err else sys.stdout, flush=err)


def say_json(value: Any) -> None:
    """Print an object for programs on one line: whatever is no plain ASCII is escaped, so nothing of it is lost.

    JSON has no NaN and no infinities: they are null.
    """
    try:
        text = json.dumps(value, default=str, allow_nan=False)
    except ValueError:
        text = json.dumps(_finite(value), default=str, allow_nan=False)
    say(text.replace("\x7f", "\\u007f"))


def _finite(value: Any) -> Any:
    """Return ``value`` with None for the floats that JSON does not have."""
    if isinstance(value, Mapping):
        return {key: _finite(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


class _CleanConsole(Console):
    """rich's console, whose own control codes (colours, the cursor of a bar) are apart from a segment's text.

    No text is markup, so that [link=…] in a name or a column's name is shown as it is, in cells and heads of tables too.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(markup=False, highlight=False, **options)

    def render(self, renderable: Any, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        for segment in super().render(renderable, options):
            yield segment if segment.control else segment._replace(text=clean(segment.text))


def stdout(width: int | None = None) -> Console:
    """Return the console for results, on stdout; ``width`` in columns, by default the terminal's."""
    return _CleanConsole(width=width)


def stderr() -> Console:
    """Return the console for progress, on stderr."""
    return _CleanConsole(stderr=True)
