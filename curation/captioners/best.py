"""Best: of several captions of a clip the one that fits it best, by CLIP similarity and by what the others agree with.

Panda-70M (arXiv 2402.19479) lets eight captioners write and a retrieval model pick, which was finetuned on picks by people
and is not published. Here any image-text model stands in its place, whose similarities are columns of the scorer ``clip``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Annotated, Any, ClassVar, Self

import pyarrow as pa
from pydantic import Field, StringConstraints, model_validator
from pydantic.dataclasses import dataclass

from dailies.curation import schema
from dailies.curation.caption_measures import agreement
from dailies.curation.captioners.captions import COLUMNS, Caption, caption_table
from dailies.curation.config import SPEC
from dailies.curation.errors import SourceError
from dailies.curation.types import Evidence, Resources

PREFIX = "caption_"
TOLD = ("tokens", "status", "fields", "flags")
"""What else is known of each caption, and comes with it."""
CHOSEN = schema.field("chosen", pa.string(), "the step whose caption it is, without caption_; null where there is none")

CaptionColumn = Annotated[str, StringConstraints(pattern=rf"^{PREFIX}.+")]


@dataclass(frozen=True, kw_only=True, config=SPEC)
class BestCaptioner:
    """The best of several captions: the greatest sum of similarity and agreement, each by its weight; of equals the first.

    Args:
        captions: columns of the captions to choose from, two or more; one that is not there for a clip is not chosen.
        similarities: columns with the CLIP similarity of each, in the same order; empty for agreement alone. A caption
            without a similarity is chosen only where none has any.
        similarity_weight: of the similarity, a cosine: those of two captions of one clip differ by hundredths.
        agreement_weight: of the agreement, a chrF of 0 to 1 with the other captions, mean: it differs by tenths.
    """

    captions: Annotated[tuple[CaptionColumn, ...], Field(min_length=2)]
    similarities: tuple[str, ...] = ()
    similarity_weight: Annotated[float, Field(ge=0)] = 1.0
    agreement_weight: Annotated[float, Field(ge=0)] = 0.1

    identity: ClassVar[str] = "curation.captioners.best.Best"
    meaning: ClassVar[int] = 1
    needs_frames: ClassVar[bool] = False
    columns: ClassVar[tuple[pa.Field, ...]] = (*COLUMNS, CHOSEN)
    requires: ClassVar[tuple[str, ...]] = ()
    models: ClassVar[tuple[str, ...]] = ()
    resources: ClassVar[Resources] = Resources(cpus=1, memory_gb=0.5)

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if len(set(self.captions)) < len(self.captions):
            raise ValueError(f"captions={list(self.captions)}: one is listed twice; leave one out")
        if self.similarities and len(self.similarities) != len(self.captions):
            raise ValueError(
                f"similarities={list(self.similarities)}: must be one for each of the {len(self.captions)} captions, "
                "in their order"
            )
        if not self.similarities and not self.agreement_weight:
            raise ValueError("agreement_weight=0: nothing is left to choose by; give similarities, or a weight")
        return self

    @property
    def needs(self) -> tuple[str, ...]:
        told = [f"{column}_{name.removeprefix(PREFIX)}" for name in self.captions for column in TOLD]
        return (*self.captions, *told, *self.similarities)

    def weights(self) -> None:
        return None

    @contextmanager
    def open(self) -> Iterator[Callable[[Sequence[Evidence]], pa.Table]]:
        def caption(evidence: Sequence[Evidence]) -> pa.Table:
            names = [self.choose(clip.columns) for clip in evidence]
            pairs = zip(evidence, names, strict=True)
            captions = [self._none() if name is None else _copied(clip.columns, name) for clip, name in pairs]
            return caption_table(captions, {CHOSEN: names})

        yield caption

    def _none(self) -> Caption:
        error = SourceError(f"{', '.join(self.captions)}: all are empty, there is no caption to choose")
        return Caption(text=None, tokens=None, status="failed", error=error, model="best")

    def choose(self, columns: Mapping[str, Any]) -> str | None:
        """Return the name of the caption that is best, without its prefix; None where there is none."""
        texts = {name: columns[name] for name in self.captions if columns[name] and columns[name].strip()}
        if not texts:
            return None
        similar = {name: columns[of] for name, of in zip(self.captions, self.similarities, strict=False)}

        def worth(name: str) -> tuple[bool, float]:
            agreed = agreement(texts[name], [text for other, text in texts.items() if other != name]) or 0.0
            cosine = similar.get(name)
            measured = 0.0 if cosine is None else self.similarity_weight * cosine
            return cosine is not None, measured + self.agreement_weight * agreed

        return max(texts, key=worth).removeprefix(PREFIX)


def _copied(columns: Mapping[str, Any], name: str) -> Caption:
    """Return the caption of a step as it is; its table says which model wrote it."""
    flags = columns[f"flags_{name}"]
    return Caption(
        text=columns[f"{PREFIX}{name}"],
        tokens=columns[f"tokens_{name}"],
        status="truncated" if columns[f"status_{name}"] == "truncated" else "ok",
        fields=columns[f"fields_{name}"],
        flags=flags.split(",") if flags else (),
        model=name,
    )
