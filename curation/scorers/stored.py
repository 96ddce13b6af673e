"""What scorers over stored embeddings share: which step's they read, and how a recipe gives them its model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, Self, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from dailies.curation.errors import RecipeError, SourceError
from dailies.curation.scorers.embed import EmbedScorer
from dailies.curation.scorers.text import POSITIONS
from dailies.curation.types import Evidence

_EMPTY = "{name} is empty: there is no caption to compare with"
STEP = "embed"
"""The name of a step of ``EmbedScorer`` that has none of its own."""


@runtime_checkable
class ReadsEmbeddings(Protocol):
    """A scorer that compares what an earlier step has embedded, and so needs the same model."""

    def reading(self, steps: Mapping[str, EmbedScorer]) -> Self:
        """Return the scorer for the model of the step that it reads. Raises ``RecipeError`` where that does not fit.

        ``steps``: the earlier steps that embed, by name.
        """


def embedding_columns(step: str) -> tuple[str, ...]:
    """Return the columns of first, middle and last frame as steps after ``step`` know them."""
    return tuple(shown(step, f"embedding_{position}") for position in POSITIONS)


def shown(step: str, column: str) -> str:
    """Return a column of ``EmbedScorer`` as steps after ``step`` know it."""
    return column if step == STEP else f"{step}_{column}"


def embedder(step: str, steps: Mapping[str, EmbedScorer]) -> EmbedScorer:
    """Return the step that is to be read. Raises ``RecipeError`` where none of that name stands before."""
    if step not in steps:
        there = f"; there are {', '.join(steps)}" if steps else ""
        raise RecipeError(
            f"embed={step!r}: no earlier step embeds by this name{there}; put '- score: {{scorer: embed}}' before it"
        )
    return steps[step]


def model_of(step: str, embed: EmbedScorer, asked: str | None) -> str:
    """Return the model of the step ``embed``. Raises ``RecipeError`` where another was ``asked`` for."""
    if asked not in (None, embed.model):
        raise RecipeError(
            f"model={asked!r}: step {step} embeds by {embed.model!r}, and texts of another model cannot be compared with that; "
            f"set {step}.model, and leave this one out"
        )
    return embed.model


def stored(clips: Sequence[Evidence], columns: Sequence[str]) -> NDArray[np.float32]:
    """Return stored embeddings (clips, columns, width). Raises ``SourceError`` where a clip has none."""
    for clip in clips:
        for column in columns:
            if clip.columns[column] is None:
                raise SourceError(f"{column} is empty: the clip was not embedded")
    return np.array([[clip.columns[column] for column in columns] for clip in clips], np.float32)


def own_text(columns: Mapping[str, Any], name: str) -> str:
    """Return a clip's text. Raises ``SourceError`` where it has none."""
    if not has_text(columns, name):
        raise SourceError(_EMPTY.format(name=name))
    return str(columns[name])


def has_text(columns: Mapping[str, Any], name: str) -> bool:
    """Return whether a clip has a text."""
    text = columns[name]
    return bool(text and text.strip())


def no_text(name: str) -> dict[str, Any]:
    """Return the state of a clip that has no text: its own row fails, and the others of its batch are done with one call."""
    return {"status": "failed", "why": {"kind": SourceError.kind, "message": _EMPTY.format(name=name)}}
