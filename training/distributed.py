"""Several processes that share each batch, by torch.distributed; and which device a process computes on."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from dailies.curation.errors import DeviceError
from dailies.training.data.schedule import Ranks


def pick_device(name: str = "auto") -> torch.device:
    """``auto``: this process's GPU where there is one, else the CPU. Raises ``DeviceError`` for a device that is not
    there."""
    if name == "cuda" or (name == "auto" and torch.cuda.is_available()):
        name = f"cuda:{os.environ.get('LOCAL_RANK', '0')}"
    try:
        device = torch.device("cpu" if name == "auto" else name)
        torch.empty(1, device=device).cpu()
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise DeviceError(f"device: {name!r} is not there: {str(error).splitlines()[0]}") from error
    if device.type == "cuda":
        torch.cuda.set_device(device)
    return device


def ranks() -> Ranks:
    """This process among those of its group: alone where there is none."""
    if not (dist.is_available() and dist.is_initialized()):
        return Ranks()
    return Ranks(rank=dist.get_rank(), count=dist.get_world_size())


@contextmanager
def joined(device: torch.device) -> Iterator[Ranks]:
    """Within it the processes that torchrun started are one group; alone where it started none. A group that is there
    (Ray Train's) is used as it is."""
    alone = int(os.environ.get("WORLD_SIZE", "1")) == 1 or (dist.is_available() and dist.is_initialized())
    if alone:
        yield ranks()
        return
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        yield ranks()
    finally:
        dist.destroy_process_group()


def wrapped(unet: nn.Module, device: torch.device) -> Any:
    """``unet`` with gradients averaged over all processes as they are worked out; itself where there is one."""
    if ranks().count == 1:
        return unet
    from torch.nn.parallel import DistributedDataParallel

    return DistributedDataParallel(unet, device_ids=[device.index] if device.type == "cuda" else None)


def apart(unet: Any) -> Any:
    """Within it gradients are kept, not averaged: the next pass outside averages them all."""
    return unet.no_sync() if hasattr(unet, "no_sync") else nullcontext()


def total(value: Tensor) -> Tensor:
    """The sum over all processes."""
    if ranks().count > 1:
        dist.all_reduce(value)
    return value


def gathered(names: tuple[str, ...]) -> tuple[str, ...]:
    """All processes' names, in their order."""
    if ranks().count == 1:
        return names
    everyone: list[Any] = [None] * ranks().count
    dist.all_gather_object(everyone, names)
    return tuple(name for some in everyone for name in some)


def anyone(here: bool) -> bool:
    """Whether it is so in any process: all must leave a loop together, or some would wait for ever."""
    if ranks().count == 1:
        return here
    device = torch.device("cuda") if dist.get_backend() == "nccl" else torch.device("cpu")
    return bool(total(torch.tensor(int(here), device=device)))


def wait() -> None:
    """Until all processes are here."""
    if ranks().count > 1:
        dist.barrier()
