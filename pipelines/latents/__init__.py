"""Latents of an export: its shards once more, with each clip's bytes replaced by crops of it that frozen models encoded.

``run`` makes them, ``work`` encodes one shard, ``card`` writes the README.md.
"""

from dailies.pipelines.latents.run import LatentsReport, LatentsRequest, export_latents, recipe_of

__all__ = ["LatentsReport", "LatentsRequest", "export_latents", "recipe_of"]
