"""The frozen models and starting weights of a training run: built-ins, folders in diffusers' format, hub ids."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from dailies.curation.downloads import download_snapshot
from dailies.curation.errors import ModelError
from dailies.zoo.catalog import resolve
from dailies.zoo.default import default_zoo
from dailies.zoo.formats.configs import read_config
from dailies.zoo.formats.references import SCHEME

if TYPE_CHECKING:
    from dailies.training.diffusion.encoders import Models
    from dailies.training.recipes.recipe import TrainingRecipe

# Where a diffusers pipeline keeps what, by the names of ``dailies.training.diffusion.encoders.Models``.
PARTS = {"start": "unet", "vae": "vae", "text": "text_encoder", "image": "image_encoder"}
TEMPORAL = "AutoencoderKLTemporalDecoder"
HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
FILES = (
    "diffusion_pytorch_model*.safetensors",
    "model*.safetensors",
)  # and not the whole model in one file beside them
WANTED = ("*.json", "*.txt", "*.model", *FILES, *(f"{part}/{file}" for part in PARTS.values() for file in FILES))


def models_of(recipe: TrainingRecipe, *, start: str | None = None, **parts: str | None) -> Models:
    """Return the models ``recipe`` is made for where they are built in, and those that take their place.

    ``start``: a diffusers pipeline, whose parts are all taken, or a UNet alone; ``parts``: of ``Models``, each a model or a
    pipeline that has one. Each is a folder, ``zoo:NAME`` or a hub id. Raises ``ModelError`` naming what is not there.
    """
    from dailies.training.diffusion.encoders import Models

    models = Models()
    if recipe.models == "world":
        clip = str(resolve("zoo:clip-world"))
        temporal = str(resolve("zoo:vae-world-temporal"))
        models = Models(vae=str(resolve("zoo:vae-world")), vae_temporal=temporal, text=clip, image=clip)
    if start is not None:
        folder = fetch(start)
        folders = {
            name: str(folder / part) for name, part in PARTS.items() if (folder / part / "config.json").is_file()
        }
        if not folders and (folder / "config.json").is_file():
            folders = {"start": str(folder)}
        if "start" not in folders:
            raise ModelError(
                f"from={start}: has no unet/config.json, as a diffusers pipeline has, nor a config.json of a UNet alone"
            )
        models = replace(models, **folders)
    overrides: dict[str, str] = {name: _part(name, value) for name, value in parts.items() if value is not None}
    models = replace(models, **overrides)
    itself: str | None = models.vae if models.vae is not None and _class(models.vae) == TEMPORAL else None
    # The built-in image VAE has a temporal sibling; another VAE has none but itself.
    sibling: str | None = models.vae_temporal if models.vae == str(resolve("zoo:vae-world")) else None
    return replace(models, vae_temporal=itself or sibling)


def _part(name: str, reference: str) -> str:
    folder = fetch(reference)
    inner = folder / PARTS.get(name, "vae")
    for place in (folder, inner):
        if (place / "config.json").is_file():
            return str(place)
    raise ModelError(f"{name}={reference}: has no config.json, nor {inner.name}/config.json")


def _class(folder: str) -> str | None:
    name: str | None = read_config(folder).get("_class_name")
    return name


def fetch(reference: str) -> Path:
    """Return the folder behind a folder's path, ``zoo:NAME``, or a hub id, which is downloaded. Raises ``ModelError``."""
    if reference.startswith(SCHEME):
        return resolve(reference, default_zoo())
    if Path(reference).is_dir():
        return Path(reference).resolve()  # workers have a folder of their own
    if not HUB_ID.fullmatch(reference):
        raise ModelError(f"model={reference}: no such folder; give one, {SCHEME}NAME or a hub id ORG/NAME")
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:
        folder = download_snapshot(reference, wanted=WANTED, unwanted=["*.fp16.*"])
        if not any(folder.rglob("*.safetensors")):  # some are there in half precision alone
            folder = download_snapshot(reference, wanted=WANTED)
        return folder
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        raise ModelError(
            f"model={reference}: no such folder, and the hub cannot deliver it: {type(error).__name__}"
        ) from error
