"""What this machine gives a process: cores and memory, which a container may limit, disks and limits."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

CGROUP = Path("/sys/fs/cgroup")
SHARED = Path("/dev/shm")
SMI_SECONDS = 10.0  # for the driver to answer


@dataclass(frozen=True, slots=True, kw_only=True)
class Disk:
    """A place that is written to, and the room there, in bytes."""

    what: str
    path: str
    free: int
    total: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """``cores`` that may be used, of which a quota may leave a fraction; memory in bytes, ``None`` where it is unknown.

    ``open_files``: how many this process may hold open.
    """

    cores: float
    memory: int | None
    memory_free: int | None
    open_files: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Gpu:
    """``memory`` in bytes; ``driver``: its version, ``None`` where only torch tells of the GPU."""

    name: str
    memory: int
    driver: str | None = None


def look(root: Path = CGROUP) -> Machine:
    """Return what this process may use. ``root``: where the system shows control groups."""
    import resource

    open_files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    total, free = _memory()
    limit, used = _cgroup_memory(root)
    if limit is not None and (total is None or limit < total):
        total, free = limit, min(limit - (used or 0), limit if free is None else free)
    return Machine(cores=_cores(root), memory=total, memory_free=free, open_files=open_files)


def disks(cache: Path) -> tuple[Disk, ...]:
    """Return the working directory, the folder of temporary files, the ``cache`` and the shared memory."""
    places = {"here": Path.cwd(), "temporary files": Path(tempfile.gettempdir()), "cache": cache}
    if SHARED.is_dir():
        places["shared memory"] = SHARED
    return tuple(disk_of(what, path) for what, path in places.items())


def disk_of(what: str, path: Path) -> Disk:
    """Return the room at a place, which need not exist yet."""
    there = next(place for place in (path, *path.absolute().parents) if place.exists())
    usage = shutil.disk_usage(there)
    return Disk(what=what, path=str(path), free=usage.free, total=usage.total)


def nvidia_gpus() -> list[Gpu]:
    """Return the GPUs that NVIDIA's driver tells of, none where there is no driver or it does not answer."""
    command = ["nvidia-smi", "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=SMI_SECONDS, check=True)
    except (OSError, subprocess.SubprocessError):
        return []
    rows = [[cell.strip() for cell in line.rsplit(",", 2)] for line in done.stdout.splitlines()]
    return [
        Gpu(name=row[0], memory=int(row[1]) << 20 if row[1].isdigit() else 0, driver=row[2])
        for row in rows
        if len(row) == 3
    ]


# ---- control groups -------------------------------------------------------------------------------------------------


def _cores(root: Path) -> float:
    cores = float(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)
    quota, period = _words(root / "cpu.max"), ["100000"]
    if not quota:  # version 1 has a file for each
        quota, period = _words(root / "cpu/cpu.cfs_quota_us"), _words(root / "cpu/cpu.cfs_period_us")
    of = [*quota[1:], *period]
    if quota and of and quota[0].isdigit() and of[0].isdigit() and int(of[0]):
        cores = min(cores, int(quota[0]) / int(of[0]))
    return cores


def _cgroup_memory(root: Path) -> tuple[int | None, int | None]:
    """Return the limit in bytes, ``None`` without one, and how much of it is used."""
    for limit, used in (
        ("memory.max", "memory.current"),
        ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes"),
    ):
        values = [
            int(parts[0]) if parts and parts[0].isdigit() else None
            for parts in map(_words, (root / limit, root / used))
        ]
        if values[0] is not None:
            return values[0], values[1]
    return None, None


def _memory() -> tuple[int | None, int | None]:
    try:
        rows = dict(line.split(":", 1) for line in Path("/proc/meminfo").read_text().splitlines() if ":" in line)
        return tuple(int(rows[name].split()[0]) << 10 for name in ("MemTotal", "MemAvailable"))  # type: ignore[return-value]
    except (OSError, KeyError, ValueError):
        names = os.sysconf_names
        if {"SC_PHYS_PAGES", "SC_PAGE_SIZE"} <= set(names):
            return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"), None
        return None, None


def _words(file: Path) -> list[str]:
    try:
        return file.read_text().split()
    except OSError:
        return []
