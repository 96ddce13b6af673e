"""Training shards and image collections → items a phase draws from.

An item is a clip, or a picture as a clip of one frame. Every set of items offers ``ids``, ``captions``, ``motions``,
``lengths`` (frames on the phase's grid) and ``frames(i)`` (uint8, resized to cover the phase's size).
"""

from __future__ import annotations

import csv
import io
import math
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pyarrow.parquet as pq

from curation.schema import digest
from training.draws import Draw
from training.pixels import Pixels, cover, crop
from training.reader import Backend, read
from training.recipe import Phase, Recipe, check_columns

CACHE_BYTES = 1 << 30
SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp")


class Items(Protocol):
    """What a phase draws from. ``frames(i)`` may raise one of ``curation.errors`` or ``OSError``."""

    @property
    def ids(self) -> Sequence[str]: ...
    @property
    def captions(self) -> Sequence[str]: ...
    @property
    def motions(self) -> Sequence[float | None]: ...
    @property
    def lengths(self) -> Sequence[int]: ...

    def frames(self, index: int) -> Pixels: ...


# ---- clips of an export ---------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """Where one clip lies, and its columns without the media."""

    shard: Path
    group: int
    number: int
    columns: dict[str, Any]


class Export:
    """An export's rows; media are read when asked for. Raises ``ValueError`` where there are no shards."""

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        shards = sorted((self.folder / "data").glob("*.parquet"))
        if not shards:
            raise ValueError(f"data: {self.folder} holds no data/*.parquet; an export of dailies is expected")
        self.columns: list[str] = pq.read_schema(shards[0]).names
        self.rows = [row for shard in shards for row in self._read(shard)]
        self._group: tuple[Path, int, list[Any]] | None = None

    def _read(self, shard: Path) -> Iterable[Row]:
        file = pq.ParquetFile(shard)
        plain = [name for name in self.columns if name != "video"]
        for group in range(file.num_row_groups):
            for number, columns in enumerate(file.read_row_group(group, columns=plain).to_pylist()):
                yield Row(shard=shard, group=group, number=number, columns=columns)

    @property
    def card(self) -> str:
        """The text of its README.md, empty where it has none."""
        path = self.folder / "README.md"
        return path.read_text(encoding="utf-8") if path.exists() else ""

    def whole(self, row: Row) -> dict[str, Any]:
        """The row with its media. The row group last read stays in memory (at most 32 MB)."""
        if self._group is None or self._group[:2] != (row.shard, row.group):
            column = pq.ParquetFile(row.shard).read_row_group(row.group, columns=["video"])["video"]
            self._group = (row.shard, row.group, list(column))
        return {**row.columns, "video": self._group[2][row.number].as_py()}


class Clips:
    """Clips of an export on a grid of ``fps``, decoded once and kept resized while they fit into ``CACHE_BYTES``."""

    def __init__(
        self,
        export: Export,
        rows: Sequence[Row],
        caption: str,
        fps: float,
        size: tuple[int, int],
        backend: Backend = "pyav",
    ) -> None:
        self._export, self._rows, self._fps, self._size, self._backend = export, list(rows), fps, size, backend
        self.ids = [row.columns["clip_id"] for row in self._rows]
        self.captions = [row.columns[caption] or "" for row in self._rows]
        self.motions = [row.columns.get("motion") for row in self._rows]
        self.lengths = [grid_length(row.columns["frames"], row.columns["fps"], fps) for row in self._rows]
        self._kept: OrderedDict[int, Pixels] = OrderedDict()
        self._held = 0

    def frames(self, index: int) -> Pixels:
        if index not in self._kept:
            row = self._export.whole(self._rows[index])
            self._kept[index] = read(row, self._fps, self.lengths[index], self._size, self._backend)
            self._held += self._kept[index].nbytes
            while self._held > CACHE_BYTES and len(self._kept) > 1:
                self._held -= self._kept.popitem(last=False)[1].nbytes
        return self._kept[index]


def grid_length(frames: int, native: float, fps: float) -> int:
    """How many points of a grid of ``fps`` a clip of ``frames`` at ``native`` 1/s has, from its first frame on."""
    return 1 + math.floor((frames - 1) / native * fps + 1e-6)


# ---- pictures -------------------------------------------------------------------------------------------------------


class Pictures:
    """Pictures with captions; ``read`` gives the encoded bytes of one."""

    def __init__(self, entries: Sequence[tuple[str, str]], read: Callable[[int], bytes], size: tuple[int, int]) -> None:
        self.ids = [name for name, _ in entries]
        self.captions = [text for _, text in entries]
        self.motions: list[float | None] = [None] * len(entries)
        self.lengths = [1] * len(entries)
        self._read, self._size = read, size

    def frames(self, index: int) -> Pixels:
        from PIL import Image

        with Image.open(io.BytesIO(self._read(index))) as picture:
            return cover(np.asarray(picture.convert("RGB"))[None], self._size)


def folder_pictures(folder: str | Path, size: tuple[int, int]) -> Pictures:
    """Pictures under ``folder``, each with its caption in metadata.csv (file_name, text) or in a .txt of its name."""
    root = Path(folder)
    texts: dict[str, str] = {}
    if (root / "metadata.csv").exists():
        with (root / "metadata.csv").open(newline="", encoding="utf-8") as file:
            texts = {row["file_name"]: row["text"] for row in csv.DictReader(file)}
    entries = []
    for path in sorted(p for p in root.rglob("*") if p.suffix.lower() in SUFFIXES):
        name, beside = path.relative_to(root).as_posix(), path.with_suffix(".txt")
        if name not in texts and not beside.exists():
            raise ValueError(f"image_path: {path} has no caption, neither in metadata.csv nor in {beside.name}")
        entries.append((name, texts[name] if name in texts else beside.read_text(encoding="utf-8").strip()))
    return Pictures(entries, lambda index: (root / entries[index][0]).read_bytes(), size)


def parquet_pictures(path: str | Path, size: tuple[int, int]) -> Pictures:
    """Rows of one Parquet file or a folder of them: ``image`` (bytes, or a struct with them) or ``jpg``; ``text`` or
    ``caption``."""
    root = Path(path)
    files = sorted(root.rglob("*.parquet")) if root.is_dir() else [root]
    entries: list[tuple[str, str]] = []
    data: list[Any] = []
    for file in files:
        table = pq.read_table(file)
        image = next((name for name in ("image", "jpg") if name in table.column_names), None)
        text = next((name for name in ("text", "caption") if name in table.column_names), None)
        if image is None or text is None:
            raise ValueError(
                f"image_path: {file} needs columns image or jpg and text or caption, not {table.column_names}"
            )
        entries += [(f"{file.name}:{number}", words or "") for number, words in enumerate(table[text].to_pylist())]
        data += list(table[image])

    def read(index: int) -> bytes:
        value = data[index].as_py()
        return bytes(value["bytes"] if isinstance(value, dict) else value)

    return Pictures(entries, read, size)


class Part:
    """Some of the items, as items."""

    def __init__(self, items: Items, chosen: Sequence[int]) -> None:
        self._items, self._chosen = items, list(chosen)
        self.ids, self.captions = [items.ids[i] for i in chosen], [items.captions[i] for i in chosen]
        self.motions, self.lengths = [items.motions[i] for i in chosen], [items.lengths[i] for i in chosen]

    def frames(self, index: int) -> Pixels:
        return self._items.frames(self._chosen[index])


# ---- a phase's items ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Split:
    """A phase's items. ``notes``: what people should know of how they were chosen."""

    train: Items
    validation: Items
    notes: tuple[str, ...] = ()


def load(recipe: Recipe, phase: Phase, export: Export) -> Split:
    """The phase's training and validation items. Raises ``ValueError`` naming a missing column, or where none are left."""
    check_columns(recipe, export.columns)
    if phase.images != "frames":
        assert phase.image_path is not None
        read = folder_pictures if phase.images == "folder" else parquet_pictures
        pictures = read(phase.image_path, phase.size)
        held = [int(digest("validation", name)[:8], 16) % 20 == 0 for name in pictures.ids]
        return _split(
            Part(pictures, [i for i, h in enumerate(held) if not h]),
            Part(pictures, [i for i, h in enumerate(held) if h]),
            phase,
        )
    rows = [row for row in export.rows if _passes(row.columns, phase)]

    def clips(split: str) -> Clips:
        chosen = [row for row in rows if row.columns["split"] == split and _long_enough(row.columns, phase)]
        return Clips(export, chosen, recipe.caption, phase.fps, phase.size, recipe.reader)

    held_out = clips("validation")
    if len(held_out.ids):
        return _split(clips("train"), held_out, phase)
    test = clips("test")
    note = ("no validation clip passes: the test split's stand in",) if len(test.ids) else ()
    return _split(clips("train"), test, phase, note)


def _passes(columns: dict[str, Any], phase: Phase) -> bool:
    for name, least, most in phase.select:
        value = columns[name]
        if value is None or (least is not None and value < least) or (most is not None and value > most):
            return False
    return True


def _long_enough(columns: dict[str, Any], phase: Phase) -> bool:
    return grid_length(columns["frames"], columns["fps"], phase.fps) >= phase.frames


def _split(train: Items, validation: Items, phase: Phase, notes: tuple[str, ...] = ()) -> Split:
    if not len(train.ids):
        raise ValueError(
            f"phase {phase.name}: no training item of {phase.frames} frames at {phase.fps:g} 1/s passes select"
        )
    if len(validation.ids):
        return Split(train=train, validation=validation, notes=notes)
    note = "no validation item: training items stand in for them, so the validation loss says nothing of new data"
    return Split(train=train, validation=Part(train, range(min(phase.validation_clips, len(train.ids)))), notes=(note,))


def window(items: Items, phase: Phase, draw: Draw) -> tuple[int, int]:
    """(first, one past last) frame on the grid that ``draw`` takes of its item."""
    room = items.lengths[draw.item] - phase.frames
    first = min(room, int(draw.offset * (room + 1)))
    return first, first + phase.frames


def cropped(frames_THWC: Pixels, phase: Phase, draw: Draw) -> Pixels:
    """The phase's window onto frames that cover it: in the middle, or where the draw says."""
    return crop(frames_THWC, phase.size, draw.crop if phase.crop == "random" else (0.5, 0.5))
