"""A recipe looked over before any work: what each step costs and needs, whether it is there, and what keeps it from running.

Nothing is downloaded, and no network is asked.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from dailies.curation.downloads import local_only
from dailies.curation.errors import NotInstalled, RecipeError
from dailies.curation.packages import extras_for, installed
from dailies.pipelines.recipes.costs import TYPICAL, StepCost, cost_of
from dailies.pipelines.recipes.describe import comment_of, first_sentence
from dailies.pipelines.recipes.obstacles import obstacles, packages_of
from dailies.pipelines.recipes.own import OwnSpec
from dailies.pipelines.recipes.recipe import CurationRecipe, load_recipe
from dailies.pipelines.recipes.resolve import full_data
from dailies.pipelines.recipes.steps import Annotation, Step, kind_of_step
from dailies.pipelines.recipes.weights import WeightsState, weights_of


@dataclass(frozen=True, slots=True, kw_only=True)
class StepNeeds:
    """A step with what it costs and needs.

    Args:
        kind: the step's, such as score.
        about: what its scorer or captioner does, or else the step.
        seconds_per_clip: of one core, for a clip of ``clip_seconds`` of the report; null where nothing of it was measured.
        cost: its measured parts, and those that were not measured.
        extras: of dailies, those that bring what it requires.
        missing: packages that are not installed.
        gpus: that one worker of it gets.
        own_code: the user's file that is run for it.
    """

    name: str
    kind: str
    about: str
    seconds_per_clip: float | None
    cost: StepCost
    extras: tuple[str, ...]
    missing: tuple[str, ...]
    weights: tuple[WeightsState, ...]
    gpus: float
    own_code: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class RecipeReport:
    """A recipe resolved.

    Args:
        recipe: as a file would have it with nothing left out.
        notes: on names in it that are no longer the current ones.
        clip_seconds: the length of a clip that costs are said for.
    """

    name: str
    about: str
    recipe: dict[str, Any]
    steps: tuple[StepNeeds, ...]
    notes: tuple[str, ...]
    clip_seconds: float = TYPICAL

    @property
    def seconds_per_clip(self) -> float:
        """Seconds of one core for a clip, of what was measured."""
        return sum(step.seconds_per_clip or 0 for step in self.steps)

    @property
    def unmeasured(self) -> tuple[str, ...]:
        """Parts that were not measured."""
        return tuple(part for step in self.steps for part in step.cost.unknown)

    @property
    def downloads(self) -> tuple[WeightsState, ...]:
        """Weights that a run would download, each once."""
        states = [state for step in self.steps for state in step.weights]
        away = {
            state.name: state
            for state in states
            if not state.here and not state.problem and state.place in ("hub", "open_clip")
        }
        return tuple(away.values())


@dataclass(frozen=True, slots=True, kw_only=True)
class RecipeCheck:
    """What keeps a recipe from running here; nothing does where ``problems`` is empty. ``report``: null for no recipe."""

    name: str
    problems: tuple[str, ...]
    report: RecipeReport | None

    @property
    def ok(self) -> bool:
        return not self.problems


def show_recipe(named: str | CurationRecipe, overrides: Sequence[str] = ()) -> RecipeReport:
    """Resolve a recipe: every parameter, and what each step costs and needs. Raises ``RecipeError``."""
    return _report(load_recipe(named, overrides), named)


def check_recipe(named: str | CurationRecipe, overrides: Sequence[str] = ()) -> RecipeCheck:
    """Check the packages and weights that curating checks before work.

    Of a recipe that holds together, every problem is named and not the first alone.
    """
    name = named if isinstance(named, str) else named.name
    try:
        recipe = load_recipe(named, overrides)
    except RecipeError as error:
        return RecipeCheck(name=name, problems=(str(error),), report=None)
    report = _report(recipe, named)
    problems = dict.fromkeys(_problems(recipe, report.steps))
    return RecipeCheck(name=recipe.name, problems=tuple(problems), report=report)


def _report(recipe: CurationRecipe, named: str | CurationRecipe) -> RecipeReport:
    about = comment_of(named) if isinstance(named, str) else ""
    steps = tuple(map(_needs, recipe.steps))
    return RecipeReport(name=recipe.name, about=about, recipe=full_data(recipe), steps=steps, notes=recipe.notes)


def _needs(step: Step) -> StepNeeds:
    cost = cost_of(step)
    spec = step.spec if isinstance(step, Annotation) else None
    requires = packages_of(step)
    return StepNeeds(
        name=step.name,
        kind=kind_of_step(step),
        about=first_sentence(type(spec) if spec is not None and not isinstance(spec, OwnSpec) else type(step)),
        seconds_per_clip=None if cost.unknown and not cost.measured else cost.of_clip(),
        cost=cost,
        extras=tuple(extras_for(requires)),
        missing=tuple(name for name in requires if not installed(name)),
        weights=tuple(weights_of(step.name, spec)) if spec is not None else (),
        gpus=spec.resources.gpus if spec is not None else 0,
        own_code=spec.file if isinstance(spec, OwnSpec) else None,
    )


def _problems(recipe: CurationRecipe, needs: Sequence[StepNeeds]) -> Iterator[str]:
    """Yield what keeps steps from running; weights that are yet to be downloaded are not looked into."""
    states = {(each.kind, each.name): each.weights for each in needs}
    for weights in states.values():
        yield from (f"{state.key}={state.name}: {state.problem}" for state in weights if state.problem)
    with local_only():
        for step, error in obstacles(recipe, weights=lambda step: all(state.here for state in states[_key(step)])):
            yield str(error) if isinstance(error, NotInstalled) else f"step {step.name}: {error}"


def _key(step: Step) -> tuple[str, str]:
    return kind_of_step(step), step.name
