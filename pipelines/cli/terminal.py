"""Everything that dailies prints passes here, and loses its control characters (``plain_text``) and secrets (``addresses``).

Colours and bars, which are rich's own, stay.
"""

from __future__ import annotations

import json
import math
import re
import sys
from collections.abc import Iterable
from typing import Any

from rich.console import Console, ConsoleOptions
from rich.segment import Segment
from rich.text import Text

from dailies.curation.addresses import scrub, scrub_data
from dailies.curation.plain_text import clean


def say(text: str, *, err: bool = False, data: bool = False) -> None:
    """Print a line, to stderr with ``err``, which is then shown at once.

    ``data``: it holds what the user asked for, whose URLs keep those parts of their queries that are no secret.
    """
    print(clean(scrub_data(text) if data else scrub(text)), file=sys.stderr if err else sys.stdout, flush=err)


def say_json(value: Any) -> None:
    """Print an object for programs on one line: whatever is no plain ASCII is escaped, so nothing of it is lost.

    JSON has no NaN and no infinities: they are null.
    """
    plain = scrub_data(_finite(json.loads(json.dumps(value, default=str))))
    print(clean(json.dumps(plain, allow_nan=False).replace("\x7f", "\\u007f")))


def _finite(value: Any) -> Any:
    """Return ``value`` with None for the floats that JSON does not have."""
    if isinstance(value, dict):
        return {key: _finite(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_finite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


_FILLING = re.compile(r" +((?:\x1b\[[0-9;]*m)*)$", re.MULTILINE)
"""Blanks at the end of a line, before what ends its colour."""


class _CleanConsole(Console):
    """rich's console, whose own control codes (colours, the cursor of a bar) are apart from a segment's text.

    No text is markup, so that [link=…] in a name or a column's name is shown as it is, in cells and heads of tables too.
    Secrets are taken out before lines are broken, which would part them.
    """

    data = False  # see ``say``

    def __init__(self, **options: Any) -> None:
        super().__init__(markup=False, highlight=False, **options)

    def render_str(self, text: str, **how: Any) -> Text:
        return super().render_str(scrub_data(text) if self.data else scrub(text), **how)

    def render(self, renderable: Any, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        for segment in super().render(renderable, options):
            yield segment if segment.control else segment._replace(text=clean(segment.text))

    def print(self, *objects: Any, **how: Any) -> None:
        """Print without the blanks that fill the lines of a table up to its width."""
        if self.stderr or self.is_jupyter:  # there are bars, which redraw themselves
            super().print(*objects, **how)
            return
        with self.capture() as shown:
            super().print(*objects, **how)
        try:
            self.file.write(_FILLING.sub(r"\1", shown.get()))
            self.file.flush()
        except BrokenPipeError:  # the reader has seen enough
            self.on_broken_pipe()


def stdout(width: int | None = None, *, data: bool = False) -> Console:
    """Return the console for results, on stdout; ``width`` in columns, by default the terminal's. ``data``: see ``say``."""
    console = _CleanConsole(width=width)
    console.data = data
    return console


def stderr() -> Console:
    """Return the console for progress, on stderr."""
    return _CleanConsole(stderr=True)
