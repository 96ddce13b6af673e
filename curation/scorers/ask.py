"""Ask: a yes/no question about a clip's frames and its caption, put to a chat model. A scorer is this mixed with a way to one.

Frames are evidence, spread over the clip. The answer is taken from how the reply begins; how sure the model is of it, replies
do not say.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Annotated, Any, ClassVar, Protocol

import pyarrow as pa
from pydantic import Field
from pydantic.dataclasses import dataclass

from dailies.curation.chat import (
    Ask,
    ChatImage,
    ChatModel,
    EndpointChat,
    Prompt,
    Reply,
    TransformersChat,
    prompt_text,
    spread,
)
from dailies.curation.config import SPEC
from dailies.curation.errors import Unanswered
from dailies.curation.plain_text import shortened
from dailies.curation.schema import STATE, field
from dailies.curation.scorers.stored import has_text, no_text, own_text
from dailies.curation.types import Evidence

PLACE = "{caption}"
"""What stands in a question for the caption."""
LONGEST = 200  # characters that are kept of a reply
_ANSWER = re.compile(r"[\W_]*(?:(?:the )?answer(?: is)?\W*)?(yes|no)\b", re.IGNORECASE)


class _Questions(ChatModel, Protocol):
    """``Question`` mixed with a way to a model."""

    caption: str

    def asks(self, clips: Sequence[Evidence]) -> list[Ask]: ...

    def answerable(self, clip: Evidence) -> bool: ...


@dataclass(frozen=True, kw_only=True, config=SPEC)
class Question:
    """A base for scorers that put a question about a clip.

    Args:
        question: the name of a prompt that ships with dailies, a file (.txt, .md), or the text of one, which asks for yes or
            no; {caption} in it stands for the caption.
        caption: the column that holds it, which is read where the question has a place for it.
        frames: of the evidence, how many are looked at, spread over the clip; all where it has fewer; of one, the middle.
        max_tokens: most tokens of a reply.
    """

    question: Prompt = "caption-fits"
    caption: str = "caption_fuse"
    frames: Annotated[int, Field(ge=1, le=512)] = 8
    max_tokens: Annotated[int, Field(ge=1)] = 16

    meaning: ClassVar[int] = 1
    columns: ClassVar[tuple[pa.Field, ...]] = (
        field("answer", pa.string(), "yes or no, as the model's reply begins; null where it is neither"),
        field("answer_reply", pa.string(), f"the reply, of {LONGEST} characters at most; null without one"),
    )

    @property
    def needs(self) -> tuple[str, ...]:
        return (self.caption,) if PLACE in prompt_text(self.question) else ()

    def answerable(self, clip: Evidence) -> bool:
        """Return whether there is a caption where the question has a place for one."""
        return all(has_text(clip.columns, name) for name in self.needs)

    def asks(self, clips: Sequence[Evidence]) -> list[Ask]:
        """Return what is asked of each clip. Raises ``SourceError`` where its caption is empty."""
        text = prompt_text(self.question)
        return [
            Ask(
                text=text.replace(PLACE, own_text(clip.columns, self.caption)) if self.needs else text,
                images=tuple(
                    ChatImage(jpeg=frame.jpeg, seconds=float((frame.pts - clip.span.start) * clip.span.time_base))
                    for frame in (clip.frames[at] for at in spread(len(clip.frames), self.frames))
                ),
                max_tokens=self.max_tokens,
            )
            for clip in clips
        ]

    @contextmanager
    def open(self: _Questions) -> Iterator[Callable[[Sequence[Evidence]], pa.Table]]:
        with self.chat() as chat:

            def score(evidence: Sequence[Evidence]) -> pa.Table:
                asked = [at for at, clip in enumerate(evidence) if self.answerable(clip)]
                replies = chat(self.asks([evidence[at] for at in asked])) if asked else []
                rows = [no_text(self.caption) for _ in evidence]
                for at, reply in zip(asked, replies, strict=True):
                    rows[at] = _row(reply)
                return pa.Table.from_pylist(rows, schema=pa.schema([*Question.columns, *STATE]))

            yield score


def yes_or_no(reply: str) -> str | None:
    """Return the answer that a reply begins with, in lower case; None where it begins with neither."""
    match = _ANSWER.match(reply)
    return None if match is None else match[1].lower()


def _row(reply: Reply) -> dict[str, Any]:
    """Return a reply's row. One that the model did not give is asked for again by the next run."""
    if reply.outcome in ("ok", "truncated"):
        return {"answer": yes_or_no(reply.text), "answer_reply": shortened(reply.text, LONGEST) or None, "status": "ok"}
    kind = reply.kind or (Unanswered.kind if reply.outcome == "failed" else reply.outcome)
    return {"status": "failed", "why": {"kind": kind, "message": reply.why or f"the model's reply is {reply.outcome}"}}


@dataclass(frozen=True, kw_only=True, config=SPEC)
class AskScorer(Question, TransformersChat):
    """A yes/no question about each clip, put to a model of transformers on this machine.

    The parameters are those of ``dailies.curation.scorers.ask`` and ``dailies.curation.chat.transformers_chat``.
    """

    identity: ClassVar[str] = "curation.scorers.ask.Ask"


@dataclass(frozen=True, kw_only=True, config=SPEC)
class AskEndpointScorer(Question, EndpointChat):
    """A yes/no question about each clip, put to a model behind a server.

    The parameters are those of ``dailies.curation.scorers.ask`` and ``dailies.curation.chat.endpoint``.
    """

    identity: ClassVar[str] = "curation.scorers.ask.AskEndpoint"
