"""ResBlocks over space and over time, and the levels of a UNet made of them and of transformers.

diffusers' ``UNetSpatioTemporalConditionModel`` fixes the eps of its norms by the kind of block: 1e-6 on the way down
where there is attention and on the whole way up, 1e-5 elsewhere. Ours are the same, so that its weights mean the same.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from dailies.training.models.attention import Transformer
from dailies.training.models.config import UNetConfig
from dailies.training.models.layout import FrameLayout, Mixer

GROUPS = 32


class SpatialResBlock(nn.Module):
    """Norm, SiLU, 3×3 convolution, twice; the time embedding is added between."""

    def __init__(self, before: int, after: int, time: int, eps: float) -> None:
        super().__init__()
        self.norm1 = nn.GroupNorm(GROUPS, before, eps=eps)
        self.conv1 = nn.Conv2d(before, after, 3, padding=1)
        self.time_emb_proj = nn.Linear(time, after)
        self.norm2 = nn.GroupNorm(GROUPS, after, eps=eps)
        self.conv2 = nn.Conv2d(after, after, 3, padding=1)
        self.conv_shortcut = nn.Conv2d(before, after, 1) if before != after else None

    def forward(self, x_NCHW: Tensor, time_BE: Tensor, frames: FrameLayout) -> Tensor:
        h_NCHW = self.conv1(F.silu(self.norm1(x_NCHW)))
        h_NCHW = h_NCHW + frames.each(self.time_emb_proj(F.silu(time_BE)))[:, :, None, None]
        h_NCHW = self.conv2(F.silu(self.norm2(h_NCHW)))
        out: Tensor = (x_NCHW if self.conv_shortcut is None else self.conv_shortcut(x_NCHW)) + h_NCHW
        return out


class TemporalResBlock(nn.Module):
    """The same over frames: kernel 3×1×1, groups normed over the whole video. Gives what is to be added to its input."""

    def __init__(self, width: int, time: int, eps: float) -> None:
        super().__init__()
        self.norm1 = nn.GroupNorm(GROUPS, width, eps=eps)
        self.conv1 = nn.Conv3d(width, width, (3, 1, 1), padding=(1, 0, 0))
        self.time_emb_proj = nn.Linear(time, width)
        self.norm2 = nn.GroupNorm(GROUPS, width, eps=eps)
        self.conv2 = nn.Conv3d(width, width, (3, 1, 1), padding=(1, 0, 0))

    def forward(self, x_BTCHW: Tensor, time_BE: Tensor) -> Tensor:
        h_BCTHW = self.conv1(F.silu(self.norm1(x_BTCHW.transpose(1, 2))))
        h_BCTHW = h_BCTHW + self.time_emb_proj(F.silu(time_BE))[:, :, None, None, None]
        h_BCTHW = self.conv2(F.silu(self.norm2(h_BCTHW)))
        change: Tensor = h_BCTHW.transpose(1, 2)
        return change


class ResBlock(nn.Module):
    """A spatial ResBlock on every picture, then a temporal one on the videos."""

    def __init__(self, before: int, after: int, time: int, eps: float) -> None:
        super().__init__()
        self.spatial_res_block = SpatialResBlock(before, after, time, eps)
        self.temporal_res_block = TemporalResBlock(after, time, eps)
        self.time_mixer = Mixer()

    def forward(self, x_NCHW: Tensor, time_BE: Tensor, frames: FrameLayout) -> Tensor:
        x_NCHW = self.spatial_res_block(x_NCHW, time_BE, frames)
        time_VE = frames.pick(time_BE)
        out: Tensor = self.time_mixer(x_NCHW, lambda x_VTCHW: self.temporal_res_block(x_VTCHW, time_VE), frames)
        return out


class Resample(nn.Module):
    """A 3×3 convolution: with ``stride`` 2 to half the size, with 1 after ``forward``'s nearest-neighbour enlargement."""

    def __init__(self, width: int, stride: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(width, width, 3, stride=stride, padding=1)

    def forward(self, x_NCHW: Tensor, size: tuple[int, int] | None = None) -> Tensor:
        if size is not None:
            x_NCHW = F.interpolate(x_NCHW, size=size, mode="nearest")
        out: Tensor = self.conv(x_NCHW)
        return out


class Level(nn.Module):
    """ResBlocks, each followed by a transformer where the level attends; what Down, Middle and Up share.

    ``checkpointed``: in training a layer's activations, spatial and temporal alike, are computed again in the backward
    pass instead of kept. A layer is a ResBlock with its transformer; only what goes into it is kept.
    """

    resnets: nn.ModuleList
    attentions: nn.ModuleList
    checkpointed: bool = False

    def _fill(self, config: UNetConfig, level: int, widths: list[int], eps: float, attends: bool) -> None:
        """Make the layers. ``widths``: channels into each ResBlock; all put out the level's own."""
        width = config.channels[level]
        if attends:  # no empty list where there is no attention: it would still be printed and walked
            self.attentions = nn.ModuleList(
                Transformer(width, config.heads[level], config.cross_attention_dim, config.transformer_layers[level])
                for _ in widths
            )
        self.resnets = nn.ModuleList(ResBlock(before, width, config.time_width, eps) for before in widths)

    def _layers(self) -> Iterator[tuple[nn.Module, nn.Module | None]]:
        attentions = getattr(self, "attentions", None)
        for i, resnet in enumerate(self.resnets):
            yield resnet, None if attentions is None else attentions[i]

    def _run(
        self,
        layer: tuple[nn.Module, nn.Module | None],
        x_NCHW: Tensor,
        time_BE: Tensor,
        context_BLD: Tensor,
        frames: FrameLayout,
        skip_NCHW: Tensor | None = None,
    ) -> Tensor:
        def run(x: Tensor, time: Tensor, context: Tensor, skip: Tensor | None) -> Tensor:
            if skip is not None:
                x = torch.cat([x, skip], 1)
            x = layer[0](x, time, frames)
            out: Tensor = x if layer[1] is None else layer[1](x, context, frames)
            return out

        if self.checkpointed and torch.is_grad_enabled():
            again: Tensor = checkpoint(run, x_NCHW, time_BE, context_BLD, skip_NCHW, use_reentrant=False)
            return again
        return run(x_NCHW, time_BE, context_BLD, skip_NCHW)


class Down(Level):
    """Gives its output and what it leaves for the way up: a tensor for each layer, and one for the smaller picture."""

    def __init__(self, config: UNetConfig, level: int) -> None:
        super().__init__()
        before, width = config.channels[max(0, level - 1)], config.channels[level]
        attends = config.attention[level]
        self._fill(config, level, [before] + [width] * (config.layers - 1), 1e-6 if attends else 1e-5, attends)
        last = level == len(config.channels) - 1
        self.downsamplers = None if last else nn.ModuleList([Resample(width, 2)])

    def forward(
        self, x_NCHW: Tensor, time_BE: Tensor, context_BLD: Tensor, frames: FrameLayout
    ) -> tuple[Tensor, list[Tensor]]:
        left = []
        for layer in self._layers():
            x_NCHW = self._run(layer, x_NCHW, time_BE, context_BLD, frames)
            left.append(x_NCHW)
        if self.downsamplers is not None:
            x_NCHW = self.downsamplers[0](x_NCHW)
            left.append(x_NCHW)
        return x_NCHW, left


class Middle(Level):
    """A ResBlock, and a transformer with another ResBlock."""

    def __init__(self, config: UNetConfig) -> None:
        super().__init__()
        width = config.channels[-1]
        self._fill(config, len(config.channels) - 1, [width], 1e-5, attends=True)
        self.resnets.append(ResBlock(width, width, config.time_width, 1e-5))

    def forward(self, x_NCHW: Tensor, time_BE: Tensor, context_BLD: Tensor, frames: FrameLayout) -> Tensor:
        x_NCHW = self._run((self.resnets[0], self.attentions[0]), x_NCHW, time_BE, context_BLD, frames)
        return self._run((self.resnets[1], None), x_NCHW, time_BE, context_BLD, frames)


class Up(Level):
    """Takes back what ``Down`` of the same level and the one above left, the latest first, one for each layer."""

    def __init__(self, config: UNetConfig, level: int) -> None:
        super().__init__()
        count = len(config.channels)
        below, width = config.channels[min(level + 1, count - 1)], config.channels[level]
        above = config.channels[max(0, level - 1)]
        # The last layer takes what stands before this level's first: the level above's output, or that of conv_in.
        widths = [below + width] + [2 * width] * (config.layers - 1) + [width + above]
        self._fill(config, level, widths, 1e-6, config.attention[level])
        self.upsamplers = None if level == 0 else nn.ModuleList([Resample(width, 1)])

    def forward(
        self, x_NCHW: Tensor, left: list[Tensor], time_BE: Tensor, context_BLD: Tensor, frames: FrameLayout
    ) -> Tensor:
        """Pop from ``left``."""
        for layer in self._layers():
            x_NCHW = self._run(layer, x_NCHW, time_BE, context_BLD, frames, left.pop())
        if self.upsamplers is not None:
            # Not simply doubled: a side that was odd is rounded up on the way down.
            x_NCHW = self.upsamplers[0](x_NCHW, left[-1].shape[-2:])
        return x_NCHW
