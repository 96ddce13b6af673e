"""An export becomes the batches of a training phase.

::

    Export            rows of an export on disk, media read when asked for    export.py, manifest.py
      → load          sorted into bucketed subsets of items, some held out    split.py, items.py, pictures.py, precomputed.py
      → Schedule      which subset and which samples each step has            schedule.py, sampling.py
      → Loader        frames read and encoded, or latents read                loaders.py, reader.py, latent_crops.py
      → Batches       latents, noise, noise levels and conditions             batches.py
      → prefetch      the next ones while an accelerator works                prefetch.py

Every random choice follows from (seed, phase, position) alone, so that any step can be made first and on any machine.
"""

from dailies.training.data.batches import Batch, Batches
from dailies.training.data.content import model_content, shards_content
from dailies.training.data.export import Export, Row, grid_length
from dailies.training.data.manifest import LatentsManifest
from dailies.training.data.prefetch import prefetch
from dailies.training.data.schedule import BucketSubset, Schedule
from dailies.training.data.split import DATA_RULES, MAIN, Exports, Split, load
from dailies.training.data.world import World

__all__ = [
    "DATA_RULES",
    "MAIN",
    "Batch",
    "Batches",
    "BucketSubset",
    "Export",
    "Exports",
    "LatentsManifest",
    "Row",
    "Schedule",
    "Split",
    "World",
    "content",
    "grid_length",
    "latent_crops",
    "load",
    "manifest",
    "model_content",
    "prefetch",
    "reader",
    "sampling",
    "schedule",
    "shards_content",
    "split",
]
