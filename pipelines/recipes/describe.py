"""What recipes and their parts are, for people: one line about each, its keys with values, and the columns that it makes.

All of it is taken from beside the code: docstrings and their ``Args:``, types, columns with units, and the comment that a
recipe's file begins with.
"""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, dataclass, fields, is_dataclass
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import pyarrow as pa
from pydantic import BaseModel

from dailies.curation.captioners import CAPTIONERS
from dailies.curation.config import joined, offered
from dailies.curation.detectors import DETECTORS
from dailies.curation.errors import RecipeError
from dailies.curation.observers import OBSERVERS
from dailies.curation.packages import extras_for
from dailies.curation.scorers import SCORERS
from dailies.pipelines.recipes.recipe import ALIASES, CurationRecipe, load_recipe, path_of, recipe_names
from dailies.pipelines.recipes.specs import kind_of
from dailies.pipelines.recipes.steps import SPECS, Step, kind_of_step

TABLES: dict[str, Mapping[str, Any]] = {
    "observer": OBSERVERS,
    "detector": DETECTORS,
    "scorer": SCORERS,
    "captioner": CAPTIONERS,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Key:
    """A key that can be set. ``name``: as ``--set`` takes it; ``value``: today's, ``default``: where it is left out, as JSON;
    ``allowed``: in words; ``required``: it has no default."""

    name: str
    value: Any
    default: Any
    required: bool
    allowed: str
    about: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ColumnInfo:
    """A column that an observer, scorer or captioner makes."""

    name: str
    unit: str
    about: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PartInfo:
    """A recipe or a part of recipes. ``needs``: what must be there beside dailies; ``steps``: of a recipe, with their keys."""

    kind: str
    name: str
    about: str
    needs: str = ""
    keys: tuple[Key, ...] = ()
    columns: tuple[ColumnInfo, ...] = ()
    steps: tuple[tuple[str, str], ...] = ()


def describe_all() -> list[PartInfo]:
    """Describe each recipe, observer, detector, scorer and captioner, without their keys."""
    return [_recipe_line(name) for name in recipe_names()] + [
        _part(kind, name, cls) for kind, table in TABLES.items() for name, cls in table.items()
    ]


def describe(name: str) -> list[PartInfo]:
    """Describe all that goes by a name, with keys: ``motion`` is an observer and a captioner. A file's name is a recipe's.

    Raises ``RecipeError`` for a name of nothing.
    """
    parts = [_part(kind, name, table[name]) for kind, table in TABLES.items() if name in table]
    if name in (*recipe_names(), *ALIASES) or name.endswith((".yaml", ".yml")):
        return [_recipe(load_recipe(name), name), *parts]
    if not parts:
        known = list(dict.fromkeys([*recipe_names(), *(each for table in TABLES.values() for each in table)]))
        raise RecipeError(f"{name}: nothing in recipes goes by this name{offered(name, [*known, 'FILE.yaml'])}")
    return parts


# ---- recipes --------------------------------------------------------------------------------------------------------


def _recipe_line(name: str) -> PartInfo:
    recipe = load_recipe(name)
    return PartInfo(kind="recipe", name=name, about=_sentence(comment_of(name)), needs=_together(recipe))


def _recipe(recipe: CurationRecipe, name: str) -> PartInfo:
    keys = tuple(key for step in recipe.steps for key in _step_keys(step))
    steps = tuple((step.name, first_sentence(type(step))) for step in recipe.steps)
    return PartInfo(
        kind="recipe",
        name=recipe.name,
        about=_sentence(comment_of(name)),
        needs=_together(recipe),
        keys=keys,
        steps=steps,
    )


def keys_of_recipe(recipe: CurationRecipe) -> dict[str, dict[str, Any]]:
    """Return the value of each key of each step, by step name and by key as ``--set`` takes it."""
    return {step.name: {key.name: key.value for key in _step_keys(step)} for step in recipe.steps}


def comment_of(name: str) -> str:
    """Return the comment that a recipe's file begins with, in one line; empty where there is none."""
    lines = re.match(r"(?:#.*\n)*", path_of(name).read_text(encoding="utf-8"))
    assert lines is not None
    return " ".join(line.lstrip("# ") for line in lines[0].splitlines())


def _together(recipe: CurationRecipe) -> str:
    """Return what the parts of a recipe need, each once."""
    needs = [_needs(step.spec) for step in recipe.steps if hasattr(step, "spec")]
    return ", ".join(dict.fromkeys(need for text in needs for need in text.split(", ") if need))


def _step_keys(step: Step) -> Iterator[Key]:
    """Yield the keys of a step, and those of what stands in it, as ``--set`` takes them."""
    kind, name = kind_of_step(step), step.name
    holder, table = SPECS.get(kind, ("", {}))
    for key in _keys(type(step), step):
        value = getattr(step, key.name)
        if key.name == "observers":
            yield _key(
                key, (name, key.name), [kind_of(observer, OBSERVERS) for observer in value], ", ".join(OBSERVERS)
            )
            for observer in value:
                yield from _under(observer, name, kind_of(observer, OBSERVERS))
        elif key.name == holder:
            yield _key(key, (name, key.name), kind_of(value, table), ", ".join(table))
            yield from _under(value, name)
        elif key.name == "evidence":
            yield from _under(value, name, key.name)
        elif kind == "dedup" and key.name in ("perceptual", "semantic", "captions"):
            yield _key(key, (name, key.name), value is not None, "true or false, or keys")
            yield from _under(value, name, key.name) if value is not None else ()
        elif key.name == "rules":
            for column, rule in value.items():
                yield from (each for each in _under(rule, name, key.name, column) if each.value is not None)
        elif key.name == "at_most":
            for column, cap in value.items():
                yield from _under(cap, name, key.name, column)
        elif key.name in ("balance", "sample"):
            yield from (each for each in _under(value, name, key.name) if each.value is not None) if value else ()
        elif key.name != "name":
            yield _key(key, (name, key.name), key.value, key.allowed)


def _under(spec: Any, *path: str) -> Iterator[Key]:
    for key in _keys(type(spec), spec):
        yield _key(key, (*path, key.name), key.value, key.allowed)


def _key(key: Key, path: tuple[str, ...], value: Any, allowed: str) -> Key:
    return Key(
        name=joined(path), value=value, default=key.default, required=key.required, allowed=allowed, about=key.about
    )


# ---- parts ----------------------------------------------------------------------------------------------------------


def _part(kind: str, name: str, cls: Any) -> PartInfo:
    columns: tuple[pa.Field, ...] = getattr(cls, "measures", getattr(cls, "columns", ()))
    named = [(f"caption_{name}" if column.name == "text" else column.name, column) for column in columns]
    if kind == "captioner":
        named = named[:1]
    return PartInfo(
        kind=kind,
        name=name,
        about=first_sentence(cls),
        needs=_needs(cls),
        keys=tuple(_keys(cls)),
        columns=tuple(_column(label, column) for label, column in named),
    )


def _column(name: str, column: pa.Field) -> ColumnInfo:
    metadata = {key.decode(): value.decode() for key, value in (column.metadata or {}).items()}
    return ColumnInfo(name=name, unit=metadata.get("unit", ""), about=metadata["doc"])


def _needs(spec: Any) -> str:
    """Return the extra and the weights that a part needs, and another detector's observers."""
    extras = [f"dailies[{extra}]" for extra in extras_for(required_by(spec))]
    kinds = [f"the observer {name}" for name in getattr(spec, "observers", ())]
    named = [item for item in fields(spec) if item.name in ("model", "head")] if is_dataclass(spec) else []
    values = [item.default if isinstance(spec, type) else getattr(spec, item.name) for item in named]
    weights = [
        f"weights ({item.name})" if value is MISSING else str(value) for item, value in zip(named, values, strict=True)
    ]
    return ", ".join(dict.fromkeys([*extras, *weights, *kinds]))


def required_by(spec: Any) -> tuple[str, ...]:
    """Return the packages that a part requires, a class's with its defaults, where parameters decide.

    A model that must be named is one like any other there.
    """
    requires = getattr(spec, "requires", ())
    if isinstance(requires, property):
        missing = [item.name for item in fields(spec) if item.default is MISSING and item.default_factory is MISSING]
        requires = spec(**dict.fromkeys(missing, "NAME")).requires
    named: tuple[str, ...] = tuple(requires)
    return named


def _keys(cls: Any, spec: Any = None) -> Iterator[Key]:
    """Yield the keys of a model or dataclass; values are those of ``spec``, or by default the defaults."""
    about = documented(cls)
    hints = get_type_hints(cls, include_extras=True)
    for name, default in _defaults(cls).items():
        required = default is MISSING
        default = None if required else _plain(default)
        value = default if spec is None else _plain(getattr(spec, name))
        allowed = allowed_words(hints[name])
        yield Key(
            name=name, value=value, default=default, required=required, allowed=allowed, about=about.get(name, "")
        )


def _defaults(cls: Any) -> dict[str, Any]:
    if isinstance(cls, type) and issubclass(cls, BaseModel):
        return {
            name: MISSING if info.is_required() else None if info.default_factory else info.default
            for name, info in cls.model_fields.items()
        }
    return {
        item.name: item.default if item.default_factory is MISSING else item.default_factory()
        for item in fields(cls)
        if item.init
    }


def _plain(value: Any) -> Any:
    if is_dataclass(value) or isinstance(value, BaseModel):
        return {}
    return json.loads(json.dumps(value, default=_json))


def _json(value: Any) -> Any:
    """Return what JSON has no word for: of a model, such as a rule within a rule, what was set."""
    return value.model_dump(exclude_none=True, mode="json") if isinstance(value, BaseModel) else str(value)


def allowed_words(kind: Any) -> str:
    """Say what a type allows: "number above 0", "encode, copy, smart or none"."""
    text, limits, optional = _type_words(kind)
    text = " ".join([text, *([" and ".join(limits)] if limits else [])])
    return f"{text}, or null" if optional and text else text


def _type_words(kind: Any) -> tuple[str, list[str], bool]:
    metadata = getattr(kind, "__metadata__", ())
    if metadata:
        kind_text, limits, optional = _type_words(get_args(kind)[0])
        for item in metadata:
            for limit in (item, *getattr(item, "metadata", ())):
                for sign, word in SIGNS.items():
                    if getattr(limit, sign, None) is not None:
                        limits.append(f"{word} {getattr(limit, sign):g}")
        return kind_text, limits, optional
    if get_origin(kind) is Literal:
        *first, last = map(str, get_args(kind))
        return f"{', '.join(first)} or {last}", [], False
    parts = [part for part in get_args(kind) if part is not type(None)]
    if type(None) in get_args(kind) and len(parts) == 1:
        kind_text, limits, _ = _type_words(parts[0])
        return kind_text, limits, True
    if get_origin(kind) is tuple:
        options = get_args(parts[0]) if get_origin(parts[0]) in (UnionType, Union) else parts[:1]
        return f"list of {' or '.join(_type_words(part)[0] for part in options)}", [], False
    if get_origin(kind) is dict:
        return "keys with values", [], False
    return NAMES.get(kind, ""), [], False


SIGNS = {"gt": "above", "ge": "from", "lt": "below", "le": "up to", "multiple_of": "in steps of"}
NAMES: dict[Any, str] = {int: "whole number", float: "number", str: "text", bool: "true or false"}

# ---- docstrings -----------------------------------------------------------------------------------------------------


def first_sentence(cls: Any) -> str:
    return _sentence(cls.__doc__ or "")


def _sentence(text: str) -> str:
    return " ".join(text.split()).replace("``", "").partition(". ")[0].removesuffix(".")


def documented(cls: Any) -> dict[str, str]:
    """Return what the ``Args:`` of a class and of those that it derives from say of each field, in one line."""
    texts: dict[str, str] = {}
    for owner in reversed(inspect.getmro(cls)):
        section = inspect.cleandoc(owner.__dict__.get("__doc__") or "").partition("Args:\n")[2]
        section = section.partition("\n\n")[0]
        for name, text in re.findall(r"^ {4}(\w+(?:, \w+)*): ((?:.+\n?)(?: {5,}.+\n?)*)", section, re.MULTILINE):
            for each in name.split(", "):
                texts[each] = " ".join(text.split()).replace("``", "")
    return texts
