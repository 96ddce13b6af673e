"""Answers of OpenAI-compatible servers, read as what anybody may have written: whatever is not as agreed is said so."""

from __future__ import annotations

import json
from typing import Any

from dailies.curation.chat.asking import Outcome, Reply
from dailies.curation.chat.thinking import ONLY_THOUGHT, without_thinking
from dailies.curation.plain_text import clean, one_line, shortened

LONGEST_LINE = 300  # characters of what a server says for people
LONGEST_NAME = 200
INT32 = 1 << 31
THOUGHTS = ("reasoning_content", "reasoning")
"""Where a server that parts thoughts from the answer puts them."""
BLOCKED = frozenset({"content_filter", "content_policy_violation", "moderation_blocked"})
"""Codes of errors by which servers say that a filter let nothing through."""


class MalformedAnswer(ValueError):
    """An answer that is not of the agreed form; says in a few words how."""


def read_reply(body: bytes, *, model: str, revision: str | None) -> Reply:
    """Return the answer that a body of status 200 holds. ``model``, ``revision``: for where it names none.

    Raises ``MalformedAnswer``.
    """
    answer = _object(body)
    choice = _first(answer.get("choices"))
    message = choice.get("message")
    if not isinstance(message, dict):
        raise MalformedAnswer("its answer holds no message")
    content, refusal, finish = message.get("content"), message.get("refusal"), choice.get("finish_reason")
    if not isinstance(content, str | None):
        raise MalformedAnswer("its answer's content is no text")
    written, why = clean(content or "").strip(), None
    text = without_thinking(written)
    thought = bool(written) or any(isinstance(message.get(name), str) and message[name] for name in THOUGHTS)
    outcome: Outcome = "ok"
    if finish == "content_filter" or (isinstance(refusal, str) and refusal):
        text, outcome = "", "blocked"
        why = _line(refusal) if isinstance(refusal, str) and refusal else "a filter of contents stopped it"
    elif not text:
        outcome, why = "empty", "no text came"
        if finish == "length":
            why = ONLY_THOUGHT if thought else "no text came before the most tokens"
    elif finish == "length":
        outcome = "truncated"
    usage = answer.get("usage")
    return Reply(
        text=text,
        outcome=outcome,
        why=why,
        tokens=_count(usage, "completion_tokens"),
        prompt_tokens=_count(usage, "prompt_tokens"),
        model=_name(answer.get("model")) or model,
        revision=revision or _name(answer.get("system_fingerprint")),
    )


def read_error(body: bytes) -> tuple[str, bool]:
    """Return in one line what a server says of its error, and whether it is that a filter let nothing through."""
    try:
        answer = _object(body)
    except MalformedAnswer:
        return _line(body[:LONGEST_LINE].decode("utf-8", "replace")), False
    error = answer.get("error")
    inner = error if isinstance(error, dict) else answer
    places = (inner.get("message"), error, answer.get("detail"), answer.get("message"))
    line = next((_line(text) for text in places if isinstance(text, str) and text), "")
    return line, inner.get("code") in BLOCKED if isinstance(inner.get("code"), str) else False


def read_models(body: bytes) -> list[str]:
    """Return the names of the models that a server lists; none where it has another form."""
    try:
        listed = _object(body).get("data")
    except MalformedAnswer:
        return []
    entries = listed if isinstance(listed, list) else []
    names = [_name(entry.get("id")) for entry in entries if isinstance(entry, dict)]
    return [name for name in names if name is not None]


def _object(body: bytes) -> dict[str, Any]:
    try:
        answer = json.loads(body.decode("utf-8"))
    except UnicodeDecodeError:
        raise MalformedAnswer("its answer is not UTF-8") from None
    except (ValueError, RecursionError):
        raise MalformedAnswer("its answer is not JSON") from None
    if not isinstance(answer, dict):
        raise MalformedAnswer("its answer is no JSON object")
    return answer


def _first(choices: Any) -> dict[str, Any]:
    if not isinstance(choices, list) or not choices or not isinstance(choices[0], dict):
        raise MalformedAnswer("its answer holds no choice")
    return choices[0]


def _count(usage: Any, name: str) -> int | None:
    value = usage.get(name) if isinstance(usage, dict) else None
    return value if type(value) is int and 0 <= value < INT32 else None


def _name(value: Any) -> str | None:
    return shortened(one_line(value), LONGEST_NAME) or None if isinstance(value, str) else None


def _line(text: str) -> str:
    return shortened(one_line(text), LONGEST_LINE)
