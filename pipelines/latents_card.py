"""The card of an export's latents: README.md with front matter for Hugging Face ``datasets``, what they hold, what they are
for and where they came from."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc

from dailies.curation.clips import SPLITS

if TYPE_CHECKING:
    from dailies.training.data.manifest import Facts

READING = """```python
from datasets import load_dataset
clips = load_dataset("path/to/this/folder", split="{split}")

import numpy as np
view = clips[0]["views"][0]
size, frames = {size}, {frames}                                # of bucket 0; view["bucket"] says which
moments = np.frombuffer(view["moments"], np.float16).reshape(frames, 8, size[1] // {factor}, size[0] // {factor})
mean, logvar = moments[:, :4], moments[:, 4:]                  # latents: (mean + exp(logvar / 2) · n) · {scale:g}
```"""


def card(name: str, index: pa.Table, facts: Facts, not_selected: int) -> str:
    """README.md of the latents ``name`` with that ``index``; ``not_selected``: clips that the phase's select leaves out."""
    ok = index.filter(pc.equal(index["status"], "ok"))
    splits = {split: rows for split in SPLITS if len(rows := ok.filter(pc.equal(ok["split"], split)))}
    failed = Counter(row["kind"] for row in index["failure"].to_pylist() if row is not None)
    lines = [
        f"| {split} | {len(rows)} | {sum(rows['bytes'].to_pylist()) / 1e6:.1f} |" for split, rows in splits.items()
    ]
    lost = [f"{count} clips have none ({kind}); `index.parquet` says why.\n" for kind, count in failed.most_common()]
    if not_selected:
        lost.append(f"{not_selected} clips of the export do not pass the phase's select.\n")
    first = facts.buckets[0]
    return "\n".join(
        [
            "---",
            "configs:",
            "- config_name: default",
            "  data_files:",
            *(f"  - split: {split}\n    path: data/{split}-*.parquet" for split in splits),
            "tags:",
            "- video",
            "- latents",
            "- dailies",
            "---",
            "",
            f"# {name}",
            "",
            f"Latents of {len(ok)} clips of `{facts.source}`, {facts.views} views of each: windows of it as a frozen VAE "
            "sees them, for training that decodes and encodes nothing. The videos are not in here.",
            "",
            "| split | clips | MB |",
            "|---|---:|---:|",
            *lines,
            "",
            *lost,
            "## Reading",
            "",
            f"`dailies train {facts.recipe} --data path/to/this/folder` takes it in place of the export.",
            "",
            READING.format(
                split=next(iter(splits)),
                size=first.size,
                frames=first.frames,
                factor=facts.factor,
                scale=facts.scaling_factor,
            ),
            "",
            *_made_for(facts),
        ]
    )


def _made_for(facts: Facts) -> list[str]:
    shapes = ", ".join(f"{shape.size[0]}×{shape.size[1]} px × {shape.frames} frames" for shape in facts.buckets)
    shown = ", ".join(map(str, facts.shown))
    texts = [
        f"- texts: {', '.join(f'`text_{column}`' for column in facts.captions)}, {facts.text_tokens} tokens of "
        f"{facts.text_width}, by an encoder of sha256 `{facts.text_encoder}`"
    ]
    return [
        "## What they are for",
        "",
        f"- phase `{facts.phase}` of recipe `{facts.recipe}`, hash `{facts.recipe_hash}`: {facts.task}",
        f"- {shapes} at {facts.fps:g} 1/s, {facts.crop} crop; views drawn by seed {facts.seed}, the first of a clip "
        "held out is its middle",
        f"- select `{list(facts.select)}`",
        f"- VAE of sha256 `{facts.vae}`, scaling factor {facts.scaling_factor:g}, {facts.factor} px a latent",
        *(texts if facts.captions else []),
        f"- frames kept as PNG, since noise is put on them before they are encoded: {shown or 'none'}",
        f"- made from `{facts.source_path}` by dailies {facts.version}",
        "",
        "`latents.json` says the same to programs.",
        "",
    ]
