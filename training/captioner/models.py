"""What a captioner in training must do, whichever model it is: make batches, its loss, captions, and its files."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor, nn

from dailies.training.captioner.pairs import Pair
from dailies.training.ema import Ema

Inputs = Mapping[str, Tensor]
IGNORED = -100  # the label of a token that is not to be learnt


@dataclass(frozen=True, kw_only=True)
class TokenScores:
    """Scores of captions' tokens, each guessed after the true ones before it: per caption, (B,).

    ``loss``: cross-entropy summed over a caption's tokens, in nats. ``correct``: how many of its ``tokens`` are guessed right.
    """

    loss: Tensor
    correct: Tensor
    tokens: Tensor

    @classmethod
    def of(cls, logits_BLV: Tensor, labels_BL: Tensor) -> TokenScores:
        """Score ``logits_BLV``, each against the label at its own place; ``IGNORED`` ones count nothing."""
        counts = labels_BL != IGNORED
        loss = nn.functional.cross_entropy(
            logits_BLV.float().flatten(0, 1), labels_BL.flatten(), ignore_index=IGNORED, reduction="none"
        )
        return cls(
            loss=loss.view_as(labels_BL).sum(1),
            correct=((logits_BLV.argmax(-1) == labels_BL) & counts).sum(1),
            tokens=counts.sum(1),
        )

    @property
    def accuracy(self) -> Tensor:
        """The share of each caption's tokens that is guessed right."""
        return self.correct / self.tokens.clamp(min=1)


class CaptionNetwork(nn.Module, ABC):
    """A captioner in training. Its ``forward`` takes what ``inputs`` makes, and returns losses, each per caption or summed over
    them, ``loss`` among them.

    ``kind``: what its folder is loaded by. ``contrast``: whether the captions of a batch are held against each other.
    ``frames``: of each clip that it looks at. ``skips_weights``: some weights that learn take no part in a pass.
    ``adapters``: whether these alone learn.
    """

    kind: ClassVar[str]
    contrast: bool
    frames: int
    skips_weights: bool
    adapters = False

    @abstractmethod
    def inputs(self, pairs: Sequence[Pair]) -> dict[str, Tensor]:
        """Make pairs ready, on the CPU. Callable from threads."""

    @abstractmethod
    def token_scores(self, inputs: Inputs) -> TokenScores:
        """Score the captions' tokens."""

    @abstractmethod
    def write(self, pair: Pair) -> str:
        """Caption a clip: the likeliest token each time."""

    def save_adapter(self, folder: Path) -> None:
        """Write the adapters alone, where ``adapters`` are what learns, as peft reads them."""
        raise NotImplementedError

    @abstractmethod
    def save(self, folder: Path) -> None:
        """Write the model, in the format that its captioner loads, into an empty folder. Adapters are merged for good, so
        that this comes last."""

    @property
    def device(self) -> torch.device:
        return next(self.parameters()).device

    def to_device(self, inputs: Inputs) -> dict[str, Tensor]:
        return {name: value.to(self.device) for name, value in inputs.items()}

    @property
    def trained(self) -> dict[str, nn.Parameter]:
        """Parameters that learn, by name."""
        return {name: weight for name, weight in self.named_parameters() if weight.requires_grad}

    def state(self) -> dict[str, Tensor]:
        """Return what training changes: parameters that learn, and buffers that a file keeps."""
        fixed = {name for name, _ in self.named_parameters(remove_duplicate=False)}
        buffers = {name: value for name, value in self.state_dict().items() if name not in fixed}
        return {name: value.detach().cpu().contiguous() for name, value in (buffers | self.trained).items()}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Put back what ``state`` returned. Raises ``KeyError`` for a weight that is missing."""
        mine = dict(self.state_dict(keep_vars=True))
        with torch.no_grad():
            for name in self.state():
                mine[name].copy_(state[name])


class TrainedEma(Ema):
    """The average of the weights that learn; others have none. See ``Ema``."""

    def __init__(self, trained: Mapping[str, nn.Parameter], decay: float) -> None:
        copies = nn.ParameterList([nn.Parameter(weight.detach().clone()) for weight in trained.values()])
        super().__init__(copies, decay)
        self._trained = dict(trained)

    def update(self, trained: nn.Module, step: int) -> None:
        super().update(nn.ParameterList(self._trained.values()), step)

    def state(self) -> dict[str, Tensor]:
        weights = (weight.detach().cpu().contiguous() for weight in self.model.parameters())
        return dict(zip(self._trained, weights, strict=True))

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        with torch.no_grad():
            for name, weight in zip(self._trained, self.model.parameters(), strict=True):
                weight.copy_(state[name])

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Let the averages stand in the model's place within the block."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    def _swap(self) -> None:
        for mine, theirs in zip(self.model.parameters(), self._trained.values(), strict=True):
            mine.data, theirs.data = theirs.data, mine.data
