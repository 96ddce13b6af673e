"""From a model back to its data: the export that it was trained on, and where the first clips lie in their sources."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dailies.curation import inside
from dailies.curation.addresses import name_of
from dailies.curation.config import read_object
from dailies.curation.errors import Damaged, Unsafe


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceExport:
    """The export that a model was trained on; ``None`` and empty for what is not known.

    Args:
        clips: number of clips in all splits.
        sources: number of sources that they come from.
        recipe, recipe_hash: of curation.
        version: of dailies.
        rules: column → rule, as the recipe has it.
        limits: column → the numbers that its rule came to.
        captions: column → who wrote it, as ``export.json`` says it.
        notes: sentences on the footage, such as that it is rendered.
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
    captions: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @classmethod
    def of_run(cls, run: Mapping[str, Any]) -> SourceExport:
        """Return the export of a ``run.json``: its object ``export``, or in older runs the text ``export_card``."""
        if run.get("export") is not None:
            return cls.of_manifest(run["export"])
        return cls.of_card_without_manifest(str(run.get("export_card") or ""))

    @classmethod
    def of_manifest(cls, manifest: Mapping[str, Any]) -> SourceExport:
        """Return the export of an ``export.json``. Raises ``KeyError`` and ``TypeError`` for another object."""
        return cls(
            name=manifest["name"],
            clips=sum(split["clips"] for split in manifest["splits"].values()),
            sources=manifest["sources"],
            recipe=manifest["recipe"],
            recipe_hash=manifest["recipe_hash"],
            version=manifest["version"],
            selection=manifest["selection"],
            rules=manifest["rules"],
            limits=manifest["limits"],
            captions=manifest.get("captions") or {},
            notes=tuple(manifest.get("notes") or ()),
        )

    @classmethod
    def of_card_without_manifest(cls, text: str) -> SourceExport:
        """Return the export of a README.md from before exports had ``export.json``; nothing else reads cards."""
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
            notes=tuple(line.strip().removeprefix("- ") for line in _RENDERED.findall(text) if _is_prose(line)),
        )


_TITLE = re.compile(r"^# (.+)$", re.M)
_COUNTS = re.compile(r"^(\d+) clips of one shot each, cut from (\d+) sources\.", re.M)
_RECIPE = re.compile(r"^- recipe `([^`]+)`, hash `([^`]+)`(?:, dailies (\S+))?", re.M)
_SELECTION = re.compile(r"^- selection `([^`]+)`: rules `([^\n]*)`$", re.M)
_LIMITS = re.compile(r"^- limits that the rules came to: `([^\n]*)`$", re.M)
_RENDERED = re.compile(r"^.*\b(?:rendered|synthetic)\b.*$", re.M | re.I)


def _object(text: str) -> Mapping[str, Any]:
    try:
        return read_object(text, "card", Damaged)
    except Damaged:
        return {}


def _is_prose(line: str) -> bool:
    return not line.lstrip().startswith(("|", "- selection", "- limits", "- recipe", "- tables", "#", "  -", "```"))


# ---- clips ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class ClipOrigin:
    """The place of one clip in its source: ``start`` and ``seconds`` in s.

    ``uri``: a URL, or the name of a local file; ``None`` where that is not known.
    """

    clip_id: str
    uri: str | None = None
    start: float | None = None
    seconds: float | None = None


def look_up(data: str | Path, clip_ids: Iterable[str]) -> dict[str, ClipOrigin]:
    """Return where clips lie, by id, from ``index.parquet`` of the export ``data``.

    A clip that the index lacks has its id alone; so has every clip where the index is gone.
    """
    wanted = list(dict.fromkeys(clip_ids))
    origins = {clip_id: ClipOrigin(clip_id=clip_id) for clip_id in wanted}
    try:
        path = inside.inside(data, "index.parquet")
    except Unsafe:
        return origins
    if not wanted or not path.is_file():
        return origins
    import pyarrow as pa
    import pyarrow.compute as pc

    from dailies.curation.parquet_files import open_parquet

    columns = ["clip_id", "uri", "source_start", "time_base_num", "time_base_den", "seconds"]
    try:
        with open_parquet(path, whole=True) as file:
            if not {*columns} <= {*file.schema_arrow.names}:
                return origins
            index = file.read(columns=columns)
    except (OSError, pa.ArrowException):
        return origins
    for row in index.filter(pc.is_in(index["clip_id"], value_set=pa.array(wanted))).to_pylist():
        start = row["source_start"] * row["time_base_num"] / row["time_base_den"]
        origins[row["clip_id"]] = ClipOrigin(
            clip_id=row["clip_id"], uri=row["uri"] and name_of(row["uri"]), start=start, seconds=row["seconds"]
        )
    return origins
