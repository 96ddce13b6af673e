"""What keeps the steps of a recipe from running here: curating stops at the first, and a check names all."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from dailies.curation.errors import DailiesError
from dailies.curation.packages import need
from dailies.pipelines.recipes.recipe import CurationRecipe
from dailies.pipelines.recipes.specs import resolved
from dailies.pipelines.recipes.steps import Annotation, DedupStep, ObserveStep, Step


def packages_of(step: Step) -> tuple[str, ...]:
    """Return the importable names of the packages that a step needs beside those of every installation."""
    if isinstance(step, ObserveStep):
        return tuple(name for observer in step.observers for name in getattr(observer, "packages", ()))
    if isinstance(step, Annotation):
        return tuple(step.spec.requires)
    return step.requires if isinstance(step, DedupStep) else ()


def obstacles(
    recipe: CurationRecipe, *, weights: Callable[[Annotation], bool] = lambda step: True
) -> Iterator[tuple[Step, DailiesError]]:
    """Yield each step that cannot run with the reason: a package that is absent, or what is wrong with its weights.

    ``weights``: of which steps they are looked at; a hub's are fetched for it.
    """
    for step in recipe.steps:
        try:
            need(packages_of(step), by=f"step {step.name}")
            if isinstance(step, Annotation) and weights(step):
                spec = resolved(step.spec)
                if (check := getattr(spec, "check", None)) is not None:
                    check()
                spec.weights()  # as the name of its table needs it
        except DailiesError as error:
            yield step, error
