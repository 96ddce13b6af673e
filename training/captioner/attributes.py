"""What a caption of the rendered world says of colours, shapes and motion, as words, whatever else it says.

A caption is right in one of these where it names what its reference names, each as often, and no more. Sizes, order and
the background's own colours do not count.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence

KINDS = ("colors", "shapes", "motion")
COLORS = frozenset({"red", "green", "blue", "yellow", "orange", "purple", "cyan", "pink", "white", "black"})
SHAPES = frozenset({"circle", "square", "triangle", "star", "ring", "cross", "heart"})
"""The world's own words, which a test holds alike: the world itself takes what a machine that trains may lack."""
VERBS = frozenset(
    {
        *("moves", "pans", "tilts", "rises", "falls", "grows", "shrinks", "shakes", "zooms", "rolls", "stands"),
        *("drifts", "slides", "turns", "rotates", "circles"),
    }
)
WAYS = frozenset({"left", "right", "up", "down", "in", "out", "clockwise", "anticlockwise", "still", "circling"})
BETWEEN = frozenset({"and", "diagonally", "slowly", "quickly", "fast"})  # a verb and its directions
_WORDS = re.compile(r"[a-z]+")
_QUOTED = re.compile(r'"[^"]*"')  # words that a picture has on it
_ORBIT = re.compile(r"\bin a circle\b")


def attributes(text: str) -> Mapping[str, Counter[str]]:
    """Return the words of ``text`` that say a colour, a shape, or how something moves, by ``KINDS``, each with its count.

    A colour counts where a shape follows it. A motion is a verb with its directions in order of the alphabet, such as
    "moves left up"; a direction without a verb before it counts as none.
    """
    tokens = _WORDS.findall(_ORBIT.sub("circling", _QUOTED.sub(" ", text.lower())))
    colors, shapes, motion = Counter[str](), Counter[str](), Counter[str]()
    for at, word in enumerate(tokens):
        if word in SHAPES:
            shapes[word] += 1
            if at and tokens[at - 1] in COLORS:
                colors[tokens[at - 1]] += 1
        elif word in VERBS:
            rest = tokens[at + 1 :]
            last = next((number for number, after in enumerate(rest) if after not in WAYS | BETWEEN), len(rest))
            motion[" ".join([word, *sorted(WAYS.intersection(rest[:last]))])] += 1
    return {"colors": colors, "shapes": shapes, "motion": motion}


def accuracy(captions: Sequence[str], references: Sequence[str]) -> dict[str, float] | None:
    """Return the share of captions that are right in each of ``KINDS``, ``None`` where references are of another world.

    They are of the rendered one where at least nine of ten name one of its shapes. A kind that no reference names is left
    out.
    """
    truths = [attributes(text) for text in references]
    if not truths or sum(bool(truth["shapes"]) for truth in truths) < 0.9 * len(truths):
        return None
    answers = [attributes(text) for text in captions]
    shares = {}
    for kind in KINDS:
        rows = [(answer[kind], truth[kind]) for answer, truth in zip(answers, truths, strict=True)]
        if any(truth for _, truth in rows):
            shares[kind] = sum(answer == truth for answer, truth in rows) / len(rows)
    return shares
