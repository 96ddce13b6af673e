"""A yes/no question about a clip: what is asked, what is taken for an answer, and VidRD's rule from end to end."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from fractions import Fraction
from typing import Any, ClassVar

import numpy as np
import pytest
from pydantic.dataclasses import dataclass

from dailies.curation.captioners import CocaCaptioner
from dailies.curation.chat import Ask, Reply, prompt_text
from dailies.curation.config import SPEC
from dailies.curation.errors import RecipeError, Unanswered
from dailies.curation.scorers.ask import AskEndpointScorer, Question, yes_or_no
from dailies.curation.timing import Span
from dailies.curation.types import Evidence, EvidenceFrame, Resources
from dailies.curation.video import jpeg
from dailies.pipelines.recipes.recipe import load_recipe
from dailies.pipelines.recipes.specs import meaning_of
from dailies.pipelines.recipes.steps import CaptionStep, SelectStep
from dailies.pipelines.stages import score_rows
from tests.chat_server import MODEL, ChatServer, HttpAnswer, completion


@dataclass(frozen=True, kw_only=True, config=SPEC)
class Oracle(Question):
    """Says yes of captions that tell of a ring, and keeps what it was asked; of "…" it says nothing, and of "?" it fails."""

    requires: ClassVar[tuple[str, ...]] = ()
    models: ClassVar[tuple[str, ...]] = ()
    resources: ClassVar[Resources] = Resources()
    asked: ClassVar[list[Ask]] = []

    def weights(self) -> None:
        return None

    def check(self) -> None:
        return None

    @contextmanager
    def chat(self) -> Iterator[Callable[[Sequence[Ask]], list[Reply]]]:
        def reply(ask: Ask) -> Reply:
            self.asked.append(ask)
            if '?"' in ask.text:
                return Reply(text="", outcome="failed", why="no room", model="oracle")
            return Reply(text="Hmm …" if "…" in ask.text else "Yes." if "ring" in ask.text else "NO", model="oracle")

        yield lambda asks: [reply(ask) for ask in asks]


def clip(caption: str | None, number: int = 0, frames: int = 5, picture: bytes | None = None) -> Evidence:
    span = Span(start=100, end=100 + 10 * frames, time_base=Fraction(1, 10))
    shown = tuple(EvidenceFrame(pts=100 + 10 * at, jpeg=picture or b"%d" % at) for at in range(frames))
    columns = {"caption_fuse": caption, "content_id": f"content-{number}", "stream": 0}
    return Evidence(clip_id=str(number), span=span, frames=shown, columns=columns)


def answered(spec: Oracle, *captions: str | None) -> list[dict[str, Any]]:
    Oracle.asked.clear()
    with spec.open() as score:
        return score_rows("ask", score, [clip(text, at) for at, text in enumerate(captions)], spec.columns)


@pytest.mark.parametrize(
    ("reply", "answer"),
    [
        ("Yes", "yes"),
        ("yes.", "yes"),
        ("**No**, the ring is blue.", "no"),
        ("No, there is a yes on the sign", "no"),
        ("Answer: yes", "yes"),
        ("The answer is no.", "no"),
        ("\n Yes, and no more", "yes"),
        ("There is no way to tell", None),
        ("Not sure", None),
        ("Yesterday", None),
        ("I cannot say yes or no.", None),
        ("", None),
    ],
)
def test_what_a_reply_begins_with_is_its_answer(reply: str, answer: str | None) -> None:
    assert yes_or_no(reply) == answer


def test_each_caption_is_put_into_the_question_with_frames_of_its_clip() -> None:
    rows = answered(Oracle(frames=3), "a red ring", "a {caption} cross", "…")
    assert [(row["answer"], row["answer_reply"]) for row in rows] == [("yes", "Yes."), ("no", "NO"), (None, "Hmm …")]
    assert [row["status"] for row in rows] == ["ok"] * 3
    first, second, _ = Oracle.asked
    assert first.text == prompt_text("caption-fits").replace("{caption}", "a red ring")
    assert 'says: "a {caption} cross"' in second.text
    assert [(image.jpeg, image.seconds) for image in first.images] == [(b"0", 0.0), (b"2", 2.0), (b"4", 4.0)]
    assert (first.max_tokens, first.temperature) == (16, 0.0)


def test_a_question_without_a_place_for_a_caption_reads_none() -> None:
    spec = Oracle(question="Does a person speak into the camera? Answer yes or no.")
    assert spec.needs == ()
    assert [row["answer"] for row in answered(spec, None, None)] == ["no", "no"]
    assert Oracle().needs == ("caption_fuse",)


def test_a_clip_that_is_not_answered_costs_its_own_row_and_is_asked_again_later() -> None:
    rows = answered(Oracle(), "a ring", "what is it?", "a cross")
    assert [row["answer"] for row in rows] == ["yes", None, "no"]
    assert [row["status"] for row in rows] == ["ok", "failed", "ok"]
    assert rows[1]["failure"]["kind"] == Unanswered.kind
    assert "no room" in rows[1]["failure"]["message"]
    assert len(Oracle.asked) == 3, "nobody is asked twice for the one that failed"
    empty = answered(Oracle(), "a ring", None)
    assert [row["status"] for row in empty] == ["ok", "failed"]
    assert "caption_fuse is empty" in empty[1]["failure"]["message"]


def test_a_server_answers() -> None:
    def behaviour(asked: Any) -> HttpAnswer:
        return completion("Yes, it does." if "ring" in asked.text else "No.")(asked)

    picture = jpeg(np.zeros((36, 64, 3), np.uint8), 90)
    with ChatServer(behaviour) as server:
        spec = AskEndpointScorer(url=server.url, model=MODEL, key_env=None)
        with spec.open() as score:
            rows = score([clip(text, picture=picture) for text in ("a red ring", "a cross")]).to_pylist()
    assert [row["answer"] for row in rows] == ["yes", "no"]


def test_a_question_must_be_there() -> None:
    with pytest.raises(ValueError, match=r"no such prompt.*did you mean caption-fits"):
        Oracle(question="caption-fit")


# ---- VidRD's rule ---------------------------------------------------------------------------------------------------


def test_a_random_frame_is_drawn_by_the_clip_and_the_seed() -> None:
    spec = CocaCaptioner(frame="random")
    drawn = [spec._frame(clip("", number)).jpeg for number in range(400)]
    assert drawn == [spec._frame(clip("", number)).jpeg for number in range(400)]
    counts = Counter(drawn)
    assert len(counts) == 5
    assert all(50 < count < 110 for count in counts.values()), "each frame as often as another"
    other = CocaCaptioner(frame="random", seed=1)
    assert sum(other._frame(clip("", number)).jpeg != drawn[number] for number in range(400)) > 250
    assert {CocaCaptioner()._frame(clip("", number)).jpeg for number in range(20)} == {b"2"}


def test_tables_of_captions_of_the_middle_frame_keep_their_names() -> None:
    assert "frame" not in str(meaning_of(CocaCaptioner()))
    assert meaning_of(CocaCaptioner()) != meaning_of(CocaCaptioner(frame="random"))


def test_the_recipe_is_vidrds_rule() -> None:
    recipe = load_recipe("vidrd", ["ask.model=/models/vlm"])
    (caption,) = (step for step in recipe.steps if isinstance(step, CaptionStep))
    assert caption.captioner.frame == "random"
    rules = recipe.step(SelectStep).rules
    assert set(rules) == {"clip_similarity", "answer"}
    assert rules["answer"].one_of == ("yes",)
    asked = next(step for step in recipe.before(None) if step.name == "ask")
    assert asked.spec.needs == ("caption_coca",)
    with pytest.raises(RecipeError, match="frame"):
        load_recipe("vidrd", ["caption_coca.frame=last"])


def test_clips_without_a_caption_cost_the_others_no_call_of_their_own() -> None:
    calls: list[int] = []

    class Counted(Oracle):
        @contextmanager
        def chat(self) -> Iterator[Callable[[Sequence[Ask]], list[Reply]]]:
            with super().chat() as chat:
                yield lambda asks: (calls.append(len(asks)), chat(asks))[1]

    rows = answered(Counted(), "a ring", None, "a cross", " ", "a ring")
    assert [row["answer"] for row in rows] == ["yes", None, "no", None, "yes"]
    assert [row["failure"] and row["failure"]["kind"] for row in rows] == [None, "unusable", None, "unusable", None]
    assert calls == [3]
