"""Merge: several captions of a clip in one, by a language model, as SVD has it (arXiv 2311.15127, App. C; the paper does not
give its prompt). A captioner is this mixed with a way to a model.

What the model writes is held against what it was given (``dailies.curation.captioners.merge_check``). Where it does not pass,
or nothing is written, ``fuse`` takes its place: the row has the ``model`` "fuse" then, and ``fell_back`` and why in ``flags``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass as plain_dataclass
from dataclasses import field, replace
from functools import reduce
from typing import Annotated, Any, ClassVar, Protocol

import pyarrow as pa
from pydantic import AfterValidator, Field
from pydantic.dataclasses import dataclass

from dailies.curation.captioners.captions import COLUMNS, Caption, caption_of, caption_table
from dailies.curation.captioners.fuse import fuse
from dailies.curation.captioners.merge_check import check_merge
from dailies.curation.chat import Ask, ChatModel, Prompt, Reply, prompt_text, wording
from dailies.curation.config import SPEC
from dailies.curation.errors import SourceError
from dailies.curation.plain_text import one_line
from dailies.curation.schema import digest
from dailies.curation.types import Evidence

FELL_BACK = "fell_back"
FUSE = "fuse"
HEADING = re.compile(
    r"(here(’s|'s| is)[^:]*|(the )?(merged |combined |rewritten |final )*(caption|sentence|text)):\s*", re.IGNORECASE
)
"""What models write before a caption, although they were told not to."""


def _differ(columns: tuple[str, ...]) -> tuple[str, ...]:
    if twice := sorted({name for name in columns if columns.count(name) > 1}):
        raise ValueError(f"{twice[0]!r} is listed twice; leave one out")
    return columns


class _Merges(ChatModel, Protocol):
    """``Merge`` mixed with a way to a model."""

    needs: tuple[str, ...]

    def captions_of(self, clips: Sequence[Evidence], chat: Callable[[Sequence[Ask]], list[Reply]]) -> list[Caption]: ...


@plain_dataclass(frozen=True, slots=True, kw_only=True)
class _Sources:
    """What there is to merge of one clip. ``context``: name → what else is known."""

    captions: tuple[str, ...]
    context: dict[str, str]

    @property
    def text(self) -> str:
        """The captions as sentences on one line, as small models take each line for a story of its own; below, a line for
        each of the others."""
        captions = " ".join(map(_sentence, self.captions))
        return "\n".join([captions, *(f"{name}: {value}" for name, value in self.context.items())])


@dataclass(frozen=True, kw_only=True, config=SPEC)
class Merge:
    """A base for captioners that merge others.

    Args:
        captions: the columns to merge, what is seen before what happens; one alone stays as it is.
        context: what else the model is told, as NAME: COLUMN, such as {camera: motion_camera, title: manifest.title}.
        prompt: the name of a prompt that ships with dailies, a file (.txt, .md), or the text of one. It is the system's part;
            the user's are the captions, a sentence each.
        max_tokens: most tokens of a merge.
        temperature: 0 for the likeliest words; above, they are drawn.
        seed: of what is drawn.
        max_added: words of a merge that is kept which stand in nothing that was merged; with more, fuse takes its place.
    """

    captions: Annotated[tuple[str, ...], Field(min_length=2), AfterValidator(_differ)] = (
        "caption_coca",
        "caption_motion",
    )
    context: dict[str, str] = field(default_factory=dict)
    prompt: Prompt = "merge-svd"
    max_tokens: Annotated[int, Field(ge=1)] = 128
    temperature: Annotated[float, Field(ge=0, le=5)] = 0.0
    seed: int = 0
    max_added: Annotated[int, Field(ge=0)] = 2

    needs_frames: ClassVar[bool] = False
    columns: ClassVar[tuple[pa.Field, ...]] = COLUMNS

    @property
    def needs(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys([*self.captions, *self.context.values()]))

    @contextmanager
    def open(self: _Merges) -> Iterator[Callable[[Sequence[Evidence]], pa.Table]]:
        with self.chat() as chat:
            yield lambda evidence: caption_table(self.captions_of(evidence, chat))

    def captions_of(self, clips: Sequence[Evidence], chat: Callable[[Sequence[Ask]], list[Reply]]) -> list[Caption]:
        """Return a caption of each clip; one that has nothing to merge has a failed one."""
        sources = [self._sources(clip) for clip in clips]
        asked = [at for at, source in enumerate(sources) if len(source.captions) > 1]
        replies = chat([self._ask(sources[at]) for at in asked]) if asked else []
        captions = [_fused(source) if source.captions else self._empty() for source in sources]
        for at, reply in zip(asked, replies, strict=True):
            captions[at] = self._caption(sources[at], reply)
        return captions

    def _sources(self, clip: Evidence) -> _Sources:
        texts = [one_line(clip.columns[name] or "") for name in self.captions]
        context = {name: _shown(clip.columns[column]) for name, column in self.context.items()}
        return _Sources(
            captions=tuple(text for text in texts if wording.WORD.search(text)),
            context={name: value for name, value in context.items() if value},
        )

    @property
    def told(self) -> str:
        """What the model is told besides the captions, as tables and cards have its hash."""
        return prompt_text(self.prompt)

    def _empty(self) -> Caption:
        error = SourceError(f"{', '.join(self.captions)} are empty: there is nothing to merge")
        return Caption(text=None, tokens=None, status="failed", error=error, model=FUSE)

    def _ask(self, sources: _Sources) -> Ask:
        return Ask(
            text=sources.text,
            system=self.told,
            max_tokens=self.max_tokens,
            temperature=self.temperature,
            seed=int(digest("merge", self.seed, sources.text)[:15], 16),
        )

    def _caption(self, sources: _Sources, reply: Reply) -> Caption:
        caption = caption_of(reply, prompt=self.told)
        if caption.status == "failed":
            return caption  # asked again by another run
        if caption.text is None:
            return self._fallen_back(sources, caption, caption.status)
        text = tidy(caption.text)
        told = [*(value for pair in sources.context.items() for value in pair)]
        check = check_merge(text, sources.captions, context=told, prompt=self.told, max_added=self.max_added)
        if caption.status == "truncated" or check.bad:
            cut = ["truncated"] if caption.status == "truncated" else []
            return self._fallen_back(sources, caption, *cut, *check.flags)
        return replace(caption, text=text, flags=check.flags)

    def _fallen_back(self, sources: _Sources, caption: Caption, *why: str) -> Caption:
        """Return what ``fuse`` makes of it; what the model read is still counted."""
        return replace(_fused(sources), flags=(FELL_BACK, *why), prompt_tokens=caption.prompt_tokens)


def tidy(text: str) -> str:
    """Return what a model wrote as one line, without a heading, quotes around it, and marks of Markdown."""
    text = one_line(text.replace("**", ""))
    heading = HEADING.match(text)
    text = text[heading.end() :] if heading else text
    quoted = re.fullmatch(r'["“]([^"“”]*)["”]', text)
    return (quoted[1] if quoted else text).strip()


def _fused(sources: _Sources) -> Caption:
    text = reduce(fuse, sources.captions)
    return Caption(text=text, tokens=len(text.split()), model=FUSE)


def _sentence(text: str) -> str:
    """Return a text with a capital at its beginning and a full stop at its end."""
    text = text.rstrip(" ,;")
    return text[0].upper() + text[1:] + ("" if text.endswith((".", "!", "?", "…", '"')) else ".")


def _shown(value: Any) -> str:
    return "" if value is None else f"{value:g}" if isinstance(value, float) else one_line(str(value))
