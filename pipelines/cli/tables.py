"""All printed tables share this: the console, the grid, and how lengths, shares and paths read."""

from __future__ import annotations

import os
import shlex

from rich import box
from rich.table import Table

from dailies.curation.addresses import scrub
from dailies.curation.plain_text import counted as counted
from dailies.curation.plain_text import length as length
from dailies.curation.plain_text import share as share

DASH = "–"  # an empty cell


def grid(title: str | None = None) -> Table:
    """Return a table without columns yet, under ``title``."""
    return Table(title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, pad_edge=False)


def footage(seconds: float) -> str:
    """Return how long footage is. Time that passes is written by ``curation.progress.time_spent``."""
    return f"{length(seconds)} of video"


def near(path: str) -> str:
    """Return a local path as seen from the working directory, where that is shorter."""
    if "://" in path:
        return path
    relative = os.path.relpath(path)
    return relative if len(relative) < len(path) else path


def path_of(path: str) -> str:
    """Return a path as it is typed in a shell: ``near``, and quoted where that is asked for."""
    return shlex.quote(near(path))


def tail(path: str, most: int = 60) -> str:
    """Return the last ``most`` characters of ``path``; of a URL, of what may be shown of it."""
    path = scrub(path)
    return path if len(path) <= most else f"…{path[-most + 1 :]}"
