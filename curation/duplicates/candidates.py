"""Pairs of frames that may show the same: locality-sensitive hashing of small gray pictures, near n log n.

A picture's code is the signs of its low frequencies (DCT), which coding anew and resizing hardly change. Each of ``TABLES``
tables sorts all frames by its own choice of bits, about as many as it takes to number them, and pairs each with those that
have the same bits, the next ``WINDOW`` of them at most: a title card that a million clips begin with so costs no more than
another picture.
"""

from __future__ import annotations

from collections.abc import Iterator

import cv2
import numpy as np
from numpy.typing import NDArray

from dailies.curation.duplicates.signatures import SIDE

TABLES = 16
WINDOW = 8
FREQUENCIES = 10  # the code has those whose two indexes add up to less, but for the mean: 54 bits
DIFFERENT = 14  # bits that may differ: 98 % of aligned frames of copies have 12 or fewer, two pictures in general 27
SPARE = 2  # bits over those that number the frames, so that few frames share theirs by chance
LEAST, MOST = 10, 40  # bits of a table
BATCH = 65_536  # frames whose codes are worked out at once


def codes(pictures: NDArray[np.uint8]) -> NDArray[np.uint64]:
    """Return the signs of the low frequencies of ``pictures`` (n, 256) as the bits of a number each."""
    wave = np.stack([cv2.dct(pixel.copy()).ravel() for pixel in np.eye(SIDE, dtype=np.float32)])  # (pixel, frequency)
    chosen = [(i, j) for i in range(SIDE) for j in range(SIDE) if 0 < i + j < FREQUENCIES]
    basis = np.stack([np.outer(wave[:, i], wave[:, j]).ravel() for i, j in chosen], 1)
    weights = np.uint64(1) << np.arange(len(chosen), dtype=np.uint64)
    out = np.empty(len(pictures), np.uint64)
    for at in range(0, len(pictures), BATCH):
        signs = pictures[at : at + BATCH].astype(np.float32) @ basis > 0
        out[at : at + BATCH] = (signs * weights).sum(1, dtype=np.uint64)
    return out


def candidates(pictures: NDArray[np.uint8], owners: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return pairs (m, 2) of frames of different ``owners`` that share the bits of a table; each once, the smaller first."""
    code, count = codes(pictures), len(pictures)
    if count < 2:
        return np.zeros((0, 2), np.int64)
    length = int(np.clip(np.ceil(np.log2(count)) + SPARE, LEAST, MOST))
    keys = np.unique(np.concatenate([low * count + high for low, high in _paired(code, owners, length)]))
    return np.stack([keys // count, keys % count], 1)


def _paired(
    code: NDArray[np.uint64], owners: NDArray[np.int64], length: int
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Yield the pairs of each table, ``length`` bits of the code, as two arrays of indexes, the smaller one first."""
    width = sum(0 < i + j < FREQUENCIES for i in range(SIDE) for j in range(SIDE))
    draw = np.random.default_rng(0)
    for _ in range(TABLES):
        mask = np.uint64(sum(1 << int(bit) for bit in draw.permutation(width)[:length]))
        order = np.argsort(code & mask, kind="stable")
        keys, owned = (code & mask)[order], owners[order]
        for step in range(1, WINDOW + 1):
            same = np.flatnonzero((keys[:-step] == keys[step:]) & (owned[:-step] != owned[step:]))
            left, right = order[same], order[same + step]
            near = _differing(code[left], code[right]) <= DIFFERENT
            yield np.minimum(left, right)[near], np.maximum(left, right)[near]


def _differing(left: NDArray[np.uint64], right: NDArray[np.uint64]) -> NDArray[np.int64]:
    """Return in how many bits each two numbers differ."""
    halves = (left ^ right).view(np.uint8).reshape(-1, 8)
    return np.asarray(ONES[halves].sum(1), np.int64)


ONES = np.asarray([number.bit_count() for number in range(256)], np.uint8)
