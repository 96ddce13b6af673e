"""The frozen models that encode pictures and captions for the network, from folders in diffusers' format.

Shape suffixes: B batch, L tokens, D token width, T frames, H, W height and width.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import cached_property
from os import PathLike
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dailies.curation.downloads import quiet_loading
from dailies.curation.errors import ModelError
from dailies.training.models.pixels import Pixels, to_pixels, to_tensor
from dailies.training.recipes.recipe import EncoderDims
from dailies.zoo.formats.clip_folders import VISION, text_row, vision_row
from dailies.zoo.formats.components import (
    check_tokenizer,
    load_image_model,
    load_processor,
    load_text_model,
    load_tokenizer,
)
from dailies.zoo.formats.configs import class_of, read_config

CAPTIONS = 4096  # whose hidden states are kept
CHUNK = 16  # pictures that the VAE encodes at once
DECODED = 14  # frames that it decodes at once; SVD's own pipeline decodes as many as were trained on, so few seams
TEMPORAL = "AutoencoderKLTemporalDecoder"


@dataclass(frozen=True, kw_only=True)
class Models:
    """Folders of a run's pretrained models; ``None`` for those it has not.

    Args:
        vae: encodes the clips; an image VAE or a temporal one.
        vae_temporal: its sibling with a temporal decoder, for what is published.
        text, image: CLIP towers.
        start: the UNet to start from, an image model's or a video model's.
    """

    vae: str | None = None
    vae_temporal: str | None = None
    text: str | None = None
    image: str | None = None
    start: str | None = None


def inspect_encoders(models: Models) -> EncoderDims:
    """Read from the folders' configs which sizes they fix; no weight is read.

    Raises ``ModelError`` naming a folder that holds another kind of model, or a VAE without 4 latent channels.
    """
    if models.vae is None:
        raise ModelError("models: there is no VAE; give one with --vae")
    vae = read_config(models.vae)
    if vae.get("_class_name") not in ("AutoencoderKL", TEMPORAL):
        raise ModelError(f"models: {models.vae} holds {class_of(vae)}, not a VAE of diffusers")
    if vae.get("latent_channels", 4) != 4:
        raise ModelError(f"models: {models.vae} has {vae['latent_channels']} latent channels; only 4 are supported")
    text_width = image_width = None
    if models.text is not None:
        config = read_config(models.text)
        width = None if config.get("model_type") == VISION else text_row(config).get("hidden_size")
        text_width = _width(models.text, config, width, "a CLIP text encoder")
        check_tokenizer(models.text)
    if models.image is not None:
        config = read_config(models.image)
        width = config.get("projection_dim") if "image_size" in vision_row(config) else None
        image_width = _width(models.image, config, width, "a CLIP image encoder with its projection")
    factor = 2 ** (len(vae["block_out_channels"]) - 1)
    return EncoderDims(factor=factor, text_width=text_width, image_width=image_width)


def _width(folder: str, config: dict[str, Any], width: Any, wanted: str) -> int:
    if not isinstance(width, int):
        raise ModelError(f"models: {folder} holds {class_of(config)}, not {wanted}")
    return width


class TextEncoder:
    """Captions → last hidden states of a CLIP text model, (B, L, D). Frozen; each caption is run once, by itself."""

    def __init__(self, folder: str | PathLike[str], tokens: int, device: torch.device) -> None:
        with quiet_loading("transformers"):
            model = load_text_model(folder, dtype=torch.float32)
            self.tokenizer = load_tokenizer(folder)
        self.model = model.eval().requires_grad_(False).to(device)
        self.tokens = min(tokens, self.model.config.max_position_embeddings)
        self._kept: OrderedDict[str, Tensor] = OrderedDict()
        self._lock = threading.Lock()

    @torch.no_grad()
    def __call__(self, captions: Sequence[str]) -> Tensor:
        return torch.stack([self._encode(caption) for caption in captions])

    def _encode(self, caption: str) -> Tensor:
        tokens = self._kept.get(caption)
        if tokens is None:
            encoded = self.tokenizer(
                caption, padding="max_length", truncation=True, max_length=self.tokens, return_tensors="pt"
            )
            input_ids = encoded.input_ids.to(self.model.device)
            tokens = self.model(input_ids=input_ids).last_hidden_state[0].float().cpu()
            with self._lock:  # validation and the next batches may be made at the same time
                self._kept[caption] = tokens
                while len(self._kept) > CAPTIONS:
                    self._kept.popitem(last=False)
        return tokens


class ImageEncoder:
    """Images → the projected embedding of a CLIP vision model as one token, (B, 1, D), as StableVideoDiffusionPipeline
    does: resized with its antialiasing to the model's size, sides not in proportion, then normalised."""

    def __init__(self, folder: str | PathLike[str], device: torch.device) -> None:
        with quiet_loading("transformers"):
            model = load_image_model(folder, dtype=torch.float32)
            processor = load_processor(folder)
        self.model = model.eval().requires_grad_(False).to(device)
        self.mean = torch.tensor(processor.image_mean).reshape(1, 3, 1, 1)
        self.std = torch.tensor(processor.image_std).reshape(1, 3, 1, 1)
        self.side = int(model.config.image_size)

    @torch.no_grad()
    def __call__(self, images_BHWC: Pixels) -> Tensor:
        from diffusers.pipelines.stable_video_diffusion import pipeline_stable_video_diffusion as svd

        x = svd._resize_with_antialiasing(to_tensor(images_BHWC), (self.side, self.side))  # in [−1, 1], as there
        x = ((x + 1) / 2 - self.mean) / self.std
        tokens: Tensor = self.model(x.to(self.model.device)).image_embeds.float().cpu()
        return tokens[:, None]


class VideoVae:
    """Pictures ↔ latents of either kind of VAE, frozen, float32. What comes out is on the CPU."""

    def __init__(self, folder: str | PathLike[str], device: torch.device) -> None:
        from dailies.training.models.vae.io import load_temporal, load_vae

        temporal = read_config(folder).get("_class_name") == TEMPORAL
        self.model: Any = (load_temporal if temporal else load_vae)(folder).to(device)
        self._temporal = temporal

    @property
    def scale(self) -> float:
        """Latents times this have unit variance, which σ_data = 1 counts on."""
        return float(self.model.config.scaling_factor)

    @torch.no_grad()
    def moments(self, frames_THWC: Pixels) -> Tensor:
        """Return mean and log-variance of each frame's posterior, not scaled: (T, 8, h, w)."""
        parts = []
        for start in range(0, len(frames_THWC), CHUNK):
            x = to_tensor(frames_THWC[start : start + CHUNK])
            posterior = self.model.encode(x.to(self.model.device)).latent_dist
            parts.append(torch.cat([posterior.mean, posterior.logvar], 1).float().cpu())
        return torch.cat(parts)

    @torch.no_grad()
    def modes(self, x_NCHW: Tensor) -> Tensor:
        """Return the posterior's mode of pictures in [−1, 1], not scaled: (N, 4, h, w)."""
        parts = [self.model.encode(x.to(self.model.device)).latent_dist.mode() for x in torch.split(x_NCHW, CHUNK)]
        return torch.cat([part.float().cpu() for part in parts])

    @torch.no_grad()
    def decode(self, latents_TCHW: Tensor) -> Pixels:
        """Scaled latents of one video's frames → uint8 (T, H, W, 3), some frames at a time."""
        parts = []
        for z in torch.split(latents_TCHW.float().to(self.model.device) / self.scale, DECODED):
            out = self.model.decode(z, num_frames=len(z)) if self._temporal else self.model.decode(z)
            parts.append(to_pixels(out.sample))
        return np.concatenate(parts)


class Encoders:
    """The frozen models of a run on one device, each loaded when first needed."""

    def __init__(self, models: Models, *, text_tokens: int, device: torch.device | str = "cpu") -> None:
        self.models, self._tokens, self.device = models, text_tokens, torch.device(device)

    @cached_property
    def text(self) -> TextEncoder:
        return TextEncoder(self._folder("text"), self._tokens, self.device)

    @cached_property
    def image(self) -> ImageEncoder:
        return ImageEncoder(self._folder("image"), self.device)

    @cached_property
    def vae(self) -> VideoVae:
        return VideoVae(self._folder("vae"), self.device)

    def load(self, names: Collection[str]) -> None:
        """Load models by their names in ``Models``: one that does not hold what it should is refused before any work."""
        for name in names:
            getattr(self, name)

    def _folder(self, name: str) -> str:
        folder = getattr(self.models, name)
        if folder is None:
            raise ModelError(f"models: this run needs a model for {name!r}")
        return str(folder)
