"""Signatures and embeddings out of their tables, batch by batch, as arrays."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from dailies.curation.duplicates.alike import Signatures
from dailies.curation.duplicates.find import Embeddings
from dailies.curation.duplicates.signatures import PIXELS, inside
from dailies.curation.errors import DatasetError

log = logging.getLogger("dailies")

EMBEDDING = "embedding"
"""The column of a scorer's table by whose likeness clips are semantic duplicates."""
SIGNATURE_COLUMNS = ("clip_id", "seconds", "pictures", "inner", "bars")


def read_signatures(batches: Iterable[pa.RecordBatch], clip_ids: pa.Array) -> Signatures:
    """Return the frames of those of ``clip_ids`` that ``batches`` have, with ``SIGNATURE_COLUMNS``; a clip goes by its place.

    Raises ``DatasetError`` for a picture of another size than there are.
    """
    pictures, seconds, counts = [np.empty((0, PIXELS), np.uint8)], [np.empty(0)], [np.empty(0, np.int64)]
    ids, told = [pa.array([], pa.string())], [np.empty((0, PIXELS), bool)]
    for batch in batches:
        barred = batch.filter(pc.is_valid(batch["inner"]))
        bars = {row: inside(bars) for row, bars in enumerate(batch["bars"].to_pylist()) if bars is not None}
        outside = np.ones((len(batch), PIXELS), bool)
        if bars:
            outside[list(bars)] = np.stack(list(bars.values()))
        for rows, column, blocks in (
            (batch, "pictures", outside),
            (barred, "inner", np.ones((len(barred), PIXELS), bool)),
        ):
            pictures.append(_pictures(rows[column]))
            seconds.append(np.asarray(rows["seconds"].flatten().to_numpy(zero_copy_only=False), np.float64))
            counts.append(np.asarray(pc.list_value_length(rows[column]).to_numpy(zero_copy_only=False), np.int64))
            ids.append(rows["clip_id"])
            told.append(blocks)
    clips = _places(pa.chunked_array(ids), clip_ids)
    frames = np.concatenate(counts)
    sequences = np.repeat(np.arange(len(clips)), frames)
    wanted = (clips >= 0)[sequences]
    return Signatures.of(
        [np.concatenate(pictures)[wanted]],
        [np.concatenate(seconds)[wanted]],
        [sequences[wanted]],
        clips,
        np.concatenate(told),
    )


def _pictures(column: pa.Array) -> NDArray[np.uint8]:
    """Return a column of lists of pictures as (pictures, 256)."""
    flat = column.flatten()
    try:
        fixed = flat.cast(pa.binary(PIXELS))
    except pa.ArrowInvalid as error:
        raise DatasetError(
            f"signatures: a picture is not of {PIXELS} bytes; delete the table and curate again"
        ) from error
    values = np.frombuffer(fixed.buffers()[1] or b"", np.uint8)
    start = fixed.offset * PIXELS
    return values[start : start + len(fixed) * PIXELS].reshape(-1, PIXELS)


def _places(ids: pa.ChunkedArray, clip_ids: pa.Array) -> NDArray[np.int64]:
    """Return where each of ``ids`` stands among ``clip_ids``, -1 where it does not."""
    places = pc.fill_null(pc.index_in(ids, value_set=clip_ids), -1)
    return np.asarray(places.to_numpy(), np.int64)


def read_embeddings(batches: Iterable[pa.RecordBatch], clip_ids: pa.Array, count: int, file: Path) -> Embeddings:
    """Return those of ``clip_ids`` that ``batches``, of ``count`` rows at most, have an embedding of, brought to length 1.

    They are written to ``file`` in half precision, and read from there. One that is not finite or all 0 has no direction: it is
    left out, and a warning says of how many, for a single NaN would be the nearest of every other. Raises ``DatasetError``
    where they differ in length.
    """
    vectors: NDArray[np.float16] | None = None
    ids, filled, left_out = [pa.array([], pa.string())], 0, 0
    for batch in batches:
        rows = batch.filter(pc.is_valid(batch[EMBEDDING]))
        if not len(rows):
            continue
        lengths = pc.unique(pc.list_value_length(rows[EMBEDDING])).to_pylist()
        channels = lengths[0] if vectors is None else vectors.shape[1]
        if lengths != [channels]:
            raise DatasetError(
                f"{EMBEDDING}: embeddings of {sorted({*lengths, channels})} numbers; one model makes one length"
            )
        if vectors is None:
            vectors = np.memmap(file, np.float16, "w+", shape=(count, channels))
        part = np.asarray(rows[EMBEDDING].flatten().to_numpy(zero_copy_only=False), np.float32).reshape(-1, channels)
        norms = np.linalg.norm(part, axis=1, keepdims=True)
        sound = np.isfinite(norms[:, 0]) & (norms[:, 0] > 0)
        left_out += int((~sound).sum())
        part = part[sound] / norms[sound]
        vectors[filled : filled + len(part)] = part
        ids.append(rows["clip_id"].filter(pa.array(sound)))
        filled += len(part)
    if left_out:
        log.warning(
            f"{left_out} of the embeddings have no direction (not finite, or all 0); these clips have no semantic copies"
        )
    if vectors is None:
        return Embeddings(clips=np.empty(0, np.int64), vectors=np.empty((0, 1), np.float16))
    return Embeddings(clips=_places(pa.chunked_array(ids), clip_ids), vectors=vectors[:filled])
