"""Scripts are drawn at random. Every choice comes from a generator keyed by (seed, shot), never from a global one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import get_args

import numpy as np

from dailies.curation.world.draw import (
    CAMERAS,
    MOTIONS,
    Taste,
    between,
    choose,
    draw_background,
    draw_camera,
    draw_flashes,
    draw_overlays,
    draw_shape,
    fit,
    pick,
    place,
    stands_out,
)
from dailies.curation.world.script import (
    BACKGROUNDS,
    COLORS,
    Background,
    Camera,
    Direction,
    Script,
    Shape,
    ShapeKind,
    Shot,
    Transition,
    TransitionKind,
)

TRANSITIONS: dict[str, float] = {"cut": 0.6, "dissolve": 0.15, "fade": 0.1, "wipe": 0.08, "push": 0.07}


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
    count = len(listed) + 1 if listed is not None else shots if isinstance(shots, int) else between(rng, shots)
    kinds_between = listed if listed is not None else tuple(pick(rng, weights) for _ in range(count - 1))
    joins = tuple(_transition(rng, kind, transition_frames) for kind in kinds_between)
    taste = Taste(
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
        drawn.append(_shot(rng, taste, draw_background(rng, before, similar=rng.random() < similar)))
    return Script(shots=tuple(drawn), transitions=joins, size=size, fps=fps)


def _transition(rng: np.random.Generator, kind: str, frames: tuple[int, int]) -> Transition:
    if kind not in get_args(TransitionKind):
        raise ValueError(f"transitions={kind!r}: must be one of {', '.join(get_args(TransitionKind))}")
    length = 0 if kind == "cut" else max(1, between(rng, frames))
    return Transition(kind=kind, frames=length, direction=choose(rng, get_args(Direction)))  # type: ignore[arg-type]


def _shot(rng: np.random.Generator, taste: Taste, background: Background) -> Shot:
    still = bool(rng.random() < taste.still)
    frames = between(rng, taste.shot_frames)
    camera = Camera() if still else draw_camera(rng, taste, frames / taste.fps)
    count = between(rng, taste.shapes)
    if count == 0 and camera.still and not still:
        count = 1  # something has to move
    kinds = rng.permutation(np.array(taste.kinds))
    ground = BACKGROUNDS[background.color]
    colors = rng.permutation(np.array([name for name, c in COLORS.items() if stands_out(c, ground)]))
    shapes = []
    for index in range(count):
        motion = "still" if still else pick(rng, MOTIONS)
        while not still and index == 0 and camera.still and motion == "still":
            motion = pick(rng, MOTIONS)
        shapes.append(draw_shape(rng, taste, str(kinds[index % len(kinds)]), str(colors[index % len(colors)]), motion))
    frames, camera, shapes = fit(taste, frames, camera, shapes)
    placed: list[Shape] = []
    for shape in shapes:
        placed.append(place(rng, taste, shape, placed, camera, frames / taste.fps))
    overlays = draw_overlays(rng, taste, background, frames, still) if rng.random() < taste.text else ()
    flashes = draw_flashes(rng, frames) if rng.random() < taste.flashes and not still else ()
    return Shot(
        frames=frames, background=background, shapes=tuple(placed), camera=camera, overlays=overlays, flashes=flashes
    )
