"""SHA-256 of files, kept by what tells whether a file may have changed, so that large weights are read once.

A file counts as unchanged while its size, inode, and its times of modification and of status change are the same. The last
of these cannot be set by hand, so a file that was swapped and given its old time is read again. What is known of a folder
lies in the user's own cache and not in the folder, which others may have made.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from dailies.curation.atomic import write_json

ENV = "DAILIES_CACHE"
CACHE = "~/.cache/dailies"

Stamp = list[int]  # size, inode, modified, changed (ns), as JSON has them


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file, in hex."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def sha256_of(folder: Path, names: Mapping[str, Path]) -> dict[str, str]:
    """Return the SHA-256 of ``folder``'s files by name; those that have not changed since the last call are not read."""
    place = _place(folder)
    known = _read(place)
    hashes: dict[str, tuple[Stamp, str]] = {}
    for name, path in names.items():
        stamp = _stamp(path)
        there = known.get(name)
        hashes[name] = (stamp, there[1] if there is not None and there[0] == stamp else sha256(path))
    if hashes != known:
        with suppress(OSError):  # a cache that cannot be written costs time only: the files are read again
            place.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            write_json(place, hashes)
    return {name: value for name, (_, value) in hashes.items()}


def _stamp(path: Path) -> Stamp:
    status = path.stat()
    return [status.st_size, status.st_ino, status.st_mtime_ns, status.st_ctime_ns]


def _place(folder: Path) -> Path:
    name = hashlib.sha256(os.fsencode(folder.resolve())).hexdigest()[:32]
    return Path(os.environ.get(ENV) or CACHE).expanduser() / "hashes" / f"{name}.json"


def _read(place: Path) -> dict[str, tuple[Stamp, str]]:
    """Return what is known; nothing where the file is absent or not of this form, as all is read again then."""
    try:
        rows = json.loads(place.read_text(encoding="utf-8"))
        return {str(name): (list(map(int, stamp)), str(value)) for name, (stamp, value) in rows.items()}
    except (OSError, ValueError, TypeError, AttributeError):
        return {}
