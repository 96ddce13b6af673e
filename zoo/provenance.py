"""From a model back to its data: what an export's card and index say of the recipe, the selection and the sources."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

_TITLE = re.compile(r"^# (.+)$", re.M)
_COUNTS = re.compile(r"^(\d+) clips of one shot each, (?:cut )?from (\d+) sources\.", re.M)
_RECIPE = re.compile(r"^- recipe `([^`]+)`, hash `([^`]+)`(?:, dailies (\S+))?", re.M)
_SELECTION = re.compile(r"^- selection `([^`]+)`: rules `([^\n]*)`$", re.M)
_LIMITS = re.compile(r"^- limits that the rules came to: `([^\n]*)`$", re.M)
_RENDERED = re.compile(r"^.*\b(?:rendered|synthetic)\b.*$", re.M | re.I)


@dataclass(frozen=True, slots=True, kw_only=True)
class Export:
    """What an export's card says; ``None`` and empty where it does not.

    ``rules``: column → rule as the recipe has it. ``limits``: column → the numbers that quantiles came to.
    ``caveats``: its own sentences on footage that is not filmed.
    """

    name: str | None = None
    clips: int | None = None
    sources: int | None = None
    recipe: str | None = None
    recipe_hash: str | None = None
    version: str | None = None
    selection: str | None = None
    rules: Mapping[str, Any] = field(default_factory=dict)
    limits: Mapping[str, Any] = field(default_factory=dict)
    caveats: tuple[str, ...] = ()

    @classmethod
    def from_card(cls, text: str) -> Export:
        """Parse README.md of an export as ``dailies.curation.export.card`` writes it; what is not there stays ``None``."""
        title, counts = _TITLE.search(text), _COUNTS.search(text)
        recipe, selection, limits = _RECIPE.search(text), _SELECTION.search(text), _LIMITS.search(text)
        return cls(
            name=title[1] if title else None,
            clips=int(counts[1]) if counts else None,
            sources=int(counts[2]) if counts else None,
            recipe=recipe[1] if recipe else None,
            recipe_hash=recipe[2] if recipe else None,
            version=recipe[3] if recipe else None,
            selection=selection[1] if selection else None,
            rules=_object(selection[2]) if selection else {},
            limits=_object(limits[1]) if limits else {},
            caveats=tuple(_prose(line) for line in _RENDERED.findall(text) if _is_prose(line)),
        )


def _object(text: str) -> Mapping[str, Any]:
    try:
        row = json.loads(text)
    except ValueError:
        return {}
    return row if isinstance(row, dict) else {}


def _is_prose(line: str) -> bool:
    return not line.lstrip().startswith(("|", "- selection", "- limits", "- recipe", "- tables", "#", "  -", "```"))


def _prose(line: str) -> str:
    return line.strip().removeprefix("- ")


# ---- clips ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Clip:
    """One clip of the data. ``start`` and ``seconds``: s in its source; ``uri`` is ``None`` where the index is gone."""

    clip_id: str
    uri: str | None = None
    start: float | None = None
    seconds: float | None = None


def look_up(data: str | Path, clip_ids: Iterable[str]) -> dict[str, Clip]:
    """Clip id → where it lies in its source, from ``index.parquet`` of the export ``data``.

    A clip that is not in the index, or an index that is not there any more, gives the id alone.
    """
    wanted = list(dict.fromkeys(clip_ids))
    found = {clip_id: Clip(clip_id=clip_id) for clip_id in wanted}
    path = Path(data) / "index.parquet"
    if not wanted or not path.is_file():
        return found
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns = ["clip_id", "uri", "source_start", "time_base_num", "time_base_den", "seconds"]
    try:
        rows = pq.read_table(path, columns=columns, filters=[("clip_id", "in", wanted)]).to_pylist()
    except (OSError, pa.ArrowException):
        return found
    for row in rows:
        start = row["source_start"] * row["time_base_num"] / row["time_base_den"]
        found[row["clip_id"]] = Clip(clip_id=row["clip_id"], uri=row["uri"], start=start, seconds=row["seconds"])
    return found
