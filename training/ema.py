"""An exponential moving average of weights, kept beside the model."""

from __future__ import annotations

import torch
from torch import nn


class Ema:
    """Averages weights: θ̄ ← d·θ̄ + (1 − d)·θ with d = min(decay, (1 + step)/(10 + step)).

    The rising d lets the first weights not count forever. ``model`` is a copy of the trained one with its own weights; it
    never takes gradients.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.model = model.eval().requires_grad_(False)
        self.decay = decay

    @torch.no_grad()
    def update(self, trained: nn.Module, step: int) -> None:
        """Take in the weights after optimizer step number ``step``, from 0."""
        keep = min(self.decay, (1 + step) / (10 + step))
        mine = [p.data for p in self.model.parameters()]
        theirs = [p.detach() for p in trained.parameters()]
        torch._foreach_lerp_(mine, theirs, 1 - keep)
