"""Tiny chat models with random weights in transformers' own format: texts alone, and texts about videos.

Imports torch and transformers: tests that use it skip where they are absent.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

import torch
import transformers
from tokenizers import Tokenizer, decoders, pre_tokenizers
from tokenizers import models as tokenizer_models
from transformers import PreTrainedTokenizerFast

Kind = Literal["instructblip", "instructblip-video", "llava-next-video", "qwen2.5-vl", "qwen3-vl", "llama", "qwen2"]
KINDS: tuple[Kind, ...] = ("instructblip-video", "llava-next-video", "qwen2.5-vl", "qwen3-vl", "llama", "qwen2")
VIDEO: tuple[Kind, ...] = KINDS[:4]

START, END, PAD = "<|im_start|>", "<|im_end|>", "<|endoftext|>"
SPECIAL = (
    PAD,
    START,
    END,
    "<|vision_start|>",
    "<|vision_end|>",
    "<|image_pad|>",
    "<|video_pad|>",
    "<image>",
    "<video>",
)
PLACES = {
    "qwen": "<|vision_start|><|{kind}_pad|><|vision_end|>",
    "llava": "<{kind}>\n",
}
"""What a template writes where a picture or a video is."""

SCALE = 0.15
"""Spread of random weights: with transformers' own, 0.02, all words are as likely after any picture."""


def template(family: str) -> str:
    """A chat template as Qwen's: a system's words, then the user's parts in order."""
    places = {kind: PLACES.get(family, "").replace("{kind}", kind) for kind in ("image", "video")}
    return (
        "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
        "{% if message['content'] is string %}{{ message['content'] }}{% else %}{% for part in message['content'] %}"
        f"{{% if part['type'] == 'image' %}}{places['image']}{{% elif part['type'] == 'video' %}}{places['video']}"
        "{% else %}{{ part['text'] }}{% endif %}{% endfor %}{% endif %}<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )


def tokenizer(texts: Iterable[str] = (), chat_template: str | None = None) -> PreTrainedTokenizerFast:
    """Bytes, and the words of ``texts``, each with the space before it."""
    vocabulary = {letter: number for number, letter in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    merges: list[tuple[str, str]] = []
    for word in sorted({word for text in texts for word in text.split()}):
        pieces = list(f"Ġ{word}") if word.isascii() else []
        while len(pieces) > 1:
            pair = (pieces[0], pieces[1])
            if "".join(pair) not in vocabulary:
                vocabulary["".join(pair)] = len(vocabulary)
                merges.append(pair)
            pieces[:2] = ["".join(pair)]
    inner = Tokenizer(tokenizer_models.BPE(vocab=vocabulary, merges=merges))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    tokens = PreTrainedTokenizerFast(
        tokenizer_object=inner, eos_token=END, pad_token=PAD, model_max_length=4096, chat_template=chat_template
    )
    tokens.add_special_tokens({"additional_special_tokens": list(SPECIAL[1:2] + SPECIAL[3:])})
    return tokens


def save_tiny(
    kind: Kind,
    folder: Path,
    *,
    seed: int = 0,
    width: int = 32,
    layers: int = 2,
    side: int = 112,
    texts: Iterable[str] = (),
) -> Path:
    """Write a model of a ``kind`` with random weights, whose tokenizer knows the words of ``texts``.

    ``width``: of its towers, a multiple of 32; ``layers``: of each; ``side``: px of the square
    that Qwen's make of a frame, or of another shape of as many px.
    """
    torch.manual_seed(seed)
    family = "qwen" if kind.startswith("qwen") and kind != "qwen2" else "llava" if kind.startswith("llava") else ""
    tokens = tokenizer(texts, None if kind.startswith("instructblip") else template(family))
    makers = {"instructblip": _blip, "llava-next-video": _llava, "qwen2.5-vl": _qwen25, "qwen3-vl": _qwen3}
    maker = makers.get(kind.removesuffix("-video") if kind.startswith("instructblip") else kind)
    if maker is None:
        config = getattr(transformers, "LlamaConfig" if kind == "llama" else "Qwen2Config")(
            **_words(tokens, width, layers)
        )
        model, processor = transformers.AutoModelForCausalLM.from_config(config), tokens
    elif maker is _blip:
        model, processor = _blip(tokens, width, layers, videos=kind.endswith("video"))
    else:
        model, processor = maker(tokens, width, layers, **({"side": side} if kind.startswith("qwen") else {}))
    with torch.no_grad():
        for each in model.parameters():
            if each.dim() > 1:
                each.normal_(std=SCALE * (32 / width) ** 0.5)
    # As published ones have it: a penalty that counts the tokens of a row, and draws that nobody asked for.
    settings = {"repetition_penalty": 1.05, "do_sample": True, "temperature": 0.7, "top_p": 0.8, "top_k": 20}
    for owner in (model, getattr(model, "language_model", None)):
        if getattr(owner, "generation_config", None) is not None:
            owner.generation_config = transformers.GenerationConfig(
                eos_token_id=tokens.eos_token_id, pad_token_id=tokens.pad_token_id, **settings
            )
    model.save_pretrained(str(folder))
    processor.save_pretrained(str(folder))
    return folder


def _words(tokens: PreTrainedTokenizerFast, width: int, layers: int) -> dict[str, Any]:
    return {
        "hidden_size": width,
        "intermediate_size": 2 * width,
        "num_hidden_layers": layers,
        "num_attention_heads": width // 16,
        "num_key_value_heads": max(1, width // 32),
        "vocab_size": len(tokens),
        "max_position_embeddings": 4096,
        "bos_token_id": None,
        "eos_token_id": tokens.eos_token_id,
        "pad_token_id": tokens.pad_token_id,
    }


def _id(tokens: PreTrainedTokenizerFast, token: str) -> int:
    return int(tokens.convert_tokens_to_ids(token))


def _qwen25(tokens: PreTrainedTokenizerFast, width: int, layers: int, *, side: int) -> tuple[Any, Any]:
    pixels = {"min_pixels": 28 * 28, "max_pixels": side * side}
    config = transformers.Qwen2_5_VLConfig(
        text_config=_words(tokens, width, layers)
        | {"rope_parameters": {"rope_type": "default", "mrope_section": [2, 3, 3], "rope_theta": 10000.0}},
        vision_config={
            "depth": layers,
            "hidden_size": width,
            "intermediate_size": 2 * width,
            "num_heads": width // 16,
            "out_hidden_size": width,
            "fullatt_block_indexes": [layers - 1],
            "window_size": 56,
        },
        **_places(tokens),
    )
    processor = transformers.Qwen2_5_VLProcessor(
        image_processor=transformers.Qwen2VLImageProcessor(**pixels),
        tokenizer=tokens,
        video_processor=transformers.Qwen2VLVideoProcessor(**pixels),
        chat_template=tokens.chat_template,
    )
    return transformers.Qwen2_5_VLForConditionalGeneration(config), processor


def _qwen3(tokens: PreTrainedTokenizerFast, width: int, layers: int, *, side: int) -> tuple[Any, Any]:
    rope = {"rope_type": "default", "mrope_section": [4, 2, 2], "rope_theta": 10000.0, "mrope_interleaved": True}
    config = transformers.Qwen3VLConfig(
        text_config=_words(tokens, width, layers) | {"rope_parameters": rope, "head_dim": 16},
        vision_config={
            "depth": layers,
            "hidden_size": width,
            "intermediate_size": 2 * width,
            "num_heads": width // 16,
            "out_hidden_size": width,
            "num_position_embeddings": 64,
            "deepstack_visual_indexes": [0],
        },
        **_places(tokens),
    )
    size = {"shortest_edge": 32 * 32, "longest_edge": 8 * side * side}
    processor = transformers.Qwen3VLProcessor(
        image_processor=transformers.Qwen2VLImageProcessor(patch_size=16, size=size),
        tokenizer=tokens,
        video_processor=transformers.Qwen3VLVideoProcessor(size=size),
        chat_template=tokens.chat_template,
    )
    return transformers.Qwen3VLForConditionalGeneration(config), processor


def _places(tokens: PreTrainedTokenizerFast) -> dict[str, int]:
    return {
        "image_token_id": _id(tokens, "<|image_pad|>"),
        "video_token_id": _id(tokens, "<|video_pad|>"),
        "vision_start_token_id": _id(tokens, "<|vision_start|>"),
        "vision_end_token_id": _id(tokens, "<|vision_end|>"),
    }


def _llava(tokens: PreTrainedTokenizerFast, width: int, layers: int) -> tuple[Any, Any]:
    side, patch = 56, 14
    config = transformers.LlavaNextVideoConfig(
        vision_config=_vision(width, layers, side, patch)
        | {"model_type": "clip_vision_model", "projection_dim": width},
        text_config=_words(tokens, width, layers) | {"model_type": "llama"},
        image_token_index=_id(tokens, "<image>"),
        video_token_index=_id(tokens, "<video>"),
        image_grid_pinpoints=[[side, 2 * side], [2 * side, side]],
        vision_feature_layer=-1,
    )
    processor = transformers.LlavaNextVideoProcessor(
        video_processor=transformers.LlavaNextVideoVideoProcessor(
            size={"shortest_edge": side}, crop_size={"height": side, "width": side}
        ),
        image_processor=transformers.LlavaNextImageProcessor(
            size={"shortest_edge": side},
            crop_size={"height": side, "width": side},
            image_grid_pinpoints=config.image_grid_pinpoints,
        ),
        tokenizer=tokens,
        chat_template=tokens.chat_template,
        patch_size=patch,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
    )
    return transformers.LlavaNextVideoForConditionalGeneration(config), processor


def _blip(tokens: PreTrainedTokenizerFast, width: int, layers: int, *, videos: bool) -> tuple[Any, Any]:
    side, queries = 28, 4
    config = {
        "vision_config": _vision(width, layers, side, 14),
        "qformer_config": {
            "hidden_size": width,
            "intermediate_size": 2 * width,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "encoder_hidden_size": width,
            "vocab_size": len(tokens),
        },
        "text_config": _words(tokens, width, layers) | {"model_type": "llama"},
        "num_query_tokens": queries,
    }
    names = {"tokenizer": tokens, "qformer_tokenizer": tokens, "num_query_tokens": queries}
    size = {"size": {"height": side, "width": side}}
    if not videos:
        processor = transformers.InstructBlipProcessor(image_processor=transformers.BlipImageProcessor(**size), **names)
        config["image_token_index"] = _id(tokens, "<image>")
        return transformers.InstructBlipForConditionalGeneration(transformers.InstructBlipConfig(**config)), processor
    config["video_token_index"] = _id(tokens, "<video>")
    seen = transformers.InstructBlipVideoVideoProcessor(**size)
    return (
        transformers.InstructBlipVideoForConditionalGeneration(transformers.InstructBlipVideoConfig(**config)),
        transformers.InstructBlipVideoProcessor(video_processor=seen, **names),
    )


def _vision(width: int, layers: int, side: int, patch: int) -> dict[str, Any]:
    return {
        "hidden_size": width,
        "intermediate_size": 2 * width,
        "num_hidden_layers": layers,
        "num_attention_heads": width // 16,
        "image_size": side,
        "patch_size": patch,
    }
