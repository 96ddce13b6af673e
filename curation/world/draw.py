"""The parts of a script are drawn at random here: colours, backgrounds, cameras, shapes and their places, texts, flashes.

Each function takes the generator that it draws from, and draws from it in the same order for good: a seed is a video.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, get_args

import numpy as np

from dailies.curation.world.render import text_size
from dailies.curation.world.script import (
    BACKGROUNDS,
    Background,
    Camera,
    Color,
    Flash,
    Overlay,
    Shape,
    Texture,
)

CAMERAS: dict[str, float] = {"still": 0.5, "pan": 0.17, "tilt": 0.11, "zoom": 0.12, "shake": 0.1}
MOTIONS: dict[str, float] = {
    "straight": 0.48,
    "diagonal": 0.16,
    "circle": 0.14,
    "grow": 0.07,
    "shrink": 0.07,
    "still": 0.08,
}
WORDS = (
    "LIVE", "NEWS", "THE END", "CHAPTER ONE", "COMING SOON", "SUMMER SALE", "GOOD MORNING", "Episode 4", "Day 12",
    "Subscribe", "New York", "Coffee house", "Part Two", "Weather today", "20:15", "Half time", "Breaking news",
    "How it works", "Last train home", "A walk in the park", "Read more below", "Free delivery", "Open until late",
)  # fmt: skip
APART = 28.0  # CIELAB distance of following backgrounds: what can't be overlooked


@dataclass(frozen=True, slots=True, kw_only=True)
class Taste:
    """Arguments of ``write_script``, but for the seed and what lies between shots."""

    size: tuple[int, int]
    fps: float
    shot_frames: tuple[int, int]
    shapes: tuple[int, int]
    kinds: Sequence[str]
    speeds: tuple[float, float]
    cameras: Mapping[str, float]
    text: float
    flashes: float
    still: float

    @property
    def unit(self) -> float:
        """Sizes and speeds are stated for a short side of 180 px."""
        return min(self.size) / 180


def between(rng: np.random.Generator, bounds: tuple[int, int]) -> int:
    if not 0 <= bounds[0] <= bounds[1]:
        raise ValueError(f"bounds={bounds}: must be (least, most), neither negative")
    return int(rng.integers(bounds[0], bounds[1] + 1))


def pick(rng: np.random.Generator, weights: Mapping[str, float]) -> str:
    shares = np.array(list(weights.values()), np.float64)
    if shares.size == 0 or shares.min() < 0 or shares.sum() <= 0:
        raise ValueError(f"weights={dict(weights)}: none may be negative, and one must be positive")
    return str(rng.choice(list(weights), p=shares / shares.sum()))


def choose(rng: np.random.Generator, options: Sequence[Any]) -> Any:
    return options[int(rng.integers(len(options)))]


# ---- colours --------------------------------------------------------------------------------------------------------


def color_distance(first: Color, second: Color) -> float:
    """Return CIE76: the Euclidean distance in CIELAB (D65) of two sRGB colours; about 2 can just be told apart."""
    return float(np.linalg.norm(_lab(first) - _lab(second)))


def _lab(color: Color) -> np.ndarray[Any, np.dtype[np.float64]]:
    srgb = np.asarray(color, np.float64) / 255
    linear = np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)
    to_xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
    xyz = to_xyz @ linear / (0.9505, 1.0, 1.089)
    f = np.where(xyz > (6 / 29) ** 3, np.cbrt(xyz), xyz / (3 * (6 / 29) ** 2) + 4 / 29)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


def stands_out(color: Color, ground: Color) -> bool:
    """Tell whether a shape of ``color`` is plain to see on ``ground``: far off, and not merely more of the same hue."""
    shape, plane = _lab(color), _lab(ground)
    turn = abs(math.atan2(shape[2], shape[1]) - math.atan2(plane[2], plane[1]))
    same_hue = min(turn, math.tau - turn) < math.radians(45) and math.hypot(plane[1], plane[2]) > 5
    return color_distance(color, ground) >= 1.3 * APART and not (same_hue and abs(shape[0] - plane[0]) < 25)


def draw_background(rng: np.random.Generator, before: Background | None, *, similar: bool) -> Background:
    textures = [texture for texture in get_args(Texture) if before is None or texture != before.texture]
    colors = list(BACKGROUNDS)
    if before is not None:
        old = BACKGROUNDS[before.color]
        far = [c for c in colors if color_distance(BACKGROUNDS[c], old) >= APART]
        colors = [before.color] if similar else far
    return Background(texture=choose(rng, textures), color=choose(rng, colors), seed=int(rng.integers(2**31)))


# ---- shots ----------------------------------------------------------------------------------------------------------


def draw_speed(rng: np.random.Generator, taste: Taste) -> float:
    low, high = taste.speeds
    return float(np.exp(rng.uniform(math.log(low), math.log(high)))) * taste.unit


def draw_camera(rng: np.random.Generator, taste: Taste, seconds: float) -> Camera:
    kind, speed = pick(rng, taste.cameras), draw_speed(rng, taste)
    sign = float(rng.choice([-1, 1]))
    if kind == "pan":
        return Camera(velocity=(sign * speed, 0.0))
    if kind == "tilt":
        return Camera(velocity=(0.0, sign * speed))
    if kind == "zoom":
        # Not past a factor of two, where the background would blur; out starts near, so that it ends at 1.
        rate = min(float(rng.uniform(0.15, 0.6)), math.log(2) / seconds)
        return Camera(zoom=1.0 if sign > 0 else math.exp(rate * seconds), zoom_rate=sign * rate)
    if kind == "shake":
        return Camera(shake=float(rng.uniform(1.5, 5.0)) * taste.unit, seed=int(rng.integers(2**31)))
    if kind != "still":
        raise ValueError(f"cameras={kind!r}: must be one of {', '.join(CAMERAS)}")
    return Camera()


def draw_shape(rng: np.random.Generator, taste: Taste, kind: str, color: str, motion: str) -> Shape:
    """Draw a shape with this ``motion``, at the origin."""
    radius = float(rng.uniform(16, 21) if rng.random() < 0.45 else rng.uniform(33, 44)) * taste.unit
    speed = draw_speed(rng, taste)
    shape = Shape(kind=kind, color=color, radius=radius, x=0, y=0)  # type: ignore[arg-type]
    if motion == "straight":
        # Twice as often across as up or down: frames are wide.
        vx, vy = choose(rng, [(-1, 0), (1, 0), (-1, 0), (1, 0), (0, -1), (0, 1)])
        return replace(shape, velocity=(vx * speed, vy * speed))
    if motion == "diagonal":
        vx, vy = choose(rng, [(-1, -1), (-1, 1), (1, -1), (1, 1)])
        return replace(shape, velocity=(vx * speed / math.sqrt(2), vy * speed / math.sqrt(2)))
    if motion == "circle":
        # A circle is seen as one only if much of it is drawn within the shot.
        orbit, period = float(rng.uniform(18, 38)) * taste.unit, float(rng.uniform(1.2, 3.0))
        turn = float(rng.choice([-1, 1]))
        return replace(shape, orbit=orbit, period=turn * period, phase=float(rng.uniform(0, math.tau)))
    if motion in ("grow", "shrink"):
        rate = float(rng.uniform(0.3, 0.7))
        start = float(rng.uniform(16, 22) if motion == "grow" else rng.uniform(36, 44)) * taste.unit
        return replace(shape, radius=start, growth=rate if motion == "grow" else -rate)
    return shape


def free_space(taste: Taste, shape: Shape, camera: Camera, seconds: float) -> tuple[float, float]:
    """Return half of the (width, height) px that its centre may use so that most of it stays in the frame."""
    zoom = camera.zoom * max(1.0, math.exp(camera.zoom_rate * seconds))
    edge = 0.8 * shape.radius + shape.orbit
    return max(1.0, taste.size[0] / 2 / zoom - edge), max(1.0, taste.size[1] / 2 / zoom - edge)


def drift_of(shape: Shape, camera: Camera) -> tuple[float, float]:
    """Return how fast it crosses the screen, px/s."""
    return shape.velocity[0] - camera.velocity[0], shape.velocity[1] - camera.velocity[1]


def fit(taste: Taste, frames: int, camera: Camera, shapes: list[Shape]) -> tuple[int, Camera, list[Shape]]:
    """Shorten the shot until its shapes stay in the frame; slow everything down where that would be too short."""
    longest = math.inf
    for shape in shapes:
        for room, drift in zip(
            free_space(taste, shape, camera, frames / taste.fps), drift_of(shape, camera), strict=True
        ):
            longest = min(longest, 2 * room / abs(drift) * taste.fps if drift else math.inf)
    least = max(1, taste.shot_frames[0])
    if longest < least:
        slow = longest / least
        camera = replace(camera, velocity=(camera.velocity[0] * slow, camera.velocity[1] * slow))
        shapes = [replace(s, velocity=(s.velocity[0] * slow, s.velocity[1] * slow)) for s in shapes]
    frames = max(least, int(min(frames, longest)))
    # What grows may fill the frame, no more; what shrinks stays a shape.
    most = math.log(2) * taste.fps / frames
    return frames, camera, [replace(s, growth=max(-most, min(most, s.growth))) for s in shapes]


def place(
    rng: np.random.Generator, taste: Taste, shape: Shape, placed: list[Shape], camera: Camera, seconds: float
) -> Shape:
    """Put it where it stays in the frame and, of a few places drawn, farthest from the others."""
    room, drift = free_space(taste, shape, camera, seconds), drift_of(shape, camera)

    def candidate() -> Shape:
        # Its path's middle is the middle of the frame, give or take the room that its path leaves.
        x, y = (
            side / 2 + rng.uniform(-1, 1) * max(0.0, half - abs(v) * seconds / 2) - v * seconds / 2
            for side, half, v in zip(taste.size, room, drift, strict=True)
        )
        return replace(shape, x=float(x), y=float(y))

    def gap(shape: Shape) -> float:
        gaps = [math.inf]
        for other in placed:
            for t in np.linspace(0, seconds, 7):
                (x, y, r), (u, v, s) = shape.at(float(t)), other.at(float(t))
                gaps.append(math.hypot(x - u, y - v) - 1.1 * (r + s))
        return min(gaps)

    return max((candidate() for _ in range(16 if placed else 1)), key=gap)


def draw_overlays(
    rng: np.random.Generator, taste: Taste, background: Background, frames: int, still: bool
) -> tuple[Overlay, ...]:
    """Draw one or two lines of text, in different corners."""
    width, height = taste.size
    overlays = []
    for zone in rng.permutation(np.array(["bottom", "top left", "bottom right", "middle"]))[: 1 + (rng.random() < 0.3)]:
        size = max(10, round(float(rng.uniform(0.095, 0.16)) * height))
        style = choose(rng, ["outline", "outline", "box", "box", "plain"])
        # Without outline or box only the other end of the grey axis can be read.
        plain = "white" if _lab(BACKGROUNDS[background.color])[0] < 65 else "black"
        color = plain if style == "plain" else choose(rng, ["white", "white", "yellow", "black"])
        overlay = Overlay(text=choose(rng, WORDS), x=0, y=0, size=size, color=color, style=style)
        while text_size(overlay)[0] > 0.94 * width and overlay.size > 6:
            overlay = replace(overlay, size=overlay.size - 1)
        w, h = text_size(overlay)
        margin = round(0.05 * height)
        x = {"top left": margin, "bottom right": width - margin - w}.get(str(zone), (width - w) // 2)
        y = {"top left": margin, "middle": (height - h) // 2}.get(str(zone), height - margin - h)
        if not still and frames >= 16 and rng.random() < 0.3:
            late = rng.random() < 0.5
            overlay = replace(overlay, start=frames // 4 if late else None, end=None if late else 3 * frames // 4)
        overlays.append(replace(overlay, x=max(0, x), y=max(0, y)))
    return _apart(overlays)


def _apart(overlays: list[Overlay]) -> tuple[Overlay, ...]:
    """Keep the first, and the second only where it does not touch it: text on text is neither's truth."""
    if len(overlays) == 2:
        (w0, h0), (w1, h1) = (text_size(overlay) for overlay in overlays)
        first, second = overlays
        apart_x = first.x >= second.x + w1 or second.x >= first.x + w0
        apart_y = first.y >= second.y + h1 or second.y >= first.y + h0
        if not (apart_x or apart_y):
            return (first,)
    return tuple(overlays)


def draw_flashes(rng: np.random.Generator, frames: int) -> tuple[Flash, ...]:
    if frames < 16:
        return ()
    start = int(rng.integers(6, frames - 8))
    if rng.random() < 0.6:
        return (
            Flash(kind="flash", start=start, frames=int(rng.integers(1, 4)), strength=float(rng.uniform(0.8, 0.97))),
        )
    return (Flash(kind="lights", start=start, frames=int(rng.integers(1, 4)), strength=float(rng.uniform(0.4, 0.65))),)
