"""Batches of the rendered clips for the built-in video captioner: pictures as it sees them, and what the heads are told."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dailies.curation.world.script import Shot
from scripts.builtin.clips import MOST_SHAPES, ClipSet, scene
from scripts.builtin.frames import GROUND_NAMES, TEXTURES, patch_labels
from scripts.builtin.learning import MEAN, STD
from scripts.builtin.video_model import GRID, MERGE, PATCH

# What moves by this share of the frame's height, or grows by this factor's logarithm, counts as little.
LITTLE = (0.03, 0.03, 0.05)


@dataclass(frozen=True, kw_only=True)
class PairBatch:
    """Pairs of pictures, one of which the model sees as one: N pairs of P patches, merged patches together.

    ``patches_NPE``: pixels of both pictures, normalised. ``kinds_NP`` and ``colors_NP`` under each patch of the first
    picture, ``later_NP``: kinds in the second. ``moves_NP3``: how the shape there moves against the background and grows
    until the second, ``known_NP``: where that is known. ``camera_N3``: how the background moves and grows. ``grounds_N``.
    """

    patches_NPE: Tensor  # noqa: N815
    kinds_NP: Tensor  # noqa: N815
    colors_NP: Tensor  # noqa: N815
    later_NP: Tensor  # noqa: N815
    moves_NP3: Tensor  # noqa: N815
    known_NP: Tensor  # noqa: N815
    camera_N3: Tensor  # noqa: N815
    grounds_N: Tensor  # noqa: N815


def merged_order() -> NDArray[np.int64]:
    """The patches of a picture, in rows, as the model takes them: those that will be merged follow each other."""
    rows, columns = GRID
    index = np.arange(rows * columns).reshape(rows // MERGE, MERGE, columns // MERGE, MERGE)
    return index.transpose(0, 2, 1, 3).ravel()


def patches(pairs_N2HWC: Tensor, rng: np.random.Generator | None) -> Tensor:  # noqa: N803
    """(N, 2, h, w, 3) uint8 to (N, P, E) float32, as the processor's: E = colour, picture, row, column of a patch.

    ``rng``: changes the light of each pair a little.
    """
    n, (rows, columns) = len(pairs_N2HWC), GRID
    mean, std = torch.tensor(MEAN), torch.tensor(STD)
    scale, shift = 1 / (255 * std), -mean / std
    x = pairs_N2HWC.view(n, 2, rows // MERGE, MERGE, PATCH, columns // MERGE, MERGE, PATCH, 3)
    x = x.permute(0, 2, 5, 3, 6, 8, 1, 4, 7).reshape(n, rows * columns, 3, -1).float()
    scale_N13, shift_N13 = scale.expand(n, 1, 3), shift.expand(n, 1, 3)  # noqa: N806
    if rng is not None:
        gain = torch.from_numpy(rng.uniform(0.9, 1.1, (n, 1, 1)).astype(np.float32))
        lift = torch.from_numpy(rng.uniform(-0.04, 0.04, (n, 1, 1)).astype(np.float32))
        scale_N13, shift_N13 = scale_N13 * gain, shift_N13 + lift / std  # noqa: N806
    x = x * scale_N13[..., None] + shift_N13[..., None]
    return x.flatten(2)


class Clips:
    """The training clips with the facts that batches are made of, ``shots`` by row."""

    def __init__(self, clips: ClipSet) -> None:
        self.clips = clips
        self.shots: list[Shot] = []
        self.sizes: list[tuple[int, float]] = []
        for number in clips.numbers.tolist():
            script = scene(number)
            self.shots.append(script.shots[0])
            self.sizes.append((min(script.size), script.fps))
        self.grounds = np.array(
            [
                TEXTURES.index(shot.background.texture) * len(GROUND_NAMES) + GROUND_NAMES.index(shot.background.color)
                for shot in self.shots
            ]
        )
        self._order = merged_order()

    def pairs(
        self, rows: NDArray[np.int64], first: NDArray[np.int64], second: NDArray[np.int64], rng: np.random.Generator
    ) -> PairBatch:
        """Pictures ``first`` and ``second`` of each of ``rows``, all (N,)."""
        clips = self.clips
        pixels = np.stack([clips.pictures(row)[[one, two]] for row, one, two in np.stack([rows, first, second], 1)])
        before, after = clips.shapes[rows, first], clips.shapes[rows, second]
        start, end = clips.cameras[rows, first], clips.cameras[rows, second]
        kinds, colors = patch_labels(before, GRID)
        later, _ = patch_labels(after, GRID)
        zoom = end[:, 2] / start[:, 2]
        middle = np.array([16 / 9 / 2, 0.5], np.float32)  # in shares of the height, as the places are
        pan = end[:, 2:] * (start[:, :2] - end[:, :2])
        camera = np.concatenate([pan, np.log(zoom)[:, None]], 1)
        moves = np.zeros((*kinds.shape, 3), np.float32)
        known = np.zeros(kinds.shape, bool)
        for slot in range(MOST_SHAPES):
            one = before[:, slot]
            # The same shape in the second picture, where it is seen there.
            same = (after[:, :, :2] == one[:, None, :2]).all(-1) & (one[:, None, 0] >= 0)
            two = np.take_along_axis(after, same.argmax(1)[:, None, None], 1)[:, 0]
            carried = middle + zoom[:, None] * (one[:, 2:4] - middle) + pan
            step = two[:, 2:4] - carried
            growth = np.log(np.maximum(two[:, 4], 1e-3) / np.maximum(one[:, 4], 1e-3)) - np.log(zoom)
            told = np.concatenate([step, growth[:, None]], 1)
            under = (kinds == one[:, :1]) & (colors == one[:, 1:2]) & same.any(1)[:, None]
            moves = np.where(under[..., None], told[:, None], moves)
            known |= under
        order = self._order
        return PairBatch(
            patches_NPE=patches(torch.from_numpy(pixels), rng),
            kinds_NP=torch.from_numpy(kinds[:, order]),
            colors_NP=torch.from_numpy(colors[:, order]),
            later_NP=torch.from_numpy(later[:, order]),
            moves_NP3=torch.from_numpy(np.arcsinh(moves[:, order] / LITTLE).astype(np.float32)),
            known_NP=torch.from_numpy(known[:, order]),
            camera_N3=torch.from_numpy(np.arcsinh(camera / LITTLE).astype(np.float32)),
            grounds_N=torch.from_numpy(self.grounds[rows]),
        )


def pair_batches(clips: Clips, *, batch: int, steps: int, seed: int) -> Iterator[PairBatch]:
    """Pairs of neighbouring pictures, each of another clip."""
    rng = np.random.default_rng([seed, 0xBB])
    counts = clips.clips.counts
    for _ in range(steps):
        rows = np.sort(rng.choice(len(counts), batch, replace=False))
        first = rng.integers(0, counts[rows] - 1)
        yield clips.pairs(rows, first, first + 1, rng)


@dataclass(frozen=True, kw_only=True)
class ClipBatch:
    """``rows`` (B,) of clips that all make ``pairs_each`` pairs; ``pairs``: those of the first clip, then of the next;
    ``times_BT`` s: of each pair, halfway between its pictures.
    """

    rows: NDArray[np.int64]
    pairs_each: int
    pairs: PairBatch
    times_BT: NDArray[np.float64]  # noqa: N815


def clip_batches(clips: Clips, *, batch: int, steps: int, seed: int) -> Iterator[ClipBatch]:
    """Whole clips; of a third of them the first picture is left out, so that other pictures make pairs."""
    rng = np.random.default_rng([seed, 0xBC])
    counts = clips.clips.counts
    for _ in range(steps):
        skips = (rng.random(len(counts)) < 0.33) & (counts > 3)
        each = (counts - skips + 1) // 2
        # A clip is as likely as any other, and a batch is of one length.
        pairs_each = int(each[rng.integers(len(each))])
        alike = np.flatnonzero(each == pairs_each)
        rows = np.sort(rng.choice(alike, min(batch, len(alike)), replace=False))
        first = skips[rows][:, None] + 2 * np.arange(pairs_each)
        second = np.minimum(first + 1, counts[rows][:, None] - 1)  # an odd last picture is seen twice
        times = clips.clips.times
        halfway = (np.take_along_axis(times[rows], first, 1) + np.take_along_axis(times[rows], second, 1)) / 2
        each_row = np.repeat(rows, pairs_each)
        yield ClipBatch(
            rows=rows,
            pairs_each=pairs_each,
            pairs=clips.pairs(each_row, first.ravel(), second.ravel(), rng),
            times_BT=halfway,
        )
