"""The quality of a caption, by its words: repetition, refusals, language, length, echo, unprintables, agreement.

Whether the clip shows what the caption says, ``clip`` measures. The language is told by py3langid (extra ``captions``):
a naive Bayes over n-grams of bytes, 139 languages in 5 MB under a BSD licence, whose probabilities say when a text is too
short to tell; lingua tells short texts better, and weighs 96 MB.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Annotated, Any, ClassVar

import pyarrow as pa
from pydantic import Field
from pydantic.dataclasses import dataclass

from dailies.curation.caption_measures import agreement, echo, refusals, repetition, split_words, unprintable
from dailies.curation.chat import Prompt, prompt_text
from dailies.curation.config import SPEC
from dailies.curation.schema import STATE, field
from dailies.curation.scorers.stored import has_text, no_text
from dailies.curation.types import Evidence, Resources


@dataclass(frozen=True, kw_only=True, config=SPEC)
class CaptionQualityScorer:
    """What a caption's words say of it.

    Args:
        caption: the column that holds the text.
        others: columns with captions by others of the same clips, which it is compared with.
        prompt: what its captioner was asked, by a prompt's name, a file (.txt, .md) or as text; null for no echo.
        ngram: words of the n-grams that repeat.
        sure: probability from which a language is told; null tells none, and needs no package.
    """

    caption: str = "caption_fuse"
    others: tuple[str, ...] = ()
    prompt: Prompt | None = None
    ngram: Annotated[int, Field(ge=1, le=16)] = 3
    sure: Annotated[float, Field(ge=0, le=1)] | None = 0.5

    identity: ClassVar[str] = "curation.scorers.caption_quality.CaptionQuality"
    meaning: ClassVar[int] = 1
    needs_frames: ClassVar[bool] = False
    columns: ClassVar[tuple[pa.Field, ...]] = (
        field(
            "repetition",
            pa.float64(),
            "1 - distinct / all n-grams of words of the caption (seq-rep-n, n = 3 by default); 0 is none",
            "0-1",
        ),
        field("refusals", pa.int32(), "phrases such as “I cannot see the video” in the caption", "phrase"),
        field("language", pa.string(), "ISO 639 code of the caption's language; null where that is not sure"),
        field("word_count", pa.int32(), "length of the caption; of Chinese and Japanese, in characters", "word"),
        field(
            "prompt_echo",
            pa.float64(),
            "share of the prompt's n-grams of words that the caption repeats; null without a prompt",
            "0-1",
        ),
        field(
            "unprintable",
            pa.int32(),
            "characters of the caption that are controls, hidden, broken or not assigned",
            "character",
        ),
        field(
            "agreement",
            pa.float64(),
            "likeness to the other captions of the clip: chrF with β = 1, mean over those it has; null where it has none",
            "0-1",
        ),
    )
    models: ClassVar[tuple[str, ...]] = ()
    resources: ClassVar[Resources] = Resources(cpus=1, memory_gb=0.5)

    @property
    def needs(self) -> tuple[str, ...]:
        return (self.caption, *self.others)

    @property
    def requires(self) -> tuple[str, ...]:
        return () if self.sure is None else ("py3langid",)

    def weights(self) -> None:
        return None

    @contextmanager
    def open(self) -> Iterator[Callable[[Sequence[Evidence]], pa.Table]]:
        tell = (lambda text: None) if self.sure is None else language_teller(self.sure)
        prompt = None if self.prompt is None else prompt_text(self.prompt)

        def score(evidence: Sequence[Evidence]) -> pa.Table:
            rows = [self._row(clip, prompt, tell) for clip in evidence]
            return pa.Table.from_pylist(rows, schema=pa.schema([*self.columns, *STATE]))

        yield score

    def _row(self, clip: Evidence, prompt: str | None, tell: Callable[[str], str | None]) -> dict[str, Any]:
        if not has_text(clip.columns, self.caption):
            return no_text(self.caption)
        text = clip.columns[self.caption]
        others = [clip.columns[name] for name in self.others]
        return {
            "status": "ok",
            "repetition": repetition(text, self.ngram),
            "refusals": refusals(text),
            "language": tell(text),
            "word_count": len(split_words(text)),
            "prompt_echo": None if prompt is None else echo(text, prompt, self.ngram),
            "unprintable": unprintable(text),
            "agreement": agreement(text, [other for other in others if other and other.strip()]),
        }


def language_teller(sure: float) -> Callable[[str], str | None]:
    """Return what tells the ISO 639 code of a text's language; None of a text that is less than ``sure`` to be in one."""
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    identifier = LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)

    def tell(text: str) -> str | None:
        language, probability = identifier.classify(text)
        return str(language) if probability >= sure else None

    return tell
