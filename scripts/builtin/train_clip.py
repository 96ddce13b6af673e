"""Train ``zoo/builtin/clip-world``: a tiny CLIP (arXiv 2103.00020) in transformers' format, on the rendered world.

    python -m scripts.builtin.train_clip --out zoo/builtin/clip-world --frames /tmp/frames --steps 2500

Its text tower conditions the tiny text-to-video model and its image tower the tiny image-to-video one; both put out 96
numbers a token, so one UNet's cross-attention fits either. The input is 224 x 224 px because diffusers'
``StableVideoDiffusionPipeline`` resizes to that, whatever the model's configuration says.
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
from torch.nn import functional as F  # noqa: N812

from scripts.builtin import tokens
from scripts.builtin.frames import training_set
from scripts.builtin.learning import MEAN, STD, Optimizer, WhatIsWhere, batches

WIDTH, CONTEXT, SIDE, PATCH = 96, 64, 224, 28


def new_model() -> Any:
    from transformers import CLIPConfig, CLIPModel

    text = {
        "vocab_size": tokens.SIZE,
        "hidden_size": WIDTH,
        "intermediate_size": 4 * WIDTH,
        "projection_dim": WIDTH,
        "num_hidden_layers": 2,
        "num_attention_heads": 3,
        "max_position_embeddings": CONTEXT,
        "pad_token_id": tokens.PAD,
        "bos_token_id": tokens.START,
        "eos_token_id": tokens.END,
    }
    vision = {
        "hidden_size": WIDTH,
        "intermediate_size": 4 * WIDTH,
        "projection_dim": WIDTH,
        "num_hidden_layers": 3,
        "num_attention_heads": 3,
        "image_size": SIDE,
        "patch_size": PATCH,
    }
    return CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=WIDTH))


def train(out: Path, frames_folder: Path, *, frames: int, steps: int, batch: int, seed: int, lr: float) -> None:
    """Contrast frames with their captions: half the time the frame's, half the time the moving shot's."""
    from transformers import AutoTokenizer

    torch.manual_seed(seed)
    out.mkdir(parents=True, exist_ok=True)
    tokens.save(out, CONTEXT)
    tokenizer = AutoTokenizer.from_pretrained(str(out))
    data = training_set(frames, frames_folder)
    ids_2NL = torch.stack(  # noqa: N806
        [
            tokenizer(texts, padding="max_length", truncation=True, max_length=CONTEXT, return_tensors="pt").input_ids
            for texts in (data.captions, data.stories)
        ]
    )
    model, head = new_model(), WhatIsWhere(WIDTH)
    save(model, out)
    optimizer = Optimizer([model, head], lr=lr, steps=steps)
    rng, began = np.random.default_rng(seed), time.monotonic()
    grid = (SIDE // PATCH, SIDE // PATCH)
    for step, piece in enumerate(batches(data, batch=batch, steps=steps, size=(SIDE, SIDE), grid=grid, seed=seed), 1):
        ids = ids_2NL[torch.from_numpy(rng.integers(2, size=batch)), piece.rows]
        ids = ids[:, : int((ids != tokens.PAD).sum(1).max())]
        seen = model.vision_model(pixel_values=piece.pixels_BCHW)
        read = model.text_model(input_ids=ids)
        where = head(model.vision_model.post_layernorm(seen.last_hidden_state[:, 1:]), piece)
        image = model.visual_projection(seen.pooler_output)
        text = model.text_projection(read.pooler_output)
        image, text = F.normalize(image, dim=-1), F.normalize(text, dim=-1)
        logits = model.logit_scale.exp().clamp(max=100) * image @ text.T
        target = same(ids)
        contrast = (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2
        optimizer.step(contrast + where)
        if step % 100 == 0 or step == steps:
            save(model, out)
            right = float((target.gather(1, logits.argmax(1, keepdim=True)) > 0).float().mean())
            print(
                f"{step} contrast {contrast:.3f} where {where:.3f} top1 {right:.2f} {time.monotonic() - began:.0f} s",
                flush=True,
            )


def same(ids_BL: torch.Tensor) -> torch.Tensor:  # noqa: N803
    """Each row's target: a probability over the batch, shared by rows of the same caption."""
    alike = (ids_BL[:, None] == ids_BL[None]).all(-1).float()
    return alike / alike.sum(1, keepdim=True)


def save(model: Any, out: Path) -> None:
    """Half precision on the disk, single in memory: the configuration says what to load it as."""
    copy.deepcopy(model).half().save_pretrained(out)
    path = out / "config.json"
    config = json.loads(path.read_text())
    for part in (config, config["text_config"], config["vision_config"]):
        part["dtype"] = "float32"
    path.write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    preprocessing = {
        "image_processor_type": "CLIPImageProcessor",
        "do_resize": True,
        # The whole frame into a square: nothing is cropped away.
        "size": {"height": SIDE, "width": SIDE},
        "resample": 3,
        "do_center_crop": False,
        "crop_size": {"height": SIDE, "width": SIDE},
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": MEAN,
        "image_std": STD,
        "do_convert_rgb": True,
    }
    (out / "preprocessor_config.json").write_text(json.dumps(preprocessing, indent=2) + "\n", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("zoo/builtin/clip-world"))
    parser.add_argument("--frames", type=Path, required=True, help="folder that keeps the rendered frames")
    parser.add_argument("--count", type=int, default=32_000, help="how many frames to train on")
    parser.add_argument("--steps", type=int, default=2500)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--lr", type=float, default=2e-3)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    train(args.out, args.frames, frames=args.count, steps=args.steps, batch=args.batch, seed=args.seed, lr=args.lr)


if __name__ == "__main__":
    main()
