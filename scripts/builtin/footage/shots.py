"""Shots: a background, what is before it, its light and its lens."""

from __future__ import annotations

import math

import cv2
import numpy as np

from scripts.builtin.footage.grounds import Draw, filmed, ground, wave
from scripts.builtin.footage.light import light
from scripts.builtin.footage.material import Material, Pixels, Rng
from scripts.builtin.footage.things import screen, sparkle, thing, titles


def shot(rng: Rng, material: Material, seconds: float, image: Pixels | None = None) -> Draw:
    """A shot of about so many seconds; ``image``: what its background is taken from."""
    video = image is None and len(material.videos) > 0 and rng.random() < 0.22
    behind = filmed(rng, material) if video else ground(rng, material, image)
    count = 0 if video else int(rng.choice([0, 1, 2, 3, 5], p=[0.25, 0.3, 0.22, 0.15, 0.08]))
    things = [thing(rng, material, seconds) for _ in range(count)]
    if rng.random() < 0.06:
        things.append(screen(rng, material))
    if rng.random() < 0.1:
        things.append(sparkle(rng))
    lit, lines, sway = light(rng, seconds), titles(rng, seconds), wave(rng) if rng.random() < 0.12 else None
    shutter = float(rng.choice([0, 1 / 120, 1 / 50, 1 / 25], p=[0.5, 0.2, 0.2, 0.1]))  # s; what moves is blurred
    freeze = float(rng.choice([0.0, 1 / 12, 1 / 8], p=[0.93, 0.04, 0.03]))  # drawn animation shows each picture longer
    blur_at, blur = rng.uniform(0, seconds), rng.random() < 0.04  # a lens that seeks focus

    def scene(t: float) -> Pixels:
        frame = behind(t).copy()
        for one in things:
            one(frame, t)
        return frame

    def draw(t: float) -> Pixels:
        t = math.floor(t / freeze) * freeze if freeze else t
        frame = scene(t)
        if shutter:
            rest = [scene(t - shutter * part) for part in (1 / 3, 2 / 3)]
            frame = ((frame.astype(np.uint16) + rest[0] + rest[1]) // 3).astype(np.uint8)
        frame = lit(frame if sway is None else sway(frame, t), t)
        if blur:
            sigma = 5 * math.exp(-(((t - blur_at) / 0.5) ** 2))
            frame = cv2.GaussianBlur(frame, (0, 0), sigma) if sigma > 0.3 else frame
        for line in lines:
            line(frame, t)
        return np.asarray(frame, np.uint8)

    return draw
