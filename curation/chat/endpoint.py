"""A chat model behind an OpenAI-compatible server: vLLM's, SGLang's, or a hosted one. No weights are needed here.

The key is in an environment variable, of which the spec has the name alone; the machine that asks reads it there.
"""

from __future__ import annotations

import asyncio
import logging
import os
import re
import threading
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import field
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, TypeVar
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field
from pydantic.dataclasses import dataclass

from dailies.curation.addresses import is_here
from dailies.curation.chat.asking import Ask, Reply
from dailies.curation.config import SPEC, offered
from dailies.curation.downloads import is_local_only
from dailies.curation.errors import Outage, UsageError
from dailies.curation.types import Resources

if TYPE_CHECKING:
    from dailies.curation.chat.server import ServerConnection

T = TypeVar("T")
DEFAULT_KEY = "OPENAI_API_KEY"
VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
OURS = frozenset({"model", "messages", "stream", "n"})
"""Keys of a request that are not for ``body``: each answer belongs to one ask, and comes whole."""
PER_REQUEST = 4  # clips that a worker is handed for each request at a time: the slowest of few would keep it waiting

log = logging.getLogger("dailies")


def _checked_url(url: str) -> str:
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        raise ValueError("is no address; give one such as http://localhost:8000/v1") from None
    if parts.scheme not in ("http", "https") or not host or re.search(r"[\s\x00-\x1f]", url):
        raise ValueError("is no address of a server; give one such as http://localhost:8000/v1")
    if parts.username is not None or parts.password is not None:
        raise ValueError("holds a name or password; put the key into a variable and name that by key_env")
    if parts.query or parts.fragment or url.endswith(("?", "#")):
        raise ValueError("has a query or fragment; /chat/completions comes behind the address")
    return url.rstrip("/").removesuffix("/chat/completions")


def _checked_variable(name: str | None) -> str | None:
    if name is not None and VARIABLE.fullmatch(name) is None:
        raise ValueError("is no name of a variable; the key itself stands in the environment")
    return name


def _checked_body(body: dict[str, Any]) -> dict[str, Any]:
    if taken := sorted(OURS & body.keys()):
        raise ValueError(f"{taken[0]} is not for it; leave it out")
    return body


@dataclass(frozen=True, kw_only=True, config=SPEC)
class EndpointChat:
    """A chat model behind a server.

    Args:
        url: of the server, up to what /chat/completions comes behind, such as http://localhost:8000/v1. Pictures go there.
        model: as the server calls it.
        revision: of the model, where you know it; another makes another table.
        key_env: the environment variable that holds the key, on every machine that asks; null sends none.
        concurrency: requests at a time, in all.
        timeout_seconds: for a whole answer.
        tries: of an ask that comes to nothing.
        body: more keys of each request, such as {top_p: 0.9}; null takes one out, such as {seed: null}.
    """

    url: Annotated[str, AfterValidator(_checked_url)] = field(metadata={"meaning": False})
    model: Annotated[str, Field(min_length=1)]
    revision: Annotated[str, Field(min_length=1)] | None = field(default=None, metadata={"meaning": False})
    key_env: Annotated[str | None, AfterValidator(_checked_variable)] = field(
        default=DEFAULT_KEY, metadata={"meaning": False}
    )
    concurrency: Annotated[int, Field(ge=1, le=1024)] = field(default=16, metadata={"meaning": False})
    timeout_seconds: Annotated[float, Field(gt=0)] = field(default=120.0, metadata={"meaning": False})
    tries: Annotated[int, Field(ge=1)] = field(default=6, metadata={"meaning": False})
    body: Annotated[dict[str, Any], AfterValidator(_checked_body)] = field(default_factory=dict)

    requires: ClassVar[tuple[str, ...]] = ()
    models: ClassVar[tuple[str, ...]] = ()

    @property
    def resources(self) -> Resources:
        """One worker, whatever the engine, so that ``concurrency`` is the total."""
        return Resources(cpus=1, memory_gb=1, workers=1)

    @property
    def bundle(self) -> int:
        """Clips that the worker is handed at a time, if there are as many."""
        return PER_REQUEST * self.concurrency

    def weights(self) -> str | None:
        """Return the revision that was named: what ``model`` stands for is the server's affair."""
        return self.revision

    def check(self) -> None:
        """Check the key, and ask the server for its models; one that does not answer yet, or lists none, is no mistake.

        Raises ``UsageError`` for a key that is not there, may not travel, or is refused.
        """
        key = self._key()
        if is_local_only():
            return
        try:
            with self._connected(key) as (run, server):
                names = run(server.model_names())
        except Outage as error:
            log.warning(f"url={self.url}: {error}; captions need it")
            return
        if names and self.model not in names:
            log.warning(f"model={self.model}: {self.url} does not list it{offered(self.model, names, 'it lists')}")

    @contextmanager
    def chat(self) -> Iterator[Callable[[Sequence[Ask]], list[Reply]]]:
        """Connect to the server. Raises ``UsageError`` for a key that it refuses and a model that it lacks, and ``Outage``
        where it is gone: no ask is to blame."""
        with self._connected(self._key()) as (run, server):
            yield lambda asks: run(server.answer(asks))

    @contextmanager
    def _connected(
        self, key: str | None
    ) -> Iterator[tuple[Callable[[Coroutine[Any, Any, Any]], Any], ServerConnection]]:
        from dailies.curation.chat.server import ServerConnection

        server = ServerConnection(
            url=self.url,
            model=self.model,
            revision=self.revision,
            key=key,
            key_env=self.key_env,
            body=dict(self.body),
            concurrency=self.concurrency,
            timeout_seconds=self.timeout_seconds,
            tries=self.tries,
        )
        with _event_loop() as run:
            run(server.__aenter__())
            try:
                yield run, server
            finally:
                run(server.__aexit__())

    def _key(self) -> str | None:
        """Return the key. Raises ``UsageError``, which does not show it."""
        key = os.environ.get(self.key_env, "").strip() if self.key_env is not None else ""
        if not key:
            if self.key_env not in (None, DEFAULT_KEY):
                raise UsageError(f"key_env={self.key_env}: is not set here; set it on every machine that asks")
            return None
        if not (key.isascii() and key.isprintable()):
            raise UsageError(f"key_env={self.key_env}: what it holds is no key, but has signs that no header may have")
        if self.key_env == DEFAULT_KEY and self.url.startswith("http://") and not is_here(self.url):
            raise UsageError(
                f"url={self.url}: the key in {DEFAULT_KEY} would travel there for all to read; take https, name the "
                "variable of this server's own key by key_env, or send none by key_env=null"
            )
        return key


@contextmanager
def _event_loop() -> Iterator[Callable[[Coroutine[Any, Any, T]], T]]:
    """Run coroutines in a thread of their own: the caller's may have a loop that runs, as a notebook's does."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="endpoint", daemon=True)
    thread.start()

    def run(work: Coroutine[Any, Any, T]) -> T:
        future = asyncio.run_coroutine_threadsafe(work, loop)
        try:
            return future.result()
        except BaseException:  # such as Ctrl-C, at which requests under way are given up
            future.cancel()
            raise

    try:
        yield run
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()
