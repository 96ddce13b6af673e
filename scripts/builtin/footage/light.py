"""Light that changes."""

from __future__ import annotations

import math
from collections.abc import Callable

import cv2
import numpy as np

from scripts.builtin.footage.camera import smooth
from scripts.builtin.footage.material import H, Pixels, Rng, W, log_uniform


def light(rng: Rng, seconds: float) -> Callable[[Pixels, float], Pixels]:
    """Light that changes: a drift, a flicker, a lamp switched, flashes, a flare."""
    kind = str(
        rng.choice(
            ["none", "drift", "flicker", "switch", "flash", "flare", "strobe", "stage"],
            p=[0.5, 0.11, 0.06, 0.09, 0.1, 0.05, 0.04, 0.05],
        )
    )
    at, low = rng.uniform(0.1, max(0.2, seconds)), log_uniform(rng, 0.1, 0.7)
    drift, hertz = rng.uniform(-0.6, 0.6), rng.uniform(2, 10)
    lamps = rng.uniform(0.25, 1.2, (64, 3)).astype(np.float32) if rng.random() < 0.6 else rng.uniform(0.3, 1.2, (64, 1))
    beat = log_uniform(rng, 0.08, 0.7)
    times = rng.uniform(0, seconds, int(rng.integers(1, 4)))
    long, white = float(rng.choice([0.04, 0.08, 0.12, 0.25])), rng.uniform(0.5, 1.0)
    cones = cv2.resize(rng.random((3, 4, 3)).astype(np.float32), (W, H), interpolation=cv2.INTER_CUBIC)
    ramp = float(rng.choice([0.001, 0.001, 0.3, 1.0]))
    y, x = np.mgrid[0:H, 0:W].astype(np.float32)
    u, v, spread = rng.uniform(0, W), rng.uniform(0, H), rng.uniform(15, 60)
    color = rng.uniform(0.6, 1, 3).astype(np.float32)
    up = rng.random() < 0.6

    def apply(frame: Pixels, t: float) -> Pixels:
        if kind == "none":
            return frame
        if kind == "flash":
            if not any(s <= t < s + long for s in times):
                return frame
            return np.asarray(cv2.addWeighted(frame, 1 - white, np.full_like(frame, 250), white, 0), np.uint8)
        if kind == "flare":
            strength = math.exp(-(((t - at) / 0.4) ** 2)) * 255
            centre = u + (t - at) * 80
            glow = np.exp(-((x - centre) ** 2 + (y - v) ** 2) / (2 * spread**2))[..., None] * color
            return np.asarray(np.clip(frame + strength * glow, 0, 255), np.uint8)
        if kind == "strobe":  # coloured light that jumps from one to the next, as at a concert
            return np.asarray(np.clip(frame * lamps[int(t / beat) % 64], 0, 255), np.uint8)
        if kind == "stage":  # lamps of other colours on parts of the picture, one fading into the next
            number, part = divmod(t / (4 * beat), 1)
            on = smooth(part / max(ramp, 0.05))
            old, new = (lamps[(int(number) + step) % 64] for step in (0, 1))
            tint = old + (new - old) * on
            other = lamps[(int(number * 2) + 32) % 64]
            return np.asarray(np.clip(frame * (tint * (1 - cones) + other * cones), 0, 255), np.uint8)
        gain = 1 + drift * t / seconds if kind == "drift" else 1 + 0.15 * math.sin(math.tau * hertz * t)
        if kind == "switch":
            on = smooth((t - at) / ramp)
            gain = low + (1 - low) * (on if up else 1 - on)
        return np.asarray(cv2.convertScaleAbs(frame, alpha=gain), np.uint8)

    return apply
