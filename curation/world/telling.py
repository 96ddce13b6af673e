"""A shot in words: captions of several lengths and styles, and the same truth as fields.

::

    plain        a large red circle moves left and a small blue square moves up over a striped grey background
    tags         large red circle, moves left, small blue square, moves up, striped grey background, still camera
    sentence     A large red circle moves left towards a small blue square that moves slowly up, over a striped grey
                 background, while the camera stands still.
    descriptive  A large red circle moves left towards a small blue square that moves slowly up. The background is striped
                 and grey. The camera stands still.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, get_args

import numpy as np

from dailies.curation.world.relations import Relation, relations
from dailies.curation.world.script import Shape, Shot, heading

CaptionStyle = Literal["plain", "tags", "sentence", "descriptive"]
STYLES: tuple[str, ...] = get_args(CaptionStyle)
SIDES = ("left of", "right of", "above", "below")
SLOW, FAST = 0.15, 0.4
"""A straight motion is slow below, and quick from, this share of the frame's short side per second."""


def draw_style(seed: int | Sequence[int]) -> CaptionStyle:
    """Choose a style; the same seed always gives the same one."""
    key = [seed] if isinstance(seed, int) else list(seed)
    style: CaptionStyle = STYLES[int(np.random.default_rng([*key, 0x57]).integers(len(STYLES)))]  # type: ignore[assignment]
    return style


def speed_word(velocity: tuple[float, float], short_side: float) -> str:
    """Return "slowly", "quickly", or "" where neither is worth a word or nothing moves; px/s and px."""
    share = math.hypot(*velocity) / short_side
    return "" if not share or SLOW <= share < FAST else "slowly" if share < SLOW else "quickly"


def shape_name(shot: Shot, shape: Shape, short_side: float) -> str:
    """Return "large red circle"; without a size while it changes on the screen."""
    size = "" if shot.camera.zoom_rate else shape.size(short_side)
    return " ".join(filter(None, (size, shape.color, shape.kind)))


def shape_motion(shape: Shape, short_side: float) -> str:
    """Return its motion with its speed: "moves slowly left", "moves quickly diagonally up and left"."""
    if not any(shape.velocity) or shape.orbit or shape.growth:
        return shape.motion
    moves = " ".join(filter(None, ("moves", speed_word(shape.velocity, short_side))))
    return heading(shape.velocity, plain=moves, diagonal=f"{moves} diagonally")


def camera_motion(shot: Shot, short_side: float) -> str:
    """Return the camera's motion with its speed: "pans slowly left", "zooms in"."""
    camera = shot.camera
    speed = speed_word(camera.velocity, short_side)
    verb, _, rest = camera.motion.partition(" ")
    return " ".join(filter(None, (verb, speed, rest))) if speed else camera.motion


def who_does_what(
    shot: Shot, short_side: float, relation: Relation | None, *, order: Sequence[int] | None = None
) -> str:
    """Return the clause about the shapes, "" where there are none. ``order``: indices, where no ``relation`` gives it."""
    names = [_article(shape_name(shot, shape, short_side)) for shape in shot.shapes]
    motions = [shape_motion(shape, short_side) for shape in shot.shapes]
    if relation is not None:
        subject, other = relation.subject, relation.other
        # A comma keeps "moves right, left of" from reading as one way.
        way = f", {relation.kind}" if relation.kind in SIDES else f" {relation.kind}"
        return f"{names[subject]} {motions[subject]}{way} {names[other]} that {motions[other]}"
    clauses = [f"{names[index]} {motions[index]}" for index in (range(len(names)) if order is None else order)]
    return " and ".join([", ".join(clauses[:-1]), clauses[-1]] if len(clauses) > 1 else clauses)


def tell(shot: Shot, short_side: float, style: str, *, fps: float = 24) -> str:
    """Describe a shot in one of ``STYLES``. Relations are told of two shapes, and not in the style "plain".

    Raises ``ValueError`` for a style that there isn't.
    """
    if style not in STYLES:
        raise ValueError(f"style={style!r}: must be one of {', '.join(STYLES)}")
    if style == "plain":
        return shot.caption(short_side)
    relation = _told(shot, fps)
    if style == "tags":
        return _tags(shot, short_side, relation)
    who = who_does_what(shot, short_side, relation)
    texts = _quoted(shot)
    if style == "sentence":
        return sentence(shot, who, f"the words {texts}" if texts else "")
    ground = f"The background is {shot.background.texture} and {shot.background.color}."
    light = shot_light(shot)
    parts = [f"{_capital(who)}." if who else "", ground, f"The camera {camera_motion(shot, short_side)}."]
    parts += [f"The words {texts} are on the screen."] if texts else []
    parts += [f"{_capital(light)}."] if light else []
    return " ".join(filter(None, parts))


def sentence(shot: Shot, who: str, writing: str) -> str:
    """Join the clause about the shapes with the background, the camera and what is written."""
    ground = _article(f"{shot.background.texture} {shot.background.color} background")
    parts = [f"{who}, over {ground}" if who else ground, f"while the camera {shot.camera.motion}"]
    parts += [f"with {writing}"] if writing else []
    return f"{_capital(', '.join(parts))}."


def tell_fields(shot: Shot, short_side: float, *, fps: float = 24) -> dict[str, str]:
    """Return what is true of a shot by the fields of a caption; a field about which the script says nothing is left out.

    Subject and action read as one clause; with two shapes, what the other does belongs to the action.
    """
    relation = _told(shot, fps)
    names = [shape_name(shot, shape, short_side) for shape in shot.shapes]
    who = who_does_what(shot, short_side, relation)
    subject = _article(names[relation.subject if relation else 0]) if names else ""
    told = {
        "subject": subject,
        "action": who.removeprefix(subject).strip(),
        "setting": _article(f"{shot.background.texture} {shot.background.color} background"),
        "camera": camera_motion(shot, short_side),
        "style": "flat shapes, drawn by a computer",
        "light": shot_light(shot),
        "text": " / ".join(overlay.text for overlay in shot.overlays),
        "details": _stands([f"the {shape.color} {shape.kind}" for shape in shot.shapes], relation) if relation else "",
    }
    return {name: value for name, value in told.items() if value}


def shot_light(shot: Shot) -> str:
    """Return what the light does, "" where it stays."""
    kinds = {flash.kind for flash in shot.flashes}
    parts = ["the light flashes"] if "flash" in kinds else []
    parts += ["a light is switched on"] if "lights" in kinds else []
    return " and ".join(parts)


def _told(shot: Shot, fps: float) -> Relation | None:
    pairs = relations(shot, fps) if len(shot.shapes) == 2 else ()
    return pairs[0] if pairs else None


def _tags(shot: Shot, short_side: float, relation: Relation | None) -> str:
    parts = []
    for shape in shot.shapes:
        parts += [shape_name(shot, shape, short_side), shape_motion(shape, short_side)]
    if relation:
        parts.append(_stands([f"{shape.color} {shape.kind}" for shape in shot.shapes], relation))
    parts.append(f"{shot.background.texture} {shot.background.color} background")
    parts.append("still camera" if shot.camera.still else f"camera {camera_motion(shot, short_side)}")
    parts += [f"text {_quoted(shot)}"] if shot.overlays else []
    return ", ".join(parts)


def _stands(names: Sequence[str], relation: Relation) -> str:
    verb = "moves" if relation.kind in ("towards", "away from") else "is"
    return f"{names[relation.subject]} {verb} {relation.kind} {names[relation.other]}"


def _quoted(shot: Shot) -> str:
    return " and ".join(f'"{overlay.text}"' for overlay in shot.overlays)


def _article(name: str) -> str:
    return f"{'an' if name[0] in 'aeio' else 'a'} {name}"


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
