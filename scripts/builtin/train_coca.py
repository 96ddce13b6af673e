"""Train ``zoo/builtin/coca-world``: a small CoCa (arXiv 2205.01917) in open_clip's class and format, on the rendered world.

    python -m scripts.builtin.train_coca --out zoo/builtin/coca-world --frames /tmp/frames --steps 3000

CoCa's loss is the contrast between images and captions plus the captions' cross-entropy, the latter weighed twice (its
equation 4). Two things are added, in training only: a head that is told what is where (``learning.WhatIsWhere``), and
motion words after half of the captions for the contrast, so that similarity to a clip's fused caption is not thrown
off by what no frame can show.
"""

from __future__ import annotations

import argparse
import copy
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from dailies.curation.atomic import new_file
from dailies.curation.captioners.fuse import fuse
from dailies.curation.captioners.motion import VOCABULARY
from scripts.builtin import tokens
from scripts.builtin.frames import FrameSet, training_set
from scripts.builtin.learning import MEAN, STD, Batch, Optimizer, WhatIsWhere, batches, prepare
from scripts.builtin.train_clip import same

# (height, width): near enough to 16:9 that the whole frame, squashed into it, keeps its shapes.
SIZE, PATCH, WIDTH, HEADS, CONTEXT = (96, 160), 16, 128, 4, 40
GRID = (SIZE[0] // PATCH, SIZE[1] // PATCH)


def config() -> dict[str, Any]:
    """``open_clip_config.json``, as ``open_clip.create_model("local-dir:…")`` reads it."""
    text = {"context_length": CONTEXT, "vocab_size": tokens.SIZE, "layers": 2, "heads": HEADS, "width": WIDTH}
    return {
        "model_cfg": {
            "embed_dim": WIDTH,
            "pad_id": tokens.PAD,
            "multimodal_cfg": text,
            "vision_cfg": {
                "image_size": list(SIZE),
                "layers": 4,
                "width": WIDTH,
                "head_width": WIDTH // HEADS,
                "patch_size": PATCH,
                "output_tokens": True,
            },
            "text_cfg": {
                **text,
                "embed_cls": True,
                "output_tokens": True,
                "pad_id": tokens.PAD,
                # Any value makes open_clip read tokenizer.json beside the weights; this one says whose it is.
                "hf_tokenizer_name": "coca-world",
            },
            "custom_text": True,
        },
        "preprocess_cfg": {
            "size": list(SIZE),
            "mean": list(MEAN),
            "std": list(STD),
            "interpolation": "bicubic",
            "resize_mode": "squash",
        },
    }


def new_model() -> Any:
    """An untrained ``open_clip.coca_model.CoCa``."""
    from open_clip.coca_model import CoCa

    made = copy.deepcopy(config()["model_cfg"])
    made.pop("custom_text")
    model = CoCa(**made)
    # open_clip leaves the decoder's last matrix as the memory it was given.
    torch.nn.init.normal_(model.text_decoder.text_projection, std=WIDTH**-0.5)
    return model


def train(
    out: Path,
    frames_folder: Path,
    *,
    frames: int,
    steps: int,
    look: int,
    batch: int,
    seed: int,
    lr: float,
    start: Path | None = None,
) -> None:
    """``steps`` in all; in the first ``look`` of them the image tower learns alone, as there is nothing to tell yet.

    ``start``: a folder whose weights to go on from.
    """
    torch.manual_seed(seed)
    out.mkdir(parents=True, exist_ok=True)
    save_settings(out)
    data = training_set(frames, frames_folder)
    model, head = new_model(), WhatIsWhere(WIDTH)
    prepare(model.visual, data, SIZE, seed)
    if start is not None:
        from open_clip import load_checkpoint

        load_checkpoint(model, str(start / "open_clip_model.safetensors"))
    optimizer = Optimizer([model, head], lr=lr, steps=steps)
    captions = _Captions(data, out, seed)
    began = time.monotonic()
    for step, piece in enumerate(batches(data, batch=batch, steps=steps, size=SIZE, grid=GRID, seed=seed), 1):
        if step <= look:
            where = head(model._encode_image(piece.pixels_BCHW)[1], piece)
            optimizer.step(where)
            contrast = caption = torch.tensor(torch.nan)
        else:
            contrast, caption, where = losses(model, head, piece, *captions.of(piece.rows))
            optimizer.step(contrast + 2 * caption + where)
        if step % 100 == 0 or step == steps:
            save_weights(model, out)
            shown = f"contrast {contrast:.3f} caption {caption:.3f} where {where:.3f}"
            print(f"{step} {shown} {time.monotonic() - began:.0f} s", flush=True)


def losses(model: Any, head: WhatIsWhere, piece: Batch, ids_BL: Tensor, labels_BL: Tensor) -> tuple[Tensor, ...]:  # noqa: N803
    """Contrast, caption and what-is-where; ``labels_BL`` are the next tokens, -100 where none is to be learnt."""
    image, patches_BPD = model._encode_image(piece.pixels_BCHW)  # noqa: N806
    text, embedded_BLD = model._encode_text(ids_BL)  # noqa: N806
    longest = int((labels_BL >= 0).sum(1).max())
    words_BLV = model.text_decoder(patches_BPD, embedded_BLD[:, :longest])  # noqa: N806
    caption = F.cross_entropy(words_BLV.flatten(0, 1), labels_BL[:, :longest].flatten(), ignore_index=-100)
    logits = model.logit_scale.exp().clamp(max=100) * image @ text.T
    target = same(ids_BL)
    contrast = (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2
    return contrast, caption, head(patches_BPD, piece)


class _Captions:
    """Token ids of the frames' captions, half of them with motion words after what the frame shows."""

    def __init__(self, data: FrameSet, folder: Path, seed: int) -> None:
        from transformers import AutoTokenizer

        self._tokenizer = AutoTokenizer.from_pretrained(str(folder))
        self._plain = self._encode(data.captions)
        moving = [word for word in VOCABULARY if " " in word]
        self._rng = np.random.default_rng([seed, 0xCA])
        drawn = self._rng.choice(moving, len(data.captions))
        self._moving = self._encode([fuse(text, str(words)) for text, words in zip(data.captions, drawn, strict=True)])

    def _encode(self, texts: list[str]) -> Tensor:
        return torch.as_tensor(
            self._tokenizer(
                texts, padding="max_length", truncation=True, max_length=CONTEXT, return_tensors="pt"
            ).input_ids
        )

    def of(self, rows: list[int]) -> tuple[Tensor, Tensor]:
        """Ids (B, L) and labels (B, L - 1). Motion words are read, never learnt: a caption says what it sees."""
        plain, moving = self._plain[rows], self._moving[rows]
        chosen = torch.from_numpy(self._rng.random(len(rows)) < 0.5)[:, None]
        ids = torch.where(chosen, moving, plain)
        labels = ids[:, 1:].clone()
        seen = (plain != tokens.PAD).sum(1, keepdim=True) - 2  # words before the end
        after = torch.arange(labels.shape[1])[None] >= seen
        labels[(after & chosen) | (labels == tokens.PAD)] = -100
        return ids, labels


def save_settings(out: Path) -> None:
    tokens.save(out, CONTEXT)
    (out / "open_clip_config.json").write_text(json.dumps(config(), indent=2) + "\n", encoding="utf-8")


def save_weights(model: Any, out: Path) -> None:
    """Half precision on the disk; open_clip loads it as single."""
    from safetensors.torch import save_file

    with new_file(out / "open_clip_model.safetensors") as hidden:
        save_file({name: value.detach().half().contiguous() for name, value in model.state_dict().items()}, hidden)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("zoo/builtin/coca-world"))
    parser.add_argument("--frames", type=Path, required=True, help="folder that keeps the rendered frames")
    parser.add_argument("--count", type=int, default=32_000, help="how many frames to train on")
    parser.add_argument("--steps", type=int, default=3000)
    parser.add_argument("--look", type=int, default=1200, help="steps in which only the image tower learns")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--lr", type=float, default=2e-3)
    parser.add_argument("--start", type=Path, help="folder of a model to go on from")
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    train(
        args.out,
        args.frames,
        frames=args.count,
        steps=args.steps,
        look=args.look,
        batch=args.batch,
        seed=args.seed,
        lr=args.lr,
        start=args.start,
    )


if __name__ == "__main__":
    main()
