"""A folder → a pipeline, by a class that stands in a table here. Code in a model's folder is never run.

diffusers and transformers can be led by a folder's JSON to run Python that lies in it, or to unpickle. So before either
sees the folder, its classes are held against ``PIPELINES`` and files that could carry code are refused.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from dailies.curation.errors import Damaged
from dailies.curation.packages import need
from dailies.zoo.formats import safetensors_info as weights

CODE = frozenset({".py", ".pyc", ".so", ".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle", ".msgpack", ".h5"})
"""Suffixes of files that are code, or that can hold pickles."""

TOKENIZERS = frozenset({"CLIPTokenizer", "CLIPTokenizerFast", "PreTrainedTokenizerFast", "TokenizersBackend"})
VIDEO_PARTS = {
    "vae": frozenset({"AutoencoderKLTemporalDecoder"}),
    "unet": frozenset({"UNetSpatioTemporalConditionModel"}),
    "scheduler": frozenset({"EulerDiscreteScheduler"}),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class PipelineClass:
    """``module`` holds the class; ``parts``: component → classes it may be, all of diffusers or transformers."""

    module: str
    task: str
    parts: Mapping[str, frozenset[str]]


PIPELINES: Mapping[str, PipelineClass] = {
    "StableVideoDiffusionPipeline": PipelineClass(
        module="diffusers",
        task="image-to-video",
        parts=VIDEO_PARTS
        | {
            "image_encoder": frozenset({"CLIPVisionModelWithProjection"}),
            "feature_extractor": frozenset({"CLIPImageProcessor", "CLIPImageProcessorPil", "CLIPImageProcessorFast"}),
        },
    ),
    "TextToVideoPipeline": PipelineClass(
        module="dailies.zoo.text_to_video",
        task="text-to-video",
        parts=VIDEO_PARTS | {"text_encoder": frozenset({"CLIPTextModel"}), "tokenizer": TOKENIZERS},
    ),
}
LIBRARIES = frozenset({"diffusers", "transformers"})
HALF_FROM = 500_000_000
"""Parameters. Below, float32 costs little, and cannot overflow into black pictures."""


def class_name(folder: Path) -> str:
    """The pipeline's class, once all that ``folder`` names is in the table. Loads nothing. Raises ``Damaged``."""
    try:
        index = json.loads((folder / "model_index.json").read_text())
        name = index["_class_name"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise Damaged(f"{folder}: model_index.json cannot be read: {error}") from error
    known = PIPELINES.get(name) if isinstance(name, str) else None
    if known is None:
        raise Damaged(f"{folder}: pipeline {name!r} is not one that dailies loads: {', '.join(PIPELINES)}")
    parts = {key: value for key, value in index.items() if not key.startswith("_")}
    for part, value in parts.items():
        library, kind = value if isinstance(value, list) and len(value) == 2 else (None, value)
        if library not in LIBRARIES or kind not in known.parts.get(part, ()):
            raise Damaged(f"{folder}: {part} is {library}.{kind}, which {name} does not take")
    absent = [part for part in known.parts if part not in parts]
    if absent:
        raise Damaged(f"{folder}: {absent[0]} is missing from model_index.json")
    return str(name)


def refuse_code(folder: Path) -> None:
    """Raise ``Damaged`` if a file under ``folder`` is code or may hold a pickle."""
    for path in sorted(folder.rglob("*")):
        if path.suffix.lower() in CODE:
            raise Damaged(f"{folder}: {path.relative_to(folder)} may hold code; weights are safetensors here")


def load_pipeline(folder: str | Path, *, device: str | None = None, dtype: Any = None) -> Any:
    """The pipeline in ``folder``, on ``device``: by default CUDA where there is one, else the CPU.

    ``dtype``: a torch dtype; by default float16 on CUDA for a model of more than ``HALF_FROM`` parameters, else
    float32. Works offline. Raises ``Damaged`` for a folder that names other classes than ``PIPELINES`` or holds code,
    ``NotInstalled`` without diffusers.
    """
    folder = Path(folder)
    name = class_name(folder)
    refuse_code(folder)
    need(["torch", "diffusers", "transformers"], by="a model of the zoo")
    import torch

    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    large = weights.size(folder)[0] > HALF_FROM
    dtype = dtype or (torch.float16 if large and device.startswith("cuda") else torch.float32)
    kind = getattr(import_module(PIPELINES[name].module), name)
    with quiet():
        pipeline = kind.from_pretrained(str(folder), use_safetensors=True, local_files_only=True)
        return pipeline.to(device, dtype)


class quiet:  # noqa: N801
    """A context in which diffusers and transformers draw no bars and print no reports of keys that are meant."""

    def __enter__(self) -> None:
        from diffusers.utils import logging as diffusers_logging
        from transformers.utils import logging as transformers_logging

        self._logs = (diffusers_logging, transformers_logging)
        self._levels = tuple(log.get_verbosity() for log in self._logs)
        self._bars = tuple(log.is_progress_bar_enabled() for log in self._logs)
        for log in self._logs:
            log.set_verbosity_error()
            log.disable_progress_bar()

    def __exit__(self, *_: object) -> None:
        for log, level, bar in zip(self._logs, self._levels, self._bars, strict=True):
            log.set_verbosity(level)
            if bar:
                log.enable_progress_bar()
