"""How fast training goes: FLOPs that are counted, not guessed, and what share of the accelerator's peak they are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from training.batches import Batch
from training.conditioning import Condition
from training.models import VideoUNet
from training.objective import Objective
from training.sample import network

# FLOP/s of dense bfloat16 matrix products, from NVIDIA's data sheets (those that state "with sparsity" halved). The first
# name that is part of torch.cuda.get_device_name() counts, so variants stand before what they are variants of.
PEAKS = {
    "H200 NVL": 835.5e12,  # H200 data sheet: 1671 with sparsity
    "H200": 989e12,  # H200 data sheet, SXM: 1979 with sparsity
    "H100 NVL": 835.5e12,  # H100 data sheet: 1671 with sparsity
    "H100 PCIe": 756e12,  # H100 data sheet: 1513 with sparsity
    "H100": 989e12,  # H100 data sheet, SXM: 1979 with sparsity
    "A100": 312e12,  # A100 data sheet, SXM and PCIe
    "L40S": 362e12,  # L40S data sheet: 733 with sparsity, 362.05 without
}


def peak_of(name: str) -> float | None:
    """Peak FLOP/s of the GPU called ``name``; ``None`` for one that is not in the table."""
    return next((peak for part, peak in PEAKS.items() if part in name), None)


def training_flops(unet: VideoUNet, batch: Batch, objective: Objective) -> int:
    """FLOPs of forward and backward for ``batch``, a product and a sum being two.

    Counted on a copy without memory (the meta device): nothing is computed, and attention is two plain products, where
    fused kernels would be counted differently by each device. What checkpointed levels compute twice counts once, as
    for the MFU of Chowdhery et al. 2022 (arXiv 2204.02311, App. B).
    """

    def bare(tensor: Tensor | None) -> Any:
        return None if tensor is None else torch.empty_like(tensor, device="meta")

    with torch.device("meta"):
        empty = VideoUNet(unet.config)
    tensors = (bare(value) for value in (batch.clean, batch.noise, batch.sigma))
    condition = Condition(**{name: bare(value) for name, value in vars(batch.condition).items()})
    with FlopCounterMode(display=False) as counter:
        objective.loss(network(empty, condition), *tensors).mean().backward()  # type: ignore[no-untyped-call]
    return int(counter.get_total_flops())


@dataclass(frozen=True, kw_only=True)
class Pace:
    """``flops``: of a step. ``samples``: in a step. ``peak``: FLOP/s, where there is one to compare with."""

    flops: int
    samples: int
    peak: float | None = None

    def __call__(self, seconds: float) -> dict[str, float]:
        """What a step of ``seconds`` amounts to: samples/s, TFLOP/s, and the share of the peak (MFU, 0–1)."""
        rate = self.flops / seconds
        said = {"samples_per_second": self.samples / seconds, "tflops_per_second": rate / 1e12}
        return said if self.peak is None else said | {"mfu": rate / self.peak}


def pace(unet: VideoUNet, one: Batch, objective: Objective, samples: int, *, autocast: bool) -> Pace:
    """The pace of steps of ``samples`` samples like the single one in ``one``. Float32 has no MFU: the peaks are bfloat16's."""
    on_gpu = autocast and unet.device.type == "cuda"
    peak = peak_of(torch.cuda.get_device_name(unet.device)) if on_gpu else None
    return Pace(flops=samples * training_flops(unet, one, objective), samples=samples, peak=peak)
