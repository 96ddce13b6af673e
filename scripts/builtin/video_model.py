"""The built-in video captioner's parts: a small Qwen3-VL in transformers' own classes, its vocabulary and its processor.

Its chat template holds the video and nothing else: the model was taught one task, and any prompt would only put it off.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from dailies.curation.world import COLORS, write_scene
from dailies.curation.world.script import ShapeKind
from scripts.builtin.learning import MEAN, STD
from scripts.builtin.video_words import video_caption

SIZE, PATCH, MERGE = (96, 160), 16, 2  # (height, width) px of a 16:9 picture
GRID = (SIZE[0] // PATCH, SIZE[1] // PATCH)
VISION_WIDTH, VISION_LAYERS, TEXT_WIDTH, TEXT_LAYERS, HEAD = 128, 5, 160, 3, 32
VOCABULARY = 512
PAD, START, END, SEE, SEEN, IMAGE, VIDEO = range(7)
SPECIAL = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|image_pad|>",
    "<|video_pad|>",
)
# 180 px high pictures of 16:9 become 96 x 160: the side lengths are rounded down to whole merged patches of 32 px.
PIXELS = 18 * (PATCH * MERGE) ** 2
TEMPLATE = (
    "{% for message in messages %}{% if message['content'] is not string %}{% for part in message['content'] %}"
    "{% if part['type'] == 'video' %}<|video_pad|>{% elif part['type'] == 'image' %}"
    "<|vision_start|><|image_pad|><|vision_end|>{% endif %}{% endfor %}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>{% endif %}"
)


def config() -> Any:
    """``transformers.Qwen3VLConfig``."""
    from transformers import Qwen3VLConfig

    return Qwen3VLConfig(
        vision_config={
            "depth": VISION_LAYERS,
            "hidden_size": VISION_WIDTH,
            "intermediate_size": 4 * VISION_WIDTH,
            "num_heads": VISION_WIDTH // HEAD,
            "patch_size": PATCH,
            "spatial_merge_size": MERGE,
            "temporal_patch_size": 2,
            "out_hidden_size": TEXT_WIDTH,
            "num_position_embeddings": 16 * 16,
            "deepstack_visual_indexes": [],
        },
        text_config={
            "vocab_size": VOCABULARY,
            "hidden_size": TEXT_WIDTH,
            "intermediate_size": 448,
            "num_hidden_layers": TEXT_LAYERS,
            "num_attention_heads": TEXT_WIDTH // HEAD,
            "num_key_value_heads": TEXT_WIDTH // HEAD,
            "head_dim": HEAD,
            "max_position_embeddings": 2048,
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": 10_000.0,
                "mrope_section": [6, 5, 5],
                "mrope_interleaved": True,
            },
            "pad_token_id": PAD,
            "bos_token_id": START,
            "eos_token_id": END,
            "tie_word_embeddings": True,
        },
        tie_word_embeddings=True,
        image_token_id=IMAGE,
        video_token_id=VIDEO,
        vision_start_token_id=SEE,
        vision_end_token_id=SEEN,
    )


def new_model() -> Any:
    """An untrained ``Qwen3VLForConditionalGeneration`` that writes at most 80 tokens, greedily."""
    from transformers import GenerationConfig, Qwen3VLForConditionalGeneration

    model = Qwen3VLForConditionalGeneration(config())
    model.generation_config = GenerationConfig(
        do_sample=False, max_new_tokens=80, bos_token_id=START, eos_token_id=END, pad_token_id=PAD
    )
    return model


def corpus() -> Iterator[str]:
    """The captions and times that the vocabulary is learnt from."""
    for number in range(1500):
        script = write_scene((6_000_000, number))
        yield video_caption(script.shots[0], short_side=min(script.size), fps=script.fps)
    for word in (*COLORS, *ShapeKind.__args__):  # type: ignore[attr-defined]
        yield from [f"a {word}"] * 500
    for tenths in range(60):
        yield f"<{tenths / 10:.1f} seconds>"


def processor() -> Any:
    """``transformers.Qwen3VLProcessor`` with its tokenizer, image and video processor and chat template."""
    from transformers import PreTrainedTokenizerFast, Qwen2VLImageProcessor, Qwen3VLProcessor, Qwen3VLVideoProcessor

    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=_tokenizer(),
        bos_token=SPECIAL[START],
        eos_token=SPECIAL[END],
        pad_token=SPECIAL[PAD],
        additional_special_tokens=list(SPECIAL[SEE:]),
        model_max_length=2048,
        padding_side="left",
        clean_up_tokenization_spaces=False,
    )
    looks: dict[str, Any] = {
        "patch_size": PATCH,
        "temporal_patch_size": 2,
        "merge_size": MERGE,
        "image_mean": list(MEAN),
        "image_std": list(STD),
    }
    still = Qwen2VLImageProcessor(size={"shortest_edge": 32 * 32, "longest_edge": PIXELS}, **looks)
    moving = Qwen3VLVideoProcessor(
        size={"shortest_edge": 32 * 32, "longest_edge": 64 * PIXELS},
        cap_pixels_per_frame=True,
        max_video_tokens=PIXELS // (PATCH * MERGE) ** 2,
        min_frames=2,
        max_frames=64,
        **looks,
    )
    return Qwen3VLProcessor(image_processor=still, tokenizer=tokenizer, video_processor=moving, chat_template=TEMPLATE)


def processor_of(folder: Path) -> Any:
    """The processor that lies beside a model."""
    from transformers import AutoProcessor

    return AutoProcessor.from_pretrained(folder, local_files_only=True)


def _tokenizer() -> Any:
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.Lowercase()
    # The space belongs to the word, before the first word too: "red" is one token wherever it stands.
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=list(SPECIAL),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(corpus(), trainer)
    return tokenizer


def save(model: Any, out: Path) -> None:
    """Half precision on the disk; transformers loads it as single where it is asked to."""
    import copy

    import torch

    copy.deepcopy(model).to(torch.float16).save_pretrained(out)
