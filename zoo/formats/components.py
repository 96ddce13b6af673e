"""The one way to load a model's parts from a folder, for training, publishing and running alike.

diffusers and transformers fill a missing tensor with noise, pass over one that has another name, and unpickle a
``.bin`` where there are no safetensors; a tokenizer without a vocabulary gives every prompt the same ids. All of it is
refused here, so that what is loaded is what the folder holds.

torch, diffusers and transformers are imported inside functions.
"""

from __future__ import annotations

from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import Any

from dailies.curation.errors import ModelError, first_line
from dailies.curation.litter import without_litter
from dailies.curation.model_folders import INDEX, refuse_settings, refuse_settings_in
from dailies.zoo.formats.clip_folders import (
    half_only,
    processor_folder,
    text_row,
    tokenizer_folder,
    vision_config,
)
from dailies.zoo.formats.configs import read_config

VOCABULARIES = (("tokenizer.json",), ("vocab.json", "merges.txt"), ("spiece.model",), ("vocab.txt",))
"""The files that a tokenizer's words lie in, one of these sets."""

OTHER_HALF: Mapping[str, tuple[str, ...]] = {
    "CLIPTextModel": ("vision_model.", "visual_projection.", "text_projection.", "logit_scale"),
    "CLIPVisionModelWithProjection": ("text_model.", "text_projection.", "logit_scale"),
}
"""Class → tensors of a whole CLIPModel's folder that are not its own, by how their names begin."""

ADAPTER = "adapter_config.json"  # transformers would load the model that it names instead of the folder's


def load_model(cls: Any, folder: str | PathLike[str], **options: Any) -> Any:
    """Load a model of diffusers or transformers with every one of its tensors, and every tensor of the folder used.

    Args:
        options: of ``cls.from_pretrained``; ``variant`` is found where the folder has its weights as fp16 alone.

    Raises ``ModelError`` naming the folder and the first tensor that is missing, unused or of another shape.
    """
    place = Path(folder)
    if (place / ADAPTER).exists():
        raise ModelError(f"{folder}: holds {ADAPTER}, so it is an adapter; give the model itself")
    if not any(without_litter(place, "*.safetensors")):
        others = sorted(path.name for path in place.glob("*.bin"))
        why = f"{others[0]} can run code when it is read; convert it to safetensors" if others else "give its folder"
        raise ModelError(f"{folder}: holds no weights in safetensors; {why}")
    from huggingface_hub.errors import StrictDataclassError
    from safetensors import SafetensorError

    read_config(place)  # which refuses settings that ask for code
    for index in sorted(place.glob(f"*{INDEX}")):
        refuse_settings(index)
    try:
        model, report = cls.from_pretrained(
            str(place),
            use_safetensors=True,
            local_files_only=True,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # or transformers says that there are some, but not which
            **options,
        )
    except (
        OSError,
        RuntimeError,
        ValueError,
        LookupError,
        TypeError,
        ArithmeticError,
        StrictDataclassError,
        SafetensorError,
    ) as error:
        raise ModelError(f"{folder}: does not load as {cls.__name__}: {first_line(error)}") from error
    unused = [name for name in map(str, report.get("unexpected_keys", ())) if not _of_other_half(cls, name)]
    odd = [key if isinstance(key, str) else key[0] for key in report.get("mismatched_keys", ())]
    wrong = {
        "of another shape": sorted(odd),
        "missing": sorted(map(str, report.get("missing_keys", ()))),
        "unused": sorted(unused),
    }
    for what, names in wrong.items():
        if names:
            raise ModelError(
                f"{folder}: does not fit {cls.__name__}: {len(names)} tensors are {what}, {names[0]} first"
            )
    return model


def _of_other_half(cls: Any, name: str) -> bool:
    return name.startswith(OTHER_HALF.get(cls.__name__, ())) or name.endswith("position_ids")  # a buffer of old files


def load_text_model(folder: str | PathLike[str], **options: Any) -> Any:
    """Load the CLIP text model of ``folder``, which may hold a whole CLIPModel. Raises ``ModelError``."""
    from transformers import CLIPTextModel

    return load_model(CLIPTextModel, folder, variant=half_only(Path(folder)), **options)


def load_image_model(folder: str | PathLike[str], **options: Any) -> Any:
    """Load the CLIP vision model with projection of ``folder``, as ``load_text_model`` does."""
    from transformers import CLIPVisionModelWithProjection

    place = Path(folder)
    return load_model(
        CLIPVisionModelWithProjection, place, config=vision_config(place), variant=half_only(place), **options
    )


def check_tokenizer(folder: str | PathLike[str]) -> Path:
    """Return where the tokenizer of the text model in ``folder`` lies. Raises ``ModelError`` if it has no vocabulary."""
    place = tokenizer_folder(Path(folder))
    if not any(all((place / name).is_file() for name in names) for names in VOCABULARIES):
        raise ModelError(
            f"{place}: the text model has no vocabulary, so every prompt would be the same; put tokenizer.json, or"
            " vocab.json and merges.txt, there or in tokenizer/ beside it"
        )
    return place


def load_tokenizer(folder: str | PathLike[str]) -> Any:
    """Load the tokenizer of the text model in ``folder``, of whichever kind it is.

    Raises ``ModelError`` where there is no vocabulary, or where it has words that the text model has no vectors for.
    """
    # Not CLIPTokenizer: transformers 5 rebuilds that from a vocabulary and merges, so that the words of a tokenizer of
    # another kind would all silently become the unknown one.
    from transformers import AutoTokenizer

    place = check_tokenizer(folder)
    refuse_settings_in(place)
    try:
        tokenizer: Any = AutoTokenizer.from_pretrained(str(place), local_files_only=True, trust_remote_code=False)
    except (OSError, RuntimeError, ValueError, TypeError) as error:
        raise ModelError(f"{place}: its tokenizer does not load: {first_line(error)}") from error
    check_vocabulary(tokenizer, text_row(read_config(folder)).get("vocab_size"), place)
    return tokenizer


def check_vocabulary(tokenizer: Any, vectors: int | None, place: str | PathLike[str]) -> None:
    """Raise ``ModelError`` where a tokenizer has no words, or more than the text model has ``vectors`` for."""
    vocabulary = set(tokenizer.get_vocab()) - set(tokenizer.all_special_tokens)
    if not vocabulary:
        raise ModelError(f"{place}: the tokenizer knows no words, so every prompt would be the same")
    largest = max(tokenizer.get_vocab().values())
    if vectors is not None and largest >= vectors:
        raise ModelError(f"{place}: the tokenizer has ids up to {largest}; the text model has {vectors} vectors")


def load_processor(folder: str | PathLike[str]) -> Any:
    """Load the image processor of the image model in ``folder``. Raises ``ModelError`` where there is none."""
    from transformers import CLIPImageProcessor

    place = processor_folder(Path(folder))
    refuse_settings_in(place)
    try:
        return CLIPImageProcessor.from_pretrained(str(place), local_files_only=True)
    except (OSError, ValueError) as error:
        raise ModelError(f"{place}: has no image processor: {first_line(error)}") from error
