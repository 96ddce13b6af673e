"""Copies of clips: found by bytes, by looks and by embeddings, near n log n, and put into groups that share a split; and
captions that are nearly the same.

``FrameSignatures`` says what clips look like, in workers, as a scorer does; ``Search`` and ``group_clips`` do the rest, of
numbers alone, on the driver.
"""

from __future__ import annotations

from dailies.curation.duplicates.alike import Signatures
from dailies.curation.duplicates.alike_captions import caption_groups
from dailies.curation.duplicates.find import KINDS, Embeddings, Search, group_clips
from dailies.curation.duplicates.read import EMBEDDING, SIGNATURE_COLUMNS, read_embeddings, read_signatures
from dailies.curation.duplicates.signatures import FrameSignatures

__all__ = [
    "EMBEDDING",
    "KINDS",
    "SIGNATURE_COLUMNS",
    "Embeddings",
    "FrameSignatures",
    "Search",
    "Signatures",
    "caption_groups",
    "group_clips",
    "read_embeddings",
    "read_signatures",
]
