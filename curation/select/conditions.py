"""Rules → SQL over ``facts`` that is true of the clips which fall, with a reason each; quantiles are resolved to numbers."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

from dailies.curation.errors import UsageError
from dailies.curation.select.expressions import double, literal
from dailies.curation.select.facts import FACTS, Facts, Unjudged, Value
from dailies.curation.select.rules import UNUSABLE, Rule, columns_of, needs_numbers
from dailies.curation.select.source import answer


@dataclass(frozen=True, slots=True, kw_only=True)
class Fall:
    """A reason, and SQL over ``facts`` that is true of the clips which fall by it, and never null."""

    reason: str
    sql: str


@dataclass(slots=True, kw_only=True)
class _Leaf:
    """A rule over one value, and what the table says of it. ``asked``: SQL, true of the clips that it is asked about."""

    name: str
    rule: Rule
    value: Value
    asked: str
    missing: int = 0
    clips: int = 0
    known: int = 0
    limits: dict[str, Any] = field(default_factory=dict)

    @property
    def absent(self) -> str:
        """SQL of whether there is no value: where a number is needed, the text ``nan`` is none."""
        sql = f"{self.value.sql} is null"
        return f"({sql} or {self.value.nan})" if self.rule.limited and self.value.kind == "text" else sql


@dataclass(frozen=True, slots=True, kw_only=True)
class _Group:
    """A rule of others: ``either`` of the groups must hold, or each; in a group, all."""

    either: bool
    groups: tuple[tuple[_Leaf | _Group, ...], ...]


_Node = _Leaf | _Group


def status_falls() -> list[Fall]:
    """Return a reason for each status that is not usable."""
    return [Fall(reason=word, sql=f"(status is not distinct from {literal(word)})") for word in UNUSABLE]


def rule_falls(
    facts: Facts, rules: Mapping[str, Rule], unjudged: Mapping[str, Unjudged]
) -> tuple[list[Fall], dict[str, dict[str, Any]]]:
    """Return who falls by each rule, in order, and by rule the limits that it came to.

    Raises ``UsageError`` for a value that is missing where its rule does not say what that means, and for one of another
    type than the rule needs.
    """
    limits: dict[str, dict[str, Any]] = {name: {} for name in rules}
    asked = {name: f"(usable and not {facts.apart[name]})" if name in facts.apart else "usable" for name in rules}
    nodes = {name: _node(facts, name, rule, asked[name]) for name, rule in rules.items()}
    leaves = [leaf for node in nodes.values() for leaf in _leaves(node)]
    _count(facts, leaves)
    for leaf in leaves:
        _check(leaf)
    _resolve(facts, leaves)
    for name, table in facts.apart.items():
        ((count,),) = answer(facts.connection, f"select count(*) from {FACTS} where usable and {table}")
        if count:
            why = next(unjudged[column].why for column in columns_of(name, rules[name]) if column in unjudged)
            limits[name]["not_applied"] = f"{count} clip{'s' * (count > 1)}: {why}"
    falls: list[Fall] = []
    for name, node in nodes.items():
        word = name.replace(".", "_")
        if isinstance(node, _Leaf):
            falls += _falls(word, node)
            limits[name] |= node.limits
        else:
            falls.append(Fall(reason=f"{word}_unmet", sql=f"({asked[name]} and not {_holds(node)})"))
            limits[name]["holds"] = _told(node)
    return falls, limits


def _node(facts: Facts, name: str, rule: Rule, asked: str) -> _Node:
    if rule.nested is None:
        value = facts.values[name if rule.expression is None else rule.expression]
        return _Leaf(name=name, rule=rule, value=value, asked=asked)
    groups = (tuple(_node(facts, inner, each, asked) for inner, each in group.items()) for group in rule.nested)
    return _Group(either=rule.any is not None, groups=tuple(groups))


def _leaves(node: _Node) -> Iterator[_Leaf]:
    if isinstance(node, _Leaf):
        yield node
    else:
        for group in node.groups:
            for each in group:
                yield from _leaves(each)


def _count(facts: Facts, leaves: Sequence[_Leaf]) -> None:
    """Count each rule's clips, those without a value, and, where texts must be numbers, those that are none."""
    if not leaves:
        return
    wanted = []
    for leaf in leaves:
        wanted += [
            f"count(*) filter (where {leaf.asked})",
            f"count(*) filter (where {leaf.asked} and {leaf.absent})",
        ]
        if leaf.rule.limited and leaf.value.kind == "text":
            wanted.append(f"count(*) filter (where not {leaf.absent} and {leaf.value.number} is null)")
        else:
            wanted.append("0")
    (row,) = answer(facts.connection, f"select {', '.join(wanted)} from {FACTS}")
    for number, leaf in enumerate(leaves):
        leaf.clips, leaf.missing, wrong = row[3 * number : 3 * number + 3]
        leaf.known = leaf.clips - leaf.missing
        if wrong and not (leaf.missing and leaf.rule.nulls is None):
            raise UsageError(needs_numbers(leaf.name, leaf.value.type))


def _check(leaf: _Leaf) -> None:
    rule, kind = leaf.rule, leaf.value.kind
    if leaf.missing and rule.nulls is None:
        what = f"column {leaf.name!r}" if rule.expression is None else f"rule {leaf.name!r}: {rule.expression}"
        raise UsageError(
            f"{what} is null for {leaf.missing} of {leaf.clips} clips; "
            "say what that means with nulls: keep or nulls: drop in its rule"
        )
    if rule.one_of is not None:
        texts = [isinstance(value, str) for value in rule.one_of]
        allowed = sorted(rule.one_of, key=lambda value: (isinstance(value, str), value))
        if kind == "text" and not any(texts):
            raise UsageError(f"column {leaf.name!r} is text; one_of={allowed}: put the values in quotes")
        if kind == "number" and all(texts):
            raise UsageError(f"column {leaf.name!r} is of numbers; one_of={allowed}: leave the quotes out")
    elif rule.limited and kind == "other":
        raise UsageError(needs_numbers(leaf.name, leaf.value.type))


# ---- limits ----------------------------------------------------------------------------------------------------------


def rank_low(quantile: float, count: int) -> int:
    """Return which of ``count`` values in order, from 0, is the lowest that a lower quantile keeps."""
    return min(count - 1, math.floor(exact(quantile) * count))


def rank_high(quantile: float, count: int) -> int:
    """Return which of ``count`` values in order, from 0, is the highest that an upper quantile keeps."""
    return max(0, math.ceil(exact(quantile) * count) - 1)


def exact(quantile: float) -> Fraction:
    """Return the decimal as it was written: as floats, 0.07 · 100 is over 7, and keeps one clip too many."""
    return Fraction(quantile).limit_denominator(10**8)


def at_rank(number: str, asked: str, rank: int, count: int) -> str:
    """Return SQL of the value that is at ``rank``, from 0, of the ``count`` known ones in order.

    DuckDB's quantile of a share that lies half way between two ranks is the upper one's value, whatever is rounded.
    """
    return f"quantile_disc({number}, {(rank + 0.5) / count!r}) filter (where {asked} and {number} is not null)"


def _resolve(facts: Facts, leaves: Sequence[_Leaf]) -> None:
    """Fill in the limits of each rule: those it has, and quantiles as numbers, where there are values."""
    wanted: list[tuple[_Leaf, str, str]] = []
    for leaf in leaves:
        rule, count = leaf.rule, leaf.known
        if rule.one_of is not None:
            leaf.limits["one_of"] = sorted(map(str, set(rule.one_of)))
        if rule.expression is not None:
            leaf.limits["expression" if rule.limited or rule.one_of else "holds"] = rule.expression
        if rule.min is not None:
            leaf.limits["min"] = rule.min
        if rule.min_quantile is not None and count:
            leaf.limits["min"] = None
            wanted.append(
                (leaf, "min", at_rank(leaf.value.number, leaf.asked, rank_low(rule.min_quantile, count), count))
            )
        if rule.max is not None:
            leaf.limits["max"] = rule.max
        if rule.max_quantile is not None and count:
            leaf.limits["max"] = None
            wanted.append(
                (leaf, "max", at_rank(leaf.value.number, leaf.asked, rank_high(rule.max_quantile, count), count))
            )
    if wanted:
        (row,) = answer(facts.connection, f"select {', '.join(sql for _, _, sql in wanted)} from {FACTS}")
        for (leaf, side, _), limit in zip(wanted, row, strict=True):
            within = max(-sys.float_info.max, min(float(limit), sys.float_info.max))  # JSON has no infinity
            if math.isinf(limit) and (limit < 0) == (side == "min"):  # no value lies beyond
                del leaf.limits[side]
            else:
                leaf.limits[side] = within


# ---- SQL -------------------------------------------------------------------------------------------------------------


def _falls(word: str, leaf: _Leaf) -> list[Fall]:
    out = []
    if leaf.rule.nulls == "drop":
        out.append(Fall(reason=f"{word}_missing", sql=f"({leaf.asked} and {leaf.absent})"))
    for suffix, passes in _tests(leaf):
        out.append(Fall(reason=f"{word}_{suffix}", sql=f"({leaf.asked} and not coalesce({passes}, true))"))
    return out


def _tests(leaf: _Leaf) -> list[tuple[str, str]]:
    """Return what the rule asks of a value, each with the word for those that fail it; null where there is no value."""
    if leaf.rule.one_of is not None:
        return [("other", _among(leaf))]
    tests = []
    if leaf.limits.get("min") is not None:
        tests.append(("low", f"{leaf.value.number} >= {double(leaf.limits['min'])}"))
    if leaf.limits.get("max") is not None:
        tests.append(("high", f"{leaf.value.number} <= {double(leaf.limits['max'])}"))
    if not leaf.rule.limited:
        tests.append(("unmet", leaf.value.sql))
    return tests


def _among(leaf: _Leaf) -> str:
    """Return SQL of whether a value is one of those allowed; as in Python, true is 1, and text is no number."""
    assert leaf.rule.one_of is not None
    sql, kind = leaf.value.sql, leaf.value.kind
    if kind == "text":
        allowed = [literal(value) for value in leaf.rule.one_of if isinstance(value, str)]
    else:
        allowed = [str(int(value)) for value in leaf.rule.one_of if not isinstance(value, str)]
        sql = f"{sql}::int" if kind == "bool" else sql
    if not allowed or kind in ("other", None):
        return f"case when {leaf.value.sql} is not null then false end"
    return f"{sql} in ({', '.join(allowed)})"


def _holds(node: _Node) -> str:
    """Return SQL of whether a rule holds, never null."""
    if isinstance(node, _Leaf):
        tests = " and ".join(f"({passes})" for _, passes in _tests(node)) or "true"
        return f"(case when {node.absent} then {str(node.rule.nulls == 'keep').lower()} else {tests} end)"
    groups = [" and ".join(_holds(each) for each in group) for group in node.groups]
    return f"({(' or ' if node.either else ' and ').join(f'({group})' for group in groups)})"


def _told(node: _Node, *, inner: bool = False) -> str:
    """Say in one line what a rule asks, with its limits as numbers."""
    if isinstance(node, _Group):
        groups = [" and ".join(_told(each, inner=True) for each in group) for group in node.groups]
        several = [f"({text})" if len(group) > 1 else text for text, group in zip(groups, node.groups, strict=True)]
        text = (" or " if node.either else " and ").join(several)
        return f"({text})" if inner and len(groups) > 1 else text
    rule, limits = node.rule, node.limits
    what = node.name if rule.expression is None else f"({rule.expression})"
    if rule.one_of is not None:
        return f"{what} in [{', '.join(limits['one_of'])}]"
    signs = {"min": "≥", "max": "≤"}
    texts = [f"{what} {sign} {limits[side]:.4g}" for side, sign in signs.items() if limits.get(side) is not None]
    return " and ".join(texts) or (what if not rule.limited else f"{what} of any value")
