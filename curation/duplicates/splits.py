"""Splits that follow groups: clips that are alike, and clips of one source, are trained on or held out together."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from dailies.curation import schema
from dailies.curation.config import read_object
from dailies.curation.duplicates.groups import components
from dailies.curation.errors import UsageError

HELD_OUT_FIRST = ("test", "validation", "train")
"""Of several splits that manifests name within one set of clips, the first of these holds: what was to be held out is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Splits:
    """``split`` of each clip; ``overruled``: how many clips a manifest puts into another one; ``largest``: clips of the
    largest set that stays together."""

    split: pa.Array
    overruled: int
    largest: int


def splits_of(clips: pa.Table, pairs: NDArray[np.int64]) -> Splits:
    """Return the split of each clip.

    ``clips``: ``source_id``, ``content_id``, ``manifest`` and ``split`` as cut; ``pairs`` (m, 2): of clips that stay together.

    Clips of one source stay together too, but where a manifest names a split for some spans of it. A set of sources that
    hang together takes the split that manifests name for one of them, else that of the smallest content id: it follows from
    what is in the dataset and not from the order in which it came.
    """
    named = _named(clips["manifest"])
    units = pa.array(pc.binary_join_element_wise(clips["source_id"], pc.fill_null(named, ""), "/")).dictionary_encode()
    unit = np.asarray(units.indices.to_numpy(zero_copy_only=False), np.int64)
    of_unit = components(len(units.dictionary), np.unique(unit[pairs], axis=0) if len(pairs) else pairs)
    together = of_unit[unit]
    # The order in which a set's clips are asked for its split: named ones, held out first, then by content.
    priority = pc.fill_null(pc.index_in(named, value_set=pa.array(HELD_OUT_FIRST)), len(HELD_OUT_FIRST))
    order = pc.sort_indices(
        pa.table({"set": together, "priority": priority, "content": clips["content_id"]}),
        sort_keys=[("set", "ascending"), ("priority", "ascending"), ("content", "ascending")],
    ).to_numpy()
    ordered = together[order]
    first = np.ones(len(ordered), bool)
    first[1:] = ordered[1:] != ordered[:-1]
    asked = np.zeros(len(of_unit), np.int64)
    asked[ordered[first]] = order[first]
    splits = clips["split"].take(pa.array(asked[together])).combine_chunks()
    overruled = pc.and_(pc.is_valid(named), pc.not_equal(named, splits))
    return Splits(
        split=splits,
        overruled=pc.sum(pc.fill_null(overruled, False)).as_py() or 0,
        largest=int(np.bincount(together).max(initial=0)),
    )


def _named(manifests: pa.ChunkedArray) -> pa.Array:
    """Return the split that each clip's manifest names, null where it names none."""
    coded = pc.dictionary_encode(manifests).combine_chunks()
    coded = coded.chunk(0) if isinstance(coded, pa.ChunkedArray) else coded
    texts = coded.dictionary.to_pylist()
    splits = [schema.split_in(read_object(text, "manifest of a source", UsageError)) for text in texts]
    return pa.array(splits, pa.string()).take(coded.indices)
