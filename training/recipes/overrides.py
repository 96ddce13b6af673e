"""``FIELD=VALUE`` and ``PHASE.FIELD=VALUE`` put into a recipe, as the command line takes them."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, get_type_hints

import yaml
from pydantic import TypeAdapter, ValidationError

from dailies.curation.errors import RecipeError
from dailies.training.recipes.phase import Phase
from dailies.training.recipes.recipe import Recipe


def override(recipe: Recipe, sets: Sequence[str]) -> Recipe:
    """``recipe`` with the values of ``sets``, which are YAML, in place of its own; ``*.FIELD`` is that of every phase.

    Raises ``RecipeError`` naming the phase or field that is not there, or what a value must be.
    """
    phases: dict[str, dict[str, Any]] = {phase.name: {} for phase in recipe.phases}
    own: dict[str, Any] = {}
    for one in sets:
        path, equals, text = one.partition("=")
        name, dot, key = path.strip().rpartition(".")
        if not equals or not key:
            raise RecipeError(f"set: FIELD=VALUE or PHASE.FIELD=VALUE expected, not {one!r}")
        if not dot:
            own[key] = _value(Recipe, key, text, fixed=("name", "phases"))
            continue
        if name != "*" and name not in phases:
            raise RecipeError(f"set: phase {name!r} of {one!r} is not one of {', '.join(phases)}")
        for chosen in phases if name == "*" else (name,):
            phases[chosen][key] = _value(Phase, key, text, fixed=("name",))
    made = tuple(dataclasses.replace(phase, **phases[phase.name]) for phase in recipe.phases)
    return dataclasses.replace(recipe, phases=made, **own)


def fields_of(owner: type[Any], sets: Sequence[str]) -> dict[str, Any]:
    """The values of ``FIELD=VALUE`` by field, for a dataclass. Raises ``RecipeError`` as ``override``."""
    found = {}
    for one in sets:
        key, equals, text = one.partition("=")
        if not equals:
            raise RecipeError(f"set: FIELD=VALUE expected, not {one!r}")
        found[key.strip()] = _value(owner, key.strip(), text)
    return found


def _value(owner: type[Any], key: str, text: str, fixed: tuple[str, ...] = ()) -> Any:
    """``text`` as the field's type. ``fixed``: fields that are not to be set."""
    fields = [field.name for field in dataclasses.fields(owner) if field.name not in fixed]
    if key not in fields:
        raise RecipeError(f"set: {owner.__name__.lower()} has no field {key!r} to set, but {', '.join(fields)}")
    try:
        value = None if text.strip() == "None" else yaml.safe_load(text)
        return TypeAdapter(get_type_hints(owner)[key]).validate_python(value)
    except (yaml.YAMLError, ValidationError) as error:
        said = error.errors()[0]["msg"] if isinstance(error, ValidationError) else "not YAML"
        raise RecipeError(f"set: {key}={text}: {said}") from error
