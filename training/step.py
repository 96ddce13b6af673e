"""One optimizer step, whatever is trained: learning rate, accumulated gradients, clipping, and the check for NaN."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor

from dailies.curation.errors import NotFinite
from dailies.training import distributed
from dailies.training.task import P, Settings


def learning_rate(settings: Settings, step: int) -> float:
    """Return the rate at ``step``: linear up over ``warmup`` steps, flat, linear down to 0 over the last ``decay`` of all."""
    up = (step + 1) / max(1, settings.warmup)
    down = (settings.steps - step) / max(1.0, settings.decay * settings.steps) if settings.decay else 1.0
    return settings.lr * min(1.0, up, down)


def train_step(
    model: Any,
    optimizer: torch.optim.Optimizer,
    parts: Sequence[P],
    losses: Callable[[Any, P], dict[str, Tensor]],
    settings: Settings,
    title: str,
    step: int,
) -> dict[str, float]:
    """Take one optimizer step on this process's ``parts`` of the step's samples, which weigh by their number.

    Returns the losses' means over all processes' samples, the learning rate and the gradient's norm. Raises ``NotFinite``
    with the samples' ids, before the weights change, where a loss or the gradient is not finite.
    """
    model.train()
    rate = learning_rate(settings, step)
    for group in optimizer.param_groups:
        group["lr"] = rate * group.get("unit", 1.0)
    optimizer.zero_grad(set_to_none=True)
    processes = distributed.world().size
    sums: dict[str, Tensor] = {}
    for number, part in enumerate(parts):
        # Divided, so that the parts' gradients sum to that of the whole batch's mean; processes' gradients are averaged.
        with nullcontext() if number == len(parts) - 1 else distributed.no_sync(model):
            means = {name: value.sum() / settings.batch for name, value in losses(model, part).items()}
            (means["loss"] * processes).backward()  # type: ignore[no-untyped-call]
        for name, value in means.items():
            sums[name] = sums.get(name, torch.zeros_like(value)) + value.detach()
    norm = clip_gradient(optimizer, settings.clip_grad)
    figures = dict(zip(sums, distributed.all_reduce(torch.stack(list(sums.values()))).tolist(), strict=True))
    loss = figures["loss"]
    if math.isfinite(loss) and math.isfinite(norm):
        optimizer.step()
        return {**figures, "lr": rate, "gradient_norm": norm}
    what = "gradient" if math.isfinite(loss) else f"loss ({loss})"
    names = ", ".join(distributed.all_gather(tuple(name for part in parts for name in part.clip_ids)))
    raise NotFinite(f"{title}, step {step}: {what} is not finite on samples {names}")


@torch.no_grad()
def clip_gradient(optimizer: torch.optim.Optimizer, longest: float) -> float:
    """Shorten the gradient to ``longest``, and return its norm before; each group's part is measured in its ``unit``."""
    groups = [
        (group.get("unit", 1.0), [weight.grad for weight in group["params"] if weight.grad is not None])
        for group in optimizer.param_groups
    ]
    groups = [(unit, gradients) for unit, gradients in groups if gradients]
    if not groups:
        return 0.0
    norms = [norm * unit for unit, gradients in groups for norm in torch._foreach_norm(gradients)]
    norm = torch.linalg.vector_norm(torch.stack(norms))
    scale = (longest / (norm + 1e-6)).clamp(max=1.0)
    for _, gradients in groups:
        torch._foreach_mul_(gradients, scale)
    return float(norm)
