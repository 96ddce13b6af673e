"""Backgrounds: a still picture under a moving camera, or a piece of a free video."""

from __future__ import annotations

import math
from collections.abc import Callable

import cv2
import numpy as np

from scripts.builtin.footage.camera import path
from scripts.builtin.footage.material import H, Material, Pixels, Rng, W, log_uniform, picture

Draw = Callable[[float], Pixels]  # seconds since the shot began → (H, W, 3) uint8 BGR


def ground(rng: Rng, material: Material, image: Pixels | None = None) -> Draw:
    """A still picture under a moving camera; sometimes part of it sways, as leaves, water and people do."""
    if image is None and rng.random() < 0.06:
        image = np.full((60, 100, 3), rng.integers(0, 256, 3).astype(np.uint8))
        if rng.random() < 0.5:
            image[:] = int(rng.choice([0, 8, 16, 235, 255]))
    if image is None:
        image = _panorama(rng, material) if rng.random() < 0.4 else picture(rng, material)
    h, w = image.shape[:2]
    front = _front(rng, material) if rng.random() < 0.28 else None
    within = _within(rng, material) if rng.random() < 0.1 else None
    scale = min(w / W, h / H) * rng.uniform(0.35, 0.95)  # picture pixels to one of the frame
    cx = rng.uniform(0.5 * W * scale, max(0.5 * W * scale, w - 0.5 * W * scale))
    cy = rng.uniform(0.5 * H * scale, max(0.5 * H * scale, h - 0.5 * H * scale))
    camera, sway = path(rng), wave(rng) if rng.random() < 0.4 else None
    # A plane seen at a slant, as a floor, a shelf or a street is: what is near moves faster and comes larger into the frame.
    slant = rng.normal(0, 0.3, 2).clip(-0.6, 0.6) if rng.random() < 0.35 else np.zeros(2)
    lens = np.array([[1, 0, 0], [0, 1, 0], [slant[0] / W, slant[1] / H, 1 - slant.sum() / 2]])

    def draw(t: float) -> Pixels:
        x, y, z, r = camera(t)
        k = scale * math.exp(-max(-1.5, min(1.5, z)))
        c, s = k * math.cos(r), k * math.sin(r)
        u, v = cx + x * H * scale, cy + y * H * scale
        to = np.array([[1, 0, -W / 2], [0, 1, -H / 2], [0, 0, 1]])
        matrix = np.array([[c, -s, u], [s, c, v], [0, 0, 1]]) @ to @ lens
        flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        frame = np.asarray(
            cv2.warpPerspective(image, matrix, (W, H), flags=flags, borderMode=cv2.BORDER_REFLECT), np.uint8
        )
        if within is not None:
            within(frame, z)
        if front is not None:
            front(frame, x * H, y * H, z)
        return frame if sway is None else sway(frame, t)

    return draw


def _panorama(rng: Rng, material: Material) -> Pixels:
    """Pictures side by side that run into each other: a camera that pans over them sees other things after a while."""
    height, seam = 180, int(rng.uniform(15, 80))
    parts = []
    for _ in range(int(rng.integers(2, 5))):
        part = picture(rng, material)
        width = max(2 * seam + 40, round(part.shape[1] * height / part.shape[0]))
        parts.append(cv2.resize(part, (width, height), interpolation=cv2.INTER_AREA).astype(np.float32))
    ramp = np.linspace(0, 1, seam, dtype=np.float32)[None, :, None]
    out = parts[0]
    for part in parts[1:]:
        mixed = out[:, -seam:] * (1 - ramp) + part[:, :seam] * ramp
        out = np.concatenate([out[:, :-seam], mixed, part[:, seam:]], axis=1)
    out = out.astype(np.uint8)
    return np.ascontiguousarray(out.transpose(1, 0, 2)) if rng.random() < 0.15 else out


def _front(rng: Rng, material: Material) -> Callable[[Pixels, float, float, float], None]:
    """What stands nearer to the camera and so moves more: part of another picture, cut off along a rough line."""
    image = cv2.resize(picture(rng, material), (3 * W, 2 * H), interpolation=cv2.INTER_AREA)
    rough = cv2.resize(
        rng.uniform(-1, 1, (1, int(rng.integers(3, 14)))).astype(np.float32), (3 * W, 1), interpolation=cv2.INTER_CUBIC
    )
    line = H * (1.0 + rng.uniform(-0.4, 0.4) + rng.uniform(0.05, 0.4) * rough)
    alpha = np.clip(np.arange(2 * H, dtype=np.float32)[:, None] - line, 0, 1)[..., None]
    near, turned = rng.uniform(1.3, 3), rng.random() < 0.3

    def draw(frame: Pixels, x: float, y: float, z: float) -> None:
        k = math.exp(-max(-1.0, min(1.0, z * near)))
        matrix = np.array([[k, 0, W + near * x + W / 2 * (1 - k)], [0, k, H / 2 + near * y + H / 2 * (1 - k)]])
        flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        color = cv2.warpAffine(image, matrix, (W, H), flags=flags, borderMode=cv2.BORDER_REFLECT)
        a = cv2.warpAffine(alpha, matrix, (W, H), flags=flags, borderMode=cv2.BORDER_REPLICATE)[..., None]
        if turned:  # a wall at the side
            a = cv2.resize(np.ascontiguousarray(a[..., 0].T), (W, H))[..., None]
        frame[...] = frame * (1 - a) + color * a

    return draw


def _within(rng: Rng, material: Material) -> Callable[[Pixels, float], None]:
    """What shows as a camera comes near, as on a map that is zoomed: another picture, small in the middle of the first."""
    image = cv2.resize(picture(rng, material), (2 * W, 2 * H), interpolation=cv2.INTER_AREA)
    alpha = np.zeros((2 * H, 2 * W), np.float32)
    rim = int(_RIM * rng.uniform(0.3, 1))
    alpha[rim:-rim, rim:-rim] = 1
    alpha = cv2.GaussianBlur(alpha, (0, 0), rim / 2.5)
    small, sharp = log_uniform(rng, 0.1, 0.5), rng.random() < 0.5
    x, y = rng.uniform(0.35, 0.65) * W, rng.uniform(0.35, 0.65) * H

    def draw(frame: Pixels, z: float) -> None:
        k = small * math.exp(max(-1.5, min(2.5, z))) / 2
        matrix = np.array([[k, 0, x - k * W], [0, k, y - k * H]])
        color = cv2.warpAffine(image, matrix, (W, H), flags=cv2.INTER_LINEAR)
        a = cv2.warpAffine(alpha, matrix, (W, H), flags=cv2.INTER_LINEAR)[..., None]
        if not sharp:  # comes out of a haze
            a = a * min(1.0, max(0.0, (k * 2 - small / 2) / small))
        frame[...] = frame * (1 - a) + color * a

    return draw


_RIM = 30  # px of the nearer picture that run into the farther


def wave(rng: Rng) -> Callable[[Pixels, float], Pixels]:
    """A smooth displacement that sways with time, in part of the frame."""
    field = cv2.resize(rng.standard_normal((5, 6, 4)).astype(np.float32), (W, H), interpolation=cv2.INTER_CUBIC)
    mask = cv2.resize((rng.random((3, 4)) < 0.5).astype(np.float32), (W, H), interpolation=cv2.INTER_LINEAR)
    field *= mask[..., None] * np.float32(log_uniform(rng, 0.5, 8))
    hertz, phase = log_uniform(rng, 0.2, 3), rng.uniform(0, math.tau)
    x, y = np.meshgrid(np.arange(W, dtype=np.float32), np.arange(H, dtype=np.float32))

    def apply(frame: Pixels, t: float) -> Pixels:
        one = np.float32(math.sin(math.tau * hertz * t + phase))
        two = np.float32(math.sin(math.tau * 0.6 * hertz * t + 2 * phase))
        moved = field[..., :2] * one + field[..., 2:] * two
        return np.asarray(
            cv2.remap(frame, x + moved[..., 0], y + moved[..., 1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT),
            np.uint8,
        )

    return apply


def filmed(rng: Rng, material: Material) -> Draw:
    """A piece of a real video, cropped, played forwards or backwards at some speed, back and forth."""
    number = int(rng.integers(len(material.videos)))
    frames, fps = material.videos[number], material.rates[number] * log_uniform(rng, 0.5, 1.6)
    start, sign = int(rng.integers(len(frames))), int(rng.choice([-1, 1]))
    h, w = frames.shape[1:3]
    top, left, mirror = int(rng.integers(h - H + 1)), int(rng.integers(w - W + 1)), rng.random() < 0.5
    gain, lift = rng.uniform(0.7, 1.2), rng.uniform(-20, 20)
    period = 2 * len(frames) - 2

    def draw(t: float) -> Pixels:
        at = (start + sign * int(t * fps)) % period
        frame = frames[min(at, period - at), top : top + H, left : left + W]
        frame = np.asarray(cv2.convertScaleAbs(frame, alpha=gain, beta=lift), np.uint8)
        return np.ascontiguousarray(frame[:, ::-1]) if mirror else frame

    return draw
