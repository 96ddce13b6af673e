"""Values that people write are read here: strict models, ``--set PATH=VALUE``, and errors that say what is allowed."""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterable
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from dailies.curation.errors import DailiesError, Damaged, RecipeError

T = TypeVar("T")


class StrictModel(BaseModel):
    """A frozen pydantic model that refuses unknown keys, NaN and infinity."""

    model_config = ConfigDict(extra="forbid", frozen=True, arbitrary_types_allowed=True, allow_inf_nan=False)

    def __init__(self, /, **values: Any) -> None:
        """Check ``values``. Raises ``RecipeError`` in one line, where ``model_validate`` raises pydantic's own error."""
        try:
            super().__init__(**values)
        except ValidationError as error:
            raise RecipeError(f"{type(self).__name__}: {format_error(error)}") from None

    __init__.__pydantic_base_init__ = True  # type: ignore[attr-defined]  # validation of nested models does not come here


SPEC = ConfigDict(extra="forbid", allow_inf_nan=False)
"""The configuration of pydantic dataclasses that are specs: unknown parameters, NaN and infinity are refused."""


MOST_TEXT = 1 << 20
"""Characters that a recipe may have."""

MOST_VALUES = 50_000
"""Values that a recipe may come to once its aliases are written out: nine lines of aliases can stand for billions."""

MOST_DIGITS = 100


def read_yaml(text: str, what: str) -> Any:
    """Parse YAML; ``what`` names it in the ``RecipeError`` for text that is none, or that stands for more than it may."""
    if len(text) > MOST_TEXT:
        raise RecipeError(f"{what} has {len(text):,} characters; the most is {MOST_TEXT:,}")
    loader = yaml.SafeLoader(text)
    try:
        node = loader.get_single_node()
        if node is None:
            return None
        if (values := _values(node, {})) > MOST_VALUES:
            raise RecipeError(f"{what} stands for {values:,} values, aliases written out; the most is {MOST_VALUES:,}")
        return loader.construct_document(node)
    except (yaml.YAMLError, ValueError) as error:  # such as a number of too many digits
        raise RecipeError(f"{what} is not YAML: {' '.join(str(error).split())}") from None
    except RecursionError:
        raise RecipeError(f"{what} is not YAML that can be read: it is nested too deep, or holds itself") from None
    finally:
        loader.dispose()


def _values(node: yaml.Node, known: dict[int, int]) -> int:
    """Count the values under a node, one that aliases name again each time. ``known``: counts by the node's identity."""
    if id(node) not in known:
        inner: list[yaml.Node] = []
        if node.tag.endswith(":int") and len(node.value) > MOST_DIGITS:  # 1:1:1:… counts in sixties without end
            raise ValueError(f"a number of {len(node.value)} characters")
        if isinstance(node, yaml.MappingNode):
            inner = [part for pair in node.value for part in pair]
        elif isinstance(node, yaml.SequenceNode):
            inner = node.value
        known[id(node)] = 1 + sum(_values(part, known) for part in inner)
    return known[id(node)]


def parse_assignment(text: str) -> tuple[tuple[str, ...], Any]:
    """Split ``a.b.c=VALUE`` into its path and its value, which is YAML; the word ``None`` is null too.

    Raises ``RecipeError`` for anything else.
    """
    path, equals, raw = text.partition("=")
    keys = tuple(key.strip() for key in path.split("."))
    if not equals or not all(keys):
        raise RecipeError(f"--set {text}: must have the form NAME.KEY=VALUE")
    return keys, None if raw.strip() == "None" else read_yaml(raw, f"--set {text}")


def format_error(error: ValidationError) -> str:
    """Return the first complaint of a pydantic error as ``FIELD=VALUE: what is wrong``."""
    first = error.errors(include_url=False)[0]
    place = ".".join(str(part) for part in first["loc"])
    if first["type"] in ("extra_forbidden", "unexpected_keyword_argument"):
        return f"unknown key {place!r}"
    message = first["msg"].removeprefix("Value error, ")
    if not place:
        return message
    value = f"={first['input']!r}" if isinstance(first["input"], str | int | float | None) else ""
    return f"{place}{value}: {message[:1].lower()}{message[1:]}"


def read_json(text: str | bytes, what: str, error: type[DailiesError]) -> Any:
    """Parse JSON that others may have written; ``what`` names it in the ``error`` that is raised for text that is none."""
    try:
        return json.loads(text)
    except ValueError as problem:  # of its syntax, its encoding, or a number of too many digits
        raise error(f"{what} is not JSON: {problem}") from problem
    except RecursionError:
        raise error(f"{what} is not JSON that can be read: it is nested too deep") from None


def read_object(text: str | bytes, what: str, error: type[DailiesError]) -> dict[str, Any]:
    """Parse a JSON object, as ``read_json`` does; any other JSON raises ``error`` too."""
    row = read_json(text, what, error)
    if not isinstance(row, dict):
        raise error(f"{what} holds no JSON object")
    return row


def read_format(text: str | bytes, file: str, number: int, adapter: TypeAdapter[T]) -> T:
    """Read a JSON object that has the key ``format``. Raises ``Damaged`` naming ``file`` for any but ``number``'s."""
    row = read_json(text, file, Damaged)
    if not isinstance(row, dict) or row.get("format") != number:
        raise Damaged(f"{file} is not of format {number}; a newer version of dailies may read it")
    try:
        return adapter.validate_python(row)
    except ValidationError as error:
        raise Damaged(f"{file}: {format_error(error)}") from error


def did_you_mean(name: str, allowed: Iterable[str]) -> str:
    """Return `` (did you mean X?)`` for the name most like ``name``; empty where none is near."""
    near = difflib.get_close_matches(name, list(allowed), n=1)
    return f" (did you mean {near[0]}?)" if near else ""
