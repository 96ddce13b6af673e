"""Pairs of frames that may show the same: locality-sensitive hashing of small gray pictures, near n log n.

A picture's code is the signs of its low frequencies (DCT), which coding anew and resizing hardly change; the whole picture
has one, and each of its halves, for a logo or a subtitle changes the code of what it lies in. Each table sorts all frames by
its own choice of bits of a code, about as many as it takes to number the frames, and pairs each with those that have the
same bits, the next ``WINDOW`` of them at most: a title card that a million clips begin with so costs no more than another
picture.
"""

from __future__ import annotations

from collections.abc import Iterator

import cv2
import numpy as np
from numpy.typing import NDArray

from dailies.curation.duplicates.signatures import SIDE

HALF = SIDE // 2
REGIONS: tuple[tuple[tuple[int, int, int, int], int], ...] = (
    ((0, SIDE, 0, SIDE), 8),
    ((0, HALF, 0, SIDE), 4),
    ((HALF, SIDE, 0, SIDE), 4),
    ((0, SIDE, 0, HALF), 4),
    ((0, SIDE, HALF, SIDE), 4),
)
"""Top, bottom, left and right of a part of the picture, in blocks, and how many tables look at it."""
TABLES = sum(tables for _, tables in REGIONS)
WINDOW = 8
FREQUENCY = 0.625  # the code has frequencies up to it, of 1 along a side: 54 bits of the whole, 26 of a half
DIFFERENT = 0.26  # of the bits, may differ: 98 % of aligned frames of copies have 12 of 54 or fewer, two pictures 27
SPARE = 2  # bits over those that number the frames, so that few frames share theirs by chance
LEAST, MOST = 10, 40  # bits of a table
BATCH = 65_536  # frames whose codes are worked out at once


def codes(pictures: NDArray[np.uint8], region: tuple[int, int, int, int]) -> tuple[NDArray[np.uint64], int]:
    """Return the signs of the low frequencies of ``pictures`` (n, 256) in a region as the bits of a number each, and how many
    bits there are."""
    top, bottom, left, right = region
    down, across = _waves(bottom - top), _waves(right - left)
    chosen = [
        (i, j) for i in range(len(down)) for j in range(len(across)) if 0 < i / len(down) + j / len(across) < FREQUENCY
    ]
    basis = np.stack([np.outer(down[:, i], across[:, j]).ravel() for i, j in chosen], 1)
    weights = np.uint64(1) << np.arange(len(chosen), dtype=np.uint64)
    out = np.empty(len(pictures), np.uint64)
    for at in range(0, len(pictures), BATCH):
        part = pictures[at : at + BATCH].reshape(-1, SIDE, SIDE)[:, top:bottom, left:right]
        signs = part.reshape(len(part), -1).astype(np.float32) @ basis > 0
        out[at : at + BATCH] = (signs * weights).sum(1, dtype=np.uint64)
    return out, len(chosen)


def _waves(length: int) -> NDArray[np.float32]:
    """Return the cosine waves (pixel, frequency) of a side."""
    return np.stack([cv2.dct(pixel.copy()).ravel() for pixel in np.eye(length, dtype=np.float32)]).astype(np.float32)


def candidates(pictures: NDArray[np.uint8], owners: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return pairs (m, 2) of frames of different ``owners`` that share the bits of a table; each once, the smaller first."""
    count, draw = len(pictures), np.random.default_rng(0)
    if count < 2:
        return np.zeros((0, 2), np.int64)
    keys = np.empty(0, np.int64)
    for region, tables in REGIONS:
        code, width = codes(pictures, region)
        masks = [_mask(draw, width, count) for _ in range(tables)]
        paired = [low * count + high for mask in masks for low, high in _paired(code, mask, owners, DIFFERENT * width)]
        keys = np.unique(np.concatenate([keys, *paired]))
    return np.stack([keys // count, keys % count], 1)


def _mask(draw: np.random.Generator, width: int, count: int) -> np.uint64:
    """Return the bits that a table looks at, of ``width``."""
    length = int(np.clip(np.ceil(np.log2(count)) + SPARE, LEAST, min(MOST, width)))
    return np.uint64(sum(1 << int(bit) for bit in draw.permutation(width)[:length]))


def _paired(
    code: NDArray[np.uint64], mask: np.uint64, owners: NDArray[np.int64], most: float
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Yield the pairs of a table as two arrays of indexes, the smaller one first."""
    order = np.argsort(code & mask, kind="stable")
    keys, owned = (code & mask)[order], owners[order]
    for step in range(1, WINDOW + 1):
        same = np.flatnonzero((keys[:-step] == keys[step:]) & (owned[:-step] != owned[step:]))
        left, right = order[same], order[same + step]
        near = _differing(code[left], code[right]) <= most
        yield np.minimum(left, right)[near], np.maximum(left, right)[near]


def _differing(left: NDArray[np.uint64], right: NDArray[np.uint64]) -> NDArray[np.int64]:
    """Return in how many bits each two numbers differ."""
    halves = (left ^ right).view(np.uint8).reshape(-1, 8)
    return np.asarray(ONES[halves].sum(1), np.int64)


ONES = np.asarray([number.bit_count() for number in range(256)], np.uint8)
