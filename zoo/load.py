"""Loading a pipeline from a folder, by a class of ``PIPELINES``. Code in a model's folder is never run.

diffusers and transformers can be led by a folder's JSON to run Python that lies in it, or to unpickle. So before either
sees the folder, its classes are held against ``PIPELINES`` and files that could carry code are refused.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from dailies.curation import inside
from dailies.curation.config import read_object
from dailies.curation.downloads import quiet_loading
from dailies.curation.errors import Damaged
from dailies.curation.model_folders import refuse_code
from dailies.curation.packages import DIFFUSION, need
from dailies.zoo.formats import lock, safetensors_info
from dailies.zoo.formats.components import load_model, load_tokenizer
from dailies.zoo.pipelines import PIPELINES, PipelineSpec

INDEX = "model_index.json"
WEIGHTY = ("vae", "unet", "text_encoder", "image_encoder", "tokenizer")
"""Components that are loaded one by one, since a pipeline of diffusers fills what they lack with noise."""

LIBRARIES = frozenset({"diffusers", "transformers"})
HALF_FROM = 500_000_000
"""Parameters. Below, float32 costs little, and cannot overflow into black pictures."""


def pipeline_spec(folder: Path) -> PipelineSpec:
    """Return the row of the pipeline in ``folder``, once every class that it names is allowed there.

    Loads nothing. Raises ``Damaged``.
    """
    try:
        index = _index(folder)
        name = index["_class_name"]
    except (OSError, KeyError) as error:
        raise Damaged(f"{folder}: {INDEX} cannot be read: {error}") from error
    spec = PIPELINES.get(name) if isinstance(name, str) else None
    if spec is None:
        raise Damaged(f"{folder}: pipeline {name!r} is not one that dailies loads; it loads {', '.join(PIPELINES)}")
    parts = {key: value for key, value in index.items() if not key.startswith("_")}
    for part, value in parts.items():
        library, kind = value if isinstance(value, list) and len(value) == 2 else (None, value)
        if library not in LIBRARIES or kind not in spec.parts.get(part, ()):
            raise Damaged(f"{folder}: {part} is {library}.{kind}, which {name} does not take")
    absent = [part for part in spec.parts if part not in parts]
    if absent:
        raise Damaged(f"{folder}: {absent[0]} is missing from {INDEX}")
    return spec


def _index(folder: Path) -> dict[str, Any]:
    return read_object(inside.read_bytes(folder, INDEX), f"{folder}: {INDEX}", Damaged)


def load_pipeline(folder: str | Path, *, device: str | None = None, dtype: Any = None) -> Any:
    """Load the pipeline in ``folder``. Works offline.

    Args:
        device: by default CUDA where there is one, else the CPU.
        dtype: a torch dtype; by default float16 on CUDA for a model of more than ``HALF_FROM`` parameters, else float32.

    Raises ``Damaged`` for a folder that differs from its lock, names other classes than ``PIPELINES`` or holds code,
    ``ModelError`` for one whose tensors or vocabulary are not whole, ``NotInstalled`` without diffusers.
    """
    folder = Path(folder)
    spec = pipeline_spec(folder)
    index = _index(folder)
    refuse_code(folder)
    if os.path.lexists(folder / lock.LOCK):  # a link, too, must not make it count as one without
        lock.check(folder)
    need(DIFFUSION, by="a model of the zoo")
    import torch

    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    large = safetensors_info.size(folder)[0] > HALF_FROM
    dtype = dtype or (torch.float16 if large and device.startswith("cuda") else torch.float32)
    with quiet_loading("diffusers", "transformers"):
        parts = {part: _load_part(folder / part, index[part]) for part in WEIGHTY if part in index}
        pipeline = spec.load_class().from_pretrained(str(folder), use_safetensors=True, local_files_only=True, **parts)
        return pipeline.to(device, dtype)


def _load_part(folder: Path, row: Sequence[str]) -> Any:
    """Load one model or tokenizer of a pipeline with all that it needs. Raises ``ModelError``.

    ``row``: the library and the class, of those that ``pipeline_spec`` allows.
    """
    library, kind = row
    if folder.name == "tokenizer":
        return load_tokenizer(folder.parent / "text_encoder")
    return load_model(getattr(import_module(library), kind), folder)
