"""How much two clips differ: their small gray pictures laid over each other, frame by frame, at the times that fit.

Two pictures are each brought to mean 0 and deviation 1 and compared block by block; the blocks that differ most, such as
those under a logo, are left out, of both the measure and the mean and deviation. The distance is the root of the mean square
of what is left: 0 for the same picture, about 0.1 for one that was coded anew, around 1 for another picture.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from dailies.curation.duplicates.signatures import PIXELS, SIDE

Scalar = TypeVar("Scalar", bound=np.generic)

KEPT = 0.85  # of the blocks, those that are compared: a logo or a clock in a corner takes less
LEAST = 64  # blocks outside of bars, with fewer of which nothing is compared
FLAT = 4.0  # least standard deviation, in steps of luma, of a picture that tells anything
BATCH = 16_384  # pairs of pictures compared at once: 16 MB for each step of the arithmetic
SLACK = 0.26  # s between frames that may stand for each other
OFFSETS = 8  # to a second: how finely two clips are laid over each other
ALIGNED = 0.6  # of the shorter clip's frames, and two of them where it has two, must have one that stands for them
ROWS = 262_144  # pairs of sequences, each at an offset, laid over each other at once
LONGEST = 1 << 20  # s: longer than any clip


@dataclass(frozen=True, slots=True, kw_only=True)
class Signatures:
    """The frames of clips: one sequence a clip, and another where bars lie around its pictures.

    ``pictures`` (frames, 256) uint8, ``seconds`` (frames,) from the clip's start on, and ``sequences`` (frames,) which one
    they are of, rising; ``clips`` (sequences,) which clip that is of, and ``told`` (sequences, 256) the blocks outside of
    bars: equal bars would make any two pictures look alike. Frames that tell nothing are left out.
    """

    pictures: NDArray[np.uint8]
    seconds: NDArray[np.float64]
    sequences: NDArray[np.int64]
    clips: NDArray[np.int64]
    told: NDArray[np.bool_]

    @classmethod
    def of(
        cls,
        pictures: Sequence[NDArray[np.uint8]],
        seconds: Sequence[NDArray[np.float64]],
        sequences: Sequence[NDArray[np.int64]],
        clips: NDArray[np.int64],
        told: NDArray[np.bool_],
    ) -> Signatures:
        """Join chunks of frames, and leave out those that are flat."""
        shown = [chunk.std(1, dtype=np.float32) >= FLAT for chunk in pictures]
        return cls(
            pictures=np.concatenate([chunk[keep] for chunk, keep in zip(pictures, shown, strict=True)]),
            seconds=np.concatenate([chunk[keep] for chunk, keep in zip(seconds, shown, strict=True)]),
            sequences=np.concatenate([chunk[keep] for chunk, keep in zip(sequences, shown, strict=True)]),
            clips=clips,
            told=told,
        )

    @property
    def owners(self) -> NDArray[np.int64]:
        """Return which clip each frame is of."""
        return self.clips[self.sequences]


def frame_distances(
    signatures: Signatures, left: NDArray[np.int64], right: NDArray[np.int64], *, mirrored: bool = False
) -> NDArray[np.float32]:
    """Return the distance of each pair of frames, given by indexes; ``mirrored`` turns the right one over."""
    out = np.empty(len(left), np.float32)
    for at in range(0, len(left), BATCH):
        first, other = left[at : at + BATCH], right[at : at + BATCH]
        a, b = signatures.pictures[first], signatures.pictures[other]
        told_a, told_b = signatures.told[signatures.sequences[first]], signatures.told[signatures.sequences[other]]
        if mirrored:
            b, told_b = _turned(b), _turned(told_b)
        out[at : at + BATCH] = _distances(a.astype(np.float32), b.astype(np.float32), told_a & told_b)
    return out


def _turned(pictures: NDArray[Scalar]) -> NDArray[Scalar]:
    """Return pictures (n, 256) turned over, left to right."""
    return pictures.reshape(-1, SIDE, SIDE)[:, :, ::-1].reshape(-1, PIXELS)


def _distances(a: NDArray[np.float32], b: NDArray[np.float32], told: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Return the distance of each pair of pictures (n, 256) by the blocks that are ``told``."""
    asked = told.astype(np.float32)
    apart = np.square(_normal(a, asked) - _normal(b, asked))
    kept = asked * (apart <= _largest_kept(apart, told))
    apart = np.square(_normal(a, kept) - _normal(b, kept)) * kept
    distances = np.sqrt(apart.sum(1) / np.maximum(kept.sum(1), 1))
    return np.where(told.sum(1) >= LEAST, distances, np.inf).astype(np.float32)


def _largest_kept(apart: NDArray[np.float32], told: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Return, for each pair, the largest difference of a block that is kept."""
    if told.all():
        at = int(KEPT * PIXELS) - 1
        return np.asarray(np.partition(apart, at, axis=1)[:, at : at + 1])
    ordered = np.sort(np.where(told, apart, np.float32(np.inf)), axis=1)
    at = np.maximum((KEPT * told.sum(1)).astype(np.int64) - 1, 0)
    return np.asarray(np.take_along_axis(ordered, at[:, None], 1))


def _normal(x: NDArray[np.float32], kept: NDArray[np.float32]) -> NDArray[np.float32]:
    """Bring the kept blocks of each picture to mean 0 and deviation 1; of a nearly flat one, noise is not blown up."""
    count = np.maximum(kept.sum(1, keepdims=True), 1)
    centred = x - (x * kept).sum(1, keepdims=True) / count
    deviation = np.sqrt((np.square(centred) * kept).sum(1, keepdims=True) / count)
    return np.asarray(centred / np.maximum(deviation, FLAT), np.float32)


def laid_over(
    signatures: Signatures, left: NDArray[np.int64], right: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
    """Return, for pairs of frames, each pair of sequences once for each offset in time: left, right, and the seconds that the
    left one is ahead."""
    offsets = np.rint((signatures.seconds[left] - signatures.seconds[right]) * OFFSETS).astype(np.int64)
    rows = np.unique(np.stack([signatures.sequences[left], signatures.sequences[right], offsets], 1), axis=0)
    return rows[:, 0], rows[:, 1], rows[:, 2] / OFFSETS


def all_offsets(
    signatures: Signatures, left: NDArray[np.int64], right: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
    """Return what ``laid_over`` does for pairs of clips, by every pair of their frames."""
    owners = signatures.owners
    frames = np.argsort(owners, kind="stable")
    clips = max(left.max(initial=-1), right.max(initial=-1)) + 1
    begins = np.searchsorted(owners[frames], np.arange(clips + 1))
    counts = np.diff(begins)
    each = counts[left] * counts[right]
    pair = np.repeat(np.arange(len(left)), each)
    number = np.arange(len(pair)) - np.repeat(np.cumsum(each) - each, each)
    first, second = left[pair], right[pair]
    width = np.maximum(counts[second], 1)
    return laid_over(signatures, frames[begins[first] + number // width], frames[begins[second] + number % width])


def frame_pairs(signatures: Signatures, left: NDArray[np.int64], right: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return how many pairs of frames ``all_offsets`` looks at for each pair of clips, at least 1."""
    counts = np.bincount(signatures.owners, minlength=max(left.max(initial=-1), right.max(initial=-1)) + 1)
    return np.asarray(np.maximum(counts[left] * counts[right], 1), np.int64)


def clip_distances(
    signatures: Signatures, left: NDArray[np.int64], right: NDArray[np.int64], ahead: NDArray[np.float64], most: float
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Return the pairs (m, 2) of clips that are at most so far apart, each once, the smaller first, and their distances.

    ``left``, ``right``, ``ahead``: pairs of sequences and their offset, as of ``laid_over``. The distance of two clips is the
    mean over the frames that stand for each other, at the offset where it is least. A clip that is nearer to the other one
    turned over, left to right, is a mirrored one, and no copy.
    """
    parts = [
        _aligned(signatures, left[at : at + ROWS], right[at : at + ROWS], ahead[at : at + ROWS], most)
        for at in range(0, max(len(left), 1), ROWS)
    ]
    pairs, distances = (np.concatenate(part) for part in zip(*parts, strict=True))
    order = np.lexsort((distances, pairs[:, 1], pairs[:, 0]))
    pairs, distances = pairs[order], distances[order]
    once = np.ones(len(pairs), bool)
    once[1:] = (pairs[1:] != pairs[:-1]).any(1)
    return pairs[once], distances[once].astype(np.float32)


def _aligned(
    signatures: Signatures, left: NDArray[np.int64], right: NDArray[np.int64], ahead: NDArray[np.float64], most: float
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Return what ``clip_distances`` does, but for each offset."""
    keys = signatures.sequences * LONGEST + signatures.seconds
    begins = np.searchsorted(signatures.sequences, np.arange(len(signatures.clips) + 1))
    counts = np.diff(begins)
    row = np.repeat(np.arange(len(left)), counts[left])
    frame = np.arange(len(row)) - np.repeat(np.cumsum(counts[left]) - counts[left], counts[left]) + begins[left[row]]
    wanted = right[row] * LONGEST + signatures.seconds[frame] - ahead[row]
    after = np.clip(np.searchsorted(keys, wanted), 0, len(keys) - 1)
    before = np.maximum(after - 1, 0)
    nearest = np.where(np.abs(keys[before] - wanted) <= np.abs(keys[after] - wanted), before, after)
    fits = np.abs(keys[nearest] - wanted) <= SLACK
    row, frame, nearest = row[fits], frame[fits], nearest[fits]
    aligned = np.bincount(row, minlength=len(left))
    shorter = np.minimum(counts[left], counts[right])
    enough = aligned >= np.maximum(np.minimum(2, shorter), np.ceil(ALIGNED * shorter))
    pick = enough[row]
    row, frame, nearest = row[pick], frame[pick], nearest[pick]
    distance = _means(row, frame_distances(signatures, frame, nearest), len(left))
    near = np.flatnonzero(enough & (distance <= most))
    pick = np.isin(row, near)
    turned = frame_distances(signatures, frame[pick], nearest[pick], mirrored=True)
    near = near[_means(row[pick], turned, len(left))[near] >= distance[near]]
    first, second = signatures.clips[left[near]], signatures.clips[right[near]]
    return np.stack([np.minimum(first, second), np.maximum(first, second)], 1), distance[near]


def _means(rows: NDArray[np.int64], values: NDArray[np.float32], count: int) -> NDArray[np.float64]:
    """Return the mean of the values of each row; infinite where it has none."""
    numbers = np.bincount(rows, minlength=count)
    sums = np.bincount(rows, weights=values, minlength=count)
    return np.where(numbers > 0, sums / np.maximum(numbers, 1), np.inf)
