"""Shots one after the other, sampled as a decoder delivers frames, with the truth."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from dailies.curation.observers.likeness import HEIGHT, WIDTH
from scripts.builtin.footage.grounds import Draw
from scripts.builtin.footage.material import Material, Pixels, Rng, log_uniform, picture
from scripts.builtin.footage.shots import shot
from scripts.builtin.footage.things import titles
from scripts.builtin.footage.transitions import KINDS, blend_of


@dataclass(frozen=True, kw_only=True)
class Footage:
    """``thumbs`` (N, 36, 64, 3) BGR at ``times`` (N,) s; ``events``: (first moment that is not all old, first that is all
    new, kind) in seconds, equal for a hard cut.
    """

    thumbs: Pixels
    times: NDArray[np.float64]
    events: list[tuple[float, float, str]]


def sequence(rng: Rng, material: Material, samples: int) -> Footage:
    """``samples`` frames on a grid of 12 a second, as a decoder that skips frames delivers them."""
    times = _times(rng, samples)
    cuts = _events(rng, float(times[-1]))
    draws: list[Draw] = []
    image: Pixels | None = None
    bounds = [0.0, *(end for _, end, _ in cuts)]
    for number in range(len(cuts) + 1):
        until = cuts[number][1] if number < len(cuts) else float(times[-1])
        # A cut within a scene: other framing of the same picture.
        if not (number and image is not None and rng.random() < 0.22):
            image = picture(rng, material) if rng.random() < 0.7 else None
        draws.append(shot(rng, material, max(0.3, until - bounds[number]), image))
    blends = [blend_of(rng, kind) if kind != "cut" else None for _, _, kind in cuts]
    overall, finish = titles(rng, float(times[-1])) if rng.random() < 0.5 else [], _finish(rng)
    thumbs = np.empty((samples, HEIGHT, WIDTH, 3), np.uint8)
    for row, t in enumerate(times.tolist()):
        number = sum(t >= end for _, end, _ in cuts)
        frame = draws[number](t - bounds[number])
        if number < len(cuts) and t >= cuts[number][0]:
            start, end, _ = cuts[number]
            blend = blends[number]
            assert blend is not None
            frame = blend(frame, draws[number + 1](t - bounds[number + 1]), (t - start) / (end - start))
        for title in overall:
            title(frame, t)
        thumbs[row] = finish(frame, rng)
    return Footage(thumbs=thumbs, times=times, events=cuts)


def _times(rng: Rng, samples: int) -> NDArray[np.float64]:
    """Times of the frames seen: native ones, some skipped as B-frames are, thinned to 12 a second."""
    fps = float(rng.choice([15, 24, 25, 30, 50, 60]))
    keep = int(rng.choice([1, 2, 3, 4]))
    irregular = rng.random() < 0.3
    times: list[float] = []
    step, at, point = 1 / fps, 0.0, -1
    while len(times) < samples:
        now = math.floor(at * 12)
        if now > point:
            times.append(at)
            point = now
        at += step * (int(rng.integers(1, keep + 1)) if irregular else keep)
    return np.array(times)


def _events(rng: Rng, seconds: float) -> list[tuple[float, float, str]]:
    events: list[tuple[float, float, str]] = []
    at, pace = 0.0, log_uniform(rng, 0.4, 9)
    while True:
        start = at + log_uniform(rng, 0.3, 2.2) * pace
        kind = str(rng.choice(list(KINDS), p=list(KINDS.values())))
        end = start + (0 if kind == "cut" else log_uniform(rng, 0.16, 1.8))
        if end >= seconds - 0.1:
            return events
        events.append((start, end, kind))
        at = end


def _finish(rng: Rng) -> Callable[[Pixels, Rng], Pixels]:
    """What a camera and a codec add: grain, a haze, bars."""
    grain = float(rng.choice([0, log_uniform(rng, 0.5, 6)], p=[0.4, 0.6]))
    pulse = float(rng.choice([0.0, 1.0], p=[0.7, 0.3]))
    bars, pillars = (int(rng.integers(2, 12)) if rng.random() < p else 0 for p in (0.12, 0.05))

    def finish(frame: Pixels, draw: Rng) -> Pixels:
        small = cv2.resize(frame, (WIDTH, HEIGHT), interpolation=cv2.INTER_AREA)
        if grain or pulse:
            noise = np.asarray(draw.standard_normal(small.shape, np.float32)) * grain
            noise += float(draw.normal(0, 0.6)) * pulse
            small = np.clip(small + noise, 0, 255).astype(np.uint8)
        if bars:
            small[: bars // 2], small[HEIGHT - bars // 2 :] = 0, 0
        if pillars:
            small[:, :pillars], small[:, WIDTH - pillars :] = 0, 0
        return np.asarray(small, np.uint8)

    return finish
