"""What each phase tells the model, and how that is dropped.

Blattmann et al. 2023, Stable Video Diffusion (arXiv 2311.15127), App. D: text as CLIP's hidden states; an image as one
CLIP token for cross-attention and as the VAE mode of the noised image, not scaled, on four more input channels; fps − 1, motion
bucket and noise augmentation as added ids. The unconditional branch zeroes cross-attention and the four channels only.

Shape suffixes: B batch, L tokens, D token width, T frames, C channels, H, W latent height and width.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from os import PathLike
from typing import Any

import torch
from torch import Tensor

from training.pixels import Pixels, to_tensor

MOTION_MIDDLE, MOTION_TOP = 127, 255


@dataclass(frozen=True, kw_only=True)
class Models:
    """Folders: the image VAE, its temporal sibling (for what is published), and the CLIPs for text and image."""

    vae: str
    vae_temporal: str
    text: str
    image: str


@dataclass(frozen=True, kw_only=True)
class Condition:
    """What the network is given besides the noisy latents. ``ids_B3`` only for videos, ``image_BCHW`` only for
    image-to-video."""

    tokens_BLD: Tensor
    ids_B3: Tensor | None = None
    image_BCHW: Tensor | None = None

    def drop(self, tokens_B: Tensor, image_B: Tensor) -> Condition:
        """Zero the tokens, and the image latent, of the samples where the bool is set. The ids stay."""
        image = self.image_BCHW
        return replace(
            self,
            tokens_BLD=torch.where(tokens_B[:, None, None], 0, self.tokens_BLD),
            image_BCHW=None if image is None else torch.where(image_B[:, None, None, None], 0, image),
        )

    def without(self) -> Condition:
        """The unconditional branch of guidance."""
        everything = torch.ones(len(self.tokens_BLD), dtype=torch.bool, device=self.tokens_BLD.device)
        return self.drop(everything, everything)

    def rows(self, start: int, stop: int) -> Condition:
        """Some samples of the batch."""
        cut = {name: value[start:stop] for name, value in vars(self).items() if value is not None}
        return replace(self, **cut)


def motion_bucket(motion: float | None, reference: float) -> int:
    """The motion bucket, 0–255, of a clip's motion score: ``reference`` is 127, twice as much is 254, more stays 255.

    ``reference`` is the median score of the training clips; it is kept in the checkpoint's config as ``motion_reference``, so
    that training and sampling agree. A clip without a score counts as the median.
    """
    if motion is None or reference <= 0:
        return MOTION_MIDDLE
    return max(0, min(MOTION_TOP, round(MOTION_MIDDLE * motion / reference)))


def added_ids(fps: float, bucket: Sequence[int], noise_aug_B: Tensor) -> Tensor:
    """(B, 3): fps − 1, motion bucket, σ of the noise on the image, each raw; the model makes the sinusoids."""
    rows = [[fps - 1.0, float(b)] for b in bucket]
    fixed = torch.tensor(rows, dtype=torch.float32, device=noise_aug_B.device)
    return torch.cat([fixed, noise_aug_B.float()[:, None]], 1)


@contextmanager
def quiet() -> Iterator[None]:
    """No progress bars and no reports of a CLIP's other half while loading."""
    from transformers.utils import logging

    level = logging.get_verbosity()
    bars = logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()


class TextEncoder:
    """Captions → last hidden states of a CLIP text model, (B, L, D). Frozen; each caption is run once, by itself."""

    def __init__(self, folder: str | PathLike[str], tokens: int) -> None:
        from transformers import AutoTokenizer, CLIPTextModel

        with quiet():
            self.model = CLIPTextModel.from_pretrained(folder).eval().requires_grad_(False)
        self.tokenizer: Any = AutoTokenizer.from_pretrained(folder)
        self.tokens = min(tokens, self.model.config.max_position_embeddings)
        self._kept: dict[str, Tensor] = {}

    @property
    def width(self) -> int:
        return int(self.model.config.hidden_size)

    @torch.no_grad()
    def __call__(self, captions: Sequence[str]) -> Tensor:
        for caption in captions:
            if caption not in self._kept:
                words = self.tokenizer(
                    caption, padding="max_length", truncation=True, max_length=self.tokens, return_tensors="pt"
                )
                ids = words.input_ids.to(self.model.device)
                self._kept[caption] = self.model(input_ids=ids).last_hidden_state[0].float()
        return torch.stack([self._kept[caption] for caption in captions])


class ImageEncoder:
    """Images → the projected embedding of a CLIP vision model as one token, (B, 1, D), as StableVideoDiffusionPipeline does:
    resized with its antialiasing to the model's size, sides not in proportion, then normalised."""

    def __init__(self, folder: str | PathLike[str]) -> None:
        from transformers import AutoImageProcessor, CLIPConfig, CLIPVisionModelWithProjection

        config = CLIPConfig.from_pretrained(folder)
        vision = config.vision_config
        vision.projection_dim = config.projection_dim  # a CLIPModel's folder may state it only once
        with quiet():
            loaded = CLIPVisionModelWithProjection.from_pretrained(folder, config=vision)
        self.model = loaded.eval().requires_grad_(False)
        processor: Any = AutoImageProcessor.from_pretrained(folder)
        self.mean = torch.tensor(processor.image_mean).reshape(1, 3, 1, 1)
        self.std = torch.tensor(processor.image_std).reshape(1, 3, 1, 1)
        self.side = int(vision.image_size)

    @property
    def width(self) -> int:
        return int(self.model.config.projection_dim)

    @torch.no_grad()
    def __call__(self, images_BHWC: Pixels) -> Tensor:
        from diffusers.pipelines.stable_video_diffusion import pipeline_stable_video_diffusion as svd

        x = svd._resize_with_antialiasing(to_tensor(images_BHWC), (self.side, self.side))  # in [−1, 1], as there
        x = ((x + 1) / 2 - self.mean) / self.std
        tokens: Tensor = self.model(x.to(self.model.device)).image_embeds.float()
        return tokens[:, None]


class Encoders:
    """The frozen models of a run, each loaded when first needed."""

    def __init__(self, models: Models, *, text_tokens: int) -> None:
        self.models, self._tokens = models, text_tokens

    @cached_property
    def text(self) -> TextEncoder:
        return TextEncoder(self.models.text, self._tokens)

    @cached_property
    def image(self) -> ImageEncoder:
        return ImageEncoder(self.models.image)

    @cached_property
    def vae(self) -> Any:
        from training.vae import load_vae

        return load_vae(self.models.vae)

    def width(self, task: str) -> int:
        """How wide the tokens are that the network attends to."""
        return self.image.width if task == "image-to-video" else self.text.width


@torch.no_grad()
def image_latent(vae: Any, images_BHWC: Pixels, noise_BCHW: Tensor, sigma_B: Tensor) -> Tensor:
    """The VAE mode of x + σ·n, x in [−1, 1], not scaled: (B, 4, H/4, W/4). ``noise`` has the pixels' shape."""
    x = to_tensor(images_BHWC) + sigma_B[:, None, None, None] * noise_BCHW
    modes: Tensor = vae.encode(x.to(vae.device)).latent_dist.mode()
    return modes
