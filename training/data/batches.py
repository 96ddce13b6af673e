"""Samples → what the network sees: latents, noise, noise levels and conditions."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from dailies.curation.errors import ExportError
from dailies.curation.video import SourceError
from dailies.training.data.latent_crops import View, Views
from dailies.training.data.manifest import check_weights
from dailies.training.data.sampling import Draw, generator, normal
from dailies.training.data.schedule import Lane, Schedule
from dailies.training.data.split import Split, cropped, window
from dailies.training.data.world import ALONE, World
from dailies.training.diffusion import objective
from dailies.training.diffusion.conditioning import Condition
from dailies.training.diffusion.encoders import Encoders
from dailies.training.models.pixels import Pixels, to_tensor
from dailies.training.recipes.phase import Phase
from dailies.training.recipes.recipe import Recipe
from dailies.zoo.formats.time_ids import added_ids, motion_bucket


@dataclass(frozen=True, kw_only=True)
class Batch:
    """``clean`` and ``noise`` are (B, 4, h, w) for images, (B, T, 4, h, w) for videos; ``sigma`` (B,)."""

    ids: tuple[str, ...]
    clean: Tensor
    noise: Tensor
    sigma: Tensor
    condition: Condition

    def rows(self, start: int, stop: int) -> Batch:
        """Some of its samples."""
        cut = slice(start, stop)
        return Batch(
            ids=self.ids[cut],
            clean=self.clean[cut],
            noise=self.noise[cut],
            sigma=self.sigma[cut],
            condition=self.condition.rows(start, stop),
        )

    def to(self, device: torch.device) -> Batch:
        def moved(x: Tensor) -> Tensor:
            return x.to(device, non_blocking=True)

        return replace(
            self,
            clean=moved(self.clean),
            noise=moved(self.noise),
            sigma=moved(self.sigma),
            condition=self.condition.to(device),
        )


@dataclass(frozen=True, kw_only=True)
class Sample:
    """What a draw took. ``draw``: its item is another where its own could not be read. ``shown``: the frames that the
    task shows. Either all frames' ``pixels``, or a ``view`` of latents."""

    draw: Draw
    shown: Pixels
    pixels: Pixels | None = None
    view: View | None = None


class Batches:
    """Makes batches of one phase. A sample depends on (seed, phase, position) and the items alone.

    Where all of a lane's items fit into memory, and crops are in the middle, an item's posterior moments are worked out
    once and kept; the whole item is then encoded in one go, so that they are bit for bit the same whatever was asked
    for first. Of latents, moments and texts are read and not worked out, so that neither VAE nor text encoder is loaded
    for a phase that attends to text; the rest is the same.
    """

    def __init__(
        self, recipe: Recipe, phase: Phase, split: Split, encoders: Encoders, reference: float, *, readers: int = 4
    ) -> None:
        self.recipe, self.phase, self.split, self.encoders = recipe, phase, split, encoders
        self.reference = reference
        self.failed: dict[str, str] = {}
        self._schedule = Schedule(recipe.seed, phase, split.train, split.pictures)
        self._moments: dict[tuple[int, int], Tensor] = {}
        self._tokens: dict[tuple[int, int, int], Tensor] = {}
        self._readers = ThreadPoolExecutor(readers, thread_name_prefix="read")
        for lane in (*split.train, *split.validation):  # whoever sorted them may not have known the models
            if isinstance(lane.items, Views):
                check_weights(phase, lane.items.facts, encoders.models)

    def close(self) -> None:
        """Let the reading threads end."""
        self._readers.shutdown(wait=False, cancel_futures=True)

    def training(self, step: int, world: World = ALONE) -> list[Batch]:
        """The batches of optimizer step ``step``, conditions dropped at the phase's rates: pictures and videos
        apart."""
        return [self.make(one.lane, one.draws) for one in self._schedule.step(step, world)]

    def validation(self, sigma: float | None = None, most: int | None = None, world: World = ALONE) -> Iterator[Batch]:
        """The fixed validation samples, ``most`` at a time, nothing dropped: those batches that are this rank's.
        ``sigma``: in place of the drawn ones."""
        number = 0
        for lane, draws in self.held_out():
            size = most or len(draws)
            for start in range(0, len(draws), size):
                if number % world.size == world.rank:
                    yield self.make(lane, draws[start : start + size], sigma, drop=False)
                number += 1

    def held_out(self) -> list[tuple[Lane, list[Draw]]]:
        """The validation samples of each lane: one for an item, its middle window. Fresh generators each call."""
        phase, lanes = self.phase, self.split.validation
        each = -(-phase.validation_clips // len(lanes))
        return [
            (lane, [_middle(self.recipe.seed, phase, lane, i) for i in range(min(each, len(lane.items.ids)))])
            for lane in lanes
        ]

    def make(self, lane: Lane, draws: Sequence[Draw], sigma: float | None = None, *, drop: bool = True) -> Batch:
        """The samples that ``draws`` say. ``sigma``: for all of them, in place of the drawn ones."""
        phase = self.phase
        samples = list(self._readers.map(lambda d: self._sample(lane, d), draws))
        draws = [one.draw for one in samples]
        moments = torch.stack([self._latents(lane, one) for one in samples])
        mean, logvar = moments.chunk(2, dim=2)
        posterior = torch.stack([normal(d.rng, m.shape) for d, m in zip(draws, mean, strict=True)])
        clean = (mean + (0.5 * logvar.clamp(-30, 20)).exp() * posterior) * self._scale(lane)
        noise = torch.stack([normal(d.rng, m.shape) for d, m in zip(draws, mean, strict=True)])
        drawn = objective.draw_sigma(torch.tensor([d.sigma for d in draws]), phase.p_mean, phase.p_std)
        condition = self._condition(lane, samples)
        if drop:
            condition = condition.drop(
                torch.tensor([d.drop_text < phase.drop_text for d in draws]),
                torch.tensor([d.drop_image < phase.drop_image for d in draws]),
            )
        image = lane.shape.frames == 1
        return Batch(
            ids=tuple(lane.items.ids[d.item] for d in draws),
            clean=clean[:, 0] if image else clean,
            noise=noise[:, 0] if image else noise,
            sigma=drawn if sigma is None else torch.full_like(drawn, sigma),
            condition=condition,
        )

    def pixels(self, lane: Lane, draw: Draw) -> Pixels:
        """The frames a draw takes: uint8 (T, H, W, 3); of latents, as the VAE decodes their mean."""
        sample = self._sample(lane, draw)
        if sample.pixels is not None:
            return sample.pixels
        mean = self._latents(lane, sample).chunk(2, dim=1)[0]
        return self.encoders.vae.decode(mean * self._scale(lane))

    # ---- parts ----

    def _sample(self, lane: Lane, draw: Draw) -> Sample:
        """What ``draw`` takes, of the next item that can be read where its own cannot; which ones could not is kept in
        ``failed``."""
        items = lane.items
        for step in range(len(items.ids)):
            other = replace(draw, item=(draw.item + step) % len(items.ids))
            name = items.ids[other.item]
            if name in self.failed:
                continue
            try:
                return self._taken(lane, other)
            except (OSError, SourceError) as error:
                self.failed[name] = str(error)
        raise ExportError(f"data: none of {len(items.ids)} items can be read: {next(iter(self.failed.values()))}")

    def _taken(self, lane: Lane, draw: Draw) -> Sample:
        """Raises what reading the draw's item raises."""
        items, kind = lane.items, self.phase.kind
        if isinstance(items, Views):
            column = self._column(draw) if kind.context == "text" else None
            view = items.view(draw.item, items.which(draw.offset), column)
            return Sample(draw=draw, shown=view.shown, view=view)
        pixels = cropped(items.frames(draw.item, *window(lane, draw)), lane, self.phase, draw)
        return Sample(draw=draw, shown=pixels[list(kind.shown)], pixels=pixels)

    def _scale(self, lane: Lane) -> float:
        """Latents times this have unit variance."""
        return lane.items.facts.scaling_factor if isinstance(lane.items, Views) else self.encoders.vae.scale

    def _latents(self, lane: Lane, sample: Sample) -> Tensor:
        """Posterior moments of a sample's frames: (T, 8, h, w)."""
        items, item = lane.items, sample.draw.item
        if isinstance(items, Views):
            assert sample.view is not None
            return sample.view.moments.float()
        assert sample.pixels is not None
        if self.phase.crop == "random" or not items.fits:
            return self.encoders.vae.moments(sample.pixels)
        key = id(lane), item
        if key not in self._moments:
            frames = items.frames(item, 0, items.lengths[item])
            self._moments[key] = self.encoders.vae.moments(cropped(frames, lane, self.phase, sample.draw))
        first, last = window(lane, sample.draw)
        return self._moments[key][first:last]

    def _condition(self, lane: Lane, samples: Sequence[Sample]) -> Condition:
        phase, items = self.phase, lane.items
        draws = [one.draw for one in samples]
        kind = phase.kind
        buckets = [motion_bucket(items.number(d.item, "motion"), self.reference) for d in draws]
        if kind.context == "text":
            tokens = self._texts(lane, samples)
            ids = None if lane.shape.frames == 1 else added_ids(phase.fps, buckets, torch.zeros(len(draws)))
            return Condition(tokens_BLD=tokens, ids_BK=ids)
        shown = np.stack([one.shown for one in samples])
        # Noise augmentation: ln σ ~ N(−3, 0.5²) on pixels in [−1, 1].
        sigma = torch.zeros(len(draws))
        if phase.noise_aug is not None:
            sigma = objective.draw_sigma(torch.tensor([d.aug for d in draws], dtype=torch.float32), *phase.noise_aug)
        noise = torch.stack([normal(d.rng, (len(kind.shown), 3, *shown.shape[2:4])) for d in draws])
        elevation = [items.number(d.item, "elevation") or 0.0 for d in draws] if kind.ids == 5 else None
        return Condition(
            tokens_BLD=torch.stack([self._tokens_of(lane, one) for one in samples]),
            ids_BK=added_ids(phase.fps, buckets, sigma, elevation),
            shown_BSCHW=self._shown(shown, noise, sigma),
        )

    def _texts(self, lane: Lane, samples: Sequence[Sample]) -> Tensor:
        """The tokens of a caption of each: (B, L, D)."""
        kept = [one.view.text.float() for one in samples if one.view is not None and one.view.text is not None]
        if len(kept) == len(samples):
            return torch.stack(kept)
        captions = [lane.items.caption(one.draw.item, self._column(one.draw)) for one in samples]
        return self.encoders.text(captions)

    def _shown(self, shown_BSHWC: Pixels, noise_BSCHW: Tensor, sigma_B: Tensor) -> Tensor:
        """The VAE mode of x + σ·n, x in [−1, 1], not scaled: (B, S, 4, h, w)."""
        count = shown_BSHWC.shape[1]
        x = to_tensor(shown_BSHWC.reshape(-1, *shown_BSHWC.shape[2:]))
        sigma = sigma_B.repeat_interleave(count)[:, None, None, None]
        modes = self.encoders.vae.modes(x + sigma * noise_BSCHW.flatten(0, 1))
        return modes.reshape(-1, count, *modes.shape[1:])

    def _tokens_of(self, lane: Lane, sample: Sample) -> Tensor:
        """The CLIP tokens of a sample's shown frames, (S, D); kept where frame and crop come again."""
        items, draw = lane.items, sample.draw
        if isinstance(items, Views):  # which come again, wherever they lie
            place, again = items.which(draw.offset), items.fits
        else:
            place, again = window(lane, draw)[0], items.fits and self.phase.crop != "random"
        if not again:
            return self.encoders.image(sample.shown)[:, 0]
        key = id(lane), draw.item, place
        if key not in self._tokens:
            self._tokens[key] = self.encoders.image(sample.shown)[:, 0]
        return self._tokens[key]

    def _column(self, draw: Draw) -> str:
        """The column whose caption a draw takes."""
        before = 0.0
        for column, share in self.recipe.captions:
            before += share
            if draw.caption < before:
                return column
        return self.recipe.captions[-1][0]


def _middle(seed: int, phase: Phase, lane: Lane, item: int) -> Draw:
    """The middle window, which of latents is the first view."""
    offset = 0.0 if isinstance(lane.items, Views) else 0.5
    return Draw(
        position=item, item=item, offset=offset, crop=(0.5, 0.5), sigma=0.0, aug=0.0, drop_text=1.0, drop_image=1.0,
        rng=generator(seed, f"{phase.name} validation", item),
    )  # fmt: skip
