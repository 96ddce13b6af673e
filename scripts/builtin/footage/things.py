"""What moves in front of a background, and what is written over it."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import cv2
import numpy as np

from scripts.builtin.footage.camera import pace_of, smooth
from scripts.builtin.footage.material import H, Material, Pixels, Rng, W, log_uniform, picture, tinted


def thing(rng: Rng, material: Material, seconds: float) -> Callable[[Pixels, float], None]:
    """Something that moves in front of the background: a cut-out, or an ellipse out of another picture."""
    if material.sprites and rng.random() < 0.6:
        bgra = tinted(rng, material.sprites[int(rng.integers(len(material.sprites)))])
    else:
        image = picture(rng, material)
        side = min(image.shape[:2])
        bgra = np.dstack([image[:side, :side], np.zeros((side, side), np.uint8)])
        axes = (int(side * rng.uniform(0.25, 0.5)), int(side * rng.uniform(0.25, 0.5)))
        alpha = np.zeros((side, side), np.uint8)
        cv2.ellipse(alpha, (side // 2, side // 2), axes, float(rng.uniform(0, 180)), 0, 360, 255, -1, cv2.LINE_AA)
        bgra[..., 3] = alpha
    size = (
        (log_uniform(rng, 0.15, 1.2) if rng.random() < 0.75 else log_uniform(rng, 1.2, 3.5)) * H / max(bgra.shape[:2])
    )
    bgra = cv2.resize(bgra, None, fx=size, fy=size, interpolation=cv2.INTER_AREA if size < 1 else cv2.INTER_LINEAR)
    color, alpha = bgra[..., :3].astype(np.float32), bgra[..., 3].astype(np.float32) / 255
    x0, y0 = rng.uniform(-0.1, 1.1) * W, rng.uniform(0.2, 1.0) * H
    speed = float(rng.choice([0, log_uniform(rng, 0.05, 2.5)], p=[0.35, 0.65])) * H
    angle = rng.normal(0, 0.4) + (math.pi if rng.random() < 0.5 else 0)
    # What comes nearer grows, and may fill the frame for a moment.
    growth = float(rng.choice([-1, 1])) * log_uniform(rng, 0.15, 2.5) if rng.random() < 0.35 else 0.0
    wobble, hertz, phase = log_uniform(rng, 0.005, 0.15) * H, log_uniform(rng, 0.3, 3), rng.uniform(0, math.tau)
    appears = rng.uniform(0, seconds) if rng.random() < 0.12 else -math.inf
    meets = rng.uniform(0, seconds)  # when it is where it was put
    h, w = color.shape[:2]
    pace = pace_of(rng)

    def draw(frame: Pixels, t: float) -> None:
        if t < appears:
            return
        t = pace(t)
        x = x0 + speed * math.cos(angle) * (t - meets) + wobble * math.sin(math.tau * hertz * t + phase)
        y = y0 + speed * math.sin(angle) * (t - meets) + wobble * math.sin(math.tau * 0.7 * hertz * t)
        k = math.exp(max(-2.5, min(1.8, growth * (t - meets))))
        matrix = np.array([[k, 0, x - k * w / 2], [0, k, y - k * h / 2]])
        a = cv2.warpAffine(alpha, matrix, (W, H), flags=cv2.INTER_LINEAR)[..., None]
        if a.any():
            moved = cv2.warpAffine(color, matrix, (W, H), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
            frame[...] = frame * (1 - a) + moved * a

    return draw


def screen(rng: Rng, material: Material) -> Callable[[Pixels, float], None]:
    """A screen in the scene whose picture changes now and then."""
    w, h = int(rng.uniform(0.15, 0.5) * W), int(rng.uniform(0.2, 0.5) * H)
    x, y = int(rng.integers(W - w)), int(rng.integers(H - h))
    shown = [cv2.resize(picture(rng, material), (w, h), interpolation=cv2.INTER_AREA) for _ in range(4)]
    beat = rng.uniform(0.6, 3)

    def draw(frame: Pixels, t: float) -> None:
        frame[y : y + h, x : x + w] = shown[int(t / beat) % 4]

    return draw


def sparkle(rng: Rng) -> Callable[[Pixels, float], None]:
    """Water, fire, confetti, a crowd: spots that are others in each frame, in part of the picture."""
    grid = int(rng.integers(6, 40))
    mask = cv2.resize((rng.random((3, 4)) < 0.5).astype(np.float32), (W, H), interpolation=cv2.INTER_LINEAR)[..., None]
    power, tint, rate = log_uniform(rng, 10, 90), rng.uniform(0.3, 1, 3).astype(np.float32), rng.uniform(6, 14)
    seed = int(rng.integers(2**31))

    def draw(frame: Pixels, t: float) -> None:
        spots = (
            np.random.default_rng([seed, abs(int(t * rate))])
            .standard_normal((grid * 9 // 16 + 1, grid))
            .astype(np.float32)
        )
        field = cv2.resize(spots, (W, H), interpolation=cv2.INTER_LINEAR)[..., None] * (mask * power) * tint
        frame[...] = np.clip(frame + field, 0, 255)

    return draw


def titles(rng: Rng, seconds: float) -> list[Callable[[Pixels, float], None]]:
    """Lines of words, boxes with words, small pictures in a corner: there all the time, or coming and going."""
    return [_title(rng, seconds) for _ in range(int(rng.choice([0, 1, 2], p=[0.72, 0.2, 0.08])))]


def _title(rng: Rng, seconds: float) -> Callable[[Pixels, float], None]:
    w, h = int(rng.uniform(0.12, 0.85) * W), int(log_uniform(rng, 0.06, 0.3) * H)
    x, y = int(rng.uniform(0, W - w)), int(rng.choice([rng.uniform(0, H - h), 0.97 * (H - h)]))
    ink = (250, 250, 250) if rng.random() < 0.7 else tuple(int(v) for v in rng.integers(0, 256, 3))
    box = tuple(int(v) for v in rng.integers(0, 256, 3)) if rng.random() < 0.45 else None
    start = rng.uniform(0, seconds) if rng.random() < 0.6 else -math.inf
    end = start + rng.uniform(0.5, 3) if rng.random() < 0.5 else math.inf
    slides = rng.random() < 0.4
    words = np.sort(rng.uniform(0, 1, int(rng.integers(2, 9))))

    def draw(frame: Pixels, t: float) -> None:
        if not start <= t < end:
            return
        shown = int(w * smooth((t - start) / 0.35)) if slides and math.isfinite(start) else w
        if shown < 2:
            return
        if box is not None:
            cv2.rectangle(frame, (x, y), (x + shown, y + h), box, -1)
        for one, other in itertools.pairwise(words):
            a, b = x + int(one * w) + 1, x + int(other * w) - 2
            if a < b <= x + shown:
                cv2.rectangle(frame, (a, y + h // 4), (b, y + 3 * h // 4), ink, -1 if h < 10 else max(1, h // 5))

    return draw
