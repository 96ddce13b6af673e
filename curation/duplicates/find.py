"""Finds which clips are copies of each other: by bytes, by looks, and by what a model says that they show."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from dailies.curation import schema
from dailies.curation.duplicates.alike import (
    Signatures,
    all_offsets,
    clip_distances,
    frame_distances,
    frame_pairs,
    laid_over,
)
from dailies.curation.duplicates.candidates import candidates
from dailies.curation.duplicates.groups import stars
from dailies.curation.duplicates.neighbours import near_pairs
from dailies.curation.duplicates.splits import Splits, splits_of

KINDS = ("exact", "perceptual", "semantic")
ASKED = 8192  # pairs of clips whose embeddings are compared at once
FRAME_PAIRS = 1 << 19  # pairs of frames of clips that are compared at once: memory grows with these, and not with clips
FARTHER = 1.5  # times the limit on clips that two of their frames may be apart to be looked at


@dataclass(frozen=True, slots=True, kw_only=True)
class Embeddings:
    """``clips`` (n,): which clip each of ``vectors`` (n, channels) is of, -1 for one that is gone; they are of length 1, and
    perhaps a file mapped into memory."""

    clips: NDArray[np.int64]
    vectors: NDArray[np.float16]

    def rows(self, clips: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return where the vectors of clips stand, -1 for those without."""
        if not len(self.clips):
            return np.full(len(clips), -1, np.int64)
        order = np.argsort(self.clips, kind="stable")
        at = order[np.minimum(np.searchsorted(self.clips[order], clips), len(order) - 1)]
        return np.where(self.clips[at] == clips, at, -1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Pairs:
    """Pairs of clips that were found: ``clips`` (m, 2), the kind of each as an index of ``KINDS``, and their distances."""

    clips: NDArray[np.int64]
    kinds: NDArray[np.int64]
    distances: NDArray[np.float32]


class Search:
    """Looks for copies among clips that are numbered from 0.

    ``clips``: a row each with ``source_id`` and the columns of ``CONTENT_KEY``. ``exact``: whether copies by bytes count;
    ``signatures`` and ``distance``: what they look like, and how far apart two may be; ``embeddings`` and ``similarity``: the
    cosine that two must have. What is ``None`` is not looked at.
    """

    def __init__(
        self,
        clips: pa.Table,
        *,
        exact: bool = True,
        signatures: Signatures | None = None,
        distance: float = 0.25,
        embeddings: Embeddings | None = None,
        similarity: float = 0.95,
    ) -> None:
        self.count = len(clips)
        self.source = _numbered(clips, ["source_id"])
        self.content = _numbered(clips, [*schema.CONTENT_KEY]) if exact else np.arange(self.count)
        self.signatures, self.distance = signatures, distance
        self.embeddings, self.similarity = embeddings, similarity

    def pairs(self) -> Pairs:
        """Return all pairs that are found; of an exact kind, each clip with the first that has its content."""
        kinds = [self._exact(), self._perceptual(), self._semantic()]
        return Pairs(
            clips=np.concatenate([pairs for pairs, _ in kinds]),
            kinds=np.repeat(np.arange(len(kinds)), [len(pairs) for pairs, _ in kinds]),
            distances=np.concatenate([distances for _, distances in kinds]),
        )

    def near(self, left: NDArray[np.int64], right: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Return whether two clips are copies of any kind."""
        near = self.content[left] == self.content[right]
        if self.signatures is not None:
            asked = np.flatnonzero(~near & (self.source[left] != self.source[right]))
            for some in in_batches(asked, frame_pairs(self.signatures, left[asked], right[asked]), FRAME_PAIRS):
                rows = all_offsets(self.signatures, left[some], right[some])
                close, _ = clip_distances(self.signatures, *rows, most=self.distance)
                keys = np.minimum(left[some], right[some]) * self.count + np.maximum(left[some], right[some])
                near[some] = np.isin(keys, close[:, 0] * self.count + close[:, 1])
        if self.embeddings is not None:
            at, there = self.embeddings.rows(left), self.embeddings.rows(right)
            asked = np.flatnonzero((at >= 0) & (there >= 0) & ~near)
            vectors = self.embeddings.vectors
            for start in range(0, len(asked), ASKED):
                some = asked[start : start + ASKED]
                first, other = (vectors[where[some]].astype(np.float32) for where in (at, there))
                near[some] = (first * other).sum(1) >= self.similarity
        return np.asarray(near, bool)

    def _exact(self) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        _, first, which = np.unique(self.content, return_index=True, return_inverse=True)
        origin = first[which]
        copies = np.flatnonzero(origin != np.arange(self.count))
        return np.stack([origin[copies], copies], 1), np.zeros(len(copies), np.float32)

    def _perceptual(self) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        if self.signatures is None or not len(self.signatures.pictures):
            return np.empty((0, 2), np.int64), np.empty(0, np.float32)
        signatures = self.signatures
        frames = candidates(signatures.pictures, self.source[signatures.owners])
        close = frame_distances(signatures, frames[:, 0], frames[:, 1]) <= FARTHER * self.distance
        rows = laid_over(signatures, frames[close, 0], frames[close, 1])
        return clip_distances(signatures, *rows, most=self.distance)

    def _semantic(self) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        if self.embeddings is None:
            return np.empty((0, 2), np.int64), np.empty(0, np.float32)
        pairs, distances = near_pairs(self.embeddings.vectors, self.similarity)
        clips = self.embeddings.clips[pairs]
        there = (clips >= 0).all(1)
        return np.sort(clips[there], axis=1), distances[there]


def group_clips(clips: pa.Table, search: Search) -> tuple[pa.Table, Splits]:
    """Return the group of each clip, and the splits that follow.

    ``clips``: ``clip_id``, in order, and ``source_id``, ``content_id``, ``manifest``, ``split`` and the rest of
    ``CONTENT_KEY``. The table has the columns of ``schema.DUPLICATES``.
    """
    pairs = search.pairs()
    once = np.unique(pairs.clips, axis=0)
    representative = stars(len(clips), once, search.near)
    inside = representative[pairs.clips[:, 0]] == representative[pairs.clips[:, 1]]
    size = np.bincount(representative, minlength=len(clips))[representative]
    kind, distance = _nearest(len(clips), pairs, inside)
    first = np.full(len(clips), len(clips), np.int64)
    np.minimum.at(first, representative, np.arange(len(clips)))
    alone = size < 2
    followed = pairs.clips[pairs.kinds < KINDS.index("semantic")]  # also where a group's bounds part them
    members = np.stack([representative, np.arange(len(clips))], 1)[~alone]
    splits = splits_of(clips, np.concatenate([followed, members]))
    named = np.asarray([*KINDS, None], object)[kind]
    return (
        pa.table(
            {
                "clip_id": clips["clip_id"],
                "source_id": clips["source_id"],
                "duplicate_group": _where(clips["clip_id"].take(pa.array(first[representative])), alone),
                "duplicate_kind": pa.array(named, pa.string()),
                "duplicate_distance": pa.array(distance.astype(np.float64), mask=alone | np.isnan(distance)),
                "duplicate_size": pa.array(size.astype(np.int32)),
                "duplicate_split": splits.split,
            },
            schema=schema.DUPLICATES,
        ),
        splits,
    )


def in_batches(rows: NDArray[np.int64], sizes: NDArray[np.int64], most: int) -> Iterator[NDArray[np.int64]]:
    """Yield ``rows`` in order, in batches whose ``sizes`` come to ``most`` at the most, or of one row."""
    ends = np.cumsum(sizes)
    start = 0
    while start < len(rows):
        before = ends[start - 1] if start else 0
        end = max(start + 1, int(np.searchsorted(ends, before + most, "right")))
        yield rows[start:end]
        start = end


def _nearest(count: int, pairs: Pairs, inside: NDArray[np.bool_]) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Return the strongest kind by which each clip is a copy within its group, and how far off the nearest such one is."""
    ends = pairs.clips[inside].ravel()
    kinds, far = np.repeat(pairs.kinds[inside], 2), np.repeat(pairs.distances[inside], 2)
    order = np.lexsort((far, kinds, ends))
    clips, first = np.unique(ends[order], return_index=True)
    kind, distance = np.full(count, len(KINDS), np.int64), np.full(count, np.nan, np.float32)
    kind[clips], distance[clips] = kinds[order][first], far[order][first]
    return kind, distance


def _where(values: pa.ChunkedArray, null: NDArray[np.bool_]) -> pa.ChunkedArray:
    return pc.if_else(pa.array(~null), values, pa.scalar(None, pa.string()))


def _numbered(table: pa.Table, columns: list[str]) -> NDArray[np.int64]:
    """Return a number for each row, the same for rows with the same values of ``columns``."""
    out = np.zeros(len(table), np.int64)
    for name in columns:
        values = pc.dictionary_encode(table[name], null_encoding="encode").combine_chunks()
        indices = values.chunk(0).indices if isinstance(values, pa.ChunkedArray) else values.indices
        _, out = np.unique(out * len(table) + indices.to_numpy(zero_copy_only=False), return_inverse=True)
    return out.astype(np.int64)
