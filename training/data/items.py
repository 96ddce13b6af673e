"""What a phase draws from: clips of an export on a grid of frames, as pixels or as latents made of them beforehand
(``dailies.training.data.latent_crops``), or pictures, which are clips of one frame."""

from __future__ import annotations

import csv
import io
import math
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from dailies.curation.errors import ExportError
from dailies.curation.schema import note_renamed
from dailies.training.data.latent_crops import TEXT, VIEWS, Views
from dailies.training.data.manifest import read_facts
from dailies.training.data.reader import Backend, a_number, read
from dailies.training.models.pixels import Pixels, cover

CACHE_BYTES = 1 << 30
SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp")


class Filmed(Protocol):
    """Items that are read as pixels. ``lengths``: frames of each on the phase's grid. ``fits``: whether all of them,
    decoded, fit into ``CACHE_BYTES``."""

    @property
    def ids(self) -> Sequence[str]: ...
    @property
    def lengths(self) -> Sequence[int]: ...
    @property
    def fits(self) -> bool: ...

    def caption(self, index: int, column: str) -> str:
        """A text, empty where the clip has none."""
        ...

    def number(self, index: int, column: str) -> float | None:
        """A column's number, ``None`` where there is none."""
        ...

    def frames(self, index: int, first: int, last: int) -> Pixels:
        """Frames [first, last) of the grid, uint8 (T, h, w, 3), resized to cover the phase's size. Callable from
        threads.

        May raise one of ``dailies.curation.errors`` or ``OSError``."""
        ...


Items = Filmed | Views


# ---- clips of an export ---------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """Where one clip lies, and its columns without the media."""

    shard: Path
    group: int
    number: int
    columns: dict[str, Any]


class Export:
    """An export's rows; media are read when asked for. ``latents``: what they are where it holds them and no videos.

    Raises ``ExportError`` where there are no shards, or a latents.json that cannot be read."""

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        shards = sorted((self.folder / "data").glob("*.parquet"))
        if not shards:
            raise ExportError(f"data: {self.folder} holds no data/*.parquet; an export of dailies is expected")
        self.latents = read_facts(self.folder)
        self.columns: list[str] = pq.read_schema(shards[0]).names
        note_renamed(str(self.folder), self.columns)
        media = {VIEWS, *(TEXT + name for name in self.latents.captions)} if self.latents else {"video"}
        self._plain = [name for name in self.columns if name not in media]
        self._footers: dict[Path, pq.FileMetaData] = {}
        self.rows = [row for shard in shards for row in self._read(shard)]
        self._group: tuple[Path, int, list[Any]] | None = None
        self._lock = threading.Lock()

    def _read(self, shard: Path) -> Iterable[Row]:
        file = pq.ParquetFile(shard)
        self._footers[shard] = file.metadata
        counts = [file.metadata.row_group(group).num_rows for group in range(file.num_row_groups)]
        places = ((group, number) for group, count in enumerate(counts) for number in range(count))
        for (group, number), columns in zip(places, file.read(columns=self._plain).to_pylist(), strict=True):
            yield Row(shard=shard, group=group, number=number, columns=columns)

    @property
    def card(self) -> str:
        """The text of its README.md, empty where it has none."""
        path = self.folder / "README.md"
        return path.read_text(encoding="utf-8") if path.exists() else ""

    def whole(self, row: Row) -> dict[str, Any]:
        """The row with its video. The row group last read stays in memory (at most 32 MB). Raises ``ExportError`` where
        latents stand in place of videos."""
        if self.latents is not None:
            raise ExportError(f"data: {self.folder} holds latents of {self.latents.source_path}; its videos are needed")
        with self._lock:
            if self._group is None or self._group[:2] != (row.shard, row.group):
                column = pq.ParquetFile(row.shard).read_row_group(row.group, columns=["video"])["video"]
                self._group = (row.shard, row.group, list(column))
            return {**row.columns, "video": self._group[2][row.number].as_py()}

    def cells(self, row: Row, columns: Sequence[str]) -> dict[str, pa.Scalar]:
        """Media columns of one row; its row group of them is read. Callable from threads."""
        with pq.ParquetFile(row.shard, metadata=self._footers[row.shard]) as file:
            table = file.read_row_group(row.group, columns=list(columns), use_threads=False)
        return {name: table[name][row.number] for name in columns}


class Clips:
    """Clips of an export on a grid of ``fps``, covering ``size`` px. Where all fit into ``CACHE_BYTES`` each is decoded
    once, else only the frames asked for are."""

    def __init__(
        self, export: Export, rows: Sequence[Row], fps: float, size: tuple[int, int], backend: Backend = "pyav"
    ) -> None:
        self._export, self._rows, self._fps, self._size, self._backend = export, list(rows), fps, size, backend
        self.ids = [row.columns["clip_id"] for row in self._rows]
        self.lengths = [grid_length(row.columns["frames"], row.columns["fps"], fps) for row in self._rows]
        self.fits = _fits(self.lengths, size)
        self._kept: dict[int, Pixels] = {}

    def caption(self, index: int, column: str) -> str:
        return self._rows[index].columns[column] or ""

    def number(self, index: int, column: str) -> float | None:
        return a_number(self._rows[index].columns.get(column))

    def frames(self, index: int, first: int, last: int) -> Pixels:
        if not self.fits:
            return self._decode(index, first, last - first)
        if index not in self._kept:
            self._kept[index] = self._decode(index, 0, self.lengths[index])
        return self._kept[index][first:last]

    def _decode(self, index: int, first: int, count: int) -> Pixels:
        row = self._export.whole(self._rows[index])
        return read(row, self._fps, count, self._size, self._backend, first=first)


def grid_length(frames: int, native: float, fps: float) -> int:
    """How many points of a grid of ``fps`` a clip of ``frames`` at ``native`` 1/s has, from its first frame on."""
    return 1 + math.floor((frames - 1) / native * fps + 1e-6)


def _fits(lengths: Sequence[int], size: tuple[int, int]) -> bool:
    return sum(lengths) * size[0] * size[1] * 3 <= CACHE_BYTES


# ---- pictures -------------------------------------------------------------------------------------------------------


class Pictures:
    """Pictures with captions; ``read`` gives the encoded bytes of one."""

    def __init__(self, entries: Sequence[tuple[str, str]], read: Callable[[int], bytes], size: tuple[int, int]) -> None:
        self.ids = [name for name, _ in entries]
        self.captions = [text for _, text in entries]
        self.lengths = [1] * len(entries)
        self.fits = _fits(self.lengths, size)
        self._read, self._size = read, size

    def caption(self, index: int, column: str) -> str:
        return self.captions[index]

    def number(self, index: int, column: str) -> float | None:
        return None

    def frames(self, index: int, first: int, last: int) -> Pixels:
        from PIL import Image

        with Image.open(io.BytesIO(self._read(index))) as picture:
            return cover(np.asarray(picture.convert("RGB"))[None], self._size)[first:last]


def folder_pictures(folder: str | Path, size: tuple[int, int]) -> Pictures:
    """Pictures under ``folder``, each with its caption in metadata.csv (file_name, text) or in a .txt of its name."""
    root = Path(folder)
    texts: dict[str, str] = {}
    if (root / "metadata.csv").exists():
        with (root / "metadata.csv").open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        if any(row.get("file_name") is None or row.get("text") is None for row in rows):
            raise ExportError(f"image_path: {root / 'metadata.csv'} needs columns file_name and text in each row")
        texts = {row["file_name"]: row["text"] for row in rows}
    entries = []
    for path in sorted(p for p in root.rglob("*") if p.suffix.lower() in SUFFIXES):
        name, beside = path.relative_to(root).as_posix(), path.with_suffix(".txt")
        if name not in texts and not beside.exists():
            raise ExportError(f"image_path: {path} has no caption, neither in metadata.csv nor in {beside.name}")
        entries.append((name, texts[name] if name in texts else beside.read_text(encoding="utf-8").strip()))
    return Pictures(entries, lambda index: (root / entries[index][0]).read_bytes(), size)


def parquet_pictures(path: str | Path, size: tuple[int, int]) -> Pictures:
    """Rows of one Parquet file or a folder of them: ``image`` (bytes, or a struct with them) or ``jpg``; ``text`` or
    ``caption``. A row group's pictures are read when one of them is asked for."""
    root = Path(path)
    files = sorted(root.rglob("*.parquet")) if root.is_dir() else [root]
    entries: list[tuple[str, str]] = []
    places: list[tuple[Path, int, int, str]] = []
    for file in files:
        opened = pq.ParquetFile(file)
        names = opened.schema_arrow.names
        image = next((name for name in ("image", "jpg") if name in names), None)
        text = next((name for name in ("text", "caption") if name in names), None)
        if image is None or text is None:
            raise ExportError(f"image_path: {file} needs columns image or jpg and text or caption, not {names}")
        for group in range(opened.num_row_groups):
            words = opened.read_row_group(group, columns=[text])[text].to_pylist()
            places += [(file, group, number, image) for number in range(len(words))]
            entries += [(f"{file.name}:{group}:{number}", word or "") for number, word in enumerate(words)]
    kept: OrderedDict[tuple[Path, int], list[Any]] = OrderedDict()
    lock = threading.Lock()

    def read(index: int) -> bytes:
        file, group, number, image = places[index]
        with lock:
            if (file, group) not in kept:
                kept[file, group] = list(pq.ParquetFile(file).read_row_group(group, columns=[image])[image])
                while len(kept) > 4:
                    kept.popitem(last=False)
            value = kept[file, group][number].as_py()
        return bytes(value["bytes"] if isinstance(value, dict) else value)

    return Pictures(entries, read, size)


class Part:
    """Some of the items, as items."""

    def __init__(self, items: Filmed, chosen: Sequence[int]) -> None:
        self._items, self._chosen = items, list(chosen)
        self.ids, self.lengths = [items.ids[i] for i in chosen], [items.lengths[i] for i in chosen]
        self.fits = items.fits

    def caption(self, index: int, column: str) -> str:
        return self._items.caption(self._chosen[index], column)

    def number(self, index: int, column: str) -> float | None:
        return self._items.number(self._chosen[index], column)

    def frames(self, index: int, first: int, last: int) -> Pixels:
        return self._items.frames(self._chosen[index], first, last)
