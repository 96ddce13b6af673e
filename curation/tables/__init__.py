"""Tables: a dataset of Delta Lake tables and exports at a URL.

``DatasetTables`` opens, locks, withdraws and collects garbage. ``Table`` reads and commits, with one ``Committer`` a run on the
driver; ``write_part`` and ``read_part`` are the worker's end and never open a table. ``query`` is SQL over all of it, and
``verify`` says whether it holds together.

Names are imported on first use: a worker that writes parts needs neither Delta Lake nor DuckDB.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dailies.curation.tables.cleaning import clean_columns, clean_tables, uncleaned
    from dailies.curation.tables.committer import Committer
    from dailies.curation.tables.dataset import DatasetTables, Garbage
    from dailies.curation.tables.integrity import DatasetProblem, verify
    from dailies.curation.tables.latest import find_export, misled, point_latest
    from dailies.curation.tables.parts import KeySet, Receipt, conform, read_part, write_part
    from dailies.curation.tables.places import move_sources, moved_sources, with_places
    from dailies.curation.tables.shards import shards_of
    from dailies.curation.tables.sql import Connection, confined, connect, query
    from dailies.curation.tables.storage import ROW_GROUP_BYTES, Folder, first_line, layout
    from dailies.curation.tables.table import Table
    from dailies.curation.tables.views import current

__all__ = [
    "ROW_GROUP_BYTES",
    "Committer",
    "Connection",
    "DatasetProblem",
    "DatasetTables",
    "Folder",
    "Garbage",
    "KeySet",
    "Receipt",
    "Table",
    "clean_columns",
    "clean_tables",
    "confined",
    "conform",
    "connect",
    "current",
    "find_export",
    "first_line",
    "layout",
    "misled",
    "move_sources",
    "moved_sources",
    "point_latest",
    "query",
    "read_part",
    "shards_of",
    "uncleaned",
    "verify",
    "with_places",
    "write_part",
]

_MODULES = {
    "cleaning": ("clean_columns", "clean_tables", "uncleaned"),
    "dataset": ("DatasetTables", "Garbage"),
    "latest": ("find_export", "misled", "point_latest"),
    "parts": ("KeySet", "Receipt", "conform", "read_part", "write_part"),
    "places": ("move_sources", "moved_sources", "with_places"),
    "shards": ("shards_of",),
    "sql": ("Connection", "confined", "connect", "query"),
    "storage": ("Folder", "ROW_GROUP_BYTES", "first_line", "layout"),
    "committer": ("Committer",),
    "table": ("Table",),
    "integrity": ("DatasetProblem", "verify"),
    "views": ("current",),
}
_HOMES = {name: module for module, names in _MODULES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
