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
from dailies.curation.progress import Bar, progress_in_force, silent
from dailies.curation.user_cache import user_cache

MB = 1e6
BLOCK = 1 << 22  # bytes
LARGE = 256  # MB; less takes about a second

Stamp = list[int]  # size, inode, modified, changed (ns), as JSON has them


def sha256(path: Path, bar: Bar | None = None) -> str:
    """Return the SHA-256 of a file, in hex; ``bar`` counts megabytes."""
    hasher = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(BLOCK):
            hasher.update(block)
            if bar is not None:
                bar.advance(len(block) / MB)
    return hasher.hexdigest()


def sha256_each(names: Mapping[str, Path]) -> dict[str, str]:
    """Return the SHA-256 of files by name; of large ones, it reports how far it is."""
    size = sum(path.stat().st_size for path in names.values()) / MB
    show = progress_in_force() if size >= LARGE else silent
    with show("hash", size, "MB") as bar:
        return {name: sha256(path, bar) for name, path in names.items()}


def sha256_of(folder: Path, names: Mapping[str, Path]) -> dict[str, str]:
    """Return the SHA-256 of ``folder``'s files by name; those that have not changed since the last call are not read."""
    place = _place(folder)
    known = _read(place)
    stamps = {name: _stamp(path) for name, path in names.items()}  # before the bytes, which may change meanwhile
    unchanged = {name: known[name] for name, stamp in stamps.items() if name in known and known[name][0] == stamp}
    fresh = sha256_each({name: path for name, path in names.items() if name not in unchanged})
    hashes = {name: unchanged[name] if name in unchanged else (stamps[name], fresh[name]) for name in names}
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
    return user_cache() / "hashes" / f"{name}.json"


def _read(place: Path) -> dict[str, tuple[Stamp, str]]:
    """Return what is known; nothing where the file is absent or not of this form, as all is read again then."""
    try:
        rows = json.loads(place.read_text(encoding="utf-8"))
        return {str(name): (list(map(int, stamp)), str(value)) for name, (stamp, value) in rows.items()}
    except (OSError, ValueError, TypeError, AttributeError):
        return {}
