"""How cameras move."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from scripts.builtin.footage.material import Rng, log_uniform


def path(rng: Rng) -> Callable[[float], tuple[float, float, float, float]]:
    """A camera: seconds → offset x, y (of the frame's height), log zoom, turn (radians)."""
    kind = str(
        rng.choice(["still", "hand", "pan", "zoom", "shake", "whip", "fly"], p=[0.2, 0.17, 0.19, 0.13, 0.1, 0.11, 0.1])
    )
    vx = vy = vz = vr = 0.0
    angle, speed = rng.uniform(0, math.tau), log_uniform(rng, 0.02, 2.5)
    if kind in ("pan", "fly"):
        vx, vy = speed * math.cos(angle), 0.4 * speed * math.sin(angle)
    if kind in ("zoom", "fly"):
        vz = float(rng.choice([-1, 1])) * log_uniform(rng, 0.03, 1.5)
    if kind == "fly":
        vr = float(rng.normal(0, 0.2))
    sway = {"hand": log_uniform(rng, 0.002, 0.02), "shake": log_uniform(rng, 0.01, 0.06), "fly": 0.004}.get(kind, 0.0)
    hertz = rng.uniform(0.4, 2.5, (4, 3)) if kind != "shake" else rng.uniform(1.5, 9.0, (4, 3))
    phases = rng.uniform(0, math.tau, (4, 3))
    # Turns of the camera, one after the other, each within a fraction of a second or two.
    whips = [(rng.uniform(0, 8), *rng.normal(0, (1.5, 0.5, 0.4)), log_uniform(rng, 0.15, 2)) for _ in range(3)]
    pace = pace_of(rng)

    def at(t: float) -> tuple[float, float, float, float]:
        t = pace(t)
        s = np.sin(math.tau * hertz * t + phases).sum(axis=1) * sway
        x, y, z = vx * t + s[0], vy * t + s[1], vz * t + 0.5 * s[2]
        if kind == "whip":
            for start, across, down, near, seconds in whips:
                done = smooth((t - start) / seconds)
                x, y, z = x + across * done, y + down * done, z + near * done
        return x, y, z, vr * t + 0.5 * s[3]

    return at


def pace_of(rng: Rng) -> Callable[[float], float]:
    """Time that runs evenly, or in bursts and pauses."""
    if rng.random() < 0.5:
        return lambda t: t
    hertz, phase, depth = log_uniform(rng, 0.15, 1.2), rng.uniform(0, math.tau), rng.uniform(0.3, 1.0)
    return lambda t: t + depth * math.sin(math.tau * hertz * t + phase) / (math.tau * hertz)


def smooth(x: float) -> float:
    x = min(1.0, max(0.0, x))
    return x * x * (3 - 2 * x)
