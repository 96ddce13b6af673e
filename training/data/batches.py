"""Samples → what the network sees: latents, noise, noise levels and conditions."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dailies.curation.errors import ExportError, item_error
from dailies.training.data.loaders import MIDDLE, Loader, Sample
from dailies.training.data.sampling import SampleSpec, generator, normal
from dailies.training.data.schedule import BucketSubset, Schedule
from dailies.training.data.split import Split
from dailies.training.data.world import ALONE, World
from dailies.training.diffusion import objective
from dailies.training.diffusion.conditioning import Condition
from dailies.training.diffusion.encoders import Encoders
from dailies.training.models.pixels import Pixels, to_tensor
from dailies.training.recipes.phase import Phase
from dailies.training.recipes.recipe import TrainingRecipe
from dailies.zoo.formats.time_ids import added_time_ids, motion_bucket

TRIED = 8  # items of each subset that are read before the first step


@dataclass(frozen=True, kw_only=True)
class Batch:
    """A batch holds one step's samples of one shape.

    Args:
        clip_ids: Of each sample; a picture's name where it is one.
        clean, noise: (B, 4, h, w) for images, (B, T, 4, h, w) for videos.
        sigma: Noise levels, (B,).
    """

    clip_ids: tuple[str, ...]
    clean: Tensor
    noise: Tensor
    sigma: Tensor
    condition: Condition

    def rows(self, start: int, stop: int) -> Batch:
        """Return samples [start, stop) as a batch."""
        rows = slice(start, stop)
        return Batch(
            clip_ids=self.clip_ids[rows],
            clean=self.clean[rows],
            noise=self.noise[rows],
            sigma=self.sigma[rows],
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


class Batches:
    """Makes the batches of one phase. A sample depends on (seed, phase, position) and the items alone.

    Args:
        reference: The motion score that motion bucket 127 stands for.
        readers: Threads that read samples.

    Raises ``ExportError`` where latents were made by other models than ``encoders``.
    """

    def __init__(
        self,
        recipe: TrainingRecipe,
        phase: Phase,
        split: Split,
        encoders: Encoders,
        reference: float,
        *,
        readers: int = 4,
    ) -> None:
        self.recipe, self.phase, self.split, self.encoders = recipe, phase, split, encoders
        self.reference = reference
        self.failed: dict[str, str] = {}  # why, by clip id
        self._schedule = Schedule(recipe.seed, phase, split.train, split.pictures)
        self._readers = ThreadPoolExecutor(readers, thread_name_prefix="read")
        subsets = [*split.train, *split.validation, *([split.pictures] if split.pictures else [])]
        self._loaders: dict[int, Loader[Any]] = {
            id(subset): subset.items.loader(subset.shape, phase, encoders) for subset in subsets
        }

    def check_readable(self) -> None:
        """Try ``TRIED`` items of each training subset, evenly spaced, so that bad data ends a phase before its first step.

        Raises ``ExportError`` where over half of a subset's cannot be read.
        """
        for subset in (*self.split.train, *([self.split.pictures] if self.split.pictures else [])):
            count = len(subset.items.clip_ids)
            tried = sorted({count * number // TRIED for number in range(TRIED)})
            list(self._readers.map(lambda item, of=subset: self._try(of, self._middle(of, item)), tried))
            clip_ids = [subset.items.clip_ids[item] for item in tried]
            if 2 * sum(clip_id in self.failed for clip_id in clip_ids) > len(clip_ids):
                raise self._unreadable(clip_ids)

    def close(self) -> None:
        """Let the reading threads end."""
        self._readers.shutdown(wait=False, cancel_futures=True)

    def training(self, step: int, world: World = ALONE) -> list[Batch]:
        """Make the batches of optimizer step ``step``, conditions dropped at the phase's rates: pictures and videos
        apart."""
        return [self.make(plan.subset, plan.specs) for plan in self._schedule.step(step, world)]

    def validation(self, sigma: float | None = None, most: int | None = None, world: World = ALONE) -> Iterator[Batch]:
        """Yield the fixed validation samples, ``most`` at a time, nothing dropped: those batches that are this rank's.
        ``sigma``: in place of the drawn ones."""
        number = 0
        for subset, specs in self.held_out():
            size = most or len(specs)
            for start in range(0, len(specs), size):
                if number % world.size == world.rank:
                    yield self.make(subset, specs[start : start + size], sigma, drop=False)
                number += 1

    def held_out(self) -> list[tuple[BucketSubset, list[SampleSpec]]]:
        """Return the validation samples of each subset: one for an item, its middle window. Generators are fresh each
        call."""
        phase, subsets = self.phase, self.split.validation
        each = -(-phase.validation_clips // len(subsets))
        return [
            (subset, [self._middle(subset, i) for i in range(min(each, len(subset.items.clip_ids)))])
            for subset in subsets
        ]

    def make(
        self, subset: BucketSubset, specs: Sequence[SampleSpec], sigma: float | None = None, *, drop: bool = True
    ) -> Batch:
        """Make a batch of the samples that ``specs`` ask for. ``sigma``: for all of them, in place of the drawn ones.

        Raises ``ExportError`` where no item can be read.
        """
        phase, loader = self.phase, self._loaders[id(subset)]
        samples = list(self._readers.map(lambda spec: self._load(subset, spec), specs))
        specs = [sample.spec for sample in samples]
        moments = torch.stack([loader.moments(sample) for sample in samples])
        mean, logvar = moments.chunk(2, dim=2)
        posterior = torch.stack([normal(spec.rng, m.shape) for spec, m in zip(specs, mean, strict=True)])
        clean = (mean + (0.5 * logvar.clamp(-30, 20)).exp() * posterior) * loader.scaling_factor
        noise = torch.stack([normal(spec.rng, m.shape) for spec, m in zip(specs, mean, strict=True)])
        drawn = objective.draw_sigma(torch.tensor([spec.sigma for spec in specs]), phase.p_mean, phase.p_std)
        condition = self._condition(subset, samples)
        if drop:
            condition = condition.drop(
                torch.tensor([spec.drop_text < phase.drop_text for spec in specs]),
                torch.tensor([spec.drop_image < phase.drop_image for spec in specs]),
            )
        image = subset.shape.frames == 1
        return Batch(
            clip_ids=tuple(subset.items.clip_ids[spec.item] for spec in specs),
            clean=clean[:, 0] if image else clean,
            noise=noise[:, 0] if image else noise,
            sigma=drawn if sigma is None else torch.full_like(drawn, sigma),
            condition=condition,
        )

    def pixels(self, subset: BucketSubset, spec: SampleSpec) -> Pixels:
        """Return the frames of a sample: uint8 (T, H, W, 3); of latents, as the VAE decodes their mean."""
        return self._loaders[id(subset)].pixels(self._load(subset, spec))

    def made_from(self, subset: BucketSubset, spec: SampleSpec) -> str:
        """Return what a sample is made from, for people: its caption, or which frames the network is shown."""
        task = self.phase.task_spec
        if task.cross_attention == "text":
            return subset.items.caption(spec.item, self._column(spec))
        ends = " and ".join("first" if frame == 0 else "last" for frame in task.conditioning_frames)
        return f"from its {ends} frame"

    # ---- parts ----

    def _middle(self, subset: BucketSubset, item: int) -> SampleSpec:
        """Return the validation sample of an item."""
        return SampleSpec(
            position=item, item=item, offset=subset.items.validation_offset, crop=MIDDLE, sigma=0.0, aug=0.0,
            drop_text=1.0, drop_image=1.0, rng=generator(self.recipe.seed, f"{self.phase.name} validation", item),
        )  # fmt: skip

    def _load(self, subset: BucketSubset, spec: SampleSpec) -> Sample:
        """Read a sample, from the next item that can be read where its own cannot; ``failed`` keeps which could not."""
        count = len(subset.items.clip_ids)
        for step in range(count):
            if (sample := self._try(subset, replace(spec, item=(spec.item + step) % count))) is not None:
                return sample
        raise self._unreadable(subset.items.clip_ids)

    def _try(self, subset: BucketSubset, spec: SampleSpec) -> Sample | None:
        """Read a sample, or note in ``failed`` why its item cannot be read.

        Raises what ``stopping_error`` makes of what is no item's fault: a replaced item would change what is trained on.
        """
        clip_id = subset.items.clip_ids[spec.item]
        if clip_id in self.failed:
            return None
        column = self._column(spec) if self.phase.task_spec.cross_attention == "text" else None
        try:
            sample: Sample = self._loaders[id(subset)].load(spec, column)
        except Exception as error:  # decoders raise errors of all kinds on damaged bytes
            reason = item_error(error)
            self.failed[clip_id] = f"{reason.kind}: {reason}"
            return None
        return sample

    def _unreadable(self, tried: Sequence[str]) -> ExportError:
        """Return the error that ends a phase, where too many of the items ``tried`` failed."""
        failed = [clip_id for clip_id in tried if clip_id in self.failed]
        return ExportError(
            f"phase {self.phase.name}: data: {len(failed)} of {len(tried)} items tried cannot be read "
            f"({failed[0]}: {self.failed[failed[0]]}); mend or leave out such items"
        )

    def _condition(self, subset: BucketSubset, samples: Sequence[Sample]) -> Condition:
        phase, items, loader = self.phase, subset.items, self._loaders[id(subset)]
        specs = [sample.spec for sample in samples]
        task = phase.task_spec
        buckets = [motion_bucket(items.number(spec.item, "motion"), self.reference) for spec in specs]
        if task.cross_attention == "text":
            tokens = loader.text_tokens(samples)
            fps = subset.fps
            added = None if fps is None else added_time_ids(fps, buckets, torch.zeros(len(specs)))
            return Condition(tokens_BLD=tokens, added_time_ids_BK=added)
        assert subset.fps is not None  # only videos are conditioned on frames
        conditioning = np.stack([sample.conditioning for sample in samples])
        # Noise augmentation: ln σ ~ N(−3, 0.5²) on pixels in [−1, 1].
        sigma = torch.zeros(len(specs))
        if phase.noise_aug is not None:
            sigma = objective.draw_sigma(torch.tensor([s.aug for s in specs], dtype=torch.float32), *phase.noise_aug)
        noise = torch.stack(
            [normal(spec.rng, (len(task.conditioning_frames), 3, *conditioning.shape[2:4])) for spec in specs]
        )
        elevation = None
        if "elevation" in task.columns:
            elevation = [items.number(spec.item, "elevation") or 0.0 for spec in specs]
        return Condition(
            tokens_BLD=torch.stack([loader.image_tokens(sample) for sample in samples]),
            added_time_ids_BK=added_time_ids(subset.fps, buckets, sigma, elevation),
            image_latents_BSCHW=self._modes(conditioning, noise, sigma),
        )

    def _modes(self, conditioning_BSHWC: Pixels, noise_BSCHW: Tensor, sigma_B: Tensor) -> Tensor:
        """Return the VAE mode of x + σ·n, x in [−1, 1], not scaled: (B, S, 4, h, w)."""
        count = conditioning_BSHWC.shape[1]
        x = to_tensor(conditioning_BSHWC.reshape(-1, *conditioning_BSHWC.shape[2:]))
        sigma = sigma_B.repeat_interleave(count)[:, None, None, None]
        modes = self.encoders.vae.modes(x + sigma * noise_BSCHW.flatten(0, 1))
        return modes.reshape(-1, count, *modes.shape[1:])

    def _column(self, spec: SampleSpec) -> str:
        """Return the column whose caption a sample takes."""
        before = 0.0
        for column, share in self.recipe.captions:
            before += share
            if spec.caption < before:
                return column
        return self.recipe.captions[-1][0]
