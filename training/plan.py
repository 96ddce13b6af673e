"""What a recipe would cost, need and lack, before any work: ``dailies train RECIPE --dry-run``.

Operations are counted, not estimated: each phase's network runs forward and backward on torch's meta device, which holds
shapes and no numbers, under torch's FLOP counter. A multiplication with its addition is 2 FLOP.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch.utils.flop_counter import FlopCounterMode

from training.data import Export, grid_length, load
from training.models import VideoUNet, build, is_temporal
from training.recipe import Phase, Recipe, columns_needed
from training.recipes import DIFFERS, LACKING

TFLOPS = 400.0  # sustained on one GPU, in 10¹² FLOP/s: 40 % of an H100's dense bfloat16 peak of 989, a usual share


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """Of one sample through one phase's network. ``trained``: weights that get a gradient; images pass no temporal layer.
    ``forward``, ``both``: FLOP, without and with the backward pass."""

    parameters: int
    temporal: int
    trained: int
    forward: int
    both: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PhasePlan:
    """One phase. ``clips``: those of the export's train split that pass and are long enough, ``None`` where that cannot be
    said; ``epochs`` over them. ``seconds``: the least length of a clip. ``gigabytes``: see ``gigabytes``."""

    name: str
    task: str
    frames: int
    fps: float
    size: tuple[int, int]
    steps: int
    batch: int
    lr: float
    p_mean: float
    p_std: float
    parameters: int
    temporal: int
    trained: int
    forward_tflop: float
    tflop: float
    samples: int
    eflop: float
    gpu_hours: float
    gigabytes: float
    columns: tuple[str, ...]
    seconds: float
    clips: int | None
    epochs: float | None
    lacks: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """``lacks``: what the whole recipe is without. ``left_out``: runs of its paper that it does not have, each with the reason;
    ``differs``: where it departs from the paper. ``notes``: what the figures take for granted."""

    recipe: str
    recipe_hash: str
    tflops: float
    phases: tuple[PhasePlan, ...]
    lacks: tuple[str, ...]
    left_out: dict[str, str]
    differs: tuple[str, ...]
    notes: tuple[str, ...]


def plan(recipe: Recipe, export: Export | None = None, *, phase: str | None = None, tflops: float = TFLOPS) -> Plan:
    """The plan of ``recipe``, or of its phase ``phase``, over ``export``'s clips if given. Reads no video, starts nothing.

    Raises ``ValueError`` for a phase, or a level in its ``checkpoint_levels``, that is not there.
    """
    chosen = recipe.phases if phase is None else (recipe.phase(phase),)
    missing = recipe.frozen.missing + (() if export is not None else ("an export of clips to train on",))
    return Plan(
        recipe=recipe.name,
        recipe_hash=recipe.hash,
        tflops=tflops,
        phases=tuple(_phase_plan(recipe, one, export, tflops) for one in chosen),
        lacks=missing,
        left_out=dict(LACKING.get(recipe.name, {})),
        differs=DIFFERS.get(recipe.name, ()),
        notes=(
            "FLOP forward, and trained (forward and backward): of one sample through the UNet, counted by torch's counter; "
            "VAE and encoders come on top.",
            f"GPU-hours: at {tflops:g} TFLOP/s sustained ({TFLOPS:g} are 40 % of an H100's bfloat16 peak).",
            "GB a GPU: weights and their average, and of what is trained gradients and Adam's two moments, all in float32; "
            "activations come on top, by how many samples a GPU takes at once.",
        ),
    )


def _phase_plan(recipe: Recipe, phase: Phase, export: Export | None, tflops: float) -> PhasePlan:
    spent = cost(recipe, phase)
    samples = phase.steps * phase.batch
    clips, lacks = (None, ()) if export is None else available(recipe, phase, export)
    return PhasePlan(
        name=phase.name,
        task=phase.task,
        frames=phase.frames,
        fps=phase.fps,
        size=phase.size,
        steps=phase.steps,
        batch=phase.batch,
        lr=phase.lr,
        p_mean=phase.p_mean,
        p_std=phase.p_std,
        parameters=spent.parameters,
        temporal=spent.temporal,
        trained=spent.trained,
        forward_tflop=spent.forward / 1e12,
        tflop=spent.both / 1e12,
        samples=samples,
        eflop=samples * spent.both / 1e18,
        gpu_hours=samples * spent.both / (tflops * 1e12) / 3600,
        gigabytes=gigabytes(spent),
        columns=tuple(columns_needed(replace(recipe, phases=(phase,)))),
        seconds=(phase.frames - 1) / phase.fps,
        clips=clips,
        epochs=samples / clips if clips else None,
        lacks=lacks,
    )


def cost(recipe: Recipe, phase: Phase) -> Cost:
    """Runs one sample through the phase's network on the meta device: no memory, a few seconds for a large one.

    What ``checkpoint_levels`` has computed twice counts twice, for it costs GPU-hours; an MFU counts it once.
    Raises ``ValueError`` for a level that is not there.
    """
    frozen = recipe.frozen
    width, height = (side // frozen.factor for side in phase.size)
    image = phase.task == "image-to-video"
    context = (1, frozen.image_width) if image else (recipe.text_tokens, frozen.text_width)
    frames = () if phase.frames == 1 else (phase.frames,)
    with torch.device("meta"):
        unet = build(phase, recipe.net, context[1], (height, width))
        x = torch.empty(1, *frames, phase.in_channels, height, width)
        c_noise_B, context_BLD = torch.empty(1), torch.empty(1, *context)
        ids_BK = torch.empty(1, unet.config.ids) if frames else None
    unet.checkpoint_levels(phase.checkpoint_levels)
    with FlopCounterMode(display=False) as forward:
        out = unet(x, c_noise_B, context_BLD, ids_BK)
    with FlopCounterMode(display=False) as backward:
        out.sum().backward()
    there = forward.get_total_flops()
    return Cost(
        parameters=_count(unet),
        temporal=_count(unet, temporal=True),
        trained=_count(unet, trained=True),
        forward=there,
        both=there + backward.get_total_flops(),
    )


def _count(unet: VideoUNet, *, temporal: bool = False, trained: bool = False) -> int:
    """Weights, or only the temporal ones, or only those with a gradient."""
    return sum(
        weight.numel()
        for name, weight in unet.named_parameters()
        if (is_temporal(name) or not temporal) and (weight.grad is not None or not trained)
    )


def gigabytes(spent: Cost) -> float:
    """10⁹ bytes on each GPU that holds the whole UNet, in float32: weights and their average; and of what is trained,
    gradients and Adam's two moments. Without activations."""
    return 4 * (2 * spent.parameters + 3 * spent.trained) / 1e9


def available(recipe: Recipe, phase: Phase, export: Export) -> tuple[int | None, tuple[str, ...]]:
    """How many items the phase would train on, and what it would still lack."""
    needed = columns_needed(replace(recipe, phases=(phase,)))
    if absent := [name for name in needed if name not in export.columns]:
        return None, tuple(f"column {name}" for name in absent)
    if phase.images == "frames":
        lengths = [grid_length(row.columns["frames"], row.columns["fps"], phase.fps) for row in export.rows]
        longest = max(lengths, default=0)
        if longest < phase.frames:
            return 0, (f"clips of {phase.frames} frames at {phase.fps:g} 1/s: the longest has {longest}",)
    try:
        items = load(recipe, phase, export).train
    except (ValueError, OSError) as error:
        return 0, (str(error).removeprefix(f"phase {phase.name}: "),)
    lacks = []
    if len(items.ids) < phase.batch:
        lacks.append(f"{phase.batch - len(items.ids)} more clips for one batch without repeats")
    if phase.images == "frames":
        chosen = set(items.ids)
        rows = [row.columns for row in export.rows if row.columns["clip_id"] in chosen]
        small = sum(row["width"] < phase.size[0] or row["height"] < phase.size[1] for row in rows)
        if small:
            lacks.append(f"pixels: {small} of {len(rows)} clips would be enlarged")
    return len(items.ids), tuple(lacks)
