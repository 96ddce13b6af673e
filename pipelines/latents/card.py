"""The card of an export's latents is their README.md: what they hold, what they are for, and where they came from."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc

from dailies.curation import cards
from dailies.curation.clips import SPLITS

if TYPE_CHECKING:
    from dailies.training.data.manifest import LatentsManifest

TEMPLATE = Path(__file__).parent / "templates" / "latents_card.md.j2"


def card(name: str, index: pa.Table, manifest: LatentsManifest, not_selected: int) -> str:
    """Render the README.md of the latents ``name``.

    Args:
        index: Their index.parquet.
        not_selected: Clips of the export that the phase's select leaves out.
    """
    from huggingface_hub import DatasetCardData

    ok = index.filter(pc.equal(index["status"], "ok"))
    splits = {split: rows for split in SPLITS if len(rows := ok.filter(pc.equal(ok["split"], split)))}
    files = [{"split": split, "path": f"data/{split}-*.parquet"} for split in splits]
    configs = [{"config_name": "default", "data_files": files}]
    return cards.render(
        TEMPLATE,
        DatasetCardData(configs=configs, tags=["video", "latents", "dailies"]),
        name=name,
        manifest=manifest,
        clips=len(ok),
        splits={split: {"clips": len(rows), "bytes": pc.sum(rows["bytes"]).as_py()} for split, rows in splits.items()},
        first_split=next(iter(splits)),
        bucket=manifest.buckets[0],
        failed=Counter(row["kind"] for row in index["failure"].to_pylist() if row is not None).most_common(),
        not_selected=not_selected,
    )
