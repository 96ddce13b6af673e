"""Folders of chat models in transformers' format: which classes their settings may name, and how such a model is loaded.

What may be loaded is what transformers' own tables name, for texts alone (``AutoModelForCausalLM``) and for texts about
pictures and videos (``AutoModelForImageTextToText``). A chat template is a Jinja program; transformers renders it in a sandbox
that reaches neither files nor attributes of Python's, so templates are allowed here, and nowhere else. torch and transformers
are imported inside functions.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Literal

from dailies.curation import transformers_folder
from dailies.curation.chat import smollm2
from dailies.curation.errors import UsageError
from dailies.curation.litter import without_litter
from dailies.curation.model_folders import CLASSES, PROCESSORS, TOKENIZERS, refuse_code
from dailies.curation.transformers_folder import CONFIG, PICTURES, VOCABULARIES

Dtype = Literal["auto", "bf16", "fp32"]
Sees = Literal["nothing", "images", "videos"]

TOKENIZER = ("tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "merges.txt", "vocab.txt")
TEMPLATES = ("chat_template.jinja", "chat_template.json")
SETTINGS = (
    *(CONFIG, *PICTURES, *VOCABULARIES, *TOKENIZER, *TEMPLATES),
    *("generation_config.json", "video_preprocessor_config.json"),
    *(f"qformer_tokenizer/{name}" for name in (*VOCABULARIES, *TOKENIZER)),
)
"""Files that change what a model answers, besides its weights."""

MOST_PIXELS = 1 << 25
"""Of a picture or a whole video, as Qwen's processors count them."""

ELSEWHERE = frozenset({"timm_wrapper", "timm_backbone"})
"""Kinds whose network another library makes."""

VIDEO_BLIP = "instructblip"
"""The ``model_type`` of what looks at one picture in transformers' tables, and by the same weights at a video's four frames."""
RESIZING = (
    *("do_resize", "size", "resample", "do_rescale", "rescale_factor", "do_normalize", "image_mean", "image_std"),
    "do_convert_rgb",
)


@dataclass(frozen=True, kw_only=True)
class LoadedChat:
    """A chat model at work.

    Args:
        model: of transformers, in inference mode.
        processor: makes pictures and words ready; the tokenizer where it sees ``nothing``.
        tokenizer: of what it reads and writes.
        kind: its ``model_type``.
        sees: what it looks at.
        device: where its inputs go.
        ends: tokens that end an answer.
        steering: tokens that are no words, such as the end of what a user says, as text, the longest first.
    """

    model: Any
    processor: Any
    tokenizer: Any
    kind: str
    sees: Sees
    device: Any
    ends: frozenset[int]
    steering: tuple[str, ...]


def folder_of(name: str, revision: str | None = None) -> Path:
    """Return the folder of a model; a hub's data is fetched, and none of what may be code. Raises ``UsageError``."""
    if name == smollm2.NAME:
        return smollm2.folder()
    wanted = ["*.safetensors", "*.safetensors.index.json", *(name for name in SETTINGS if "/" not in name)]
    folder = transformers_folder.folder_of(name, wanted=wanted, revision=revision)
    if not Path(name).is_dir() and str(transformers_folder.config_of(folder).get("model_type")).startswith(
        "instructblip"
    ):
        deeper = [name for name in SETTINGS if "/" in name]
        folder = transformers_folder.folder_of(name, wanted=wanted, revision=revision, folders=deeper)
    return folder


def weights(name: str, revision: str | None = None) -> str:
    """Return what pins a model: a hub's repository at a commit, or the sha256 of a folder's weights and settings."""
    if name == smollm2.NAME:
        return smollm2.revision()
    folder = folder_of(name, revision)
    commit = None if Path(name).is_dir() else transformers_folder.commit_of(folder)
    return f"{name}@{commit}" if commit else transformers_folder.fingerprint(folder, SETTINGS)


def check(folder: Path) -> str:
    """Return the ``model_type`` of a folder that is whole and asks for no code. Raises ``Damaged`` or ``UsageError``."""
    named = f"model={str(folder)!r}"
    config = transformers_folder.config_of(folder)
    kind = config.get("model_type")
    looking, reading = _tables()
    if kind not in looking and kind not in reading:
        raise UsageError(f"{named}: model_type={kind!r}: transformers knows no chat model of that kind")
    text = config.get("text_config") or config
    if not isinstance(text, Mapping) or text.get("is_encoder_decoder") or text.get("model_type") == "t5":
        raise UsageError(f"{named}: its words are an encoder-decoder's; take a model whose language model only decodes")
    refuse_code(folder, pickles=False, classes=_classes(), templates=True, most_side=MOST_PIXELS)
    if not any(without_litter(folder, "*.safetensors")):
        raise UsageError(f"{named}: has no safetensors; convert its weights to them")
    if not any((folder / name).is_file() for name in VOCABULARIES):
        raise UsageError(f"{named}: has no vocabulary; put its tokenizer's files into the folder")
    if kind in looking and not any((folder / name).is_file() for name in PICTURES):
        raise UsageError(
            f"{named}: has no {PICTURES[0]}, which says how pictures are made ready; put the model's own there"
        )
    return str(kind)


def load(folder: Path, *, gpus: float = 0, dtype: Dtype = "auto") -> LoadedChat:
    """Load a model, spread over several GPUs where it gets several. Raises ``Damaged`` or ``UsageError`` naming the folder."""
    import torch
    import transformers

    kind = check(folder)
    looks = kind in _tables()[0]
    auto: Any = transformers.AutoModelForImageTextToText if looks else transformers.AutoModelForCausalLM
    ready: Any = transformers.AutoProcessor if looks else transformers.AutoTokenizer
    if kind == VIDEO_BLIP:
        auto = transformers.InstructBlipVideoForConditionalGeneration
    precision: Any = {"bf16": torch.bfloat16, "fp32": torch.float32}.get(dtype)
    options: dict[str, Any] = {"dtype": precision or ("auto" if gpus else torch.float32)}
    if gpus:  # read straight to where it works: it may be larger than this machine's memory
        options["device_map"] = "auto" if gpus > 1 else {"": 0}
    with transformers_folder.loading(f"model={str(folder)!r}"):
        model = transformers_folder.load_whole(auto.from_pretrained, folder, **options)
        processor = ready.from_pretrained(str(folder), **transformers_folder.SAFE)
    if kind == VIDEO_BLIP:
        processor = _looking_at_videos(model, processor)
    tokenizer = getattr(processor, "tokenizer", processor)
    pictures: Any = getattr(processor, "video_processor", None)
    if getattr(pictures, "cap_pixels_per_frame", True) is None:
        pictures.cap_pixels_per_frame = True  # as its authors do; unset, transformers asks each time
    sees: Sees = "nothing" if not looks else "images" if pictures is None else "videos"
    model.eval().requires_grad_(False)
    return LoadedChat(
        model=model,
        processor=processor,
        tokenizer=tokenizer,
        kind=kind,
        sees=sees,
        device=model.device,
        ends=_answer_greedily(model, tokenizer),
        steering=_steering(tokenizer),
    )


def _steering(tokenizer: Any) -> tuple[str, ...]:
    added = [token for token in tokenizer.added_tokens_decoder.values() if token.special]
    tokens = {str(token) for token in (*tokenizer.all_special_tokens, *added)}
    return tuple(sorted((token for token in tokens if len(token) > 1), key=len, reverse=True))


def _looking_at_videos(model: Any, processor: Any) -> Any:
    """Return what makes videos ready for an InstructBLIP of pictures, in the place of what makes those ready.

    Its vocabulary has a token for pictures alone, and a new one has no vector: a video's features stand where that is.
    """
    import transformers

    pictures = processor.image_processor.to_dict()
    frames = transformers.InstructBlipVideoVideoProcessor(
        **{name: pictures[name] for name in RESIZING if name in pictures}
    )
    tokenizer = processor.tokenizer
    token = processor.image_token
    videos = transformers.InstructBlipVideoProcessor(
        video_processor=frames,
        tokenizer=tokenizer,
        qformer_tokenizer=processor.qformer_tokenizer,
        num_query_tokens=model.config.num_query_tokens,
    )
    videos.video_token = token
    model.config.video_token_index = tokenizer.convert_tokens_to_ids(str(token))
    return videos


OTHERS = (
    *("temperature", "top_p", "top_k", "min_p", "typical_p", "epsilon_cutoff", "eta_cutoff", "penalty_alpha"),
    *("max_length", "max_time", "stop_strings", "guidance_scale", "prompt_lookup_num_tokens", "cache_implementation"),
)
"""Settings of a model that would draw, search or stop in another way than is asked."""


def _answer_greedily(model: Any, tokenizer: Any) -> frozenset[int]:
    """Take from a model's settings all that draws or searches, keep its penalties; return the tokens that end an answer."""
    config = model.generation_config
    config.do_sample, config.num_beams, config.num_return_sequences = False, 1, 1
    for name in OTHERS:
        setattr(config, name, None)
    config.return_dict_in_generate = False
    if config.eos_token_id is None:
        config.eos_token_id = tokenizer.eos_token_id
    named = config.eos_token_id if isinstance(config.eos_token_id, list | tuple) else [config.eos_token_id]
    ends = frozenset(int(end) for end in named if end is not None)
    if config.pad_token_id is None:
        config.pad_token_id = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else min(ends, default=0)
    if getattr(model, "language_model", None) is not None and hasattr(model.language_model, "generation_config"):
        model.language_model.generation_config = config  # InstructBLIP lets that write
    return ends


# ---- what transformers' own tables name -----------------------------------------------------------------------------


def _tables() -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    """Return ``model_type`` → class for models that look, and for those that read alone."""
    from transformers.models.auto import modeling_auto

    looking = modeling_auto.MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES
    return looking, modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES


def _classes() -> Mapping[str, frozenset[str]]:
    """Return the classes that a chat model's settings may name, those of its parts among them."""
    from transformers.models.auto import modeling_auto, tokenization_auto
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES

    models = _names(*_tables(), modeling_auto.MODEL_MAPPING_NAMES, {"": "InstructBlipVideoForConditionalGeneration"})
    tokenizers = _names(tokenization_auto.TOKENIZER_MAPPING_NAMES)
    named = {
        part: _names(
            *(vars(import_module(f"transformers.models.auto.{file}")).get(table, {}) for file, table in tables)
        )
        for part, tables in _PARTS.items()
    }
    pictures = {f"{name.removesuffix('Pil').removesuffix('Fast')}{end}" for name in named["image"] for end in _ENDS}
    pictures |= {name.replace("ImageProcessor", "FeatureExtractor") for name in pictures}
    # Earlier versions made videos ready by what makes pictures ready, and said so in the same key.
    videos = named["video"] | {name.replace("VideoProcessor", "ImageProcessor") for name in named["video"]}
    every = frozenset(pictures | videos | named["whole"] | PROCESSORS)
    kinds = frozenset(
        {*CONFIG_MAPPING_NAMES, *(f"{kind}{part}" for kind in CONFIG_MAPPING_NAMES for part in _SUFFIXES)}
    )
    return CLASSES | {
        "architectures": frozenset(models),
        "model_type": kinds - ELSEWHERE,
        "tokenizer_class": TOKENIZERS
        | {f"{name.removesuffix('Fast')}{fast}" for name in tokenizers for fast in ("", "Fast")},
        **dict.fromkeys(("processor_class", *(f"{kind}_type" for kind in _KINDS)), every),
    }


_KINDS = ("image_processor", "feature_extractor", "video_processor")
_ENDS = ("", "Fast", "Pil")
_SUFFIXES = ("_text", "_text_model", "_vision", "_vision_model", "_qformer")
_PARTS = {
    "image": (
        ("image_processing_auto", "IMAGE_PROCESSOR_MAPPING_NAMES"),
        ("image_processing_auto", "MISSING_IMAGE_PROCESSOR_MAPPING_NAMES"),
        ("auto_mappings", "IMAGE_PROCESSOR_MAPPING_NAMES"),
    ),
    "video": (
        ("video_processing_auto", "VIDEO_PROCESSOR_MAPPING_NAMES"),
        ("video_processing_auto", "MISSING_VIDEO_PROCESSOR_MAPPING_NAMES"),
        ("auto_mappings", "VIDEO_PROCESSOR_MAPPING_NAMES"),
    ),
    "whole": (
        ("processing_auto", "PROCESSOR_MAPPING_NAMES"),
        ("processing_auto", "MISSING_PROCESSOR_MAPPING_NAMES"),
        ("auto_mappings", "PROCESSOR_MAPPING_NAMES"),
    ),
}
"""Part → (file of transformers', table in it): which of them there are depends on its version."""


def _names(*tables: Mapping[str, Any]) -> set[str]:
    """Return the class names in tables whose values are one, several, or several by what they need installed."""
    names: set[str] = set()
    rest: list[Any] = [value for table in tables for value in table.values()]
    while rest:
        value = rest.pop()
        if isinstance(value, str):
            names.add(value)
        elif isinstance(value, Mapping):
            rest += value.values()
        elif isinstance(value, Collection):
            rest += value
    return names
