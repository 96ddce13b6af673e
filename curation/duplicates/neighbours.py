"""Pairs of embeddings that are nearly parallel, near n log n and within bounded memory.

Embeddings are gathered into about n / 256 lists around centres that FAISS finds (k-means in their first principal
components), and each is compared, in full, with those of the ``PROBES`` lists whose centres are nearest to it: a list at a
time, as one product of two matrices. Few of them are compared all with all, which needs no FAISS. Of each, the
``NEIGHBOURS`` nearest over the limit are kept, so that a million of the same picture stay a million pairs.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

EXHAUSTIVE = 16_384  # embeddings up to which all are compared with all
LIST = 256  # embeddings of a list, on average
MOST_LISTS = 65_536
LONGEST = 8_192  # embeddings of a list that one of its own is compared with
PROBES = 4
COMPONENTS = 64
TRAINED_ON = 32  # embeddings a centre
NEIGHBOURS = 16
BATCH = 32_768
SEED = 0


def near_pairs(vectors: NDArray[np.float16], least: float) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Return pairs (m, 2) of ``vectors`` whose cosine is ``least`` or more, each once, the smaller first, and 1 - cosine.

    ``vectors`` (n, channels) are of length 1; they may be a file mapped into memory.
    """
    count = len(vectors)
    parts = _all_with_all(vectors, least) if count <= EXHAUSTIVE else _list_by_list(vectors, least)
    lefts, rights, cosines = [np.empty(0, np.int64)], [np.empty(0, np.int64)], [np.empty(0, np.float32)]
    for left, right, cosine in parts:
        lefts.append(np.minimum(left, right))
        rights.append(np.maximum(left, right))
        cosines.append(cosine)
    keys, first = np.unique(np.concatenate(lefts) * count + np.concatenate(rights), return_index=True)
    pairs = np.stack([keys // max(count, 1), keys % max(count, 1)], 1)
    return pairs, np.maximum(1 - np.concatenate(cosines)[first], 0).astype(np.float32)


Found = tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]


def _all_with_all(vectors: NDArray[np.float16], least: float) -> Iterator[Found]:
    everyone = np.arange(len(vectors))
    whole = vectors.astype(np.float32)
    for at in range(0, len(vectors), 1024):
        yield _nearest(whole[at : at + 1024], everyone[at : at + 1024], whole, everyone, least)


def _nearest(
    asking: NDArray[np.float32],
    who: NDArray[np.int64],
    among: NDArray[np.float32],
    whom: NDArray[np.int64],
    least: float,
) -> Found:
    """Return the nearest ``NEIGHBOURS`` of ``asking`` that are near enough, by the numbers ``who`` and ``whom`` they go by."""
    cosines = asking @ among.T
    cosines[who[:, None] == whom[None, :]] = -2
    if cosines.shape[1] > NEIGHBOURS:
        kept = np.partition(cosines, -NEIGHBOURS, axis=1)[:, -NEIGHBOURS][:, None]
    else:
        kept = np.full((len(who), 1), -2, np.float32)
    row, column = np.nonzero(cosines >= np.maximum(kept, least))
    if len(row) > NEIGHBOURS * len(who):  # many are equally near
        rank = np.arange(len(row)) - np.searchsorted(row, row)
        row, column = row[rank < NEIGHBOURS], column[rank < NEIGHBOURS]
    return who[row], whom[column], cosines[row, column]


def _list_by_list(vectors: NDArray[np.float16], least: float) -> Iterator[Found]:
    probed = _probes(vectors)
    home = np.argsort(probed[:, 0], kind="stable")
    lists = np.arange(int(probed.max()) + 2)
    begins = np.searchsorted(probed[home, 0], lists)
    asking = np.argsort(probed.ravel(), kind="stable")
    asked = np.searchsorted(probed.ravel()[asking], lists)
    for number in lists[:-1]:
        members = home[begins[number] : begins[number + 1]]
        visitors = asking[asked[number] : asked[number + 1]] // probed.shape[1]
        if len(members) <= LONGEST:
            groups = [(visitors, members)] if len(members) else []
        else:  # much of one kind: each is compared with a part, and neighbouring parts share one
            parts = [members[at : at + LONGEST] for at in range(0, len(members), LONGEST - 1)]
            strangers = visitors[~np.isin(visitors, members)]
            groups = [*((part, part) for part in parts), (strangers, parts[0])]
        for visiting, visited in groups:
            among = vectors[visited].astype(np.float32)
            for at in range(0, len(visiting), 1024):
                who = visiting[at : at + 1024]
                yield _nearest(vectors[who].astype(np.float32), who, among, visited, least)


def _probes(vectors: NDArray[np.float16]) -> NDArray[np.int32]:
    """Return, for each of ``vectors``, the numbers of the lists that are nearest to it, the nearest first."""
    import faiss

    count, channels = vectors.shape
    lists = min(max(count // LIST, 1), MOST_LISTS)
    sample = np.sort(np.random.default_rng(SEED).permutation(count)[: lists * TRAINED_ON])
    some = vectors[sample].astype(np.float32)
    components = min(COMPONENTS, channels)
    turn = faiss.PCAMatrix(channels, components)
    turn.train(some[:: max(len(some) // 65_536, 1)])
    means = faiss.Kmeans(
        components, lists, niter=6, seed=SEED, max_points_per_centroid=TRAINED_ON, min_points_per_centroid=1
    )
    means.train(turn.apply(some))
    assert means.centroids is not None
    index = faiss.IndexHNSWFlat(components, 32)  # so that finding a list takes log n
    index.add(means.centroids)
    index.hnsw.efSearch = 32
    out = np.empty((count, PROBES), np.int32)
    for at in range(0, count, BATCH):
        out[at : at + BATCH] = index.search(turn.apply(vectors[at : at + BATCH].astype(np.float32)), PROBES)[1]
    return out
