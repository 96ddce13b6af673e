"""Files below a folder, and those that a pattern matches: links are followed once, never in circles, and told of."""

from __future__ import annotations

import fnmatch
import glob
import logging
import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from dailies.curation.plain_text import counted

log = logging.getLogger("dailies")

SHOWN = 3  # links that the line about them names


KINDS = {
    "dataset.json": "a dataset",
    "export.json": "an export",
    "latents.json": "latents",
    "run.json": "a training run",
    "vae.json": "a run of train vae",
    "captioner.json": "a run of train captioner",
    "model.json": "a model",
}
"""What a folder is, by a file in it."""


def what_lies_at(path: str | os.PathLike[str]) -> str | None:
    """Return what lies at a local path, as "an export" or "a file"; ``None`` for a folder of something else."""
    if not os.path.lexists(path):
        return "nothing"
    if not os.path.isdir(path):
        return "a file"
    return next((kind for file, kind in KINDS.items() if os.path.isfile(os.path.join(path, file))), None)


@dataclass(frozen=True, slots=True)
class Match:
    """A file's path, and the first link on the way to it below what the user named: a folder's or its own."""

    path: str
    link: str | None = None


def files_below(folder: str, wanted: Callable[[str], bool], *, follow_links: bool) -> list[str]:
    """Return files at any depth whose names are ``wanted``, sorted; none that is hidden, or lies in a hidden folder."""
    matches = (each for each in _walk(folder) if wanted(os.path.basename(each.path)))
    return _each_once(matches, folder, follow_links=follow_links)


def files_matching(pattern: str, *, follow_links: bool) -> list[str]:
    """Return the regular files that a glob matches, sorted; ``**`` stands for any number of folders."""
    parts = pattern.split(os.sep)
    first = next(number for number, part in enumerate(parts) if glob.has_magic(part))
    fixed, rest = os.sep.join(parts[:first]) or (os.sep if first else os.curdir), parts[first:]
    if "**" in rest:
        hidden = any(part.startswith(".") for part in rest)
        below = _walk(fixed, hidden=hidden)
        matches = [each for each in below if _matches(os.path.relpath(each.path, fixed).split(os.sep), rest)]
    else:
        matches = [Match(path, _first_link(path, fixed)) for path in glob.glob(pattern)]
    return _each_once((each for each in matches if os.path.isfile(each.path)), pattern, follow_links=follow_links)


def _matches(path: Sequence[str], pattern: Sequence[str]) -> bool:
    """Return whether the parts of a path match those of a glob, in which hidden parts are matched by name alone."""
    if not pattern:
        return not path
    if pattern[0] == "**":
        shown = next((number for number, part in enumerate(path) if part.startswith(".")), len(path))
        last = len(pattern) == 1
        return shown == len(path) if last else any(_matches(path[n:], pattern[1:]) for n in range(shown + 1))
    if not path or (path[0].startswith(".") and not pattern[0].startswith(".")):
        return False
    return fnmatch.fnmatchcase(path[0], pattern[0]) and _matches(path[1:], pattern[1:])


def _walk(folder: str, *, hidden: bool = False) -> Iterator[Match]:
    """Yield files at any depth: first those that lie there, then those behind links to folders, each real folder once."""
    entered: set[str] = set()
    waiting: list[Match] = [Match(folder)]
    while waiting:
        begin = waiting.pop(0)
        for root, folders, files in os.walk(begin.path):
            real = os.path.realpath(root)
            if real in entered:
                folders.clear()
                continue
            entered.add(real)
            folders[:] = sorted(name for name in folders if hidden or not name.startswith("."))
            for path in (os.path.join(root, name) for name in folders):
                if os.path.islink(path):  # os.walk lists it, and does not enter it
                    waiting.append(Match(path, begin.link or path))
            for path in (os.path.join(root, name) for name in files if hidden or not name.startswith(".")):
                yield Match(path, begin.link or (path if os.path.islink(path) else None))


def _first_link(path: str, above: str) -> str | None:
    """Return the first part of a path below ``above`` that is a link."""
    parts, at = os.path.relpath(path, above).split(os.sep), above
    for part in parts:
        at = os.path.join(at, part)
        if os.path.islink(at):
            return at
    return None


def _each_once(matches: Iterator[Match] | Sequence[Match], named: str, *, follow_links: bool) -> list[str]:
    """Return the paths, sorted, one of each real file: its own place before one behind a link. Says what lies behind links."""
    ordered = sorted(matches, key=lambda each: (each.link is not None, each.path.count(os.sep), each.path))
    if not follow_links:
        return sorted(each.path for each in ordered if each.link is None)
    real: set[str] = set()
    kept: list[Match] = []
    for each in ordered:
        place = os.path.realpath(each.path)
        if place not in real:
            real.add(place)
            kept.append(each)
    behind = Counter(each.link for each in kept if each.link is not None)
    if behind:
        names = [f"{link} ({count})" for link, count in sorted(behind.items())]
        more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
        log.warning(
            f"{named}: {sum(behind.values())} of {counted(len(kept), 'video', 'lie', 'lies')} behind links: "
            f"{', '.join(names[:SHOWN])}{more}; "
            "--no-links leaves them out"
        )
    return sorted(each.path for each in kept)
