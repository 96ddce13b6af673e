"""What is asked, as tensors: a prompt by the model's chat template, pictures by its processor, and many of them as one batch.

Each ask is made ready by itself, whatever it shares a batch with. Shapes: B asks, L tokens.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from dailies.curation import video
from dailies.curation.chat.asking import Ask, ChatImage
from dailies.curation.chat.chat_folder import LoadedChat
from dailies.curation.errors import SourceError, UsageError

Tensor: TypeAlias = Any  # torch.Tensor: importing curation must not load torch

BLIP_FRAMES = 4
"""Frames that InstructBLIP-Video takes, no more and no fewer."""

MILLISECONDS = 1000
"""Ticks a second of the clock by which processors are told when frames are seen: they take whole numbers and a rate."""


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """An ask that is ready. ``inputs``: what the model takes, of a batch of one; ``tokens``: that it reads;
    ``max_tokens``: most that it may write."""

    number: int
    ask: Ask
    inputs: Mapping[str, Tensor]
    tokens: int
    max_tokens: int

    @property
    def shape(self) -> tuple[object, ...]:
        """What must be alike in one batch: which tensors there are, and their sizes but for lengths of texts."""
        return tuple(
            (name, None if _is_text(name) else tuple(each.shape[1:])) for name, each in sorted(self.inputs.items())
        )


def prepare(loaded: LoadedChat, number: int, ask: Ask) -> Prepared:
    """Make an ask ready. Raises ``SourceError`` for a broken picture or what is too long, ``UsageError`` for pictures where the
    model looks at none."""
    pictures = [video.unjpeg(image.jpeg) for image in ask.images]
    if pictures and loaded.sees == "nothing":
        raise UsageError(f"model {loaded.kind}: looks at no pictures; name a model that does, such as Qwen2.5-VL")
    inputs = _inputs(loaded, ask, pictures)
    tokens = int(inputs["input_ids"].shape[1])
    most = _context(loaded.model)
    if most is not None and tokens >= most:
        raise SourceError(f"the prompt has {tokens:,} tokens with its pictures, and the model reads {most:,} at most")
    left = ask.max_tokens if most is None else min(ask.max_tokens, most - tokens)
    return Prepared(number=number, ask=ask, inputs=inputs, tokens=tokens, max_tokens=left)


def _inputs(loaded: LoadedChat, ask: Ask, pictures: Sequence[NDArray[np.uint8]]) -> dict[str, Tensor]:
    processor: Any = loaded.processor
    asked: dict[str, Any] = {"return_tensors": "pt"}
    if loaded.kind.startswith("instructblip"):
        text = _plain(loaded, ask)
        if not pictures:
            raise UsageError(f"model {loaded.kind}: answers nothing without pictures")
        stacked = _stacked([pictures[at] for at in spread(len(pictures), BLIP_FRAMES, doubles=True)])
        inputs = dict(processor(images=stacked[None], text=[text], **asked))
        most = loaded.model.config.qformer_config.max_position_embeddings
        return {name: each[:, :most] if name.startswith("qformer") else each for name, each in inputs.items()}
    as_video = len(pictures) > 1 and loaded.sees == "videos"
    text, templated = prompt_of(loaded, ask, "video" if as_video else "image", 1 if as_video else len(pictures))
    if loaded.sees == "nothing":
        return dict(processor(text, add_special_tokens=not templated, **asked))
    start = loaded.tokenizer.bos_token
    if templated and start is not None and text.startswith(start):
        asked["add_special_tokens"] = False
    if as_video:
        stacked = _stacked(pictures)
        return dict(
            processor(
                text=[text], videos=[stacked], video_metadata=[clock(ask.images)], do_sample_frames=False, **asked
            )
        )
    return dict(processor(text=[text], images=list(pictures) or None, **asked))


def prompt_of(loaded: LoadedChat, ask: Ask, kind: str, count: int) -> tuple[str, bool]:
    """Return an ask as the model reads it, with places for ``count`` pictures of a ``kind``; and whether by a template.

    What is written in an ask stays words: tokens that steer the model are broken up in it.
    """
    user, system = plain_words(loaded, ask.text), plain_words(loaded, ask.system or "")
    template = getattr(loaded.processor, "chat_template", None) or getattr(loaded.tokenizer, "chat_template", None)
    if template is None:
        token = getattr(loaded.processor, f"{kind}_token", "")
        return "\n".join(filter(None, (str(token) * count, system, user))), False
    options = {"enable_thinking": False} if "enable_thinking" in str(template) else {}
    told = _messages(loaded, user, system, kind, count)
    try:
        return _rendered(loaded, told, template, options), True
    except Exception as error:  # a template's own; that of jinja2, which is not ours to import
        if not system or type(error).__name__ != "TemplateError":
            raise
    # This model's template has no place for what a system says: the user says it first.
    return _rendered(loaded, _messages(loaded, f"{system}\n\n{user}", "", kind, count), template, options), True


def _messages(loaded: LoadedChat, user: str, system: str, kind: str, count: int) -> list[dict[str, Any]]:
    if loaded.sees == "nothing":
        return [{"role": role, "content": text} for role, text in (("system", system), ("user", user)) if text]
    told = [{"role": "system", "content": [{"type": "text", "text": system}]}] if system else []
    return [*told, {"role": "user", "content": [*[{"type": kind}] * count, {"type": "text", "text": user}]}]


def _rendered(loaded: LoadedChat, told: Sequence[Mapping[str, Any]], template: Any, options: Mapping[str, Any]) -> str:
    owner = loaded.processor if loaded.sees != "nothing" else loaded.tokenizer
    chosen = {} if getattr(owner, "chat_template", None) else {"chat_template": template}
    return str(owner.apply_chat_template(list(told), tokenize=False, add_generation_prompt=True, **chosen, **options))


def _plain(loaded: LoadedChat, ask: Ask) -> str:
    return "\n".join(plain_words(loaded, text) for text in (ask.system, ask.text) if text)


def plain_words(loaded: LoadedChat, text: str) -> str:
    """Return a text in which nothing is a token that steers the model, such as the end of what a user says: captions and words
    on a screen are others' to write."""
    for token in loaded.steering:
        text = text.replace(token, f"{token[0]} {token[1:]}")
    return text


def clock(images: Sequence[ChatImage]) -> dict[str, Any]:
    """Return when the frames of a video are seen, as processors are told: numbers of ticks, their rate, and of how many.

    From these they compute each frame's second, and the mean rate of all. Frames without a time count as one a second.
    """
    seconds = [float(at) if image.seconds is None else image.seconds for at, image in enumerate(images)]
    ticks = [round(second * MILLISECONDS) for second in seconds]
    apart = (ticks[-1] - ticks[0]) / max(1, len(ticks) - 1) or MILLISECONDS
    total = max(1, round(apart * len(ticks)))
    return {
        "fps": float(MILLISECONDS),
        "frames_indices": ticks,
        "total_num_frames": total,
        "duration": total / MILLISECONDS,
    }


def spread(length: int, count: int, *, doubles: bool = False) -> list[int]:
    """Return ``count`` of the numbers below ``length``, first and last included, as evenly as whole numbers are.

    Of fewer than ``count`` all are returned once, unless there may be ``doubles``. One alone is the middle's.
    """
    if count >= length and not doubles:
        return list(range(length))
    if count == 1:
        return [length // 2]
    return [(2 * at * (length - 1) + count - 1) // (2 * (count - 1)) for at in range(count)]


def _stacked(pictures: Sequence[NDArray[np.uint8]]) -> NDArray[np.uint8]:
    """Return frames as a video (T, 3, H, W)."""
    if len({picture.shape for picture in pictures}) > 1:
        raise SourceError("its frames are of several sizes, and a video is of one")
    return np.ascontiguousarray(np.stack(pictures).transpose(0, 3, 1, 2))


def _context(model: Any) -> int | None:
    """Return how many tokens a model reads and writes at most, where its configuration tells."""
    text = model.config.get_text_config()
    most = getattr(text, "max_position_embeddings", None)
    return int(most) if most else None


# ---- a batch --------------------------------------------------------------------------------------------------------


def _is_text(name: str) -> bool:
    return name in ("input_ids", "attention_mask", "token_type_ids", "mm_token_type_ids") or name.startswith("qformer")


def collate(loaded: LoadedChat, batch: Sequence[Prepared]) -> dict[str, Tensor]:
    """Return asks of one ``shape`` as one batch, texts padded on the left, pictures in the model's precision, on its device.

    What pads an ask's tokens is its own last token: a penalty for repetition counts the tokens that a row holds, hidden or not,
    so that any other would make an answer depend on what shares its batch.
    """
    import torch

    joined: dict[str, Tensor] = {}
    for name in batch[0].inputs:
        parts = [each.inputs[name] for each in batch]
        if _is_text(name):
            longest = max(part.shape[1] for part in parts)
            parts = [_padded(name, part, longest) for part in parts]
        whole = torch.cat(parts) if len(parts) > 1 else parts[0]
        whole = whole.to(loaded.device)
        joined[name] = whole.to(loaded.model.dtype) if name.startswith("pixel_values") else whole
    return joined


def _padded(name: str, part_1L: Tensor, longest: int) -> Tensor:  # noqa: N803
    import torch

    missing = longest - part_1L.shape[1]
    filler = part_1L[0, -1] if name == "input_ids" else 0
    padding = part_1L.new_full((1, missing), filler)
    # The Q-Former counts its positions from the left, hidden or not.
    return torch.cat([part_1L, padding] if name.startswith("qformer") else [padding, part_1L], 1)
