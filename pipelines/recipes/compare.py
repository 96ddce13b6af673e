"""Two recipes side by side: by step and parameter, rules among them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from dailies.pipelines.recipes.describe import keys_of_recipe
from dailies.pipelines.recipes.recipe import CurationRecipe, load_recipe
from dailies.pipelines.recipes.steps import kind_of_step


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """A parameter that differs. ``key``: as ``--set`` takes it; ``in_a``, ``in_b``: whether it is there at all."""

    key: str
    a: Any
    b: Any
    in_a: bool = True
    in_b: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class StepDifference:
    """A step that differs. ``only``: a or b, where the other recipe has none of its name; its parameters are not listed."""

    step: str
    kind: str
    only: str | None
    differences: tuple[Difference, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class RecipeComparison:
    """What differs between two recipes. ``order``: the steps that both have come in another order."""

    a: str
    b: str
    steps: tuple[StepDifference, ...]
    order: bool

    @property
    def same(self) -> bool:
        return not self.steps and not self.order


def compare_recipes(
    a: str | CurationRecipe, b: str | CurationRecipe, overrides_a: Sequence[str] = (), overrides_b: Sequence[str] = ()
) -> RecipeComparison:
    """Compare two recipes with every parameter, those that were left out too. Raises ``RecipeError``."""
    first, second = load_recipe(a, overrides_a), load_recipe(b, overrides_b)
    keys = [keys_of_recipe(recipe) for recipe in (first, second)]
    kinds = [{step.name: kind_of_step(step) for step in recipe.steps} for recipe in (first, second)]
    steps = []
    for name in dict.fromkeys([*kinds[0], *kinds[1]]):
        if kinds[0].get(name) != kinds[1].get(name):
            for which, kind in zip("ab", kinds, strict=True):
                if name in kind:
                    steps.append(StepDifference(step=name, kind=kind[name], only=which, differences=()))
        elif differing := _differences(keys[0].get(name, {}), keys[1].get(name, {})):
            steps.append(StepDifference(step=name, kind=kinds[0][name], only=None, differences=differing))
    shared = [[name for name in kind if name in kinds[0] and name in kinds[1]] for kind in kinds]
    names = [named if isinstance(named, str) else named.name for named in (a, b)]
    return RecipeComparison(a=names[0], b=names[1], steps=tuple(steps), order=shared[0] != shared[1])


def _differences(a: dict[str, Any], b: dict[str, Any]) -> tuple[Difference, ...]:
    return tuple(
        Difference(key=key, a=a.get(key), b=b.get(key), in_a=key in a, in_b=key in b)
        for key in dict.fromkeys([*a, *b])
        if key not in a or key not in b or a[key] != b[key]
    )
