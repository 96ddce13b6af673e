"""``--set NAME.KEY=VALUE`` on a curation recipe's plain data, before it is checked.

NAME is a step's: ``observe``, ``cut``, a scorer's name, ``caption_`` and a captioner's, a selection's name, ``export``, or
the step's own ``name``. A parameter of a detector, scorer or captioner need not name it: ``cut.hard=0.3``,
``text.side=512``; one of an observer stands behind its name: ``observe.motion.fps=4``. A rule's column may have dots:
``main.rules.manifest.rating.min=3``; one with other signs too stands in quotes: ``main.rules."manifest.a=b".min=3``.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from dailies.curation.config import did_you_mean, joined, offered, parse_assignment
from dailies.curation.errors import RecipeError
from dailies.curation.select import Cap, Rule
from dailies.pipelines.recipes.own import kind_name
from dailies.pipelines.recipes.steps import SPECS, STEPS, caption_name


def step_of(override: str) -> str:
    """Return the name of the step that an override changes. Raises ``RecipeError`` for what is none."""
    keys, _ = parse_assignment(override)
    return keys[0]


def apply_override(steps: Sequence[Any], override: str) -> None:
    """Change one value in the raw steps of a recipe, in place. Raises ``RecipeError`` for what names no place in it."""
    (name, *keys), value = parse_assignment(override)
    if not keys:
        raise RecipeError(f"--set {override}: must have the form NAME.KEY=VALUE")
    entries = {_name(entry): entry for entry in steps if isinstance(entry, dict) and len(entry) == 1}
    if name not in entries:
        raise RecipeError(f"--set {override}: no step named {name!r}{_meant(name, keys, entries)}")
    ((kind, body),) = entries[name].items()
    if not isinstance(body, dict):
        body = entries[name][kind] = {}
    if kind == "observe" and (observer := _observer(body, keys)) is not None:
        body, keys = observer, keys[1:]
    for key in (path := _path(kind, body, keys, value, override))[:-1]:
        if isinstance(body.get(key), str) and key == SPECS.get(kind, ("",))[0]:
            body[key] = {body[key]: {}}
        if body.get(key) is None or isinstance(body[key], bool):  # what is on or off by default may have keys
            body[key] = {}
        if not isinstance(body[key], dict):
            raise RecipeError(f"--set {override}: {key} is a value and has no keys; set it by itself")
        body = body[key]
    body[path[-1]] = value


def _meant(name: str, keys: Sequence[str], entries: dict[str, dict[str, Any]]) -> str:
    """Return which step may have been meant by a name that none has: it may be a kind, or a captioner's bare name."""
    if keys[0] in entries and name in STEPS:
        return f" (did you mean {joined(keys)}?)"
    kinds = [step for step, entry in entries.items() if name in entry]
    if near := [*kinds, *({caption_name(name)} & set(entries))]:
        return f" (did you mean {near[0]}?)"
    return offered(name, entries)


def _observer(body: dict[str, Any], keys: Sequence[str]) -> dict[str, Any] | None:
    """Return the parameters of the observer that ``keys`` begin with, made room for; ``None`` where they do not."""
    listed = body.get("observers")
    if len(keys) < 2 or keys[0] in STEPS["observe"].model_fields or not isinstance(listed, list):
        return None
    for number, entry in enumerate(listed):
        if _spec(entry) == keys[0]:
            listed[number] = {keys[0]: (entry.get(keys[0]) or {}) if isinstance(entry, dict) else {}}
            parameters: dict[str, Any] = listed[number][keys[0]]
            return parameters
    return None


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


def _path(kind: str, body: dict[str, Any], keys: Sequence[str], value: Any, override: str) -> list[str]:
    """Return the keys under a step's body that an override's keys stand for."""
    if kind == "select" and keys[0] == "rules" and len(keys) > 2:
        if isinstance(value, dict):  # a whole rule
            return ["rules", ".".join(keys[1:])]
        if keys[-1] not in Rule.model_fields:
            raise RecipeError(
                f"--set {override}: unknown key {keys[-1]!r} in a rule{offered(keys[-1], Rule.model_fields)}"
            )
        return ["rules", ".".join(keys[1:-1]), keys[-1]]
    if kind == "select" and keys[0] == "at_most" and len(keys) > 1:
        last = keys[-1:] if len(keys) > 2 and keys[-1] in Cap.model_fields else []
        return ["at_most", ".".join(keys[1 : len(keys) - len(last)]), *last]
    if kind in SPECS and keys[0] not in STEPS[kind].model_fields:
        holder, table = SPECS[kind]
        spec = _spec(body.get(holder))
        parameters = dataclasses.fields(table[spec]) if spec in table else ()
        takes = [field.name for field in parameters]
        if takes and keys[0] not in {*takes, *(field.metadata.get("formerly") for field in parameters)}:
            fields = STEPS[kind].model_fields
            if did_you_mean(keys[0], fields):
                return list(keys)  # whose error names the step's keys
            if not did_you_mean(keys[0], takes):  # either may be meant
                raise RecipeError(
                    f"--set {override}: unknown key {keys[0]!r} in step {kind}; allowed: {', '.join(fields)}; "
                    f"of {holder} {spec}: {', '.join(takes)}"
                )
        return [holder, spec, *keys]
    if kind in SPECS and keys[0] == SPECS[kind][0] and len(keys) > 1:
        spec = _spec(body.get(keys[0]))
        return [keys[0], *([] if keys[1] == spec else [spec]), *keys[1:]]
    return list(keys)
