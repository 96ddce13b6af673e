"""The card of an export: README.md with front matter for Hugging Face ``datasets``, rendered from ``export.json``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pyarrow as pa

from dailies.curation import cards
from dailies.curation.errors import Damaged
from dailies.curation.export.manifest import COUNTED, MANIFEST, ExportManifest
from dailies.curation.tables.storage import Folder

CARD = "README.md"
TEMPLATE = Path(__file__).parent / "templates" / "export_card.md.j2"
WAYS: Mapping[str, str] = {
    "encode": "Clips are mp4 files, encoded anew: frame-exact, upright, square pixels, with their source's frame times.",
    "copy": "Clips are copies of their source's packets, from keyframe to keyframe, in mp4, mov or mkv; the container says how "
    "to turn them. Those of damaged sources are encoded (`extraction` says which), as H.264 of 8 bits.",
    "smart": "Clips are frame-exact. What a keyframe allows is copied from the source, in mp4, mov or mkv, and the container "
    "says how to turn it; `frames_encoded` says how much is not. Where nothing can be copied (`extraction` is encode) they are "
    "H.264 of 8 bits.",
    "none": "Clips stay in their sources: `uri`, `source_start` and `source_end` say where.",
}
"""What a card says of each mode of extraction."""
SOUNDS: Mapping[str, str] = {
    "drop": "**Audio is dropped.** ",
    "keep": "**Clips have their sound**, from their first frame to their last, to the sample: AAC, or Opus in mkv, encoded "
    "anew, in one channel or two. `audio` says which have none since their source has none, and `audio_missing` how much is "
    "silence for want of sound. ",
}
"""What a card says of the sound, but where clips stay in their sources."""


def render_card(manifest: ExportManifest, index: pa.Schema) -> str:
    """Return README.md of an export. ``index``: the schema of its ``index.parquet``, whose columns carry doc and unit."""
    from huggingface_hub import DatasetCardData

    mode = manifest.extraction["mode"]
    sound = "" if mode == "none" else SOUNDS[manifest.extraction.get("audio", "drop")]
    files = [{"split": split, "path": f"data/{split}-*.parquet"} for split in manifest.splits]
    data = DatasetCardData(configs=[{"config_name": "default", "data_files": files}], tags=["video", "dailies"])
    return cards.render(
        TEMPLATE,
        data,
        manifest=manifest,
        mode_sentence=cards.Markdown(sound + WAYS[mode]),
        in_sources=mode == "none",
        first_split=next(iter(manifest.splits), "train"),
        columns=[_column(field) for field in index],
    )


def _column(field: pa.Field) -> Mapping[str, str]:
    metadata = {key.decode(): value.decode() for key, value in (field.metadata or {}).items()}
    return {"name": field.name, "doc": metadata.get("doc", ""), "unit": metadata.get("unit", "")}


def write_card(export: Folder, manifest: ExportManifest, index: pa.Schema) -> None:
    """Write ``export.json`` and the card into the export's folder."""
    export.write(MANIFEST, manifest.to_json().encode())
    export.write(CARD, render_card(manifest, index).encode())


def recount(export: Folder) -> bool:
    """Update ``export.json`` and the card to the index, which a withdrawal rewrites; return whether they differed.

    An export made before there was ``export.json`` is left as it is. Raises ``Damaged`` for one that cannot be read.
    """
    if not export.holds(MANIFEST):
        return False
    old = ExportManifest.from_json(export.read(MANIFEST))
    with export.parquet("index.parquet", whole=True) as file:
        new = old.recounted(file.read(columns=list(COUNTED)))
        if new == old:
            return False
        write_card(export, new, file.schema_arrow)
    return True


def disagreement(export: Folder) -> str | None:
    """Return what is wrong with ``export.json``: it cannot be read, or disagrees with the index; ``None`` if nothing.

    An export made before there was ``export.json`` is as good.
    """
    try:
        if not export.holds(MANIFEST):
            return None
        manifest = ExportManifest.from_json(export.read(MANIFEST))
    except Damaged as error:
        return str(error)
    index = export.read_parquet("index.parquet", COUNTED)
    return None if manifest.recounted(index) == manifest else "its counts are not those of the index"
