"""Pixels in and out of the models: uint8 frames ↔ float tensors in [−1, 1], and resizing.

Shape suffixes: N pictures, T frames, H height, W width, C channels.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

Pixels = NDArray[np.uint8]


def to_tensor(pixels_NHWC: Pixels) -> Tensor:
    """Return uint8 RGB (N, H, W, 3) → float32 (N, 3, H, W) in [−1, 1]."""
    return torch.from_numpy(np.array(pixels_NHWC)).permute(0, 3, 1, 2).float() / 127.5 - 1


def to_pixels(x_NCHW: Tensor) -> Pixels:
    """Return float (N, 3, H, W) in [−1, 1], clipped → uint8 RGB (N, H, W, 3)."""
    x = ((x_NCHW.detach().float().clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)
    pixels: Pixels = x.permute(0, 2, 3, 1).cpu().numpy()
    return pixels


def cover(pixels_NHWC: Pixels, size: tuple[int, int]) -> Pixels:
    """Resized, sides in proportion, so that ``size`` (width, height) px is just covered: one side fits, one may be longer.

    Bilinear with antialiasing, as torchvision resizes tensors.
    """
    height, width = pixels_NHWC.shape[1:3]
    scale = max(size[0] / width, size[1] / height)
    target = max(size[1], round(height * scale)), max(size[0], round(width * scale))
    if target == (height, width):
        return pixels_NHWC
    x = torch.from_numpy(np.array(pixels_NHWC)).permute(0, 3, 1, 2).float()
    x = F.interpolate(x, target, mode="bilinear", antialias=True, align_corners=False)
    resized: Pixels = x.round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1).contiguous().numpy()
    return resized


def crop(pixels_NHWC: Pixels, size: tuple[int, int], where: tuple[float, float] = (0.5, 0.5)) -> Pixels:
    """Return a window of ``size`` (width, height) px; ``where`` 0–1 across the room left over, 0.5 the middle."""
    height, width = pixels_NHWC.shape[1:3]
    x, y = round(where[0] * (width - size[0])), round(where[1] * (height - size[1]))
    return pixels_NHWC[:, y : y + size[1], x : x + size[0]]


def psnr(reference: Pixels, other: Pixels) -> float:
    """Return peak signal-to-noise ratio in dB of uint8 pictures, over all their pixels together."""
    error = float(np.mean((reference.astype(np.float64) - other.astype(np.float64)) ** 2))
    return float(10 * np.log10(255**2 / max(error, 1e-12)))
