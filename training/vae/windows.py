"""Windows of frames of an export's clips, on which a temporal decoder is trained and judged."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from dailies.curation.errors import ExportError, item_error
from dailies.curation.plain_text import counted
from dailies.training.data.export import Export
from dailies.training.data.reader import read
from dailies.training.data.sampling import generator
from dailies.training.data.split import DATA_RULES, MEASURES, in_order
from dailies.training.models.pixels import Pixels, crop
from dailies.training.vae.recipe import VaeRecipe

CACHE_BYTES = 1 << 30
NEEDED = ("clip_id", "split", "frames", "fps", "width", "height")


@dataclass(frozen=True, kw_only=True)
class Window:
    """A window of a clip. ``frames``: uint8 (T, H, W, 3). ``rng``: for what else is drawn for it."""

    clip_id: str
    frames: Pixels
    rng: np.random.Generator

    @property
    def clip_ids(self) -> tuple[str, ...]:
        return (self.clip_id,)


class Windows:
    """Draws windows of frames of some of an export's clips, each from (seed, position) and the clips alone.

    Clips are decoded once and kept where all of them fit into ``CACHE_BYTES``, otherwise up to a window's end each
    time. ``failed``: clips that could not be read, with the reason; the next one takes such a clip's place.
    """

    def __init__(self, export: Export, numbers: Sequence[int], recipe: VaeRecipe) -> None:
        """Draw from the clips ``numbers``: of the export's rows."""
        self._export, self.recipe = export, recipe
        self._rows = [export.rows[number] for number in numbers]
        self.clip_ids: list[str] = [row.columns["clip_id"] for row in self._rows]
        self._lengths = [length(row.columns, recipe.fps) for row in self._rows]
        self._keeps = sum(map(self._bytes, range(len(self._rows)))) <= CACHE_BYTES
        self._kept: dict[int, Pixels] = {}
        self.failed: dict[str, str] = {}

    def __len__(self) -> int:
        return len(self.clip_ids)

    def draw(self, position: int) -> Window:
        """Return the training window at ``position``; every clip comes once per epoch."""
        epoch, place = divmod(position, len(self))
        order = generator(self.recipe.seed, "vae order", epoch).permutation(len(self))
        rng = generator(self.recipe.seed, "vae", position)
        offset, x, y = rng.random(3)
        clip_id, frames = self._readable(int(order[place]), offset, (x, y))
        return Window(clip_id=clip_id, frames=frames, rng=rng)

    def middle(self, number: int) -> tuple[str, Pixels]:
        """Return id and frames (T, H, W, 3) from the middle of clip ``number``, in time and in space."""
        return self._readable(number, 0.5, (0.5, 0.5))

    def _readable(self, item: int, offset: float, where: tuple[float, float]) -> tuple[str, Pixels]:
        for step in range(len(self)):
            number = (item + step) % len(self)
            if self.clip_ids[number] in self.failed:
                continue
            try:
                return self.clip_ids[number], self._window(number, offset, where)
            except Exception as error:  # whatever its bytes make a decoder raise; what is not the clip's fault goes on
                fault = item_error(error)
                self.failed[self.clip_ids[number]] = f"{fault.kind}: {fault}"
        reason = next(iter(self.failed.values()), "there are none")
        raise ExportError(f"data={self._export.folder}: none of {len(self)} clips can be read: {reason}")

    def _bytes(self, item: int) -> int:
        """Return the size of a clip's frames on the grid, covering the recipe's size with the sides in proportion."""
        columns, (width, height) = self._rows[item].columns, self.recipe.size
        share = max(width / columns["width"], height / columns["height"])
        area: float = columns["width"] * columns["height"] * share**2
        return math.ceil(self._lengths[item] * area * 3)

    def _window(self, item: int, offset: float, where: tuple[float, float]) -> Pixels:
        count = self.recipe.frames
        room = self._lengths[item] - count
        first = min(room, int(offset * (room + 1)))
        return np.ascontiguousarray(crop(self._frames(item, first, count), self.recipe.size, where))

    def _frames(self, item: int, first: int, count: int) -> Pixels:
        """Read frames [first, first + count) of a clip's grid, which cover the recipe's size."""
        if item in self._kept:
            return self._kept[item][first : first + count]
        row, recipe = self._export.with_video(self._rows[item]), self.recipe
        rate = recipe.fps or row["fps"]
        if not self._keeps:
            return read(row, rate, count, recipe.size, recipe.reader, first=first)
        self._kept[item] = read(row, rate, self._lengths[item], recipe.size, recipe.reader)
        return self._kept[item][first : first + count]


def length(columns: dict[str, Any], fps: float | None) -> int:
    """Count a clip's frames on a grid of ``fps`` 1/s from its first frame on; all of them where ``fps`` is ``None``."""
    if fps is None:
        return int(columns["frames"])
    return 1 + int((columns["frames"] - 1) / columns["fps"] * fps + 1e-6)


def split(export: Export, recipe: VaeRecipe, data_rules: int = DATA_RULES) -> tuple[Windows, Windows, tuple[str, ...]]:
    """Return training and held-out windows, and notes on how they were chosen. ``data_rules``: those that the run was
    begun with.

    Clips too short for a window are left out, as are those of fewer frames a second than the grid: repeated frames
    would teach that nothing moves. Raises ``ExportError`` where no training clip is left.
    """
    if export.latents is not None:
        raise ExportError(f"data={export.folder}: holds latents; give the export of clips that they were made from")
    if lacking := [name for name in NEEDED if name not in export.columns]:
        raise ExportError(f"data={export.folder}: has no column {lacking[0]!r}; export the clips again")
    ordered, incomplete = in_order(export.rows, data_rules)
    numbers = {id(row): number for number, row in enumerate(export.rows)}
    serving = [numbers[id(row)] for row in ordered if _serves(row.columns, recipe)]
    by_split: dict[str, list[int]] = {"train": [], "validation": [], "test": []}
    for number in serving:
        by_split.setdefault(export.rows[number].columns["split"], []).append(number)
    train, held_out = by_split["train"], by_split["validation"] or by_split["test"]
    if not train:
        rate = "its own rate" if recipe.fps is None else f"{recipe.fps:g} fps"
        raise ExportError(
            f"data={export.folder}: no training clip has {recipe.frames} frames at {rate}; lower frames or fps"
        )
    notes = []
    if incomplete:
        notes.append(f"{len(incomplete)} of {counted(len(export.rows), 'clip')} without {', '.join(MEASURES)}")
    if left_out := len(ordered) - len(serving):
        notes.append(f"{left_out} of {counted(len(export.rows), 'clip')} too short or of too low a rate")
    sizes = [(export.rows[number].columns["width"], export.rows[number].columns["height"]) for number in train]
    if small := sum(width < recipe.size[0] or height < recipe.size[1] for width, height in sizes):
        notes.append(f"{small} of {len(train)} training clips are smaller than size and are enlarged")
    if not held_out:
        notes.append("no clip is held out: training clips stand in, so the figures say nothing of new data")
    return Windows(export, train, recipe), Windows(export, held_out or train, recipe), tuple(notes)


def _serves(columns: dict[str, Any], recipe: VaeRecipe) -> bool:
    slow = recipe.fps is not None and columns["fps"] < recipe.fps * (1 - 1e-3)  # 23.976 serves a grid of 24
    return not slow and length(columns, recipe.fps) >= recipe.frames
