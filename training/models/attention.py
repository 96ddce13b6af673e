"""Transformer blocks over space and over time.

The layout is that of Stable Diffusion 2's transformer, each block followed by a temporal one (arXiv 2304.08818, §3; SVD's in
arXiv 2311.15127, App. D). Names are diffusers', so that state dicts fit.
"""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from dailies.training.models.embeddings import Embedding, sinusoids
from dailies.training.models.layout import FrameLayout, Mixer

# CUDA's kernels take no larger batch (pytorch/pytorch#146704); temporal attention has one sequence for each pixel.
MOST = 2**16 - 1
# Queries × keys up to which plain matrix products are faster on a CPU than its flash attention, whose backward pass is slow.
SHORT = 2**16


class Attention(nn.Module):
    """Multi-head attention of (B, Q, C) to (B, L, D), by default to itself."""

    def __init__(self, width: int, heads: int, context: int | None = None) -> None:
        super().__init__()
        self.heads = heads
        self.to_q = nn.Linear(width, width, bias=False)
        self.to_k = nn.Linear(context or width, width, bias=False)
        self.to_v = nn.Linear(context or width, width, bias=False)
        self.to_out = nn.ModuleList([nn.Linear(width, width)])

    def forward(self, x_BQC: Tensor, context_BLD: Tensor | None = None) -> Tensor:
        source = x_BQC if context_BLD is None else context_BLD
        q, k, v = (
            to(y).unflatten(2, (self.heads, -1)).transpose(1, 2)
            for to, y in ((self.to_q, x_BQC), (self.to_k, source), (self.to_v, source))
        )
        if q.device.type == "cpu" and q.shape[2] * k.shape[2] <= SHORT:
            with sdpa_kernel(SDPBackend.MATH):
                mixed_BHQd = F.scaled_dot_product_attention(q, k, v)
        elif len(q) <= MOST:
            mixed_BHQd = F.scaled_dot_product_attention(q, k, v)
        else:  # even a split into one part would cost a copy of each gradient
            parts = zip(*(y_BHLd.split(MOST) for y_BHLd in (q, k, v)), strict=True)
            mixed_BHQd = torch.cat([F.scaled_dot_product_attention(*part) for part in parts])
        out: Tensor = self.to_out[0](mixed_BHQd.transpose(1, 2).flatten(2))
        return out


class Gated(nn.Module):
    """x·W₁ ⊙ gelu(x·W₂), one matrix for both (GEGLU, arXiv 2002.05202)."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.proj = nn.Linear(width, 2 * hidden)

    def forward(self, x: Tensor) -> Tensor:
        value, gate = self.proj(x).chunk(2, -1)
        out: Tensor = value * F.gelu(gate)
        return out


class FeedForward(nn.Module):
    """(…, C) → (…, C) through 4·C gated units."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.net = nn.ModuleList([Gated(width, 4 * width), nn.Identity(), nn.Linear(4 * width, width)])

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.net:
            x = layer(x)
        return x


class SpatialBlock(nn.Module):
    """Self-attention within each picture, cross-attention to the sample's context, feed-forward."""

    def __init__(self, width: int, heads: int, context: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.attn1 = Attention(width, heads)
        self.norm2 = nn.LayerNorm(width)
        self.attn2 = Attention(width, heads, context)
        self.norm3 = nn.LayerNorm(width)
        self.ff = FeedForward(width)

    def forward(self, x_NSC: Tensor, context_BLD: Tensor, frames: FrameLayout) -> Tensor:
        x_NSC = x_NSC + self.attn1(self.norm1(x_NSC))
        # All frames of a sample see the same context: its keys and values are computed once, not for each frame.
        queries_BQC = self.norm2(x_NSC).reshape(frames.samples, -1, x_NSC.shape[2])
        x_NSC = x_NSC + self.attn2(queries_BQC, context_BLD).reshape(x_NSC.shape)
        out: Tensor = x_NSC + self.ff(self.norm3(x_NSC))
        return out


class TemporalBlock(nn.Module):
    """Feed-forward, self-attention over the frames at each pixel, cross-attention to the context, feed-forward."""

    def __init__(self, width: int, heads: int, context: int) -> None:
        super().__init__()
        self.norm_in = nn.LayerNorm(width)
        self.ff_in = FeedForward(width)
        self.norm1 = nn.LayerNorm(width)
        self.attn1 = Attention(width, heads)
        self.norm2 = nn.LayerNorm(width)
        self.attn2 = Attention(width, heads, context)
        self.norm3 = nn.LayerNorm(width)
        self.ff = FeedForward(width)

    def forward(self, x_BTSC: Tensor, context_BLD: Tensor) -> Tensor:
        x_BSTC = x_BTSC.transpose(1, 2)
        x_BSTC = x_BSTC + self.ff_in(self.norm_in(x_BSTC))
        pixels = self.norm1(x_BSTC).flatten(0, 1)
        x_BSTC = x_BSTC + self.attn1(pixels).unflatten(0, x_BSTC.shape[:2])
        # Every pixel of every frame attends to the same tokens: (B, S·T) queries against (B, L) keys, not S copies of them.
        queries_BQC = self.norm2(x_BSTC).flatten(1, 2)
        x_BSTC = x_BSTC + self.attn2(queries_BQC, context_BLD).unflatten(1, x_BSTC.shape[1:3])
        out: Tensor = x_BSTC + self.ff(self.norm3(x_BSTC))
        return out.transpose(1, 2)


class Transformer(nn.Module):
    """Spatial blocks, each followed by a temporal one on the videos' frames; all blends share one factor."""

    def __init__(self, width: int, heads: int, context: int, layers: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(32, width, eps=1e-6)
        self.proj_in = nn.Linear(width, width)
        self.transformer_blocks = nn.ModuleList(SpatialBlock(width, heads, context) for _ in range(layers))
        self.temporal_transformer_blocks = nn.ModuleList(TemporalBlock(width, heads, context) for _ in range(layers))
        self.time_pos_embed = Embedding(width, 4 * width, width)
        self.time_mixer = Mixer()
        self.proj_out = nn.Linear(width, width)

    def forward(self, x_NCHW: Tensor, context_BLD: Tensor, frames: FrameLayout) -> Tensor:
        x_NSC = self.proj_in(self.norm(x_NCHW).flatten(2).transpose(1, 2))
        for spatial, temporal in zip(self.transformer_blocks, self.temporal_transformer_blocks, strict=True):
            x_NSC = spatial(x_NSC, context_BLD, frames)
            x_NSC = self.time_mixer(x_NSC, partial(self._change, temporal, frames, context_BLD), frames)
        x_NSC = self.proj_out(x_NSC)
        out: Tensor = x_NSC.transpose(1, 2).contiguous().reshape(x_NCHW.shape) + x_NCHW
        return out

    def _change(self, block: nn.Module, frames: FrameLayout, context_BLD: Tensor, x_VTSC: Tensor) -> Tensor:
        """Return what a temporal block does to the videos' frames, each of which is told its number."""
        numbers_T = torch.arange(x_VTSC.shape[1], device=x_VTSC.device)
        places_TC = self.time_pos_embed(sinusoids(numbers_T, x_VTSC.shape[3]).to(x_VTSC.dtype))
        changed: Tensor = block(x_VTSC + places_TC[:, None], frames.pick(context_BLD)) - x_VTSC
        return changed
