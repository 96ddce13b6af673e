"""What a caption says of a rendered scene, taken apart, so that it can be compared with the truth word by word."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import get_args

from dailies.curation.world import BACKGROUNDS, COLORS, Shot
from dailies.curation.world.relations import OPPOSITES, relations
from dailies.curation.world.script import ShapeKind, Texture

Pair = tuple[str, str]  # (colour, kind)
_KINDS, _TEXTURES = get_args(ShapeKind), get_args(Texture)
_SHAPE = re.compile(rf"\b(?:({'|'.join(COLORS)}) )?({'|'.join(_KINDS)})\b")
_MOTION = re.compile(
    r"moves diagonally (?:up|down) and (?:left|right)|moves (?:left|right|up|down)\b|circles|grows|shrinks|stands still"
)
_ROUND = "moves in a circle"  # in which no circle is named
_CAMERA = re.compile(
    r"pans (?:left|right)|tilts (?:up|down)|moves diagonally \w+ and \w+|zooms (?:in|out)|shakes|stands still"
)
_RELATION = re.compile(r"left of|right of|above|below|behind|in front of|towards|away from")
_GROUND = re.compile(rf"\b({'|'.join(_TEXTURES)}) (?:and )?({'|'.join(BACKGROUNDS)})\b")
STILL = "stands still"


@dataclass(frozen=True, slots=True, kw_only=True)
class Attributes:
    """``shapes``: (colour, kind) in the order told; ``motions``: of each, "" where none is told; ``relations``: (shape,
    relation, other shape), the opposite one too; ``camera``: its motion; ``ground``: texture and colour.
    """

    shapes: tuple[Pair, ...]
    motions: tuple[str, ...]
    relations: frozenset[tuple[Pair, str, Pair]]
    camera: str
    ground: Pair


def said(caption: str) -> Attributes:
    """Take a caption apart: one of the world's styles but tags, or a built-in captioner's."""
    text = re.sub(r"\b(?:slowly|quickly) ", "", caption.lower()).replace(_ROUND, "circles")
    scene, _, rest = text.partition("the camera ")
    who = re.split(r",? over an? |the background", scene)[0]
    shapes, motions, told = [], [], set()
    hits = list(_SHAPE.finditer(who))
    for at, hit in enumerate(hits):
        after = who[hit.end() : hits[at + 1].start() if at + 1 < len(hits) else len(who)]
        shapes.append((hit[1] or "", hit[2]))
        motion = _MOTION.search(after)
        motions.append(motion[0].replace("circles", _ROUND) if motion else "")
        relation = _RELATION.search(after[motion.end() if motion else 0 :])
        if relation and at + 1 < len(hits):
            told |= _both_ways(shapes[-1], relation[0], (hits[at + 1][1] or "", hits[at + 1][2]))
    camera, ground = _CAMERA.findall(rest), _GROUND.search(text)
    return Attributes(
        shapes=tuple(shapes),
        motions=tuple(motions),
        relations=frozenset(told),
        camera=" and ".join(camera) or STILL,
        ground=(ground[1], ground[2]) if ground else ("", ""),
    )


def true(shot: Shot, fps: float) -> Attributes:
    """What a perfect caption of the shot says."""
    pairs = [(shape.color, shape.kind) for shape in shot.shapes]
    told = set()
    for relation in relations(shot, fps) if len(pairs) == 2 else ():
        told |= _both_ways(pairs[relation.subject], relation.kind, pairs[relation.other])
    return Attributes(
        shapes=tuple(pairs),
        motions=tuple(shape.motion for shape in shot.shapes),
        relations=frozenset(told),
        camera=shot.camera.motion,
        ground=(shot.background.texture, shot.background.color),
    )


def _both_ways(first: Pair, relation: str, second: Pair) -> set[tuple[Pair, str, Pair]]:
    opposite = OPPOSITES.get(relation)
    return {(first, relation, second)} | ({(second, opposite, first)} if opposite else set())


def scores(pairs: Iterable[tuple[Attributes, Attributes]]) -> Mapping[str, float]:
    """Shares that are right, of (said, true) pairs.

    ``colors``, ``shapes``, ``both``: clips whose colours, kinds, or both together are all named and no others.
    ``motion``: motion words, one for each shape and one for the camera; a shape's is right where the caption gives it to
    that colour and kind. ``motion_of_shapes``, ``camera``: its two parts. ``motion_clips``: clips with every motion
    word right. ``relations``: clips with one, where it is told. ``ground``: texture and colour.
    """
    rows = [_row(told, truth) for told, truth in pairs]

    def share(right: str, of: str) -> float:
        return round(sum(row[right] for row in rows) / max(1, sum(row[of] for row in rows)), 4)

    return {
        "clips": len(rows),
        "colors": share("colors", "clip"),
        "shapes": share("kinds", "clip"),
        "both": share("both", "clip"),
        "motion": share("motion", "words"),
        "motion_of_shapes": share("moving", "motions"),
        "camera": share("camera", "clip"),
        "motion_clips": share("all", "clip"),
        "relations": share("relation", "related"),
        "ground": share("ground", "clip"),
    }


def _row(told: Attributes, truth: Attributes) -> dict[str, int]:
    by_shape = dict(zip(told.shapes, told.motions, strict=True))
    moving = sum(by_shape.get(pair) == motion for pair, motion in zip(truth.shapes, truth.motions, strict=True))
    camera, count = told.camera == truth.camera, len(truth.shapes)
    return {
        "clip": 1,
        "colors": sorted(color for color, _ in told.shapes) == sorted(color for color, _ in truth.shapes),
        "kinds": sorted(kind for _, kind in told.shapes) == sorted(kind for _, kind in truth.shapes),
        "both": sorted(told.shapes) == sorted(truth.shapes),
        "motion": moving + camera,
        "words": count + 1,
        "moving": moving,
        "motions": count,
        "camera": camera,
        "all": moving + camera == count + 1,
        "relation": bool(truth.relations) and bool(truth.relations & told.relations),
        "related": bool(truth.relations),
        "ground": told.ground == truth.ground,
    }
