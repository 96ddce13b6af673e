"""The files of a diffusers folder: ``config.json`` and weights in safetensors, whole or in shards, float32 or fp16.

Files: ``diffusion_pytorch_model[.VARIANT].safetensors``, or shards that
``diffusion_pytorch_model.safetensors.index[.VARIANT].json`` names.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file
from torch import Tensor

from dailies.curation import inside
from dailies.curation.config import read_object
from dailies.curation.errors import ModelError

STEM = "diffusion_pytorch_model"


def save_folder(folder: str | PathLike[str], config: Mapping[str, Any], state: Mapping[str, Tensor]) -> None:
    """Write ``config`` and the weights as one file, in the type that they have."""
    path = Path(folder)
    path.mkdir(parents=True, exist_ok=True)
    (path / "config.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    tensors = {name: value.detach().contiguous() for name, value in state.items()}
    save_file(tensors, path / f"{STEM}.safetensors", metadata={"format": "pt"})


def load_state(folder: str | PathLike[str], variant: str | None = None, device: str = "cpu") -> dict[str, Tensor]:
    """Load the weights of a folder by name. ``variant`` and errors: see ``weight_files``."""
    state: dict[str, Tensor] = {}
    for file in weight_files(Path(folder), variant):
        state |= load_file(file, device=device)
    return state


def weight_files(folder: Path, variant: str | None = None) -> list[Path]:
    """Return the safetensors files of a model's folder: one, or those that an index names.

    ``variant``: ``"fp16"`` for the files so named; by default those without a name, or else those of fp16.
    Raises ``FileNotFoundError`` where there are none, ``ModelError`` for an index that names files elsewhere.
    """
    for name in [variant] if variant is not None else [None, "fp16"]:
        whole = folder / (f"{STEM}.safetensors" if name is None else f"{STEM}.{name}.safetensors")
        index = folder / (f"{STEM}.safetensors.index.json" if name is None else f"{STEM}.safetensors.index.{name}.json")
        if whole.exists():
            return [whole]
        if index.exists():
            named = read_object(inside.read_named(index), str(index), ModelError).get("weight_map")
            if not isinstance(named, dict) or any(Path(str(part)).name != part for part in named.values()):
                raise ModelError(f"{index}: weight_map: names no files, or files in another folder")
            return [folder / part for part in sorted(set(named.values()))]
    wanted = STEM if variant is None else f"{STEM} of variant {variant}"
    raise FileNotFoundError(f"{folder}: no {wanted} in safetensors")
