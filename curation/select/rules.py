"""What may be asked of clips: rules over columns, caps, balance and samples, as recipes write them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, Self

import pyarrow as pa
from pydantic import Field, model_validator

from dailies.curation.config import StrictModel, did_you_mean, offered
from dailies.curation.errors import UsageError
from dailies.curation.select.expressions import Expression, Kind, parse

UNUSABLE = ("failed", "too_short", "too_long", "outside", "empty")
"""Statuses of clips, see ``schema.CLIP_COLUMNS``, that no rule is asked about; each is the reason itself."""

RESERVED = ("at_most", "balance", "sample")
"""What stands beside rules where a selection's are told, and so is no rule's name."""

KEEPS = ("first", "longest")

Share = Annotated[float, Field(ge=0, le=1)]


class Rule(StrictModel):
    """A rule says what one column must be; or a value computed of columns; or that all or any of other rules hold.

    A missing value is neither high nor low, so it is an error unless ``nulls`` says what it means.

    Args:
        min: least value that is kept.
        max: highest value that is kept.
        min_quantile: share of the clips with a value that falls at the low end; ties are kept.
        max_quantile: share of the clips with a value that is kept from the low end; ties are kept.
        one_of: the values that are kept.
        nulls: what a missing value means.
        expression: over columns; by itself it must be true, and with a limit it stands for a column.
        all: rules of which all must hold.
        any: rules of which one must hold.
    """

    min: float | None = None
    max: float | None = None
    min_quantile: Share | None = None
    max_quantile: Share | None = None
    one_of: tuple[str | int | bool, ...] | None = None
    nulls: Literal["keep", "drop"] | None = None
    expression: str | None = None
    all: tuple[dict[str, Rule], ...] | None = None
    any: tuple[dict[str, Rule], ...] | None = None

    @model_validator(mode="after")
    def _is_one_rule(self) -> Self:
        if self.min is not None and self.min_quantile is not None:
            raise ValueError(f"min={self.min:g}, min_quantile={self.min_quantile:g}: two lower limits; give one")
        if self.max is not None and self.max_quantile is not None:
            raise ValueError(f"max={self.max:g}, max_quantile={self.max_quantile:g}: two upper limits; give one")
        conditions = [name for name in type(self).model_fields if getattr(self, name) is not None and name != "nulls"]
        if not conditions:
            raise ValueError("a rule needs min, max, min_quantile, max_quantile or one_of; or expression, all or any")
        alone = [name for name in ("all", "any", "one_of") if name in conditions]
        others = [name for name in conditions if alone and name != alone[0]]
        if alone == ["one_of"]:  # of what an expression comes to, too
            others = [name for name in others if name != "expression"]
        if others:
            raise ValueError(f"{alone[0]} stands alone; leave {', '.join(others)} out")
        if self.nested is not None:
            if self.nulls is not None:
                raise ValueError(f"nulls={self.nulls}: stands in the rules of {alone[0]}, each of its own")
            if not self.nested or not all(self.nested):
                raise ValueError(f"{alone[0]}=[]: needs rules, such as [{{motion: {{min: 1}}}}]")
        if self.expression is not None:
            parse(self.expression)
        return self

    @property
    def nested(self) -> tuple[dict[str, Rule], ...] | None:
        """The rules of ``all`` or ``any``; of a mapping of several all must hold."""
        return self.all if self.all is not None else self.any

    @property
    def is_named(self) -> bool:
        """Whether the rule has a name of its own, in place of a column's."""
        return self.expression is not None or self.nested is not None

    @property
    def limited(self) -> bool:
        """Whether it has limits, which need numbers."""
        return any(getattr(self, name) is not None for name in ("min", "max", "min_quantile", "max_quantile"))


class Cap(StrictModel):
    """A cap says how many clips of one value of a column stay, of those that all else leaves.

    Args:
        count: how many.
        keep: which: first (by source and time), longest, COLUMN (its highest values) or -COLUMN (its lowest).
    """

    count: Annotated[int, Field(ge=1)]
    keep: Annotated[str, Field(min_length=1)] = "first"

    @model_validator(mode="before")
    @classmethod
    def _number(cls, value: Any) -> Any:
        return {"count": value} if isinstance(value, int) and not isinstance(value, bool) else value

    @property
    def column(self) -> str | None:
        """The column that decides, None where it is the order."""
        return None if self.keep in KEEPS else self.keep.removeprefix("-")


class Balance(StrictModel):
    """Balance says that no value of a column has many more clips than others.

    Args:
        column: of words, whole numbers or true and false; clips without a value are left alone.
        most: times the median of the values' counts of clips that any value keeps.
        seed: of which clips of a value stay.
    """

    column: str
    most: Annotated[float, Field(gt=0)] = 1.0
    seed: int = 0


class ClipSample(StrictModel):
    """A sample says how many clips are drawn of those that all else leaves.

    Each clip's place in the draw follows from the seed and its id alone, so a sample hardly changes where clips come.

    Args:
        clips: so many, or all where there are fewer.
        share: each with this chance, so about that share.
        seed: of the draw.
    """

    clips: Annotated[int, Field(ge=1)] | None = None
    share: Annotated[float, Field(gt=0, le=1)] | None = None
    seed: int = 0

    @model_validator(mode="after")
    def _is_one(self) -> Self:
        if (self.clips is None) == (self.share is None):
            raise ValueError("a sample needs clips or share, one of them")
        return self


@dataclass(frozen=True, slots=True, kw_only=True)
class Criteria:
    """All that a selection asks of clips, in the order in which it is asked."""

    duplicates: Literal["drop", "keep"] = "drop"
    overlaps: Literal["drop", "keep"] = "drop"
    rules: Mapping[str, Rule] = field(default_factory=dict)
    at_most: Mapping[str, Cap] = field(default_factory=dict)
    balance: Balance | None = None
    sample: ClipSample | None = None

    @property
    def columns(self) -> dict[str, None]:
        """The columns that it reads, each once."""
        names = dict.fromkeys(column for name, rule in self.rules.items() for column in columns_of(name, rule))
        for column, cap in self.at_most.items():
            names |= dict.fromkeys([column, *([cap.column] if cap.column else [])])
        return names | dict.fromkeys([self.balance.column] if self.balance else [])

    def told(self) -> dict[str, Any]:
        """Return rules, caps, balance and sample as plain data: name → what is asked."""
        told = {name: plain(rule) for name, rule in self.rules.items()}
        if self.at_most:
            told["at_most"] = {column: plain(cap) for column, cap in self.at_most.items()}
        for name, asked in (("balance", self.balance), ("sample", self.sample)):
            if asked is not None:
                told[name] = plain(asked)
        return told


def plain(asked: StrictModel) -> dict[str, Any]:
    """Return a rule, cap, balance or sample as plain data, without what it leaves open."""
    return asked.model_dump(exclude_none=True, mode="json")


def columns_of(name: str, rule: Rule) -> Iterator[str]:
    """Yield the columns that a rule reads; ``name``: of the rule, and of its column where it has one."""
    if rule.nested is not None:
        for group in rule.nested:
            for inner, each in group.items():
                yield from columns_of(inner, each)
    elif rule.expression is not None:
        yield from parse(rule.expression).columns
    else:
        yield name


# ---- against the columns that there are ------------------------------------------------------------------------------


def kind_of_type(kind: pa.DataType) -> Kind:
    """Return the kind of values of a type."""
    types = pa.types
    if types.is_integer(kind) or types.is_floating(kind):
        return "number"
    if types.is_string(kind) or types.is_large_string(kind):
        return "text"
    return "bool" if types.is_boolean(kind) else None if types.is_null(kind) else "other"


def check_rules(criteria: Criteria, columns: Mapping[str, pa.DataType]) -> None:
    """Check, before any work, that each column is what it is asked to be, and that rules have fitting names.

    ``columns``: those that there are. What is not among them is passed over: a manifest's columns are known once it is
    read. Raises ``UsageError`` naming the column and what is allowed.
    """
    kinds = {name: kind_of_type(kind) for name, kind in columns.items()}
    for name, rule in criteria.rules.items():
        if name in RESERVED:
            raise UsageError(f"rules.{name}: {name} stands beside rules, not in them; name the rule otherwise")
        _check_rule(name, rule, columns, kinds)
    for column, cap in criteria.at_most.items():
        _check_groups(column, columns, "at_most")
        if cap.column is not None and not cap.column.startswith("manifest."):
            if cap.column not in columns:
                allowed = [*KEEPS, "COLUMN", "-COLUMN"]
                near = offered(cap.column, allowed) if not did_you_mean(cap.column, columns) else ""
                near = near or did_you_mean(cap.column, columns)
                raise UsageError(f"at_most.{column}: keep={cap.keep}: unknown column {cap.column!r}{near}")
            if kinds[cap.column] != "number":
                raise UsageError(f"at_most.{column}: keep={cap.keep}: is by a column of numbers")
    if criteria.balance is not None:
        _check_groups(criteria.balance.column, columns, "balance")


def _check_rule(name: str, rule: Rule, columns: Mapping[str, pa.DataType], kinds: Mapping[str, Kind]) -> None:
    if rule.is_named and name in columns:
        kind = next(key for key in ("expression", "all", "any") if getattr(rule, key) is not None)
        raise UsageError(f"rule {name}: is a column's name; a rule with {kind} needs a name of its own")
    if rule.nested is not None:
        for group in rule.nested:
            for inner, each in group.items():
                _check_rule(inner, each, columns, kinds)
    elif rule.expression is not None:
        understood(name, rule, kinds)
    elif rule.limited and name in columns and kinds[name] != "number":
        raise UsageError(needs_numbers(name, columns[name]))


def understood(
    name: str, rule: Rule, kinds: Mapping[str, Kind], column_sql: Callable[[str], str] | None = None
) -> Expression:
    """Return a rule's expression over columns of these kinds. Raises ``UsageError`` where the rule cannot use it."""
    try:
        expression = parse(rule.expression or "", kinds.get, column_sql)
    except ValueError as error:
        raise UsageError(f"rule {name}: {error}") from None
    what = {"number": "a number", "text": "text", "bool": "true or false"}.get(expression.kind or "")
    if rule.limited and expression.kind not in (None, "number"):
        raise UsageError(f"rule {name}: expression {rule.expression!r}: is {what}; min and max need a number")
    if not rule.limited and rule.one_of is None and expression.kind not in (None, "bool"):
        raise UsageError(
            f"rule {name}: expression {rule.expression!r}: is {what}, not true or false; compare it with something, "
            "or give the rule min, max or one_of"
        )
    return expression


def _check_groups(column: str, columns: Mapping[str, pa.DataType], who: str) -> None:
    """Raise ``UsageError`` for a column whose values make no groups."""
    kind = columns.get(column)
    if kind is not None and (pa.types.is_floating(kind) or kind_of_type(kind) == "other"):
        raise UsageError(f"{who}: column {column!r} is {kind}; it needs one of words, whole numbers, or true and false")


def needs_numbers(column: str, kind: object) -> str:
    """Say why a rule with limits cannot be for a column of this type."""
    text = str(kind) in ("string", "VARCHAR")
    return f"column {column!r} is {'text' if text else str(kind).lower()}; this rule needs numbers (use one_of)"
