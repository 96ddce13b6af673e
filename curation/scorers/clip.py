"""CLIP similarity: whether a clip shows what its caption says, on first, middle and last evidence.

The cosine between the embeddings of a frame and of the caption, averaged over the three frames, as SVD filters by
(arXiv 2311.15127, App. C). Frames were embedded by an earlier step, ``embed``, whose model gives the text tower too; without
such a step, as in recipes of before there was one, they are embedded here. Any CLIP, CoCa or SigLIP will do; values of one
model mean nothing in another's scale. The built-in one knows the rendered world only.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import field, replace
from typing import Annotated, ClassVar, Self

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pydantic import Field, StringConstraints
from pydantic.dataclasses import dataclass

from dailies.curation import schema
from dailies.curation.config import SPEC
from dailies.curation.scorers.embed import EmbedScorer, embed_clips
from dailies.curation.scorers.encoders import Encoder, ImageTextModel, load_encoder
from dailies.curation.scorers.stored import STEP, embedder, embedding_columns, model_of, own_text, stored
from dailies.curation.types import Evidence

Prompts = Annotated[tuple[Annotated[str, StringConstraints(pattern=r"\S")], ...], Field(min_length=1)]


@dataclass(frozen=True, kw_only=True, config=SPEC)
class ClipScorer(ImageTextModel):
    """The CLIP similarity of each clip and its caption.

    Args:
        model: that of the step whose embeddings are read, which a recipe fills in; without such a step, any that
            embed takes.
        caption: the column that holds the text.
        prompts: texts to compare every clip with instead of its caption; the nearest counts.
        embed: the step whose embeddings are read, by default embed where it stands before; without one, frames are
            looked at.

    The others are those of ``dailies.curation.scorers.encoders``.
    """

    caption: str = "caption_fuse"
    prompts: Prompts | None = field(default=None, metadata={"later": True})
    embed: str | None = field(default=None, metadata={"meaning": False})

    identity: ClassVar[str] = "curation.scorers.clip.Clip"
    meaning: ClassVar[int] = 1
    requires: ClassVar[tuple[str, ...]] = ("open_clip", "torch", "transformers")
    columns: ClassVar[tuple[pa.Field, ...]] = (
        schema.field(
            "clip_similarity",
            pa.float64(),
            "cosine of frame and caption, or the nearest prompt, mean of three frames",
            "-1 to 1",
        ),
    )

    @property
    def needs(self) -> tuple[str, ...]:
        texts = () if self.prompts else (self.caption,)
        return (*texts, *(embedding_columns(self.embed) if self.embed else ()))

    @property
    def needs_frames(self) -> bool:
        return self.embed is None

    def reading(self, steps: Mapping[str, EmbedScorer]) -> Self:
        """See ``ReadsEmbeddings``; it embeds by itself where no step is named and none is called embed."""
        if self.embed is None and STEP not in steps:
            return self
        step = self.embed or STEP
        asked = None if self.model == ClipScorer.model else self.model
        return replace(self, embed=step, model=model_of(step, embedder(step, steps), asked))

    @contextmanager
    def open(self) -> Iterator[Callable[[Sequence[Evidence]], pa.Table]]:
        encoder = load_encoder(self.model, gpu=self.gpus > 0)
        prompts_PD = encoder.texts(self.prompts) if self.prompts else None  # noqa: N806

        def score(evidence: Sequence[Evidence]) -> pa.Table:
            values = self._similarities(encoder, evidence, prompts_PD) if evidence else []
            return pa.table({"clip_similarity": values}, schema=pa.schema(list(self.columns)))

        yield score

    def _similarities(
        self,
        encoder: Encoder,
        clips: Sequence[Evidence],
        prompts_PD: NDArray[np.float32] | None,  # noqa: N803
    ) -> list[float]:
        if prompts_PD is not None:
            texts_CPD = np.broadcast_to(prompts_PD, (len(clips), *prompts_PD.shape))  # noqa: N806
        else:
            texts = [own_text(clip.columns, self.caption) for clip in clips]
            distinct = list(dict.fromkeys(texts))
            of_text = dict(zip(distinct, encoder.texts(distinct), strict=True))
            texts_CPD = np.stack([of_text[text] for text in texts])[:, None]  # noqa: N806
        images_C3D = (  # noqa: N806
            stored(clips, embedding_columns(self.embed))
            if self.embed
            else np.stack(embed_clips(encoder, clips, self.batch))
        )
        cosines_C3P = np.einsum("cfd,cpd->cfp", images_C3D, texts_CPD)  # noqa: N806
        return [float(value) for value in np.clip(cosines_C3P.mean(1).max(1), -1, 1)]
