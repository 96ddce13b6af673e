"""Scripts are drawn at random. Every choice comes from a generator keyed by (seed, shot), never from a global one."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, get_args

import numpy as np

from dailies.curation.world.render import text_size
from dailies.curation.world.script import (
    BACKGROUNDS,
    COLORS,
    Background,
    Camera,
    Color,
    Direction,
    Flash,
    Overlay,
    Script,
    Shape,
    ShapeKind,
    Shot,
    Texture,
    Transition,
    TransitionKind,
)

TRANSITIONS: dict[str, float] = {"cut": 0.6, "dissolve": 0.15, "fade": 0.1, "wipe": 0.08, "push": 0.07}
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
class _Taste:
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


def write_script(
    seed: int | Sequence[int],
    *,
    shots: int | tuple[int, int] = (3, 6),
    size: tuple[int, int] = (320, 180),
    fps: float = 24,
    shot_frames: tuple[int, int] = (24, 72),
    transitions: Mapping[str, float] | Sequence[str] = TRANSITIONS,
    transition_frames: tuple[int, int] = (8, 20),
    shapes: tuple[int, int] = (1, 3),
    kinds: Sequence[str] = get_args(ShapeKind),
    speeds: tuple[float, float] = (10.0, 150.0),
    cameras: Mapping[str, float] = CAMERAS,
    text: float = 0.3,
    flashes: float = 0.15,
    still: float = 0.12,
    similar: float = 0.0,
) -> Script:
    """Draw a random script; the same arguments always give the same one.

    ``shots``: a count, or (least, most) of them; so, as pairs, are ``shot_frames``, ``transition_frames``, ``shapes``.
    ``transitions``: weights by kind, or the kind of each one in order, which says how many shots there are. ``kinds``:
    of shapes. ``speeds``: px/s at a short side of 180 px, drawn evenly on a log scale; a fast shot is as short as it
    must be to keep its shapes in the frame, and slower where even that is too long. ``cameras``: weights of still, pan,
    tilt, zoom, shake. ``text``, ``flashes``, ``still``: the share of shots with text on them, with a flash or a
    switched light, and with no motion at all. ``similar``: the share of shots that keep the background colour of the
    shot before. Raises ``ValueError`` when these do not fit together.
    """
    key = [seed] if isinstance(seed, int) else list(seed)
    rng = np.random.default_rng([*key, 0x5C])
    weights, listed = (transitions, None) if isinstance(transitions, Mapping) else (TRANSITIONS, tuple(transitions))
    count = len(listed) + 1 if listed is not None else shots if isinstance(shots, int) else _between(rng, shots)
    kinds_between = listed if listed is not None else tuple(_pick(rng, weights) for _ in range(count - 1))
    between = tuple(_transition(rng, kind, transition_frames) for kind in kinds_between)
    taste = _Taste(
        size=size,
        fps=fps,
        shot_frames=shot_frames,
        shapes=shapes,
        kinds=kinds,
        speeds=speeds,
        cameras=cameras,
        text=text,
        flashes=flashes,
        still=still,
    )
    if not kinds or count < 1:
        raise ValueError(f"kinds={list(kinds)}, shots={count}: at least one of each is needed")
    drawn: list[Shot] = []
    for number in range(count):
        rng = np.random.default_rng([*key, 0x54, number])
        before = drawn[-1].background if drawn else None
        drawn.append(_shot(rng, taste, _background(rng, before, similar=rng.random() < similar)))
    return Script(shots=tuple(drawn), transitions=between, size=size, fps=fps)


def _between(rng: np.random.Generator, bounds: tuple[int, int]) -> int:
    if not 0 <= bounds[0] <= bounds[1]:
        raise ValueError(f"bounds={bounds}: must be (least, most), neither negative")
    return int(rng.integers(bounds[0], bounds[1] + 1))


def _pick(rng: np.random.Generator, weights: Mapping[str, float]) -> str:
    shares = np.array(list(weights.values()), np.float64)
    if shares.size == 0 or shares.min() < 0 or shares.sum() <= 0:
        raise ValueError(f"weights={dict(weights)}: none may be negative, and one must be positive")
    return str(rng.choice(list(weights), p=shares / shares.sum()))


def _choose(rng: np.random.Generator, options: Sequence[Any]) -> Any:
    return options[int(rng.integers(len(options)))]


def _transition(rng: np.random.Generator, kind: str, frames: tuple[int, int]) -> Transition:
    if kind not in get_args(TransitionKind):
        raise ValueError(f"transitions={kind!r}: must be one of {', '.join(get_args(TransitionKind))}")
    length = 0 if kind == "cut" else max(1, _between(rng, frames))
    return Transition(kind=kind, frames=length, direction=_choose(rng, get_args(Direction)))  # type: ignore[arg-type]


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


def _background(rng: np.random.Generator, before: Background | None, *, similar: bool) -> Background:
    textures = [texture for texture in get_args(Texture) if before is None or texture != before.texture]
    colors = list(BACKGROUNDS)
    if before is not None:
        old = BACKGROUNDS[before.color]
        far = [c for c in colors if color_distance(BACKGROUNDS[c], old) >= APART]
        colors = [before.color] if similar else far
    return Background(texture=_choose(rng, textures), color=_choose(rng, colors), seed=int(rng.integers(2**31)))


# ---- shots ----------------------------------------------------------------------------------------------------------


def _shot(rng: np.random.Generator, taste: _Taste, background: Background) -> Shot:
    still = bool(rng.random() < taste.still)
    frames = _between(rng, taste.shot_frames)
    camera = Camera() if still else _camera(rng, taste, frames / taste.fps)
    count = _between(rng, taste.shapes)
    if count == 0 and camera.still and not still:
        count = 1  # something has to move
    kinds = rng.permutation(np.array(taste.kinds))
    ground = BACKGROUNDS[background.color]
    colors = rng.permutation(np.array([name for name, c in COLORS.items() if stands_out(c, ground)]))
    shapes = []
    for index in range(count):
        motion = "still" if still else _pick(rng, MOTIONS)
        while not still and index == 0 and camera.still and motion == "still":
            motion = _pick(rng, MOTIONS)
        shapes.append(_shape(rng, taste, str(kinds[index % len(kinds)]), str(colors[index % len(colors)]), motion))
    frames, camera, shapes = _fit(taste, frames, camera, shapes)
    placed: list[Shape] = []
    for shape in shapes:
        placed.append(_place(rng, taste, shape, placed, camera, frames / taste.fps))
    overlays = _overlays(rng, taste, background, frames, still) if rng.random() < taste.text else ()
    flashes = _flashes(rng, frames) if rng.random() < taste.flashes and not still else ()
    return Shot(
        frames=frames, background=background, shapes=tuple(placed), camera=camera, overlays=overlays, flashes=flashes
    )


def _speed(rng: np.random.Generator, taste: _Taste) -> float:
    low, high = taste.speeds
    return float(np.exp(rng.uniform(math.log(low), math.log(high)))) * taste.unit


def _camera(rng: np.random.Generator, taste: _Taste, seconds: float) -> Camera:
    kind, speed = _pick(rng, taste.cameras), _speed(rng, taste)
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


def _shape(rng: np.random.Generator, taste: _Taste, kind: str, color: str, motion: str) -> Shape:
    """Draw a shape with this ``motion``, at the origin."""
    radius = float(rng.uniform(16, 21) if rng.random() < 0.45 else rng.uniform(33, 44)) * taste.unit
    speed = _speed(rng, taste)
    shape = Shape(kind=kind, color=color, radius=radius, x=0, y=0)  # type: ignore[arg-type]
    if motion == "straight":
        # Twice as often across as up or down: frames are wide.
        vx, vy = _choose(rng, [(-1, 0), (1, 0), (-1, 0), (1, 0), (0, -1), (0, 1)])
        return replace(shape, velocity=(vx * speed, vy * speed))
    if motion == "diagonal":
        vx, vy = _choose(rng, [(-1, -1), (-1, 1), (1, -1), (1, 1)])
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


def _free_space(taste: _Taste, shape: Shape, camera: Camera, seconds: float) -> tuple[float, float]:
    """Return half of the (width, height) px that its centre may use so that most of it stays in the frame."""
    zoom = camera.zoom * max(1.0, math.exp(camera.zoom_rate * seconds))
    edge = 0.8 * shape.radius + shape.orbit
    return max(1.0, taste.size[0] / 2 / zoom - edge), max(1.0, taste.size[1] / 2 / zoom - edge)


def _drift(shape: Shape, camera: Camera) -> tuple[float, float]:
    """Return how fast it crosses the screen, px/s."""
    return shape.velocity[0] - camera.velocity[0], shape.velocity[1] - camera.velocity[1]


def _fit(taste: _Taste, frames: int, camera: Camera, shapes: list[Shape]) -> tuple[int, Camera, list[Shape]]:
    """Shorten the shot until its shapes stay in the frame; slow everything down where that would be too short."""
    longest = math.inf
    for shape in shapes:
        for room, drift in zip(
            _free_space(taste, shape, camera, frames / taste.fps), _drift(shape, camera), strict=True
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


def _place(
    rng: np.random.Generator, taste: _Taste, shape: Shape, placed: list[Shape], camera: Camera, seconds: float
) -> Shape:
    """Put it where it stays in the frame and, of a few places drawn, farthest from the others."""
    room, drift = _free_space(taste, shape, camera, seconds), _drift(shape, camera)

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


def _overlays(
    rng: np.random.Generator, taste: _Taste, background: Background, frames: int, still: bool
) -> tuple[Overlay, ...]:
    """Draw one or two lines of text, in different corners."""
    width, height = taste.size
    overlays = []
    for zone in rng.permutation(np.array(["bottom", "top left", "bottom right", "middle"]))[: 1 + (rng.random() < 0.3)]:
        size = max(10, round(float(rng.uniform(0.095, 0.16)) * height))
        style = _choose(rng, ["outline", "outline", "box", "box", "plain"])
        # Without outline or box only the other end of the grey axis can be read.
        plain = "white" if _lab(BACKGROUNDS[background.color])[0] < 65 else "black"
        color = plain if style == "plain" else _choose(rng, ["white", "white", "yellow", "black"])
        overlay = Overlay(text=_choose(rng, WORDS), x=0, y=0, size=size, color=color, style=style)
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


def _flashes(rng: np.random.Generator, frames: int) -> tuple[Flash, ...]:
    if frames < 16:
        return ()
    start = int(rng.integers(6, frames - 8))
    if rng.random() < 0.6:
        return (
            Flash(kind="flash", start=start, frames=int(rng.integers(1, 4)), strength=float(rng.uniform(0.8, 0.97))),
        )
    return (Flash(kind="lights", start=start, frames=int(rng.integers(1, 4)), strength=float(rng.uniform(0.4, 0.65))),)
