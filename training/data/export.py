"""An export on disk: its rows in memory, its media read when asked for."""

from __future__ import annotations

import math
import os
import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from dailies.curation import inside
from dailies.curation.errors import ExportError
from dailies.curation.litter import without_litter
from dailies.curation.parquet_files import open_parquet, read_group
from dailies.training.data.manifest import CROPS, TEXT, LatentsManifest, read_manifest
from dailies.training.data.storage import of_row_group


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A row says where one clip lies, and holds its columns without the media."""

    shard: Path
    group: int
    number: int
    columns: dict[str, Any]


class Export:
    """An export holds its rows in memory; media are read when asked for. ``latents``: the manifest where it holds
    precomputed latents in place of videos.

    Raises ``ExportError`` where there are no shards, or a latents.json that cannot be read.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        shards = list(without_litter(self.folder / "data", "*.parquet"))
        if not shards:
            raise ExportError(f"data={self.folder}: holds no data/*.parquet; give a folder that dailies export made")
        self.latents: LatentsManifest | None = read_manifest(self.folder)
        with self._opened(shards[0]) as file:
            self.columns: list[str] = file.schema_arrow.names
        media = {CROPS, *(TEXT + name for name in self.latents.captions)} if self.latents else {"video"}
        self._plain = [name for name in self.columns if name not in media]
        self._footers: dict[Path, pq.FileMetaData] = {}
        self.rows = [row for shard in shards for row in self._read(shard)]
        self._group: tuple[Path, int, list[Any]] | None = None
        self._lock = threading.Lock()

    def _read(self, shard: Path) -> Iterable[Row]:
        with self._opened(shard) as file:
            self._footers[shard] = file.metadata
            counts = [file.metadata.row_group(group).num_rows for group in range(file.num_row_groups)]
            rows = file.read(columns=self._plain).to_pylist()
        positions = ((group, number) for group, count in enumerate(counts) for number in range(count))
        for (group, number), columns in zip(positions, rows, strict=True):
            yield Row(shard=shard, group=group, number=number, columns=columns)

    def _opened(self, shard: Path) -> pq.ParquetFile:
        try:
            return open_parquet(self._checked(shard))
        except pa.ArrowInvalid as error:
            raise ExportError(f"data={self.folder}: data/{shard.name} cannot be read: {error}; export again") from error

    def _checked(self, shard: Path) -> Path:
        """Return a shard's path for Arrow, which opens it next. Raises ``Unsafe`` for a link."""
        return inside.inside(self.folder, f"data/{shard.name}")

    @property
    def card(self) -> str:
        """Return the text of its README.md, empty where it has none."""
        there = os.path.lexists(self.folder / "README.md")
        return inside.read_text(self.folder, "README.md") if there else ""

    def with_video(self, row: Row) -> dict[str, Any]:
        """Return the row with its video. The row group last read stays in memory (at most 32 MB).

        Raises ``ExportError`` where latents stand in place of videos.
        """
        if self.latents is not None:
            raise ExportError(
                f"data={self.folder}: holds latents; give the export with videos, {self.latents.source_path}"
            )
        with self._lock:
            if self._group is None or self._group[:2] != (row.shard, row.group):
                with of_row_group(row.shard, row.group), open_parquet(self._checked(row.shard)) as file:
                    column = read_group(file, row.group, ["video"])["video"]
                self._group = (row.shard, row.group, list(column))
            return {**row.columns, "video": self._group[2][row.number].as_py()}

    def cells(self, row: Row, columns: Sequence[str]) -> dict[str, pa.Scalar]:
        """Return media columns of one row, reading its row group of them. Callable from threads."""
        footer = self._footers[row.shard]
        with (
            of_row_group(row.shard, row.group),
            pq.ParquetFile(self._checked(row.shard), metadata=footer) as file,
        ):
            table = file.read_row_group(row.group, columns=list(columns), use_threads=False)
        return {name: table[name][row.number] for name in columns}


def grid_length(frames: int, native: float, fps: float) -> int:
    """Return how many points of a grid of ``fps`` a clip of ``frames`` at ``native`` 1/s has, from its start."""
    return 1 + math.floor((frames - 1) / native * fps + 1e-6)
