"""Curation is what is done to one source or one clip: plain functions over plain rows, without Ray or torch.

Importing the package loads nothing heavy; a room is loaded when it is named::

    from dailies.curation import observe, video, world
"""

from importlib import import_module
from types import ModuleType

ROOMS = ("captioners", "detectors", "duplicates", "export", "observers", "scorers", "tables", "video", "world")
FILES = (
    "atomic",
    "cards",
    "clips",
    "config",
    "downloads",
    "errors",
    "manifests",
    "observations",
    "observe",
    "packages",
    "progress",
    "schema",
    "select",
    "sources",
    "table_files",
    "timing",
    "types",
)
__all__ = [*ROOMS, *FILES]

if __name__ != "dailies.curation":  # imported by its bare name, it would be a second copy of every module in it
    raise ImportError(f"{__name__} is part of dailies: import dailies.curation")


def __getattr__(name: str) -> ModuleType:
    if name in __all__:
        return import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
