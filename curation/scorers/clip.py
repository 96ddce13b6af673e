"""CLIP similarity: whether a clip shows what its caption says, on first, middle and last evidence.

The cosine between the embeddings of a frame and of the caption, averaged over the three frames, as SVD filters by
(arXiv 2311.15127, App. C). Any open_clip model will do, CLIP or CoCa; values of one model mean nothing in another's scale. The
built-in one knows the rendered world only.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import ClassVar

import pyarrow as pa
from pydantic.dataclasses import dataclass

from dailies.curation import schema
from dailies.curation.config import SPEC
from dailies.curation.errors import SourceError
from dailies.curation.scorers import openclip
from dailies.curation.scorers.text import first_middle_last
from dailies.curation.types import Evidence


@dataclass(frozen=True, kw_only=True, config=SPEC)
class ClipScorer(openclip.OpenClip):
    """The CLIP similarity of each clip and its caption.

    Args:
        caption: the column that holds the text.

    The others are those of ``dailies.curation.scorers.openclip``.
    """

    caption: str = "caption_fuse"

    identity: ClassVar[str] = "curation.scorers.clip.Clip"
    meaning: ClassVar[int] = 1
    requires: ClassVar[tuple[str, ...]] = ("open_clip", "torch", "transformers")
    columns: ClassVar[tuple[pa.Field, ...]] = (
        schema.field("clip_similarity", pa.float64(), "cosine of frame and caption, mean of three frames", "-1 to 1"),
    )

    @property
    def needs(self) -> tuple[str, ...]:
        return (self.caption,)

    @contextmanager
    def open(self) -> Iterator[Callable[[Sequence[Evidence]], pa.Table]]:
        loaded = openclip.load(self.model, gpu=self.gpus > 0)

        def score(evidence: Sequence[Evidence]) -> pa.Table:
            values: list[float] = []
            for first in range(0, len(evidence), self.batch):
                values += self._batch(loaded, evidence[first : first + self.batch])
            return pa.table({"clip_similarity": values}, schema=pa.schema(list(self.columns)))

        yield score

    def _batch(self, loaded: openclip.Loaded, clips: Sequence[Evidence]) -> list[float]:
        import torch

        texts = [clip.columns[self.caption] for clip in clips]
        if not all(text and text.strip() for text in texts):
            raise SourceError(f"{self.caption} is empty: there is no caption to compare with")
        looked = [frame for clip in clips for frame in first_middle_last(clip.frames)]
        with torch.inference_mode():
            images_ND = loaded.model.encode_image(loaded.pixels(looked), normalize=True)  # noqa: N806
            texts_BD = loaded.model.encode_text(loaded.tokenize(texts).to(loaded.device), normalize=True)  # noqa: N806
            cosines = (images_ND.unflatten(0, (len(clips), 3)) * texts_BD[:, None]).sum(-1).mean(1)
        return [float(value) for value in cosines]
