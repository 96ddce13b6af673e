"""Values that people write are read here: strict models, ``--set PATH=VALUE``, and errors that say what is allowed."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import fields, is_dataclass
from typing import TYPE_CHECKING, Annotated, Any, TypeVar, get_args, get_type_hints

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from dailies.curation.errors import DailiesError, Damaged, RecipeError

if TYPE_CHECKING:
    import yaml

T = TypeVar("T")


class StrictModel(BaseModel):
    """A frozen pydantic model that refuses unknown keys, NaN and infinity."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, arbitrary_types_allowed=True, allow_inf_nan=False, defer_build=True
    )

    def __init__(self, /, **values: Any) -> None:
        """Check ``values``. Raises ``RecipeError`` in one line, where ``model_validate`` raises pydantic's own error."""
        try:
            super().__init__(**values)
        except ValidationError as error:
            raise RecipeError(f"{type(self).__name__}: {format_error(error)}") from None

    __init__.__pydantic_base_init__ = True  # type: ignore[attr-defined]  # validation of nested models does not come here


SPEC = ConfigDict(extra="forbid", allow_inf_nan=False, defer_build=True)
"""The configuration of pydantic dataclasses that are specs: unknown parameters, NaN and infinity are refused.

What checks them is built when the first is made: a command pays for those that it uses.
"""


def _share_or_whole(gpus: float) -> float:
    if gpus > 1 and gpus != int(gpus):
        raise ValueError("a worker gets a share of one GPU, or whole ones; set at most 1, or a whole number")
    return gpus


GpuShare = Annotated[float, Field(ge=0), AfterValidator(_share_or_whole)]
"""GPUs of one worker: several workers may share one, and none has one and a half, as Ray counts them."""

MOST_TEXT = 1 << 20
"""Characters that a recipe may have."""

MOST_VALUES = 50_000
"""Values that a recipe may come to once its aliases are written out: nine lines of aliases can stand for billions."""

MOST_DIGITS = 100


def read_yaml(text: str, what: str) -> Any:
    """Parse YAML; ``what`` names it in the ``RecipeError`` for text that is none, or that stands for more than it may."""
    if len(text) > MOST_TEXT:
        raise RecipeError(f"{what} has {len(text):,} characters; the most is {MOST_TEXT:,}")
    import yaml

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
    import yaml

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


KEY = re.compile(r"""\s*(?:"((?:[^"\\]|\\.)*)"|'([^']*)'|([^.="'][^.=]*?))\s*(?=[.=]|$)""")
"""One key of a path: in double quotes, in single ones, or as it is."""


def parse_assignment(text: str) -> tuple[tuple[str, ...], Any]:
    """Split ``a.b.c=VALUE`` into its path and its value, which is YAML; the word ``None`` is null too.

    A key that holds a dot or an equals sign stands in quotes: ``main.rules."manifest.a=b".min=3``. Raises ``RecipeError`` for
    anything else.
    """
    keys, at = [], 0
    while (match := KEY.match(text, at)) is not None:
        double, single, plain = match.groups()
        keys.append(re.sub(r"\\(.)", r"\1", double) if double is not None else single if single is not None else plain)
        at = match.end() + 1
        if text[match.end() : at] == "=":
            raw = text[at:]
            return tuple(keys), None if raw.strip() == "None" else read_yaml(raw, f"--set {text}")
        if at > len(text):
            break
    raise RecipeError(f"--set {text}: must have the form NAME.KEY=VALUE; put a name with dots or = in quotes")


def joined(keys: Iterable[str]) -> str:
    """Return keys as a path of ``--set``: those that ``parse_assignment`` would part stand in quotes."""
    plain = re.compile(r"[^.=\"'\s][^.=]*")
    return ".".join(
        key if plain.fullmatch(key) and key == key.strip() else json.dumps(key, ensure_ascii=False) for key in keys
    )


WORDS = {
    ", (unable to parse|got a number with).*": "",
    "[Ii]nput should be": "must be",
    "a valid integer": "a whole number",
    "a valid number": "a number",
    "a valid boolean": "true or false",
    "a valid string": "text (put it in quotes)",
    "a valid (tuple|list)": "a list, such as [a, b]",
    "a valid dictionary or instance of \\w+|a valid dictionary": "keys with values, such as {min: 1}",
    "a finite number": "a number, not NaN or infinity",
    "greater than or equal to": "at least",
    "less than or equal to": "at most",
    "greater than": "above",
    "less than": "below",
}
"""What pydantic says, and what is said instead."""


def format_error(error: ValidationError, allowed: Callable[[Sequence[str]], Iterable[str]] = lambda place: ()) -> str:
    """Return the first complaint of a pydantic error as ``FIELD=VALUE: what is wrong``.

    ``allowed``: the keys that there are at a place within what was validated, for one that there is not.
    """
    first = error.errors(include_url=False)[0]
    places = [str(part) for part in first["loc"]]
    place = ".".join(places)
    if first["type"] in ("extra_forbidden", "unexpected_keyword_argument"):
        return f"unknown key {place!r}{offered(places[-1], allowed(places[:-1]))}"
    if not place and first["type"] == "value_error":  # a rule over several fields, in our own words
        return first["msg"].removeprefix("Value error, ")
    message = plain_words(first["msg"])
    value, near = first["input"], ""
    if first["type"] == "literal_error" and isinstance(value, str):
        near = did_you_mean(value, re.findall(r"'([^']*)'", first["ctx"]["expected"]))
    if not place:
        return message + near
    shown = f"={value!r}" if isinstance(value, str | int | float | None) else ""
    return f"{place}{shown}: {message}{near}"


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


def plain_words(message: str) -> str:
    """Return pydantic's words for a wrong value as they would be said: "must be a number"."""
    text = " ".join(message.split()).rstrip(".").removeprefix("Value error, ")
    for theirs, ours in WORDS.items():
        text = re.sub(theirs, ours, text)
    return text[:1].lower() + text[1:]


def keys_of(owner: Any) -> Callable[[Sequence[str]], list[str]]:
    """Return what tells the keys that ``owner``, a model or dataclass, has at a place within it."""

    def at(place: Sequence[str]) -> list[str]:
        kind = owner
        for name in place:
            kind = _within(kind, name)
        return list(_fields(kind))

    return at


def _fields(kind: Any) -> dict[str, Any]:
    """Return the types of a model's or dataclass's fields; none of anything else."""
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        return {name: info.annotation for name, info in kind.model_fields.items()}
    if isinstance(kind, type) and is_dataclass(kind):
        hints = get_type_hints(kind)
        return {item.name: hints[item.name] for item in fields(kind) if item.init}
    return {}


def _within(kind: Any, name: str) -> Any:
    """Return the type of what lies in ``kind`` by a key or index, as far as it has fields itself."""
    inner = _fields(kind).get(name, kind)
    parts = [inner, *get_args(inner), *(deeper for part in get_args(inner) for deeper in get_args(part))]
    return next((part for part in parts if _fields(part)), None)


FEW = 12  # names that are listed beside the one that was probably meant


def offered(name: str, allowed: Iterable[str], label: str = "allowed") -> str:
    """Return ``; allowed: a, b (did you mean a?)``: all names, or of very many only the one most like ``name``."""
    names = list(allowed)
    near = did_you_mean(name, names)
    if not names or (near and len(names) > FEW):
        return near
    return f"; {label}: {', '.join(names)}{near}"


def did_you_mean(name: str, allowed: Iterable[str]) -> str:
    """Return `` (did you mean X?)`` for the name most like ``name``; empty where none is near."""
    names = {str(known).lower(): str(known) for known in allowed}
    near = difflib.get_close_matches(name.lower(), names, n=1)
    return f" (did you mean {names[near[0]]}?)" if near else ""
