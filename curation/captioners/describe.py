"""Describe: a clip's frames put to a chat model with a prompt. A captioner is this mixed with a way to a model.

Frames are evidence, spread over the clip from its first to its last, each with its second.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Annotated, ClassVar, Protocol

import pyarrow as pa
from pydantic import Field
from pydantic.dataclasses import dataclass

from dailies.curation.camera_words import AGAINST, against_camera, camera_phrase
from dailies.curation.caption_fields import instruction, json_schema, parse_fields, serialize
from dailies.curation.captioners.captions import COLUMNS, Caption, caption_of, caption_table, seed_of
from dailies.curation.chat import Ask, ChatImage, ChatModel, Prompt, Reply, prompt_text, spread
from dailies.curation.config import SPEC
from dailies.curation.errors import Malformed
from dailies.curation.plain_text import clean
from dailies.curation.types import Evidence, EvidenceFrame

CONTENT = ("content_id", "stream")
"""Columns that say what a clip shows, wherever its source lies."""
UNFIT = (ValueError, TypeError, OverflowError)
"""What is raised of a value that no column holds, such as half of a surrogate pair or a number of tokens past int32."""


class _Describes(ChatModel, Protocol):
    """``Describe`` mixed with a way to a model."""

    def asks(self, clips: Sequence[Evidence]) -> list[Ask]: ...

    @property
    def told(self) -> str: ...

    def caption(self, clip: Evidence, reply: Reply, told: str) -> Caption: ...


@dataclass(frozen=True, kw_only=True, config=SPEC)
class Describe:
    """A base for captioners that look at a clip.

    Args:
        frames: of the evidence, how many are looked at, spread over the clip; all where it has fewer.
        prompt: the name of a prompt that ships with dailies, a file (.txt, .md), or the text of one.
        system: what the model is told it is, null for what its maker tells it.
        max_tokens: most tokens of a caption.
        temperature: 0 for the likeliest words; above, they are drawn.
        seed: of what is drawn.
        fields: ask for a caption in fields (subject, action, setting, …), keep these, and write the text out of them.
        camera: the column of the measured movement of the camera, such as motion_camera: it fills the field camera, and flags
            captions that contradict it; null for neither.
    """

    frames: Annotated[int, Field(ge=1, le=512)] = 8
    prompt: Prompt = "describe"
    system: str | None = None
    max_tokens: Annotated[int, Field(ge=1)] = 256
    temperature: Annotated[float, Field(ge=0, le=5)] = 0.0
    seed: int = 0
    fields: bool = False
    camera: str | None = None

    columns: ClassVar[tuple[pa.Field, ...]] = COLUMNS

    @property
    def needs(self) -> tuple[str, ...]:
        return (*CONTENT, self.camera) if self.camera else CONTENT

    def asks(self, clips: Sequence[Evidence]) -> list[Ask]:
        """Return what is asked of each clip."""
        question = self.question()
        return [
            Ask(
                text=question,
                images=tuple(
                    ChatImage(jpeg=frame.jpeg, seconds=float((frame.pts - clip.span.start) * clip.span.time_base))
                    for frame in self._looked_at(clip)
                ),
                system=self.system,
                max_tokens=self.max_tokens,
                temperature=self.temperature,
                seed=seed_of(self.seed, clip, CONTENT),
                schema=json_schema() if self.fields else None,
            )
            for clip in clips
        ]

    def question(self) -> str:
        """Return what the model is told, of the form of its answer too."""
        text = prompt_text(self.prompt)
        return f"{text}\n\n{instruction()}" if self.fields else text

    @property
    def told(self) -> str:
        """All that the model is told in words, as tables and cards have its hash."""
        return self.question() if self.system is None else f"{self.system}\n\n{self.question()}"

    def _looked_at(self, clip: Evidence) -> list[EvidenceFrame]:
        return [clip.frames[at] for at in spread(len(clip.frames), self.frames)]

    def caption(self, clip: Evidence, reply: Reply, told: str) -> Caption:
        """Return the caption that a reply is; ``told``: what the model was."""
        caption = caption_of(reply, prompt=told)
        measured = clip.columns[self.camera] if self.camera else None
        if caption.text is None:
            return caption
        if not self.fields:
            flags = (AGAINST,) if against_camera(caption.text, measured) else ()
            return replace(caption, flags=flags)
        try:
            fields, _ = parse_fields(caption.text)
        except Malformed as error:
            cut = f"max_tokens={self.max_tokens}: the answer was cut off there, and its fields with it; raise it"
            return _failed(caption, Malformed(cut) if reply.outcome == "truncated" else error)
        if fields.empty:
            return replace(caption, text=None, tokens=None, status="empty")
        flags = (AGAINST,) if against_camera(f"The camera {fields.camera}.", measured) else ()
        fields = replace(fields, camera=camera_phrase(measured) or fields.camera)
        return replace(caption, text=serialize(fields), fields=fields.to_json(), flags=flags)

    @contextmanager
    def open(self: _Describes) -> Iterator[Callable[[Sequence[Evidence]], pa.Table]]:
        told = self.told
        with self.chat() as chat:

            def captions(evidence: Sequence[Evidence]) -> pa.Table:
                replies = chat(self.asks(evidence)) if evidence else []
                pairs = zip(evidence, replies, strict=True)
                return _table([self.caption(clip, reply, told) for clip, reply in pairs])

            yield captions


def _table(captions: Sequence[Caption]) -> pa.Table:
    """Return the table of captions; one that no table holds is failed, so that none of the others is asked for again."""
    try:
        return caption_table(captions)
    except UNFIT:
        return caption_table([_held(caption) for caption in captions])


def _held(caption: Caption) -> Caption:
    try:
        caption_table([caption])
    except UNFIT as error:
        unfit = replace(caption, revision=None, prompt_tokens=None, fields=None, flags=())
        return _failed(unfit, Malformed(f"the answer cannot be kept: {clean(str(error))}"))
    return caption


def _failed(caption: Caption, error: Malformed) -> Caption:
    return replace(caption, text=None, tokens=None, status="failed", error=error)
