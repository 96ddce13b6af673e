"""Items are what a phase draws from: clips on a grid of frames, read as pixels or as latents (``precomputed``), or pictures
(``pictures``), which are clips of one frame.

Items give loaders: a loader reads samples of one bucket and has them encoded, so that batches need not know what the
items hold.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar, Protocol

from dailies.training.data.export import Export, Row, grid_length
from dailies.training.data.loaders import Loader, PixelLoader
from dailies.training.data.reader import Backend, a_number, read
from dailies.training.diffusion.encoders import Encoders
from dailies.training.models.pixels import Pixels
from dailies.training.recipes.phase import Bucket, Phase

CACHE_BYTES = 1 << 30


class Items(Protocol):
    """Items have ids and lengths, and give a loader of their samples. ``clip_ids``: of clips, or the names of pictures.
    ``lengths``: frames of each on the phase's grid. ``validation_offset``: the offset of the window that validation
    looks at."""

    @property
    def clip_ids(self) -> Sequence[str]: ...
    @property
    def lengths(self) -> Sequence[int]: ...
    @property
    def validation_offset(self) -> float: ...

    def caption(self, index: int, column: str) -> str:
        """Return a text, empty where the clip has none."""
        ...

    def number(self, index: int, column: str) -> float | None:
        """Return a column's number, ``None`` where there is none."""
        ...

    def subset(self, chosen: Sequence[int]) -> Items:
        """Return some of the items."""
        ...

    def loader(self, shape: Bucket, phase: Phase, encoders: Encoders) -> Loader[Any]:
        """Return what reads and encodes their samples in one shape. Raises ``ExportError`` where they are precomputed
        by other models than ``encoders``."""
        ...


class PixelItems(ABC):
    """Items that are read as pixels. ``fits``: whether all of them, decoded, fit into ``CACHE_BYTES``."""

    validation_offset: ClassVar[float] = 0.5  # the middle

    def __init__(self, clip_ids: Sequence[str], lengths: Sequence[int], size: tuple[int, int]) -> None:
        self.clip_ids, self.lengths, self.size = list(clip_ids), list(lengths), size
        self.fits = sum(self.lengths) * size[0] * size[1] * 3 <= CACHE_BYTES

    @abstractmethod
    def caption(self, index: int, column: str) -> str: ...

    @abstractmethod
    def number(self, index: int, column: str) -> float | None: ...

    @abstractmethod
    def frames(self, index: int, first: int, last: int) -> Pixels:
        """Return frames [first, last) of the grid, uint8 (T, h, w, 3), resized to cover the phase's size. Callable from
        threads.

        Raises ``SourceError``, or what a decoder does, where the item cannot be read; ``Outage`` where none can.
        """

    def subset(self, chosen: Sequence[int]) -> PixelItems:
        return PixelSubset(self, chosen)

    def loader(self, shape: Bucket, phase: Phase, encoders: Encoders) -> Loader[Any]:
        return PixelLoader(self, shape, phase, encoders)


class PixelSubset(PixelItems):
    """Some items of ``whole``, as items."""

    def __init__(self, whole: PixelItems, chosen: Sequence[int]) -> None:
        super().__init__([whole.clip_ids[i] for i in chosen], [whole.lengths[i] for i in chosen], whole.size)
        self.fits = whole.fits
        self._whole, self._chosen = whole, list(chosen)

    def caption(self, index: int, column: str) -> str:
        return self._whole.caption(self._chosen[index], column)

    def number(self, index: int, column: str) -> float | None:
        return self._whole.number(self._chosen[index], column)

    def frames(self, index: int, first: int, last: int) -> Pixels:
        return self._whole.frames(self._chosen[index], first, last)


class Clips(PixelItems):
    """Clips of an export lie on a grid of ``fps`` and cover ``size`` px. Where all fit into ``CACHE_BYTES`` each is
    decoded once, else only the frames asked for are."""

    def __init__(
        self, export: Export, rows: Sequence[Row], fps: float, size: tuple[int, int], backend: Backend = "pyav"
    ) -> None:
        self._export, self._rows, self._fps, self._size, self._backend = export, list(rows), fps, size, backend
        super().__init__(
            [row.columns["clip_id"] for row in rows],
            [grid_length(row.columns["frames"], row.columns["fps"], fps) for row in rows],
            size,
        )
        self._decoded: dict[int, Pixels] = {}

    def caption(self, index: int, column: str) -> str:
        return self._rows[index].columns[column] or ""

    def number(self, index: int, column: str) -> float | None:
        return a_number(self._rows[index].columns.get(column))

    def frames(self, index: int, first: int, last: int) -> Pixels:
        if not self.fits:
            return self._decode(index, first, last - first)
        if index not in self._decoded:
            self._decoded[index] = self._decode(index, 0, self.lengths[index])
        return self._decoded[index][first:last]

    def _decode(self, index: int, first: int, count: int) -> Pixels:
        row = self._export.with_video(self._rows[index])
        return read(row, self._fps, count, self._size, self._backend, first=first)
