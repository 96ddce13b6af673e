"""How captions are measured: CIDEr-D against values worked out by hand, chrF, and what captions of the world say."""

from __future__ import annotations

import math
from collections import Counter
from typing import get_args

import pytest

pytest.importorskip("torch")

from dailies.curation import world
from dailies.curation.world.script import ShapeKind
from dailies.training.captioner.attributes import COLORS, SHAPES, accuracy, attributes
from dailies.training.captioner.cider import cider_d

REFERENCES = ["a red circle", "a blue square"]
# Of two references, what both have weighs ln 2/2 = 0, and any other n-gram ln 2; the weight cancels out in a cosine of such.


@pytest.mark.parametrize(
    ("caption", "score"),
    [
        # Alike for n = 1, 2 and 3; neither has a 4-gram.
        ("a red circle", 10 * 3 / 4),
        ("A RED circle.", 10 * 3 / 4),
        # One of two words that weigh something, and no pair of words: cosine 1/2 for n = 1 alone.
        ("a red ring", 10 / 4 * (1 / 2 + 1 / 2)),
        ("a yellow circle", 10 / 4 * (1 / 2)),
        # Said three times, it counts once: 1·1 / (3·√2), the reference having "red" beside it. Without clipping: 1/√2.
        ("circle circle circle", 10 / 4 * 1 / (3 * math.sqrt(2))),
        # All of it and three words more: cosines 2/√(2·5), 2/√(2·5), 1/√(1·4), and e^(−3²/2·6²).
        (
            "a red circle it turns green",
            10 / 4 * math.exp(-9 / 72) * (2 / math.sqrt(10) + 2 / math.sqrt(10) + 1 / 2),
        ),
        ("", 0.0),
    ],
)
def test_cider_d_as_worked_out_by_hand(caption: str, score: float) -> None:
    scores = cider_d([caption, "a blue square"], REFERENCES)
    assert scores == pytest.approx([score, 7.5])


def test_rare_words_weigh_more() -> None:
    """Of four references three have "cat": ln 4/3 beside ln 4 for "black"."""
    references = ["black cat", "white cat", "grey cat", "dog"]
    often, rare = math.log(4 / 3), math.log(4)
    by_cat = often**2 / (often**2 + rare**2)
    assert cider_d(["red cat", "white cat", "grey cat", "dog"], references)[0] == pytest.approx(10 / 4 * by_cat)
    assert cider_d(["a dog"], ["a dog"]) == [0.0]  # how rare a word is, one reference does not say
    with pytest.raises(ValueError, match="zip"):
        cider_d(["a", "b"], ["a"])


def test_chrf_is_sacrebleus() -> None:
    pytest.importorskip("sacrebleu")
    from dailies.training.captioner.measures import chrf, quality

    assert chrf(REFERENCES, REFERENCES) == pytest.approx(100)
    assert 0 < chrf(["a red square", "a blue ring"], REFERENCES) < 100
    measured = quality(REFERENCES, REFERENCES, loss=6.0, correct=9, tokens=12)
    assert (measured.loss, measured.token_accuracy, measured.cider_d) == pytest.approx((0.5, 0.75, 7.5))
    assert (measured.colors, measured.shapes, measured.motion, measured.clips) == (1.0, 1.0, None, 2)


def test_what_a_caption_of_the_world_says() -> None:
    assert set(world.COLORS) == COLORS
    assert set(get_args(ShapeKind)) == SHAPES
    told = attributes(
        "a large red circle moves diagonally up and left and grows, a blue ring moves in a circle over a sandy orange"
        ' background, the camera pans right and zooms in, with the words "green star falls"'
    )
    assert told["colors"] == Counter(red=1, blue=1)
    assert told["shapes"] == Counter(circle=1, ring=1)
    assert told["motion"] == Counter(
        {"moves left up": 1, "grows": 1, "moves circling": 1, "pans right": 1, "zooms in": 1}
    )


def test_accuracy_takes_all_that_is_said_and_no_more() -> None:
    references = ["a red circle moves left over sand", "a blue ring stands still over sand"]
    assert accuracy(references, references) == {"colors": 1.0, "shapes": 1.0, "motion": 1.0}
    captions = ["a red square moves right over sand", "a blue ring and a blue ring stands still over sand"]
    assert accuracy(captions, references) == {"colors": 0.5, "shapes": 0.0, "motion": 0.5}
    assert accuracy(["a dog runs", "a cat"], ["a dog runs left", "a cat sits"]) is None
