"""A plan says what finetuning a captioner would take and lack, before any work: ``dailies train captioner --dry-run``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from dailies.curation import inside
from dailies.curation.config import read_object
from dailies.curation.downloads import quiet_loading
from dailies.curation.errors import Damaged, ExportError
from dailies.curation.openclip import openclip_folder
from dailies.training.captioner.pairs import split_pairs
from dailies.training.captioner.recipe import CaptionerRecipe
from dailies.training.captioner.starts import Start
from dailies.training.captioner.video_language import add_adapters, of_vision
from dailies.training.data.export import Export

FLOAT, BFLOAT = 4, 2  # bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class CaptionerPlan:
    """A plan of what a recipe takes from a model and an export.

    ``parameters``: weights of the whole model; ``trained``: those that learn. ``samples``: clips seen in all steps.
    ``gigabytes``: 10⁹ bytes on each device, without activations. ``clips``: of the train split that have a caption, and
    ``held_out`` those that may be measured; ``None`` without an export; ``epochs`` over the first. ``lacks``: what is still
    missing.
    """

    kind: str
    trains: str
    steps: int
    batch: int
    frames: int
    lr: float
    parameters: int
    trained: int
    samples: int
    gigabytes: float
    columns: tuple[str, ...]
    clips: int | None
    held_out: int | None
    epochs: float | None
    lacks: tuple[str, ...]
    notes: tuple[str, ...]


def plan_captioner(start: Start, export: Export | None, recipe: CaptionerRecipe) -> CaptionerPlan:
    """Plan finetuning ``start`` on ``export``, if given. Reads no video and no weight."""
    model = _empty(start)
    parameters = sum(weight.numel() for weight in model.parameters())
    trained = _trained(model, start, recipe)
    clips, held_out, lacks, notes = _available(export, recipe)
    samples = recipe.steps * recipe.batch
    still = FLOAT if recipe.frozen == "fp32" else BFLOAT
    averages = FLOAT if recipe.ema else 0
    return CaptionerPlan(
        kind=start.kind,
        trains=recipe.trains,
        steps=recipe.steps,
        batch=recipe.batch,
        frames=1 if start.kind == "coca" else recipe.frames,
        lr=recipe.lr,
        parameters=parameters,
        trained=trained,
        samples=samples,
        gigabytes=(still * (parameters - trained) + (4 * FLOAT + averages) * trained) / 1e9,
        columns=(recipe.caption,),
        clips=clips,
        held_out=held_out,
        epochs=samples / clips if clips else None,
        lacks=lacks,
        notes=(
            *notes,
            "GB: weights, and of what learns gradients and Adam's two moments in float32; activations come on top.",
        ),
    )


def _empty(start: Start) -> Any:
    """Make the model that ``start`` names on the meta device, which holds shapes and no numbers."""
    with torch.device("meta"):
        if start.kind == "coca":
            return _empty_coca(start)
        import transformers

        with quiet_loading("transformers"):
            config = transformers.AutoConfig.from_pretrained(start.name, local_files_only=True)
            return transformers.AutoModelForImageTextToText.from_config(config)


def _empty_coca(start: Start) -> Any:
    import open_clip
    from open_clip.coca_model import CoCa

    if start.folder is None:
        config: dict[str, Any] = dict(open_clip.get_model_config(start.name.partition(":")[0]) or {})
    else:
        path = start.folder / openclip_folder.CONFIG
        config = read_object(inside.read_named(path), f"{path}:", Damaged)["model_cfg"]
    return CoCa(**{name: value for name, value in config.items() if name != "custom_text"})


def _trained(model: Any, start: Start, recipe: CaptionerRecipe) -> int:
    if start.kind == "coca":
        model.visual.requires_grad_(recipe.vision)
    elif recipe.trains == "lora":
        add_adapters(model, recipe.rank)
    else:
        for name, weight in model.named_parameters():
            weight.requires_grad_(recipe.vision or not of_vision(name))
    return sum(weight.numel() for weight in model.parameters() if weight.requires_grad)


def _available(
    export: Export | None, recipe: CaptionerRecipe
) -> tuple[int | None, int | None, tuple[str, ...], tuple[str, ...]]:
    """Return how many clips there are to train on and held out, what is missing, and notes on how they were chosen."""
    if export is None:
        return None, None, ("an export of clips to train on (--data)",), ()
    try:
        split = split_pairs(export, recipe)
    except ExportError as error:
        return 0, 0, (str(error),), ()
    short = recipe.batch - len(split.train)
    lacks = (f"{short} more clips for one batch without repeats",) if short > 0 else ()
    return len(split.train), len(split.held_out), lacks, split.notes
