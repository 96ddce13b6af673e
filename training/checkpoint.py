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
import os
import pickle
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file

from dailies.curation import inside
from dailies.curation.atomic import new_folder, write_text
from dailies.curation.errors import FULL, Damaged, Outage, Unsafe, system_errno
from dailies.training.models.lora import lora_weights, merge_lora, save_lora

UNETS = ("unet", "unet_ema")  # the folders of weights in a phase's checkpoint
LORA = "lora"
SAFETENSORS = ".safetensors"
WEIGHTS = "diffusion_pytorch_model.safetensors"
_STEP = re.compile(r"step-\d+", re.ASCII)


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
    parts: Sequence[str] = UNETS,
) -> Path:
    """Write the checkpoint of ``step`` into ``folder``, remove those older than the ``keep`` newest, and return its path.

    Later ones, which can only be damaged ones that the run did not go on from, are removed too.

    Args:
        write: Puts the weights into the folder it gets, and returns what ``state.pt`` is to hold besides.
        facts: What the run's JSON says at this step. It is kept here too, because a kill may come between the two.
        parts: Folders of weights that ``write`` makes, or files of them, which end in ``.safetensors``.
    """
    final = folder / step_name(step)
    if not os.path.lexists(final) or damage(final, parts) is not None:
        with new_folder(final) as hidden:
            more = write(hidden)
            for written in hidden.rglob(f"*{SAFETENSORS}"):
                written.chmod(0o644)  # safetensors writes 0600
            state = {"step": step, "optimizer": optimizer.state_dict(), "facts": dict(facts or {}), **more}
            with open(hidden / "state.pt", "wb") as file:  # a file of ours, whose OSError says why it cannot be written
                torch.save(state, file)
    write_text(folder / "latest", final.name)
    there = [path for path in _by_step(folder) if step_of(path) <= step]
    for other in {*_by_step(folder)} - {*there[-keep:]}:
        inside.remove_tree(folder, other.name)
    return final


def latest(folder: Path, parts: Sequence[str], say: Callable[[str], None]) -> Path | None:
    """Return the newest whole checkpoint in ``folder``, ``None`` where there is none at all; say which are damaged.

    Raises ``Damaged`` where there are only damaged ones: a run does not begin anew unasked.
    """
    problems = []
    for path in reversed(_by_step(folder)):
        problem = damage(path, parts)
        if problem is None:
            return path
        problems.append(f"{path}: {problem}")
        say(f"{problems[-1]}; the checkpoint before it is taken")
    if problems:
        raise Damaged(f"{problems[0]}, and no other checkpoint is whole; remove {folder} to train this from its start")
    return None


def damage(path: Path, parts: Sequence[str]) -> str | None:
    """Say what is wrong with the checkpoint at ``path``: a file that is missing, empty or cut; ``None`` for a whole one.

    Weights are not read, but for their headers, which know how long the file is.
    """
    file = path / "state.pt"
    try:
        inside.inside_whole(path.parent, path.name)  # what follows opens files by their paths
        if not {"step", "optimizer"} <= torch.load(file, map_location="cpu", weights_only=True, mmap=True).keys():
            return f"{file.name} is no state of a checkpoint"
        for part in parts:
            file = path / part if part.endswith(SAFETENSORS) else path / part / WEIGHTS
            with safe_open(file, "pt"):
                pass
    except FileNotFoundError:
        return f"{file.relative_to(path)} is missing"
    except Unsafe as error:
        return str(error)
    except (RuntimeError, ValueError, EOFError, AttributeError, pickle.UnpicklingError, SafetensorError):
        return f"{file.relative_to(path)} is empty or cut"
    return None


def step_of(path: Path) -> int:
    """Return the step of the checkpoint at ``path``."""
    return int(path.name.removeprefix("step-"))


def newest_step(folder: Path) -> int:
    """Return the step of the newest checkpoint in ``folder``, whole or not; 0 where there is none."""
    return max(map(step_of, _by_step(folder)), default=0)


def _by_step(folder: Path) -> list[Path]:
    return sorted((path for path in folder.glob("step-*") if _STEP.fullmatch(path.name)), key=step_of)


@contextmanager
def explain_full_disk(folder: Path) -> Iterator[None]:
    """Raise ``Outage`` for a file that could not be written for want of space; what was begun is removed by then."""
    try:
        yield
    except (OSError, RuntimeError, SafetensorError) as error:
        if not any(system_errno(each) in FULL for each in _chain(error)):
            raise
        raise Outage(
            f"out={folder}: the disk is full; free some of it, and the same command goes on from the last checkpoint"
        ) from error


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


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
