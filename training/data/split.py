"""A phase's data: exports and pictures sorted into bucketed subsets, what is held out, and what is left out and why."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from dailies.curation.config import offered
from dailies.curation.errors import ExportError
from dailies.curation.plain_text import counted
from dailies.curation.schema import digest
from dailies.training.data.content import pictures_content, tables_content
from dailies.training.data.export import Export, Row, grid_length
from dailies.training.data.items import Clips, Items, PixelItems
from dailies.training.data.manifest import LatentsManifest, check_fit
from dailies.training.data.pictures import (
    FIRST_SUFFIXES,
    SUFFIXES,
    Pictures,
    folder_pictures,
    parquet_pictures,
    picture_tables,
)
from dailies.training.data.precomputed import PrecomputedLatents
from dailies.training.data.reader import a_number
from dailies.training.data.schedule import BucketSubset, bucket_of
from dailies.training.diffusion.encoders import Models
from dailies.training.recipes.phase import MAIN, Bucket, Phase, Rule, Share
from dailies.training.recipes.recipe import TrainingRecipe, check_columns

Exports = Mapping[str, Export]  # by the names that a mix has for them

DATA_RULES = 2
"""How clips are chosen and ordered; a run keeps those that it was begun with. 1: in the order of the shards, which follows from
the sources' paths, and slow clips with repeated frames; of a folder's pictures, those of the first suffixes. 2: in an order by
content, without slow clips; pictures of all suffixes."""

MEASURES = ("frames", "fps", "width", "height")
CONTENT = ("content_id", "stream", "source_start", "source_end", "time_base_num", "time_base_den")


@dataclass(frozen=True, kw_only=True)
class Split:
    """A split holds a phase's subsets. ``pictures``: those beside a joint phase's videos. ``short``: ids of training
    clips that pass but are too short for every bucket; ``slow``: of those whose own rate is below all of the phase's.
    ``notes``: what people should know of how all this was chosen."""

    train: tuple[BucketSubset, ...]
    validation: tuple[BucketSubset, ...]
    pictures: BucketSubset | None = None
    short: tuple[str, ...] = ()
    slow: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def clip_ids(self) -> list[str]:
        """Return the ids of all items trained on."""
        return [clip_id for subset in self.train for clip_id in subset.items.clip_ids]


@dataclass(frozen=True, kw_only=True)
class _ShareSplit:
    """The split of one share of the mix: its subsets, and a split's ``short``, ``slow`` and ``notes``."""

    train: list[BucketSubset]
    validation: list[BucketSubset]
    short: list[str]
    slow: list[str]
    notes: tuple[str, ...] = ()


def load(
    recipe: TrainingRecipe,
    phase: Phase,
    exports: Exports,
    models: Models | None = None,
    *,
    data_rules: int = DATA_RULES,
) -> Split:
    """Sort the phase's data into training and validation subsets. ``data_rules``: those that its run was begun with.

    Raises ``ExportError`` naming a missing column, an export that the mix names and is not there, an empty bucket, or
    what latents are not made for; that they are of other weights shows where ``models`` are given.
    """
    shares = phase.shares
    if phase.images != "frames" and not phase.task_spec.video:
        return _of_pictures(phase, data_rules)
    for share in shares:
        if share.data not in exports:
            raise ExportError(
                f"phase {phase.name}: mix: data={share.data}: no export has this name"
                f"{offered(share.data, exports)}; pass it with --data {share.data}=EXPORT"
            )
    for name in dict.fromkeys(share.data for share in shares):
        export = exports[name]
        check_columns(recipe, (phase,), export.columns)
        if export.latents is not None:
            check_fit(recipe, phase, export.latents, export.folder, models)
    splits = [
        _split_share(recipe, phase, share, number, exports[share.data], data_rules)
        for number, share in enumerate(shares)
    ]
    train = tuple(subset for split in splits for subset in split.train)
    _check_not_empty(phase, train)
    held_out = tuple(subset for split in splits for subset in split.validation if len(subset.items.clip_ids))
    short = tuple(clip_id for split in splits for clip_id in split.short)
    slow = tuple(clip_id for split in splits for clip_id in split.slow)
    notes = tuple(dict.fromkeys(note for split in splits for note in split.notes)) + _narrowed(phase, exports)
    slowest = phase.trained_fps[0]
    if short:
        least = min(shape.frames for shape in phase.shapes)
        notes += (
            f"{counted(len(short), 'clip', 'are', 'is')} shorter than {least} frames at {slowest:g} fps and left out: "
            f"{_few(short)}",
        )
    if slow:
        notes += (
            f"{counted(len(slow), 'clip', 'have', 'has')} fewer than {slowest:g} frames a second, left out: {_few(slow)}",
        )
    pictures = None
    if phase.image_share:
        pictures, more = _picture_subset(recipe, phase, exports[shares[0].data], data_rules)
        notes += more
    whole = Split(train=train, validation=held_out, pictures=pictures, short=short, slow=slow, notes=notes)
    return _validated(whole, phase)


def _few(clip_ids: Sequence[str]) -> str:
    return ", ".join(clip_ids[:3]) + (", …" if len(clip_ids) > 3 else "")


# ---- latents --------------------------------------------------------------------------------------------------------


def _narrowed(phase: Phase, exports: Exports) -> tuple[str, ...]:
    """Return a note for each rule that latents were selected by and the phase has not."""
    used = [exports[name] for name in dict.fromkeys(share.data for share in phase.shares)]
    return tuple(
        f"latents in {export.folder} were made with select {rule}, which the phase has not: fewer clips may pass"
        for export in used
        if export.latents is not None
        for rule in export.latents.select
        if rule not in phase.select
    )


def _items(
    recipe: TrainingRecipe, phase: Phase, export: Export, rows: Sequence[Row], shape: Bucket, fps: float
) -> Items:
    """Return clips of one bucket, as the export holds them, at ``fps``. One frame of each is a picture."""
    if export.latents is None:
        return Clips(export, rows, fps, shape.size, recipe.reader)
    lengths = [_length(row, fps) for row in rows]
    return PrecomputedLatents(export, rows, lengths, shape.frames, phase.task_spec.conditioning_frames)


def _crop_size(row: Row, phase: Phase, manifest: LatentsManifest) -> tuple[int, int] | None:
    """Return the size that a clip's precomputed crops have, (width, height) px."""
    bucket = bucket_of((row.columns["width"], row.columns["height"]), _length(row, phase.fps), manifest.buckets)
    return None if bucket is None else manifest.buckets[bucket].size


def _length(row: Row, fps: float) -> int:
    return grid_length(row.columns["frames"], row.columns["fps"], fps)


# ---- clips ----------------------------------------------------------------------------------------------------------


def _split_share(
    recipe: TrainingRecipe, phase: Phase, share: Share, number: int, export: Export, data_rules: int
) -> _ShareSplit:
    """Splits share ``number`` of the mix; the test split stands in where no validation clip passes."""
    rows, incomplete = in_order(export.rows, data_rules)
    notes: tuple[str, ...] = ()
    if incomplete:
        notes = (
            f"{counted(len(incomplete), 'clip', 'lack', 'lacks')} {', '.join(MEASURES)}, left out: {_few(incomplete)}",
        )
    rows = [row for row in rows if passes(row.columns, (*phase.select, *share.select))]
    fast = rows if data_rules == 1 or not phase.task_spec.video else [row for row in rows if _serves(row, phase)]
    if data_rules == 1 and phase.task_spec.video and (still := sum(not _serves(row, phase) for row in rows)):
        notes += (
            f"{counted(still, 'clip', 'are', 'is')} below {phase.fps:g} fps, with frames repeated: an older dailies began the "
            "run so",
        )

    def subsets(split: str) -> tuple[list[BucketSubset], list[str]]:
        return _subsets(recipe, phase, share, number, export, [row for row in fast if row.columns["split"] == split])

    train, short = subsets("train")
    serving = {id(row) for row in fast}
    slow = [str(r.columns["clip_id"]) for r in rows if id(r) not in serving and r.columns["split"] == "train"]
    validation, _ = subsets("validation")
    if not any(len(subset.items.clip_ids) for subset in validation):
        validation, _ = subsets("test")
        if any(len(subset.items.clip_ids) for subset in validation):
            notes += ("no validation clip passes: the test split's stand in",)
    return _ShareSplit(train=train, validation=validation, short=short, slow=slow, notes=notes)


def _serves(row: Row, phase: Phase, fps: float | None = None) -> bool:
    """Return whether a clip has frames enough a second for ``fps``, or for the slowest rate of the phase."""
    rate: float = row.columns["fps"]
    return rate >= (phase.trained_fps[0] if fps is None else fps) * (1 - 1e-3)  # 23.976 serves a grid of 24


def _subsets(
    recipe: TrainingRecipe, phase: Phase, share: Share, number: int, export: Export, rows: Sequence[Row]
) -> tuple[list[BucketSubset], list[str]]:
    """Return a subset for each bucket and rate, weighted by its clips among the share's, and the ids of clips too short
    for all."""
    rates = phase.trained_fps
    sorted_rows: dict[tuple[float, Bucket], list[Row]] = {(fps, shape): [] for fps in rates for shape in phase.shapes}
    shapes = phase.shapes if export.latents is None else export.latents.buckets  # the same, but for their order
    short = []
    for row in rows:
        columns = row.columns
        placed = False
        for fps in rates if len(rates) == 1 else [fps for fps in rates if _serves(row, phase, fps)]:
            bucket = bucket_of((columns["width"], columns["height"]), _length(row, fps), shapes)
            if bucket is not None:
                sorted_rows[fps, shapes[bucket]].append(row)
                placed = True
        if not placed:
            short.append(str(columns["clip_id"]))
    count = max(1, sum(map(len, sorted_rows.values())))
    only = len(sorted_rows) * len(phase.shares) == 1
    subsets = [
        BucketSubset(
            name="" if only else f"{share.data} {number} {_named(shape)}{f' {fps:g} fps' if len(rates) > 1 else ''}",
            items=_items(recipe, phase, export, chosen, shape, fps),
            shape=shape,
            weight=share.weight * len(chosen) / count,
            fps=fps if phase.task_spec.video else None,
        )
        for (fps, shape), chosen in sorted_rows.items()
    ]
    return subsets, short


def in_order(rows: Sequence[Row], data_rules: int) -> tuple[list[Row], list[str]]:
    """Return rows in an order that follows from what they show, and the ids of those that lack one of ``MEASURES``.

    By data rules 1, in the order of the export's shards.
    """
    complete = [row for row in rows if all(row.columns[name] is not None for name in MEASURES)]
    incomplete = [str(row.columns["clip_id"]) for row in rows if any(row.columns[name] is None for name in MEASURES)]
    if data_rules > 1:
        complete.sort(key=lambda row: (content_key(row.columns), str(row.columns["clip_id"])))
    return complete, incomplete


def content_key(columns: Mapping[str, Any]) -> str:
    """Return a hash of what a clip shows: content, stream and span, wherever its source lies.

    An export without a content id, which is older than they are, gives one of the clip's id.
    """
    if columns.get("content_id") is None:
        return digest("order", columns["clip_id"])
    return digest("order", *(columns.get(name) for name in CONTENT))


def _named(shape: Bucket) -> str:
    return f"{shape.size[0]}x{shape.size[1]}x{shape.frames}"


def passes(columns: Mapping[str, Any], rules: Sequence[Rule]) -> bool:
    """Return whether a row's numbers lie within all rules; one that is missing does not.

    Raises ``ExportError`` for a rule over a column of text.
    """
    for name, least, most in rules:
        if isinstance(columns[name], str):
            raise ExportError(f"select: column {name!r} is text; a phase's rules need numbers")
        value = a_number(columns[name])
        if value is None or (least is not None and value < least) or (most is not None and value > most):
            return False
    return True


def _check_not_empty(phase: Phase, subsets: Sequence[BucketSubset]) -> None:
    """Raise ``ExportError`` naming a bucket that no training clip is in."""
    for subset in subsets:
        if not len(subset.items.clip_ids):
            field = f"buckets={_named(subset.shape)}" if phase.buckets else f"frames={subset.shape.frames}"
            share = f" ({subset.name})" if subset.name else ""
            raise ExportError(
                f"phase {phase.name}: {field}: no training clip{share} of {subset.shape.frames} frames at "
                f"{subset.fps or phase.fps:g} fps passes select{' and is nearest to that shape' if phase.buckets else ''}"
            )


def _picture_subset(
    recipe: TrainingRecipe, phase: Phase, export: Export, data_rules: int
) -> tuple[BucketSubset, tuple[str, ...]]:
    """Return the pictures of a joint phase, and a split's ``notes`` on them."""
    shape = Bucket(size=phase.size, frames=1)
    if phase.images != "frames":
        pictures = _pictures(phase, data_rules)
        items = _training_pictures(pictures, phase)
        return BucketSubset(name="pictures", items=items, shape=shape), _missing(pictures)
    rows, _ = in_order(export.rows, data_rules)
    rows = [row for row in rows if row.columns["split"] == "train" and passes(row.columns, phase.select)]
    if (manifest := export.latents) is not None:  # the first frames of crops in that size
        rows = [row for row in rows if _crop_size(row, phase, manifest) == phase.size]
    if not rows:
        size = f"{phase.size[0]}x{phase.size[1]}"
        raise ExportError(
            f"phase {phase.name}: image_share={phase.image_share:g}: no training clip has a picture of {size} px"
        )
    items_of_clips = _items(recipe, phase, export, rows, shape, phase.fps)
    return BucketSubset(name="pictures", items=items_of_clips, shape=shape), ()


# ---- pictures -------------------------------------------------------------------------------------------------------


def _of_pictures(phase: Phase, data_rules: int) -> Split:
    """Splits the pictures of an image phase."""
    pictures = _pictures(phase, data_rules)
    shape = Bucket(size=phase.size, frames=1)
    train = BucketSubset(name="", items=_training_pictures(pictures, phase), shape=shape)
    held_out = BucketSubset(name="", items=_by_name(pictures, validation=True), shape=shape)
    validation = (held_out,) if len(held_out.items.clip_ids) else ()
    return _validated(Split(train=(train,), validation=validation, notes=_missing(pictures)), phase)


def _missing(pictures: Pictures) -> tuple[str, ...]:
    """Return a note on the captions that have no picture."""
    if not pictures.missing:
        return ()
    return (
        f"{counted(len(pictures.missing), 'file')} named in metadata.csv and no picture there: {_few(pictures.missing)}",
    )


def _pictures(phase: Phase, data_rules: int) -> Pictures:
    assert phase.image_path is not None
    if not Path(phase.image_path).exists():
        raise ExportError(f"phase {phase.name}: image_path={phase.image_path}: no such file or folder")
    if phase.images == "folder":
        return folder_pictures(phase.image_path, phase.size, FIRST_SUFFIXES if data_rules == 1 else SUFFIXES)
    return parquet_pictures(phase.image_path, phase.size)


def image_content(phase: Phase, data_rules: int = DATA_RULES) -> str | None:
    """Return what a phase's ``image_path`` holds, told by names, captions and bytes; ``None`` where it has none, or
    cannot be read yet, as may be while another phase is trained: ``load`` says so of those that are."""
    if phase.image_path is None:
        return None
    root = Path(phase.image_path)
    try:
        pictures = _pictures(phase, data_rules)
    except ExportError:
        return None
    if phase.images == "parquet":
        return tables_content(root, picture_tables(root))
    return pictures_content(root, list(zip(pictures.clip_ids, pictures.captions, strict=True)))


def _training_pictures(pictures: PixelItems, phase: Phase) -> PixelItems:
    """Return those that are not held out. Raises ``ExportError`` where there are none."""
    train = _by_name(pictures, validation=False)
    if not train.clip_ids:
        raise ExportError(f"phase {phase.name}: image_path={phase.image_path}: holds no picture to train on")
    return train


def _by_name(pictures: PixelItems, *, validation: bool) -> PixelItems:
    """Return the twentieth of the pictures that is held out by their names, or the others."""
    held_out = [int(digest("validation", name)[:8], 16) % 20 == 0 for name in pictures.clip_ids]
    return pictures.subset([i for i, out in enumerate(held_out) if out == validation])


def _validated(split: Split, phase: Phase) -> Split:
    """Return the split with training items in place of validation items where there are none."""
    if split.validation:
        return split
    first = split.train[0]
    few = range(min(phase.validation_clips, len(first.items.clip_ids)))
    stand_in = replace(first, items=first.items.subset(few), weight=1.0)
    note = "no validation item: training items stand in for them, so the validation loss says nothing of new data"
    return replace(split, validation=(stand_in,), notes=(*split.notes, note))


__all__ = ["DATA_RULES", "MAIN", "Export", "Exports", "Split", "image_content", "load", "passes"]
