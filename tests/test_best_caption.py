"""The best of several captions, where it is known which fits: by similarity, by agreement, and what is lost on the way."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import pytest

from dailies.curation.caption_measures import chrf
from dailies.curation.captioners import CAPTIONERS
from dailies.curation.captioners.best import BestCaptioner
from dailies.curation.timing import Span
from dailies.curation.types import Evidence
from dailies.pipelines.recipes.recipe import parse_recipe
from dailies.pipelines.recipes.steps import CaptionStep
from dailies.pipelines.stages import score_rows

NAMES = ("coca", "video", "alt")
CAPTIONS = tuple(f"caption_{name}" for name in NAMES)
SIMILARITIES = tuple(f"fit_{name}" for name in NAMES)


def clip(texts: dict[str, str | None], fits: dict[str, float | None] | None = None, **more: Any) -> Evidence:
    columns: dict[str, Any] = {}
    for number, name in enumerate(NAMES):
        there = texts.get(name)
        columns |= {
            f"caption_{name}": there,
            f"tokens_{name}": None if there is None else 10 + number,
            f"status_{name}": "failed" if there is None else "ok",
            f"fields_{name}": None,
            f"flags_{name}": None,
            f"fit_{name}": (fits or {}).get(name),
        }
    span = Span(start=0, end=9, time_base=Fraction(1, 9))
    return Evidence(clip_id="one", span=span, frames=(), columns=columns | more)


def best(spec: BestCaptioner, *clips: Evidence) -> list[dict[str, Any]]:
    with spec.open() as caption:
        return score_rows("best", caption, clips, spec.columns, looks=False)


def test_the_caption_that_fits_best_is_copied_with_all_that_is_known_of_it() -> None:
    spec = BestCaptioner(captions=CAPTIONS, similarities=SIMILARITIES, agreement_weight=0)
    texts = {"coca": "a dog", "video": "a dog runs over a lawn", "alt": "IMG 3"}
    (row,) = best(
        spec,
        clip(
            texts,
            {"coca": 0.2, "video": 0.31, "alt": 0.1},
            status_video="truncated",
            flags_video="a,b",
            fields_video="{}",
        ),
    )
    told = {name: row[name] for name in ("text", "tokens", "chosen", "model", "status", "flags", "fields", "failure")}
    assert told == {
        "text": "a dog runs over a lawn",
        "tokens": 11,
        "chosen": "video",
        "model": "video",
        "status": "truncated",
        "flags": "a,b",
        "fields": "{}",
        "failure": None,
    }


def test_agreement_picks_the_caption_that_the_others_are_like() -> None:
    texts = {"coca": "a red ring", "video": "a red ring over sand", "alt": "my holidays in Rome"}
    (row,) = best(BestCaptioner(captions=CAPTIONS), clip(texts))
    means = {
        name: sum(chrf(text, other) for at, other in texts.items() if at != name) / 2 for name, text in texts.items()
    }
    assert row["chosen"] == max(means, key=lambda name: means[name]) != "alt"


def test_weights_decide_between_what_fits_and_what_the_others_say() -> None:
    texts = {"coca": "a red ring over sand", "video": "a red ring over the sand", "alt": "holidays in Rome"}
    fits = {"coca": 0.20, "video": 0.20, "alt": 0.24}
    by = {
        weight: best(
            BestCaptioner(captions=CAPTIONS, similarities=SIMILARITIES, agreement_weight=weight), clip(texts, fits)
        )[0]["chosen"]
        for weight in (0.0, 1.0)
    }
    assert by[0.0] == "alt" != by[1.0]
    doubled = BestCaptioner(captions=CAPTIONS, similarities=SIMILARITIES, similarity_weight=50, agreement_weight=1)
    assert best(doubled, clip(texts, fits))[0]["chosen"] == "alt"


def test_a_caption_does_not_agree_with_itself() -> None:
    """The others' agreement weighs as much as is said: were a caption's own likeness to itself in it, it would weigh a third
    less."""
    texts = {"coca": "a red ring over sand", "video": "a red ring over the sand", "alt": "holidays in Rome"}
    agreed = {
        name: sum(chrf(text, other) for at, other in texts.items() if at != name) / 2 for name, text in texts.items()
    }
    ahead = max(agreed["coca"], agreed["video"]) - agreed["alt"]
    spec = BestCaptioner(captions=CAPTIONS, similarities=SIMILARITIES, agreement_weight=1)
    chosen = {
        part: best(spec, clip(texts, {"coca": 0.0, "video": 0.0, "alt": part * ahead}))[0]["chosen"]
        for part in (0.85, 1.05)
    }
    assert chosen[0.85] != "alt"
    assert chosen[1.05] == "alt"


def test_what_is_not_there_is_not_chosen() -> None:
    spec = BestCaptioner(captions=CAPTIONS, similarities=SIMILARITIES)
    fits = {"coca": 0.1, "video": 0.9, "alt": 0.2}
    assert best(spec, clip({"coca": "a dog", "video": None, "alt": "a dog"}, fits))[0]["chosen"] == "alt"
    assert best(spec, clip({"coca": "a dog", "video": "  ", "alt": None}, fits))[0]["chosen"] == "coca"
    # One whose similarity is not known loses to one that has any, and is taken where none has.
    some = {"coca": None, "video": -0.2, "alt": None}
    assert best(spec, clip(dict.fromkeys(NAMES, "a dog"), some))[0]["chosen"] == "video"
    assert best(spec, clip({"coca": None, "video": None, "alt": "a dog"}, some))[0]["chosen"] == "alt"


def test_a_clip_without_any_caption_is_its_own_failure() -> None:
    spec = BestCaptioner(captions=CAPTIONS)
    rows = best(spec, clip({"coca": "a dog"}), clip({}), clip({"alt": "a cat"}))
    assert [row["status"] for row in rows] == ["ok", "failed", "ok"]
    assert "all are empty" in rows[1]["failure"]["message"]


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"captions": ["caption_a"]}, "captions"),
        ({"captions": ["caption_a", "text_area"]}, "captions"),
        ({"captions": ["caption_a", "caption_a"]}, "twice"),
        ({"captions": ["caption_a", "caption_b"], "similarities": ["x"]}, "one for each of the 2"),
        ({"captions": ["caption_a", "caption_b"], "agreement_weight": 0}, "nothing is left"),
        ({"captions": ["caption_a", "caption_b"], "agreement_weight": -1}, "agreement_weight"),
    ],
)
def test_a_choice_that_cannot_be_made_is_refused(wrong: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        BestCaptioner(**wrong)


def test_later_steps_know_what_was_chosen() -> None:
    recipe = parse_recipe(
        {
            "name": "chosen",
            "steps": [
                {"observe": {"observers": ["boundary", "motion"], "evidence": {"fps": 1}}},
                {"cut": {"detector": "boundary"}},
                {"caption": {"captioner": "motion"}},
                {"caption": {"captioner": "motion", "name": "other"}},
                {"caption": {"captioner": {"best": {"captions": ["caption_motion", "caption_other"]}}}},
                {"select": {"rules": {"chosen_best": {"one_of": ["other"], "nulls": "drop"}}}},
            ],
        }
    )
    step = next(step for step in recipe.steps if isinstance(step, CaptionStep) and step.name == "caption_best")
    assert isinstance(step.captioner, CAPTIONERS["best"])
    assert {earlier.name for earlier in recipe.feeding(step)} == {"caption_motion", "caption_other"}


def test_a_clip_without_captions_costs_the_others_no_batch() -> None:
    spec = BestCaptioner(captions=CAPTIONS)
    with spec.open() as caption:
        there, none = caption([clip({"coca": "a dog"}), clip({})]).to_pylist()
    assert (there["text"], there["chosen"], there["status"]) == ("a dog", "coca", "ok")
    assert (none["text"], none["chosen"], none["status"], none["why"]["kind"]) == (None, None, "failed", "unusable")
    (row,) = best(spec, clip({}))
    assert "all are empty" in row["failure"]["message"]
