"""Pictures with captions, from a folder of files or from Parquet: clips of one frame."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from dailies.curation import inside
from dailies.curation.errors import ExportError, Unsafe, UsageError
from dailies.curation.litter import without_litter
from dailies.curation.parquet_files import open_parquet, read_group
from dailies.curation.pictures import open_picture
from dailies.curation.table_files import read_rows
from dailies.training.data.items import PixelItems
from dailies.training.data.reader import check_shape
from dailies.training.data.storage import of_row_group, read_file
from dailies.training.models.pixels import Pixels, cover

FIRST_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp")  # what runs by data rules 1 look for in a folder
SUFFIXES = (*FIRST_SUFFIXES, ".gif", ".tif", ".tiff", ".avif", ".heic", ".heif")
MOST_CAPTION = 1 << 20  # bytes


class Pictures(PixelItems):
    """Pictures have a caption each and no numbers.

    Args:
        entries: (name, caption) of each.
        read: Gives the encoded bytes of one, or ``None`` for a null.
        size: (width, height) px that they are resized to cover.
        missing: Names that have a caption and are no picture here.
    """

    def __init__(
        self,
        entries: Sequence[tuple[str, str]],
        read: Callable[[int], bytes | None],
        size: tuple[int, int],
        missing: Sequence[str] = (),
    ) -> None:
        super().__init__([name for name, _ in entries], [1] * len(entries), size)
        self.captions = [text for _, text in entries]
        self.missing = tuple(missing)
        self._read, self._size = read, size

    def caption(self, index: int, column: str) -> str:
        return self.captions[index]

    def number(self, index: int, column: str) -> float | None:
        return None

    def frames(self, index: int, first: int, last: int) -> Pixels:
        picture_HWC = open_picture(self._read(index))
        height, width = picture_HWC.shape[:2]
        check_shape(width, height, self._size)
        return cover(picture_HWC[None], self._size)[first:last]


def folder_pictures(folder: str | Path, size: tuple[int, int], suffixes: Sequence[str] = SUFFIXES) -> Pictures:
    """Open the pictures under ``folder``, each with its caption in metadata.csv (file_name, text) or in a .txt of its
    name. ``suffixes``: which files are pictures."""
    root = Path(folder)
    texts: dict[str, str] = {}
    if (root / "metadata.csv").exists():
        try:
            rows = [row.values for row in read_rows(root / "metadata.csv", typed=False)]
        except UsageError as error:
            raise ExportError(f"image_path={folder}: {error}") from error
        if any(row.get("file_name") is None or row.get("text") is None for row in rows):
            raise ExportError(
                f"image_path={folder}: metadata.csv needs the columns file_name and text, filled in each row"
            )
        texts = {row["file_name"]: row["text"] for row in rows}
    entries = []
    # A pipe or a device among them would keep its reader waiting.
    for path in (p for p in without_litter(root, "**/*") if p.suffix.lower() in suffixes and p.is_file()):
        name, beside = path.relative_to(root).as_posix(), path.with_suffix(".txt")
        if name not in texts and not beside.is_file():
            raise ExportError(f"image_path={folder}: {name} has no caption; add it to metadata.csv or as {beside.name}")
        entries.append((name, texts[name] if name in texts else _caption(beside)))
    missing = sorted(texts.keys() - {name for name, _ in entries})
    return Pictures(entries, lambda index: read_file(root, entries[index][0]), size, missing)


def _caption(path: Path) -> str:
    try:
        return inside.read_named(path, most=MOST_CAPTION).decode("utf-8").strip()
    except (Unsafe, UnicodeDecodeError) as error:
        raise ExportError(f"image_path={path.parent}: {path.name} is no caption: {error}") from error


def picture_tables(path: str | Path) -> list[Path]:
    """Return the Parquet files that ``parquet_pictures`` reads."""
    root = Path(path)
    return [path for path in without_litter(root, "**/*.parquet") if path.is_file()] if root.is_dir() else [root]


def parquet_pictures(path: str | Path, size: tuple[int, int]) -> Pictures:
    """Open the rows of one Parquet file or a folder of them: ``image`` (bytes, or a struct with them) or ``jpg``;
    ``text`` or ``caption``. A row group's pictures are read when one of them is asked for."""
    entries: list[tuple[str, str]] = []
    cells: list[tuple[Path, int, int, str]] = []
    for file in picture_tables(path):
        try:
            for group, image, captions in _captions(file):
                cells += [(file, group, number, image) for number in range(len(captions))]
                entries += [(f"{file.name}:{group}:{number}", caption or "") for number, caption in enumerate(captions)]
        except (pa.ArrowInvalid, OSError) as error:
            raise ExportError(f"image_path={path}: {file.name} cannot be read: {error}; put it back whole") from error
        except ExportError as error:
            raise ExportError(f"image_path={path}: {error}") from None
    row_groups: OrderedDict[tuple[Path, int], list[Any]] = OrderedDict()
    lock = threading.Lock()

    def read(index: int) -> bytes | None:
        file, group, number, image = cells[index]
        with lock:
            if (file, group) not in row_groups:
                with of_row_group(file, group), open_parquet(file) as opened:
                    column = read_group(opened, group, [image])[image]
                row_groups[file, group] = list(column)
                while len(row_groups) > 4:
                    row_groups.popitem(last=False)
            value = row_groups[file, group][number].as_py()
        data: bytes | None = value["bytes"] if isinstance(value, dict) else value
        return data

    return Pictures(entries, read, size)


def _captions(path: Path) -> Iterator[tuple[int, str, list[str | None]]]:
    """Yield each row group with the name of its column of pictures, and its captions."""
    with open_parquet(path) as file:
        names = file.schema_arrow.names
        image = next((name for name in ("image", "jpg") if name in names), None)
        text = next((name for name in ("text", "caption") if name in names), None)
        if image is None or text is None:
            raise ExportError(
                f"{path.name} has the columns {', '.join(names)}; name them image or jpg, and text or caption"
            )
        for group in range(file.num_row_groups):
            yield group, image, read_group(file, group, [text])[text].to_pylist()
