"""A plan says what finetuning a temporal decoder would cost, need and lack, before any work: ``dailies train vae --dry-run``.

Operations are counted, not estimated: the VAE runs forward and backward on torch's meta device, which holds shapes and no
numbers, under torch's FLOP counter. A multiplication with its addition is 2 FLOP.
"""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKLTemporalDecoder
from torch.utils.flop_counter import FlopCounterMode

from dailies.curation.errors import ExportError
from dailies.training.data.export import Export
from dailies.training.models.vae.io import vae_config
from dailies.training.vae.objective import losses, trainable_params
from dailies.training.vae.recipe import VaeRecipe
from dailies.training.vae.task import check_start
from dailies.training.vae.windows import NEEDED, split


@dataclass(frozen=True, slots=True, kw_only=True)
class VaePlan:
    """A plan of what a recipe takes from a VAE and an export.

    ``parameters``: weights of the whole VAE; ``trained``: those that change. ``windows``: seen in all steps. ``tflop``: of one
    window, encoded, decoded and passed backward, in 10¹² FLOP; ``pflop``: of all, in 10¹⁵. ``gigabytes``: 10⁹ bytes on each
    device, without activations. ``clips``: of the train split that serve, ``None`` without an export; ``epochs`` over them.
    ``lacks``: what is still missing.
    """

    trains: str
    steps: int
    batch: int
    frames: int
    fps: float | None
    size: tuple[int, int]
    lr: float
    parameters: int
    trained: int
    windows: int
    tflop: float
    pflop: float
    gigabytes: float
    columns: tuple[str, ...]
    clips: int | None
    epochs: float | None
    lacks: tuple[str, ...]
    notes: tuple[str, ...]


def plan_vae(start: str | Path, export: Export | None, recipe: VaeRecipe) -> VaePlan:
    """Plan finetuning the VAE in folder ``start`` on ``export``, if given. Reads no video and no weight.

    Raises ``ModelError`` where ``start`` holds no VAE, or none that takes the recipe's size.
    """
    check_start(start, recipe)
    vae = _empty(start)
    chosen = trainable_params(vae, recipe.trains)
    parameters = sum(weight.numel() for weight in vae.parameters())
    trained = sum(weight.numel() for _, weight in chosen)
    flop, windows = count_flop(vae, recipe), recipe.steps * recipe.batch
    clips, lacks, notes = _available(export, recipe)
    return VaePlan(
        trains=recipe.trains,
        steps=recipe.steps,
        batch=recipe.batch,
        frames=recipe.frames,
        fps=recipe.fps,
        size=recipe.size,
        lr=recipe.lr,
        parameters=parameters,
        trained=trained,
        windows=windows,
        tflop=flop / 1e12,
        pflop=windows * flop / 1e15,
        gigabytes=4 * (parameters + 3 * trained) / 1e9,
        columns=NEEDED,
        clips=clips,
        epochs=windows / clips if clips else None,
        lacks=lacks,
        notes=(
            *notes,
            "FLOP: of one window encoded, decoded and passed backward, counted by torch's counter.",
            "GB: weights, and of what is trained gradients and Adam's two moments, all in float32; activations of one window "
            "come on top.",
        ),
    )


def _empty(start: str | Path) -> Any:
    """Make the temporal VAE that ``start`` becomes, without memory."""
    _, config = vae_config(start)
    known = set(inspect.signature(AutoencoderKLTemporalDecoder.__init__).parameters)
    with torch.device("meta"):
        vae = AutoencoderKLTemporalDecoder(**{name: value for name, value in config.items() if name in known})
    return vae.to("meta")  # its blends are made on the CPU all the same


def count_flop(vae: Any, recipe: VaeRecipe) -> int:
    """Count the FLOP of one window through ``vae``, which lies on the meta device."""
    width, height = recipe.size
    x = torch.empty(recipe.frames, 3, height, width, device="meta")
    with FlopCounterMode(display=False) as counter:
        with torch.no_grad():
            latents = vae.encode(x).latent_dist.mean
        out = vae.decode(latents.requires_grad_(), num_frames=len(x)).sample
        sum(losses(out[None], x[None]).values()).backward()  # type: ignore[union-attr]
    total: int = counter.get_total_flops()
    return total


def _available(export: Export | None, recipe: VaeRecipe) -> tuple[int | None, tuple[str, ...], tuple[str, ...]]:
    """Return how many clips ``export`` has to train on, what it lacks, and notes on how they were chosen."""
    if export is None:
        return None, ("an export of clips to train on (--data)",), ()
    try:
        train, _, notes = split(export, recipe)
    except ExportError as error:
        return 0, (str(error),), ()
    short = recipe.batch - len(train)
    lacks = (f"{short} more clips for one batch without repeats",) if short > 0 else ()
    return len(train), lacks, notes
