"""The built-in models' vocabulary: byte-level BPE of 512 tokens, learnt from the rendered world's captions.

CLIP's own has 49,408 tokens, whose embeddings alone would be 25 MB. Here every word of the world's captions is one token
and any other text falls back to bytes, so whatever a person types can be encoded.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

from dailies.curation.captioners.motion import VOCABULARY
from dailies.curation.world import BACKGROUNDS, COLORS, write_script
from dailies.curation.world.script import ShapeKind, Texture

SIZE = 512
# The end is not id 2: transformers takes that for CLIP's legacy value and then pools at the highest id instead.
SPECIAL = ("<pad>", "<start>", "<unknown>", "<end>")
PAD, START, END = 0, 1, 3


def corpus() -> Iterator[str]:
    """The captions that the vocabulary is learnt from; each word that matters comes often enough to be one token."""
    for number in range(600):
        script = write_script((6_000_000, number), shots=1)
        yield script.shots[0].caption(min(script.size))
    words = [*get_args(ShapeKind), *get_args(Texture), *COLORS, *BACKGROUNDS, "large", "small", "with words on it"]
    for word in (*words, *VOCABULARY):
        yield from [f"a {word}"] * 500


def train() -> Any:
    """A ``tokenizers.Tokenizer`` that adds start and end."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.Lowercase()
    # The space belongs to the word, before the first word too: "red" is one token wherever it stands.
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=SIZE,
        special_tokens=list(SPECIAL),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(corpus(), trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<start> $A <end>", special_tokens=[("<start>", START), ("<end>", END)]
    )
    return tokenizer


def save(folder: Path, context: int) -> None:
    """Write ``tokenizer.json`` and what ``transformers.AutoTokenizer`` and open_clip's HFTokenizer need beside it."""
    train().save(str(folder / "tokenizer.json"))
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": context,
        "padding_side": "right",
        "bos_token": "<start>",
        "eos_token": "<end>",
        "pad_token": "<pad>",
        "unk_token": "<unknown>",
        "clean_up_tokenization_spaces": False,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
