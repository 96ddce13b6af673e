"""A real HTTP server on 127.0.0.1 that speaks OpenAI's chat completions, well or badly, and remembers what it was asked.

::

    with ChatServer() as server:                         # says of each ask what ``caption_of`` says
        EndpointChat(url=server.url, model="tiny")
    with ChatServer(in_turn(busy(), completion("a cat"))) as server:   # each ask: busy at first, then an answer

A behaviour is a function of ``Asked`` that returns an ``HttpAnswer``.
"""

from __future__ import annotations

import base64
import hashlib
import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

MODEL = "tiny"


@dataclass(frozen=True)
class Asked:
    """One request. ``turn``: how often this very ask came before."""

    path: str
    headers: Mapping[str, str]
    body: dict[str, Any]
    turn: int = 0

    @property
    def parts(self) -> list[dict[str, Any]]:
        """What the user shows and says, in order."""
        content = self.body["messages"][-1]["content"]
        return [{"type": "text", "text": content}] if isinstance(content, str) else content

    @property
    def images(self) -> list[bytes]:
        """The pictures, as files."""
        urls = [part["image_url"]["url"] for part in self.parts if part["type"] == "image_url"]
        return [base64.b64decode(url.removeprefix("data:image/jpeg;base64,")) for url in urls]

    @property
    def text(self) -> str:
        return "\n".join(part["text"] for part in self.parts if part["type"] == "text")

    @property
    def key(self) -> str:
        """What tells asks apart: pictures and text."""
        return ask_key(self.images, self.text)


@dataclass(frozen=True)
class HttpAnswer:
    """What is sent. ``cut``: the connection ends in the middle of the body; ``delay``: seconds before it begins."""

    status: int = 200
    body: bytes = b"{}"
    headers: Mapping[str, str] = field(default_factory=dict)
    delay: float = 0.0
    cut: bool = False


Behaviour = Callable[[Asked], HttpAnswer]


def ask_key(images: list[bytes], text: str) -> str:
    return hashlib.sha256(b"".join(images) + text.encode()).hexdigest()[:12]


def caption_of(asked: Asked) -> HttpAnswer:
    """Say something that names the ask, so that a test sees whose caption a clip got."""
    return completion(f"a caption of {asked.key}")(asked)


# ---- behaviours -----------------------------------------------------------------------------------------------------


def completion(text: str | None, finish: str = "stop", *, tokens: int = 7, **message: Any) -> Behaviour:
    """Answer with ``text``; ``message``: more keys of the message, such as a refusal."""

    def answer(asked: Asked) -> HttpAnswer:
        choice = {"index": 0, "message": {"role": "assistant", "content": text, **message}, "finish_reason": finish}
        usage = {"prompt_tokens": 100, "completion_tokens": tokens, "total_tokens": 100 + tokens}
        body = {
            "id": "1",
            "object": "chat.completion",
            "model": asked.body["model"],
            "choices": [choice],
            "usage": usage,
        }
        return HttpAnswer(body=json.dumps(body).encode())

    return answer


def error(status: int, message: str = "it did not work", *, code: str | None = None, **headers: str) -> Behaviour:
    """Answer with an error as OpenAI words it. ``headers``: with underscores, such as Retry_After."""
    body = json.dumps({"error": {"message": message, "type": "error", "code": code}}).encode()
    return lambda asked: HttpAnswer(status, body, {name.replace("_", "-"): value for name, value in headers.items()})


def busy(seconds: float = 0) -> Behaviour:
    """Ask to be left alone for a while."""
    return error(429, "rate limit reached", Retry_After=f"{seconds:g}")


def raw(body: bytes, status: int = 200) -> Behaviour:
    return lambda asked: HttpAnswer(status, body)


def slow(seconds: float, then: Behaviour = caption_of) -> Behaviour:
    return lambda asked: _with(then(asked), delay=seconds)


def cut(then: Behaviour = caption_of) -> Behaviour:
    """End the connection in the middle of the answer."""
    return lambda asked: _with(then(asked), cut=True)


def in_turn(*behaviours: Behaviour) -> Behaviour:
    """Behave to the first time that an ask comes as the first says, …; to all that follow as the last."""
    return lambda asked: behaviours[min(asked.turn, len(behaviours) - 1)](asked)


def _with(answer: HttpAnswer, **changes: Any) -> HttpAnswer:
    return HttpAnswer(**{**answer.__dict__, **changes})


# ---- the server -----------------------------------------------------------------------------------------------------


class ChatServer:
    """The server, for the length of a ``with``.

    ``key``: what it wants as a key, none where ``None``; ``models``: what it lists and answers for.
    """

    def __init__(
        self, behaviour: Behaviour = caption_of, *, key: str | None = None, models: tuple[str, ...] = (MODEL,)
    ):
        self.behaviour, self.key, self.models = behaviour, key, models
        self.asked: list[Asked] = []
        self.most_at_once = 0
        self._now = 0
        self._lock = threading.Lock()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        self._server.handle_error = lambda request, address: None  # type: ignore[method-assign]  # clients that went away
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}/v1"

    @property
    def times(self) -> Counter[str]:
        """How often each ask came."""
        return Counter(asked.key for asked in list(self.asked))

    def _taken(self, asked: Asked) -> Asked:
        with self._lock:
            turn = sum(1 for earlier in self.asked if earlier.key == asked.key)
            asked = Asked(asked.path, asked.headers, asked.body, turn)
            self.asked.append(asked)
            self._now += 1
            self.most_at_once = max(self.most_at_once, self._now)
            return asked

    def _answer(self, path: str, headers: Mapping[str, str], body: bytes) -> HttpAnswer:
        if self.key is not None and headers.get("Authorization") != f"Bearer {self.key}":
            sent = headers.get("Authorization", "no key")
            return error(401, f"Incorrect API key provided: {sent}", code="invalid_api_key")(Asked(path, headers, {}))
        if path == "/v1/models" and not body:
            listed = [{"id": name, "object": "model"} for name in self.models]
            return HttpAnswer(body=json.dumps({"object": "list", "data": listed}).encode())
        asked = Asked(path, headers, json.loads(body or b"{}"))
        if path != "/v1/chat/completions" or asked.body.get("model") not in self.models:
            return error(404, f"The model `{asked.body.get('model')}` does not exist", code="model_not_found")(asked)
        asked = self._taken(asked)
        try:
            answer = self.behaviour(asked)
            time.sleep(answer.delay)
            return answer
        finally:
            with self._lock:
                self._now -= 1

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                self._send(self.rfile.read(int(self.headers.get("Content-Length", 0))))

            def do_GET(self) -> None:
                self._send(b"")

            def log_message(self, format: str, *arguments: Any) -> None:
                pass

            def _send(self, body: bytes) -> None:
                answer = server._answer(self.path, dict(self.headers), body)
                self.send_response(answer.status)
                for name, value in answer.headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(answer.body)))
                self.end_headers()
                self.wfile.write(answer.body[: len(answer.body) // 2] if answer.cut else answer.body)
                self.close_connection = answer.cut

        return Handler
