"""Several processes that share each batch, by torch.distributed; and which device a process computes on."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from dailies.curation.errors import DeviceError, first_line
from dailies.training.data.world import World


def pick_device(name: str = "auto") -> torch.device:
    """Pick the device ``name``; ``auto`` is this process's GPU where there is one, else the CPU.

    Raises ``DeviceError`` for a device that is not there.
    """
    if name == "cuda" or (name == "auto" and torch.cuda.is_available()):
        name = f"cuda:{os.environ.get('LOCAL_RANK', '0')}"
    try:
        device = torch.device("cpu" if name == "auto" else name)
        torch.empty(1, device=device).cpu()
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise DeviceError(f"device={name}: is not available: {first_line(error)}") from error
    if device.type == "cuda":
        torch.cuda.set_device(device)
    return device


def world() -> World:
    """Return this process's place in its group, which is alone where there is none."""
    if not (dist.is_available() and dist.is_initialized()):
        return World()
    return World(rank=dist.get_rank(), size=dist.get_world_size())


@contextmanager
def process_group(device: torch.device) -> Iterator[World]:
    """Join the processes that torchrun started into one group, and leave it at the end.

    A group that is there already (Ray Train's) is used as it is; a process that nothing started stays alone.
    """
    alone = int(os.environ.get("WORLD_SIZE", "1")) == 1 or (dist.is_available() and dist.is_initialized())
    if alone:
        yield world()
        return
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        yield world()
    finally:
        dist.destroy_process_group()


def ddp(model: nn.Module, device: torch.device, *, skips_weights: bool = False) -> Any:
    """Wrap ``model`` so that the backward pass averages gradients over all processes; a lone process gets it as it is.

    ``skips_weights``: some weights that ask for gradients take no part in a pass.
    """
    if world().size == 1:
        return model
    from torch.nn.parallel import DistributedDataParallel

    devices = [device.index] if device.type == "cuda" else None
    return DistributedDataParallel(model, device_ids=devices, find_unused_parameters=skips_weights)


def no_sync(model: Any) -> AbstractContextManager[None]:
    """Accumulate gradients locally; the next backward pass outside averages them."""
    return model.no_sync() if hasattr(model, "no_sync") else nullcontext()


def all_reduce(value: Tensor) -> Tensor:
    """Sum ``value`` over all processes, in place."""
    if world().size > 1:
        dist.all_reduce(value)
    return value


def all_gather(values: tuple[Any, ...]) -> tuple[Any, ...]:
    """Chain all processes' tuples, in the order of their ranks."""
    if world().size == 1:
        return values
    everyone: list[Any] = [None] * world().size
    dist.all_gather_object(everyone, values)
    return tuple(value for some in everyone for value in some)


def any_rank(here: bool) -> bool:
    """Say whether ``here`` holds in any process: all must leave a loop together, or some would wait forever."""
    if world().size == 1:
        return here
    device = torch.device("cuda") if dist.get_backend() == "nccl" else torch.device("cpu")
    return bool(all_reduce(torch.tensor(int(here), device=device)))


def barrier() -> None:
    """Wait until all processes are here."""
    if world().size > 1:
        dist.barrier()
