"""``--set`` of a training recipe: FIELD=VALUE, PHASE.FIELD=VALUE, ``*.FIELD=VALUE`` of every phase, unet.FIELD=VALUE."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, TypeVar, get_type_hints

from pydantic import TypeAdapter, ValidationError

from dailies.curation.config import format_error, joined, offered, parse_assignment
from dailies.curation.errors import RecipeError
from dailies.training.recipes.old_names import UNET, today
from dailies.training.recipes.phase import Phase
from dailies.training.recipes.recipe import TrainingRecipe, UNetSpec

WHAT = {"Phase": "a phase", "UNetSpec": "the unet"}

S = TypeVar("S", Phase, TrainingRecipe, UNetSpec)


def override(recipe: TrainingRecipe, sets: Sequence[str]) -> TrainingRecipe:
    """Replace values of ``recipe`` by those of ``sets``, which are YAML.

    Raises ``RecipeError`` naming the phase or field that does not exist, or what is wrong with a value.
    """
    phases: dict[str, dict[str, Any]] = {phase.name: {} for phase in recipe.phases}
    changes: dict[str, Any] = {}
    for text in sets:
        keys, value = parse_assignment(text)
        if keys[0] == "*" or keys[0] in phases:
            field = _field(Phase, keys[1:], text, fixed=("name",))
            for name in phases if keys[0] == "*" else keys[:1]:
                phases[name][field] = value
            continue
        keys = today(keys, text)
        if keys[0] == "unet" and len(keys) == 2:
            before = changes.get("unet", recipe.unet)
            if before is None:
                raise RecipeError(f"--set {text}: this recipe takes the UNet of the weights it starts from")
            changes["unet"] = _values(before) | {_field(UNetSpec, keys[1:], text): value}
        elif len(keys) == 1:
            changes[_field(TrainingRecipe, keys, text, fixed=("name", "phases"))] = _unet_names(keys[0], value)
        else:
            raise RecipeError(
                f"--set {text}: no phase {keys[0]!r}{offered(keys[0], [*phases, '*', *['unet'] * (recipe.unet is not None)])}"
            )
    replaced = tuple(_replaced(phase, phases[phase.name]) for phase in recipe.phases)
    return _replaced(recipe, {**changes, "phases": replaced})


def fields_of(owner: type[Any], sets: Sequence[str]) -> dict[str, Any]:
    """Return the values of ``FIELD=VALUE`` by field, for a dataclass. Raises ``RecipeError`` as ``override``."""
    values: dict[str, Any] = {}
    hints = get_type_hints(owner, include_extras=True)
    for text in sets:
        keys, value = parse_assignment(text)
        field = _field(owner, keys, text)
        try:
            values[field] = TypeAdapter(hints[field]).validate_python(value)
        except ValidationError as error:
            raise RecipeError(f"--set {text}: {format_error(error)}") from None
    return values


def _field(owner: type[Any], keys: Sequence[str], text: str, fixed: tuple[str, ...] = ()) -> str:
    """Return the field that ``keys`` name. ``fixed``: fields that cannot be set."""
    fields = [field.name for field in dataclasses.fields(owner) if field.name not in fixed]
    if len(keys) == 1 and keys[0] in fields:
        return keys[0]
    name = joined(keys)
    raise RecipeError(
        f"--set {text}: {WHAT.get(owner.__name__, 'the recipe')} has no key {name!r}{offered(name, fields)}"
    )


def _unet_names(field: str, value: Any) -> Any:
    return {UNET.get(key, key): item for key, item in value.items()} if field == "unet" and value else value


def _values(spec: Any) -> dict[str, Any]:
    return (
        spec
        if isinstance(spec, dict)
        else {field.name: getattr(spec, field.name) for field in dataclasses.fields(spec)}
    )


def _replaced(spec: S, changes: dict[str, Any]) -> S:
    """Replace fields as ``dataclasses.replace`` does, from YAML's lists for tuples, dicts for specs, strings for numbers."""
    return TypeAdapter(type(spec)).validate_python(_values(spec) | changes, strict=False)
