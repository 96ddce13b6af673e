"""Checkpoints: a folder per step, written aside and renamed, so that one that has its name is whole.

::

    RUN/phases/NAME/step-000200/unet/ unet_ema/     diffusers folders, safetensors, float32
    RUN/phases/NAME/step-000200/state.pt            optimizer, step, extra
    RUN/phases/NAME/latest                          "step-000200"

No state of a random generator is kept: every draw follows from (seed, position).
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

WEIGHTS = "diffusion_pytorch_model.safetensors"


def step_name(step: int) -> str:
    return f"step-{step:06d}"


def write_text(path: Path, text: str) -> None:
    """The file appears whole or not at all."""
    aside = path.with_name(f".part-{os.getpid()}-{path.name}")
    aside.write_text(text, encoding="utf-8")
    os.replace(aside, path)


def save(folder: Path, step: int, unet: Any, ema: Any, optimizer: torch.optim.Optimizer, *, keep: int = 2) -> Path:
    """Write the checkpoint of ``step`` under a phase's ``folder`` and forget those older than the ``keep`` newest."""
    final = folder / step_name(step)
    if not final.exists():
        aside = folder / f".part-{os.getpid()}-{final.name}"
        shutil.rmtree(aside, ignore_errors=True)
        unet.save_pretrained(aside / "unet")
        ema.save_pretrained(aside / "unet_ema")
        for written in aside.rglob("*.safetensors"):
            written.chmod(0o644)  # safetensors writes 0600
        torch.save({"step": step, "optimizer": optimizer.state_dict()}, aside / "state.pt")
        os.replace(aside, final)
    write_text(folder / "latest", final.name)
    for old in sorted(folder.glob("step-*"))[:-keep]:
        shutil.rmtree(old)
    return final


def latest(folder: Path) -> Path | None:
    """The newest whole checkpoint of a phase, ``None`` where there is none. Half-written ones of dead runs are removed."""
    if not folder.exists():
        return None
    for left in folder.glob(".part-*"):
        if left.is_dir():
            shutil.rmtree(left)
        else:
            left.unlink()
    whole = sorted(folder.glob("step-*"))
    return whole[-1] if whole else None


def restore(path: Path, unet: Any, ema: Any, optimizer: torch.optim.Optimizer) -> int:
    """Load weights and optimizer in place; returns the number of steps done."""
    unet.load_state_dict(load_file(path / "unet" / WEIGHTS))
    ema.load_state_dict(load_file(path / "unet_ema" / WEIGHTS))
    state = torch.load(path / "state.pt", map_location="cpu", weights_only=True)
    optimizer.load_state_dict(state["optimizer"])
    return int(state["step"])
