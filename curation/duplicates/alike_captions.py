"""Captions that are nearly the same, near n log n: MinHash over their words and pairs of words (Broder 1997).

Two captions are as alike as the Jaccard index of their sets of words and pairs of neighbouring words, without case and
punctuation: a word changed in seven makes 0.6 of 1, a word in sixty 0.94. Equal sets are one from the start, so that a
caption that a million clips share costs no more than another. Of the others, those that share a band of their signature,
and the next ``WINDOW`` of it at most, are compared in full.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from dailies.curation.caption_measures import ngrams, split_words
from dailies.curation.duplicates.groups import stars

BANDS, ROWS = 24, 4
"""Of a signature: two captions at 0.7 share a band with 99.8 %, at 0.8 surely, at 0.3 with 18 %."""
WINDOW = 8
PRIME = np.uint64((1 << 31) - 1)
SLACK = 0.2  # by which a signature may be less alike than its captions: five deviations of what it tells
COMPARED = 65_536  # pairs of signatures that are compared at once
BATCH = 16_384  # captions whose signatures are worked out at once

Grams = frozenset[int]


def caption_groups(texts: Sequence[str | None], similarity: float) -> NDArray[np.int64]:
    """Return the representative of each caption (n,): the index of one that it is nearly the same as, its own where it is
    alone; -1 without a text.

    Groups are stars: each caption is ``similarity`` or more alike to its representative itself.
    """
    numbers: dict[Grams, int] = {}
    number = np.full(len(texts), -1, np.int64)
    for at, text in enumerate(texts):
        grams = _grams(text or "")
        if grams:
            number[at] = numbers.setdefault(grams, len(numbers))
    kinds = list(numbers)

    def near(left: NDArray[np.int64], right: NDArray[np.int64]) -> NDArray[np.bool_]:
        alike = [_jaccard(kinds[first], kinds[other]) >= similarity for first, other in zip(left, right, strict=True)]
        return np.array(alike, bool)

    pairs = _candidates(kinds, similarity - SLACK)
    pairs = pairs[near(pairs[:, 0], pairs[:, 1])]
    of_kind = stars(len(kinds), pairs, near)
    there = np.flatnonzero(number >= 0)
    group = of_kind[number[there]]
    first = np.full(len(kinds), len(texts), np.int64)
    np.minimum.at(first, group, there)
    representative = np.full(len(texts), -1, np.int64)
    representative[there] = first[group]
    return representative


def _grams(text: str) -> Grams:
    """Return a number for each word and for each pair of neighbours."""
    tokens = split_words(text)
    return frozenset(zlib.crc32(" ".join(gram).encode()) for size in (1, 2) for gram in ngrams(tokens, size))


def _jaccard(left: Grams, right: Grams) -> float:
    shared = len(left & right)
    return shared / (len(left) + len(right) - shared)


def _candidates(kinds: Sequence[Grams], least: float) -> NDArray[np.int64]:
    """Return pairs (m, 2) of sets that share a band of their signatures, and ``least`` of these whole; each once, the smaller
    index first."""
    count = len(kinds)
    keys = np.empty(0, np.int64)
    if count > 1:
        signatures_NS = np.concatenate(list(_signatures(kinds)))  # noqa: N806
        for band in range(BANDS):
            part = np.ascontiguousarray(signatures_NS[:, band * ROWS : (band + 1) * ROWS])
            _, bucket = np.unique(part, axis=0, return_inverse=True)
            near = []
            for left, right in _neighbours(bucket.ravel()):
                alike = (signatures_NS[left] == signatures_NS[right]).mean(1) >= least
                near.append((left * count + right)[alike])
            keys = np.unique(np.concatenate([keys, *near]))
    return np.stack([keys // max(count, 1), keys % max(count, 1)], 1)


def _neighbours(bucket: NDArray[np.int64]) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Yield pairs that share a bucket, the smaller index first, some at a time."""
    order = np.argsort(bucket, kind="stable")
    for step in range(1, WINDOW + 1):
        same = np.flatnonzero(bucket[order[:-step]] == bucket[order[step:]])
        for at in range(0, len(same), COMPARED):
            some = same[at : at + COMPARED]
            yield order[some], order[some + step]


def _signatures(kinds: Sequence[Grams]) -> Iterator[NDArray[np.uint32]]:
    """Yield MinHash signatures (batch, BANDS · ROWS): per permutation x → (a·x + b) mod p the least value of a set."""
    draw = np.random.default_rng(0)
    scales, shifts = draw.integers(1, int(PRIME), (2, BANDS * ROWS), dtype=np.uint64)
    for start in range(0, len(kinds), BATCH):
        batch = kinds[start : start + BATCH]
        lengths = np.array([len(grams) for grams in batch])
        begins = np.concatenate([[0], np.cumsum(lengths)[:-1]])
        values = np.fromiter((gram for grams in batch for gram in grams), np.uint64, lengths.sum()) % PRIME
        out = np.empty((len(batch), BANDS * ROWS), np.uint32)
        for at, (scale, shift) in enumerate(zip(scales, shifts, strict=True)):
            out[:, at] = np.minimum.reduceat((scale * values + shift) % PRIME, begins)
        yield out
