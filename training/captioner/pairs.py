"""ClipPairs of a clip's frames and its caption, out of an export: those to train on, and those that are held out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from dailies.curation import video
from dailies.curation.errors import ExportError, item_error
from dailies.curation.plain_text import counted
from dailies.training.captioner.recipe import CaptionerRecipe
from dailies.training.data.export import Export, Row
from dailies.training.data.sampling import generator
from dailies.training.data.split import DATA_RULES, MEASURES, in_order
from dailies.training.models.pixels import Pixels

CACHE_BYTES = 1 << 30
NEEDED = ("clip_id", "split", *MEASURES)


@dataclass(frozen=True, kw_only=True)
class Pair:
    """A clip and its caption. ``frames``: uint8 (T, H, W, 3), shown at ``times``, in s from the clip's start. ``seconds``: its
    length. ``seed``: for what is drawn while a model looks at it."""

    clip_id: str
    frames: Pixels
    times: tuple[float, ...]
    seconds: float
    caption: str
    seed: int = 0


def spread_times(seconds: float, fps: float, count: int) -> tuple[float, ...]:
    """Return ``count`` times at even distances from a clip's first frame to its last, in s; a single one is the middle."""
    if count == 1:
        return (seconds / 2,)
    last = max(0.0, seconds - 1 / fps)
    return tuple(number / (count - 1) * last for number in range(count))


class ClipPairs:
    """Gives pairs of some of an export's clips, each drawn from (seed, position) and the clips alone.

    Clips are decoded once and kept where all of them fit into ``CACHE_BYTES``. ``failed``: clips that could not be read, with
    the reason; the next one takes such a clip's place.
    """

    def __init__(self, export: Export, rows: Sequence[Row], recipe: CaptionerRecipe, frames: int) -> None:
        """``frames``: of each clip."""
        self._export, self._rows, self._recipe, self._count = export, list(rows), recipe, frames
        self.clip_ids: list[str] = [row.columns["clip_id"] for row in rows]
        self._keeps = sum(map(self._bytes, self._rows)) <= CACHE_BYTES
        self._kept: dict[int, Pixels] = {}
        self.failed: dict[str, str] = {}

    def __len__(self) -> int:
        return len(self._rows)

    def draw(self, position: int) -> Pair:
        """Return the training pair at ``position``; every clip comes once per epoch."""
        epoch, place = divmod(position, len(self))
        order = generator(self._recipe.seed, "captioner order", epoch).permutation(len(self))
        seed = int(generator(self._recipe.seed, "captioner", position).integers(1 << 62))
        return self._readable(int(order[place]), seed)

    def spread(self, most: int) -> list[Pair]:
        """Return pairs of at most ``most`` clips, at even distances; each clip once."""
        count = min(most, len(self))
        pairs = (self._readable(number * len(self) // count, 0) for number in range(count))
        return list({pair.clip_id: pair for pair in pairs}.values())

    def _readable(self, first: int, seed: int) -> Pair:
        for step in range(len(self)):
            number = (first + step) % len(self)
            if self.clip_ids[number] in self.failed:
                continue
            try:
                return self._pair(number, seed)
            except Exception as error:  # whatever its bytes make a decoder raise; what is not the clip's fault goes on
                fault = item_error(error)
                self.failed[self.clip_ids[number]] = f"{fault.kind}: {fault}"
        reason = next(iter(self.failed.values()), "there are none")
        raise ExportError(f"data={self._export.folder}: none of {len(self)} clips can be read: {reason}")

    def _pair(self, number: int, seed: int) -> Pair:
        columns = self._rows[number].columns
        seconds = columns["frames"] / columns["fps"]
        times = spread_times(seconds, columns["fps"], self._count)
        if number not in self._kept:
            pixels = self._read(self._rows[number], times)
            if self._keeps:
                self._kept[number] = pixels
        else:
            pixels = self._kept[number]
        return Pair(
            clip_id=self.clip_ids[number],
            frames=pixels,
            times=times,
            seconds=seconds,
            caption=clean(columns[self._recipe.caption]),
            seed=seed,
        )

    def _read(self, row: Row, times: tuple[float, ...]) -> Pixels:
        half = 0.5 / row.columns["fps"]  # times are rounded to ticks
        side = min(self._recipe.short_side, row.columns["width"], row.columns["height"])
        frames = video.clip_frames(self._export.with_video(row), at=[time - half for time in times], short_side=side)
        pixels: Pixels = np.asarray(frames.pixels)
        return pixels

    def _bytes(self, row: Row) -> float:
        width, height = row.columns["width"], row.columns["height"]
        scale = min(1.0, self._recipe.short_side / min(width, height))
        return float(self._count * 3 * width * height * scale**2)


def clean(text: Any) -> str:
    """Return a caption on one line; empty for none."""
    return " ".join(text.split()) if isinstance(text, str) else ""


@dataclass(frozen=True, kw_only=True)
class PairSplit:
    """Rows to train on and rows to measure on, which share no clip. ``name``: of the split that is held out; ``notes``: on how
    they were chosen."""

    train: list[Row]
    held_out: list[Row]
    name: str
    notes: tuple[str, ...]


def split_pairs(export: Export, recipe: CaptionerRecipe, data_rules: int = DATA_RULES) -> PairSplit:
    """Sort the clips that have a caption. ``data_rules``: those that the run was begun with.

    Held out is the validation split or, where that is empty, the test split; no other but ``train`` is trained on. Raises
    ``ExportError`` where a column, training clips or at least two held-out ones are missing: how rare a word is takes
    several captions.
    """
    if export.latents is not None:
        raise ExportError(f"data={export.folder}: holds latents; give the export of clips that they were made from")
    if lacking := [name for name in NEEDED if name not in export.columns]:
        raise ExportError(f"data={export.folder}: has no column {lacking[0]!r}; export the clips again")
    if recipe.caption not in export.columns:
        there = [name for name in export.columns if name.startswith("caption")]
        advice = f"take one of {', '.join(there)}: --set caption={there[-1]}" if there else "caption the clips first"
        raise ExportError(f"caption={recipe.caption}: not a column of {export.folder}; {advice}")
    ordered, incomplete = in_order(export.rows, data_rules)
    told = [row for row in ordered if clean(row.columns[recipe.caption])]
    by_split: dict[str, list[Row]] = {"train": [], "validation": [], "test": []}
    for row in told:
        by_split.setdefault(row.columns["split"], []).append(row)
    name = "validation" if by_split["validation"] else "test"
    if not by_split["train"]:
        raise ExportError(f"data={export.folder}: no clip of the train split has a text in {recipe.caption}")
    if len(by_split[name]) < 2:
        raise ExportError(
            f"data={export.folder}: fewer than two clips with a text in {recipe.caption} are held out, in the split "
            "validation or test, so nothing could be measured; export with more clips, or with larger such splits"
        )
    notes = []
    total = counted(len(export.rows), "clip")
    if incomplete:
        notes.append(f"{len(incomplete)} of {total} without {', '.join(MEASURES)}")
    if silent := len(ordered) - len(told):
        notes.append(f"{silent} of {total} without a text in {recipe.caption}, left out")
    return PairSplit(train=by_split["train"], held_out=by_split[name], name=name, notes=tuple(notes))
