"""Numbers as vectors: sinusoids and the little network behind them."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def sinusoids(values_N: Tensor, width: int) -> Tensor:
    """Return cos and then sin of v·10000^(−i/(width/2)), i = 0 … width/2 − 1: (N, width), float32. ``width`` is even.

    The embedding of DDPM (arXiv 2006.11239) with cosines first, as Stable Diffusion's.
    """
    half = width // 2
    # In this order diffusers' and ours agree to the last bit.
    exponents = -math.log(10000) * torch.arange(half, dtype=torch.float32, device=values_N.device) / half
    angles = values_N.float()[:, None] * exponents.exp()
    return torch.cat([angles.cos(), angles.sin()], 1)


class Embedding(nn.Module):
    """Linear, SiLU, linear."""

    def __init__(self, width: int, hidden: int, out: int) -> None:
        super().__init__()
        self.linear_1 = nn.Linear(width, hidden)
        self.linear_2 = nn.Linear(hidden, out)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.linear_2(F.silu(self.linear_1(x)))
        return out
