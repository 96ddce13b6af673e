"""A video-language model of transformers in training: whole, or by adapters (LoRA, arXiv 2106.09685, by peft) alone.

The model is asked about a clip's frames as the captioner ``video`` asks it (``dailies.curation.chat``); the loss is the
cross-entropy of the answer's tokens, its end among them. Those of the question, of the template and of the frames are
not learnt.

Shape suffixes: B clips, L tokens, V tokens in the vocabulary.
"""

from __future__ import annotations

import re
import shutil
import threading
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from dailies.curation import video
from dailies.curation.chat import Ask, ChatImage, chat_folder, prompt_text
from dailies.curation.chat.generation import answers
from dailies.curation.chat.inputs import plain_words, prepare, prompt_of
from dailies.curation.downloads import quiet_loading
from dailies.curation.errors import ModelError
from dailies.training.captioner.models import IGNORED, CaptionNetwork, Inputs, TokenScores
from dailies.training.captioner.pairs import Pair
from dailies.training.captioner.recipe import CaptionerRecipe
from dailies.training.models.lora import lora_weights, merge_lora, save_lora

PER_TOKEN = ("input_ids", "attention_mask", "mm_token_type_ids", "token_type_ids")
VISION = ("visual", "vision_tower", "vision_model")  # in the names of the image tower's weights
GENERATION = "generation_config.json"


class VideoLanguageNetwork(CaptionNetwork):
    """``start``: a folder that ``chat_folder.load`` takes.

    Raises ``ModelError`` for a model that looks at no pictures, or writes by a decoder apart.
    """

    kind: ClassVar[str] = "video"
    contrast = False
    skips_weights = True  # some are for still pictures alone

    def __init__(self, start: Path, recipe: CaptionerRecipe) -> None:
        super().__init__()
        self._start, self._recipe, self.frames = start, recipe, recipe.frames
        self._loaded = chat_folder.load(start, dtype=recipe.frozen)
        self._one_at_a_time = threading.Lock()  # tokenizers hold a state that threads may not share
        self.model: Any = self._loaded.model
        if self._loaded.sees == "nothing":
            raise ModelError(f"from={start}: {self._loaded.kind} looks at no pictures; take a model that does")
        if self.model.config.get_text_config().is_encoder_decoder:
            raise ModelError(f"from={start}: its language model is an encoder-decoder; take one that only decodes")
        self.adapters = recipe.trains == "lora"
        if self.adapters:
            torch.manual_seed(recipe.seed)  # adapters begin at random, and those of another call must begin alike
            add_adapters(self.model, recipe.rank)
        else:
            for name, weight in self.model.named_parameters():
                weight.requires_grad_(recipe.vision or not of_vision(name))
        if recipe.checkpointing:
            self.model.gradient_checkpointing_enable({"use_reentrant": False})

    def inputs(self, pairs: Sequence[Pair]) -> dict[str, Tensor]:
        with self._one_at_a_time:
            rows = [self._row(pair) for pair in pairs]
        pad = self._loaded.tokenizer.pad_token_id
        return collated(rows, min(self._loaded.ends) if pad is None else int(pad))

    def _row(self, pair: Pair) -> dict[str, Tensor]:
        """Return one pair as a batch of one, the answer's tokens behind the question's, with labels (1, L)."""
        ask = self._ask(pair)
        answer = answer_ids(self._loaded, ask, pair.caption)[: self._recipe.max_tokens]
        return with_answer(prepare(self._loaded, 0, ask).inputs, torch.tensor([answer]))

    def _ask(self, pair: Pair) -> Ask:
        """Return what the captioner asks of a clip, whose frames are JPEGs as evidence is."""
        images = (
            ChatImage(jpeg=video.jpeg(frame), seconds=time) for frame, time in zip(pair.frames, pair.times, strict=True)
        )
        return Ask(text=prompt_text(self._recipe.prompt), images=tuple(images), max_tokens=self._recipe.max_tokens)

    def forward(self, **inputs: Tensor) -> dict[str, Tensor]:
        scores = self.token_scores(inputs)
        return {"loss": scores.loss / scores.tokens.clamp(min=1), "token_accuracy": scores.accuracy}

    def token_scores(self, inputs: Inputs) -> TokenScores:
        rest = {
            name: value.to(self.model.dtype) if name.startswith("pixel_values") else value
            for name, value in inputs.items()
        }
        labels_BL = rest.pop("labels")
        first = int((labels_BL != IGNORED).any(0).int().argmax())  # where the earliest of the batch's answers begins
        # What stands before them costs a vocabulary's width of numbers each, and teaches nothing.
        kept = labels_BL.shape[1] - first + 1
        out = self.model(**rest, use_cache=False, **self._only_last(kept))
        logits_BLV = out.logits[:, -kept:-1]  # each guesses the token after its own
        return TokenScores.of(logits_BLV, labels_BL[:, first:])

    def _only_last(self, tokens: int) -> dict[str, int]:
        return {} if self._loaded.kind.startswith(chat_folder.VIDEO_BLIP) else {"logits_to_keep": tokens}

    def write(self, pair: Pair) -> str:
        loaded = replace(self._loaded, device=self.device)
        with self._one_at_a_time:
            ready = prepare(loaded, 0, self._ask(pair))
        return " ".join(answers(loaded, [ready])[0].text.split())

    def save_adapter(self, folder: Path) -> None:
        save_lora(self.model, lora_weights(self.model), folder)

    def save(self, folder: Path) -> None:
        if self.adapters:
            merge_lora(self.model)
            self.adapters = False
        with quiet_loading("transformers"):
            self.model.save_pretrained(str(folder), safe_serialization=True)
            self._loaded.processor.save_pretrained(str(folder))
        if (self._start / GENERATION).is_file():  # loading took from it what draws and searches
            shutil.copyfile(self._start / GENERATION, folder / GENERATION)


def answer_ids(loaded: chat_folder.LoadedChat, ask: Ask, answer: str) -> list[int]:
    """Return the tokens of ``answer`` as the model would write it to ``ask``, with the token that ends it."""
    tokenizer = loaded.tokenizer
    several = len(ask.images) > 1 and loaded.sees == "videos"
    asked, _ = prompt_of(loaded, ask, "video" if several else "image", 1 if several else len(ask.images))
    answer = plain_words(loaded, answer)
    answer = answer if asked[-1:].isspace() else f" {answer}"
    before, together = tokenizer(asked)["input_ids"], tokenizer(asked + answer)["input_ids"]
    # Where question and answer run together into one token, the answer stands alone, as it does when it is written.
    if together[: len(before)] == before:
        ids = together[len(before) :]
    else:
        ids = tokenizer(answer, add_special_tokens=False)["input_ids"]
    end = tokenizer.eos_token_id if tokenizer.eos_token_id in loaded.ends else min(loaded.ends)
    return [*(token for token in ids if token not in loaded.ends), end]


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
