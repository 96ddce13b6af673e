"""Frames lie in a batch in one layout, and temporal layers blend their change in.

Shape suffixes in this package: B samples, T frames, N = B·T, C channels, H, W latent height and width, S = H·W, L tokens,
D token width, E width of the time embedding, K added time ids.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass(frozen=True, slots=True)
class FrameLayout:
    """A layout says how a batch of N pictures is made of ``samples`` × ``frames``; a sample's frames lie next to one another.

    ``videos``: the numbers of the samples that are videos, (V,); ``None`` if all are. Temporal layers run on these alone, so
    that an image costs them nothing and passes exactly as it is.
    """

    samples: int
    frames: int
    videos: Tensor | None = None

    @property
    def temporal(self) -> bool:
        return self.videos is None or len(self.videos) > 0

    def pick(self, value_B: Tensor) -> Tensor:
        """Return the videos' rows of (B, …)."""
        return value_B if self.videos is None else value_B[self.videos]

    def split(self, x_N: Tensor) -> Tensor:
        """Return (N, …) → (B, T, …)."""
        return x_N.reshape(self.samples, self.frames, *x_N.shape[1:])

    def each(self, value_B: Tensor) -> Tensor:
        """Return (B, …) → (N, …): every frame gets its sample's."""
        return value_B if self.frames == 1 else value_B.repeat_interleave(self.frames, 0)


class Mixer(nn.Module):
    """Spatial and temporal features blended: x + (1 − α)·(x_t − x) with α = sigmoid(``mix_factor``), a learned number.

    The same function as α·x + (1 − α)·x_t, but exactly x where the temporal layers change nothing, whatever α is. α
    starts at sigmoid(0.5) = 0.622 as in SVD (arXiv 2311.15127, App. D).
    """

    def __init__(self) -> None:
        super().__init__()
        self.mix_factor = nn.Parameter(torch.tensor([0.5]))

    def forward(self, x_N: Tensor, change: Callable[[Tensor], Tensor], frames: FrameLayout) -> Tensor:
        """Return x_t − x for ``change``, (V, T, …) of the videos, in its shape."""
        if not frames.temporal:
            return x_N
        x_BT = frames.split(x_N)
        change_VT = change(frames.pick(x_BT))
        share = (1 - torch.sigmoid(self.mix_factor)).to(x_N.dtype)
        if frames.videos is None:
            return (x_BT + share * change_VT).flatten(0, 1)
        # A clone keeps the layout in memory, on which the last bits of later convolutions depend.
        return x_BT.clone().index_add_(0, frames.videos, (share * change_VT).to(x_N.dtype)).flatten(0, 1)
