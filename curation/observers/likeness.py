"""The likeness of two frames is measured in several ways over several spans of time: what the cut network reads.

Each frame is described from a thumbnail by its colours per block, its edges per block, its pixels, and its luma freed of
brightness and contrast. Every boundary between two samples is then measured by comparing the frames on either side of it,
near and far: a hard cut tells them apart at every distance, motion only at long ones, a dissolve ever more. Some measures
do not mind what others do: colours per block don't mind motion, structure doesn't mind light, edges mind neither, and
motion-compensated luma doesn't mind a shaking hand. Pure numpy over arrays of frames; letters: N samples, B blocks.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]

WIDTH, HEIGHT = 64, 36  # px of a thumbnail
ROWS, COLUMNS = 3, 4  # blocks of 12 x 16 px
BLOCKS = ROWS * COLUMNS
LUMA_BINS, CHROMA_BINS = 8, 6
BINS = LUMA_BINS * CHROMA_BINS**2
DIRECTIONS = 8
SPANS = (0, 1, 2, 3, 4, 6, 8, 11, 15)  # samples between a boundary and the frames compared on either side of it
SHIFTED = (0, 1, 3, 6)  # of these, those compared under motion compensation
MIXED = (2, 4, 8)  # of these, those asked whether what lies between them is a mix of both
REACH = 2  # px at half size, the farthest shift: 1/16 of the frame
LOOK = max(SPANS) + 1  # samples around a boundary that its measures see


@dataclass(frozen=True, kw_only=True)
class Described:
    """Samples as vectors. ``small`` (N, 18, 32, 3) uint8 BGR; ``structure`` (N, 576) of norm 1; ``colors`` (N, B, bins)
    and ``edges`` (N, B, directions) of norm 1 per block; ``luma`` (N, 18, 32) int16, the mean taken off;
    ``light`` (N, 3): mean and deviation of luma, and mean saturation, 0 to 1.
    """

    small: NDArray[np.uint8]
    structure: Floats
    colors: Floats
    edges: Floats
    luma: NDArray[np.int16]
    light: Floats

    def __len__(self) -> int:
        return len(self.small)

    def __getitem__(self, which: slice | NDArray[np.intp]) -> Described:
        return Described(**{name: getattr(self, name)[which] for name in FIELDS})


FIELDS = tuple(Described.__dataclass_fields__)


def joined(parts: list[Described]) -> Described:
    """Concatenate samples, one part after the other."""
    return Described(**{name: np.concatenate([getattr(part, name) for part in parts]) for name in FIELDS})


def thumbnail(bgr: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Squash a frame, (h, w, 3), to (36, 64, 3)."""
    if bgr.shape[:2] == (HEIGHT, WIDTH):
        return bgr
    return np.asarray(cv2.resize(bgr, (WIDTH, HEIGHT), interpolation=cv2.INTER_AREA), np.uint8)


def describe(thumbs: NDArray[np.uint8]) -> Described:
    """Describe (N, 36, 64, 3) uint8 BGR thumbnails as vectors."""
    count = len(thumbs)
    # Frames one below the other are one tall picture to OpenCV; sides are even, so that halving mixes no two of them.
    tall = np.ascontiguousarray(thumbs).reshape(count * HEIGHT, WIDTH, 3)
    half = (WIDTH // 2, count * HEIGHT // 2)
    ycc = cv2.cvtColor(tall, cv2.COLOR_BGR2YCrCb).reshape(thumbs.shape)
    small = cv2.resize(tall, half, interpolation=cv2.INTER_AREA).reshape(count, HEIGHT // 2, WIDTH // 2, 3)
    wide = ycc[..., 0].reshape(count * HEIGHT, WIDTH).astype(np.float32)
    gray = cv2.resize(wide, half, interpolation=cv2.INTER_AREA).reshape(count, HEIGHT // 2, WIDTH // 2)
    flat = gray.reshape(count, -1)
    mean, deviation = flat.mean(axis=1), flat.std(axis=1)
    structure = (flat - mean[:, None]) / (deviation[:, None] + 2) / np.float32(flat.shape[1]) ** 0.5
    away = _AWAY[ycc[..., 1:]].reshape(count, -1)
    saturation = away.mean(axis=1, dtype=np.float32)
    return Described(
        small=small,
        structure=structure.astype(np.float32),
        colors=_colors(ycc),
        edges=_edges(ycc[..., 0]),
        luma=np.rint(gray - mean[:, None, None]).astype(np.int16),
        light=(np.stack([mean, deviation, saturation], axis=1) / 255).astype(np.float32),
    )


_AWAY = np.abs(np.arange(256) - 128).astype(np.uint8)
_BLOCK = (np.arange(HEIGHT)[:, None] // (HEIGHT // ROWS)) * COLUMNS + np.arange(WIDTH) // (WIDTH // COLUMNS)
# Chroma is finest about grey, where most of it lies.
_CHROMA = np.searchsorted([108, 120, 128, 136, 148], np.arange(256), side="right").astype(np.int32)
_LUMA = (np.arange(256) * LUMA_BINS // 256).astype(np.int32) * CHROMA_BINS**2


def _colors(ycc: NDArray[np.uint8]) -> Floats:
    """Return square roots of each colour's share in each block, luma bins blurred: their products sum to Bhattacharyya's."""
    count = len(ycc)
    bins = _LUMA[ycc[..., 0]] + _CHROMA[ycc[..., 1]] * CHROMA_BINS + _CHROMA[ycc[..., 2]]
    bins += (_BLOCK * BINS).astype(np.int32)
    bins += (np.arange(count, dtype=np.int32) * (BLOCKS * BINS))[:, None, None]
    counts = np.bincount(bins.ravel(), minlength=count * BLOCKS * BINS).astype(np.float32)
    by_luma = counts.reshape(count, BLOCKS, LUMA_BINS, CHROMA_BINS**2)
    blurred = 2 * by_luma
    blurred[:, :, 1:] += by_luma[:, :, :-1]
    blurred[:, :, :-1] += by_luma[:, :, 1:]
    soft = blurred.reshape(count, BLOCKS, BINS)
    return np.asarray(np.sqrt(soft / soft.sum(axis=2, keepdims=True)), np.float32)


def _edges(luma: NDArray[np.uint8]) -> Floats:
    """Return the strength of edges in each block by direction, of norm at most 1: less where there are hardly any."""
    count = len(luma)
    wide = luma.astype(np.float32)
    dx, dy = np.zeros_like(wide), np.zeros_like(wide)
    dx[:, :, 1:-1] = wide[:, :, 2:] - wide[:, :, :-2]
    dy[:, 1:-1] = wide[:, 2:] - wide[:, :-2]
    # The octant by three comparisons, without a trigonometric function.
    octant = (dx < 0).astype(np.int32) * 4 + (dy < 0) * 2 + (np.abs(dx) < np.abs(dy))
    place = octant + (_BLOCK * DIRECTIONS).astype(np.int32)
    place += (np.arange(count, dtype=np.int32) * (BLOCKS * DIRECTIONS))[:, None, None]
    weights = np.sqrt(np.abs(dx) + np.abs(dy))
    sums = np.bincount(place.ravel(), weights.ravel(), minlength=count * BLOCKS * DIRECTIONS)
    strong = sums.astype(np.float32).reshape(count, BLOCKS, DIRECTIONS)
    return np.asarray(strong / (np.linalg.norm(strong, axis=2, keepdims=True) + 60), np.float32)


# ---- measures -------------------------------------------------------------------------------------------------------

NAMES: tuple[str, ...] = (
    *(
        f"{name}_{span}"
        for span in SPANS
        for name in ("pixels", "structure", "colors", "colors_least", "colors_quarter", "colors_half",
                     "colors_most", "edges", "edges_least")
    ),
    *(f"shifted{name}_{span}" for span in SHIFTED for name in ("", "_least", "_most")),
    *(f"mix_{name}_{span}" for span in MIXED for name in ("share", "rest")),
    "luma_before", "luma_after", "contrast_before", "contrast_after", "saturation_before", "saturation_after",
)  # fmt: skip


def measures(samples: Described) -> Floats:
    """Return (N, measures), columns as ``NAMES``: row t compares across the boundary between samples t - 1 and t.

    Past either end the first and last sample stand in.
    """
    at = np.arange(len(samples))

    def before(span: int) -> NDArray[np.intp]:
        return np.maximum(at - 1 - span, 0)

    def after(span: int) -> NDArray[np.intp]:
        return np.minimum(at + span, len(samples) - 1)

    columns: list[Floats] = []
    for span in SPANS:
        columns += _apart(samples, before(span), after(span))
    for span in SHIFTED:
        columns += _shifted(samples.luma[before(span)], samples.luma[after(span)])
    for span in MIXED:
        columns += _mixed(samples, before(span), at, after(span))
    for part in range(3):
        columns += [samples.light[before(0), part], samples.light[at, part]]
    return np.stack(columns, axis=1).astype(np.float32)


def _apart(samples: Described, old: NDArray[np.intp], new: NDArray[np.intp]) -> list[Floats]:
    """Measure how far apart samples ``old`` and ``new`` are: 0 the same, about 1 nothing in common."""
    pixels = np.empty(len(old), np.float32)
    for row, (before, after) in enumerate(zip(old, new, strict=True)):
        pixels[row] = cv2.norm(samples.small[before], samples.small[after], cv2.NORM_L1)
    structure = 1 - np.einsum("nd,nd->n", samples.structure[old], samples.structure[new])
    common = np.einsum("nbd,nbd->nb", samples.colors[old], samples.colors[new])
    colors = np.sort(1 - common, axis=1)
    edges = 1 - np.einsum("nbd,nbd->nb", samples.edges[old], samples.edges[new])
    # Blocks without edges say nothing of them.
    strength = np.linalg.norm(samples.edges[old], axis=2) + np.linalg.norm(samples.edges[new], axis=2)
    return [
        pixels / np.float32(samples.small[0].size * 64),
        structure,
        colors.mean(axis=1),
        colors[:, 0],
        colors[:, BLOCKS // 4],
        colors[:, BLOCKS // 2],
        colors[:, -1],
        (edges * strength).sum(axis=1) / (strength.sum(axis=1) + np.float32(0.1)),
        edges.min(axis=1),
    ]


def _shifted(old: NDArray[np.int16], new: NDArray[np.int16]) -> list[Floats]:
    """Measure the difference in luma under each block's best shift: its mean, least and most over the blocks."""
    count, rows, columns = old.shape
    height, width = rows - 2 * REACH, columns - 2 * REACH
    inner = new[:, REACH : REACH + height, REACH : REACH + width]
    apart = np.empty(inner.shape, np.int16)
    best: Floats | None = None
    for down in range(2 * REACH + 1):
        for right in range(2 * REACH + 1):
            np.subtract(inner, old[:, down : down + height, right : right + width], out=apart)
            np.abs(apart, out=apart)
            tall = apart.reshape(count * height, width).astype(np.float32)
            # The means of 2 x 4 blocks of 7 x 7.
            blocks = cv2.resize(tall, (width // 7, count * height // 7), interpolation=cv2.INTER_AREA)
            best = np.asarray(blocks if best is None else np.minimum(best, blocks), np.float32)
    assert best is not None
    best = best.reshape(count, -1) / np.float32(40)
    return [best.mean(axis=1), best.min(axis=1), best.max(axis=1)]


def _mixed(samples: Described, old: NDArray[np.intp], middle: NDArray[np.intp], new: NDArray[np.intp]) -> list[Floats]:
    """Measure whether the middle sample mixes the two: the new one's share, and what no mix explains, of their distance."""
    a = samples.small[old].reshape(len(old), -1).astype(np.float32)
    b = samples.small[new].reshape(len(new), -1).astype(np.float32)
    m = samples.small[middle].reshape(len(middle), -1).astype(np.float32)
    way, gone = b - a, m - a
    length = np.einsum("nd,nd->n", way, way) + np.float32(4 * way.shape[1])
    share = np.einsum("nd,nd->n", gone, way) / length
    rest = np.einsum("nd,nd->n", gone, gone) - share**2 * length
    return [np.clip(share, -1, 2), np.sqrt(np.maximum(rest, 0) / length).clip(0, 2)]
