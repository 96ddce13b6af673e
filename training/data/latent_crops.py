"""Crops of a clip, encoded by the frozen models: how they are drawn, encoded and kept in a row.

A crop is a window of a clip on a phase's grid of frames, cropped to its bucket. Of each clip there are K, drawn from
(seed, the clip's content, number) alone. A row keeps the VAE's posterior of their pixels (mean and log-variance, so
that training still samples it), and the conditioning frames as they are, since noise is put on those before they are
encoded. The column and its fields have the names of the format: ``views``, ``shown``.

Shape suffixes: T frames, S conditioning frames, C channels, L tokens, D token width, h, w in latents, H, W in px.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from PIL import Image
from torch import Tensor

from dailies.curation import schema
from dailies.curation.errors import NotEncoded
from dailies.curation.pictures import opened
from dailies.training.data.loaders import MIDDLE
from dailies.training.data.manifest import CROPS, TEXT, LatentsManifest
from dailies.training.data.sampling import first_frame, generator
from dailies.training.models.pixels import Pixels, crop

# ---- writing --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class CropSpec:
    """A crop's place: 0–1 of what its bucket leaves over, in time (``offset``) and on both sides (``crop``, (x, y))."""

    offset: float
    crop: tuple[float, float]


def draw_crops(manifest: LatentsManifest, clip: str, *, held_out: bool) -> list[CropSpec]:
    """Draw the K crops of a clip, of its ``content_key``; the first of one that is ``held_out`` is the middle, which
    validation looks at."""
    specs = []
    for number in range(manifest.views):
        offset, x, y = generator(manifest.seed, f"{CROPS} {clip}", number).random(3)
        drawn = (float(np.float32(x)), float(np.float32(y)))  # as they are kept
        middle = held_out and number == 0
        at = MIDDLE if middle or manifest.crop == "center" else drawn
        specs.append(CropSpec(offset=0.5 if middle else float(offset), crop=at))
    return specs


def media_columns(manifest: LatentsManifest) -> list[pa.Field]:
    """Return the columns that stand in place of the export's video."""
    view = pa.struct(
        [
            schema.field("bucket", pa.int32(), "which of the buckets in latents.json, from 0"),
            schema.field("first", pa.int32(), "its first frame, on the grid of fps from the clip's first frame on"),
            schema.field("crop_x", pa.float32(), "of the room left and right, 0.5 the middle", "ratio"),
            schema.field("crop_y", pa.float32(), "of the room above and below, 0.5 the middle", "ratio"),
            schema.field("moments", pa.binary(), "float16 (T, 8, h, w): mean and log-variance by the VAE, not scaled"),
            schema.field("shown", pa.list_(pa.field("element", pa.binary())), "PNG of each frame that the task shows"),
        ]
    )
    doc = "float16 (L, D): last hidden states of the text encoder"
    texts = [schema.field(TEXT + name, pa.binary(), f"{doc} for {name}") for name in manifest.captions]
    return [schema.field(CROPS, pa.list_(pa.field("element", view)), "of the clip, K of them"), *texts]


def encode_crops(
    frames: Callable[[int, int], Pixels],
    length: int,
    specs: Sequence[CropSpec],
    manifest: LatentsManifest,
    bucket: int,
    moments: Callable[[Pixels], Tensor],
) -> list[dict[str, Any]]:
    """Encode a clip's column ``views``.

    Args:
        frames: Gives its frames [first, last) of ``length`` on the grid, uint8 (T, H, W, 3) covering the bucket.
        moments: ``VideoVae.moments``.

    Raises ``NotEncoded``, and what ``frames`` raises.
    """
    shape = manifest.buckets[bucket]
    firsts = [first_frame(length - shape.frames, spec.offset) for spec in specs]
    begin, end = min(firsts), max(firsts) + shape.frames
    # Decoded in one go where that is no more than all crops need.
    span = frames(begin, end) if end - begin <= len(specs) * shape.frames else None
    crops: dict[tuple[int, tuple[float, float]], Pixels] = {}
    for first, spec in zip(firsts, specs, strict=True):
        if (first, spec.crop) not in crops:  # a short clip leaves no room for different ones
            last = first + shape.frames
            window = frames(first, last) if span is None else span[first - begin : last - begin]
            crops[first, spec.crop] = crop(window, shape.size, spec.crop)
    encoded = torch.split(moments(np.concatenate(list(crops.values()))), shape.frames)
    media = {
        key: {"moments": _float16(values), "shown": [_png(pixels[number]) for number in manifest.shown]}
        for (key, pixels), values in zip(crops.items(), encoded, strict=True)
    }
    return [
        {"bucket": bucket, "first": first, "crop_x": spec.crop[0], "crop_y": spec.crop[1], **media[first, spec.crop]}
        for first, spec in zip(firsts, specs, strict=True)
    ]


def encode_texts(
    row: Mapping[str, Any], manifest: LatentsManifest, encoder: Callable[[Sequence[str]], Tensor]
) -> dict[str, bytes]:
    """Encode a clip's columns ``text_…``: each caption by a ``TextEncoder``, a missing one as an empty text.

    Raises ``NotEncoded``.
    """
    return {TEXT + column: _float16(encoder([row[column] or ""])[0]) for column in manifest.captions}


def _float16(values: Tensor) -> bytes:
    half = values.half()
    if not bool(torch.isfinite(half).all()):
        raise NotEncoded("a frozen model produced values that float16 cannot hold")
    return half.contiguous().numpy().tobytes()


def _png(picture_HWC: Pixels) -> bytes:
    out = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(picture_HWC)).save(out, "png", compress_level=3)
    return out.getvalue()


# ---- reading --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class LatentCrop:
    """One encoded crop.

    ``moments``: float16 (T, 8, h, w), not scaled. ``conditioning``: uint8 (S, H, W, 3). ``text``: float16 (L, D).
    """

    moments: Tensor
    conditioning: Pixels
    text: Tensor | None


def decode_crop(
    row: pa.StructScalar,
    manifest: LatentsManifest,
    conditioning_frames: Sequence[int],
    text: bytes | None,
    frames: int | None = None,
) -> LatentCrop:
    """Decode one of a row's crops, with those of its kept frames that ``conditioning_frames`` names, in that order.
    ``frames``: of the moments only so many."""
    bucket = row["bucket"].as_py()
    values = np.frombuffer(row["moments"].as_buffer(), np.float16)
    moments = torch.from_numpy(values.reshape(manifest.moments_shape(bucket))[:frames].copy())
    width, height = manifest.buckets[bucket].size
    pictures = [_picture(row["shown"][manifest.shown.index(number)].as_py()) for number in conditioning_frames]
    tokens = None
    if text is not None:
        tokens = torch.from_numpy(np.frombuffer(text, np.float16).reshape(-1, manifest.text_width or 1).copy())
    return LatentCrop(
        moments=moments,
        conditioning=np.stack(pictures) if pictures else np.empty((0, height, width, 3), np.uint8),
        text=tokens,
    )


def _picture(data: bytes) -> Pixels:
    with opened(data) as picture:
        return np.asarray(picture)
