"""Positions → what the network sees: latents, noise, noise levels and conditions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from training import objective
from training.conditioning import Condition, Encoders, added_ids, image_latent, motion_bucket
from training.data import Items, cropped, window
from training.draws import Draw, draw, generator, normal
from training.pixels import Pixels, to_tensor
from training.recipe import Phase, Recipe


@dataclass(frozen=True, kw_only=True)
class Batch:
    """``clean`` and ``noise`` are (B, 4, h, w) for images, (B, T, 4, h, w) for videos; ``sigma`` (B,)."""

    ids: tuple[str, ...]
    clean: Tensor
    noise: Tensor
    sigma: Tensor
    condition: Condition


class Batches:
    """Makes batches of one phase. A sample depends on (seed, phase, position) and the items alone.

    With a center crop an item's posterior moments are worked out once and kept; the whole item is encoded in one go, so that
    they are bit for bit the same whatever was asked for first.
    """

    def __init__(self, recipe: Recipe, phase: Phase, items: Items, encoders: Encoders, reference: float) -> None:
        self.recipe, self.phase, self.items, self.encoders = recipe, phase, items, encoders
        self.reference = reference
        self.failed: dict[str, str] = {}
        self._moments: dict[int, Tensor] = {}
        self._tokens: dict[tuple[int, int], Tensor] = {}

    def training(self, step: int) -> Batch:
        """The batch of optimizer step ``step``, conditions dropped at the phase's rates."""
        first = step * self.phase.batch
        count = len(self.items.ids)
        return self.make([draw(self.recipe.seed, self.phase.name, first + i, count) for i in range(self.phase.batch)])

    def make(self, draws: Sequence[Draw], sigma: float | None = None, *, drop: bool = True) -> Batch:
        """The samples that ``draws`` say. ``sigma``: for all of them, in place of the drawn ones."""
        phase = self.phase
        draws = [self._readable(d) for d in draws]
        moments = torch.stack([self._window(d) for d in draws])
        mean, logvar = moments.chunk(2, dim=2)
        posterior = torch.stack([normal(d.rng, m.shape) for d, m in zip(draws, mean, strict=True)])
        # Latents are scaled to unit variance, which σ_data = 1 counts on.
        clean = (mean + (0.5 * logvar.clamp(-30, 20)).exp() * posterior) * self.encoders.vae.config.scaling_factor
        noise = torch.stack([normal(d.rng, m.shape) for d, m in zip(draws, mean, strict=True)])
        drawn = objective.draw_sigma(torch.tensor([d.sigma for d in draws]), phase.p_mean, phase.p_std)
        condition = self._condition(draws)
        if drop:
            condition = condition.drop(
                torch.tensor([d.drop_text < phase.drop_text for d in draws]),
                torch.tensor([d.drop_image < phase.drop_image for d in draws]),
            )
        image = phase.frames == 1
        return Batch(
            ids=tuple(self.items.ids[d.item] for d in draws),
            clean=clean[:, 0] if image else clean,
            noise=noise[:, 0] if image else noise,
            sigma=drawn if sigma is None else torch.full_like(drawn, sigma),
            condition=condition,
        )

    def pixels(self, draw: Draw) -> Pixels:
        """The frames a draw takes: uint8 (T, H, W, 3)."""
        first, last = window(self.items, self.phase, draw)
        return cropped(self.items.frames(draw.item)[first:last], self.phase, draw)

    # ---- parts ----

    def _readable(self, draw: Draw) -> Draw:
        """``draw``, on the next item that can be read where its own cannot; which ones could not is kept in ``failed``."""
        count = len(self.items.ids)
        for step in range(count):
            item = (draw.item + step) % count
            name = self.items.ids[item]
            if name in self.failed:
                continue
            try:
                self.items.frames(item)
            except Exception as error:
                if not (isinstance(error, OSError) or type(error).__module__ == "curation.errors"):
                    raise
                self.failed[name] = str(error)
            else:
                return replace(draw, item=item)
        raise ValueError(f"data: none of {count} items can be read: {next(iter(self.failed.values()))}")

    @torch.no_grad()
    def _window(self, draw: Draw) -> Tensor:
        """Posterior moments of a draw's frames: (T, 8, h, w)."""
        if self.phase.crop == "random":
            return self._encode(self.pixels(draw))
        if draw.item not in self._moments:
            self._moments[draw.item] = self._encode(cropped(self.items.frames(draw.item), self.phase, draw))
        first, last = window(self.items, self.phase, draw)
        return self._moments[draw.item][first:last]

    @torch.no_grad()
    def _encode(self, frames_THWC: Pixels) -> Tensor:
        vae: Any = self.encoders.vae
        parts = []
        for start in range(0, len(frames_THWC), 16):
            posterior = vae.encode(to_tensor(frames_THWC[start : start + 16]).to(vae.device)).latent_dist
            parts.append(torch.cat([posterior.mean, posterior.logvar], 1).float().cpu())
        return torch.cat(parts)

    def _condition(self, draws: Sequence[Draw]) -> Condition:
        phase = self.phase
        buckets = [motion_bucket(self.items.motions[d.item], self.reference) for d in draws]
        if phase.task != "image-to-video":
            tokens = self.encoders.text([self.items.captions[d.item] for d in draws])
            ids = None if phase.frames == 1 else added_ids(phase.fps, buckets, torch.zeros(len(draws)))
            return Condition(tokens_BLD=tokens, ids_B3=ids)
        firsts = np.stack([self.pixels(d)[0] for d in draws])
        shape = (3, *firsts.shape[1:3])
        # Noise augmentation: ln σ ~ N(−3, 0.5²) on pixels in [−1, 1].
        sigma = objective.draw_sigma(torch.tensor([d.aug for d in draws], dtype=torch.float32), *phase.noise_aug)
        noise = torch.stack([normal(d.rng, shape) for d in draws])
        return Condition(
            tokens_BLD=torch.cat([self._image_token(d, first) for d, first in zip(draws, firsts, strict=True)]),
            ids_B3=added_ids(phase.fps, buckets, sigma),
            image_BCHW=image_latent(self.encoders.vae, firsts, noise, sigma),
        )

    def _image_token(self, draw: Draw, first_HWC: Pixels) -> Tensor:
        """The CLIP token of a draw's first frame; kept where frame and crop come again."""
        if self.phase.crop == "random":
            return self.encoders.image(first_HWC[None])
        key = draw.item, window(self.items, self.phase, draw)[0]
        if key not in self._tokens:
            self._tokens[key] = self.encoders.image(first_HWC[None])
        return self._tokens[key]


def validation_draws(seed: int, phase: Phase, items: Items) -> list[Draw]:
    """The fixed samples of the validation loss: one per item, its middle window, nothing dropped. Fresh generators
    each call."""
    count = min(phase.validation_clips, len(items.ids))
    return [
        Draw(position=i, item=i, offset=0.5, crop=(0.5, 0.5), sigma=0.0, aug=0.0, drop_text=1.0, drop_image=1.0,
             rng=generator(seed, f"{phase.name} validation", i))
        for i in range(count)
    ]  # fmt: skip
