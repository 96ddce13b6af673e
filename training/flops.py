"""Training's speed is measured here: counted FLOPs, and their share of the accelerator's peak."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch.utils.flop_counter import FlopCounterMode

from dailies.training.data.batches import Batch
from dailies.training.diffusion import objective
from dailies.training.diffusion.objective import Objective
from dailies.training.diffusion.sample import bind_condition
from dailies.training.models import VideoUNet
from dailies.training.models.trainable import set_trainable
from dailies.training.recipes.phase import Phase

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
    """Return peak FLOP/s of the GPU called ``name``; ``None`` for one that is not in the table."""
    return next((peak for part, peak in PEAKS.items() if part in name), None)


@dataclass(frozen=True, kw_only=True)
class FlopCount:
    """FLOPs of one pass, a product and a sum being two.

    Args:
        forward: of the forward pass.
        both: of forward and backward pass together.
    """

    forward: int
    both: int


def count_flops(unet: VideoUNet, batch: Batch, how: Objective) -> FlopCount:
    """Count the FLOPs of ``batch`` through ``unet`` by torch's counter; both on the meta device to count without computing.

    There attention is two plain products, where fused kernels would be counted differently by each device. What the
    unet's checkpointed levels compute twice counts twice.
    """
    with FlopCounterMode(display=False) as forward:
        loss = how.loss(bind_condition(unet, batch.condition), batch.clean, batch.noise, batch.sigma).mean()
    with FlopCounterMode(display=False) as backward:
        loss.backward()  # type: ignore[no-untyped-call]
    there = forward.get_total_flops()
    return FlopCount(forward=there, both=there + backward.get_total_flops())


def training_flops(unet: VideoUNet, batch: Batch, how: Objective, phase: Phase | None = None) -> int:
    """Count the FLOPs of forward and backward for ``batch`` on a copy without memory: nothing is computed.

    ``phase``: only what it trains gets a gradient; by default all does. What checkpointed levels compute twice counts
    once, as for the MFU of Chowdhery et al. 2022 (arXiv 2204.02311, App. B).
    """
    with torch.device("meta"):
        empty = VideoUNet(unet.config)
        if phase is not None:
            set_trainable(empty, replace(phase, checkpoint_levels=()))
    return count_flops(empty, batch.to(torch.device("meta")), how).both


@dataclass(frozen=True, kw_only=True)
class Pace:
    """The pace of steps. ``peak``: FLOP/s of all accelerators at work, where there is one to compare with."""

    peak: float | None = None

    def __call__(self, flops: int, samples: int, seconds: float) -> dict[str, float]:
        """Return rates of a step of ``samples`` and ``flops`` in ``seconds``: samples/s, TFLOP/s, and the share of the peak
        (MFU, 0–1)."""
        rate = flops / seconds
        rates = {"samples_per_second": samples / seconds, "tflops_per_second": rate / 1e12}
        return rates if self.peak is None else rates | {"mfu": rate / self.peak}


class StepRates:
    """The pace of a phase's steps. FLOPs are counted once for each shape of sample, and scale with their number."""

    def __init__(
        self, unet: VideoUNet, phase: Phase, device: torch.device, *, autocast: bool, processes: int = 1
    ) -> None:
        self._unet, self._phase, self._processes = unet, phase, processes
        # Float32 has no MFU: the peaks are bfloat16's.
        peak = peak_of(torch.cuda.get_device_name(device)) if autocast and device.type == "cuda" else None
        self._pace = Pace(peak=None if peak is None else processes * peak)
        self._flops_by_shape: dict[torch.Size, int] = {}

    def __call__(self, batches: Sequence[Batch], seconds: float) -> dict[str, float]:
        """Return rates of a step in which each process took as much as ``batches``."""
        flops = 0
        for batch in batches:
            shape = batch.clean.shape[1:]
            if shape not in self._flops_by_shape:
                sample = batch.rows(0, 1)
                self._flops_by_shape[shape] = training_flops(
                    self._unet, sample, objective.of_phase(self._phase), self._phase
                )
            flops += len(batch.clip_ids) * self._flops_by_shape[shape]
        return self._pace(flops * self._processes, self._phase.batch, seconds)
