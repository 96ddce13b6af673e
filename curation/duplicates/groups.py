"""Pairs of clips become groups, in which every clip is near the group's representative itself.

Were groups all that hangs together, a chain of clips each of which is a little unlike the one before would join what has
nothing in common, and in a large dataset such a chain is always there. So each group is a star: its representative is a
clip with more copies than any of its own copies has, and the others are near that one.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Near = Callable[[NDArray[np.int64], NDArray[np.int64]], NDArray[np.bool_]]
"""Says of pairs of clips, given by two arrays of indexes, whether they are near each other."""

MOST_ASKED = 1_000_000  # pairs of representatives and clips two steps away that one round asks about


def components(count: int, pairs: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return, for each of ``count`` items, the smallest index among all that ``pairs`` (m, 2) connect it with."""
    label = np.arange(count)
    left, right = (pairs[:, 0], pairs[:, 1]) if len(pairs) else (label[:0], label[:0])
    while True:
        low = np.minimum(label[left], label[right])
        before = label.copy()
        for side in (left, right):
            np.minimum.at(label, label[side], low)  # the root moves, and with it all that hang on it
        while (label != label[label]).any():
            label = label[label]
        if (label == before).all():
            return label


def stars(count: int, pairs: NDArray[np.int64], near: Near) -> NDArray[np.int64]:
    """Return the representative of each of ``count`` clips: an index, its own for a clip that is alone.

    ``pairs`` (m, 2): those found to be near, each once. ``near`` is asked about clips two steps from a representative:
    search by hashes or by a graph misses some pairs. Which clip represents a group follows from the pairs and the order of
    the clips alone.
    """
    representative = np.full(count, -1, np.int64)
    while len(pairs):
        both = np.concatenate([pairs, pairs[:, ::-1]])
        both = both[np.argsort(both[:, 0], kind="stable")]
        degree = np.bincount(both[:, 0], minlength=count)
        rank = np.empty(count, np.int64)  # higher: more copies, then the smaller index
        rank[np.lexsort((-np.arange(count), degree))] = np.arange(count)
        best = np.full(count, -1, np.int64)
        np.maximum.at(best, both[:, 0], rank[both[:, 1]])
        chosen = np.flatnonzero((degree > 0) & (rank > best))  # above each of its own copies: never two that are near
        representative[chosen] = chosen
        of_chosen = both[np.isin(both[:, 0], chosen)]
        _join(representative, rank, of_chosen[:, 0], of_chosen[:, 1])
        _join(representative, rank, *_two_steps(both, of_chosen, representative, near))
        pairs = pairs[(representative[pairs] < 0).all(1)]
    return np.where(representative < 0, np.arange(count), representative)


def _join(
    representative: NDArray[np.int64], rank: NDArray[np.int64], centres: NDArray[np.int64], clips: NDArray[np.int64]
) -> None:
    """Give each clip that has no group yet the highest of its centres."""
    free = representative[clips] < 0
    centres, clips = centres[free], clips[free]
    order = np.argsort(rank[centres], kind="stable")
    representative[clips[order]] = centres[order]  # the last one holds


def _two_steps(
    both: NDArray[np.int64], of_chosen: NDArray[np.int64], representative: NDArray[np.int64], near: Near
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return representatives and clips without a group that are copies of their copies, and near."""
    begins = np.searchsorted(both[:, 0], np.arange(len(representative) + 1))
    middles = of_chosen[representative[of_chosen[:, 1]] == of_chosen[:, 0]]
    each = np.diff(begins)[middles[:, 1]]
    middles = middles[: int(np.searchsorted(np.cumsum(each), MOST_ASKED, side="right"))]
    each = each[: len(middles)]
    row = np.repeat(np.arange(len(middles)), each)
    at = np.arange(len(row)) - np.repeat(np.cumsum(each) - each, each) + begins[middles[row, 1]]
    centres, clips = middles[row, 0], both[at, 1]
    free = representative[clips] < 0
    asked = np.unique(np.stack([centres[free], clips[free]], 1), axis=0)
    if not len(asked):
        return asked[:, 0], asked[:, 1]
    asked = asked[near(asked[:, 0], asked[:, 1])]
    return asked[:, 0], asked[:, 1]
