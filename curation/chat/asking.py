"""What is asked of a chat model, what it answers, and what every way to one offers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Protocol

from dailies.curation.types import Resources

Outcome = Literal["ok", "truncated", "blocked", "empty", "failed"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ChatImage:
    """A JPEG that a model looks at, and when it is seen: seconds after the clip's start, None where that says nothing."""

    jpeg: bytes
    seconds: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """One question. It depends on nothing else that is asked, and its answer on nothing else that is answered.

    ``text``: what the user says, after the ``images``. ``max_tokens``: most that the answer may have. ``temperature``: 0
    takes the likeliest token each time. ``seed``: of what is drawn, where it is over 0. ``schema``: a JSON schema that the
    answer shall follow; a way that cannot hold a model to it asks all the same, and the reader of the answer checks it.
    """

    text: str
    images: tuple[ChatImage, ...] = ()
    system: str | None = None
    max_tokens: int = 256
    temperature: float = 0.0
    seed: int = 0
    schema: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """An answer. ``text``: empty where ``outcome`` is blocked, empty or failed; then ``why`` says it in a line.

    ``kind``: of what failed, where that is known: a word as ``SourceError`` has. ``tokens`` were written and ``prompt_tokens``
    read, pictures included; None where nobody counts them. ``model`` and ``revision`` are those that answered, as they say it.
    """

    text: str
    outcome: Outcome = "ok"
    why: str | None = None
    kind: str | None = None
    tokens: int | None = None
    prompt_tokens: int | None = None
    model: str
    revision: str | None = None


class ChatModel(Protocol):
    """A way to a chat model: a picklable spec, a pydantic dataclass whose fields are its parameters, to be mixed into what
    asks: captioners, summaries, scorers. torch and clients are imported by ``chat`` alone.
    """

    models: ClassVar[tuple[str, ...]]

    @property
    def requires(self) -> tuple[str, ...]:
        """Importable names of the packages it needs; a class variable where they are always the same."""

    @property
    def resources(self) -> Resources: ...

    def weights(self) -> str | None:
        """Return sha256 or pinned revision of the weights; part of the fingerprint."""

    def check(self) -> None:
        """Raise ``UsageError`` or ``Damaged`` for what cannot be asked, before any work."""

    def chat(self) -> AbstractContextManager[Callable[[Sequence[Ask]], list[Reply]]]:
        """Load the model or reach the server. The call answers any number of asks, in order, and batches them by itself.

        What is one ask's fault is its reply, ``failed`` or ``blocked``; raised is what is no ask's fault, such as a key that
        a server refuses, memory that does not suffice for one ask, or a server that is gone.
        """
