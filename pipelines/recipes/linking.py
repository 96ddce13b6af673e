"""Scorers over stored embeddings take the model of the step that they read, so that no two can disagree."""

from __future__ import annotations

from collections.abc import Sequence

from dailies.curation.errors import RecipeError
from dailies.curation.scorers.embed import EmbedScorer
from dailies.curation.scorers.stored import ReadsEmbeddings
from dailies.pipelines.recipes.steps import ScoreStep, Step


def linked(steps: Sequence[Step], where: str) -> tuple[Step, ...]:
    """Return a recipe's steps with the model of its ``embed`` step in each that reads its embeddings.

    ``where``: the recipe, in errors. Raises ``RecipeError`` where there is no such step, or one of another model.
    """
    embedding: dict[str, EmbedScorer] = {}
    out = []
    for step in steps:
        if isinstance(step, ScoreStep) and isinstance(step.scorer, EmbedScorer):
            embedding[step.name] = step.scorer
        elif isinstance(step, ScoreStep) and isinstance(step.scorer, ReadsEmbeddings):
            try:
                step = step.model_copy(update={"scorer": step.scorer.reading(embedding)})
            except RecipeError as error:
                raise RecipeError(f"recipe {where}: step {step.name}: {error}") from None
        out.append(step)
    return tuple(out)
