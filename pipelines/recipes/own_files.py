"""Python files that this user has named in a recipe: only these run again when a dataset's record names them.

A dataset may be another's, and so may what its record says. What the user named is kept in the user's own cache.
"""

from __future__ import annotations

import hashlib
import os
from contextlib import suppress
from pathlib import Path

from dailies.curation.atomic import write_text
from dailies.curation.user_cache import user_cache

_named: set[Path] = set()


def remember(file: Path) -> None:
    """Keep that the user named ``file``, a whole path."""
    if file in _named:
        return
    _named.add(file)
    with suppress(OSError):  # a cache that cannot be written: the next process asks for the recipe again
        place = _place(file)
        place.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        write_text(place, str(file))


def known(file: Path) -> bool:
    """Return whether the user named ``file`` before."""
    if file in _named:
        return True
    try:
        place = _place(file)
        return place.stat().st_uid == os.getuid() and place.read_text(encoding="utf-8") == str(file)
    except (OSError, ValueError):
        return False


def _place(file: Path) -> Path:
    name = hashlib.sha256(os.fsencode(file)).hexdigest()[:32]
    return user_cache() / "own_files" / name
