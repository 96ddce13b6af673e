"""Stable Video Diffusion's UNet, for images and videos alike (arXiv 2311.15127, App. D).

State-dict keys, shapes and function are those of diffusers' ``UNetSpatioTemporalConditionModel``. What differs:

- each sample says whether it is a video, and an image passes no temporal layer (diffusers: all are videos);
- a new model's temporal layers change nothing, exactly, so that it begins as its own image model;
- keys and values of the context are computed once a sample, not for each pixel or frame;
- activation checkpointing covers temporal layers as well, and is chosen by level.
"""

from __future__ import annotations

from collections.abc import Collection
from os import PathLike
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dailies.curation.errors import ModelError
from dailies.training.models.blocks import Down, Level, Middle, Up
from dailies.training.models.config import UNetConfig
from dailies.training.models.embeddings import Embedding, sinusoids
from dailies.training.models.files import save_folder
from dailies.training.models.layout import FrameLayout

# The last layers of all that a video model has over an image model. Zero, each passes its input on; each still gets a gradient
# at once, because what it multiplies is not zero.
LAST_TEMPORAL = (
    "temporal_res_block.conv2.",
    ".ff_in.net.2.",
    ".attn1.to_out.0.",
    ".attn2.to_out.0.",
    ".ff.net.2.",
    "time_pos_embed.linear_2.",
)


def is_temporal(name: str) -> bool:
    """Return whether a parameter belongs to the temporal layers, by its state-dict key."""
    return "temporal" in name or "time_pos_embed" in name or "time_mixer" in name


def is_last(name: str) -> bool:
    """Return whether a parameter's layer is zero at first: ``LAST_TEMPORAL``, and the added ids' embedding."""
    last = is_temporal(name) and any(part in name for part in LAST_TEMPORAL)
    return last or name.startswith("add_embedding.linear_2.")


class VideoUNet(nn.Module):
    """F(x; c_noise, context, added time ids).

    ``extra_config``: further entries of ``config.json``, which say what it was trained for. ``adapter_config``: peft's,
    where there are adapters.
    """

    def __init__(self, config: UNetConfig) -> None:
        super().__init__()
        self.config = config
        self.extra_config: dict[str, Any] = {}
        self.adapter_config: Any = None
        channels, time = config.channels, config.time_width
        levels = range(len(channels))
        self.conv_in = nn.Conv2d(config.in_channels, channels[0], 3, padding=1)
        self.time_embedding = Embedding(channels[0], time, time)
        if config.time_id_width is not None:
            self.add_embedding = Embedding(config.num_time_ids * config.time_id_width, time, time)
        # What stands in for frames other than the conditioning ones, learned (arXiv 2311.15127, App. D: interpolation's z_m).
        self.masked_latent = nn.Parameter(torch.zeros(config.out_channels)) if config.masked else None
        self.down_blocks = nn.ModuleList(Down(config, level) for level in levels)
        self.mid_block = Middle(config)
        self.up_blocks = nn.ModuleList(Up(config, level) for level in reversed(levels))
        self.conv_norm_out = nn.GroupNorm(32, channels[0], eps=1e-5)
        self.conv_out = nn.Conv2d(channels[0], config.out_channels, 3, padding=1)
        self.begin_as_image_model()

    @torch.no_grad()
    def begin_as_image_model(self) -> None:
        """Zero what the temporal layers and the added ids give. ``forward`` is then that of the image model, exactly."""
        for name, parameter in self.named_parameters():
            if is_last(name):
                parameter.zero_()

    def forward(
        self,
        x: Tensor,
        c_noise_B: Tensor,
        context_BLD: Tensor,
        added_time_ids_BK: Tensor | None = None,
        image_only_B: Tensor | None = None,
    ) -> Tensor:
        """Compute F of latents and what is concatenated to them: of ``x``'s shape, with ``out_channels``.

        Args:
            x: (B, T, C, H, W), or (B, C, H, W) for images.
            c_noise_B: ¼ ln σ.
            context_BLD: tokens, the same for all frames of a sample.
            added_time_ids_BK: fps − 1, motion bucket, noise augmentation; ``None`` adds none.
            image_only_B: bool; these samples pass no temporal layer, and their T frames are T images. If all are, no
                temporal layer runs and none gets a gradient. On the CPU, it costs no wait for an accelerator.

        Raises ``ValueError`` for time ids that the model was not built for, or another shape.
        """
        if x.ndim == 4:
            frames = FrameLayout(len(x), 1, torch.empty(0, dtype=torch.long, device=x.device))
        elif x.ndim == 5:
            videos = None if image_only_B is None else (~image_only_B.bool()).nonzero()[:, 0].to(x.device)
            frames = FrameLayout(x.shape[0], x.shape[1], None if videos is None or len(videos) == len(x) else videos)
        else:
            raise ValueError(f"x: shape {tuple(x.shape)}: must be (B, T, C, H, W) or (B, C, H, W)")
        time_BE = self._time(c_noise_B, added_time_ids_BK, frames.samples, x.dtype)
        h_NCHW = self.conv_in(x.reshape(-1, *x.shape[-3:]))
        left = [h_NCHW]
        for down in self.down_blocks:
            h_NCHW, more = down(h_NCHW, time_BE, context_BLD, frames)
            left += more
        h_NCHW = self.mid_block(h_NCHW, time_BE, context_BLD, frames)
        for up in self.up_blocks:
            h_NCHW = up(h_NCHW, left, time_BE, context_BLD, frames)
        out: Tensor = self.conv_out(F.silu(self.conv_norm_out(h_NCHW)))
        return out.reshape(*x.shape[:-3], *out.shape[1:])

    def _time(self, c_noise_B: Tensor, added_time_ids_BK: Tensor | None, samples: int, dtype: torch.dtype) -> Tensor:
        """Return the time embedding, (B, E), the added ids in it."""
        config = self.config
        sines_BC = sinusoids(c_noise_B.expand(samples), config.channels[0])
        time_BE: Tensor = self.time_embedding(sines_BC.to(dtype))
        if added_time_ids_BK is None:
            return time_BE
        if config.time_id_width is None or added_time_ids_BK.shape != (samples, config.num_time_ids):
            there = "none" if config.time_id_width is None else f"({samples}, {config.num_time_ids})"
            raise ValueError(f"added_time_ids_BK: shape {tuple(added_time_ids_BK.shape)}: the model takes {there}")
        sines_BM = sinusoids(added_time_ids_BK.flatten(), config.time_id_width).reshape(samples, -1)
        added_BE: Tensor = self.add_embedding(sines_BM.to(time_BE.dtype))
        return time_BE + added_BE

    def checkpoint_levels(self, levels: Collection[int]) -> None:
        """Recompute in the backward pass the activations of these levels, 0 being that of the largest pictures.

        The middle counts as the last level. Raises ``ModelError`` for a level that does not exist.
        """
        count = len(self.config.channels)
        if strangers := sorted(set(levels) - set(range(count))):
            raise ModelError(f"checkpoint_levels: no level {strangers[0]}; there are 0 to {count - 1}")
        pairs = zip(self.down_blocks, reversed(self.up_blocks), strict=True)
        blocks = [(number, block) for number, pair in enumerate(pairs) for block in pair]
        for number, block in [*blocks, (count - 1, self.mid_block)]:
            assert isinstance(block, Level)
            block.checkpointed = number in levels

    @property
    def device(self) -> torch.device:
        return self.conv_in.weight.device

    def save_pretrained(self, folder: str | PathLike[str]) -> None:
        """Write ``config.json``, ``extra_config`` in it, and the weights as one file, in the type that they have.

        Loads in diffusers' ``UNetSpatioTemporalConditionModel.from_pretrained`` too. Raises ``ModelError`` for a model with
        adapters: merge them first, or keep ``lora_weights``.
        """
        state = self.state_dict()
        if any(".lora_" in name for name in state):
            raise ModelError("model: has adapters, which diffusers' format does not hold; merge them first")
        save_folder(folder, {**self.extra_config, **self.config.to_diffusers()}, state)


def count_parameters(model: nn.Module) -> int:
    """Count a model's weights."""
    return sum(parameter.numel() for parameter in model.parameters())
