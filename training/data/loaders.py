"""Loaders: samples of one bucket, read from its items and encoded by the frozen models.

``load`` reads and runs in threads; the other methods encode and run in one thread. What comes again is encoded once.

Shape suffixes: B batch, T frames, S conditioning frames, L tokens, D token width, H, W in px, h, w in latents.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from torch import Tensor

from dailies.training.data.sampling import SampleSpec, first_frame
from dailies.training.diffusion.encoders import Encoders
from dailies.training.models.pixels import Pixels, crop
from dailies.training.recipes.phase import Bucket, Phase

MIDDLE = (0.5, 0.5)


@dataclass(frozen=True, kw_only=True)
class Sample:
    """A sample is what a spec reads.

    Args:
        spec: The choices it follows; its item is the one that was read.
        column: The column of its caption, ``None`` in a phase that does not attend to text.
        conditioning: The frames that the task shows the network, uint8 (S, H, W, 3).
    """

    spec: SampleSpec
    column: str | None
    conditioning: Pixels


S = TypeVar("S", bound=Sample)


class Loader(ABC, Generic[S]):
    """A loader reads and encodes the samples of one bucket."""

    def __init__(self, encoders: Encoders) -> None:
        self.encoders = encoders
        self._image_tokens: dict[Hashable, Tensor] = {}

    @abstractmethod
    def load(self, spec: SampleSpec, column: str | None) -> S:
        """Read what ``spec`` asks for, with the caption of ``column``. Callable from threads.

        Raises ``SourceError``, or what a decoder does, where the item cannot be read; ``Outage`` where none can.
        """

    @property
    @abstractmethod
    def scaling_factor(self) -> float:
        """Latents times this have unit variance."""

    @abstractmethod
    def moments(self, sample: S) -> Tensor:
        """Return the posterior's mean and log-variance of a sample's frames: (T, 8, h, w), not scaled."""

    @abstractmethod
    def pixels(self, sample: S) -> Pixels:
        """Return a sample's frames to look at: uint8 (T, H, W, 3)."""

    @abstractmethod
    def text_tokens(self, samples: Sequence[S]) -> Tensor:
        """Return the tokens of each sample's caption: (B, L, D)."""

    @abstractmethod
    def recurrence(self, sample: S) -> Hashable | None:
        """Return a key that samples of the same frames and crop share, or ``None`` where those do not come again, or
        too many do to keep what they are encoded to."""

    def image_tokens(self, sample: S) -> Tensor:
        """Return the CLIP tokens of a sample's conditioning frames, (S, D); kept where they come again."""
        key = self.recurrence(sample)
        if key is None:
            return self.encoders.image(sample.conditioning)[:, 0]
        if key not in self._image_tokens:
            self._image_tokens[key] = self.encoders.image(sample.conditioning)[:, 0]
        return self._image_tokens[key]


# ---- pixels ---------------------------------------------------------------------------------------------------------


class FrameSource(Protocol):
    """A source of frames for a ``PixelLoader``; see ``dailies.training.data.items.PixelItems``."""

    lengths: list[int]
    fits: bool

    def caption(self, index: int, column: str) -> str: ...

    def frames(self, index: int, first: int, last: int) -> Pixels: ...


@dataclass(frozen=True, kw_only=True)
class PixelSample(Sample):
    """A sample read as pixels. ``pixels``: all frames, uint8 (T, H, W, 3). ``first``: the first of them on the grid."""

    pixels: Pixels
    first: int


class PixelLoader(Loader[PixelSample]):
    """Samples of items that are read as pixels.

    Where all items fit into memory and crops are in the middle, an item's moments are computed once and kept; the
    whole item is then encoded in one go, so that they are bit for bit the same whatever was asked for first.
    """

    def __init__(self, items: FrameSource, shape: Bucket, phase: Phase, encoders: Encoders) -> None:
        super().__init__(encoders)
        self._items, self._shape, self._phase = items, shape, phase
        self._recurs = items.fits and phase.crop != "random"
        self._moments: dict[int, Tensor] = {}

    def load(self, spec: SampleSpec, column: str | None) -> PixelSample:
        frames = self._shape.frames
        first = first_frame(self._items.lengths[spec.item] - frames, spec.offset)
        pixels = self._crop(self._items.frames(spec.item, first, first + frames), spec)
        conditioning = pixels[list(self._phase.task_spec.conditioning_frames)]
        return PixelSample(spec=spec, column=column, conditioning=conditioning, pixels=pixels, first=first)

    @property
    def scaling_factor(self) -> float:
        return self.encoders.vae.scale

    def moments(self, sample: PixelSample) -> Tensor:
        if not self._recurs:
            return self.encoders.vae.moments(sample.pixels)
        item = sample.spec.item
        if item not in self._moments:
            frames = self._items.frames(item, 0, self._items.lengths[item])
            self._moments[item] = self.encoders.vae.moments(self._crop(frames, sample.spec))
        return self._moments[item][sample.first : sample.first + self._shape.frames]

    def pixels(self, sample: PixelSample) -> Pixels:
        return sample.pixels

    def text_tokens(self, samples: Sequence[PixelSample]) -> Tensor:
        return self.encoders.text([self._items.caption(x.spec.item, x.column) for x in samples if x.column is not None])

    def recurrence(self, sample: PixelSample) -> Hashable | None:
        return (sample.spec.item, sample.first) if self._recurs else None

    def _crop(self, frames_THWC: Pixels, spec: SampleSpec) -> Pixels:
        """Crops frames that cover the bucket's size to it."""
        return crop(frames_THWC, self._shape.size, spec.crop if self._phase.crop == "random" else MIDDLE)
