"""The parts of a run → a pipeline that diffusers can save: one function per task, in the table ``ASSEMBLE``.

Imports torch, diffusers and transformers inside functions.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from dailies.curation.errors import ModelError
from dailies.zoo.formats.clip_folders import processor_folder, text_row, tokenizer_folder, vision_config, vision_row
from dailies.zoo.load import quiet

CLIP_SIDE = 224
"""px; ``StableVideoDiffusionPipeline`` resizes the image for CLIP to this, whatever the model's own size."""

NEEDS: Mapping[str, tuple[str, ...]] = {
    "image-to-video": ("vae_temporal", "image"),
    "text-to-video": ("vae_temporal", "text"),
}
SIGMA_MIN, SIGMA_MAX = 0.002, 700.0  # SVD's, arXiv 2311.15127 App. D


def config(folder: Path) -> Mapping[str, Any]:
    """``config.json`` of a model's folder. Raises ``ModelError``."""
    try:
        row = json.loads((folder / "config.json").read_text())
    except (OSError, ValueError) as error:
        raise ModelError(f"{folder} is not a model's folder: {error}") from error
    if not isinstance(row, dict):
        raise ModelError(f"{folder}: config.json is not an object")
    return row


def check(task: str, unet: Path, models: Mapping[str, Path]) -> None:
    """Raise ``ModelError`` if the parts cannot make a pipeline for ``task``. Reads configurations only."""
    for name in NEEDS[task]:
        if name not in models:
            raise ModelError(f"run.json names no model {name!r}, which {task} needs")
    net, vae = config(unet), config(models["vae_temporal"])
    _is(net, unet, "UNetSpatioTemporalConditionModel")
    _is(vae, models["vae_temporal"], "AutoencoderKLTemporalDecoder")
    latent = vae["latent_channels"]
    want = 2 * latent if task == "image-to-video" else latent
    if net["in_channels"] != want:
        raise ModelError(f"{unet}: takes {net['in_channels']} channels; {task} over {latent} latent channels: {want}")
    if "vae" in models:
        _same_latents(config(models["vae"]), vae, models)
    clip = config(models[NEEDS[task][1]])
    if task == "image-to-video":
        side, width = vision_row(clip).get("image_size", CLIP_SIDE), clip.get("projection_dim", 512)
        if side != CLIP_SIDE:
            raise ModelError(
                f"{models['image']}: sees {side} px; StableVideoDiffusionPipeline always shows it {CLIP_SIDE} px"
            )
    else:
        width = text_row(clip).get("hidden_size", 512)
    crossed = net["cross_attention_dim"]
    if any(one != width for one in (crossed if isinstance(crossed, list) else [crossed])):
        raise ModelError(f"{unet}: cross-attention takes {crossed} numbers a token, the encoder gives {width}")


def _is(row: Mapping[str, Any], folder: Path, kind: str) -> None:
    if row.get("_class_name") != kind:
        raise ModelError(f"{folder}: holds {row.get('_class_name')}, where {kind} is needed")


def _same_latents(image: Mapping[str, Any], video: Mapping[str, Any], models: Mapping[str, Path]) -> None:
    """The latents that a phase was trained on must be those that the pipeline decodes."""
    for key in ("latent_channels", "scaling_factor", "block_out_channels"):
        if image.get(key) != video.get(key):
            raise ModelError(
                f"the VAEs differ in {key}: {image.get(key)} in {models['vae']}, {video.get(key)} in {models['vae_temporal']}"
            )


def assemble(task: str, unet: Path, models: Mapping[str, Path], sampling: Mapping[str, Any]) -> Any:
    """The pipeline for ``task``, on the CPU. ``check`` first. Raises ``ModelError`` for weights that do not fit."""
    with quiet():
        return ASSEMBLE[task](unet, models, sampling)


def _image_to_video(unet: Path, models: Mapping[str, Path], sampling: Mapping[str, Any]) -> Any:
    from diffusers import (
        AutoencoderKLTemporalDecoder,
        StableVideoDiffusionPipeline,
        UNetSpatioTemporalConditionModel,
    )
    from transformers import CLIPImageProcessor, CLIPVisionModelWithProjection

    processor = str(processor_folder(models["image"]))
    vision = vision_config(models["image"])
    return StableVideoDiffusionPipeline(
        vae=_load(AutoencoderKLTemporalDecoder, models["vae_temporal"]),
        image_encoder=_load(CLIPVisionModelWithProjection, models["image"], part=True, config=vision),
        unet=_load(UNetSpatioTemporalConditionModel, unet),
        scheduler=_scheduler(sampling),
        feature_extractor=CLIPImageProcessor.from_pretrained(processor, local_files_only=True),
    )


def _text_to_video(unet: Path, models: Mapping[str, Path], sampling: Mapping[str, Any]) -> Any:
    from diffusers import AutoencoderKLTemporalDecoder, UNetSpatioTemporalConditionModel
    from transformers import AutoTokenizer, CLIPTextModel

    from dailies.zoo.text_to_video import TextToVideoPipeline

    # Not CLIPTokenizer: transformers 5 rebuilds that from a vocabulary and merges, so that the words of a tokenizer of
    # another kind would all silently become the unknown one.
    tokenizer: Any = AutoTokenizer.from_pretrained(
        str(tokenizer_folder(models["text"])), local_files_only=True, trust_remote_code=False
    )
    if "text_tokens" in sampling:  # the length that the network was trained with, padding and all
        tokenizer.model_max_length = int(sampling["text_tokens"])
    return TextToVideoPipeline(
        vae=_load(AutoencoderKLTemporalDecoder, models["vae_temporal"]),
        text_encoder=_load(CLIPTextModel, models["text"], part=True),
        tokenizer=tokenizer,
        unet=_load(UNetSpatioTemporalConditionModel, unet),
        scheduler=_scheduler(sampling),
    )


ASSEMBLE: Mapping[str, Callable[[Path, Mapping[str, Path], Mapping[str, Any]], Any]] = {
    "image-to-video": _image_to_video,
    "text-to-video": _text_to_video,
}


def _load(kind: Any, folder: Path, *, part: bool = False, **given: Any) -> Any:
    """A model with every one of its weights; ``part``: of a folder that holds more than it needs.

    Both libraries fill what is missing with noise and only log it: here it is an error.
    """
    try:
        model, said = kind.from_pretrained(
            str(folder), use_safetensors=True, local_files_only=True, output_loading_info=True, **given
        )
    except (OSError, RuntimeError, ValueError) as error:
        raise ModelError(f"{folder} does not load as {kind.__name__}: {str(error).strip().splitlines()[0]}") from error
    wrong = [*said.get("missing_keys", ()), *said.get("mismatched_keys", ())]
    wrong += [] if part else list(said.get("unexpected_keys", ()))
    if wrong:
        raise ModelError(
            f"{folder} does not fit {kind.__name__}: {len(wrong)} weights, {sorted(map(str, wrong))[0]} first"
        )
    return model


def _scheduler(sampling: Mapping[str, Any]) -> Any:
    """SVD's: Euler over EDM's sigmas (rho 7), v-prediction, timesteps ¼ ln σ.

    ``timestep_spacing="leading"`` makes the first noise √(σ_max² + 1); betas are SVD's, and unused with Karras sigmas.
    """
    from diffusers import EulerDiscreteScheduler

    return EulerDiscreteScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        prediction_type="v_prediction",
        timestep_type="continuous",
        timestep_spacing="leading",
        steps_offset=1,
        use_karras_sigmas=True,
        sigma_min=float(sampling.get("sigma_min") or SIGMA_MIN),
        sigma_max=float(sampling.get("sigma_max") or SIGMA_MAX),
    )
