"""What torch finds on this machine to compute on."""

from __future__ import annotations

import torch


def build() -> tuple[str, str | None]:
    """Return torch's version, and of which CUDA or ROCm it was built with, ``None`` for a build that has the CPU alone."""
    platforms = {"CUDA": torch.version.cuda, "ROCm": torch.version.hip}
    return torch.__version__, next((f"{name} {number}" for name, number in platforms.items() if number), None)


def gpus() -> list[tuple[str, int]]:
    """Return name and memory in bytes of each GPU that torch can use."""
    if not torch.cuda.is_available():
        return []
    rows = map(torch.cuda.get_device_properties, range(torch.cuda.device_count()))
    return [(each.name, each.total_memory) for each in rows]
