"""A recipe with every parameter: what it comes to once names have become specs, and what was left out its defaults.

What ``full_data`` returns is a recipe's file again, whose tables are those of the recipe.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any

from dailies.curation.observers import OBSERVERS
from dailies.pipelines.recipes.own import OwnSpec
from dailies.pipelines.recipes.recipe import CurationRecipe
from dailies.pipelines.recipes.specs import kind_of
from dailies.pipelines.recipes.steps import SPECS, Step, kind_of_step


def full_data(recipe: CurationRecipe) -> dict[str, Any]:
    """Return a recipe as its file would have it with nothing left out, but for limits that a rule does not set."""
    steps = [{kind_of_step(step): _body(step)} for step in recipe.steps]
    data: dict[str, Any] = json.loads(json.dumps({"name": recipe.name, "steps": steps}))
    return data


def _body(step: Step) -> dict[str, Any]:
    holder, table = SPECS.get(kind_of_step(step), ("", {}))
    body: dict[str, Any] = {}
    for key in type(step).model_fields:
        value = getattr(step, key)
        if key == holder:
            value = _spec(value, table)
        elif key == "observers":
            value = [_spec(observer, OBSERVERS) for observer in value]
        body[key] = _plain(value)
    return body


def _spec(spec: Any, table: Mapping[str, Any]) -> Any:
    if isinstance(spec, OwnSpec):
        name, values = spec.reference, dict(spec.parameters)
    else:
        name = kind_of(spec, table)
        values = {item.name: getattr(spec, item.name) for item in fields(spec) if item.init}
    return {name: values} if values else name


def _plain(value: Any) -> Any:
    """Return a value as JSON has it. Of a model with optional limits, as rules are, those that are not set are left out."""
    if hasattr(value, "model_dump"):
        return value.model_dump(exclude_none=True, mode="json")
    if is_dataclass(value) and not isinstance(value, type):
        return {item.name: _plain(getattr(value, item.name)) for item in fields(value)}
    if isinstance(value, Mapping):
        return {key: _plain(each) for key, each in value.items()}
    return [_plain(each) for each in value] if isinstance(value, tuple | list) else value
