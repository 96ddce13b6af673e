"""Random draws that follow from (seed, global position) alone.

A counter-based generator (Philox, Salmon et al. 2011) is keyed by (seed and purpose, position), so that no state is kept,
any position can be drawn first, and a run that was killed goes on with the draws it would have had.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from curation.schema import digest


def generator(seed: int, purpose: str, position: int) -> np.random.Generator:
    """A fresh generator for one position of one purpose."""
    key = int(digest("draw", seed, purpose)[:16], 16)
    return np.random.Generator(np.random.Philox(key=np.array([key, position], np.uint64)))


def normal(rng: np.random.Generator, shape: tuple[int, ...]) -> Tensor:
    """Standard normal, float32."""
    return torch.from_numpy(rng.standard_normal(shape, dtype=np.float32))


@dataclass(frozen=True, kw_only=True)
class Draw:
    """One sample's choices. ``item``: index into the training items; ``offset``, ``crop``: 0–1 of the room there is;
    ``sigma``, ``aug``: standard normal; ``drop_text``, ``drop_image``: 0–1, dropped where below the phase's share.
    Latent and pixel
    noise come from ``rng``, in this order: posterior, noise, augmentation."""

    position: int
    item: int
    offset: float
    crop: tuple[float, float]
    sigma: float
    aug: float
    drop_text: float
    drop_image: float
    rng: np.random.Generator = field(repr=False, compare=False)


def draw(seed: int, phase: str, position: int, items: int) -> Draw:
    """The sample at ``position``: every item once per epoch, in an order that is shuffled anew for each epoch."""
    epoch, place = divmod(position, items)
    order = generator(seed, f"{phase} order", epoch).permutation(items)
    rng = generator(seed, phase, position)
    offset, x, y, drop_text, drop_image = rng.random(5)
    sigma, aug = rng.standard_normal(2)
    return Draw(
        position=position,
        item=int(order[place]),
        offset=float(offset),
        crop=(float(x), float(y)),
        sigma=float(sigma),
        aug=float(aug),
        drop_text=float(drop_text),
        drop_image=float(drop_image),
        rng=rng,
    )
