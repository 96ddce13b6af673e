"""CLIP, SigLIP and SigLIP 2 in transformers' format: a folder, or the files of a hub's repository, checked and loaded.

Only safetensors are read, and no code of the folder runs (``dailies.curation.model_folders``). The activation is the
configuration's ``hidden_act``; how a picture is resized, cropped and normalised is ``preprocessor_config.json``'s to say,
without which a folder is refused: transformers would take its own defaults.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dailies.curation import inside
from dailies.curation.config import read_json
from dailies.curation.downloads import hub_folder, quiet_loading
from dailies.curation.errors import Damaged, UsageError, first_line
from dailies.curation.litter import without_litter
from dailies.curation.model_folders import refuse_code

CLASSES = {"clip": "CLIPModel", "siglip": "SiglipModel", "siglip2": "Siglip2Model"}
"""``model_type`` → the class that has both towers."""

CONFIG = "config.json"
PROCESSORS = ("preprocessor_config.json", "processor_config.json")
VOCABULARIES = ("tokenizer.json", "vocab.json", "spiece.model", "tokenizer.model")
SETTINGS = (
    *(CONFIG, *PROCESSORS, *VOCABULARIES, "merges.txt"),
    *("tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"),
)


@dataclass(frozen=True, kw_only=True)
class Parts:
    """A model at work, with what makes its pictures and its words ready; all of transformers."""

    model: Any
    processor: Any
    tokenizer: Any
    tokens: int  # of a text, padding included


def fetched(name: str) -> Path:
    """Return the folder of a hub's repository ``OWNER/NAME``, fetching its data and none of what may be code.

    Raises ``UsageError`` where it cannot be had.
    """
    wanted = ["*.safetensors", *SETTINGS]
    return hub_folder(name, named=f"model={name!r}", wanted=wanted, because="no such folder, and ")


def check(folder: Path) -> Mapping[str, Any]:
    """Return the configuration of a folder that is whole and asks for no code. Raises ``Damaged`` or ``UsageError``."""
    refuse_code(folder, pickles=False)
    config = _config(folder)
    kind = config.get("model_type")
    if kind not in CLASSES:
        raise UsageError(f"model={str(folder)!r}: model_type={kind!r}: must be one of {', '.join(CLASSES)}")
    if not any(without_litter(folder, "model*.safetensors")):
        raise UsageError(f"model={str(folder)!r}: has no model.safetensors; convert its weights to safetensors")
    if not any((folder / name).is_file() for name in PROCESSORS):
        raise UsageError(
            f"model={str(folder)!r}: has no {PROCESSORS[0]}, which says how pictures are resized and normalised; "
            "put the model's own there"
        )
    if not any((folder / name).is_file() for name in VOCABULARIES):
        raise UsageError(f"model={str(folder)!r}: has no vocabulary; put its tokenizer's files into the folder")
    return config


def _config(folder: Path) -> Mapping[str, Any]:
    path = folder / CONFIG
    try:
        row = read_json(inside.read_named(path), str(path), Damaged)
    except OSError as error:
        raise UsageError(f"model={str(folder)!r}: {CONFIG} cannot be read: {error.strerror}") from error
    if not isinstance(row, dict):
        raise Damaged(f"{path}: is no JSON object")
    return row


def fingerprint(folder: Path, settings: Collection[str] = SETTINGS) -> str:
    """Return the sha256 of all that changes what the model in ``folder`` says: its weights, and files called ``settings``."""
    hasher = hashlib.sha256()
    for path in without_litter(folder, "*"):
        if path.suffix == ".safetensors" or path.name in settings:
            with path.open("rb") as file:
                hasher.update(path.name.encode() + b"\0" + hashlib.file_digest(file, "sha256").digest())
    return hasher.hexdigest()


def load(folder: Path, device: str) -> Parts:
    """Load both towers in single precision, ready for inference. Raises ``Damaged`` or ``UsageError`` naming the folder."""
    import transformers
    from huggingface_hub.errors import StrictDataclassError
    from safetensors import SafetensorError

    config = check(folder)
    options = {"local_files_only": True, "trust_remote_code": False}
    try:
        with quiet_loading("transformers"):
            model, report = getattr(transformers, CLASSES[config["model_type"]]).from_pretrained(
                str(folder), use_safetensors=True, local_files_only=True, output_loading_info=True
            )
            processor = transformers.AutoImageProcessor.from_pretrained(str(folder), **options)
            tokenizer = transformers.AutoTokenizer.from_pretrained(str(folder), **options)
    except (OSError, RuntimeError, ValueError, LookupError, TypeError, StrictDataclassError, SafetensorError) as error:
        raise UsageError(f"model={str(folder)!r}: cannot be loaded: {first_line(error)}") from error
    if missing := sorted(report.get("missing_keys", ())):
        raise Damaged(f"{folder}: {len(missing)} of its tensors are missing, {missing[0]} first; get it whole")
    text = model.config.text_config
    largest = max(tokenizer.get_vocab().values(), default=0)
    if largest >= text.vocab_size:
        raise Damaged(f"{folder}: its tokenizer has ids up to {largest}; the text tower has {text.vocab_size} vectors")
    return Parts(
        model=model.float().eval().requires_grad_(False).to(device),
        processor=processor,
        tokenizer=tokenizer,
        tokens=int(text.max_position_embeddings),
    )
