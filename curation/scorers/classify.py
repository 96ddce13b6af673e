"""Zero-shot labels: the category whose prompts lie nearest to a clip's stored mean embedding (arXiv 2103.00020, 3.1).

Each label's vector is the mean of its prompts' text embeddings, every prompt in every template, made of length 1 again. The
score is the label's probability: the softmax over all labels of the model's logit scale times cosine, as CLIP was trained.
So it says how a label stands against the *others of the taxonomy*, and not whether any of them is right.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import field, replace
from pathlib import Path
from typing import Annotated, ClassVar, Self

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pydantic import AfterValidator, Field, StringConstraints, ValidationError
from pydantic.dataclasses import dataclass

from dailies.curation.config import SPEC, StrictModel, format_error, offered, read_yaml
from dailies.curation.errors import RecipeError
from dailies.curation.schema import field as column
from dailies.curation.scorers.embed import EmbedScorer
from dailies.curation.scorers.encoders import Encoder, ImageTextModel, load_encoder
from dailies.curation.scorers.stored import STEP, embedder, model_of, shown, stored
from dailies.curation.types import Evidence

TAXONOMIES = Path(__file__).parent / "taxonomies"
Text = Annotated[str, StringConstraints(pattern=r"\S")]


class Taxonomy(StrictModel):
    """Labels with the prompts that stand for them.

    Args:
        labels: label to prompts, of which one suffices.
        templates: sentences with {} in the place of a prompt.
    """

    labels: Annotated[dict[Text, Annotated[tuple[Text, ...], Field(min_length=1)]], Field(min_length=2)]
    templates: Annotated[tuple[Annotated[str, StringConstraints(pattern=r"\{\}")], ...], Field(min_length=1)] = ("{}",)

    def sentences(self, label: str) -> list[str]:
        """Return every prompt of a label in every template."""
        return [template.replace("{}", prompt) for template in self.templates for prompt in self.labels[label]]


def taxonomy_names() -> list[str]:
    """Return the names of the taxonomies that ship with dailies."""
    return sorted(path.stem for path in TAXONOMIES.glob("*.yaml"))


def read_taxonomy(name: str) -> Taxonomy:
    """Read a taxonomy that ships with dailies, by name, or one of a YAML file. Raises ``RecipeError``."""
    path = TAXONOMIES / f"{name}.yaml"
    if not path.is_file():
        path = Path(name)
        if path.suffix not in (".yaml", ".yml") or not path.is_file():
            known = [*taxonomy_names(), "FILE.yaml"]
            raise RecipeError(f"taxonomy={name!r}: no such taxonomy{offered(name, known)}")
    try:
        data = read_yaml(path.read_text(encoding="utf-8"), f"taxonomy {path}")
        return Taxonomy.model_validate(data)
    except (OSError, UnicodeDecodeError) as error:
        raise RecipeError(f"taxonomy={name!r}: cannot be read: {error}") from None
    except ValidationError as error:
        raise RecipeError(f"taxonomy={name!r}: {format_error(error)}") from None


def _is_taxonomy(name: str) -> str:
    try:
        read_taxonomy(name)
    except RecipeError as error:
        raise ValueError(str(error).partition(": ")[2]) from None
    return name


@dataclass(frozen=True, kw_only=True, config=SPEC)
class ClassifyScorer(ImageTextModel):
    """The label of a taxonomy that is nearest to each clip.

    Args:
        model: that of the step whose embeddings are read, which a recipe fills in.
        taxonomy: one that ships with dailies, by name, or a YAML file of labels and prompts.
        embed: the step whose embeddings are read.

    The others are those of ``dailies.curation.scorers.encoders``.
    """

    taxonomy: Annotated[str, AfterValidator(_is_taxonomy)] = field(
        default="hd-vg-130m", metadata={"meaning": False}
    )  # its content counts, by ``weights``
    embed: str = field(default=STEP, metadata={"meaning": False})

    identity: ClassVar[str] = "curation.scorers.classify.Classify"
    meaning: ClassVar[int] = 1
    needs_frames: ClassVar[bool] = False
    columns: ClassVar[tuple[pa.Field, ...]] = (
        column("category", pa.string(), "nearest label of the taxonomy to the mean embedding"),
        column("category_score", pa.float64(), "its probability among the taxonomy's labels", "0-1"),
        column("category_margin", pa.float64(), "by how much that exceeds the next label's", "0-1"),
    )

    @property
    def needs(self) -> tuple[str, ...]:
        return (shown(self.embed, "embedding"),)

    def reading(self, steps: Mapping[str, EmbedScorer]) -> Self:
        """See ``ReadsEmbeddings``."""
        asked = None if self.model == ClassifyScorer.model else self.model
        return replace(self, model=model_of(self.embed, embedder(self.embed, steps), asked))

    def weights(self) -> str:
        """Return what tells these weights, labels and prompts from others."""
        taxonomy = json.dumps(read_taxonomy(self.taxonomy).model_dump(mode="json"))
        return f"{super().weights()} {hashlib.sha256(taxonomy.encode()).hexdigest()}"

    @contextmanager
    def open(self) -> Iterator[Callable[[Sequence[Evidence]], pa.Table]]:
        taxonomy = read_taxonomy(self.taxonomy)
        encoder = load_encoder(self.model, gpu=self.gpus > 0)
        labels_LD = label_vectors(encoder, taxonomy)  # noqa: N806

        def score(evidence: Sequence[Evidence]) -> pa.Table:
            rows = self._rows(evidence, list(taxonomy.labels), labels_LD * encoder.logit_scale) if evidence else []
            return pa.Table.from_pylist(rows, schema=pa.schema(list(self.columns)))

        yield score

    def _rows(
        self,
        clips: Sequence[Evidence],
        labels: Sequence[str],
        weights_LD: NDArray[np.float32],  # noqa: N803
    ) -> list[dict[str, object]]:
        logits_CL = stored(clips, self.needs)[:, 0].astype(np.float64) @ weights_LD.T.astype(np.float64)  # noqa: N806
        powers_CL = np.exp(logits_CL - logits_CL.max(1, keepdims=True))  # noqa: N806
        shares_CL = powers_CL / powers_CL.sum(1, keepdims=True)  # noqa: N806
        rows: list[dict[str, object]] = []
        for shares in shares_CL:
            second, best = np.argsort(shares, kind="stable")[-2:]
            rows.append(
                {
                    "category": labels[best],
                    "category_score": float(shares[best]),
                    "category_margin": float(shares[best] - shares[second]),
                }
            )
        return rows


def label_vectors(encoder: Encoder, taxonomy: Taxonomy) -> NDArray[np.float32]:
    """Return a vector of length 1 for each label, (labels, D)."""
    means = [encoder.texts(taxonomy.sentences(label)).mean(0) for label in taxonomy.labels]
    return np.stack([mean / np.linalg.norm(mean) for mean in means])
