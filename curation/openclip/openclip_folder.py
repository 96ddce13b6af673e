"""Folders of open_clip models: what their configuration may say, and which files tell one model from another.

open_clip hands on what ``open_clip_config.json`` says: to transformers, which runs Python for ``trust_remote_code``, to
timm, and to the constructors of its networks. So every key, and the kind of its value, is one that is known here.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, StringConstraints, TypeAdapter, ValidationError

from dailies.curation import inside
from dailies.curation.config import StrictModel, format_error
from dailies.curation.errors import Damaged, UsageError
from dailies.curation.litter import without_litter
from dailies.curation.model_folders import MOST_SIDE, refuse_code

CONFIG = "open_clip_config.json"
VOCABULARIES = (
    "tokenizer.json",
    "vocab.json",
    "spiece.model",
    "tokenizer.model",
    "sentencepiece.bpe.model",
    "vocab.txt",
)
SETTINGS = (
    *(CONFIG, "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "merges.txt", "config.json"),
    *VOCABULARIES,
)
"""Files that change what a model says, besides its weights."""

BUILTIN = ("tokenizer_config.json", "5cc53d998545f9a250bb4f091c82d242db4f9cbb8b148a20b57ece94ae268fad")
"""The built-in model's, without which its tables were named before this file counted."""

Count = Annotated[int, Field(ge=0, le=1 << 21)]
Number = Annotated[float, Field(ge=-1e6, le=1e6)]
Word = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_.\-]{0,64}$")]
Tokens = Annotated[list[Annotated[str, StringConstraints(max_length=64)]], Field(max_length=1024)]
Side = Annotated[int, Field(ge=0, le=MOST_SIDE)]
Size = Side | Annotated[list[Side], Field(max_length=2)]
Options = dict[Word, bool | Number | Literal["tanh", "none"] | None]


class TokenizerOptions(StrictModel):
    clean: Literal["whitespace", "lower", "canonicalize"] | None = None
    strip_sep_token: bool = False
    language: Word | None = None
    additional_special_tokens: Tokens | None = None
    reduction_mask: Literal["", "simple", "random", "shuffle", "syntax"] = ""


class Tower(StrictModel):
    """What both towers may say."""

    layers: Count | Annotated[list[Count], Field(max_length=8)] = 12
    width: Count = 512
    mlp_ratio: Number = 4
    ls_init_value: Number | None = None
    final_ln_after_pool: bool = False
    pool_type: Word = ""
    output_tokens: bool = False
    act_kwargs: Options | None = None
    norm_kwargs: Options | None = None
    block_type: Literal["default", "custom"] | None = None
    qk_norm: bool = False
    scaled_cosine_attn: bool = False
    scale_heads: bool = False
    scale_attn_inner: bool = False
    scale_attn: bool = False
    scale_fc: bool = False


class Vision(Tower):
    head_width: Count = 64
    patch_size: Size | None = 16
    image_size: Size = 224
    patch_dropout: Number = 0
    attentional_pool: bool | Literal["parallel", "cascade"] = False
    attn_pooler_queries: Count = 256
    attn_pooler_heads: Count = 8
    no_ln_pre: bool = False
    pos_embed_type: Word = ""
    timm_model_name: Word | None = None  # with neither a scheme nor a path, so it is one of timm's own
    timm_model_pretrained: bool = False
    timm_pool: Word | None = None
    timm_proj: Word | None = None
    timm_proj_bias: bool = False
    timm_drop: Number = 0
    timm_drop_path: Number | None = None


class Text(Tower):
    context_length: Count = 77
    vocab_size: Count = 49408
    hf_tokenizer_name: Annotated[str, StringConstraints(pattern=r"^([\w.\-]+(/[\w.\-]+)?)?$")] | None = None
    tokenizer_mode: Literal["", "clips"] | None = None
    tokenizer_kwargs: TokenizerOptions | None = None
    heads: Count = 8
    embed_cls: bool = False
    pad_id: Count = 0
    eos_id: Count = 2
    no_causal_mask: bool = False
    proj_bias: bool = False
    proj_type: Word | None = None


class Multimodal(Text):
    dim_head: Count = 64
    n_queries: Count = 256
    attn_pooler_heads: Count = 8


class Model(StrictModel):
    embed_dim: Count
    vision_cfg: Vision
    text_cfg: Text
    multimodal_cfg: Multimodal | None = None
    custom_text: bool = False
    quick_gelu: bool = False
    init_logit_scale: Number | None = None
    init_logit_bias: Number | None = None
    nonscalar_logit_scale: bool = False
    pad_id: Count = 0


class Preprocess(StrictModel):
    size: Size | None = None
    mode: Literal["RGB"] | None = None
    mean: Annotated[list[Number], Field(max_length=3)] | None = None
    std: Annotated[list[Number], Field(max_length=3)] | None = None
    interpolation: Literal["bicubic", "bilinear", "random"] | None = None
    resize_mode: Literal["shortest", "longest", "squash"] | None = None
    fill_color: Count | None = None


class Configuration(StrictModel):
    """All that ``open_clip_config.json`` may say."""

    model_cfg: Model
    preprocess_cfg: Preprocess | None = None


CONFIGURATION = TypeAdapter(Configuration)


def check_folder(folder: Path) -> None:
    """Raise ``Damaged`` for a folder that asks for code or says what is not known, ``UsageError`` for one not whole."""
    refuse_code(folder, pickles=False)
    path = folder / CONFIG
    try:
        config = CONFIGURATION.validate_json(inside.read_named(path), strict=True)
    except OSError as error:
        raise UsageError(f"model={str(folder)!r}: {CONFIG} cannot be read: {error.strerror}") from error
    except ValidationError as error:
        raise Damaged(f"{path}: {format_error(error)}; only what is known to be data is allowed there") from error
    if config.model_cfg.text_cfg.hf_tokenizer_name and not any((folder / name).is_file() for name in VOCABULARIES):
        raise UsageError(f"model={str(folder)!r}: its tokenizer is elsewhere; put its files into the folder")
    weights_file(folder)


def weights_file(folder: Path) -> Path:
    """Return the file that open_clip reads. Raises ``UsageError`` where that is none, or may hold a pickle."""
    files = sorted(path.name for path in folder.iterdir() if path.suffix in (".safetensors", ".bin", ".pth"))
    ranked = [name for name in PREFERRED if name in files] + [name for name in files if name.endswith(".safetensors")]
    chosen = (ranked or files or ["no weights"])[0]
    if not chosen.endswith(".safetensors"):
        raise UsageError(f"model={str(folder)!r}: has {chosen}; convert its weights to safetensors, which hold no code")
    return folder / chosen


PREFERRED = (
    *("open_clip_model.safetensors", "open_clip_pytorch_model.safetensors"),
    *("open_clip_pytorch_model.bin", "open_clip_pytorch_model.pth"),
    *("model.safetensors", "pytorch_model.bin", "pytorch_model.pth", "model.pth"),
)
"""open_clip's own order."""


def fingerprint(folder: Path) -> str:
    """Return the sha256 of all that changes what the model in ``folder`` says."""
    hasher = hashlib.sha256()
    for path in without_litter(folder, "*"):
        if path.suffix in (".safetensors", ".bin", ".pt", ".pth") or path.name in SETTINGS:
            with path.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256")
            if (path.name, digest.hexdigest()) != BUILTIN:
                hasher.update(path.name.encode() + b"\0" + digest.digest())
    return hasher.hexdigest()
