"""Image embeddings of a clip's first, middle and last evidence frame: the one pass that all similarities read.

``clip``, ``aesthetic``, ``classify`` and the search for semantic duplicates read these columns and look at no frame, so that
other captions, labels or heads cost no pass of the image tower.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import field
from itertools import pairwise
from typing import Annotated, ClassVar

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pydantic import Field
from pydantic.dataclasses import dataclass

from dailies.curation import schema
from dailies.curation.config import SPEC
from dailies.curation.scorers.encoders import Encoder, ImageTextModel, batches_ahead, load_encoder
from dailies.curation.scorers.text import POSITIONS, first_middle_last
from dailies.curation.types import Evidence, EvidenceFrame, Resources

VECTOR = pa.list_(pa.float32())


@dataclass(frozen=True, kw_only=True, config=SPEC)
class EmbedScorer(ImageTextModel):
    """Image embeddings of each clip's first, middle and last frame.

    Args:
        decoders: threads of a worker with a GPU that decode and resize frames while the model looks at others.

    The others are those of ``dailies.curation.scorers.encoders``.
    """

    decoders: Annotated[int, Field(ge=1)] = field(default=4, metadata={"meaning": False})

    identity: ClassVar[str] = "curation.scorers.embed.Embed"
    meaning: ClassVar[int] = 1
    needs: ClassVar[tuple[str, ...]] = ()
    columns: ClassVar[tuple[pa.Field, ...]] = (
        schema.field("embedding", VECTOR, "mean of the three below, made of length 1 again", "unit vector"),
        *(
            schema.field(f"embedding_{position}", VECTOR, f"of the {position} evidence frame", "unit vector")
            for position in POSITIONS
        ),
        schema.field(
            "frame_consistency",
            pa.float64(),
            "mean cosine of first and middle, middle and last embedding; null for a clip of one evidence frame",
            "-1 to 1",
        ),
    )

    @property
    def resources(self) -> Resources:
        return Resources(cpus=self.decoders if self.gpus else 1, gpus=self.gpus, memory_gb=4)

    @contextmanager
    def open(self) -> Iterator[Callable[[Sequence[Evidence]], pa.Table]]:
        encoder = load_encoder(self.model, gpu=self.gpus > 0)
        with ExitStack() as stack:
            pool = stack.enter_context(ThreadPoolExecutor(self.decoders)) if self.gpus else None

            def score(evidence: Sequence[Evidence]) -> pa.Table:
                vectors = embed_clips(encoder, evidence, self.batch, pool)
                return pa.table(_columns(evidence, vectors), schema=pa.schema(list(self.columns)))

            yield score


def embed_clips(
    encoder: Encoder, clips: Sequence[Evidence], batch: int, pool: Executor | None = None
) -> list[NDArray[np.float32]]:
    """Return the embeddings (3, D) of each clip's first, middle and last frame.

    Batches go across clips and sources. A frame that is two of the three is looked at once.
    """
    looked = [first_middle_last(clip.frames) for clip in clips]
    distinct: dict[tuple[int, int], EvidenceFrame] = {
        (number, frame.pts): frame for number, frames in enumerate(looked) for frame in frames
    }
    vectors = [
        vector
        for pictures in batches_ahead(list(distinct.values()), encoder.ready, batch, pool)
        for vector in encoder.images(pictures)
    ]
    of_frame = dict(zip(distinct, vectors, strict=True))
    return [np.stack([of_frame[number, frame.pts] for frame in frames]) for number, frames in enumerate(looked)]


def _columns(clips: Sequence[Evidence], vectors: Sequence[NDArray[np.float32]]) -> dict[str, list[object]]:
    consistency = [
        _consistency(first_middle_last(clip.frames), each) for clip, each in zip(clips, vectors, strict=True)
    ]
    means = [each.mean(0) for each in vectors]
    return {
        "embedding": [mean / np.linalg.norm(mean) for mean in means],
        **{f"embedding_{position}": [each[number] for each in vectors] for number, position in enumerate(POSITIONS)},
        "frame_consistency": consistency,
    }


def _consistency(frames: Sequence[EvidenceFrame], vectors_3D: NDArray[np.float32]) -> float | None:  # noqa: N803
    """Return the mean cosine of neighbours among the frames that are looked at, of which two may be the same."""
    cosines = [
        float(vectors_3D[before] @ vectors_3D[after])
        for before, after in pairwise(range(len(frames)))
        if frames[before].pts != frames[after].pts
    ]
    return float(np.clip(np.mean(cosines), -1, 1)) if cosines else None
