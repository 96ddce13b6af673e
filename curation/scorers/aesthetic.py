"""Aesthetics: LAION's predictors over the stored embeddings of first, middle and last frame.

SVD drops the quarter that they like least (arXiv 2311.15127, App. C). A head knows the space of one model only, OpenAI's
CLIP ViT-L/14 for those in use; another's embeddings of the same width would give numbers too, and they would mean nothing.
So the model of the ``embed`` step must be the one that the head was trained on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import field
from pathlib import Path
from typing import Annotated, ClassVar, Self

import pyarrow as pa
from pydantic import AfterValidator
from pydantic.dataclasses import dataclass

from dailies.curation.config import SPEC
from dailies.curation.errors import RecipeError, UsageError
from dailies.curation.openclip import ZOO
from dailies.curation.schema import field as column
from dailies.curation.scorers.aesthetic_heads import Head, fingerprint
from dailies.curation.scorers.embed import EmbedScorer
from dailies.curation.scorers.state_dict import SUFFIXES
from dailies.curation.scorers.stored import STEP, embedder, embedding_columns, stored
from dailies.curation.types import Evidence, Resources

ONE_MODEL = tuple(
    frozenset({f"{name}:openai", f"{name}-quickgelu:openai", f"openai/{hub}", f"hf-hub:timm/{timm}.openai"})
    for name, hub, timm in (
        ("ViT-L-14", "clip-vit-large-patch14", "vit_large_patch14_clip_224"),
        ("ViT-L-14-336", "clip-vit-large-patch14-336", "vit_large_patch14_clip_336"),
        ("ViT-B-16", "clip-vit-base-patch16", "vit_base_patch16_clip_224"),
        ("ViT-B-32", "clip-vit-base-patch32", "vit_base_patch32_clip_224"),
    )
)
"""Names of OpenAI's models, each set one model."""


def same_model(name: str, other: str) -> bool:
    """Return whether two names stand for the same weights, as far as names tell."""
    return name == other or any({name, other} <= names for names in ONE_MODEL)


def _is_head(name: str) -> str:
    if not name.startswith(ZOO) and Path(name).suffix not in SUFFIXES and not Path(name).is_dir():
        raise ValueError(f"no file of weights; give a head's ({', '.join(SUFFIXES)}), or zoo:NAME")
    return name


@dataclass(frozen=True, kw_only=True, config=SPEC)
class AestheticScorer:
    """How well LAION's raters would like a clip's frames.

    Args:
        head: a file with the state dict of LAION's linear head or MLP, .pth, .pt or .safetensors, or zoo:NAME.
        trained_on: the model whose embeddings the head was trained on; step embed must be of it.
        embed: the step whose embeddings are read.
    """

    head: Annotated[str, AfterValidator(_is_head)]
    trained_on: str = field(default="ViT-L-14:openai", metadata={"meaning": False})
    embed: str = field(default=STEP, metadata={"meaning": False})

    identity: ClassVar[str] = "curation.scorers.aesthetic.Aesthetic"
    meaning: ClassVar[int] = 1
    requires: ClassVar[tuple[str, ...]] = ("safetensors", "torch")
    models: ClassVar[tuple[str, ...]] = ("head",)
    needs_frames: ClassVar[bool] = False
    resources: ClassVar[Resources] = Resources(cpus=1, memory_gb=1)
    columns: ClassVar[tuple[pa.Field, ...]] = (
        column("aesthetic", pa.float64(), "mean over first, middle and last frame", "LAION's points, 1 to 10"),
        column("aesthetic_min", pa.float64(), "the least of the three", "LAION's points, 1 to 10"),
    )

    @property
    def needs(self) -> tuple[str, ...]:
        return embedding_columns(self.embed)

    def reading(self, steps: Mapping[str, EmbedScorer]) -> Self:
        """See ``ReadsEmbeddings``."""
        model = embedder(self.embed, steps).model
        if not same_model(model, self.trained_on):
            raise RecipeError(
                f"trained_on={self.trained_on!r}: step {self.embed} embeds by {model!r}, of which the head knows "
                f"nothing; set {self.embed}.model={self.trained_on}, or trained_on if the head is of that model"
            )
        return self

    def weights(self) -> str:
        """Return the sha256 of the head's file."""
        return fingerprint(self.head)

    def check(self) -> None:
        """Raise ``UsageError`` for a file of another network: before any work, and not once all is decoded."""
        Head(self.head)

    @contextmanager
    def open(self) -> Iterator[Callable[[Sequence[Evidence]], pa.Table]]:
        head = Head(self.head)

        def score(evidence: Sequence[Evidence]) -> pa.Table:
            rows = self._rows(head, evidence) if evidence else []
            return pa.Table.from_pylist(rows, schema=pa.schema(list(self.columns)))

        yield score

    def _rows(self, head: Head, clips: Sequence[Evidence]) -> list[dict[str, float]]:
        vectors_C3D = stored(clips, self.needs)  # noqa: N806
        width = vectors_C3D.shape[-1]
        if width != head.width:
            raise UsageError(
                f"head={self.head!r}: takes embeddings of width {head.width}; step {self.embed} made them of {width}; "
                "name the model that the head was trained on"
            )
        points_C3 = head(vectors_C3D.reshape(-1, width)).reshape(len(clips), -1)  # noqa: N806
        return [{"aesthetic": float(each.mean()), "aesthetic_min": float(each.min())} for each in points_C3]
