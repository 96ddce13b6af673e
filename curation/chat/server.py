"""A connection to an OpenAI-compatible server: as many requests at a time as it may have, and tries again where that helps.

aiohttp, which reads web sources too, is the client, and not the package ``openai``: what is tried again, how long an answer
may be and where a key may travel are decided here, and that package would need httpx beside it.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from typing import Any, Self
from urllib.parse import urljoin, urlsplit
from urllib.request import getproxies, proxy_bypass

import aiohttp

from dailies.curation.addresses import HIDDEN, SHORTEST, is_here
from dailies.curation.chat.asking import Ask, Outcome, Reply
from dailies.curation.chat.completions import MalformedAnswer, read_error, read_models, read_reply
from dailies.curation.chat.messages import is_jpeg, messages
from dailies.curation.errors import Outage, Unreadable, UsageError, outage
from dailies.curation.policy import origin
from dailies.curation.retrying import in_words

FIRST_PAUSE = 0.5  # seconds, at most, before the second try of an ask, doubled before each further one
LONGEST_PAUSE = 30.0  # seconds
LONGEST_WAIT = 600.0  # seconds that a server may ask to be left alone for, before the run ends instead
CONNECT_SECONDS = 10.0
LARGEST = 4 << 20  # bytes of an answer
CHUNK = 1 << 16
AWAY = frozenset({429, 503, 529})  # statuses of a server that is busy, whatever is asked
GATEWAY = frozenset({502, 504, *range(520, 528), 530})  # statuses of what stands before a server that does not answer
PASSING = frozenset({408, 409, 425})  # statuses below 500, besides these, that another try may not meet
NO_MONEY = 402
ROUNDS = 3  # times that an ask may use up its tries at a server that is busy but answers others
SEEDS = 1 << 31  # that every server takes
PROBE = Ask(text="Say yes.", max_tokens=16)
"""What a server is asked that gave nothing: whether it answers anything at all."""


class _Again(Exception):
    """A try that came to nothing; another may not.

    ``silent``: so it could be with whatever is asked, as nobody has looked at the ask; ``busy``: the server says that it will
    answer later; ``after``: seconds that it wants to be left alone for.
    """

    def __init__(self, why: str, *, silent: bool = False, busy: bool = False, after: float | None = None) -> None:
        super().__init__(why)
        self.why, self.silent, self.busy, self.after = why, silent, busy, after


class _Forbidden(Exception):
    """A refusal of the key, or of the ask. ``line`` says it for the ask, ``body`` is what the server says."""

    def __init__(self, line: str, body: bytes) -> None:
        super().__init__(line)
        self.line, self.body = line, body


@dataclass(kw_only=True)
class ServerConnection:
    """A server, for the length of an ``async with``.

    Args:
        url: without a slash at its end; ``/chat/completions`` is behind it.
        key: sent with each request; never shown.
        key_env: the variable that holds, or would hold, the key.
        body: keys of each request besides those of the ask; null takes one out.
        concurrency: requests at a time.
        timeout_seconds: for a whole answer.
        tries: of an ask.
    """

    url: str
    model: str
    revision: str | None
    key: str | None = field(repr=False)
    key_env: str | None
    body: dict[str, Any]
    concurrency: int
    timeout_seconds: float
    tries: int

    async def __aenter__(self) -> Self:
        self._stack = AsyncExitStack()
        self._free = asyncio.Semaphore(self.concurrency)
        self._answered = 0  # asks that the server had something to say to, so far
        self._working = 0  # asks under way that may still be answered
        self._news = asyncio.Event()  # set, and another put in its place, when either changes
        self._probing = asyncio.Lock()
        self._closed_until = 0.0  # by time.monotonic(): the server wants to be left alone
        parts = urlsplit(self.url)
        direct = is_here(self.url) or bool(proxy_bypass(parts.netloc))
        self._proxy = None if direct else getproxies().get(parts.scheme)
        headers = {"User-Agent": "dailies", "Accept": "application/json", "Accept-Encoding": "identity"}
        if self.key is not None:
            headers["Authorization"] = f"Bearer {self.key}"
        self._session = await self._stack.enter_async_context(
            aiohttp.ClientSession(
                headers=headers,
                connector=aiohttp.TCPConnector(limit=0),  # ``concurrency`` is the limit
                cookie_jar=aiohttp.DummyCookieJar(),
                auto_decompress=False,  # a kilobyte could come to terabytes
                timeout=aiohttp.ClientTimeout(total=self.timeout_seconds, sock_connect=CONNECT_SECONDS),
            )
        )
        return self

    async def __aexit__(self, *error: Any) -> None:
        await self._stack.aclose()

    async def answer(self, asks: Sequence[Ask]) -> list[Reply]:
        """Return the answer to each ask, in order. Raises ``UsageError`` and ``Outage`` for what is no ask's fault."""
        try:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(self._answered_ask(ask)) for ask in asks]
        except BaseExceptionGroup as errors:
            raise _leaf(errors) from None  # the other asks were taken back
        return [task.result() for task in tasks]

    async def model_names(self) -> list[str]:
        """Return the models that the server lists; none where it lists none. Raises as ``answer`` does."""
        try:
            status, _, body = await self._request("GET", "models", None)
        except _Again as trouble:
            raise Outage(trouble.why) from None
        if status in (401, 403):
            raise self._key_refused(status, body)
        return read_models(body) if status == 200 else []

    # ---- one ask ----

    async def _answered_ask(self, ask: Ask) -> Reply:
        if not all(is_jpeg(image.jpeg) for image in ask.images):
            return self._none("failed", "a picture is no JPEG", kind=Unreadable.kind)
        async with self._free:
            return await self._tried(self._request_body(ask))

    async def _tried(self, request: dict[str, Any]) -> Reply:
        attempt, rounds, answered = 0, 0, self._answered
        self._working += 1
        try:
            while True:
                try:
                    reply = await self._try(request)
                    self._has_answered()
                    return reply
                except _Forbidden as refused:
                    if self._answered == 0 and not await self._answers_others(0):
                        raise self._key_refused(403, refused.body) from None
                    return self._none("failed", refused.line)
                except _Again as trouble:
                    attempt += 1
                    if attempt >= self.tries:
                        if not trouble.silent:
                            self._has_answered()
                        elif not await self._answers_others(answered):
                            raise outage(f"{self.url}: {trouble.why}, {attempt} times in a row") from None
                        rounds += 1
                        if not trouble.busy or rounds == ROUNDS:
                            return self._none("failed", f"{trouble.why}, at the last of {rounds * self.tries} tries")
                        attempt, answered = 0, self._answered
                    await self._pause(trouble, attempt)
        finally:
            self._working -= 1
            self._tell()

    async def _answers_others(self, since: int) -> bool:
        """Return whether the server answers other asks than one that came to nothing, after ``since`` were answered.

        Waits for those under way. Where all came to nothing, or there are none, it is asked something small: one ask that it
        never answers must end no run, and be it the only one that is left.
        """
        self._working -= 1
        self._tell()
        try:
            while self._answered == since and self._working:
                await self._news.wait()
            async with self._probing:
                if self._answered == since and await self._is_there():
                    self._has_answered()
            return self._answered != since
        finally:
            self._working += 1

    async def _is_there(self) -> bool:
        try:
            await self._try(self._request_body(PROBE))
        except _Again as trouble:
            return not trouble.silent
        except _Forbidden:
            return False
        return True

    def _has_answered(self) -> None:
        self._answered += 1
        self._tell()

    def _tell(self) -> None:
        self._news.set()
        self._news = asyncio.Event()

    async def _pause(self, trouble: _Again, attempt: int) -> None:
        """Wait before the next try, for a random part of a pause that grows: who failed together shall not come together."""
        if trouble.after is not None:
            if trouble.after > LONGEST_WAIT:
                raise outage(f"{self.url}: {trouble.why}, for {trouble.after:,.0f} s") from None
            self._closed_until = max(self._closed_until, time.monotonic() + trouble.after)
        longest = min(LONGEST_PAUSE, FIRST_PAUSE * 2.0 ** max(0, attempt - 1))
        await asyncio.sleep(random.uniform(0, longest))
        while (left := self._closed_until - time.monotonic()) > 0:
            await asyncio.sleep(left + random.uniform(0, FIRST_PAUSE))

    async def _try(self, request: dict[str, Any]) -> Reply:
        while (left := self._closed_until - time.monotonic()) > 0:  # others were told so
            await asyncio.sleep(left + random.uniform(0, FIRST_PAUSE))
        status, headers, body = await self._request("POST", "chat/completions", request)
        if status == 200:
            try:
                return read_reply(body, model=self.model, revision=self.revision)
            except MalformedAnswer as error:
                raise _Again(str(error)) from None
        message, blocked = read_error(body)
        line = f"the server says {status}{f': {message}' if message else ''}"
        if blocked:
            return self._none("blocked", line)
        if status >= 500 or status in AWAY | PASSING:
            after = _retry_after(headers)
            raise _Again(line, silent=status in AWAY | GATEWAY, busy=status in AWAY, after=after)
        if status == 401:
            raise self._key_refused(status, body)
        if status == 403:
            raise _Forbidden(line, body)
        if status == 404:
            raise UsageError(
                f"model={self.model!r}, url={self.url}: {line}; check both, or whether it is chat that it offers"
            )
        if status == NO_MONEY:
            raise outage(f"{self.url}: {line}")
        if 300 <= status < 400:
            place = origin(urljoin(f"{self.url}/chat/completions", headers.get("Location", "")))
            raise UsageError(f"url={self.url}: leads to {place} ({status}); nothing is sent there unless you name it")
        return self._none("failed", line)

    async def _request(self, method: str, path: str, request: dict[str, Any] | None) -> tuple[int, Any, bytes]:
        """Return status, headers and body. Raises ``_Again``, and ``UsageError`` where no certificate is trusted."""
        try:
            async with self._session.request(
                method, f"{self.url}/{path}", json=request, allow_redirects=False, proxy=self._proxy
            ) as response:
                body = await _bounded(response.content)
                return response.status, response.headers, self._without_key(body)
        except aiohttp.ClientSSLError as error:
            raise UsageError(f"url={self.url}: {in_words(error) or 'no secure connection can be made'}") from None
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as error:
            raise _Again(in_words(error) or "the server cannot be reached", silent=True, busy=True) from None
        except TimeoutError:
            raise _Again(f"there was no whole answer in {self.timeout_seconds:g} s", silent=True) from None
        except aiohttp.ClientError:
            raise _Again("the connection ended before the whole answer had come", silent=True) from None

    def _request_body(self, ask: Ask) -> dict[str, Any]:
        body: dict[str, Any] = {
            "model": self.model,
            "messages": messages(ask),
            "max_tokens": ask.max_tokens,
            "temperature": ask.temperature,
        }
        if ask.temperature > 0:
            body["seed"] = ask.seed % SEEDS
        if ask.schema is not None:
            strict = ask.schema.get("additionalProperties") is False  # else servers that are strict refuse it
            answer = {"name": "answer", "schema": dict(ask.schema), "strict": strict}
            body["response_format"] = {"type": "json_schema", "json_schema": answer}
        return {name: value for name, value in (body | self.body).items() if value is not None}

    # ---- what is said ----

    def _none(self, outcome: Outcome, why: str, kind: str | None = None) -> Reply:
        return Reply(text="", outcome=outcome, why=why, kind=kind, model=self.model, revision=self.revision)

    def _without_key(self, body: bytes) -> bytes:
        """Return a body without the key, which a server may repeat in what it says."""
        return (
            body if self.key is None or len(self.key) < SHORTEST else body.replace(self.key.encode(), HIDDEN.encode())
        )

    def _key_refused(self, status: int, body: bytes) -> UsageError:
        message, _ = read_error(body)
        line = f"{status}{f': {message}' if message else ''}"
        if self.key is None:
            return UsageError(
                f"url={self.url}: the server wants a key ({line}); put it into {self.key_env or 'a variable'} on every "
                "machine that asks, and name the variable by key_env"
            )
        return UsageError(f"key_env={self.key_env}: {self.url} refuses the key in it ({line}); put another there")


async def _bounded(content: aiohttp.StreamReader) -> bytes:
    parts, size = [], 0
    async for part in content.iter_chunked(CHUNK):
        parts.append(part)
        if (size := size + len(part)) > LARGEST:
            raise _Again(f"its answer has over {LARGEST:,} bytes")
    return b"".join(parts)


def _retry_after(headers: Any) -> float | None:
    """Return the seconds that a server asks to wait, which it says as such or as a date."""
    value = str(headers.get("Retry-After", "")).strip()
    try:
        return max(0.0, float(value)) if value.replace(".", "", 1).isdigit() else _seconds_until(value)
    except (ValueError, TypeError, OverflowError):
        return None


def _seconds_until(date: str) -> float:
    return max(0.0, parsedate_to_datetime(date).timestamp() - time.time())


def _leaf(errors: BaseExceptionGroup[Any]) -> BaseException:
    """Return the first exception of a group; one of what the user asked for before one of what is away."""
    leaves: list[BaseException] = []
    for error in errors.exceptions:
        leaves.append(_leaf(error) if isinstance(error, BaseExceptionGroup) else error)
    return min(leaves, key=lambda error: isinstance(error, Outage))
