"""Where a phase begins: what must be given, checked before any work; and its network, average, optimizer and step."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

import torch

from training import checkpoint
from training.data import Split
from training.ema import Ema
from training.encoders import Models, look
from training.models import VideoUNet, build, carry, config_of, given, given_config, parameters, prepare, trained
from training.models import load as load_unet
from training.models.config import UNetConfig
from training.models.lora import PARTS
from training.phase import Phase
from training.recipe import Frozen, Net, Recipe, check_sizes
from training.record import Run

NAMED = {"vae": "a VAE", "text": "a text encoder", "image": "an image encoder"}


def needed(phases: Sequence[Phase]) -> set[str]:
    """Which of ``Models`` the phases cannot do without."""
    return {"vae"} | {phase.kind.context for phase in phases}


def lacking(recipe: Recipe, phases: Sequence[Phase], models: Models) -> list[str]:
    """What is needed and not given, in words."""
    first = phases[0] == recipe.phases[0]
    start = ["weights to start from"] if recipe.begins == "given" and first and models.start is None else []
    return start + [words for name, words in NAMED.items() if name in needed(phases) and getattr(models, name) is None]


def check(recipe: Recipe, phases: Sequence[Phase], models: Models) -> Frozen:
    """What the given models fix. Raises ``ValueError`` naming the field where recipe, phases and models do not fit."""
    if missing := lacking(recipe, phases, models):
        raise ValueError(f"models: {recipe.name} needs {', '.join(missing)}, which is not given")
    frozen = look(models)
    net = net_of(recipe, models)
    channels = net.channels
    check_sizes(recipe, channels, frozen.factor)
    for phase in phases:
        if max(phase.checkpoint_levels, default=0) >= len(channels):
            wrong = f"0 to {len(channels) - 1} expected, not {phase.checkpoint_levels}"
            raise ValueError(f"phase {phase.name}: checkpoint_levels: {wrong}")
        if unknown := sorted(set(phase.lora) - set(PARTS)):
            raise ValueError(f"phase {phase.name}: lora: some of {', '.join(PARTS)} expected, not {unknown[0]!r}")
    if models.start is not None and recipe.net is not None:
        _same(config_of(phases[0], recipe.net, 1, (1, 1)), given_config(models.start), models.start)
    return frozen


def _same(ours: UNetConfig, theirs: UNetConfig, folder: str) -> None:
    for name in ("channels", "attention", "layers", "heads", "transformer_layers"):
        mine, there = getattr(ours, name), getattr(theirs, name)
        if mine != there:
            raise ValueError(f"net: {name} {mine} in the recipe and {there} in the weights to start from, {folder}")


def net_of(recipe: Recipe, models: Models) -> Net | UNetConfig:
    """The recipe's network, or that of the weights given. Raises ``ValueError`` where there is neither."""
    if recipe.net is not None:
        return recipe.net
    if models.start is None:
        raise ValueError(f"models: {recipe.name} starts from weights that must be given")
    return given_config(models.start)


def motion_reference(split: Split) -> float:
    """The motion score that becomes motion bucket 127: the median of the training clips, 0 where none has one."""
    scores = [
        score
        for lane in split.train
        for i in range(len(lane.items.ids))
        if (score := lane.items.number(i, "motion")) is not None
    ]
    return float(median(scores)) if scores else 0.0


@dataclass(kw_only=True)
class Started:
    """``ema.model``: the average, which is what a phase is judged by. ``done``: steps."""

    unet: VideoUNet
    ema: Ema
    optimizer: torch.optim.AdamW
    done: int


def start(
    recipe: Recipe,
    phase: Phase,
    run: Run,
    frozen: Frozen,
    reference: float,
    device: torch.device,
    say: Callable[[str], None],
) -> Started:
    """The phase as its newest checkpoint left it, or at its beginning."""
    torch.manual_seed(recipe.seed)  # initial weights; nothing is drawn from the global generator later
    size = (phase.size[1] // frozen.factor, phase.size[0] // frozen.factor)
    width = frozen.text_width if phase.kind.context == "text" else frozen.image_width
    assert width is not None  # ``check`` has seen to it
    unet = build(phase, net_of(recipe, run.models), width, size)
    # What sampling must know to ask as training asked.
    facts = {"motion_reference": reference, "task": phase.task, "objective": phase.objective, "fps": phase.fps}
    unet.facts = facts
    newest = checkpoint.latest(run.phase_folder(phase))
    before, words = (None, "") if newest is not None and not phase.lora else _before(recipe, phase, run)
    if before is not None:
        fresh = carry(before, unet)
        words += f", {len(fresh)} of other width start anew" if fresh else ""
    prepare(unet, phase)
    unet.to(device)
    ema = Ema(copy.deepcopy(unet), phase.ema)
    optimizer = torch.optim.AdamW(trained(unet), lr=phase.lr, betas=(0.9, 0.99), weight_decay=phase.weight_decay)
    if newest is not None:
        done = checkpoint.restore(newest, unet, ema.model, optimizer)
        say(f"{phase.name}: goes on from step {done}")
        return Started(unet=unet, ema=ema, optimizer=optimizer, done=done)
    count = sum(parameter.numel() for parameter in trained(unet))
    part = "" if count == parameters(unet) else f", {count / 1e6:.1f} M of them trained"
    say(f"{phase.name}: {parameters(unet) / 1e6:.1f} M parameters{part}, {words}")
    return Started(unet=unet, ema=ema, optimizer=optimizer, done=0)


def _before(recipe: Recipe, phase: Phase, run: Run) -> tuple[VideoUNet | None, str]:
    """The weights that the phase starts from, and what they are in words.

    The average is what the last phase is judged by, so it is what the next one starts from. Raises ``ValueError`` if
    that phase has not been finished.
    """
    last = recipe.before(phase)
    entry: dict[str, Any] | None = None if last is None else run.entry(last)
    if last is not None and entry is not None and entry["done"]:
        return load_unet(run.folder / entry["checkpoint"] / "unet_ema"), f"from {last.name}'s averaged weights"
    if run.models.start is not None and (last is None or entry is None):
        return given(run.models.start), f"from {run.models.start}"
    if last is not None:
        raise ValueError(f"phase: {phase.name} starts from {last.name}, which is not finished in {run.folder}")
    return None, "from random weights"
