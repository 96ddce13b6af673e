"""Selected clips become training shards here: a plan, clips extracted from their sources, shards, an index and a card."""

from dailies.curation.export.card import render_card
from dailies.curation.export.extraction import EXTRACTED, ExtractSettings, extract_clip, read_extracted, write_extracted
from dailies.curation.export.plan import Shard, by_source, plan_shards
from dailies.curation.export.shards import write_shard

__all__ = [
    "EXTRACTED",
    "ExtractSettings",
    "Shard",
    "by_source",
    "extract_clip",
    "plan_shards",
    "read_extracted",
    "render_card",
    "write_extracted",
    "write_shard",
]
