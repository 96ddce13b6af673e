"""Checkpoints: a folder per step that appears whole or not at all, beside the name of the newest one.

::

    FOLDER/step-000200/state.pt                     step, optimizer, what the run's JSON said, and what a task adds
    FOLDER/step-000200/…                            the task's weights, as folders in diffusers' format
    FOLDER/latest                                   "step-000200"

Of a phase's UNet, FOLDER being RUN/phases/NAME::

    step-000200/unet/ unet_ema/     diffusers folders, safetensors, float32; adapters merged into them
    step-000200/lora/               the averaged adapters alone, in peft's format, where a phase trains such
    step-000200/state.pt            adapters too

No state of a random generator is kept: every draw follows from (seed, position).
"""

from __future__ import annotations

import copy
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from dailies.curation.atomic import new_folder, write_text
from dailies.training.models.lora import lora_weights, merge_lora, save_lora

LORA = "lora"
WEIGHTS = "diffusion_pytorch_model.safetensors"


def step_name(step: int) -> str:
    return f"step-{step:06d}"


def save(
    folder: Path,
    step: int,
    write: Callable[[Path], Mapping[str, Any]],
    optimizer: torch.optim.Optimizer,
    *,
    keep: int = 2,
    facts: Mapping[str, Any] | None = None,
) -> Path:
    """Write the checkpoint of ``step`` into ``folder``, remove those older than the ``keep`` newest, and return its path.

    Args:
        write: Puts the weights into the folder it gets, and returns what ``state.pt`` is to hold besides.
        facts: What the run's JSON says at this step. It is kept here too, because a kill may come between the two.
    """
    final = folder / step_name(step)
    if not final.exists():
        with new_folder(final) as hidden:
            more = write(hidden)
            for written in hidden.rglob("*.safetensors"):
                written.chmod(0o644)  # safetensors writes 0600
            state = {"step": step, "optimizer": optimizer.state_dict(), "facts": dict(facts or {}), **more}
            torch.save(state, hidden / "state.pt")
    write_text(folder / "latest", final.name)
    for old in _by_step(folder)[:-keep]:
        shutil.rmtree(old)
    return final


def latest(folder: Path) -> Path | None:
    """Return the newest whole checkpoint in ``folder``, ``None`` where there is none."""
    whole = _by_step(folder)
    return whole[-1] if whole else None


def _by_step(folder: Path) -> list[Path]:
    return sorted(folder.glob("step-*"), key=lambda path: int(path.name.removeprefix("step-")))


def load_state(path: Path) -> dict[str, Any]:
    """Read the ``state.pt`` of the checkpoint at ``path``."""
    state: dict[str, Any] = torch.load(path / "state.pt", map_location="cpu", weights_only=True)
    return state


# ---- a phase's UNet and its average ---------------------------------------------------------------------------------


def write_unet(path: Path, unet: Any, ema: Any) -> dict[str, Any]:
    """Write the weights of ``unet`` and its average into ``path``, and return their adapters for ``state.pt``."""
    adapters = {"unet": lora_weights(unet), "unet_ema": lora_weights(ema)}
    for name, model in (("unet", unet), ("unet_ema", ema)):
        (merge_lora(copy.deepcopy(model)) if adapters[name] else model).save_pretrained(path / name)
    if adapters["unet_ema"]:
        save_lora(ema, adapters["unet_ema"], path / LORA)
    return {"adapters": adapters}


def restore_unet(path: Path, unet: Any, ema: Any, optimizer: torch.optim.Optimizer) -> tuple[int, dict[str, Any]]:
    """Load weights and optimizer in place, and return the number of steps done and the facts kept with them.

    Adapters are put onto the weights that the phase started from, which are not in the checkpoint by themselves.
    """
    state = load_state(path)
    adapters = state.get("adapters", {})
    for name, model in (("unet", unet), ("unet_ema", ema)):
        if adapters.get(name):
            model.load_state_dict(adapters[name], strict=False)
        else:
            model.load_state_dict(load_file(path / name / WEIGHTS))
    optimizer.load_state_dict(state["optimizer"])
    return int(state["step"]), state.get("facts", {})
