"""Added time ids: the numbers that a video model is given beside its context, the same in training and in sampling."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

MOTION_MIDDLE, MOTION_TOP = 127, 255


def motion_bucket(motion: float | None, reference: float) -> int:
    """Return the motion bucket, 0–255, of a clip's motion score: ``reference`` is 127, twice as much is 254, more stays 255.

    ``reference`` is the median score of the training clips; it is kept in the checkpoint's config as
    ``motion_reference``, so that training and sampling agree. A clip without a score counts as the median.
    """
    if motion is None or reference <= 0:
        return MOTION_MIDDLE
    return max(0, min(MOTION_TOP, round(MOTION_MIDDLE * motion / reference)))


def added_time_ids(
    fps: float, bucket: Sequence[int], noise_aug_b: Tensor, elevation: Sequence[float] | None = None
) -> Tensor:
    """Return the added time ids, (B, 3) or with ``elevation`` (B, 5), raw: the model makes the sinusoids.

    They are fps − 1, motion bucket, noise augmentation, and the sine and cosine of the elevation.

    Args:
        fps: 1/s, of all clips.
        bucket: B motion buckets, 0–255.
        noise_aug_b: (B,) standard deviations of the noise on the conditioning frames.
        elevation: B angles of the camera in degrees.
    """
    fps_and_motion = [[fps - 1.0, float(b)] for b in bucket]
    ids = [torch.tensor(fps_and_motion, dtype=torch.float32), noise_aug_b.float()[:, None]]
    if elevation is not None:
        angles = [math.radians(degrees) for degrees in elevation]
        ids.append(torch.tensor([[math.sin(a), math.cos(a)] for a in angles], dtype=torch.float32))
    return torch.cat(ids, 1)
