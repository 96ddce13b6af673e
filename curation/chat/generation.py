"""Answers out of a batch: transformers' own loop, with each ask's limit, and its own draws where it asks for some.

An answer depends on no other of its batch but for rounding: each ask has a generator of its own, and stops by itself. The
penalties of the model's generation_config.json hold; its temperature, top-p and beams do not. Shapes: B asks, L tokens,
V tokens in the vocabulary.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from dailies.curation.chat.asking import Ask
from dailies.curation.chat.chat_folder import LoadedChat
from dailies.curation.chat.inputs import Prepared, collate

Tensor: TypeAlias = Any  # torch.Tensor: importing curation must not load torch


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """An answer. ``tokens``: that were written, without the end; ``ended``: by itself, and not at the limit."""

    text: str
    tokens: int
    ended: bool


def answers(loaded: LoadedChat, batch: Sequence[Prepared]) -> list[Answer]:
    """Let the model answer asks of one shape together, in order."""
    import torch

    inputs = collate(loaded, batch)
    with torch.inference_mode():
        written = generate(loaded, inputs, [each.max_tokens for each in batch], [each.ask for each in batch])
    return [_answer(loaded, ids, each.max_tokens) for ids, each in zip(written, batch, strict=True)]


def generate(
    loaded: LoadedChat, inputs: Mapping[str, Tensor], limits: Sequence[int], asks: Sequence[Ask]
) -> list[list[int]]:
    """Return the tokens that are written to each ask of a batch, with the end where there is one."""
    from transformers import LogitsProcessorList, StoppingCriteriaList

    read = inputs["input_ids"].shape[1]
    sampled = any(ask.temperature > 0 for ask in asks)
    stops = StoppingCriteriaList([_stop_at(read, limits)]) if len(set(limits)) > 1 else None
    out_BL = loaded.model.generate(  # noqa: N806
        **inputs,
        max_new_tokens=max(limits),
        logits_processor=LogitsProcessorList([_Draws(asks, read, max(limits))]) if sampled else None,
        stopping_criteria=stops,
    )
    return [_cut(row[read:], loaded.ends, limit) for row, limit in zip(out_BL.tolist(), limits, strict=True)]


def _cut(row: Sequence[int], ends: frozenset[int], limit: int) -> list[int]:
    end = next((at + 1 for at, token in enumerate(row) if token in ends), len(row))
    return list(row[: min(end, limit)])


def _answer(loaded: LoadedChat, ids: Sequence[int], limit: int) -> Answer:
    ended = bool(ids) and ids[-1] in loaded.ends
    written = ids[:-1] if ended else ids
    text = str(loaded.tokenizer.decode(list(written), skip_special_tokens=True)).strip()
    return Answer(text=text, tokens=len(written), ended=ended)


def _stop_at(read: int, limits: Sequence[int]) -> Any:
    """Return what tells which rows have reached their own limit."""
    import torch

    def reached(ids_BL: Tensor, scores: object, **rest: object) -> Tensor:  # noqa: N803
        written = ids_BL.shape[1] - read
        return torch.tensor([written >= limit for limit in limits], device=ids_BL.device)

    return reached


class _Draws:
    """Leaves one token of each row that asks for draws, drawn at its temperature by its own generator."""

    def __init__(self, asks: Sequence[Ask], read: int, most: int) -> None:
        import torch

        self._read = read
        self._rows = [number for number, ask in enumerate(asks) if ask.temperature > 0]
        self._temperatures = [asks[number].temperature for number in self._rows]
        seeds = [torch.Generator().manual_seed(asks[number].seed) for number in self._rows]
        self._draws_BL = torch.stack([torch.rand(most, generator=seed, dtype=torch.float64) for seed in seeds])

    def __call__(self, ids_BL: Tensor, scores_BV: Tensor) -> Tensor:  # noqa: N803
        import torch

        step = ids_BL.shape[1] - self._read
        temperatures = scores_BV.new_tensor(self._temperatures)[:, None]
        cdf = (scores_BV[self._rows] / temperatures).double().softmax(-1).cumsum(-1)
        u = self._draws_BL[:, step, None].to(cdf.device) * cdf[:, -1:]
        drawn = torch.searchsorted(cdf, u, right=True).clamp(max=cdf.shape[-1] - 1)
        only = torch.full_like(scores_BV[self._rows], -torch.inf).scatter(1, drawn, 0.0)
        left_BV = scores_BV.clone()  # noqa: N806
        left_BV[self._rows] = only
        return left_BV
