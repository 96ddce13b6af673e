"""``--set NAME.KEY=VALUE`` on a curation recipe's plain data, before it is checked.

NAME is a step's: ``observe``, ``cut``, a scorer's name, ``caption_`` and a captioner's, a selection's name, ``export``, or
the step's own ``name``. A parameter of a scorer or captioner need not name it twice: ``text.side=512``. A rule's column may
have dots: ``main.rules.manifest.rating.min=3``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from dailies.curation.config import did_you_mean, parse_assignment
from dailies.curation.errors import RecipeError
from dailies.curation.select import Rule
from dailies.pipelines.recipes.own import kind_name
from dailies.pipelines.recipes.steps import SPECS, STEPS, caption_name


def apply_override(steps: Sequence[Any], override: str) -> None:
    """Change one value in the raw steps of a recipe, in place. Raises ``RecipeError`` for what names no place in it."""
    (name, *keys), value = parse_assignment(override)
    if not keys:
        raise RecipeError(f"--set {override}: must have the form NAME.KEY=VALUE")
    entries = {_name(entry): entry for entry in steps if isinstance(entry, dict) and len(entry) == 1}
    if name not in entries:
        raise RecipeError(
            f"--set {override}: no step named {name!r}; allowed: {', '.join(entries)}{did_you_mean(name, entries)}"
        )
    ((kind, body),) = entries[name].items()
    if not isinstance(body, dict):
        body = entries[name][kind] = {}
    for key in (path := _path(kind, body, keys, value))[:-1]:
        if isinstance(body.get(key), str) and key == SPECS.get(kind, ("",))[0]:
            body[key] = {body[key]: {}}
        if body.get(key) is None:
            body[key] = {}
        if not isinstance(body[key], dict):
            raise RecipeError(f"--set {override}: {key} is a value and has no keys; set it by itself")
        body = body[key]
    body[path[-1]] = value


def _name(entry: dict[str, Any]) -> str:
    """Return the name by which ``--set`` addresses a raw step."""
    ((kind, body),) = entry.items()
    body = body if isinstance(body, dict) else {}
    if kind not in ("score", "caption"):
        return str(body.get("name", {"select": "main"}.get(kind, kind)))
    name = str(body.get("name") or kind_name(_spec(body.get(SPECS[kind][0]))))
    return caption_name(name) if kind == "caption" else name


def _spec(value: Any) -> str:
    """Return the name in ``NAME`` or ``{NAME: parameters}``."""
    return str(next(iter(value), "") if isinstance(value, dict) else value)


def _path(kind: str, body: dict[str, Any], keys: Sequence[str], value: Any) -> list[str]:
    """Return the keys under a step's body that an override's keys stand for."""
    if kind == "select" and keys[0] == "rules" and len(keys) > 2:
        if isinstance(value, dict):  # a whole rule
            return ["rules", ".".join(keys[1:])]
        if keys[-1] not in Rule.model_fields:
            allowed = ", ".join(Rule.model_fields)
            raise RecipeError(
                f"unknown key {keys[-1]!r} in a rule; allowed: {allowed}{did_you_mean(keys[-1], Rule.model_fields)}"
            )
        return ["rules", ".".join(keys[1:-1]), keys[-1]]
    if kind in ("score", "caption") and keys[0] not in STEPS[kind].model_fields:
        holder = SPECS[kind][0]
        return [holder, _spec(body.get(holder)), *keys]
    return list(keys)
