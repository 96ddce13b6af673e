"""What models think before they answer is no part of the answer."""

from __future__ import annotations

import time
from types import SimpleNamespace
from typing import Any, cast

import pytest

from dailies.curation.chat import Reply
from dailies.curation.chat.generation import Answer
from dailies.curation.chat.thinking import without_thinking
from dailies.curation.chat.transformers_chat import _Chat


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("a cat", "a cat"),
        ("a cat thinks, <b>a dog</b> too", "a cat thinks, <b>a dog</b> too"),
        ("<think>\n\n</think>\n\na cat", "a cat"),
        ("a dog? <think>no</think> so\n</think> a cat", "a cat"),
        ("<thinking>a dog?</thinking>a cat", "a cat"),
        ("[THINK]a dog?[/THINK]a cat", "a cat"),
        ("<think>a dog?", ""),
        ("<think>a</think><think>b", ""),
        ('a sign says "<think>"', 'a sign says "<think>"'),
    ],
)
def test_an_answer_is_what_comes_after_the_thoughts(text: str, answer: str) -> None:
    assert without_thinking(text) == answer


def test_the_longest_answer_takes_no_time() -> None:
    began = time.process_time()
    assert without_thinking("<" * (4 << 20)) == "<" * (4 << 20)
    assert time.process_time() - began < 1


@pytest.mark.parametrize(
    ("text", "ended", "outcome", "said", "why"),
    [
        ("<think>a dog?</think>a cat", True, "ok", "a cat", None),
        ("<think>a dog?</think>a c", False, "truncated", "a c", None),
        ("<think>a dog?", False, "empty", "", "only thoughts came before the most tokens"),
        ("", True, "empty", "", "the model wrote nothing"),
    ],
)
def test_a_model_of_transformers_that_thinks(text: str, ended: bool, outcome: str, said: str, why: str | None) -> None:
    origin = Reply(text="", outcome="empty", model="tiny")
    chat = _Chat(loaded=cast(Any, None), origin=origin, budget=1, pool=cast(Any, None), threads=1)
    reply = chat._reply(cast(Any, SimpleNamespace(tokens=9)), Answer(text=text, tokens=5, ended=ended))
    assert (reply.outcome, reply.text) == (outcome, said)
    assert (reply.why or "").startswith(why or "")
    assert (reply.why is None) == (why is None)
