"""Chat models behind servers: what is sent, what becomes of each answer, and what a server does badly."""

from __future__ import annotations

import json
import pickle
import re
import socket
import time
import traceback
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import pytest

from dailies.curation.chat import Ask, ChatImage, EndpointChat, Reply
from dailies.curation.errors import DailiesError, Outage, UsageError
from tests.chat_server import (
    MODEL,
    Behaviour,
    ChatServer,
    HttpAnswer,
    ask_key,
    busy,
    caption_of,
    completion,
    cut,
    error,
    in_turn,
    raw,
    slow,
)

KEY = "sk-test-4f9c1b7a2e8d4c6f9a1b3c5d"
JPEG, OTHER, LAST = (b"\xff\xd8 a picture " + number + b"\xff\xd9" for number in (b"0", b"1", b"2"))


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dailies.curation.chat.server.FIRST_PAUSE", 0.01)
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def server() -> Iterator[ChatServer]:
    with ChatServer() as server:
        yield server


def asks(count: int) -> list[Ask]:
    return [Ask(text=f"what is {number}?") for number in range(count)]


def answers(server: ChatServer, questions: list[Ask], **how: Any) -> list[Reply]:
    with EndpointChat(url=server.url, model=MODEL, **how).chat() as answer:
        return answer(questions)


def reply_to(behaviour: Behaviour, question: Ask = Ask(text="what?"), **how: Any) -> tuple[Reply, int]:  # noqa: B008
    """The reply to one ask, and how often it came to the server."""
    with ChatServer(behaviour) as server:
        (reply,) = answers(server, [question], **how)
        return reply, len(server.asked)


# ---- what is sent ---------------------------------------------------------------------------------------------------


def test_pictures_go_in_order_with_their_times(server: ChatServer) -> None:
    images = (ChatImage(jpeg=JPEG, seconds=0.25), ChatImage(jpeg=OTHER, seconds=1.5), ChatImage(jpeg=LAST))
    schema = {"type": "object", "properties": {}, "additionalProperties": False}
    answers(server, [Ask(text="what?", images=images, system="be brief", max_tokens=9, schema=schema)])
    (asked,) = server.asked
    first, second = asked.body["messages"]
    assert first == {"role": "system", "content": "be brief"}
    assert second["role"] == "user"
    assert [part.get("text", "picture") for part in asked.parts] == [
        "At 0.25 s:", "picture", "At 1.50 s:", "picture", "picture", "what?"
    ]  # fmt: skip
    assert asked.images == [JPEG, OTHER, LAST]
    assert (asked.body["max_tokens"], asked.body["temperature"]) == (9, 0.0)
    assert "seed" not in asked.body, "nothing is drawn"
    format_ = asked.body["response_format"]
    assert format_["type"] == "json_schema"
    assert format_["json_schema"] == {"name": "answer", "schema": schema, "strict": True}
    assert "Authorization" not in asked.headers


def test_text_alone_is_no_list_and_what_is_drawn_has_a_seed(server: ChatServer) -> None:
    body = {"top_p": 0.9, "max_tokens": None, "max_completion_tokens": 5}
    answers(server, [Ask(text="what?", temperature=0.5, seed=3, schema={"type": "object"})], body=body)
    (asked,) = server.asked
    assert asked.body["messages"] == [{"role": "user", "content": "what?"}]
    assert (asked.body["temperature"], asked.body["seed"], asked.body["top_p"]) == (0.5, 3, 0.9)
    assert "max_tokens" not in asked.body
    assert asked.body["max_completion_tokens"] == 5
    assert asked.body["response_format"]["json_schema"]["strict"] is False, "the schema lets more keys be"


def test_as_many_requests_at_a_time_as_it_says_and_answers_in_order() -> None:
    with ChatServer(slow(0.03)) as server:
        questions = asks(20)
        replies = answers(server, questions, concurrency=5)
        assert server.most_at_once == 5
        assert [reply.text for reply in replies] == [f"a caption of {ask_key([], each.text)}" for each in questions]
        assert set(server.times.values()) == {1}


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"url": "ftp://host/v1"}, "no address of a server"),
        ({"url": "host:8000"}, "no address of a server"),
        ({"url": "http://host:80a/v1"}, "no address"),
        ({"url": "http://user:secret-word@host/v1"}, "holds a name or password"),
        ({"url": "http://host/v1?key=secret-word"}, "has a query"),
        ({"url": "http://host/v1#"}, "has a query"),
        ({"key_env": "sk-a-key-itself"}, "no name of a variable"),
        ({"body": {"stream": True}}, "stream is not for it"),
        ({"body": {"messages": []}}, "messages is not for it"),
        ({"concurrency": 0}, "concurrency"),
        ({"model": ""}, "model"),
    ],
)
def test_what_makes_no_sense_is_refused(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        EndpointChat(**{"url": "http://host/v1", "model": MODEL, **wrong})


def test_an_address_may_end_in_what_comes_behind_it() -> None:
    for url in ("http://host/v1", "http://host/v1/", "http://host/v1/chat/completions"):
        assert EndpointChat(url=url, model=MODEL).url == "http://host/v1"


# ---- what becomes of an answer --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("behaviour", "outcome", "text", "why"),
    [
        (completion(" a cat "), "ok", "a cat", None),
        (completion("a cat that", "length"), "truncated", "a cat that", None),
        (completion("a c", "content_filter"), "blocked", "", "filter"),
        (completion(None, refusal="I cannot help with that."), "blocked", "", "I cannot help"),
        (completion(""), "empty", "", "no text"),
        (completion(" \n\x00"), "empty", "", "no text"),
        (completion(None), "empty", "", "no text"),
        (completion("", "length"), "empty", "", "most tokens"),
        (completion("<think>\na dog?\n</think>\n\na cat"), "ok", "a cat", None),
        (completion("a dog? <think> no.</think>a cat", "length"), "truncated", "a cat", None),
        (completion("<think></think>"), "empty", "", "no text came$"),
        (completion("[THINK]a dog?[/THINK]a cat"), "ok", "a cat", None),
        (completion(" <think>a dog? no, a", "length"), "empty", "", "only thoughts .* raise max_tokens"),
        (completion(None, "length", reasoning_content="a dog?"), "empty", "", "only thoughts"),
        (error(400, "too many pictures"), "failed", "", "400: too many pictures"),
        (error(400, "filtered", code="content_filter"), "blocked", "", "400: filtered"),
        (raw(b"<html>", 422), "failed", "", "422: <html>"),
    ],
)
def test_an_answer_becomes_a_reply(behaviour: Behaviour, outcome: str, text: str, why: str | None) -> None:
    reply, times = reply_to(behaviour)
    assert (reply.outcome, reply.text, times) == (outcome, text, 1)
    assert (reply.why is None) == (why is None)
    assert why is None or re.search(why, reply.why or "")


def test_tokens_model_and_revision_are_those_that_the_server_says() -> None:
    reply, _ = reply_to(completion("a cat", tokens=3))
    assert (reply.tokens, reply.prompt_tokens, reply.model, reply.revision) == (3, 100, MODEL, None)
    choice = {"message": {"content": "a \ud800 cat"}, "finish_reason": "stop"}
    odd = {
        "model": "tiny-2026",
        "system_fingerprint": "fp_1",
        "usage": {"completion_tokens": 2**31, "prompt_tokens": -1},
    }
    reply, _ = reply_to(raw(json.dumps({**odd, "choices": [choice]}).encode()))
    assert (reply.model, reply.revision, reply.tokens, reply.prompt_tokens) == ("tiny-2026", "fp_1", None, None)
    assert reply.text == "a ? cat", "a lone surrogate fits no table"
    assert reply_to(raw(json.dumps({**odd, "choices": [choice]}).encode()), revision="mine")[0].revision == "mine"


GOOD = completion("a cat")


@pytest.mark.parametrize(
    ("trouble", "why"),
    [
        (error(500, "out of luck"), "500: out of luck"),
        (raw(b"{"), "not JSON"),
        (raw(b"[" * 100_000), "not JSON"),
        (raw(b"\xff\xfe"), "not UTF-8"),
        (raw(b"[]"), "no JSON object"),
        (raw(b"{}"), "no choice"),
        (raw(b'{"choices": [{}]}'), "no message"),
        (raw(b'{"choices": [{"message": {"content": 1}}]}'), "no text"),
        (raw(b" " * (4 << 20) + b"{}"), "over 4,194,304 bytes"),
    ],
)
def test_what_may_pass_is_tried_again_and_failed_after_the_last_try(trouble: Behaviour, why: str) -> None:
    how = {"tries": 2, "timeout_seconds": 0.2}
    reply, times = reply_to(in_turn(trouble, GOOD), **how)
    assert (reply.outcome, reply.text, times) == ("ok", "a cat", 2)
    reply, times = reply_to(trouble, **how)
    assert (reply.outcome, reply.text, times) == ("failed", "", 2)
    assert re.search(f"{why}.*, at the last of 2 tries", reply.why or "")


def to_one(text: str, behaviour: Behaviour) -> Behaviour:
    """Behave so to the ask of ``text``, and well to all others."""
    return lambda asked: (behaviour if asked.text == text else caption_of)(asked)


SILENT = [
    (error(502), "502", 2),
    (error(504), "504", 2),
    (error(520), "520", 2),
    (cut(), "ended before the whole answer", 2),
    (slow(1.2), "no whole answer in 1 s", 2),
    (error(429, "Request too large"), "429: Request too large", 6),
    (error(503), "503", 6),
]


@pytest.mark.parametrize(("trouble", "why", "times"), SILENT)
@pytest.mark.parametrize("others", [0, 9])
def test_an_ask_that_is_never_answered_ends_no_run(trouble: Behaviour, why: str, times: int, others: int) -> None:
    """Whether others are answered meanwhile or it is the only one left, as in a run that asks for it again."""
    with ChatServer(to_one("what is 0?", trouble)) as server:
        replies = answers(server, asks(1 + others), tries=2, timeout_seconds=1 if "in 1 s" in why else 30)
        assert [reply.outcome for reply in replies] == ["failed"] + ["ok"] * others
        assert re.search(f"{why}.*, at the last of {times} tries", replies[0].why or "")
        assert server.times[ask_key([], "what is 0?")] == times
        assert len(server.asked) <= times + others + times // 2, "at most one more each time that its tries are used up"


@pytest.mark.parametrize(("trouble", "why", "times"), SILENT)
def test_a_server_that_answers_nothing_ends_the_call(trouble: Behaviour, why: str, times: int) -> None:
    with ChatServer(trouble) as server, pytest.raises(Outage, match=f"{why}.*, 2 times in a row; the same command"):
        answers(server, asks(3), tries=2, timeout_seconds=1)


def test_a_server_that_falls_silent_ends_the_call() -> None:
    """What it has answered before does not make the others failed."""
    with ChatServer() as server:
        server.behaviour = lambda asked: (caption_of if len(server.asked) <= 3 else error(502))(asked)
        with pytest.raises(Outage, match="502"):
            answers(server, asks(8), tries=2, concurrency=2)


@pytest.mark.parametrize("others", [0, 9])
def test_what_a_filter_stops_is_blocked_whatever_the_status(others: int) -> None:
    for status in (401, 403, 500):
        with ChatServer(to_one("what is 0?", error(status, "filtered", code="content_filter"))) as server:
            replies = answers(server, asks(1 + others))
            assert [reply.outcome for reply in replies] == ["blocked"] + ["ok"] * others


@pytest.mark.parametrize("others", [0, 9])
def test_one_ask_that_is_forbidden_is_no_fault_of_the_key(others: int) -> None:
    with ChatServer(to_one("what is 0?", error(403, "not about this"))) as server:
        replies = answers(server, asks(1 + others))
        assert [reply.outcome for reply in replies] == ["failed"] + ["ok"] * others
        assert replies[0].why == "the server says 403: not about this"


def test_what_is_no_picture_is_not_sent(server: ChatServer) -> None:
    bad, good = (Ask(text="what?", images=(ChatImage(jpeg=jpeg),)) for jpeg in (b"no JPEG", JPEG))
    replies = answers(server, [bad, good])
    assert [(reply.outcome, reply.kind) for reply in replies] == [("failed", "unreadable"), ("ok", None)]
    assert [asked.images for asked in server.asked] == [[JPEG]]


def test_one_asks_trouble_is_no_others() -> None:
    def behave(asked: Any) -> HttpAnswer:
        return {"what is 1?": error(500), "what is 3?": raw(b"{"), "what is 5?": cut()}.get(asked.text, caption_of)(
            asked
        )

    with ChatServer(behave) as server:
        replies = answers(server, asks(8), tries=3, concurrency=3)
        assert [reply.outcome for reply in replies] == ["ok", "failed", "ok", "failed", "ok", "failed", "ok", "ok"]
        assert sorted(server.times.values()) == [1, 1, 1, 1, 1, 3, 3, 3]


@pytest.mark.parametrize("dated", [False, True])
def test_a_server_that_wants_to_be_left_alone_is_by_all(dated: bool) -> None:
    began = time.monotonic()
    arrived: list[float] = []

    def behave(asked: Any) -> HttpAnswer:
        arrived.append(time.monotonic() - began)
        first = len(arrived) == 1
        value = format_datetime(datetime.now(UTC) + timedelta(seconds=2), usegmt=True) if dated else "0.6"
        return (error(429, "slow down", Retry_After=value) if first else GOOD)(asked)

    with ChatServer(behave) as server:
        assert [reply.outcome for reply in answers(server, asks(6), concurrency=1)] == ["ok"] * 6
    least = 0.9 if dated else 0.6  # a date has whole seconds
    assert arrived[1] - arrived[0] >= least
    assert len(arrived) == 7


def test_a_busy_server_is_slow_and_no_failure_as_long_as_it_answers_some() -> None:
    """Each second request is refused, so some ask meets more refusals than it has tries."""
    count = 0

    def behave(asked: Any) -> HttpAnswer:
        nonlocal count
        count += 1
        return (busy() if asked.text == "what is 0?" and asked.turn < 4 else slow(0.02, GOOD))(asked)

    with ChatServer(behave) as server:
        replies = answers(server, asks(30), tries=2, concurrency=2)
        assert {reply.outcome for reply in replies} == {"ok"}
        assert server.times[ask_key([], "what is 0?")] == 5


# ---- what is no ask's fault -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("behaviour", "kind", "message"),
    [
        (busy(), Outage, "429: rate limit reached, 2 times in a row; the same command resumes"),
        (error(503, "loading"), Outage, "503: loading, 2 times in a row"),
        (busy(3600), Outage, "429: rate limit reached, for 3,600 s"),
        (error(402, "no credit"), Outage, "402: no credit"),
        (error(401, "bad key"), UsageError, "wants a key .401: bad key.; put it into OPENAI_API_KEY"),
        (error(403, "not yours"), UsageError, "403: not yours"),
        (error(404, "no such model"), UsageError, "model='tiny', url=http.*404: no such model"),
        (error(307, Location="http://elsewhere.example/v1?x=1"), UsageError, "leads to http://elsewhere.example .307."),
        (error(301, Location="/v2"), UsageError, "leads to http://127.0.0.1:.* .301."),
    ],
)
def test_what_is_no_asks_fault_ends_the_call(behaviour: Behaviour, kind: type[DailiesError], message: str) -> None:
    with ChatServer(behaviour) as server, pytest.raises(kind, match=message) as raised:
        answers(server, asks(3), tries=2)
    assert raised.value.__cause__ is None
    assert "?x=1" not in str(raised.value)


def closed_port() -> int:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        return int(other.getsockname()[1])


def test_a_server_that_is_gone_ends_the_call() -> None:
    chat = EndpointChat(url=f"http://127.0.0.1:{closed_port()}/v1", model=MODEL, tries=3)
    with chat.chat() as answer, pytest.raises(Outage, match="no server answers there, 3 times in a row"):
        answer(asks(2))


def test_an_http_server_behind_https_is_said_so(server: ChatServer) -> None:
    chat = EndpointChat(url=server.url.replace("http:", "https:"), model=MODEL)
    with chat.chat() as answer, pytest.raises(UsageError, match="no secure connection can be made; is it an http"):
        answer(asks(1))


# ---- keys -----------------------------------------------------------------------------------------------------------


def test_the_key_goes_with_each_request_and_nowhere_else(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TINY", KEY)
    with ChatServer(key=KEY) as server:
        chat = EndpointChat(url=server.url, model=MODEL, key_env="TINY")
        chat.check()
        with chat.chat() as answer:
            assert answer(asks(2))[0].outcome == "ok"
            assert KEY not in repr(answer)
        assert KEY not in repr(chat)
        assert KEY.encode() not in pickle.dumps(chat)


@pytest.mark.parametrize("method", ["check", "chat"])
def test_a_key_that_is_refused_is_not_shown(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The server repeats it in what it says; the variable's name is none that is hidden everywhere."""
    monkeypatch.setenv("TINY", KEY)
    with ChatServer(key="another") as server:
        chat = EndpointChat(url=server.url, model=MODEL, key_env="TINY")
        message = r"key_env=TINY: .* refuses the key in it .401: Incorrect API key"
        with pytest.raises(UsageError, match=message) as raised:
            chat.check() if method == "check" else answers(server, asks(1), key_env="TINY")
    assert KEY not in "".join(traceback.format_exception(raised.value))
    assert "***" in str(raised.value)
    assert raised.value.__cause__ is None


def test_a_server_that_repeats_the_key_gets_it_into_no_caption(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TINY", KEY)
    reply, _ = reply_to(lambda asked: completion(asked.headers["Authorization"])(asked), key_env="TINY")
    assert reply.text == "Bearer ***"
    reply, _ = reply_to(lambda asked: error(400, asked.headers["Authorization"])(asked), key_env="TINY")
    assert reply.why == "the server says 400: Bearer ***"


@pytest.mark.parametrize(
    ("value", "how", "message"),
    [
        (None, {"key_env": "TINY"}, "key_env=TINY: is not set here"),
        ("a\nb", {"key_env": "TINY"}, "key_env=TINY: what it holds is no key"),
        (KEY, {"url": "http://10.1.2.3/v1"}, "the key in OPENAI_API_KEY would travel there for all to read"),
    ],
)
def test_a_key_that_may_not_travel(
    value: str | None, how: dict[str, Any], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if value is not None:
        monkeypatch.setenv(how.get("key_env", "OPENAI_API_KEY"), value)
    chat = EndpointChat(**{"url": "http://localhost:1/v1", "model": MODEL, **how})
    with pytest.raises(UsageError, match=message) as raised:
        chat.check()
    assert value is None or value not in str(raised.value)
    with pytest.raises(UsageError, match=message), chat.chat():
        pass


def test_openais_key_goes_to_this_machine_and_by_https_alone_unless_none_is_sent(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    for how in ({"url": "https://host/v1"}, {"url": "http://localhost/v1"}, {"url": "http://host/v1", "key_env": None}):
        with EndpointChat(model=MODEL, **how).chat():
            pass
    with ChatServer() as server:
        answers(server, asks(1))
        answers(server, asks(1), key_env=None)
        assert [asked.headers.get("Authorization") for asked in server.asked] == [f"Bearer {KEY}", None]


# ---- before work ----------------------------------------------------------------------------------------------------


def test_a_check_says_what_the_server_lists_and_asks_nothing(
    server: ChatServer, caplog: pytest.LogCaptureFixture
) -> None:
    EndpointChat(url=server.url, model=MODEL).check()
    assert caplog.messages == []
    EndpointChat(url=server.url, model="tinny").check()
    assert caplog.messages == [f"model=tinny: {server.url} does not list it; it lists: tiny (did you mean tiny?)"]
    EndpointChat(url=server.url.replace("/v1", "/v9"), model=MODEL).check()  # lists nothing
    EndpointChat(url=f"http://127.0.0.1:{closed_port()}/v1", model=MODEL).check()
    assert re.search("no server answers there; captions need it", caplog.messages[1])
    assert (len(caplog.messages), server.asked) == (2, [])


def test_a_recipe_is_looked_over_without_the_network(server: ChatServer, monkeypatch: pytest.MonkeyPatch) -> None:
    from dailies.curation.downloads import local_only

    with ChatServer(key="another") as server, local_only():
        EndpointChat(url=server.url, model=MODEL).check()
