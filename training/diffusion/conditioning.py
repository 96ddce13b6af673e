"""Conditionings are what a task tells the network besides the noisy latents, and how that is dropped: the same for training and
sampling.

Blattmann et al. 2023, Stable Video Diffusion (arXiv 2311.15127), App. D: text as CLIP's hidden states; an image as one
CLIP token for cross-attention and as the VAE mode of the noised image, not scaled, on four more input channels; fps −
1, motion bucket and noise augmentation as added time ids. The unconditional branch zeroes cross-attention and the
further channels only.

Shape suffixes: B batch, L tokens, D token width, T frames, S conditioning frames, K time ids, C channels, H, W latent height
and width.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Condition:
    """A condition is what the network gets besides the noisy latents.

    Args:
        tokens_BLD: for cross-attention.
        added_time_ids_BK: fps − 1, motion bucket, noise augmentation, …; ``None`` for images.
        image_latents_BSCHW: of the conditioning frames; ``None`` where a task has none. One stands beside every frame, or,
            of a ``masked`` network, each beside its own.
        kept_B: bool, whose conditioning frames are not dropped; ``None`` for all.
    """

    tokens_BLD: Tensor
    added_time_ids_BK: Tensor | None = None
    image_latents_BSCHW: Tensor | None = None
    kept_B: Tensor | None = None

    def drop(self, tokens_B: Tensor, image_B: Tensor) -> Condition:
        """Zero the tokens, and the image latents, of the samples where the bool is set. The time ids stay."""
        tokens_B = tokens_B.to(self.tokens_BLD.device)
        dropped = replace(self, tokens_BLD=torch.where(tokens_B[:, None, None], 0, self.tokens_BLD))
        if self.image_latents_BSCHW is None:
            return dropped
        kept = ~image_B.to(self.tokens_BLD.device)
        return replace(dropped, kept_B=kept if self.kept_B is None else self.kept_B & kept)

    def unconditional(self) -> Condition:
        """Return the condition of guidance's unconditional branch: tokens and image latents zeroed."""
        everything = torch.ones(len(self.tokens_BLD), dtype=torch.bool, device=self.tokens_BLD.device)
        return self.drop(everything, everything)

    def rows(self, start: int, stop: int) -> Condition:
        """Return the condition of some samples of the batch."""
        cut = {name: value[start:stop] for name, value in vars(self).items() if value is not None}
        return replace(self, **cut)

    def to(self, device: torch.device) -> Condition:
        moved = {name: value.to(device, non_blocking=True) for name, value in vars(self).items() if value is not None}
        return replace(self, **moved)

    def concat_channels(self, frames: int, masked_latent: Tensor | None = None) -> Tensor | None:
        """Return the channels to concatenate to noisy latents of ``frames`` frames: (B, T, C, H, W), or ``None``.

        ``masked_latent``: (C,) of a network that learned what stands in for frames other than the conditioning ones, which
        are the first and the last; a channel is added that is 1 at these.
        """
        latents = self.image_latents_BSCHW
        if latents is None:
            return None
        samples, _, channels, height, width = latents.shape
        if masked_latent is None:
            whole = latents.expand(-1, frames, -1, -1, -1)
        else:
            rest = masked_latent.to(latents.dtype)[None, None, :, None, None]
            rest = rest.expand(samples, frames - latents.shape[1], channels, height, width)
            mask = latents.new_zeros(1, frames, 1, 1, 1)
            mask[:, [0, -1]] = 1
            whole = torch.cat([latents[:, :1], rest, latents[:, 1:]], 1)
            whole = torch.cat([whole, mask.expand(samples, -1, -1, height, width)], 2)
        return whole if self.kept_B is None else torch.where(self.kept_B[:, None, None, None, None], whole, 0)
