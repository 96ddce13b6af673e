"""What each task tells the network besides the noisy latents, and how that is dropped: the same for training and
sampling.

Blattmann et al. 2023, Stable Video Diffusion (arXiv 2311.15127), App. D: text as CLIP's hidden states; an image as one
CLIP token for cross-attention and as the VAE mode of the noised image, not scaled, on four more input channels; fps −
1, motion bucket and noise augmentation as added ids. The unconditional branch zeroes cross-attention and the further
channels only.

Shape suffixes: B batch, L tokens, D token width, T frames, S frames shown, K ids, C channels, H, W latent height and
width.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

MOTION_MIDDLE, MOTION_TOP = 127, 255


@dataclass(frozen=True, kw_only=True)
class Condition:
    """What the network is given besides the noisy latents. ``ids_BK`` only for videos, ``shown_BSCHW`` only where
    frames are shown: one stands beside every frame, or, of a ``masked`` network, each beside its own. ``kept_B``: bool,
    whose shown frames are not dropped; all where it is ``None``."""

    tokens_BLD: Tensor
    ids_BK: Tensor | None = None
    shown_BSCHW: Tensor | None = None
    kept_B: Tensor | None = None

    def drop(self, tokens_B: Tensor, image_B: Tensor) -> Condition:
        """Zero the tokens, and the further channels, of the samples where the bool is set. The ids stay."""
        tokens_B = tokens_B.to(self.tokens_BLD.device)
        dropped = replace(self, tokens_BLD=torch.where(tokens_B[:, None, None], 0, self.tokens_BLD))
        if self.shown_BSCHW is None:
            return dropped
        kept = ~image_B.to(self.tokens_BLD.device)
        return replace(dropped, kept_B=kept if self.kept_B is None else self.kept_B & kept)

    def without(self) -> Condition:
        """The unconditional branch of guidance."""
        everything = torch.ones(len(self.tokens_BLD), dtype=torch.bool, device=self.tokens_BLD.device)
        return self.drop(everything, everything)

    def rows(self, start: int, stop: int) -> Condition:
        """Some samples of the batch."""
        cut = {name: value[start:stop] for name, value in vars(self).items() if value is not None}
        return replace(self, **cut)

    def to(self, device: torch.device) -> Condition:
        moved = {name: value.to(device, non_blocking=True) for name, value in vars(self).items() if value is not None}
        return replace(self, **moved)

    def beside(self, frames: int, masked_latent: Tensor | None = None) -> Tensor | None:
        """The channels concatenated to noisy latents of ``frames`` frames: (B, T, C, H, W), ``None`` where nothing is
        shown.

        ``masked_latent``: (C,) of a network that learned what stands for frames that are not shown; a channel is added
        that is 1 at those that are. They are the first and the last.
        """
        shown = self.shown_BSCHW
        if shown is None:
            return None
        samples, _, channels, height, width = shown.shape
        if masked_latent is None:
            whole = shown.expand(-1, frames, -1, -1, -1)
        else:
            rest = masked_latent.to(shown.dtype)[None, None, :, None, None]
            rest = rest.expand(samples, frames - shown.shape[1], channels, height, width)
            mask = shown.new_zeros(1, frames, 1, 1, 1)
            mask[:, [0, -1]] = 1
            whole = torch.cat([shown[:, :1], rest, shown[:, 1:]], 1)
            whole = torch.cat([whole, mask.expand(samples, -1, -1, height, width)], 2)
        return whole if self.kept_B is None else torch.where(self.kept_B[:, None, None, None, None], whole, 0)


def motion_bucket(motion: float | None, reference: float) -> int:
    """The motion bucket, 0–255, of a clip's motion score: ``reference`` is 127, twice as much is 254, more stays 255.

    ``reference`` is the median score of the training clips; it is kept in the checkpoint's config as
    ``motion_reference``, so that training and sampling agree. A clip without a score counts as the median.
    """
    if motion is None or reference <= 0:
        return MOTION_MIDDLE
    return max(0, min(MOTION_TOP, round(MOTION_MIDDLE * motion / reference)))


def added_ids(
    fps: float, bucket: Sequence[int], noise_aug_B: Tensor, elevation: Sequence[float] | None = None
) -> Tensor:
    """(B, 3): fps − 1, motion bucket, σ of the noise on shown frames, each raw; the model makes the sinusoids. With the
    camera's ``elevation`` in degrees (B, 5): its sine and cosine too."""
    rows = [[fps - 1.0, float(b)] for b in bucket]
    ids = [torch.tensor(rows, dtype=torch.float32), noise_aug_B.float()[:, None]]
    if elevation is not None:
        angles = [math.radians(degrees) for degrees in elevation]
        ids.append(torch.tensor([[math.sin(a), math.cos(a)] for a in angles], dtype=torch.float32))
    return torch.cat(ids, 1)
