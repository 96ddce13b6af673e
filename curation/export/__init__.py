"""Selected clips become training shards here: a plan, clips extracted from their sources, shards, an index and a card."""

from dailies.curation.export.card import CARD, disagreement, recount, render_card, write_card
from dailies.curation.export.earlier import PLACES, explained, find_clips, made_alike, take_clips
from dailies.curation.export.extraction import EXTRACTED, ExtractSettings, extract_clip, read_extracted, write_extracted
from dailies.curation.export.manifest import MANIFEST, CaptionMaker, ExportManifest
from dailies.curation.export.plan import Shard, by_source, plan_shards
from dailies.curation.export.shards import write_shard

__all__ = [
    "CARD",
    "EXTRACTED",
    "MANIFEST",
    "PLACES",
    "CaptionMaker",
    "ExportManifest",
    "ExtractSettings",
    "Shard",
    "by_source",
    "disagreement",
    "explained",
    "extract_clip",
    "find_clips",
    "made_alike",
    "plan_shards",
    "read_extracted",
    "recount",
    "render_card",
    "take_clips",
    "write_card",
    "write_extracted",
    "write_shard",
]
