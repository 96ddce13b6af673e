"""The card of an export's latents: README.md with front matter for Hugging Face ``datasets``, what they hold, what they are
for and where they came from."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc

from dailies.curation.clips import SPLITS

if TYPE_CHECKING:
    from dailies.training.data.manifest import LatentsManifest

READING = """```python
from datasets import load_dataset
clips = load_dataset("path/to/this/folder", split="{split}")

import numpy as np
view = clips[0]["views"][0]
size, frames = {size}, {frames}                                # of bucket 0; view["bucket"] says which
moments = np.frombuffer(view["moments"], np.float16).reshape(frames, 8, size[1] // {factor}, size[0] // {factor})
mean, logvar = moments[:, :4], moments[:, 4:]                  # latents: (mean + exp(logvar / 2) · n) · {scale:g}
```"""


def card(name: str, index: pa.Table, manifest: LatentsManifest, not_selected: int) -> str:
    """Render the README.md of the latents ``name``.

    Args:
        index: Their index.parquet.
        not_selected: Clips of the export that the phase's select leaves out.
    """
    from huggingface_hub import DatasetCardData  # comes with transformers, which latents need

    ok = index.filter(pc.equal(index["status"], "ok"))
    splits = {split: rows for split in SPLITS if len(rows := ok.filter(pc.equal(ok["split"], split)))}
    failed = Counter(row["kind"] for row in index["failure"].to_pylist() if row is not None)
    lines = [
        f"| {split} | {len(rows)} | {sum(rows['bytes'].to_pylist()) / 1e6:.1f} |" for split, rows in splits.items()
    ]
    lost = [f"{count} clips have none ({kind}); `index.parquet` says why.\n" for kind, count in failed.most_common()]
    if not_selected:
        lost.append(f"{not_selected} clips of the export do not pass the phase's select.\n")
    first = manifest.buckets[0]
    files = [{"split": split, "path": f"data/{split}-*.parquet"} for split in splits]
    front_matter = DatasetCardData(
        configs=[{"config_name": "default", "data_files": files}], tags=["video", "latents", "dailies"]
    ).to_yaml()
    return "\n".join(
        [
            "---",
            front_matter,
            "---",
            "",
            f"# {name}",
            "",
            f"Latents of {len(ok)} clips of `{manifest.source}`, {manifest.views} views of each: windows of it encoded by a "
            "frozen VAE, for training that decodes and encodes nothing. The videos are not in here.",
            "",
            "| split | clips | MB |",
            "|---|---:|---:|",
            *lines,
            "",
            *lost,
            "## Reading",
            "",
            f"`dailies train {manifest.recipe} --data path/to/this/folder` takes it in place of the export.",
            "",
            READING.format(
                split=next(iter(splits)),
                size=first.size,
                frames=first.frames,
                factor=manifest.factor,
                scale=manifest.scaling_factor,
            ),
            "",
            *_purpose(manifest),
        ]
    )


def _purpose(manifest: LatentsManifest) -> list[str]:
    shapes = ", ".join(f"{shape.size[0]}×{shape.size[1]} px × {shape.frames} frames" for shape in manifest.buckets)
    shown = ", ".join(map(str, manifest.shown))
    texts = [
        f"- texts: {', '.join(f'`text_{column}`' for column in manifest.captions)}, {manifest.text_tokens} tokens of "
        f"{manifest.text_width}, by an encoder of sha256 `{manifest.text_encoder}`"
    ]
    return [
        "## What they are for",
        "",
        f"- phase `{manifest.phase}` of recipe `{manifest.recipe}`, hash `{manifest.recipe_hash}`: {manifest.task}",
        f"- {shapes} at {manifest.fps:g} 1/s, {manifest.crop} crop; views drawn by seed {manifest.seed}, the first of a clip "
        "held out is its middle",
        f"- select `{list(manifest.select)}`",
        f"- VAE of sha256 `{manifest.vae}`, scaling factor {manifest.scaling_factor:g}, {manifest.factor} px a latent",
        *(texts if manifest.captions else []),
        f"- frames kept as PNG, since noise is put on them before they are encoded: {shown or 'none'}",
        f"- made from `{manifest.source_path}` by dailies {manifest.version}",
        "",
        "`latents.json` says the same to programs.",
        "",
    ]
