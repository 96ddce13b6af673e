"""A video-language model of transformers in training: whole, or by adapters (LoRA, arXiv 2106.09685, by peft) alone.

The model is asked about a clip's frames as its processor and chat template word it; the loss is the cross-entropy of the
answer's tokens, its end among them. Those of the question, of the template and of the frames are not learnt.

Shape suffixes: B clips, L tokens, V tokens in the vocabulary.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from dailies.curation.captioners import video_language
from dailies.curation.downloads import quiet_loading
from dailies.curation.errors import ModelError
from dailies.training.captioner.models import IGNORED, CaptionNetwork, Inputs, TokenScores
from dailies.training.captioner.pairs import Pair
from dailies.training.captioner.recipe import CaptionerRecipe
from dailies.training.models.lora import lora_weights, merge_lora, save_lora

PER_TOKEN = ("input_ids", "attention_mask", "mm_token_type_ids", "token_type_ids")
VISION = ("visual", "vision_tower", "vision_model")  # in the names of the image tower's weights


class VideoLanguageNetwork(CaptionNetwork):
    """``start``: a folder that ``video_language.load`` takes."""

    kind: ClassVar[str] = "video"
    contrast = False
    skips_weights = True  # some are for still pictures alone

    def __init__(self, start: Path, recipe: CaptionerRecipe) -> None:
        super().__init__()
        dtype = torch.bfloat16 if recipe.frozen == "bfloat16" else torch.float32
        self._loaded = video_language.load(start, "cpu", dtype)
        self.model: Any = self._loaded.model
        self._recipe = recipe
        self._one_at_a_time = threading.Lock()  # tokenizers hold a state that threads may not share
        self.adapters = recipe.trains == "lora"
        if self._loaded.frames not in (None, recipe.frames):
            raise ModelError(f"frames={recipe.frames}: this model always takes {self._loaded.frames}")
        self.frames = recipe.frames
        if self.adapters:
            torch.manual_seed(recipe.seed)  # adapters begin at random, and those of another call must begin alike
            add_adapters(self.model, recipe.rank)
        elif not recipe.vision:
            for name, weight in self.model.named_parameters():
                weight.requires_grad_(not of_vision(name))
        if recipe.checkpointing:
            self.model.gradient_checkpointing_enable({"use_reentrant": False})

    def inputs(self, pairs: Sequence[Pair]) -> dict[str, Tensor]:
        with self._one_at_a_time:
            return collated([self._row(pair) for pair in pairs], self._loaded.processor.tokenizer.pad_token_id)

    def _row(self, pair: Pair) -> dict[str, Tensor]:
        """Return one pair as a batch of one, the answer's tokens behind the question's, with labels (1, L)."""
        prompt = self._recipe.prompt
        asked = self._loaded.ask(pair.frames, pair.times, pair.seconds, prompt)
        answer = torch.tensor([self._loaded.answer_ids(prompt, pair.caption)[: self._recipe.max_tokens]])
        return with_answer(asked, answer)

    def forward(self, **inputs: Tensor) -> dict[str, Tensor]:
        scores = self.token_scores(inputs)
        return {"loss": scores.loss / scores.tokens.clamp(min=1), "token_accuracy": scores.accuracy}

    def token_scores(self, inputs: Inputs) -> TokenScores:
        rest = dict(inputs)
        labels_BL = rest.pop("labels")
        first = int(
            (labels_BL != IGNORED).any(0).int().argmax()
        )  # of the batch's answers, the place where the earliest begins
        # What stands before them costs a vocabulary's width of numbers each, and teaches nothing.
        kept = labels_BL.shape[1] - first + 1
        out = self.model(**rest, use_cache=False, **self._only_last(kept))
        logits_BLV = out.logits[:, -kept:-1]  # each guesses the token after its own
        return TokenScores.of(logits_BLV, labels_BL[:, first:])

    def _only_last(self, tokens: int) -> dict[str, int]:
        return {} if self._loaded.kind == "instructblipvideo" else {"logits_to_keep": tokens}

    def write(self, pair: Pair) -> str:
        inputs = self.to_device(self._loaded.ask(pair.frames, pair.times, pair.seconds, self._recipe.prompt))
        return self._loaded.text(self._loaded.write(inputs, self._recipe.max_tokens))

    def save_adapter(self, folder: Path) -> None:
        save_lora(self.model, lora_weights(self.model), folder)

    def save(self, folder: Path) -> None:
        if self.adapters:
            merge_lora(self.model)
            self.adapters = False
        with quiet_loading("transformers"):
            self.model.save_pretrained(str(folder), safe_serialization=True)
            self._loaded.processor.save_pretrained(str(folder))


def with_answer(asked: Mapping[str, Tensor], answer: Tensor) -> dict[str, Tensor]:
    """Return what a model takes of a question with the tokens (1, A) of its ``answer`` behind it, and labels (1, L)."""
    length = asked["input_ids"].shape[1]
    row = dict(asked)
    for name in PER_TOKEN:
        if name in row:
            more = answer if name == "input_ids" else torch.full_like(answer, int(name == "attention_mask"))
            row[name] = torch.cat([row[name], more.to(row[name].dtype)], 1)
    row["labels"] = torch.cat([torch.full((1, length), IGNORED), answer], 1)
    return row


def collated(rows: Sequence[Mapping[str, Tensor]], pad: int) -> dict[str, Tensor]:
    """Return rows as one batch: tokens padded behind the longest row's, pictures one after the other."""
    longest = max(row["input_ids"].shape[1] for row in rows)
    filling = {"input_ids": pad, "labels": IGNORED}
    batch = {}
    for name in rows[0]:
        values = [row[name] for row in rows]
        if name in (*PER_TOKEN, "labels"):
            fill = filling.get(name, 0)
            values = [nn.functional.pad(value, (0, longest - value.shape[1]), value=fill) for value in values]
        batch[name] = torch.cat(values)
    return batch


def of_vision(name: str) -> bool:
    return any(part in VISION for part in name.split("."))


def add_adapters(model: nn.Module, rank: int) -> None:
    """Add adapters to all linear layers of the language model, in place. They alone learn, and change nothing at first."""
    from peft import LoraConfig, inject_adapter_in_model

    layers = [
        name
        for name, layer in model.named_modules()
        if isinstance(layer, nn.Linear) and not of_vision(name) and ".layers." in name
    ]
    if not layers:
        raise ModelError(f"trains='lora': {type(model).__name__} has no linear layers that adapters are for")
    patterns = dict.fromkeys(re.sub(r"\d+", r"\\d+", re.escape(name)) for name in layers)
    config = LoraConfig(r=rank, lora_alpha=rank, target_modules="|".join(patterns))
    inject_adapter_in_model(config, model)
    for name, weight in model.named_parameters():
        if weight.requires_grad:
            weight.data = weight.data.float()
        weight.requires_grad_(".lora_" in name)
    model.adapter_config = config
