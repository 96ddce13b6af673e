"""``export.json`` tells programs what an export holds, beside its ``index.parquet``. The card is rendered from it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import field, replace
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from pydantic import TypeAdapter
from pydantic.dataclasses import dataclass

from dailies.curation.clips import SPLITS
from dailies.curation.config import read_format

MANIFEST = "export.json"
FORMAT = 1
"""Keys are added and never given another meaning; a reader passes over those that it does not know."""


@dataclass(frozen=True, kw_only=True)
class SplitSize:
    """The clips of one split: their number, length in seconds, and size in bytes."""

    clips: int
    seconds: float
    bytes: int


@dataclass(frozen=True, kw_only=True)
class CaptionMaker:
    """Who wrote a column of captions.

    Args:
        captioner: its name in the recipe.
        model, revision: of what wrote them; null where there is none.
        prompt_hash: first 16 digits of the sha256 of the prompt; null without one.
        format: version of the serializer by which fields became text (``dailies.curation.caption_fields``); null for plain
            captions. A model that was trained on them wants its prompts so.
    """

    captioner: str
    model: str | None = None
    revision: str | None = None
    prompt_hash: str | None = None
    format: int | None = None


@dataclass(frozen=True, kw_only=True)
class ExportManifest:
    """An export's contents and origin.

    Args:
        name: the folder's name, ``NAME@FINGERPRINT``.
        splits: the size of each split that has clips.
        sources: number of sources that the clips come from.
        failed: number of selected clips that could not be extracted.
        lost_seconds: length that is in the clips' spans and not in the bytes, since copies begin at keyframes.
        recipe, recipe_hash: of curation.
        selection: the selection's name in the recipe.
        rules: column → rule, as the recipe has it.
        limits: column → the numbers that its rule came to.
        tables: table → version that was read.
        extraction: settings by which clips were extracted.
        extracts: fingerprint of all that the bytes of a clip depend on besides the clip: exports that share it hold the same
            bytes of the same clip. Empty in exports from before it was noted.
        extracted, taken_over: when the export was made, how many clips were extracted for it, and how many were taken from
            earlier exports.
        seed: of the order of clips.
        version: of dailies.
        private_sources: whether it leaves out where its sources lie.
        captions: column → who wrote it; empty in exports from before it was noted.
        notes: sentences about the footage, such as that its captions do not describe it, and what people add; cards
            repeat them.
    """

    name: str
    splits: Mapping[str, SplitSize]
    sources: int
    failed: int = 0
    lost_seconds: float = 0.0
    recipe: str
    recipe_hash: str
    selection: str
    rules: Mapping[str, Any]
    limits: Mapping[str, Any]
    tables: Mapping[str, int]
    extraction: Mapping[str, Any]
    extracts: str = ""
    extracted: int = 0
    taken_over: int = 0
    seed: int
    version: str
    private_sources: bool = False
    captions: Mapping[str, CaptionMaker] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @classmethod
    def of(cls, index: pa.Table, **origin: Any) -> ExportManifest:
        """Return the manifest of the export with this index; ``origin``: every field but those that ``count`` gives."""
        return cls(**count(index), **origin)

    @property
    def clips(self) -> int:
        """Number of clips in all splits."""
        return sum(split.clips for split in self.splits.values())

    @property
    def seconds(self) -> float:
        """Length of all clips."""
        return sum(split.seconds for split in self.splits.values())

    def recounted(self, index: pa.Table) -> ExportManifest:
        """Return the same export with another index: after sources were withdrawn from it."""
        return replace(self, **count(index))

    def to_json(self) -> str:
        """Return the text of ``export.json``."""
        row = {"format": FORMAT, **_ADAPTER.dump_python(self, mode="json")}
        return json.dumps(row, indent=1, ensure_ascii=False) + "\n"

    @classmethod
    def from_json(cls, text: str | bytes) -> ExportManifest:
        """Read the text of ``export.json``. Raises ``Damaged`` for text that is not a manifest of a known format."""
        return read_format(text, MANIFEST, FORMAT, _ADAPTER)


_ADAPTER = TypeAdapter(ExportManifest)


COUNTED = ("status", "split", "seconds", "bytes", "source_id", "lost_seconds")
"""The columns of an index that ``count`` reads."""


def count(index: pa.Table) -> dict[str, Any]:
    """Return what an export's index says of its contents: ``splits``, ``sources``, ``failed`` and ``lost_seconds``."""
    ok = index.filter(pc.equal(index["status"], "ok"))
    splits = {}
    for name in SPLITS:
        rows = ok.filter(pc.equal(ok["split"], name))
        if len(rows):
            seconds, size = round(_sum(rows["seconds"]), 3), int(_sum(rows["bytes"]))
            splits[name] = SplitSize(clips=len(rows), seconds=seconds, bytes=size)
    return {
        "splits": splits,
        "sources": len(pc.unique(ok["source_id"])),
        "failed": len(index) - len(ok),
        "lost_seconds": round(_sum(ok["lost_seconds"]), 3),
    }


def _sum(column: pa.ChunkedArray) -> float:
    return float(pc.sum(column).as_py() or 0)
