"""A plan says what a recipe would cost, need and lack, before any work: ``dailies train RECIPE --dry-run``.

Operations are counted, not estimated: each phase's network runs forward and backward on torch's meta device, which
holds shapes and no numbers, under torch's FLOP counter. A multiplication with its addition is 2 FLOP.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch

from dailies.curation.errors import RecipeError, UsageError
from dailies.curation.plain_text import counted
from dailies.training.data.batches import Batch
from dailies.training.data.export import grid_length
from dailies.training.data.split import MAIN, Exports, load
from dailies.training.diffusion import objective
from dailies.training.diffusion.conditioning import Condition
from dailies.training.diffusion.encoders import Models
from dailies.training.flops import count_flops
from dailies.training.models import VideoUNet, is_temporal
from dailies.training.models.trainable import build, set_trainable
from dailies.training.phase_state import check, lacking, net_of
from dailies.training.recipes import DIFFERS
from dailies.training.recipes.phase import Phase
from dailies.training.recipes.recipe import EncoderDims, TrainingRecipe, columns_needed
from dailies.training.run_log import run_hash

TFLOPS = 400.0  # sustained on one GPU, in 10¹² FLOP/s: 40 % of an H100's dense bfloat16 peak of 989, a usual share


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """The cost of one sample through one phase's network.

    Args:
        parameters, temporal: weights of the network, and of its temporal layers.
        trained: weights that get a gradient; images pass no temporal layer.
        forward, both: FLOP without and with the backward pass.
    """

    parameters: int
    temporal: int
    trained: int
    forward: int
    both: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PhasePlan:
    """A plan of what one phase costs, needs and lacks.

    Args:
        clips: those of the export's train split that pass and are long enough; ``None`` where that is unknown.
        slow, short: clips of it that pass but are of a rate below the phase's, or too short for it.
        epochs: over these clips.
        seconds: the least length of a clip.
        gigabytes: on each GPU, see the function ``gigabytes``.
    """

    name: str
    task: str
    frames: int
    fps: float
    trained_fps: tuple[float, ...]
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
    slow: int
    short: int
    epochs: float | None
    lacks: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """A plan of what a recipe costs, needs and lacks.

    Args:
        lacks: what the whole recipe lacks.
        differs: where it departs from its paper.
        notes: what the figures assume.
    """

    recipe: str
    recipe_hash: str
    tflops: float
    phases: tuple[PhasePlan, ...]
    lacks: tuple[str, ...]
    differs: tuple[str, ...]
    notes: tuple[str, ...]


def plan(
    recipe: TrainingRecipe,
    exports: Exports | None = None,
    models: Models | None = None,
    *,
    phase: str | None = None,
    tflops: float = TFLOPS,
) -> Plan:
    """Plan ``recipe``, or its phase ``phase``, over the clips of ``exports`` if there are some. Reads no video and no weight.

    Raises ``RecipeError`` for an unknown phase, ``ModelError`` for a level in ``checkpoint_levels`` that does not exist and
    for models that do not fit.
    """
    chosen = recipe.phases if phase is None else (recipe.phase(phase),)
    models = models or Models()
    missing = lacking(recipe, chosen, models)
    dims = recipe.encoder_dims if missing else check(recipe, chosen, models)
    if dims is None:
        raise RecipeError(
            f"models: {recipe.name} takes its network's shape from its models, and lacks {', '.join(missing)}"
        )
    lacks = (*missing, *(() if exports is not None else ("an export of clips to train on",)))
    return Plan(
        recipe=recipe.name,
        recipe_hash=run_hash(recipe),
        tflops=tflops,
        phases=tuple(_phase_plan(recipe, each, exports, dims, models, tflops) for each in chosen),
        lacks=lacks,
        differs=DIFFERS.get(recipe.name, ()),
        notes=(
            "FLOP forward, and trained (forward and backward): of one sample through the UNet, counted by torch's counter; "
            "VAE and encoders come on top.",
            f"GPU-hours: at {tflops:g} TFLOP/s sustained ({TFLOPS:g} are 40 % of an H100's bfloat16 peak).",
            "GB a GPU: weights and their average, and of what is trained gradients and Adam's two moments, all in float32; "
            "activations come on top, by how many samples a GPU takes at once.",
        ),
    )


def _phase_plan(
    recipe: TrainingRecipe, phase: Phase, exports: Exports | None, dims: EncoderDims, models: Models, tflops: float
) -> PhasePlan:
    spent = cost(recipe, phase, dims, models)
    if phase.pictures:  # some of the samples are pictures
        share = phase.pictures / phase.batch
        alone = replace(
            phase, task="text-to-image", frames=1, buckets=(), image_share=0.0, images="frames", image_path=None
        )
        picture = cost(recipe, alone, dims, models)
        forward, both = (
            round((1 - share) * video + share * still)
            for video, still in ((spent.forward, picture.forward), (spent.both, picture.both))
        )
        spent = replace(spent, forward=forward, both=both)
    samples = phase.steps * phase.batch
    there = Available() if exports is None else available(recipe, phase, exports)
    return PhasePlan(
        name=phase.name,
        task=phase.task,
        frames=phase.frames,
        fps=phase.fps,
        trained_fps=phase.trained_fps,
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
        columns=tuple(columns_needed(recipe, (phase,))),
        seconds=(phase.frames - 1) / max(phase.trained_fps),
        clips=there.clips,
        slow=there.slow,
        short=there.short,
        epochs=samples / there.clips if there.clips else None,
        lacks=there.lacks,
    )


def cost(recipe: TrainingRecipe, phase: Phase, dims: EncoderDims | None = None, models: Models | None = None) -> Cost:
    """Run one sample through the phase's network on the meta device: no memory, a few seconds for a large one.

    What ``checkpoint_levels`` has computed twice counts twice, for it costs GPU-hours; an MFU counts it once. Of a
    phase with buckets, the shape of its ``size`` and ``frames``. Raises ``ModelError`` for a level that does not exist.
    """
    dims = dims or recipe.encoder_dims
    assert dims is not None
    spec, frames = phase.task_spec, () if phase.frames == 1 else (phase.frames,)
    width, height = (side // dims.factor for side in phase.size)
    text = spec.cross_attention == "text"
    width_of_tokens = (dims.text_width if text else dims.image_width) or 0
    tokens = (recipe.text_tokens if text else len(spec.conditioning_frames), width_of_tokens)
    with torch.device("meta"):
        unet = build(phase, net_of(recipe, models or Models()), tokens[1], (height, width))
        set_trainable(unet, phase)
        x = torch.empty(1, *frames, 4, height, width)
        condition = Condition(
            tokens_BLD=torch.empty(1, *tokens),
            added_time_ids_BK=torch.empty(1, spec.num_time_ids) if frames else None,
            image_latents_BSCHW=torch.empty(1, len(spec.conditioning_frames), 4, height, width)
            if spec.conditioning_frames
            else None,
        )
        batch = Batch(clip_ids=("",), clean=x, noise=x, sigma=torch.empty(1), condition=condition)
        spent = count_flops(unet, batch, objective.of_phase(phase))
    return Cost(
        parameters=_count(unet),
        temporal=_count(unet, temporal=True),
        trained=_count(unet, trained=True),
        forward=spent.forward,
        both=spent.both,
    )


def _count(unet: VideoUNet, *, temporal: bool = False, trained: bool = False) -> int:
    """Count weights, or only the temporal ones, or only those that take a gradient."""
    return sum(
        weight.numel()
        for name, weight in unet.named_parameters()
        if (is_temporal(name) or not temporal) and (weight.requires_grad or not trained)
    )


def gigabytes(spent: Cost) -> float:
    """Return the memory in 10⁹ bytes of a GPU that holds the whole UNet in float32, without activations.

    It counts weights and their average and, of what is trained, gradients and Adam's two moments.
    """
    return 4 * (2 * spent.parameters + 3 * spent.trained) / 1e9


@dataclass(frozen=True, kw_only=True)
class Available:
    """What exports hold for a phase; the fields are those of a ``PhasePlan``."""

    clips: int | None = None
    slow: int = 0
    short: int = 0
    lacks: tuple[str, ...] = ()


def available(recipe: TrainingRecipe, phase: Phase, exports: Exports) -> Available:
    """Count the items that the phase would train on, and list what it would still lack."""
    needed = columns_needed(recipe, (phase,))
    used = [exports[share.data] for share in phase.shares if share.data in exports]
    if absent := [name for name in needed if any(name not in export.columns for export in used)]:
        return Available(lacks=tuple(f"column {name}" for name in absent))
    rows = [row.columns for export in used for row in export.rows]
    if phase.images == "frames" and used:
        whole = [row for row in rows if row["frames"] is not None and row["fps"] is not None]
        longest = max((grid_length(row["frames"], row["fps"], max(phase.trained_fps)) for row in whole), default=0)
        least = min(shape.frames for shape in phase.shapes)
        if longest < least:
            lack = f"clips of {least} frames at {phase.fps:g} fps: the longest has {longest}"
            return Available(clips=0, lacks=(lack,))
    try:
        split = load(recipe, phase, exports)
    except (UsageError, OSError) as error:
        return Available(clips=0, lacks=(str(error).removeprefix(f"phase {phase.name}: "),))
    lacks = []
    chosen = set(split.clip_ids)
    if len(chosen) < phase.batch:
        lacks.append(f"{phase.batch - len(chosen)} more clips for one batch without repeats")
    if phase.images == "frames":
        there = [row for row in rows if row["clip_id"] in chosen]
        least_size = [min(shape.size[side] for shape in phase.shapes) for side in (0, 1)]
        small = sum(row["width"] < least_size[0] or row["height"] < least_size[1] for row in there)
        if small:
            lacks.append(f"pixels: {small} of {counted(len(there), 'clip')} would be enlarged")
    return Available(clips=len(chosen), slow=len(split.slow), short=len(split.short), lacks=tuple(lacks))


__all__ = ["MAIN", "Available", "Cost", "PhasePlan", "Plan", "available", "cost", "gigabytes", "plan"]
