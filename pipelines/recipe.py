"""The curation recipe: an ordered list of steps, checked as a whole before any work starts.

A recipe is YAML (see ``pipelines/recipes``)::

    name: quickstart
    steps:
      - observe: {observers: [boundary, motion], evidence: {fps: 1}}
      - cut: {detector: boundary, min_seconds: 2, max_seconds: 10}
      - score: {scorer: text}
      - select: {name: main, rules: {motion: {min_quantile: 0.25}, text_area: {max: 0.07}}}
      - export: {select: main}

``--set NAME.key=value`` changes one value, where NAME is the step's name: ``observe``, ``cut``, a scorer's name,
``caption_`` and a captioner's, a selection's name, ``export``.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
from pydantic import ValidationError

from dailies.curation.config import StrictModel, did_you_mean, format_error, read_yaml
from dailies.curation.detectors import DETECTORS
from dailies.curation.errors import RecipeError
from dailies.curation.schema import CLIP_COLUMNS, fingerprint
from dailies.pipelines.steps import (
    STEPS,
    Annotation,
    CutStep,
    ExportStep,
    ObserveStep,
    SelectStep,
    Step,
)

RECIPES = Path(__file__).parent / "recipes"


class Recipe(StrictModel):
    """``source``: the recipe as plain data with overrides applied; what is written down and fingerprinted."""

    name: str
    steps: tuple[Any, ...]
    source: dict[str, Any]

    @property
    def hash(self) -> str:
        return fingerprint(self.source)

    def one(self, kind: type[Any]) -> Any:
        """The only step of this kind."""
        return next(step for step in self.steps if isinstance(step, kind))

    # ---- tables: each name carries the fingerprint of what gives its values their meaning ----

    @property
    def observations(self) -> str:
        step = self.one(ObserveStep)
        meaning = [_meaning(observer) for observer in step.observers] + [_meaning(step.evidence)]
        return f"observations@{fingerprint(meaning)}"

    @property
    def clips(self) -> str:
        step = self.one(CutStep)
        detector = next(name for name, made in DETECTORS.items() if isinstance(step.detector, made))
        own = step.model_dump(exclude={"detector"}) | {"detector": _meaning(step.detector), "meaning": CLIPS_MEANING}
        return f"clips/{detector}@{fingerprint([self.observations, own])}"

    def annotations(self, step: Annotation) -> str:
        """The table of a scorer or captioner: its meaning takes in that of the columns it reads."""
        above = [self.annotations(one) for one in self.before(step) if _feeds(one, step)]
        meaning = [self.clips, *above, _meaning(step.spec), resolved(step.spec).weights()]
        return f"{step.group}/{step.name.removeprefix('caption_')}@{fingerprint(meaning)}"

    def before(self, step: Any) -> list[Annotation]:
        """The scorers and captioners that come before a step."""
        place = next(number for number, one in enumerate(self.steps) if one is step)
        return [one for one in self.steps[:place] if isinstance(one, Annotation)]

    def tables(self) -> dict[str, str]:
        """Step name to table, in order."""
        named = {"observe": self.observations, "cut": self.clips}
        for step in self.steps:
            if isinstance(step, Annotation):
                named[step.name] = self.annotations(step)
            elif isinstance(step, SelectStep):
                named[f"select.{step.name}"] = f"selections/{step.name}"
        return named


CLIPS_MEANING = 2  # raised when the code changes how spans follow from cuts


def _feeds(one: Annotation, step: Annotation) -> bool:
    return any(field.name in step.spec.needs for field in one.shown.values())


def resolved(spec: Any) -> Any:
    """``spec`` with ``zoo:NAME`` replaced by the folder of that model. Raises ``NoSuchModel``."""
    model = getattr(spec, "model", None)
    if not isinstance(model, str) or not model.startswith("zoo:"):
        return spec
    from dailies.zoo.catalog import resolve

    return replace(spec, model=str(resolve(model)))


def _meaning(spec: Any) -> list[Any]:
    means = [f.name for f in fields(spec) if f.metadata.get("meaning", True)]
    return [*spec.identity.rsplit(".", 1), spec.meaning, {name: getattr(spec, name) for name in means}]


# ---- reading --------------------------------------------------------------------------------------------------------


def recipe_names() -> list[str]:
    return sorted(path.stem for path in RECIPES.glob("*.yaml"))


def load_recipe(named: str, overrides: Sequence[str] = ()) -> Recipe:
    """A built-in recipe by name, or one from a YAML file, with ``NAME.key=value`` overrides. Raises ``RecipeError``."""
    path = RECIPES / f"{named}.yaml"
    if not path.exists():
        path = Path(named)
        if path.suffix not in (".yaml", ".yml") or not path.exists():
            allowed = ", ".join(recipe_names())
            raise RecipeError(
                f"no recipe {named!r}; allowed: {allowed}, or a .yaml file{did_you_mean(named, recipe_names())}"
            )
    try:
        data = read_yaml(path.read_text(encoding="utf-8"), f"recipe {path}")
    except (OSError, UnicodeDecodeError) as error:
        raise RecipeError(f"recipe {path} cannot be read: {error}") from None
    return parse_recipe(data, overrides, where=str(named))


def parse_recipe(data: Any, overrides: Sequence[str] = (), where: str = "recipe") -> Recipe:
    """Check plain data as a whole."""
    if not isinstance(data, dict) or not isinstance(data.get("steps"), list):
        raise RecipeError(f"recipe {where}: expected a mapping with name and steps")
    if extra := sorted(set(data) - {"name", "steps"}):
        raise RecipeError(f"recipe {where}: unknown key {extra[0]!r}; allowed: name, steps")
    data = json.loads(json.dumps(data, default=str))
    for override in overrides:
        _apply(data, override)
    steps = tuple(_step(entry) for entry in data["steps"])
    _check(steps, where)
    return Recipe(name=str(data.get("name") or Path(where).stem), steps=steps, source=data)


def _step(entry: Any) -> Step:
    if not isinstance(entry, dict) or len(entry) != 1:
        raise RecipeError(f"a step is one of {', '.join(STEPS)} with its keys, not {entry!r}")
    ((kind, body),) = entry.items()
    if kind not in STEPS:
        raise RecipeError(f"unknown step {kind!r}; allowed: {', '.join(STEPS)}{did_you_mean(kind, STEPS)}")
    made = STEPS[kind]
    allowed = list(made.model_fields)
    if not isinstance(body or {}, dict):
        raise RecipeError(f"the keys of step {kind} are a mapping, not {body!r}")
    for key in body or {}:
        if key not in allowed:
            raise RecipeError(
                f"unknown key {key!r} in step {kind}; allowed: {', '.join(allowed)}{did_you_mean(key, allowed)}"
            )
    try:
        step: Step = made.model_validate(body or {})
    except ValidationError as error:
        raise RecipeError(f"step {kind}: {format_error(error)}") from None
    return step


SPECS = {"score": "scorer", "caption": "captioner"}


# ---- --set ----------------------------------------------------------------------------------------------------------


def _entry_name(entry: Any) -> str:
    """The name by which ``--set`` addresses a raw step."""
    ((kind, body),) = entry.items()
    body = body or {}
    if kind in SPECS:
        spec = body.get(SPECS[kind])
        return ("caption_" if kind == "caption" else "") + (next(iter(spec)) if isinstance(spec, dict) else str(spec))
    return str(body.get("name", {"select": "main"}.get(kind, kind)))


def _apply(data: dict[str, Any], override: str) -> None:
    path, eq, raw = override.partition("=")
    name, *keys = path.strip().split(".")
    if not eq or not keys:
        raise RecipeError(f"--set {override}: expected NAME.key=value")
    entries = {_entry_name(entry): entry for entry in data["steps"] if isinstance(entry, dict) and len(entry) == 1}
    if name not in entries:
        raise RecipeError(
            f"--set {override}: no step named {name!r}; allowed: {', '.join(entries)}{did_you_mean(name, entries)}"
        )
    ((kind, body),) = entries[name].items()
    if kind in SPECS and keys[0] != SPECS[kind]:
        spec = name.removeprefix("caption_") if kind == "caption" else name
        keys = [SPECS[kind], spec, *keys]  # text.side=512 means the scorer's own parameter
        if not isinstance(body.get(SPECS[kind]), dict):
            body[SPECS[kind]] = {spec: {}}
    if body is None:
        body = entries[name][kind] = {}
    for key in keys[:-1]:
        if key == "detector" and isinstance(body.get(key), str):
            body[key] = {body[key]: {}}
        if not isinstance(body.setdefault(key, {}), dict):
            raise RecipeError(f"--set {override}: {key} holds a value, not keys")
        body = body[key]
    body[keys[-1]] = read_yaml(raw, f"--set {override}")


# ---- the whole ------------------------------------------------------------------------------------------------------


def _check(steps: Sequence[Step], where: str) -> None:
    """Each step's needs must be met by an earlier one."""
    kinds = [type(step) for step in steps]
    if kinds[:2] != [ObserveStep, CutStep] or kinds.count(ObserveStep) != 1 or kinds.count(CutStep) != 1:
        raise RecipeError(f"recipe {where}: the first two steps must be observe and cut, once each")
    observe, cut = steps[0], steps[1]
    assert isinstance(observe, ObserveStep)
    assert isinstance(cut, CutStep)
    _check_cut(observe, cut)
    columns = {field.name: field.type for field in (*CLIP_COLUMNS, *_measures(observe))}
    selections: list[str] = []
    names: list[str] = []
    for step in steps:
        names.append(step.name)
        if names.count(step.name) > 1:
            raise RecipeError(f"recipe {where}: two steps are named {step.name!r}")
        if isinstance(step, Annotation):
            _need(step.spec.needs, columns, step.name)
            columns |= {field.name: field.type for field in step.shown.values()}
        elif isinstance(step, SelectStep):
            _need(step.rules, columns, f"select {step.name}")
            _check_rules(step, columns)
            selections.append(step.name)
        elif isinstance(step, ExportStep):
            _check_export(step, selections, columns)


def _check_export(step: ExportStep, selections: Sequence[str], columns: Iterable[str]) -> None:
    if step.select not in selections:
        raise RecipeError(f"step {step.name}: no earlier selection {step.select!r}; allowed: {', '.join(selections)}")
    if step.crop == "borders" and "border_left" not in columns:
        raise RecipeError(f"step {step.name}: crop needs the observer borders in step observe")


def _check_cut(observe: ObserveStep, cut: CutStep) -> None:
    have = [observer.name for observer in observe.observers]
    for observer in cut.detector.observers:
        if observer not in have:
            raise RecipeError(
                f"step cut: its detector needs the observer {observer!r}; step observe lists {', '.join(have)}"
            )
    if cut.min_seconds < 1 / observe.evidence.fps:
        raise RecipeError(
            f"step cut: min_seconds {cut.min_seconds:g} is below the {1 / observe.evidence.fps:g} s between evidence frames; "
            "raise it, or observe.evidence.fps"
        )


def _measures(observe: ObserveStep) -> list[pa.Field]:
    return [field for observer in observe.observers for field in observer.measures]


def _check_rules(step: SelectStep, columns: Mapping[str, pa.DataType]) -> None:
    """Limits are for numbers."""
    for column, rule in step.rules.items():
        kind = columns.get(column)  # a manifest's columns have no type until it is read
        if (
            kind is not None
            and rule.one_of is None
            and not pa.types.is_integer(kind)
            and not pa.types.is_floating(kind)
        ):
            raise RecipeError(f"select {step.name}: column {column} is {kind}, not a number; use one_of in its rule")


def _need(wanted: Iterable[str], columns: Iterable[str], who: str) -> None:
    for column in wanted:
        if column not in columns and not column.startswith("manifest."):
            raise RecipeError(
                f"{who}: unknown column {column!r}; allowed: {', '.join(columns)}, manifest.NAME{did_you_mean(column, columns)}"
            )
