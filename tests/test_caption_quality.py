"""What a caption's words say of it, by captions whose repetition, language and likeness are known."""

from __future__ import annotations

import json
from fractions import Fraction
from typing import Any

import pytest

from dailies.curation.caption_measures import agreement, chrf, echo, refusals, repetition, split_words, unprintable
from dailies.curation.chat import prompt_text
from dailies.curation.scorers.caption_quality import CaptionQualityScorer
from dailies.curation.timing import Span
from dailies.curation.types import Evidence
from dailies.pipelines.stages import score_rows


def clip(**columns: Any) -> Evidence:
    return Evidence(
        clip_id="one",
        span=Span(start=0, end=9, time_base=Fraction(1, 9)),
        frames=(),
        columns={"caption_fuse": None} | columns,
    )


def scored(spec: CaptionQualityScorer, **columns: Any) -> dict[str, Any]:
    if spec.sure is not None:
        pytest.importorskip("py3langid")
    with spec.open() as score:
        (row,) = score([clip(**columns)]).to_pylist()
    return row


# ---- words ----------------------------------------------------------------------------------------------------------


def test_words_are_told_without_punctuation_and_case() -> None:
    assert split_words("A man, the dog's owner — walks; it is 3.") == "a man the dog's owner walks it is 3".split()
    assert split_words("红色的圆 on sand") == ["红", "色", "的", "圆", "on", "sand"]
    assert split_words("赤い a") == ["赤", "い", "a"]
    assert split_words("… !") == []


# ---- repetition -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "size", "share"),
    [
        ("a red ring over a grey background", 3, 0.0),
        ("the ball rolls the ball rolls", 3, 1 / 4),  # 4 trigrams: the first comes again at the end
        ("red red red red red", 3, 2 / 3),  # 3 trigrams of one kind
        ("The ball. the BALL, the ball", 2, 3 / 5),  # of 5 pairs only "the ball" and "ball the" are new
        ("red red", 3, 0.0),  # too short to repeat three words
        ("red red red", 1, 2 / 3),
    ],
)
def test_repetition_is_the_share_of_ngrams_that_came_before(text: str, size: int, share: float) -> None:
    assert repetition(text, size) == pytest.approx(share)


def test_a_caption_in_a_loop_repeats_nearly_all() -> None:
    assert repetition("a man walks down a street " * 20) > 0.9


# ---- refusals -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "I'm sorry, but I can't help with that.",
        "I cannot see the video you mention.",
        "As an AI language model, I do not watch videos.",
        "No images were provided. Please upload the frames.",
        "I am unable to describe this clip.",
        "I can’t identify the people in it.",
        "This request violates our content policy.",
    ],
)
def test_a_refusal_is_found(text: str) -> None:
    assert refusals(text) >= 1


@pytest.mark.parametrize(
    "text",
    [
        "A man refuses to shake hands and looks sorry.",
        "The sign says: I cannot wait for summer.",
        "A robot with an AI chip helps a woman. The image is provided by a camera on its head.",
        "A girl says please to the shop assistant, who is not able to find the toy.",
        "The camera can't keep up with the car.",
        "A video game is played; the player dies.",
    ],
)
def test_a_caption_of_one_who_refuses_is_no_refusal(text: str) -> None:
    assert refusals(text) == 0


# ---- echo, unprintables ---------------------------------------------------------------------------------------------


def test_echo_is_the_share_of_the_prompt_and_not_of_the_caption() -> None:
    prompt = "Describe the video in one sentence."  # 4 trigrams
    assert echo("Describe the video in one sentence", prompt) == 1
    assert echo("Describe the video: " + "a ball rolls over a lawn, and " * 9, prompt) == pytest.approx(1 / 4)
    assert echo("a video in one sentence", prompt) == pytest.approx(2 / 4)
    assert echo("a ball", prompt) == 0
    assert echo("describe it, they say", "Describe it") == 1  # a prompt of two words has one pair
    assert echo("anything", "…") == 0


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("plain text,\nof two lines\tand a tab — “quoted”, 日本語, 👩‍🚀", 0),
        ("a\x00b\x1b[31m", 2),
        ("caf\ufffd", 1),
        ("\u202eevil\u202c", 2),
        ("\ue000\ud800", 2),  # private use, half of a pair
        ("\ufdd0", 1),  # not assigned
    ],
)
def test_unprintable_characters_are_counted(text: str, count: int) -> None:
    assert unprintable(text) == count


# ---- likeness -------------------------------------------------------------------------------------------------------


def test_chrf_by_hand() -> None:
    # "abcd" and "abce": 3 of 4 characters, 2 of 3 pairs, 1 of 2 triples, 0 of 1 quadruple; no longer ones.
    assert chrf("ab cd", "ABCE") == pytest.approx((3 / 4 + 2 / 3 + 1 / 2 + 0) / 4)
    assert chrf("a red ring", "a red ring") == 1
    assert chrf("abc", "xyz") == 0
    assert chrf("", "xyz") == 0
    # "ab" in "abab": precision 1 and 1, recall 2/4 and 1/3: counts are clipped, and the mean is harmonic.
    precision, recall = 1.0, (2 / 4 + 1 / 3) / 2
    assert chrf("ab", "abab") == pytest.approx(2 * precision * recall / (precision + recall))


PAIRS = [
    ("a red ring over a grey background", "a red circle on gray ground, slow motion"),
    ("A man rides a horse along the beach.", "a horse"),
    ("short", "a very long caption that has next to nothing in common with the other one"),
]


def test_chrf_is_sacrebleus_with_beta_1() -> None:
    metrics = pytest.importorskip("sacrebleu.metrics")
    other = metrics.CHRF(beta=1, lowercase=True)
    for left, right in PAIRS:
        assert chrf(left, right) == pytest.approx(other.sentence_score(left, [right]).score / 100, abs=1e-4)


def test_likeness_is_the_same_either_way() -> None:
    for left, right in PAIRS:
        assert chrf(left, right) == pytest.approx(chrf(right, left))


def test_agreement_is_a_mean_over_the_others() -> None:
    assert agreement("abc", ["abc", "xyz"]) == pytest.approx(0.5)
    assert agreement("abc", []) is None


# ---- the scorer -----------------------------------------------------------------------------------------------------


LANGUAGES = {
    "en": "A man rides a brown horse along the beach while the sun goes down behind him.",
    "de": "Ein Mann reitet am Strand auf einem braunen Pferd, während hinter ihm die Sonne untergeht.",
    "fr": "Un homme monte un cheval brun le long de la plage pendant que le soleil se couche.",
    "es": "Un hombre monta un caballo marrón por la playa mientras se pone el sol detrás de él.",
    "ja": "男の人が茶色い馬に乗って浜辺を進んでいます。",
    "zh": "一个男人骑着一匹棕色的马沿着海滩前进，太阳在他身后落下。",
    "ru": "Мужчина едет на коричневой лошади по пляжу, а за его спиной заходит солнце.",
}


@pytest.mark.parametrize("language", LANGUAGES)
def test_languages_are_told(language: str) -> None:
    assert scored(CaptionQualityScorer(), caption_fuse=LANGUAGES[language])["language"] == language


def test_of_a_text_too_short_to_tell_no_language_is_said() -> None:
    for text in ("a red ring", "1234", "!!!"):
        assert scored(CaptionQualityScorer(), caption_fuse=text)["language"] is None
    assert scored(CaptionQualityScorer(sure=0.0), caption_fuse="a red ring")["language"] is not None


def test_columns_of_one_caption() -> None:
    spec = CaptionQualityScorer(
        caption="caption_video", others=("caption_coca", "caption_motion"), prompt="describe", sure=None
    )
    assert spec.needs == ("caption_video", "caption_coca", "caption_motion")
    assert spec.requires == ()
    row = scored(spec, caption_video="a red ring\x07", caption_coca="a red ring", caption_motion=None)
    assert row == {
        "status": "ok",
        "why": None,
        "repetition": 0.0,
        "refusals": 0,
        "language": None,
        "word_count": 3,
        "prompt_echo": 0.0,
        "unprintable": 1,
        "agreement": pytest.approx(chrf("a red ring\x07", "a red ring")),
    }
    echoed = scored(spec, caption_video=prompt_text("describe"), caption_coca=" ", caption_motion=None)
    assert (echoed["prompt_echo"], echoed["agreement"]) == (1.0, None)
    assert json.dumps(echoed)


def test_a_clip_without_a_caption_costs_its_own_row_only() -> None:
    with CaptionQualityScorer(sure=None).open() as score:
        clips = [clip(caption_fuse="a ring"), clip(caption_fuse=None), clip(caption_fuse="a cross")]
        rows = score_rows("caption_quality", score, clips, looks=False)
    assert [row["status"] for row in rows] == ["ok", "failed", "ok"]
    assert "caption_fuse is empty" in rows[1]["failure"]["message"]
