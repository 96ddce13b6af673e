"""How two shapes of a shot stand to each other, worked out from its script.

A relation holds in every frame wholly of the shot. Which way one shape lies from another is the same on the screen as in
the world, however the camera moves, pans or zooms: it shifts and scales both alike.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from dailies.curation.world.script import Shape, Shot

RelationKind = Literal["left of", "right of", "above", "below", "behind", "in front of", "towards", "away from"]
OPPOSITES: dict[str, str] = {
    "left of": "right of",
    "right of": "left of",
    "above": "below",
    "below": "above",
    "behind": "in front of",
    "in front of": "behind",
}
"""The same said of the other shape. "towards" and "away from" belong to the shape that moves."""
WITHIN = math.cos(math.radians(35))  # of the angle between a direction and the way from one centre to the other
NEARER = 0.75  # the distance at the end over that at the start, at most, of what moves towards the other
COVERED = 0.85  # the distance over the sum of both radii, at most, where one covers part of the other


@dataclass(frozen=True, slots=True, kw_only=True)
class Relation:
    """``subject`` and ``other``: indices into ``Shot.shapes``. ``kind`` reads "SUBJECT is/moves KIND OTHER"."""

    subject: int
    kind: RelationKind
    other: int


def relations(shot: Shot, fps: float) -> tuple[Relation, ...]:
    """Return at most one relation of each two shapes, in drawing order.

    "towards" (or "away from"): the subject moves in a straight line that stays within 35° of the way to the other (or from
    it), and their distance falls to ``NEARER`` of what it was, or grows by as much. Else "behind" and "in front of": their
    discs overlap, and the later drawn covers the other. Else "left of", "right of", "above", "below": the way from the
    subject to the other stays within 35° of that axis. Nothing where none of these holds throughout.
    """
    count = len(shot.shapes)
    pairs = [_relation(shot, first, second, fps) for first in range(count) for second in range(first + 1, count)]
    return tuple(pair for pair in pairs if pair is not None)


def _relation(shot: Shot, first: int, second: int, fps: float) -> Relation | None:
    t = np.arange(shot.frames) / fps
    subject_track, other_track = (_track(shot.shapes[index], t) for index in (first, second))
    way = other_track[:2] - subject_track[:2]
    distance = np.hypot(*way)
    if distance.min() == 0:
        return Relation(subject=first, kind="behind", other=second)
    way = way / distance
    for subject, other, to in ((first, second, way), (second, first, -way)):
        approach = _approach(shot.shapes[subject], to, distance)
        if approach is not None:
            return Relation(subject=subject, kind=approach, other=other)
    if (distance <= COVERED * (subject_track[2] + other_track[2])).all():
        return Relation(subject=first, kind="behind", other=second)
    sides: tuple[tuple[RelationKind, NDArray[np.float64]], ...] = (
        ("left of", way[0]),
        ("right of", -way[0]),
        ("above", way[1]),
        ("below", -way[1]),
    )
    for kind, along in sides:
        if along.min() >= WITHIN:
            return Relation(subject=first, kind=kind, other=second)
    return None


def _track(shape: Shape, t: NDArray[np.float64]) -> NDArray[np.float64]:
    """Centre and radius (3, n) px at the times ``t``."""
    return np.array([shape.at(float(at)) for at in t]).T


def _approach(shape: Shape, to: NDArray[np.float64], distance: NDArray[np.float64]) -> RelationKind | None:
    if not any(shape.velocity) or shape.orbit:
        return None
    along = np.asarray(shape.velocity) @ to / math.hypot(*shape.velocity)
    if along.min() >= WITHIN and distance[-1] <= NEARER * distance[0]:
        return "towards"
    if along.max() <= -WITHIN and distance[0] <= NEARER * distance[-1]:
        return "away from"
    return None
