"""What the built-in video captioner says of a scene: the world's "sentence", in an order that can be seen.

A picture does not show which shape was drawn first, so shapes are told from left to right as they stand half way through,
and of two opposite relations always the same one is said: "left of" and "above". Text is named and not read: it is too
small on the model's pictures.
"""

from __future__ import annotations

from dailies.curation.world import Shot
from dailies.curation.world.relations import OPPOSITES, Relation, relations
from dailies.curation.world.telling import sentence, who_does_what

_TURNED = {"right of": "left of", "below": "above"}


def video_caption(shot: Shot, *, short_side: int, fps: float) -> str:
    """The caption to learn, in lower case as the vocabulary is: "a small red circle moves slowly left, above a …"."""
    pairs = relations(shot, fps) if len(shot.shapes) == 2 else ()
    middle = (shot.frames - 1) / 2 / fps
    order = sorted(range(len(shot.shapes)), key=lambda index: shot.shapes[index].at(middle)[0])
    relation = _turned(pairs[0]) if pairs else None
    who = who_does_what(shot, short_side, relation, order=order)
    return sentence(shot, who, "words on it" if shot.overlays else "").lower().rstrip(".")


def _turned(relation: Relation) -> Relation:
    if relation.kind not in _TURNED:
        return relation
    kind = OPPOSITES[relation.kind]
    return Relation(subject=relation.other, kind=kind, other=relation.subject)  # type: ignore[arg-type]
