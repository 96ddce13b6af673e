"""Scenes are what a video captioner learns from: one shot of one or two shapes, long enough that its motion shows.

Their generator is keyed apart from ``write_script``'s, so that neither changes what the other draws.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import get_args

import numpy as np

from dailies.curation.world.draw import (
    Taste,
    draw_background,
    draw_camera,
    draw_flashes,
    draw_overlays,
    draw_shape,
    drift_of,
    fit,
    free_space,
    pick,
    stands_out,
)
from dailies.curation.world.relations import relations
from dailies.curation.world.script import BACKGROUNDS, COLORS, Background, Camera, Script, Shape, ShapeKind, Shot

CAMERAS: dict[str, float] = {"still": 0.42, "pan": 0.2, "tilt": 0.14, "zoom": 0.14, "shake": 0.1}
MOTIONS: dict[str, float] = {
    "straight": 0.38,
    "diagonal": 0.18,
    "circle": 0.18,
    "grow": 0.09,
    "shrink": 0.09,
    "still": 0.08,
}
RELATED: dict[str, float] = {
    "left of": 0.15,
    "right of": 0.15,
    "above": 0.12,
    "below": 0.12,
    "behind": 0.12,
    "towards": 0.16,
    "away from": 0.1,
    "": 0.08,
}
"""The relation wished for between two shapes, and its share; "" wishes for none."""
DRAWS, TRIES = 8, 24  # how often two shapes are drawn, and their places each time, before the wish is given up


def write_scene(
    seed: int | Sequence[int],
    *,
    size: tuple[int, int] = (320, 180),
    fps: float = 24,
    shot_frames: tuple[int, int] = (48, 96),
    two: float = 0.65,
    related: Mapping[str, float] = RELATED,
    cameras: Mapping[str, float] = CAMERAS,
    text: float = 0.15,
    still: float = 0.06,
) -> Script:
    """Draw a random scene: a script of one shot; the same arguments always give the same one.

    ``two``: the share of scenes with two shapes, which have their own colours and kinds. ``related``: weights of the
    relation that they are placed for, which a few don't reach. The others are ``write_script``'s. Cameras are slower than
    there, at most 60 px/s at a short side of 180 px: between pictures half a second apart, stripes that move by more than
    half their period can't be told from stripes that move the other way.
    """
    key = [seed] if isinstance(seed, int) else list(seed)
    rng = np.random.default_rng([*key, 0x5E])
    taste = Taste(
        size=size,
        fps=fps,
        shot_frames=shot_frames,
        shapes=(1, 2),
        kinds=get_args(ShapeKind),
        speeds=(14.0, 110.0),
        cameras=cameras,
        text=text,
        flashes=0.05,
        still=still,
    )
    background = draw_background(rng, None, similar=False)
    shot = _shot(rng, taste, background, two=bool(rng.random() < two), wish=pick(rng, related))
    return Script(shots=(shot,), size=size, fps=fps)


def _shot(rng: np.random.Generator, taste: Taste, background: Background, *, two: bool, wish: str) -> Shot:
    still = bool(rng.random() < taste.still)
    wish = "left of" if still and wish in ("towards", "away from") else wish
    longest = int(rng.integers(taste.shot_frames[0], taste.shot_frames[1] + 1))
    slow = replace(taste, speeds=(14.0, 60.0))
    camera = Camera() if still else draw_camera(rng, slow, longest / taste.fps)
    for _ in range(DRAWS if two else 1):
        # Fast shapes leave no place for one beside their path.
        drawn = _shapes(rng, slow if two and wish else taste, background, wish if two else None, still=still)
        frames, moves, shapes = fit(taste, longest, camera, drawn)
        if not two:
            shapes, holds = [_placed(rng, taste, shapes[0], moves, frames)], True
        else:
            shapes, holds = _placed_two(rng, taste, shapes, moves, frames, wish)
        if holds:
            break
    texts = draw_overlays(rng, taste, background, frames, still) if rng.random() < taste.text else ()
    flashes = draw_flashes(rng, frames) if rng.random() < taste.flashes and not still else ()
    return Shot(
        frames=frames, background=background, shapes=tuple(shapes), camera=moves, overlays=texts, flashes=flashes
    )


def _shapes(
    rng: np.random.Generator, taste: Taste, background: Background, wish: str | None, *, still: bool
) -> list[Shape]:
    """Draw one shape, or two where there is a ``wish``, with motions that the wish allows."""
    kinds = rng.permutation(np.array(taste.kinds))
    ground = BACKGROUNDS[background.color]
    colors = rng.permutation(np.array([name for name, color in COLORS.items() if stands_out(color, ground)]))
    motions = [pick(rng, MOTIONS), pick(rng, MOTIONS)]
    if wish in ("towards", "away from"):
        motions = [pick(rng, {"straight": 0.7, "diagonal": 0.3}), pick(rng, {"still": 0.6, "grow": 0.2, "shrink": 0.2})]
    elif wish == "behind":
        motions = [pick(rng, {"straight": 0.5, "diagonal": 0.2, "still": 0.3})] * 2
    elif wish and motions[0] in ("straight", "diagonal"):
        motions[1] = pick(rng, {"still": 0.3, "circle": 0.1, "grow": 0.1, "shrink": 0.1, motions[0]: 0.4})
    if still:
        motions = ["still", "still"]
    shapes = [
        draw_shape(rng, taste, str(kind), str(color), motion)
        for kind, color, motion in zip(kinds, colors, motions, strict=False)
    ]
    if wish and motions[0] == motions[1] and any(shapes[0].velocity):
        shapes[1] = replace(shapes[1], velocity=shapes[0].velocity)  # side by side, as nothing else stays so for long
    if wish in ("above", "below"):
        # Frames are low: two large shapes have no place above each other.
        most = 0.32 * min(taste.size)
        share = min(1.0, most / (shapes[0].radius + shapes[1].radius))
        shapes = [replace(shape, radius=share * shape.radius, orbit=share * shape.orbit) for shape in shapes]
    return shapes[:1] if wish is None else shapes[:2]


def _placed(rng: np.random.Generator, taste: Taste, shape: Shape, camera: Camera, frames: int) -> Shape:
    """Put it where its path stays in the frame."""
    seconds = frames / taste.fps
    room, drift = free_space(taste, shape, camera, seconds), drift_of(shape, camera)
    x, y = (
        side / 2 + rng.uniform(-1, 1) * max(0.0, half - abs(v) * seconds / 2) - v * seconds / 2
        for side, half, v in zip(taste.size, room, drift, strict=True)
    )
    return replace(shape, x=float(x), y=float(y))


def _placed_two(
    rng: np.random.Generator, taste: Taste, shapes: list[Shape], camera: Camera, frames: int, wish: str
) -> tuple[list[Shape], bool]:
    """Put both where they stand to each other as wished, and tell whether they do; else as far apart as was tried."""
    best, widest = shapes, -math.inf
    for _ in range(TRIES):
        first, second = (_placed(rng, taste, shape, camera, frames) for shape in shapes)
        wished = _beside(rng, first, second, frames / taste.fps, wish) if wish else second
        for candidate in (wished, second):
            if candidate is not second and not _inside(taste, candidate, camera, frames):
                continue
            gap = _gap(first, candidate, frames / taste.fps)
            # Shapes that meet hide each other: only what is behind may.
            if (
                candidate is wished
                and (gap >= 0 or wish == "behind")
                and _stand(taste, first, candidate, frames) == wish
            ):
                return [first, candidate], True
            if gap > widest:
                best, widest = [first, candidate], gap
    return best, False


def _stand(taste: Taste, first: Shape, second: Shape, frames: int) -> str:
    """Return how they stand to each other, "" where in no way; nine frames stand for the whole shot."""
    shot = Shot(frames=9, background=Background(texture="cloudy", color="grey"), shapes=(first, second))
    pairs = relations(shot, 8 * taste.fps / max(1, frames - 1))
    return pairs[0].kind if pairs else ""


def _beside(rng: np.random.Generator, first: Shape, second: Shape, seconds: float, wish: str) -> Shape:
    """Put ``second`` so that, half way through the shot, it lies from ``first`` where the wish wants it."""
    heading = math.atan2(first.velocity[1], first.velocity[0])
    ways = {"left of": 0.0, "right of": math.pi, "above": math.pi / 2, "below": -math.pi / 2}
    ways |= {"towards": heading, "away from": heading + math.pi, "behind": float(rng.uniform(0, math.tau))}
    way = ways[wish] + float(rng.uniform(-0.4, 0.4))
    (x, y, r), (u, v, s) = first.at(seconds / 2), second.at(seconds / 2)
    apart = (float(rng.uniform(0.64, 0.83)) if wish == "behind" else float(rng.uniform(1.15, 2.2))) * (r + s)
    apart += math.hypot(*first.velocity) * seconds / 2 if wish in ("towards", "away from") else 0
    return replace(second, x=second.x + x + apart * math.cos(way) - u, y=second.y + y + apart * math.sin(way) - v)


def _inside(taste: Taste, shape: Shape, camera: Camera, frames: int) -> bool:
    seconds = frames / taste.fps
    room, (vx, vy) = free_space(taste, shape, camera, seconds), drift_of(shape, camera)
    return all(
        abs(at + v * t - side / 2) <= half
        for at, v, side, half in zip((shape.x, shape.y), (vx, vy), taste.size, room, strict=True)
        for t in (0.0, seconds)
    )


def _gap(first: Shape, second: Shape, seconds: float) -> float:
    """Return the least distance between their rims, px."""
    gaps = []
    for t in np.linspace(0, seconds, 9):
        (x, y, r), (u, v, s) = first.at(float(t)), second.at(float(t))
        gaps.append(math.hypot(x - u, y - v) - 1.1 * (r + s))
    return min(gaps)
