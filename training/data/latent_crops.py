"""Views of a clip as the frozen models see them: how they are drawn, encoded, kept in a row, and read for training.

A view is a window of a clip on a phase's grid of frames, cropped to its bucket. Of each clip there are K, drawn from
(seed, clip, number) alone: what the VAE says of their pixels (the posterior's mean and log-variance, so that training
still samples it), and the frames that the task shows as they are, since noise is put on those before they are encoded.

Shape suffixes: T frames, S frames shown, C channels, L tokens, D token width, h, w in latents, H, W in px.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import torch
from PIL import Image
from torch import Tensor

from dailies.curation import schema
from dailies.training.data.manifest import Facts
from dailies.training.data.reader import a_number
from dailies.training.data.sampling import generator
from dailies.training.models.pixels import Pixels, crop

if TYPE_CHECKING:
    from dailies.training.data.items import Export, Row

VIEWS, TEXT = "views", "text_"  # columns; the latter's names end in those of the captions
CACHE_BYTES = 1 << 30
MIDDLE = (0.5, 0.5)

# ---- making ---------------------------------------------------------------------------------------------------------


class NotFinite(ValueError):
    """What a frozen model made of a clip cannot be kept as float16."""


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where a view lies: 0–1 of the room that its bucket leaves in time and on both sides."""

    offset: float
    crop: tuple[float, float]


def places(facts: Facts, clip_id: str, *, held_out: bool) -> list[Place]:
    """The K views of a clip; the first of one that is ``held_out`` is the middle, which validation looks at."""
    made = []
    for number in range(facts.views):
        offset, x, y = generator(facts.seed, f"{VIEWS} {clip_id}", number).random(3)
        where = (float(np.float32(x)), float(np.float32(y)))  # as they are kept
        middle = held_out and number == 0
        made.append(
            Place(offset=0.5 if middle else float(offset), crop=MIDDLE if middle or facts.crop == "center" else where)
        )
    return made


def first_frame(room: int, offset: float) -> int:
    """Which of ``room`` + 1 first frames an offset of 0–1 says."""
    return min(room, int(offset * (room + 1)))


def columns(facts: Facts) -> list[pa.Field]:
    """The columns that stand in place of the export's video."""
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
    texts = [schema.field(TEXT + name, pa.binary(), f"{doc} for {name}") for name in facts.captions]
    return [schema.field(VIEWS, pa.list_(pa.field("element", view)), "of the clip, K of them"), *texts]


def encode_views(
    frames: Callable[[int, int], Pixels],
    length: int,
    where: Sequence[Place],
    facts: Facts,
    bucket: int,
    moments: Callable[[Pixels], Tensor],
) -> list[dict[str, Any]]:
    """A clip's column ``views``.

    ``frames``: its frames [first, last) of ``length`` on the grid, uint8 (T, H, W, 3) covering the bucket; ``moments``:
    ``VideoVae.moments``. Raises ``NotFinite``, and what ``frames`` raises.
    """
    shape = facts.buckets[bucket]
    firsts = [first_frame(length - shape.frames, place.offset) for place in where]
    begin, end = min(firsts), max(firsts) + shape.frames
    # Decoded in one go where that holds no more than all views do.
    whole = frames(begin, end) if end - begin <= len(where) * shape.frames else None
    cut: dict[tuple[int, tuple[float, float]], Pixels] = {}
    for first, place in zip(firsts, where, strict=True):
        if (first, place.crop) not in cut:  # short clips have no room for different views
            seen = (
                frames(first, first + shape.frames)
                if whole is None
                else whole[first - begin : first - begin + shape.frames]
            )
            cut[first, place.crop] = crop(seen, shape.size, place.crop)
    encoded = torch.split(moments(np.concatenate(list(cut.values()))), shape.frames)
    rows = {
        key: {"moments": _half(made), "shown": [_png(pixels[number]) for number in facts.shown]}
        for (key, pixels), made in zip(cut.items(), encoded, strict=True)
    }
    return [
        {"bucket": bucket, "first": first, "crop_x": place.crop[0], "crop_y": place.crop[1], **rows[first, place.crop]}
        for first, place in zip(firsts, where, strict=True)
    ]


def encode_texts(row: Mapping[str, Any], facts: Facts, encoder: Callable[[Sequence[str]], Tensor]) -> dict[str, bytes]:
    """A clip's columns ``text_…``: each caption through a ``TextEncoder``; a missing one is an empty text."""
    return {TEXT + column: _half(encoder([row[column] or ""])[0]) for column in facts.captions}


def _half(values: Tensor) -> bytes:
    half = values.half()
    if not bool(torch.isfinite(half).all()):
        raise NotFinite("a frozen model gives numbers that are not finite in float16")
    return half.contiguous().numpy().tobytes()


def _png(picture_HWC: Pixels) -> bytes:
    out = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(picture_HWC)).save(out, "png", compress_level=3)
    return out.getvalue()


# ---- reading --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class View:
    """``moments``: float16 (T, 8, h, w), not scaled. ``shown``: uint8 (S, H, W, 3). ``text``: float16 (L, D)."""

    moments: Tensor
    shown: Pixels
    text: Tensor | None


def decode_view(
    row: pa.StructScalar, facts: Facts, shown: Sequence[int], text: bytes | None, frames: int | None = None
) -> View:
    """One of a row's views, with the ``shown`` ones of its frames that are kept, in that order. ``frames``: of the
    moments only so many."""
    bucket = row["bucket"].as_py()
    values = np.frombuffer(row["moments"].as_buffer(), np.float16)
    moments = torch.from_numpy(values.reshape(facts.moments_shape(bucket))[:frames].copy())
    width, height = facts.buckets[bucket].size
    pictures = [_picture(row["shown"][facts.shown.index(number)].as_py()) for number in shown]
    tokens = None
    if text is not None:
        tokens = torch.from_numpy(np.frombuffer(text, np.float16).reshape(-1, facts.text_width or 1).copy())
    return View(
        moments=moments,
        shown=np.stack(pictures) if pictures else np.empty((0, height, width, 3), np.uint8),
        text=tokens,
    )


def _picture(data: bytes) -> Pixels:
    with Image.open(io.BytesIO(data)) as picture:
        return np.asarray(picture)


class Views:
    """Clips of one bucket, as latents. ``frames``: of each view, from its first on; a picture is a view's first frame.

    Where all fit into ``CACHE_BYTES``, each view is read once. ``shown``: the frames asked of those that are kept."""

    def __init__(
        self, export: Export, rows: Sequence[Row], lengths: Sequence[int], frames: int, shown: Sequence[int] = ()
    ) -> None:
        assert export.latents is not None
        self.facts: Facts = export.latents
        self._export, self._rows, self._frames, self._shown = export, list(rows), frames, tuple(shown)
        self.ids: list[str] = [row.columns["clip_id"] for row in self._rows]
        self.lengths = list(lengths)
        self.fits = len(self._rows) * self.facts.views * self._view_bytes() <= CACHE_BYTES
        self._kept: dict[tuple[int, int, str | None], View] = {}

    def _view_bytes(self) -> int:
        """Of a view in memory, at most, with each of its texts."""
        largest = max(shape.size[0] * shape.size[1] for shape in self.facts.buckets)
        moments = 2 * 8 * self._frames * largest // self.facts.factor**2
        texts = 2 * (self.facts.text_tokens or 0) * (self.facts.text_width or 0)
        return (moments + texts) * max(1, len(self.facts.captions)) + 3 * largest * len(self._shown)

    def some(self, chosen: Sequence[int]) -> Views:
        """Some of them."""
        rows, lengths = [self._rows[i] for i in chosen], [self.lengths[i] for i in chosen]
        return Views(self._export, rows, lengths, self._frames, self._shown)

    def caption(self, index: int, column: str) -> str:
        return self._rows[index].columns[column] or ""

    def number(self, index: int, column: str) -> float | None:
        return a_number(self._rows[index].columns.get(column))

    def which(self, offset: float) -> int:
        """The number of the view that a draw's offset says."""
        return min(self.facts.views - 1, int(offset * self.facts.views))

    def view(self, index: int, number: int, column: str | None = None) -> View:
        """View ``number`` of a clip, with the text of caption ``column``. Callable from threads.

        Raises ``OSError`` where the shard cannot be read."""
        key = index, number, column
        if key in self._kept:
            return self._kept[key]
        named = [VIEWS] if column is None else [VIEWS, TEXT + column]
        cells = self._export.cells(self._rows[index], named)
        text = None if column is None else cells[TEXT + column].as_py()
        view = decode_view(cells[VIEWS][number], self.facts, self._shown, text, self._frames)
        if self.fits:
            self._kept[key] = view
        return view
