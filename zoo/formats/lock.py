"""The lock file of a model's folder: every file's size and SHA-256, so that a folder can be checked offline.

``dailies.lock.json``: ``{"format": 1, "files": {"unet/config.json": {"sha256": "…", "bytes": 123}, …}}``. Paths are
relative, with forward slashes. The lock does not list itself.
"""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from dailies.curation import inside
from dailies.curation.atomic import sync
from dailies.curation.config import read_object
from dailies.curation.errors import Damaged
from dailies.curation.litter import is_litter
from dailies.curation.plain_text import counted
from dailies.zoo.formats.hashes import sha256_each, sha256_of

LOCK = "dailies.lock.json"
FORMAT = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class LockedFile:
    """One file: its SHA-256 in hex and its size in bytes."""

    sha256: str
    bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class LockProblem:
    """One file that differs from the lock: its ``path`` under the folder, and ``what`` is wrong with it."""

    path: str
    what: str


def files_of(folder: Path) -> dict[str, Path]:
    """Return every file under ``folder`` but the lock and litter, by path; a link counts as a file, and is not followed."""
    files = {}
    for parent, folders, names in os.walk(folder):
        linked = [name for name in folders if Path(parent, name).is_symlink()]
        for name in [*names, *linked]:
            path = Path(parent, name)
            inside = path.relative_to(folder)
            if not is_litter(inside):
                files[inside.as_posix()] = path
    files.pop(LOCK, None)
    return dict(sorted(files.items()))


def write(folder: Path) -> Mapping[str, LockedFile]:
    """Write the lock of ``folder`` as it is now, and wait until the disk has all of the folder."""
    paths = files_of(folder)
    files = {
        name: LockedFile(sha256=hashed, bytes=paths[name].stat().st_size) for name, hashed in sha256_each(paths).items()
    }
    for path in paths.values():
        sync(path)
    rows = {name: {"sha256": file.sha256, "bytes": file.bytes} for name, file in files.items()}
    (folder / LOCK).write_text(json.dumps({"format": FORMAT, "files": rows}, indent=1) + "\n")
    sync(folder / LOCK)
    for parent, _, _ in os.walk(folder):
        sync(Path(parent))
    return files


def read(folder: Path) -> Mapping[str, LockedFile]:
    """Return the files that the lock of ``folder`` lists. Raises ``Damaged`` where it cannot be read."""
    try:
        row = read_object(inside.read_bytes(folder, LOCK), f"{folder}: {LOCK}", Damaged)
        if row["format"] != FORMAT:
            raise Damaged(f"{folder}: {LOCK} is of format {row['format']}; this version of dailies reads {FORMAT}")
        files = {
            name: LockedFile(sha256=str(file["sha256"]), bytes=int(file["bytes"]))
            for name, file in row["files"].items()
        }
    except FileNotFoundError as error:
        raise Damaged(f"{folder}: {LOCK} is missing") from error
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise Damaged(f"{folder}: {LOCK} cannot be read: {error}") from error
    outside = [name for name in files if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts]
    if outside:
        raise Damaged(f"{folder}: {LOCK} names a file outside the folder: {outside[0]}")
    return files


def verify(folder: Path, *, deep: bool = True) -> list[LockProblem]:
    """Return what differs from the lock: missing, extra and changed files.

    ``deep`` reads every byte; else a file that has not changed since it was last read counts as it was then.
    Works offline. Raises ``Damaged`` where there is no lock to compare with.
    """
    locked, files = read(folder), files_of(folder)
    locked = {name: file for name, file in locked.items() if not is_litter(name)}  # older locks list it
    problems = [LockProblem(path=name, what="is not in the lock") for name in files if name not in locked]
    whole = {
        name: path
        for name, path in files.items()
        if name in locked and _is_file(path) and path.stat().st_size == locked[name].bytes
    }
    hashes = sha256_each(whole) if deep else sha256_of(folder, whole)
    for name, want in locked.items():
        path = files.get(name)
        if path is None:
            problems.append(LockProblem(path=name, what="is missing"))
        elif path.is_symlink():
            problems.append(LockProblem(path=name, what="is a link, not a file"))
        elif not _is_file(path):  # a pipe would keep its reader waiting
            problems.append(LockProblem(path=name, what="is not a file"))
        elif (size := path.stat().st_size) != want.bytes:
            problems.append(LockProblem(path=name, what=f"has {counted(size, 'byte')}; the lock says {want.bytes:,}"))
        elif hashes[name] != want.sha256:
            problems.append(LockProblem(path=name, what="changed: its SHA-256 differs from the lock's"))
    return sorted(problems, key=lambda problem: problem.path)


def _is_file(path: Path) -> bool:
    return stat.S_ISREG(path.lstat().st_mode)


def check(folder: Path, *, deep: bool = False) -> None:
    """Raise ``Damaged`` naming the first file that differs from the lock; ``deep`` as for ``verify``."""
    problems = verify(folder, deep=deep)
    if problems:
        more = f", and {len(problems) - 1} more" if len(problems) > 1 else ""
        name = folder.name
        raise Damaged(f"{name}: {problems[0].path} {problems[0].what}{more}: see dailies zoo verify {name}")
