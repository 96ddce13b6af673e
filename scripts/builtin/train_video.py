"""Train ``zoo/builtin/video-world``: a small Qwen3-VL, in transformers' own class, that captions the rendered world's scenes.

    python -m scripts.builtin.train_video --out zoo/builtin/video-world --clips /tmp/clips --steps 2400

A motion is told by what lies between two pictures, and this class sees two as one: a patch is of both. In the first part the
vision tower learns alone, on pairs of pictures, by heads that are told which shape is under each patch, how it moves and
grows against the background, and how the background moves; the heads are not kept. Then captions are learnt on top of it,
heads and all. Products are in bfloat16, which processors of today multiply several times as fast.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from scripts.builtin import video_model
from scripts.builtin.clips import training_clips
from scripts.builtin.frames import COLOR_NAMES, GROUND_NAMES, KINDS, TEXTURES, TRAINING
from scripts.builtin.learning import Optimizer
from scripts.builtin.video_batches import ClipBatch, Clips, PairBatch, clip_batches, pair_batches
from scripts.builtin.video_model import END, GRID, MERGE, PAD, SEE, SEEN, START, VIDEO, VISION_WIDTH
from scripts.builtin.video_words import video_caption

MATRICES = ("blocks.", "layers.")  # of both transformers


class Vision(nn.Module):
    """``Qwen3VLVisionModel`` over many pairs of one size at once: its own modules, without its loop over pictures."""

    def __init__(self, visual: Any) -> None:
        super().__init__()
        from transformers.vision_utils import get_vision_interpolation_indices_and_weights, get_vision_position_ids

        self.visual = visual
        grid = torch.tensor([[1, *GRID]])
        self.index_PK, self.weight_PK = get_vision_interpolation_indices_and_weights(
            grid,
            num_grid_per_side=visual.num_grid_per_side,
            mode=visual.interpolation_mode,
            align_corners=visual.interpolation_align_corners,
            spatial_merge_size=MERGE,
        )
        places = get_vision_position_ids(grid, MERGE)
        cos, sin = visual.rotary_pos_emb(torch.zeros(1), places)
        self.cos_PD, self.sin_PD = cos[None, None], sin[None, None]

    def forward(self, patches_NPE: Tensor) -> tuple[Tensor, Tensor]:  # noqa: N803
        """Hidden states (N, P, D) of the patches and (N, P / 4, D') of what goes to the language model."""
        visual = self.visual
        n, p, _ = patches_NPE.shape
        embed = visual.patch_embed.proj
        x = F.linear(patches_NPE, embed.weight.flatten(1), embed.bias)
        x = x + (visual.pos_embed(self.index_PK) * self.weight_PK[..., None]).sum(1)
        for block in visual.blocks:
            attention = block.attn
            qkv = attention.qkv(block.norm1(x)).view(n, p, 3, attention.num_heads, -1).permute(2, 0, 3, 1, 4)
            q, k = self._turned(qkv[0]), self._turned(qkv[1])
            # In so many words, as torch's fused attention is slow to go back through in bfloat16 on a CPU.
            weights = (q @ k.transpose(-1, -2) * attention.scaling).softmax(-1).to(q.dtype)
            x = x + attention.proj((weights @ qkv[2]).transpose(1, 2).reshape(n, p, -1))
            x = x + block.mlp(block.norm2(x))
        return x, visual.merger(x.flatten(0, 1)).view(n, p // MERGE**2, -1)

    def _turned(self, x_NHPD: Tensor) -> Tensor:  # noqa: N803
        half = x_NHPD.shape[-1] // 2
        turned = torch.cat((-x_NHPD[..., half:], x_NHPD[..., :half]), -1)
        return (x_NHPD * self.cos_PD + turned * self.sin_PD).to(x_NHPD.dtype)


class WhatMovesWhere(nn.Module):
    """Heads used in training only: shape, colour and motion under each patch, the background and how it moves."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.kind = nn.Linear(width, len(KINDS) + 1)
        self.later = nn.Linear(width, len(KINDS) + 1)
        self.color = nn.Linear(width, len(COLOR_NAMES) + 1)
        self.moves = nn.Linear(width, 3)
        self.camera = nn.Sequential(nn.Linear(width, width), nn.GELU(), nn.Linear(width, 3))
        self.ground = nn.Linear(width, len(TEXTURES) * len(GROUND_NAMES))

    def forward(self, hidden_NPD: Tensor, pairs: PairBatch) -> dict[str, Tensor]:  # noqa: N803
        x = self.norm(hidden_NPD)
        mean = x.mean(1)
        moved = F.smooth_l1_loss(self.moves(x).float(), pairs.moves_NP3, reduction="none").sum(-1)
        return {
            "kind": _patchwise(self.kind(x), pairs.kinds_NP) + _patchwise(self.later(x), pairs.later_NP),
            "color": _patchwise(self.color(x), pairs.colors_NP),
            "moves": (moved * pairs.known_NP).sum() / pairs.known_NP.sum().clamp(min=1),
            "camera": F.smooth_l1_loss(self.camera(mean).float(), pairs.camera_N3) * 3,
            "ground": F.cross_entropy(self.ground(mean).float(), pairs.grounds_N),
        }


def _patchwise(scores_NPC: Tensor, labels_NP: Tensor) -> Tensor:  # noqa: N803
    """Cross-entropy over patches; those that show no shape are most of them, and count for less."""
    weights = torch.ones(scores_NPC.shape[-1])
    weights[-1] = 0.3
    return F.cross_entropy(scores_NPC.float().flatten(0, 1), labels_NP.flatten(), weight=weights)


WEIGHTS = {"kind": 1.0, "color": 1.0, "moves": 1.0, "camera": 1.0, "ground": 0.3}


class Teller:
    """Captions' loss: pictures' features in place of the placeholders, as the class's own forward does it."""

    def __init__(self, model: Any, tokenizer: Any, captions: Sequence[str]) -> None:
        self._model, self._tokenizer = model, tokenizer
        self._captions = [[*ids, END] for ids in tokenizer(list(captions), add_special_tokens=False).input_ids]
        self._seconds: dict[str, list[int]] = {}
        self._positions: dict[tuple[int, int], Tensor] = {}

    def loss(self, batch: ClipBatch, features_NFD: Tensor) -> Tensor:  # noqa: N803
        ids, seen = [], features_NFD.shape[1]
        for row, times in zip(batch.rows.tolist(), batch.times_BT.tolist(), strict=True):
            head = [token for t in times for token in (*self._time(t), SEE, *[VIDEO] * seen, SEEN)]
            ids.append([*head, START, *self._captions[row]])
        start = len(head)
        longest = max(map(len, ids))
        ids_BL = torch.tensor([row + [PAD] * (longest - len(row)) for row in ids])  # noqa: N806
        x_BLD = self._model.get_input_embeddings()(ids_BL)  # noqa: N806
        x_BLD = x_BLD.masked_scatter((ids_BL == VIDEO)[..., None], features_NFD.to(x_BLD.dtype))  # noqa: N806
        positions = self._places(ids_BL, batch.pairs_each)
        hidden = self._model.model.language_model(
            inputs_embeds=x_BLD, position_ids=positions.expand(-1, len(ids), -1), use_cache=False
        ).last_hidden_state
        scores = self._model.lm_head(hidden[:, start:-1]).float()
        labels = ids_BL[:, start + 1 :]
        return F.cross_entropy(scores.flatten(0, 1), labels.flatten(), ignore_index=PAD)

    def _time(self, t: float) -> list[int]:
        text = f"<{t:.1f} seconds>"
        if text not in self._seconds:
            self._seconds[text] = self._tokenizer(text, add_special_tokens=False).input_ids
        return self._seconds[text]

    def _places(self, ids_BL: Tensor, pairs: int) -> Tensor:  # noqa: N803
        """Positions (3, 1, L): the same for every clip of so many pairs, as every time is as many tokens."""
        length = ids_BL.shape[1]
        if (pairs, length) not in self._positions:
            one = ids_BL[:1]
            self._positions[pairs, length], _ = self._model.model.get_rope_index(
                one,
                mm_token_type_ids=2 * (one == VIDEO).int(),
                video_grid_thw=torch.tensor([[pairs, *GRID]]),
                attention_mask=torch.ones_like(one),
            )
        return self._positions[pairs, length]


def prepare(visual: Any, clips: Clips, seed: int) -> None:
    """Start the vision tower from what is known: whitened patches of two pictures, and places as sines."""
    batch = next(iter(pair_batches(clips, batch=min(512, len(clips.shots)), steps=1, seed=seed + 1)))
    patches = batch.patches_NPE.flatten(0, 1)
    values, vectors = torch.linalg.eigh(torch.cov((patches - patches.mean(0)).T))
    # Components by falling variance; whitened, but the faint ones less so, which are mostly grain.
    kept, scale = vectors[:, -VISION_WIDTH:].flip(1), values[-VISION_WIDTH:].flip(0).clamp(min=1e-6)
    weights = (kept / (scale + 0.02 * scale[0] ** 0.5).sqrt()).T
    side = visual.num_grid_per_side
    y, x = torch.meshgrid(torch.linspace(0, 0.6, side), torch.linspace(0, 1, side), indexing="ij")
    waves = math.tau * 0.5 * 2 ** (torch.arange(VISION_WIDTH // 4) % 8 * 0.5)
    angles = torch.cat([x.flatten()[:, None] * waves, y.flatten()[:, None] * waves], 1)
    with torch.no_grad():
        visual.patch_embed.proj.weight.copy_(weights.reshape(visual.patch_embed.proj.weight.shape))
        visual.patch_embed.proj.bias.zero_()
        visual.pos_embed.weight.copy_(0.3 * torch.cat([angles.sin(), angles.cos()], 1))


class Clock:
    """Cuts training into parts by time, so that a shared machine changes how much is learnt and not how long it takes."""

    def __init__(self) -> None:
        self.began = time.monotonic()
        self.sums: dict[str, float] = {}
        self.count = 0

    def note(self, losses: dict[str, Tensor]) -> None:
        for name, value in losses.items():
            self.sums[name] = self.sums.get(name, 0.0) + float(value.detach())
        self.count += 1

    def show(self, part: str, step: int) -> None:
        means = " ".join(f"{name} {total / self.count:.3f}" for name, total in self.sums.items())
        print(f"{part} {step} {means} {time.monotonic() - self.began:.0f} s", flush=True)
        self.sums, self.count = {}, 0


def train(args: argparse.Namespace) -> None:
    torch.manual_seed(args.seed)
    # A vocabulary is learnt once: the numbers of its words are the model's.
    processor = video_model.processor() if args.start is None else video_model.processor_of(args.start)
    processor.save_pretrained(args.out)
    clips = Clips(training_clips(args.count, args.clips, args.first))
    model = video_model.new_model() if args.start is None else _started(args.start)
    model.set_attn_implementation("eager")
    vision, heads = Vision(model.model.visual), WhatMovesWhere(VISION_WIDTH)
    if args.start is None:
        prepare(model.model.visual, clips, args.seed)
    else:
        heads.load_state_dict(torch.load(args.start / "heads.pt"))
    captions = [
        video_caption(shot, short_side=side, fps=fps)
        for shot, (side, fps) in zip(clips.shots, clips.sizes, strict=True)
    ]
    teller = Teller(model, processor.tokenizer, captions)
    clock = Clock()

    def see(pairs: PairBatch) -> tuple[Tensor, dict[str, Tensor]]:
        hidden, features = vision(pairs.patches_NPE)
        return features, heads(hidden, pairs)

    def weighed(losses: dict[str, Tensor]) -> Tensor:
        return torch.stack([WEIGHTS[name] * value for name, value in losses.items()]).sum()

    if args.look:
        optimizer = Optimizer([model.model.visual, heads], lr=args.lr, steps=args.look, matrices=MATRICES)
        for step, pairs in enumerate(pair_batches(clips, batch=args.pairs, steps=args.look, seed=args.seed), 1):
            with torch.autocast("cpu", torch.bfloat16):
                _, losses = see(pairs)
            optimizer.step(weighed(losses))
            clock.note(losses)
            if step % 50 == 0 or step == args.look:
                clock.show("look", step)
                _keep(model, heads, args)
    if args.steps:
        optimizer = Optimizer([model, heads], lr=args.lr, steps=args.steps, matrices=MATRICES)
        for step, batch in enumerate(clip_batches(clips, batch=args.batch, steps=args.steps, seed=args.seed), 1):
            with torch.autocast("cpu", torch.bfloat16):
                features, losses = see(batch.pairs)
                caption = teller.loss(batch, features)
            optimizer.step(caption + args.heads * weighed(losses))
            clock.note({"caption": caption, **losses})
            if step % 50 == 0 or step == args.steps:
                clock.show("tell", step)
                _keep(model, heads, args)


def _started(folder: Path) -> Any:
    from transformers import Qwen3VLForConditionalGeneration

    return Qwen3VLForConditionalGeneration.from_pretrained(folder, dtype=torch.float32, local_files_only=True)


def _keep(model: Any, heads: nn.Module, args: argparse.Namespace) -> None:
    video_model.save(model, args.out)
    if args.keep_heads:
        torch.save(heads.state_dict(), args.out / "heads.pt")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("zoo/builtin/video-world"))
    parser.add_argument("--clips", type=Path, required=True, help="folder that keeps the rendered clips")
    parser.add_argument("--count", type=int, default=20_000, help="how many clips to train on")
    parser.add_argument("--first", type=int, default=TRAINING, help="seed of the first clip; the others follow")
    parser.add_argument("--look", type=int, default=1500, help="steps in which the vision tower learns alone")
    parser.add_argument("--pairs", type=int, default=96, help="pairs of pictures in a step of those")
    parser.add_argument("--steps", type=int, default=2500, help="steps of captions")
    parser.add_argument("--batch", type=int, default=32, help="clips in a step of those")
    parser.add_argument("--heads", type=float, default=0.3, help="weight of the heads' losses beside the captions'")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--lr", type=float, default=2e-3)
    parser.add_argument("--start", type=Path, help="folder of a model to go on from, with its heads.pt")
    parser.add_argument("--keep-heads", action="store_true", help="write heads.pt beside the model, to go on from")
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    train(args)


if __name__ == "__main__":
    main()
