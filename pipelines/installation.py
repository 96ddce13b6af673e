"""What is installed: dailies with its extras, the packages that they need, and how large the environment is."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import Distribution, distributions
from typing import Literal

from packaging.requirements import InvalidRequirement, Requirement

NAME = "dailies"
OPENCV = re.compile(r"opencv(-contrib)?-python(-headless)?")
"""Distributions that all install the same folder ``cv2``."""
Status = Literal["complete", "partial", "absent"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Package:
    """A distribution and the size of its files in bytes, as it was installed."""

    name: str
    version: str
    bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Extra:
    """An extra of dailies, what it ``lacks``, and the command that installs it."""

    name: str
    status: Status
    lacks: tuple[str, ...]
    install: str


class Installation:
    """The distributions on ``path``, by default on the interpreter's own."""

    def __init__(self, path: list[str] | None = None) -> None:
        everything = distributions() if path is None else distributions(path=path)
        self._by_name: dict[str, Distribution] = {}
        for each in everything:  # the first is the one that is imported
            name = each.metadata["Name"]
            if name:
                self._by_name.setdefault(_plain(name), each)

    @cached_property
    def packages(self) -> tuple[Package, ...]:
        """All distributions, the largest first."""
        sized = (
            Package(name=each.metadata["Name"], version=each.version, bytes=_size(each))
            for each in self._by_name.values()
        )
        return tuple(sorted(sized, key=lambda package: (-package.bytes, package.name)))

    @property
    def version(self) -> str | None:
        """That of dailies."""
        return self.version_of(NAME)

    def version_of(self, name: str) -> str | None:
        """Return a distribution's version, ``None`` where it is not installed."""
        return self._by_name[name].version if name in self._by_name else None

    @property
    def opencvs(self) -> tuple[str, ...]:
        """Distributions of OpenCV, of which there may be one."""
        return tuple(name for name in sorted(self._by_name) if OPENCV.fullmatch(name))

    def lacking(self, extra: str = "") -> tuple[str, ...]:
        """Return what the core, or an extra, needs and is not there, or there in another version, at any depth."""
        visited: set[tuple[str, str]] = set()
        lacks: dict[str, None] = {}
        left = list(self._required(NAME, extra))
        while left:
            requirement = left.pop(0)
            name = _plain(requirement.name)
            there = self._by_name.get(name)
            if there is None:
                lacks[_line(requirement)] = None
                continue
            if not requirement.specifier.contains(there.version, prereleases=True):
                lacks[f"{_line(requirement)} (there is {there.version})"] = None
            for further in ("", *sorted(requirement.extras)):
                if (name, further) not in visited:
                    visited.add((name, further))
                    left += self._required(name, further)
        return tuple(lacks)

    def extras(self, modules: Mapping[str, object]) -> tuple[Extra, ...]:
        """Return how complete each extra of ``modules`` is."""
        extras, core = [], {_plain(each.name) for each in self._required(NAME, "")}
        for name in modules:
            lacks = self.lacking(name)
            own = {_plain(each.name) for each in self._required(NAME, name)} - core
            there = own & self._by_name.keys()
            status: Status = "complete" if not lacks else "partial" if there else "absent"
            extras.append(Extra(name=name, status=status, lacks=lacks, install=f"pip install '{NAME}[{name}]'"))
        return tuple(extras)

    def _required(self, name: str, extra: str) -> Iterator[Requirement]:
        """Yield what a distribution requires on this machine: of itself, or for its ``extra`` alone."""
        there = self._by_name.get(_plain(name))
        for text in (there.requires if there else None) or ():
            try:
                requirement = Requirement(text)
            except InvalidRequirement:
                continue
            marker = requirement.marker
            always = marker is None or marker.evaluate({"extra": ""})
            if always if not extra else (not always and marker is not None and marker.evaluate({"extra": extra})):
                yield requirement


def _plain(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _line(requirement: Requirement) -> str:
    return f"{requirement.name}{requirement.specifier}"


def _size(distribution: Distribution) -> int:
    """Return the size that the distribution's own list of files states; compiled Python is not in it."""
    sizes = (line.rpartition(",")[2] for line in (distribution.read_text("RECORD") or "").splitlines())
    return sum(int(size) for size in sizes if size.isdigit())
