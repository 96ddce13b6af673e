"""A phase begins here: the models that it needs, checked before any work; and its network, average, optimizer and step."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import torch

from dailies.curation import inside
from dailies.curation.atomic import remove_unfinished
from dailies.curation.config import offered
from dailies.curation.errors import ModelError
from dailies.curation.plain_text import counted
from dailies.training import checkpoint, distributed
from dailies.training.data.split import Split
from dailies.training.diffusion.encoders import Models, inspect_encoders
from dailies.training.ema import Ema
from dailies.training.models import VideoUNet, count_parameters, load_pretrained, pretrained_config
from dailies.training.models.config import UNetConfig
from dailies.training.models.files import weight_files
from dailies.training.models.lora import LORA_TARGETS
from dailies.training.models.trainable import (
    build,
    config_of,
    set_trainable,
    trainable_params,
    transfer_weights,
    widened_params,
)
from dailies.training.recipes.phase import Phase
from dailies.training.recipes.recipe import EncoderDims, TrainingRecipe, UNetSpec, check_sizes
from dailies.training.run_log import Run

RANDOM = "random weights"
NAMED = {
    "vae": "a VAE (--vae)",
    "text": "a text encoder (--text-encoder)",
    "image": "an image encoder (--image-encoder)",
}


def needed(phases: Sequence[Phase]) -> set[str]:
    """Return which of ``Models`` the phases cannot do without."""
    return {"vae"} | {phase.task_spec.cross_attention for phase in phases}


def lacking(recipe: TrainingRecipe, phases: Sequence[Phase], models: Models) -> list[str]:
    """Name, for people, the models that are needed and absent."""
    first = phases[0] == recipe.phases[0]
    start = ["weights to start from (--from)"] if recipe.init_from == "given" and first and models.start is None else []
    return start + [title for name, title in NAMED.items() if name in needed(phases) and getattr(models, name) is None]


def check(recipe: TrainingRecipe, phases: Sequence[Phase], models: Models) -> EncoderDims:
    """Return the sizes that the models fix. Raises ``ModelError`` naming the field that does not fit."""
    if missing := lacking(recipe, phases, models):
        raise ModelError(f"models: {recipe.name} lacks {', '.join(missing)}")
    dims = inspect_encoders(models)
    net = net_of(recipe, models)
    channels = net.channels
    check_sizes(recipe, channels, dims.factor)
    for phase in phases:
        if max(phase.checkpoint_levels, default=0) >= len(channels):
            there = f"the network has levels 0 to {len(channels) - 1}"
            raise ModelError(f"phase {phase.name}: checkpoint_levels={phase.checkpoint_levels}: {there}")
        if unknown := sorted(set(phase.lora) - set(LORA_TARGETS)):
            raise ModelError(
                f"phase {phase.name}: lora={unknown[0]!r}: no such part{offered(unknown[0], LORA_TARGETS)}"
            )
    if models.start is not None:
        _check_start(recipe, phases[0], models.start)
    for phase in phases:
        last = recipe.before(phase)
        channels_before = last.task_spec.in_channels if last is not None else None
        if last is None and models.start is not None:
            channels_before = pretrained_config(models.start).in_channels
        if phase.lora and channels_before not in (None, phase.task_spec.in_channels):
            raise ModelError(
                f"phase {phase.name}: lora={phase.lora}: LoRA cannot add input channels ({channels_before} to "
                f"{phase.task_spec.in_channels}): start from an {phase.task} model"
            )
    return dims


def _check_start(recipe: TrainingRecipe, phase: Phase, folder: str) -> None:
    """Check that ``phase`` can start from the weights in ``folder``."""
    theirs = pretrained_config(folder)
    try:
        weight_files(Path(folder))
    except FileNotFoundError as error:
        raise ModelError(f"start={folder}: {error}") from error
    if recipe.unet is not None:
        _same(config_of(phase, recipe.unet, 1, (1, 1)), theirs, folder)
    spec = phase.task_spec
    more = (
        theirs.in_channels > spec.in_channels
        or theirs.masked > spec.masked
        or (theirs.time_id_width and theirs.num_time_ids > spec.num_time_ids)
    )
    if more:
        raise ModelError(
            f"start={folder}: takes {theirs.in_channels} channels and {theirs.num_time_ids} time ids, more than {phase.task} "
            f"gives ({spec.in_channels} and {spec.num_time_ids}); begin with another task"
        )


def _same(ours: UNetConfig, theirs: UNetConfig, folder: str) -> None:
    for name in ("channels", "attention", "layers", "heads", "transformer_layers"):
        mine, there = getattr(ours, name), getattr(theirs, name)
        if mine != there:
            raise ModelError(f"unet.{name}={mine}: the weights to start from have {there}: {folder}")


def net_of(recipe: TrainingRecipe, models: Models) -> UNetSpec | UNetConfig:
    """Return the recipe's network, or that of the weights given. Raises ``ModelError`` where there is neither."""
    if recipe.unet is not None:
        return recipe.unet
    if models.start is None:
        raise ModelError(f"models: {recipe.name} lacks weights to start from (--from)")
    return pretrained_config(models.start)


def motion_reference(split: Split) -> float:
    """Return the motion score that becomes motion bucket 127: the median of the training clips, 0 where none has one."""
    scores = [
        score
        for subset in split.train
        for i in range(len(subset.items.clip_ids))
        if (score := subset.items.number(i, "motion")) is not None
    ]
    return float(median(scores)) if scores else 0.0


@dataclass(kw_only=True)
class PhaseState:
    """Holds a phase between two steps.

    ``ema.model``: the average, by which a phase is judged. ``done``: steps. ``origin``: what it started from.
    ``facts``: what run.json said when the steps were done.
    """

    unet: VideoUNet
    ema: Ema
    optimizer: torch.optim.AdamW
    done: int
    origin: str
    facts: dict[str, Any] = field(default_factory=dict)


def init_phase(
    recipe: TrainingRecipe,
    phase: Phase,
    run: Run,
    dims: EncoderDims,
    reference: float,
    device: torch.device,
    say: Callable[[str], None],
) -> PhaseState:
    """Load the phase as its newest checkpoint left it, or make its beginning."""
    torch.manual_seed(recipe.seed)  # initial weights; nothing is drawn from the global generator later
    size = (phase.size[1] // dims.factor, phase.size[0] // dims.factor)
    width = dims.text_width if phase.task_spec.cross_attention == "text" else dims.image_width
    assert width is not None  # ``check`` has seen to it
    unet = build(phase, net_of(recipe, run.models), width, size)
    # What sampling must know to ask as training asked.
    facts: dict[str, Any] = {
        "motion_reference": reference,
        "task": phase.task,
        "objective": phase.objective,
        "fps": phase.fps,
    }
    facts["trained_fps"] = list(phase.trained_fps)
    unet.extra_config = facts
    if run.writes:
        remove_unfinished(run.phase_folder(phase))
    distributed.barrier()
    newest = checkpoint.latest(run.phase_folder(phase), checkpoint.UNETS, say)
    entry = run.entry(phase)
    origin = entry.get("from") if entry is not None and newest is not None else None
    origin = origin or _origin(recipe, phase, run)
    widened: list[str] = []
    own = Path(origin).parts
    source = f"from {own[1]}'s averaged weights" if own[0] == "phases" else f"from {origin}"
    # A checkpoint holds all weights that are trained; where only some are, what the phase started from says which.
    if origin != RANDOM and (newest is None or phase.lora or phase.trains != "all"):
        place = Path(origin)
        if place.is_absolute() and run.models.start is not None:
            place = Path(run.models.start)  # the same weights, which may have been moved
        before = load_pretrained(place if place.is_absolute() else inside.inside_whole(run.folder, str(place)))
        fresh = transfer_weights(before, unet)
        widened = widened_params(before, unet)
        source += f", {counted(len(fresh), 'weight')} of other width anew" if fresh else ""
    set_trainable(unet, phase, widened)
    unet.to(device)
    ema = Ema(copy.deepcopy(unet), phase.ema)
    optimizer = torch.optim.AdamW(
        trainable_params(unet), lr=phase.lr, betas=(0.9, 0.99), weight_decay=phase.weight_decay
    )
    if newest is not None:
        done, kept = checkpoint.restore_unet(newest, unet, ema.model, optimizer)
        kept["checkpoint"] = str(newest.relative_to(run.folder))
        say(f"{phase.name}: goes on from step {done}")
        return PhaseState(unet=unet, ema=ema, optimizer=optimizer, done=done, origin=origin, facts=kept)
    count = sum(parameter.numel() for parameter in trainable_params(unet))
    part = "" if count == count_parameters(unet) else f", {count:,} of them trained"
    say(f"{phase.name}: {count_parameters(unet) / 1e6:.1f} M parameters{part}, {source}")
    return PhaseState(unet=unet, ema=ema, optimizer=optimizer, done=0, origin=origin)


def _origin(recipe: TrainingRecipe, phase: Phase, run: Run) -> str:
    """Return what the phase starts from: a checkpoint under the run's folder, given weights, or ``RANDOM``.

    The average is what the last phase is judged by, so it is what the next one starts from. Raises ``ModelError`` if that phase
    has not been finished.
    """
    last = recipe.before(phase)
    entry: dict[str, Any] | None = None if last is None else run.entry(last)
    if last is not None and entry is not None and entry["done"]:
        return str(Path(inside.check_name(entry["checkpoint"])) / "unet_ema")
    if run.models.start is not None and (last is None or entry is None):
        return str(Path(run.models.start).resolve())
    if last is not None:
        raise ModelError(
            f"phase={phase.name}: starts from {last.name}, which is not finished in {run.folder}; train that one first"
        )
    return RANDOM
