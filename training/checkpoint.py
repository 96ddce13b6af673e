"""Checkpoints: a folder per step, written aside and renamed, so that one that has its name is whole.

::

    RUN/phases/NAME/step-000200/unet/ unet_ema/     diffusers folders, safetensors, float32; adapters merged into them
    RUN/phases/NAME/step-000200/lora.safetensors    the averaged adapters alone, where a phase trains such
    RUN/phases/NAME/step-000200/state.pt            optimizer, step, adapters
    RUN/phases/NAME/latest                          "step-000200"

No state of a random generator is kept: every draw follows from (seed, position).
"""

from __future__ import annotations

import copy
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from dailies.training.models.lora import lora_weights, merge_lora

LORA = "lora.safetensors"
WEIGHTS = "diffusion_pytorch_model.safetensors"


def step_name(step: int) -> str:
    return f"step-{step:06d}"


def write_text(path: Path, text: str) -> None:
    """The file appears whole or not at all."""
    aside = path.with_name(f".part-{os.getpid()}-{path.name}")
    aside.write_text(text, encoding="utf-8")
    os.replace(aside, path)


def save(
    folder: Path,
    step: int,
    unet: Any,
    ema: Any,
    optimizer: torch.optim.Optimizer,
    *,
    keep: int = 2,
    facts: Mapping[str, Any] | None = None,
) -> Path:
    """Write the checkpoint of ``step`` under a phase's ``folder`` and forget those older than the ``keep`` newest.

    ``facts``: what of run.json belongs to the step, kept here too because a kill may come between the two.
    """
    final = folder / step_name(step)
    if not final.exists():
        aside = folder / f".part-{os.getpid()}-{final.name}"
        shutil.rmtree(aside, ignore_errors=True)
        adapters = {"unet": lora_weights(unet), "unet_ema": lora_weights(ema)}
        for name, model in (("unet", unet), ("unet_ema", ema)):
            (merge_lora(copy.deepcopy(model)) if adapters[name] else model).save_pretrained(aside / name)
        if adapters["unet_ema"]:
            # By peft's names, which do not say what an adapter is called within a model.
            kept = {name.replace(".default.", "."): value.contiguous() for name, value in adapters["unet_ema"].items()}
            save_file(kept, aside / LORA, metadata={"format": "pt"})
        for written in aside.rglob("*.safetensors"):
            written.chmod(0o644)  # safetensors writes 0600
        state = {"step": step, "optimizer": optimizer.state_dict(), "adapters": adapters, "facts": dict(facts or {})}
        torch.save(state, aside / "state.pt")
        os.replace(aside, final)
    write_text(folder / "latest", final.name)
    for old in _by_step(folder)[:-keep]:
        shutil.rmtree(old)
    return final


def latest(folder: Path) -> Path | None:
    """The newest whole checkpoint of a phase, ``None`` where there is none. Half-written ones of dead runs are
    removed."""
    if not folder.exists():
        return None
    for left in folder.glob(".part-*"):
        if left.is_dir():
            shutil.rmtree(left)
        else:
            left.unlink()
    whole = _by_step(folder)
    return whole[-1] if whole else None


def _by_step(folder: Path) -> list[Path]:
    return sorted(folder.glob("step-*"), key=lambda path: int(path.name.removeprefix("step-")))


def restore(path: Path, unet: Any, ema: Any, optimizer: torch.optim.Optimizer) -> tuple[int, dict[str, Any]]:
    """Load weights and optimizer in place; returns the number of steps done and the facts kept with them.

    Adapters are put onto the weights that the phase started from, which are not in the checkpoint by themselves.
    """
    state = torch.load(path / "state.pt", map_location="cpu", weights_only=True)
    adapters = state.get("adapters", {})
    for name, model in (("unet", unet), ("unet_ema", ema)):
        if adapters.get(name):
            model.load_state_dict(adapters[name], strict=False)
        else:
            model.load_state_dict(load_file(path / name / WEIGHTS))
    optimizer.load_state_dict(state["optimizer"])
    return int(state["step"]), state.get("facts", {})
