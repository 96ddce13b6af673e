"""What of this machine a run may take: CPUs, memory and GPUs, as the scheduler and a container's limits leave them."""

from __future__ import annotations

import math
import os
from pathlib import Path

CGROUPS = Path("/sys/fs/cgroup")  # a container's limits stand here; version 2 has no folder for each resource
MEMINFO = Path("/proc/meminfo")


def cpus() -> int:
    """Return how many CPUs this process may use at once, at least one."""
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota, period = _quota()
    return max(1, min(count, math.ceil(quota / period) if quota > 0 else count))


def free_memory() -> float:
    """Return how many GB of memory are free here for more processes."""
    free = _meminfo()
    limit = _number("memory.max") or _number("memory/memory.limit_in_bytes")
    used = _number("memory.current") or _number("memory/memory.usage_in_bytes")
    if limit:
        free = min(free, limit - used + _cached())
    return free / 1e9


def gpus() -> int:
    """Return how many NVIDIA GPUs this process sees, without a library that would open them."""
    if (visible := os.environ.get("CUDA_VISIBLE_DEVICES")) is not None:
        return len([name for name in visible.split(",") if name.strip() not in ("", "-1")])
    return len(list(Path("/dev").glob("nvidia[0-9]*")))


def _meminfo() -> float:
    for line in _text(MEMINFO).splitlines():
        if line.startswith("MemAvailable:"):
            return float(line.split()[1]) * 1024
    return float(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))  # macOS does not say


def _quota() -> tuple[float, float]:
    """Return the CPU time that a container may take in a period; no limit is 0."""
    if parts := _text(CGROUPS / "cpu.max").split():
        return (0.0 if parts[0] == "max" else float(parts[0])), float(parts[1])
    return _number("cpu/cpu.cfs_quota_us"), _number("cpu/cpu.cfs_period_us") or 1.0


def _cached() -> float:
    """Return how much of what a container uses are pages of files, which the kernel gives up."""
    lines = (_text(CGROUPS / "memory.stat") or _text(CGROUPS / "memory/memory.stat")).splitlines()
    stored = dict(line.rsplit(" ", 1) for line in lines)
    return float(stored.get("total_inactive_file", stored.get("inactive_file", 0)))


def _number(name: str) -> float:
    text = _text(CGROUPS / name).strip()
    return 0.0 if text in ("", "max") else float(text)


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
