"""Precomputed latents as items: what training reads from an export of latents in place of pixels.

Neither VAE nor text encoder is loaded for a phase that attends to text.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from dailies.training.data.export import Export, Row
from dailies.training.data.latent_crops import LatentCrop, decode_crop
from dailies.training.data.loaders import Loader, Sample
from dailies.training.data.manifest import CROPS, TEXT, LatentsManifest, check_weights
from dailies.training.data.reader import a_number
from dailies.training.data.sampling import SampleSpec
from dailies.training.diffusion.encoders import Encoders
from dailies.training.models.pixels import Pixels
from dailies.training.recipes.phase import Bucket, Phase

CACHE_BYTES = 1 << 30


class PrecomputedLatents:
    """Clips of one bucket, as latents. Where all fit into ``CACHE_BYTES``, each crop is read once.

    Args:
        lengths: Frames of each clip on the phase's grid.
        frames: Frames taken of each crop, from its first on; a picture is a crop's first frame.
        conditioning_frames: Which frames the task shows, among those that are kept.
    """

    validation_offset: ClassVar[float] = 0.0  # a held-out clip's first crop is its middle

    def __init__(
        self,
        export: Export,
        rows: Sequence[Row],
        lengths: Sequence[int],
        frames: int,
        conditioning_frames: Sequence[int] = (),
    ) -> None:
        assert export.latents is not None
        self.manifest: LatentsManifest = export.latents
        self._export, self._rows, self._frames = export, list(rows), frames
        self._conditioning_frames = tuple(conditioning_frames)
        self.clip_ids: list[str] = [row.columns["clip_id"] for row in self._rows]
        self.lengths = list(lengths)
        self.fits = len(self._rows) * self.manifest.views * self._crop_bytes() <= CACHE_BYTES
        self._crops: dict[tuple[int, int, str | None], LatentCrop] = {}

    def _crop_bytes(self) -> int:
        """Return the most bytes that a crop takes in memory, with each of its texts."""
        manifest = self.manifest
        largest = max(shape.size[0] * shape.size[1] for shape in manifest.buckets)
        moments = 2 * 8 * self._frames * largest // manifest.factor**2
        texts = 2 * (manifest.text_tokens or 0) * (manifest.text_width or 0)
        pictures = 3 * largest * len(self._conditioning_frames)
        return (moments + texts) * max(1, len(manifest.captions)) + pictures

    def caption(self, index: int, column: str) -> str:
        return self._rows[index].columns[column] or ""

    def number(self, index: int, column: str) -> float | None:
        return a_number(self._rows[index].columns.get(column))

    def subset(self, chosen: Sequence[int]) -> PrecomputedLatents:
        rows, lengths = [self._rows[i] for i in chosen], [self.lengths[i] for i in chosen]
        return PrecomputedLatents(self._export, rows, lengths, self._frames, self._conditioning_frames)

    def loader(self, shape: Bucket, phase: Phase, encoders: Encoders) -> Loader[Any]:
        check_weights(phase, self.manifest, encoders.models)  # whoever sorted the clips may not have known the models
        return LatentsLoader(self, encoders)

    def crop_number(self, offset: float) -> int:
        """Return which of the crops an offset of 0–1 stands for."""
        return min(self.manifest.views - 1, int(offset * self.manifest.views))

    def crop(self, index: int, number: int, column: str | None = None) -> LatentCrop:
        """Read crop ``number`` of a clip, with the text of caption ``column``. Callable from threads.

        Raises ``Unreadable`` where the shard is damaged, ``Outage`` where it is away.
        """
        key = index, number, column
        if key in self._crops:
            return self._crops[key]
        names = [CROPS] if column is None else [CROPS, TEXT + column]
        cells = self._export.cells(self._rows[index], names)
        text = None if column is None else cells[TEXT + column].as_py()
        crop = decode_crop(cells[CROPS][number], self.manifest, self._conditioning_frames, text, self._frames)
        if self.fits:
            self._crops[key] = crop
        return crop


@dataclass(frozen=True, kw_only=True)
class LatentSample(Sample):
    """A sample read as latents. ``number``: which of the clip's crops it is."""

    crop: LatentCrop
    number: int


class LatentsLoader(Loader[LatentSample]):
    """Samples of precomputed latents: moments and texts are read and not computed."""

    def __init__(self, items: PrecomputedLatents, encoders: Encoders) -> None:
        super().__init__(encoders)
        self._items = items

    def load(self, spec: SampleSpec, column: str | None) -> LatentSample:
        number = self._items.crop_number(spec.offset)
        crop = self._items.crop(spec.item, number, column)
        return LatentSample(spec=spec, column=column, conditioning=crop.conditioning, crop=crop, number=number)

    @property
    def scaling_factor(self) -> float:
        return self._items.manifest.scaling_factor

    def moments(self, sample: LatentSample) -> Tensor:
        return sample.crop.moments.float()

    def pixels(self, sample: LatentSample) -> Pixels:
        """Return the frames that the VAE decodes the posterior's mean to."""
        mean = self.moments(sample).chunk(2, dim=1)[0]
        return self.encoders.vae.decode(mean * self.scaling_factor)

    def text_tokens(self, samples: Sequence[LatentSample]) -> Tensor:
        return torch.stack([sample.crop.text.float() for sample in samples if sample.crop.text is not None])

    def recurrence(self, sample: LatentSample) -> Hashable | None:
        return (sample.spec.item, sample.number) if self._items.fits else None
