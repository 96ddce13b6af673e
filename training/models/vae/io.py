"""VAEs as diffusers folders: any image or temporal one loaded in float32 with all of its weights, and written."""

from __future__ import annotations

import copy
import json
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, AutoencoderKLTemporalDecoder

from dailies.curation.errors import ModelError
from dailies.zoo.formats.components import load_model
from dailies.zoo.formats.configs import class_of, read_config


def load_vae(folder: str | PathLike[str]) -> AutoencoderKL:
    """Load the image VAE of a diffusers folder in float32, frozen, for inference; float16 files serve too.

    ``folder``: the VAE's own, or that of a pipeline with a ``vae/``. Raises ``ModelError`` naming the folder where it
    does not hold an ``AutoencoderKL`` with all of its weights in safetensors.
    """
    vae: AutoencoderKL = _load(AutoencoderKL, folder)
    return vae


def load_temporal(folder: str | PathLike[str]) -> AutoencoderKLTemporalDecoder:
    """Load an ``AutoencoderKLTemporalDecoder``, as ``load_vae`` does."""
    vae: AutoencoderKLTemporalDecoder = _load(AutoencoderKLTemporalDecoder, folder)
    return vae


def vae_config(folder: str | PathLike[str]) -> tuple[Path, dict[str, Any]]:
    """Return the VAE's folder (``folder`` or its ``vae/``) and config.json. Raises ``ModelError`` naming the folder."""
    root = Path(folder)
    place = root if (root / "config.json").is_file() or not (root / "vae").is_dir() else root / "vae"
    return place, read_config(place)


def _load(cls: Any, folder: str | PathLike[str]) -> Any:
    place, config = vae_config(folder)
    if config.get("_class_name") != cls.__name__:
        raise ModelError(f"{folder}: holds {class_of(config)}, not {cls.__name__}")
    vae = load_model(cls, place, variant=_variant(place), torch_dtype=torch.float32)
    return vae.eval().requires_grad_(False)


def _variant(place: Path) -> str | None:
    """Return ``fp16`` where the weights lie in that variant alone, as in many copies of Stable Diffusion."""
    names = ("diffusion_pytorch_model{}.safetensors", "diffusion_pytorch_model.safetensors.index{}.json")
    for variant in (None, "fp16"):
        if any((place / name.format(f".{variant}" if variant else "")).is_file() for name in names):
            return variant
    raise ModelError(f"{place}: holds no diffusion_pytorch_model.safetensors, nor one of the variant fp16")


def save_half(vae: AutoencoderKL | AutoencoderKLTemporalDecoder, folder: str | PathLike[str]) -> None:
    """Write a copy in float16 safetensors; the model stays as it is."""
    save_whole(copy.deepcopy(vae).half(), folder)


def save_whole(vae: Any, folder: str | PathLike[str]) -> None:
    """Write a diffusers folder as the model is, in safetensors that all may read, without the path it was loaded from."""
    vae.save_pretrained(folder)
    config = Path(folder) / "config.json"
    row = {name: value for name, value in json.loads(config.read_text()).items() if name != "_name_or_path"}
    config.write_text(json.dumps(row, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    for written in Path(folder).glob("*.safetensors"):
        written.chmod(0o644)  # safetensors writes 0600
