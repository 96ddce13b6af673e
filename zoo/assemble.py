"""Putting a pipeline together that diffusers can save, from the models of a training run.

Imports torch, diffusers and transformers inside functions.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from dailies.curation.downloads import quiet_loading
from dailies.curation.errors import ModelError
from dailies.zoo.formats.clip_folders import text_row, vision_row
from dailies.zoo.formats.components import (
    load_image_model,
    load_model,
    load_processor,
    load_text_model,
    load_tokenizer,
)
from dailies.zoo.formats.configs import read_config
from dailies.zoo.formats.scheduler import scheduler_config
from dailies.zoo.pipelines import PipelineSpec

CLIP_SIDE = 224
"""px; ``StableVideoDiffusionPipeline`` resizes the image for CLIP to this, whatever the model's own size."""


# ---- checks ---------------------------------------------------------------------------------------------------------


def check(spec: PipelineSpec, unet: Path, models: Mapping[str, Path]) -> None:
    """Raise ``ModelError`` if ``unet`` and ``models`` cannot make the pipeline ``spec``. Reads configurations only.

    Args:
        models: of a run, by the names that ``run.json`` has for them.
    """
    for name in spec.models:
        if name not in models:
            raise ModelError(f"models: run.json names no model {name!r}, which {spec.task} needs")
    net, vae = read_config(unet), read_config(models["vae_temporal"])
    _check_class(net, unet, "UNetSpatioTemporalConditionModel")
    _check_class(vae, models["vae_temporal"], "AutoencoderKLTemporalDecoder")
    wanted = spec.latents_in * vae["latent_channels"]
    if net["in_channels"] != wanted:
        raise ModelError(
            f"in_channels={net['in_channels']} in {unet}: {spec.task} over {vae['latent_channels']} latent channels"
            f" needs {wanted}"
        )
    time_ids = net["projection_class_embeddings_input_dim"] // net["addition_time_embed_dim"]
    if time_ids not in spec.time_ids:
        raise ModelError(
            f"{unet}: takes {time_ids} added time ids; {spec.name} gives {' or '.join(map(str, sorted(spec.time_ids)))}"
        )
    if "vae" in models:
        _check_latents(read_config(models["vae"]), vae, models)
    width = ENCODER_WIDTHS[spec.input.encoder](models[spec.input.encoder])
    crossed = net["cross_attention_dim"]
    if any(level != width for level in (crossed if isinstance(crossed, list) else [crossed])):
        raise ModelError(f"cross_attention_dim={crossed} in {unet}: the encoder's vectors have {width} numbers")


def _check_class(config: Mapping[str, Any], folder: Path, name: str) -> None:
    if config.get("_class_name") != name:
        raise ModelError(f"{folder}: holds {config.get('_class_name')}; a {name} is needed")


def _check_latents(image: Mapping[str, Any], video: Mapping[str, Any], models: Mapping[str, Path]) -> None:
    """Check that the pipeline decodes the latents that the phase was trained on."""
    for key in ("latent_channels", "scaling_factor", "block_out_channels"):
        if image.get(key) != video.get(key):
            raise ModelError(
                f"{key}={image.get(key)} in {models['vae']} and {video.get(key)} in {models['vae_temporal']}:"
                " both VAEs must have the same latents"
            )


def _text_width(folder: Path) -> int:
    """Return the width of the text encoder's last hidden states."""
    return int(text_row(read_config(folder)).get("hidden_size", 512))


def _image_width(folder: Path) -> int:
    """Return the width of the image embedding. Raises ``ModelError`` for an encoder of another picture size."""
    config = read_config(folder)
    side = vision_row(config).get("image_size", CLIP_SIDE)
    if side != CLIP_SIDE:
        raise ModelError(f"image_size={side} in {folder}: StableVideoDiffusionPipeline always shows it {CLIP_SIDE} px")
    return int(config.get("projection_dim", 512))


ENCODER_WIDTHS: Mapping[str, Callable[[Path], int]] = {"text": _text_width, "image": _image_width}


# ---- loading --------------------------------------------------------------------------------------------------------


def assemble(spec: PipelineSpec, unet: Path, models: Mapping[str, Path], sampling: Mapping[str, Any]) -> Any:
    """Return the pipeline ``spec``, on the CPU. ``check`` first. Raises ``ModelError`` for weights that do not fit.

    Args:
        sampling: of a recipe; ``sigma_min``, ``sigma_max`` and ``text_tokens`` count here.
    """
    from diffusers import AutoencoderKLTemporalDecoder, EulerDiscreteScheduler, UNetSpatioTemporalConditionModel

    noise = scheduler_config(sigma_min=sampling.get("sigma_min"), sigma_max=sampling.get("sigma_max"))
    with quiet_loading("diffusers", "transformers"):
        return spec.load_class()(
            vae=load_model(AutoencoderKLTemporalDecoder, models["vae_temporal"]),
            unet=load_model(UNetSpatioTemporalConditionModel, unet),
            scheduler=EulerDiscreteScheduler(**noise),
            **ENCODERS[spec.input.encoder](models[spec.input.encoder], sampling),
        )


def _image_encoder(folder: Path, sampling: Mapping[str, Any]) -> dict[str, Any]:
    return {"image_encoder": load_image_model(folder), "feature_extractor": load_processor(folder)}


def _text_encoder(folder: Path, sampling: Mapping[str, Any]) -> dict[str, Any]:
    tokenizer = load_tokenizer(folder)
    if "text_tokens" in sampling:  # the length that the network was trained with, padding and all
        tokenizer.model_max_length = int(sampling["text_tokens"])
    return {"text_encoder": load_text_model(folder), "tokenizer": tokenizer}


ENCODERS: Mapping[str, Callable[[Path, Mapping[str, Any]], dict[str, Any]]] = {
    "text": _text_encoder,
    "image": _image_encoder,
}
"""What a pipeline's input is read by → its components."""
