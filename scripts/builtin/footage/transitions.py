"""How shots meet."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
from numpy.typing import NDArray

from scripts.builtin.footage.camera import smooth
from scripts.builtin.footage.material import H, Pixels, Rng, W

KINDS = {"cut": 0.54, "dissolve": 0.17, "fade": 0.1, "wipe": 0.15, "push": 0.04}


def blend_of(rng: Rng, kind: str) -> Callable[[Pixels, Pixels, float], Pixels]:
    """(old, new, share in (0, 1)) → a frame of the transition."""
    if kind == "dissolve":
        return lambda old, new, share: np.asarray(cv2.addWeighted(old, 1 - share, new, share, 0), np.uint8)
    if kind == "fade":
        tone = 255 if rng.random() < 0.15 else 0
        turn, black = rng.uniform(0.35, 0.65), rng.uniform(0, 0.3)

        def fade(old: Pixels, new: Pixels, share: float) -> Pixels:
            light = max(0.0, abs(share - turn) / (turn if share < turn else 1 - turn) * (1 + black) - black)
            frame = old if share < turn else new
            return np.asarray(cv2.convertScaleAbs(frame, alpha=light, beta=tone * (1 - light)), np.uint8)

        return fade
    if kind == "push":
        axis, sign = int(rng.integers(2)), int(rng.choice([-1, 1]))
        slides = rng.random() < 0.4  # the new one slides over the old one, which stays
        ease = rng.random() < 0.5

        def push(old: Pixels, new: Pixels, share: float) -> Pixels:
            length = old.shape[axis]
            edge = min(length - 1, max(1, round((smooth(share) if ease else share) * length)))
            first, second = (old, new) if sign > 0 else (new, old)
            both = np.concatenate([first, second], axis=axis)
            start = edge if sign > 0 else length - edge
            out = both[start : start + length] if axis == 0 else both[:, start : start + length]
            if slides:
                out = out.copy()
                keep = slice(0, length - edge) if sign > 0 else slice(edge, length)
                index = (keep, slice(None)) if axis == 0 else (slice(None), keep)
                out[index] = old[index]
            return np.ascontiguousarray(out)

        return push
    order = _order(rng)
    soft = float(rng.choice([0.01, 0.03, 0.1, 0.3]))

    def wipe(old: Pixels, new: Pixels, share: float) -> Pixels:
        alpha = np.clip((share * (1 + soft) - order) / soft, 0, 1)[..., None]
        return np.asarray(old * (1 - alpha) + new * alpha + 0.5, np.uint8)

    return wipe


def _order(rng: Rng) -> NDArray[np.float32]:
    """When a wipe reaches each pixel, 0 to 1."""
    y, x = np.mgrid[0:H, 0:W].astype(np.float32)
    x, y = (x + 0.5) / W, (y + 0.5) / H
    form = str(rng.choice(["line", "line", "line", "slanted", "iris", "clock", "blinds", "doors"]))
    if form == "line":
        order = x if rng.random() < 0.6 else y
    elif form == "slanted":
        order = x * rng.uniform(0.3, 1) + y * rng.uniform(0.3, 1)
    elif form == "iris":
        order = np.hypot((x - 0.5) * W / H, y - 0.5)
    elif form == "clock":
        order = np.arctan2(y - 0.5, x - 0.5)
    elif form == "blinds":
        order = (x if rng.random() < 0.5 else y) * int(rng.integers(3, 9)) % 1
    else:
        order = np.abs((x if rng.random() < 0.5 else y) - 0.5)
    order = (order - order.min()) / (order.max() - order.min())
    return np.asarray(order if rng.random() < 0.5 else 1 - order, np.float32)
