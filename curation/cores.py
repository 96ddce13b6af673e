"""How many threads compute, by the cores that other processes leave free.

Threads that share a sum wait for each other by spinning. When another process takes the core of one, all others spin until
that one is back, and a step of training takes several times as long; threads that sleep while they wait slow an idle machine.
As many threads as there are free cores never wait for long. So processes that share a machine from the start compute on
one thread (``ONE_THREAD``), and one that has the machine to itself looks around every two seconds (``Follower``).

What the user sets holds: ``OMP_NUM_THREADS`` or ``MKL_NUM_THREADS``, and a number set in the program.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

# Several children share a machine; and with one thread, sums come out the same however many cores it has.
OPENCV = "OPENCV_FOR_THREADS_NUM"
ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", OPENCV), "1")
CHOSEN = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")  # by which a user says how many threads torch is to have
SECONDS = 2.0  # from one look to the next
STAT = Path("/proc/stat")


def limit_opencv(threads: float) -> None:
    """Let OpenCV compute on so many ``threads`` in this process: it takes all cores, whatever ``OMP_NUM_THREADS`` says."""
    if OPENCV not in os.environ:
        import cv2

        cv2.setNumThreads(max(1, int(threads)))


def usable_cores() -> int:
    """Return on how many threads to compute what takes seconds: those the user chose, else the cores of this process."""
    chosen = next((value for name in CHOSEN if (value := os.environ.get(name, "")).isdigit()), "")
    affinity = getattr(os, "sched_getaffinity", None)  # Linux's
    return int(chosen) or 1 if chosen else len(affinity(0)) if affinity else os.cpu_count() or 1


class Follower:
    """Keeps a library's number of threads at the cores that other processes leave, and never above what it was.

    Where the system does not tell their load, as only Linux does, or the user chose the number, nothing changes.

    Args:
        get: Returns the number of threads.
        set: Sets it.
    """

    def __init__(self, get: Callable[[], int], set: Callable[[int], None]) -> None:
        self._get, self._set = get, set
        self._most = self._now = get()
        follows = STAT.exists() and not any(os.environ.get(name) for name in CHOSEN)
        self._load = Load() if follows else None
        self._note: str | None = None  # where threads are fewer

    def look(self) -> str | None:
        """Set the number by the load since the last look, if that was two seconds ago; say so while it is below the most."""
        if self._load is None or self._load.seconds < SECONDS:
            return self._note
        others = self._load.others()
        if (now := self._get()) != self._now:
            self._most, self._now, self._note = now, now, None
        count = min(self._most, threads_for(self._load.cores, others))
        if count == now:
            return self._note
        self._set(count)
        self._now = count
        note = f"{count} of {self._most} threads: other processes take {others:.1f} of {self._load.cores} cores"
        self._note = note if count < self._most else None
        return self._note


class Load:
    """What other processes take of the cores that this one may use."""

    def __init__(self) -> None:
        self._before = _Times.read()

    @property
    def cores(self) -> int:
        return len(os.sched_getaffinity(0))

    @property
    def seconds(self) -> float:
        """The time since ``others`` was last asked."""
        return time.monotonic() - self._before.wall

    def others(self) -> float:
        """Return how many cores others took on average since this was last asked; this process's own threads are not theirs."""
        before, self._before = self._before, _Times.read()
        wall = self._before.wall - before.wall
        taken = self._before.busy - before.busy - (self._before.own - before.own)
        return max(0.0, taken / wall)


class _Times(NamedTuple):
    """Seconds by the clock, those for which the cores were ``busy``, summed, and those of them for this process."""

    wall: float
    busy: float
    own: float

    @classmethod
    def read(cls) -> _Times:
        busy = busy_seconds(STAT.read_text(encoding="utf-8"), os.sched_getaffinity(0))
        return cls(time.monotonic(), busy, time.process_time())


def busy_seconds(stat: str, cores: set[int]) -> float:
    """Return how long ``cores`` computed, by the text of Linux's /proc/stat; waiting for a disk is not computing."""
    names = {f"cpu{core}" for core in cores}
    rows = (line.split() for line in stat.splitlines())
    # user, nice, system, idle, iowait, irq, softirq, steal; guests' time is counted in user and nice.
    ticks = sum(sum(map(int, row[1:9])) - int(row[4]) - int(row[5]) for row in rows if row and row[0] in names)
    return ticks / os.sysconf("SC_CLK_TCK")


def threads_for(cores: int, others: float) -> int:
    """Return how many threads to compute on where ``others`` of ``cores`` are taken: at least half of them, its fair share."""
    return max(round(cores - others), (cores + 1) // 2)
