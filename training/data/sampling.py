"""Random draws that follow from (seed, global position) alone.

A counter-based generator (Philox, Salmon et al. 2011) is keyed by (seed and purpose, position), so that no state is
kept, any position can be drawn first, and a run that was killed goes on with the draws it would have had.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dailies.curation.schema import digest


def generator(seed: int, purpose: str, position: int) -> np.random.Generator:
    """A fresh generator for one position of one purpose."""
    key = int(digest("draw", seed, purpose)[:16], 16)
    return np.random.Generator(np.random.Philox(key=np.array([key, position], np.uint64)))


def normal(rng: np.random.Generator, shape: tuple[int, ...]) -> Tensor:
    """Standard normal, float32."""
    return torch.from_numpy(rng.standard_normal(shape, dtype=np.float32))


@dataclass(frozen=True, kw_only=True)
class Draw:
    """One sample's choices. ``position``: among all samples of the phase; ``item``: index into the items; ``offset``,
    ``crop``: 0–1 of the room there is; ``sigma``, ``aug``: standard normal; ``drop_text``, ``drop_image``: 0–1, dropped
    where below the phase's share; ``caption``: 0–1, which of the captions. Latent and pixel noise come from ``rng``, in
    this order: posterior, noise, augmentation."""

    position: int
    item: int
    offset: float
    crop: tuple[float, float]
    sigma: float
    aug: float
    drop_text: float
    drop_image: float
    caption: float = 0.0
    rng: np.random.Generator = field(repr=False, compare=False)


def draw(seed: int, phase: str, position: int, items: int, *, lane: str = "", place: int | None = None) -> Draw:
    """The sample at ``position``, which is number ``place`` of its lane: every item of the lane once per epoch, in an
    order that is shuffled anew for each. By default all positions are of one lane."""
    epoch, number = divmod(position if place is None else place, items)
    rng = generator(seed, phase, position)
    offset, x, y, drop_text, drop_image = rng.random(5)
    sigma, aug = rng.standard_normal(2)
    return Draw(
        position=position,
        item=int(_order(seed, f"{phase} order {lane}".rstrip(), epoch, items)[number]),
        offset=float(offset),
        crop=(float(x), float(y)),
        sigma=float(sigma),
        aug=float(aug),
        drop_text=float(drop_text),
        drop_image=float(drop_image),
        caption=float(generator(seed, f"{phase} caption", position).random()),
        rng=rng,
    )


@lru_cache(maxsize=64)
def _order(seed: int, purpose: str, epoch: int, items: int) -> NDArray[np.int64]:
    """The items' order in one epoch; kept, since every sample of the epoch asks for it."""
    return generator(seed, purpose, epoch).permutation(items)
