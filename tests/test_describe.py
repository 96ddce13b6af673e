"""Captions by a chat model: what of a clip is put to it, and what row comes of each answer."""

from __future__ import annotations

import json
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any, ClassVar

import pytest
from pydantic.dataclasses import dataclass

from dailies.curation.captioners import VideoCaptioner
from dailies.curation.captioners.describe import Describe
from dailies.curation.chat import Ask, prompt_hash
from dailies.curation.config import SPEC
from dailies.curation.timing import Span
from dailies.curation.types import Evidence, EvidenceFrame
from tests.canned_chat import CannedChat
from tests.conftest import Dailies


@dataclass(frozen=True, kw_only=True, config=SPEC)
class Canned(Describe, CannedChat):
    """Answers with what it is told to, and keeps what it was asked."""

    asked: ClassVar[list[Ask]] = []


def a_clip(frames: int = 9, *, start: int = 300, content: str = "a", **columns: Any) -> Evidence:
    """A clip of ``frames`` at two a second, whose JPEGs are their numbers."""
    shown = tuple(EvidenceFrame(pts=start + 50 * at, jpeg=b"%d" % at) for at in range(frames))
    span = Span(start=start, end=start + 50 * frames, time_base=Fraction(1, 100))
    return Evidence(clip_id="clip", span=span, frames=shown, columns={"content_id": content, "stream": 0, **columns})


def captioned(spec: Canned, clips: Sequence[Evidence]) -> list[dict[str, Any]]:
    with spec.open() as caption:
        rows: list[dict[str, Any]] = caption(clips).to_pylist()
        assert caption([]).num_rows == 0
        Canned.asked.clear()
        caption(clips)
    return rows


def test_frames_are_spread_over_the_clip_with_their_seconds() -> None:
    captioned(Canned(frames=3, replies=({"text": "a"},)), [a_clip()])
    assert [(image.jpeg, image.seconds) for image in Canned.asked[0].images] == [(b"0", 0.0), (b"4", 2.0), (b"8", 4.0)]
    captioned(Canned(frames=12, replies=({"text": "a"},)), [a_clip(2)])
    assert [image.jpeg for image in Canned.asked[0].images] == [b"0", b"1"]


def test_parameters_reach_the_model() -> None:
    spec = Canned(
        prompt="what is it?", system="be brief", max_tokens=7, temperature=0.5, seed=4, replies=({"text": "a"},) * 3
    )
    captioned(spec, [a_clip(), a_clip(), a_clip(content="b")])
    one, same, other = Canned.asked
    assert (one.text, one.system, one.max_tokens, one.temperature) == ("what is it?", "be brief", 7, 0.5)
    assert one.schema is None
    assert one.seed == same.seed != other.seed


@pytest.mark.parametrize(
    ("reply", "status", "why"),
    [
        ({"text": "a dog", "tokens": 2}, "ok", None),
        ({"text": "a d", "tokens": 2, "outcome": "truncated"}, "truncated", None),
        ({"outcome": "empty", "why": "nothing", "tokens": 0}, "empty", "empty"),
        ({"outcome": "blocked", "why": "refused"}, "blocked", "blocked"),
        ({"outcome": "failed", "why": "no JPEG", "kind": "unreadable"}, "failed", "unreadable"),
        ({"outcome": "failed", "why": "gone"}, "failed", "unanswered"),
    ],
)
def test_each_answer_is_a_row_with_its_state(reply: dict[str, Any], status: str, why: str | None) -> None:
    (row,) = captioned(Canned(replies=({"revision": "r1", "prompt_tokens": 9, **reply},)), [a_clip()])
    assert (row["status"], row["text"] or None) == (status, reply.get("text"))
    assert (row["why"] or {}).get("kind") == why
    assert (row["why"] is None) or reply["why"] in row["why"]["message"]
    assert (row["model"], row["revision"], row["prompt_tokens"]) == ("canned", "r1", 9)
    assert row["prompt_hash"] == prompt_hash("describe")


ANSWER = {"subject": "a dog", "action": "runs", "camera": "stands still"}


def test_a_caption_in_fields_has_its_text_and_the_measured_camera() -> None:
    spec = Canned(
        fields=True, camera="motion_camera", replies=({"text": f"```{json.dumps(ANSWER)}```", "tokens": 9},) * 2
    )
    assert spec.needs == ("content_id", "stream", "motion_camera")
    panned, unclear = captioned(spec, [a_clip(motion_camera="pan right"), a_clip(motion_camera=None)])
    assert json.loads(panned["fields"])["camera"] == "pans right"
    assert (panned["text"], panned["flags"]) == ("A dog runs. Camera: pans right.", "against_camera")
    assert (unclear["text"], unclear["flags"]) == ("A dog runs. Camera: stands still.", None)
    (ask, _) = Canned.asked
    assert ask.schema is not None
    assert '"subject"' in ask.text
    assert panned["prompt_hash"] == prompt_hash(ask.text) != prompt_hash("describe")


def test_an_answer_without_its_fields_is_a_failure_of_its_form() -> None:
    replies = ({"text": "a dog runs", "tokens": 3}, {"text": "{}", "tokens": 1})
    malformed, empty = captioned(Canned(fields=True, replies=replies), [a_clip(), a_clip()])
    assert (malformed["status"], malformed["why"]["kind"], malformed["text"]) == ("failed", "malformed", None)
    assert (empty["status"], empty["text"], empty["tokens"]) == ("empty", None, None)


def test_a_measured_camera_alone_is_no_caption() -> None:
    (row,) = captioned(
        Canned(fields=True, camera="motion_camera", replies=({"text": "{}"},)), [a_clip(motion_camera="pan right")]
    )
    assert (row["status"], row["text"], row["fields"]) == ("empty", None, None)


def test_fields_that_are_cut_off_say_what_to_raise() -> None:
    cut = {"text": '{"subject": {"subject": "a d', "outcome": "truncated"}
    (row,) = captioned(Canned(fields=True, max_tokens=9, replies=(cut,)), [a_clip()])
    assert (row["status"], row["why"]["kind"], row["text"]) == ("failed", "malformed", None)
    assert row["why"]["message"].startswith("max_tokens=9: the answer was cut off there")


@pytest.mark.parametrize("bad", [{"text": "a \ud83d dog"}, {"text": "a dog", "tokens": 1 << 40}])
def test_an_answer_that_no_table_holds_costs_its_own_row(bad: dict[str, Any]) -> None:
    rows = captioned(Canned(replies=({"text": "a cat"}, bad, {"text": "a cow"})), [a_clip()] * 3)
    assert [(row["status"], row["text"]) for row in rows] == [("ok", "a cat"), ("failed", None), ("ok", "a cow")]
    assert rows[1]["why"]["kind"] == "malformed"


def test_a_plain_caption_against_the_measured_camera_is_flagged() -> None:
    replies = ({"text": "A dog, filmed with a static camera."},) * 2
    panned, still = captioned(
        Canned(camera="motion_camera", replies=replies),
        [a_clip(motion_camera=label) for label in ("pan right", "static")],
    )
    assert (panned["flags"], still["flags"]) == ("against_camera", None)
    assert panned["text"] == "A dog, filmed with a static camera."


def test_a_captioner_without_a_default_model_is_explained(dailies: Dailies) -> None:
    told = dailies("recipe", "explain", "ask")
    assert told.returncode == 0, told.stderr
    assert "weights (model)" in told.stdout


# ---- from end to end ------------------------------------------------------------------------------------------------


def test_a_recipe_captions_clips_with_a_folder(dailies: Dailies, small_world: Path, tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    from tests.tiny_chat_models import save_tiny

    model = save_tiny("qwen3-vl", tmp_path / "tiny-qwen3-vl")
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(
        "name: told\nsteps:\n- observe: {evidence: {fps: 2, short_side: 90}, observers: [change]}\n"
        "- cut: {detector: content, min_seconds: 0.5}\n"
        f"- caption: {{captioner: {{video: {{model: {model}, max_tokens: 5, frames: 4}}}}}}\n"
    )
    sources = sorted(small_world.glob("*.mp4"))[:1]
    done = dailies("curate", *sources, "--recipe", recipe, "--out", tmp_path / "data")
    assert done.returncode == 0, done.stderr
    told = dailies("sql", tmp_path / "data", "--json", "SELECT * FROM captions_video")
    assert told.returncode == 0, told.stderr
    rows = json.loads(told.stdout)
    assert len(rows) > 1
    assert {row["revision_video"] for row in rows} == {VideoCaptioner(model=str(model)).weights()}
    assert {row["model_video"] for row in rows} == {"tiny-qwen3-vl"}, "a table names no place of its maker"
    assert all(len(row["caption_video"]) > 1 and 1 <= row["tokens_video"] <= 5 for row in rows)
    assert {row["status_video"] for row in rows} <= {"truncated", "ok"}
