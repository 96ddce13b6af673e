"""The one loop trains a task, which makes batches and losses, measures and keeps itself; the loop does all else.

There are three: ``unet_task.UNetTask``, a phase of a video model, ``vae.task.VaeTask``, a temporal VAE decoder, and
``captioner.task.CaptionerTask``.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

import torch
from torch import Tensor, nn

from dailies.training.ema import Ema


class Settings(Protocol):
    """Settings say how a task is trained; a ``Phase`` and the recipes of the other tasks have these fields.

    ``batch``: samples a step, of all processes together. ``lr``, ``warmup``, ``decay``: see ``step.learning_rate``.
    ``clip_grad``: the longest gradient. ``validate_every``, ``save_every``, ``sample_every``: steps.
    """

    @property
    def steps(self) -> int: ...
    @property
    def batch(self) -> int: ...
    @property
    def lr(self) -> float: ...
    @property
    def warmup(self) -> int: ...
    @property
    def decay(self) -> float: ...
    @property
    def clip_grad(self) -> float: ...
    @property
    def validate_every(self) -> int: ...
    @property
    def save_every(self) -> int: ...
    @property
    def sample_every(self) -> int | None: ...


class Part(Protocol):
    """Samples that are computed together; ``clip_ids`` names them."""

    @property
    def clip_ids(self) -> tuple[str, ...]: ...


P = TypeVar("P", bound=Part)


class Task(ABC, Generic[P]):
    """One model in training, as its newest checkpoint left it or at its beginning.

    ``name`` begins the lines that are printed, ``title`` an error. ``folder`` gets metrics.jsonl and TensorBoard's files.
    ``network``: gradients are averaged over its processes, so ``losses`` calls it. ``skips_weights``: some weights that ask
    for gradients take no part in a pass. ``optimizer``: its groups may hold a ``unit``, in which their learning rate and
    gradient are measured. ``ema``: the average of the network's weights, where there is one. ``done``: steps.
    ``begun``: ``time.monotonic()`` when this call began; ``spent``: seconds of earlier calls. ``later``: the work that
    follows this task, in steps of its own.
    """

    name: str
    title: str
    folder: Path
    settings: Settings
    network: nn.Module
    optimizer: torch.optim.Optimizer
    done: int
    begun: float
    spent: float
    ema: Ema | None = None
    skips_weights = False
    later = 0.0

    @abstractmethod
    def parts(self, step: int) -> list[P]:
        """Make this process's samples of ``step`` from (seed, position) alone; another thread may call this."""

    @abstractmethod
    def losses(self, model: Any, part: P) -> dict[str, Tensor]:
        """Compute ``loss``, which is minimised, and other figures: each per sample, or summed over them.

        ``model`` is ``network``, or what averages its gradients over all processes.
        """

    @abstractmethod
    def rates(self, parts: Sequence[P], seconds: float) -> dict[str, float]:
        """Say how fast a step of ``parts`` was, for the metrics."""

    @abstractmethod
    def validate(self, step: int) -> dict[str, float] | None:
        """Measure the model on held-out samples, all processes together; ``None`` where that is known already."""

    @abstractmethod
    def describe(self, figures: dict[str, float]) -> str:
        """Put what ``validate`` measured into words."""

    @abstractmethod
    def save_samples(self, step: int) -> None:
        """Write what the model makes after ``step``, for people. One process alone calls this, ``save`` and ``finish``."""

    @abstractmethod
    def save(self, step: int, seconds: float) -> None:
        """Write a checkpoint. ``seconds``: spent so far."""

    @abstractmethod
    def finish(self, seconds: float) -> str:
        """Write the result, mark the run as done, and say where the result lies."""

    @abstractmethod
    def oom_hint(self) -> str:
        """Say what to lower when memory runs out."""

    @abstractmethod
    def close(self) -> None:
        """End threads; called whatever happens."""
