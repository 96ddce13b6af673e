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
    """Return a fresh generator for one position of one purpose."""
    key = int(digest("draw", seed, purpose)[:16], 16)
    return np.random.Generator(np.random.Philox(key=np.array([key, position], np.uint64)))


def normal(rng: np.random.Generator, shape: tuple[int, ...]) -> Tensor:
    """Draw a standard normal tensor, float32."""
    return torch.from_numpy(rng.standard_normal(shape, dtype=np.float32))


def first_frame(room: int, offset: float) -> int:
    """Return which of ``room`` + 1 possible first frames an offset of 0–1 stands for."""
    return min(room, int(offset * (room + 1)))


@dataclass(frozen=True, kw_only=True)
class SampleSpec:
    """A spec holds all random choices of one sample; nothing of it depends on the data.

    Args:
        position: Place among all samples of the phase.
        item: Index into the items of the sample's bucket.
        offset: Where its window lies in time, 0–1 of the frames that the window leaves over.
        crop: Where its crop lies, (x, y), 0–1 of the px that the crop leaves over.
        sigma, aug: Standard normal draws for the noise level and for that of the noise on conditioning frames.
        drop_text, drop_image: 0–1; the condition is dropped where this is below the phase's share.
        caption: 0–1; which of the captions.
        rng: Source of the latent and pixel noise, in this order: posterior, noise, augmentation.
    """

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


def draw_spec(
    seed: int, phase: str, position: int, items: int, *, subset: str = "", index: int | None = None
) -> SampleSpec:
    """Draw the sample at ``position``, which is number ``index`` of its subset of ``items`` items.

    Every item of the subset comes once per epoch, in an order that is shuffled anew for each. By default all positions
    are of one subset.
    """
    epoch, number = divmod(position if index is None else index, items)
    rng = generator(seed, phase, position)
    offset, x, y, drop_text, drop_image = rng.random(5)
    sigma, aug = rng.standard_normal(2)
    return SampleSpec(
        position=position,
        item=int(_order(seed, f"{phase} order {subset}".rstrip(), epoch, items)[number]),
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
    """Return the items' order in one epoch; cached, since every sample of the epoch asks for it."""
    return generator(seed, purpose, epoch).permutation(items)
