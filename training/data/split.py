"""A phase's data: exports and pictures sorted into lanes, what is held out, and what is left out and why."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dailies.curation.errors import ExportError
from dailies.curation.schema import digest
from dailies.training.data.items import (
    Clips,
    Export,
    Filmed,
    Items,
    Part,
    Row,
    folder_pictures,
    grid_length,
    parquet_pictures,
)
from dailies.training.data.latent_crops import Views, first_frame
from dailies.training.data.manifest import Facts, check_fit
from dailies.training.data.reader import a_number
from dailies.training.data.sampling import Draw
from dailies.training.data.schedule import Lane, bucket_of
from dailies.training.diffusion.encoders import Models
from dailies.training.models.pixels import Pixels, crop
from dailies.training.recipes.phase import MAIN, Bucket, Phase, Rule, Share
from dailies.training.recipes.recipe import Recipe, check_columns

Exports = Mapping[str, Export]  # by the names that a mix has for them


@dataclass(frozen=True, kw_only=True)
class Split:
    """A phase's lanes. ``pictures``: those beside a joint phase's videos. ``short``: ids of training clips that pass
    but are too short for every bucket. ``notes``: what people should know of how all this was chosen."""

    train: tuple[Lane, ...]
    validation: tuple[Lane, ...]
    pictures: Lane | None = None
    short: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def ids(self) -> list[str]:
        """Of all items trained on."""
        return [name for lane in self.train for name in lane.items.ids]


def load(recipe: Recipe, phase: Phase, exports: Exports, models: Models | None = None) -> Split:
    """The phase's training and validation lanes.

    Raises ``ExportError`` naming a missing column, an export that the mix names and is not there, an empty bucket, or
    what latents are not made for; that they are of other weights shows where ``models`` are given.
    """
    shares = phase.shares
    if phase.images != "frames" and not phase.task_spec.video:
        return _of_pictures(phase)
    for share in shares:
        if share.data not in exports:
            raise ExportError(
                f"phase {phase.name}: mix: export {share.data!r} is not given; given: {', '.join(exports) or 'none'}"
            )
    for name in dict.fromkeys(share.data for share in shares):
        check_columns(recipe, (phase,), exports[name].columns)
    check_latents(recipe, phase, exports, models)
    found = [_sorted(recipe, phase, share, number, exports[share.data]) for number, share in enumerate(shares)]
    train = tuple(lane for one in found for lane in one[0])
    _none_empty(phase, train)
    held_out = tuple(lane for one in found for lane in one[1] if len(lane.items.ids))
    short = tuple(name for one in found for name in one[3])
    notes = tuple(dict.fromkeys(note for one in found for note in one[2])) + _narrowed(phase, exports)
    if short:
        named = ", ".join(short[:3]) + (", …" if len(short) > 3 else "")
        least = min(shape.frames for shape in phase.shapes)
        notes += (f"{len(short)} clips are shorter than {least} frames at {phase.fps:g} 1/s and left out: {named}",)
    pictures = _beside(recipe, phase, exports[shares[0].data]) if phase.image_share else None
    return _validated(Split(train=train, validation=held_out, pictures=pictures, short=short, notes=notes), phase)


# ---- latents --------------------------------------------------------------------------------------------------------


def check_latents(recipe: Recipe, phase: Phase, exports: Exports, models: Models | None) -> None:
    """Raises ``ExportError`` naming what latents among the phase's exports are not made for."""
    for name in dict.fromkeys(share.data for share in phase.shares):
        export = exports[name]
        if export.latents is not None:
            check_fit(recipe, phase, export.latents, export.folder, models)


def _narrowed(phase: Phase, exports: Exports) -> tuple[str, ...]:
    """What latents were made without that the phase would take."""
    found = [exports[name] for name in dict.fromkeys(share.data for share in phase.shares)]
    return tuple(
        f"latents in {export.folder} were made with select {rule}, which the phase has not: fewer clips may pass"
        for export in found
        if export.latents is not None
        for rule in export.latents.select
        if rule not in phase.select
    )


def _items(recipe: Recipe, phase: Phase, export: Export, rows: Sequence[Row], shape: Bucket) -> Items:
    """Clips of one bucket, as the export holds them. One frame of each is a picture."""
    if export.latents is None:
        return Clips(export, rows, phase.fps, shape.size, recipe.reader)
    return Views(export, rows, [_length(row, phase) for row in rows], shape.frames, phase.task_spec.conditioning_frames)


def _made_in(row: Row, phase: Phase, facts: Facts) -> tuple[int, int] | None:
    """The size that a clip's views have."""
    bucket = bucket_of((row.columns["width"], row.columns["height"]), _length(row, phase), facts.buckets)
    return None if bucket is None else facts.buckets[bucket].size


def _length(row: Row, phase: Phase) -> int:
    return grid_length(row.columns["frames"], row.columns["fps"], phase.fps)


# ---- clips ----------------------------------------------------------------------------------------------------------


def _sorted(
    recipe: Recipe, phase: Phase, share: Share, number: int, export: Export
) -> tuple[list[Lane], list[Lane], tuple[str, ...], list[str]]:
    """One share's training and validation lanes, notes, and the ids of training clips too short for every bucket."""
    rows = [row for row in export.rows if passes(row.columns, (*phase.select, *share.select))]
    by_split = {name: [row for row in rows if row.columns["split"] == name] for name in ("train", "validation", "test")}
    train, short = _lanes(recipe, phase, share, number, export, by_split["train"])
    held_out, _ = _lanes(recipe, phase, share, number, export, by_split["validation"])
    if any(len(lane.items.ids) for lane in held_out):
        return train, held_out, (), short
    test, _ = _lanes(recipe, phase, share, number, export, by_split["test"])
    stands_in = any(len(lane.items.ids) for lane in test)
    return train, test, ("no validation clip passes: the test split's stand in",) if stands_in else (), short


def _lanes(
    recipe: Recipe, phase: Phase, share: Share, number: int, export: Export, rows: Sequence[Row]
) -> tuple[list[Lane], list[str]]:
    """A lane for each bucket, weighted by its clips among the share's, and the ids of clips too short for all."""
    sorted_rows: dict[Bucket, list[Row]] = {shape: [] for shape in phase.shapes}
    shapes = phase.shapes if export.latents is None else export.latents.buckets  # the same, but for their order
    short = []
    for row in rows:
        columns = row.columns
        bucket = bucket_of((columns["width"], columns["height"]), _length(row, phase), shapes)
        if bucket is None:
            short.append(str(columns["clip_id"]))
        else:
            sorted_rows[shapes[bucket]].append(row)
    count = max(1, len(rows) - len(short))
    only = len(phase.shapes) * len(phase.shares) == 1
    lanes = [
        Lane(
            name="" if only else f"{share.data} {number} {_named(shape)}",
            items=_items(recipe, phase, export, some, shape),
            shape=shape,
            weight=share.weight * len(some) / count,
        )
        for shape, some in sorted_rows.items()
    ]
    return lanes, short


def _named(shape: Bucket) -> str:
    return f"{shape.size[0]}x{shape.size[1]}x{shape.frames}"


def passes(columns: Mapping[str, Any], rules: Sequence[Rule]) -> bool:
    """Whether a row's numbers lie within all rules; one that is missing does not."""
    for name, least, most in rules:
        if isinstance(columns[name], str):
            raise ExportError(f"select: column {name!r} holds texts, and rules are over numbers")
        value = a_number(columns[name])
        if value is None or (least is not None and value < least) or (most is not None and value > most):
            return False
    return True


def _none_empty(phase: Phase, lanes: Sequence[Lane]) -> None:
    for lane in lanes:
        if not len(lane.items.ids):
            which = "frames" if not phase.buckets else f"buckets: {lane.name or _named(lane.shape)}"
            raise ExportError(
                f"phase {phase.name}: {which}: no training clip of {lane.shape.frames} frames at {phase.fps:g} 1/s passes "
                f"select{' and is nearest to that shape' if phase.buckets else ''}"
            )


def _beside(recipe: Recipe, phase: Phase, export: Export) -> Lane:
    """The pictures of a joint phase."""
    shape = Bucket(size=phase.size, frames=1)
    if phase.images != "frames":
        held = _held(_pictures(phase), validation=False)
        if not len(held.ids):
            raise ExportError(f"phase {phase.name}: image_path: no picture to train on in {phase.image_path}")
        return Lane(name="pictures", items=held, shape=shape)
    rows = [row for row in export.rows if row.columns["split"] == "train" and passes(row.columns, phase.select)]
    if (made := export.latents) is not None:  # the first frames of views in that size
        rows = [row for row in rows if _made_in(row, phase, made) == phase.size]
    if not rows:
        raise ExportError(f"phase {phase.name}: image_share: no training clip has a picture of {phase.size} px")
    return Lane(name="pictures", items=_items(recipe, phase, export, rows, shape), shape=shape)


# ---- pictures -------------------------------------------------------------------------------------------------------


def _of_pictures(phase: Phase) -> Split:
    pictures = _pictures(phase)
    shape = Bucket(size=phase.size, frames=1)
    train = Lane(name="", items=_held(pictures, validation=False), shape=shape)
    if not len(train.items.ids):
        raise ExportError(f"phase {phase.name}: image_path: no picture to train on in {phase.image_path}")
    held_out = Lane(name="", items=_held(pictures, validation=True), shape=shape)
    return _validated(Split(train=(train,), validation=(held_out,) if len(held_out.items.ids) else ()), phase)


def _pictures(phase: Phase) -> Filmed:
    assert phase.image_path is not None
    if not Path(phase.image_path).exists():
        raise ExportError(f"phase {phase.name}: image_path: {phase.image_path} is not there")
    read = folder_pictures if phase.images == "folder" else parquet_pictures
    return read(phase.image_path, phase.size)


def _held(pictures: Filmed, *, validation: bool) -> Part:
    """A twentieth of the pictures is held out, by their names."""
    held = [int(digest("validation", name)[:8], 16) % 20 == 0 for name in pictures.ids]
    return Part(pictures, [i for i, out in enumerate(held) if out == validation])


def _validated(split: Split, phase: Phase) -> Split:
    """With training items in place of validation items where there are none."""
    if split.validation:
        return split
    first = split.train[0]
    few, items = range(min(phase.validation_clips, len(first.items.ids))), first.items
    part = items.some(few) if isinstance(items, Views) else Part(items, few)
    stand_in = Lane(name=first.name, items=part, shape=first.shape)
    note = "no validation item: training items stand in for them, so the validation loss says nothing of new data"
    return Split(
        train=split.train,
        validation=(stand_in,),
        pictures=split.pictures,
        short=split.short,
        notes=(*split.notes, note),
    )


# ---- what a draw takes ----------------------------------------------------------------------------------------------


def window(lane: Lane, draw: Draw) -> tuple[int, int]:
    """(first, one past last) frame on the grid that ``draw`` takes of its item."""
    first = first_frame(lane.items.lengths[draw.item] - lane.shape.frames, draw.offset)
    return first, first + lane.shape.frames


def cropped(frames_THWC: Pixels, lane: Lane, phase: Phase, draw: Draw) -> Pixels:
    """The lane's window onto frames that cover it: in the middle, or where the draw says."""
    return crop(frames_THWC, lane.shape.size, draw.crop if phase.crop == "random" else (0.5, 0.5))


__all__ = ["MAIN", "Export", "Exports", "Split", "cropped", "load", "passes", "window"]
