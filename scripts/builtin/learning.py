"""What the trainers of the built-in models share: batches, the loss that says what is where, and the optimiser."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from scripts.builtin.frames import COLOR_NAMES, GROUND_NAMES, KINDS, STORED, TEXTURES, FrameSet, patch_labels

# CLIP's own, so that any tool's default preprocessing fits.
MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)


@dataclass(frozen=True, kw_only=True)
class Batch:
    """``pixels_BCHW`` normalised; ``rows``: which frames; ``kinds_BP``, ``colors_BP`` under each patch;
    ``grounds_B``: texture x colour of the background as one class.
    """

    pixels_BCHW: Tensor  # noqa: N815
    rows: list[int]
    kinds_BP: Tensor  # noqa: N815
    colors_BP: Tensor  # noqa: N815
    grounds_B: Tensor  # noqa: N815


def batches(
    frames: FrameSet, *, batch: int, steps: int, size: tuple[int, int], grid: tuple[int, int], seed: int
) -> Iterator[Batch]:
    """``steps`` augmented batches; ``size``: (height, width) px of the model's input, ``grid``: its patches."""
    rng = np.random.default_rng([seed, 0xBA])
    grounds = np.array([ground_class(caption) for caption in frames.captions])
    order: list[int] = []
    for _ in range(steps):
        if len(order) < batch:
            order += rng.permutation(len(frames.captions)).tolist()
        rows, order = order[:batch], order[batch:]
        # One crop for the whole batch, which is cheap and, over the steps, as good as one each.
        scale = float(rng.uniform(0.92, 1.0))
        height, width = round(STORED[1] * scale), round(STORED[0] * scale)
        top, left = int(rng.integers(STORED[1] - height + 1)), int(rng.integers(STORED[0] - width + 1))
        pixels = frames.pixels[rows][:, top : top + height, left : left + width]
        shapes = frames.shapes[rows].copy()
        shapes[..., 2] = (shapes[..., 2] * STORED[1] - left) / height
        shapes[..., 3] = (shapes[..., 3] * STORED[1] - top) / height
        shapes[..., 4] /= scale
        kinds, colors = patch_labels(shapes, grid)
        yield Batch(
            pixels_BCHW=_augmented(torch.from_numpy(np.ascontiguousarray(pixels)), size, rng),
            rows=rows,
            kinds_BP=torch.from_numpy(kinds),
            colors_BP=torch.from_numpy(colors),
            grounds_B=torch.from_numpy(grounds[rows]),
        )


def _augmented(pixels_BHWC: Tensor, size: tuple[int, int], rng: np.random.Generator) -> Tensor:  # noqa: N803
    x = pixels_BHWC.permute(0, 3, 1, 2).float() / 255
    x = F.interpolate(x, size=size, mode="bilinear", antialias=False, align_corners=False)
    count = len(x)
    gain = torch.from_numpy(rng.uniform(0.9, 1.1, (count, 1, 1, 1)).astype(np.float32))
    lift = torch.from_numpy(rng.uniform(-0.04, 0.04, (count, 1, 1, 1)).astype(np.float32))
    return (x * gain + lift - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)


def ground_class(caption: str) -> int:
    """Texture and colour of the background in a frame's caption, as one index."""
    words = caption.partition(" background")[0].split()
    return TEXTURES.index(words[-2]) * len(GROUND_NAMES) + GROUND_NAMES.index(words[-1])


class WhatIsWhere(nn.Module):
    """A head used in training only: the shape and colour under each patch, and the background of the whole.

    The captions alone would teach the same, but much later: they don't say where to look.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.kind = nn.Linear(width, len(KINDS) + 1)
        self.color = nn.Linear(width, len(COLOR_NAMES) + 1)
        self.ground = nn.Linear(width, len(TEXTURES) * len(GROUND_NAMES))

    def forward(self, patches_BPD: Tensor, batch: Batch) -> Tensor:  # noqa: N803
        """Mean cross-entropy of the three; ``patches_BPD`` without class token, in rows."""
        kinds = _patchwise(self.kind(patches_BPD), batch.kinds_BP)
        colors = _patchwise(self.color(patches_BPD), batch.colors_BP)
        grounds = F.cross_entropy(self.ground(patches_BPD.mean(1)), batch.grounds_B)
        return 2 * (kinds + colors) + 0.3 * grounds


def _patchwise(scores_BPC: Tensor, labels_BP: Tensor) -> Tensor:  # noqa: N803
    """Cross-entropy over patches; those that show no shape are most of them, and count for less."""
    weights = torch.ones(scores_BPC.shape[-1])
    weights[-1] = 0.3
    return F.cross_entropy(scores_BPC.flatten(0, 1), labels_BP.flatten(), weight=weights)


class Optimizer:
    """Muon for the matrices of the transformers, AdamW for the rest; warm-up, then down to zero along a cosine.

    Muon (github.com/KellerJordan/Muon; in torch since 2.9) learns these small models in about half of AdamW's steps.
    """

    def __init__(
        self,
        modules: Sequence[nn.Module],
        *,
        lr: float,
        steps: int,
        matrices: tuple[str, ...] = ("resblocks", "cross_attn", "encoder.layers"),
    ) -> None:
        hidden: list[nn.Parameter] = []
        rest: list[nn.Parameter] = []
        for name, parameter in (pair for module in modules for pair in module.named_parameters()):
            is_matrix = parameter.ndim == 2 and any(part in name for part in matrices)
            (hidden if is_matrix else rest).append(parameter)
        adjust: Any = {"adjust_lr_fn": "match_rms_adamw"}  # so that both go by one learning rate
        self._both = [
            torch.optim.Muon(hidden, lr=lr, weight_decay=0.05, **adjust),
            torch.optim.AdamW(rest, lr=lr, betas=(0.9, 0.98), weight_decay=0.0),
        ]
        self._lr, self._steps, self._done = lr, steps, 0
        self._parameters = hidden + rest

    def step(self, loss: Tensor) -> None:
        """Backward and one step; the gradient is clipped to a norm of 1."""
        for optimizer in self._both:
            optimizer.zero_grad(set_to_none=True)  # what has no gradient, as it takes no part yet, stays as it is
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self._parameters, 1.0)
        warm = min(1.0, (self._done + 1) / max(1, min(100, self._steps // 10)))
        share = warm * 0.5 * (1 + math.cos(math.pi * self._done / self._steps))
        for optimizer in self._both:
            for group in optimizer.param_groups:
                group["lr"] = self._lr * share
            optimizer.step()
        self._done += 1


def prepare(visual: Any, frames: FrameSet, size: tuple[int, int], seed: int) -> None:
    """Start an open_clip vision tower from what is known: whitened patches, and places as sines.

    Saves the many steps that gradient descent spends on finding both.
    """
    rng = np.random.default_rng([seed, 0x9C])
    pixels = frames.pixels[np.sort(rng.choice(len(frames.pixels), 1000, replace=False))]
    x_BCHW = _augmented(torch.from_numpy(pixels), size, rng)  # noqa: N806
    patch = visual.conv1.kernel_size[0]
    patches = F.unfold(x_BCHW, patch, stride=patch).permute(0, 2, 1).flatten(0, 1)
    values, vectors = torch.linalg.eigh(torch.cov((patches - patches.mean(0)).T))
    width = visual.conv1.out_channels
    # Components by falling variance; whitened, but the faint ones less so, which are mostly grain.
    kept, scale = vectors[:, -width:].flip(1), values[-width:].flip(0).clamp(min=1e-6)
    weights = (kept / (scale + 0.02 * scale[0] ** 0.5).sqrt()).T
    rows, columns = visual.grid_size
    y, x = torch.meshgrid(torch.arange(rows) / columns, torch.arange(columns) / columns, indexing="ij")
    waves = math.tau * 0.5 * 2 ** (torch.arange(width // 4) % 8 * 0.5)
    angles = torch.cat([x.flatten()[:, None] * waves, y.flatten()[:, None] * waves], 1)
    with torch.no_grad():
        visual.conv1.weight.copy_(weights.reshape(visual.conv1.weight.shape))
        visual.positional_embedding[1:] = 0.3 * torch.cat([angles.sin(), angles.cos()], 1)
