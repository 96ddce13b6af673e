"""Folders of models that others made: their data is read, code in them never runs. The zoo, training and curation ask here.

transformers, diffusers and open_clip can be led by a folder's JSON to import Python that lies in it or on a hub, to unpickle,
or to read files elsewhere. So a folder is looked through before any of them sees it: ``refuse_code`` for files that are code
or may be, ``refuse_settings`` for JSON that asks for some or names a class that is not allowed.
"""

from __future__ import annotations

import json
import stat
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from dailies.curation import inside
from dailies.curation.config import read_json
from dailies.curation.errors import Damaged

CODE = frozenset({".py", ".pyc", ".pyd", ".so", ".dll", ".dylib", ".pth", ".egg", ".whl", ".jinja", ".jinja2", ".j2"})
"""Suffixes of files that are code, and of templates, which are programs too."""

PICKLES = frozenset(
    {".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle", ".joblib", ".npy", ".npz", ".msgpack", ".h5", ".keras", ".onnx"}
)
"""Suffixes of files that can hold pickles, or graphs that a runtime executes."""

ASKS = frozenset(
    {
        *("auto_map", "_auto_class", "custom_pipeline", "custom_pipelines", "custom_generate", "trust_remote_code"),
        *("_target_", "_partial_", "_recursive_", "__reduce__", "__class__", "py/object", "!!python/object"),
        *("quantization_config", "compression_config", "kernel_config", "use_kernels", "chat_template"),
        *("base_model_name_or_path", "hub_kernel", "remote_code", "code_revision"),
    }
)
"""Keys of JSON that ask a library for code: to import, to fetch or to render. Null and false ask for nothing."""

ATTENTION = frozenset({"eager", "sdpa", "flash_attention_2"})
"""Implementations of attention; any other name is code on a hub."""

TOKENIZERS = frozenset(
    {
        *("CLIPTokenizer", "CLIPTokenizerFast", "PreTrainedTokenizer", "PreTrainedTokenizerFast", "TokenizersBackend"),
        *(f"{kind}Tokenizer{fast}" for kind in ("Bert", "Roberta", "XLMRoberta", "T5", "Gemma", "Siglip", "Siglip2", "GPT2",
          "Nllb") for fast in ("", "Fast")),
    }
)  # fmt: skip
PROCESSORS = frozenset(
    {
        *(f"{model}ImageProcessor{kind}" for model in ("CLIP", "Siglip", "Siglip2") for kind in ("", "Pil", "Fast")),
        *("CLIPFeatureExtractor", "CLIPProcessor", "SiglipProcessor", "Siglip2Processor"),
    }
)
MODELS = frozenset(
    {
        *("AutoencoderKL", "AutoencoderKLTemporalDecoder", "UNet2DConditionModel", "UNetSpatioTemporalConditionModel"),
        *(
            "CLIPModel",
            "CLIPTextModel",
            "CLIPTextModelWithProjection",
            "CLIPVisionModel",
            "CLIPVisionModelWithProjection",
        ),
        *(f"{kind}Model" for kind in ("Siglip", "Siglip2", "SiglipText", "Bert", "Roberta", "XLMRoberta")),
        "VideoUNet",  # our own, without added time ids
    }
)
TYPES = frozenset(
    {
        *("bert", "roberta", "xlm-roberta", "t5", "gemma"),
        *(f"{kind}{part}" for kind in ("clip", "siglip", "siglip2") for part in ("", "_text_model", "_vision_model")),
    }
)
CLASSES = {
    "_class_name": MODELS,
    "architectures": MODELS,
    "model_type": TYPES,
    "tokenizer_class": TOKENIZERS,
    "processor_class": PROCESSORS,
    "image_processor_type": PROCESSORS,
    "feature_extractor_type": PROCESSORS,
    "video_processor_type": frozenset(),
}
"""Key → names that it may have, in the files that decide which class is made."""

DECIDING = (
    *("config.json", "tokenizer_config.json", "preprocessor_config.json", "processor_config.json"),
    "video_preprocessor_config.json",
)
TEMPLATE, TEMPLATES = "chat_template", ("chat_template.jinja", "chat_template.json")
"""The key, and the files, of how a model is asked: transformers renders them in a sandbox, where no code is reached."""
FILES = ("tokenizer_file", "vocab_file", "merges_file", "spm_file", "sentencepiece_model_file", "added_tokens_file")
INDEX = ".safetensors.index.json"
LARGEST = 256 << 20  # bytes of a file that is read at once
READ_AT_ONCE = frozenset({".json", ".txt", ".model", ".safetensors"})
MOST_LAYERS, MOST_WIDE = 1000, 1 << 21  # words of a vocabulary, positions, channels
MOST_SIDE = 4096  # px of a picture that a model looks at, and patches
SIZES = frozenset(
    {
        *("size", "crop_size", "pad_size", "patch_size", "max_num_patches", "size_divisor"),
        *("shortest_edge", "longest_edge", "height", "width", "max_height", "max_width", "min_pixels", "max_pixels"),
    }
)
"""Keys of what makes pictures ready that say how large these become."""
EDGES = frozenset({"shortest_edge", "longest_edge", "min_pixels", "max_pixels"})
"""Those of them by which some processors, such as Qwen's, count all pixels of a picture or a video, and not a side's."""
WORDS = frozenset({"tokenizer.json", "vocab.json", "added_tokens.json"})  # a vocabulary's keys are words


def model_name(model: str) -> str:
    """Return a model as tables name it: a folder by its last part, for the rest of a path says where somebody works."""
    return Path(model).name if Path(model).is_dir() else model


def refuse_code(
    folder: Path,
    *,
    pickles: bool = True,
    classes: Mapping[str, frozenset[str]] = CLASSES,
    templates: bool = False,
    most_side: int = MOST_SIDE,
) -> None:
    """Raise ``Damaged`` if a file under ``folder`` is code or asks for some; with ``pickles``, also if it may hold one.

    Args:
        classes: the names that its settings may have, as in ``CLASSES``.
        templates: a chat template may be there, for a model that is asked.
        most_side: how large ``EDGES`` may be; whatever it is, other sides are ``MOST_SIDE`` px at most.
    """
    suffixes = CODE | PICKLES if pickles else CODE - PICKLES
    for path in sorted(folder / entry.name for entry in inside.walk(folder)):
        if path.suffix.lower() in suffixes and not (templates and path.name in TEMPLATES):
            raise Damaged(
                f"{folder}: {path.relative_to(folder)} may hold code; a model's folder may hold safetensors and data only"
            )
        _refuse_vast(path)
        if path.suffix.lower() == ".json":
            refuse_settings(path, classes, templates=templates, most_side=most_side)


def refuse_settings_in(folder: Path) -> None:
    """Call ``refuse_settings`` on the JSON files of ``folder``; what lies in its folders is not looked at."""
    for path in sorted(folder.glob("*")):
        _refuse_vast(path)
        if path.suffix.lower() == ".json":
            refuse_settings(path)


def _refuse_vast(path: Path) -> None:
    """Raise ``Damaged`` for settings or words, which libraries read at once, that are vast, or a pipe or a device."""
    if path.suffix.lower() not in READ_AT_ONCE or path.is_dir():
        return
    try:
        status = path.stat()
    except OSError as error:
        raise Damaged(f"{path}: cannot be read: {error.strerror}") from error
    if not stat.S_ISREG(status.st_mode):
        raise Damaged(f"{path}: is not a file; remove it")
    if status.st_size > LARGEST and path.suffix != ".safetensors":
        raise Damaged(f"{path}: is over {LARGEST >> 20} MB; no settings and no words of a model are")


def refuse_settings(
    path: Path,
    classes: Mapping[str, frozenset[str]] = CLASSES,
    *,
    templates: bool = False,
    most_side: int = MOST_SIDE,
) -> None:
    """Raise ``Damaged`` if a JSON file of a model asks for code, for another class than is allowed, or for other files.

    The arguments are those of ``refuse_code``.
    """
    if path.name in WORDS:
        return
    try:
        row = read_json(inside.read_named(path, most=LARGEST), str(path), Damaged)
    except OSError as error:
        raise Damaged(f"{path}: cannot be read: {error.strerror}") from error
    refuse_asking(row, path, allowed={TEMPLATE} if templates else set())
    for key, value in _pairs(row):
        if value and path.name in DECIDING and key in classes and not _names(value) <= classes[key]:
            raise Damaged(f"{path}: {key}={_short(value)}: is no class that dailies loads")
    if path.name == "config.json":
        refuse_vast(row, path)
    if path.name in ("preprocessor_config.json", "processor_config.json", "video_preprocessor_config.json"):
        _refuse_large(row, path, most_side)
    if path.name.endswith(INDEX):
        _refuse_shards(path, row)


def refuse_asking(row: Any, path: Path, *, allowed: Collection[str] = ()) -> None:
    """Raise ``Damaged`` if settings, read from ``path``, ask for code or for files elsewhere, at any depth.

    ``allowed``: of ``ASKS``, keys that may be there.
    """
    for key, value in _pairs(row):
        if value in (None, False, "", [], {}):
            continue
        if key in ASKS and key not in allowed:
            raise Damaged(
                f"{path}: {key}={_short(value)}: asks for code, and none from a model's folder runs; leave it out"
            )
        if key.endswith("attn_implementation") and not _names(value) <= ATTENTION:
            raise Damaged(f"{path}: {key}={_short(value)}: names code on a hub; leave it out")
        if key in FILES and (not isinstance(value, str) or Path(value).name != value):
            raise Damaged(f"{path}: {key}={_short(value)}: lies outside the model's folder; leave it out")


def refuse_vast(row: Any, path: Path) -> None:
    """Raise ``Damaged`` if a model's config.json has more layers, or is wider, than any model.

    Libraries make such a model, in memory, before they see that the weights are others.
    """
    for key, value in _pairs(row):
        most = MOST_LAYERS if "layers" in key else MOST_WIDE
        number = max(_numbers(value), default=0)
        if number > most and "theta" not in key:  # an angle's
            raise Damaged(f"{path}: {key}={number}: is more than any model has; get it whole, from whom you trust")


def _refuse_large(row: Any, path: Path, most: int) -> None:
    """Raise ``Damaged`` if pictures are to be made larger than any model looks at: each would take gigabytes."""
    for key, value in _pairs(row):
        limit = max(most, MOST_SIDE) if key in EDGES else MOST_SIDE
        if key in SIZES and (number := max(_numbers(value), default=0)) > limit:
            raise Damaged(f"{path}: {key}={number}: is more than {limit} px; get it whole, from whom you trust")


def _numbers(value: Any) -> Iterator[int | float]:
    """Yield a number, or those of a list of them. Others stand in objects, under keys of their own."""
    for each in value if isinstance(value, list) else [value]:
        if isinstance(each, list):
            yield from _numbers(each)
        elif isinstance(each, int | float) and not isinstance(each, bool):
            yield each


def _refuse_shards(path: Path, row: Any) -> None:
    shards = row.get("weight_map") if isinstance(row, dict) else None
    names = shards.values() if isinstance(shards, dict) else [shards]
    for name in names:
        if not isinstance(name, str) or Path(name).name != name or not name.endswith(".safetensors"):
            raise Damaged(f"{path}: weight_map={_short(name)}: must be a .safetensors file of the same folder")


def _pairs(tree: Any) -> Iterator[tuple[str, Any]]:
    """Yield the keys of all objects in ``tree`` with their values."""
    rest = [tree]
    while rest:
        here = rest.pop()
        if isinstance(here, dict):
            yield from here.items()
            rest += here.values()
        elif isinstance(here, list):
            rest += here


def _names(value: Any) -> set[str]:
    """Return the names in a value that is one, a list of such, or a mapping to such."""
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, list) else [value]
    return {part if isinstance(part, str) else repr(part) for part in parts}


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
