"""Caps, balance and samples: which clips stay of those that all else leaves. Each is a table of what falls by it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from dailies.curation.errors import UsageError
from dailies.curation.select.conditions import Fall, exact
from dailies.curation.select.expressions import literal
from dailies.curation.select.facts import FACTS, Facts, Value
from dailies.curation.select.rules import Balance, Cap, ClipSample, Criteria
from dailies.curation.select.source import answer

LEFT = "left_over"
BITS = 128  # of a draw's hash


@dataclass(frozen=True, slots=True, kw_only=True)
class Drop:
    """A reason, and a table of the rows of ``facts`` (``fact``) that fall by it."""

    reason: str
    table: str


def draw(
    facts: Facts, criteria: Criteria, falls: Sequence[Fall], drops: Sequence[Drop]
) -> tuple[list[Drop], dict[str, Any]]:
    """Return who falls by caps, by balance, and by the sample, in this order, each asked of what is left by those before.

    ``falls``, ``drops``: who fell before. The second value is what each came to, by its name in ``Criteria.told``.
    """
    if not (criteria.at_most or criteria.balance or criteria.sample):
        return [], {}
    gone = " or ".join(fall.sql for fall in falls) or "false"
    before = "".join(f" and rowid not in (from {drop.table})" for drop in drops)
    answer(
        facts.connection,
        f"create temp table {LEFT} as select rowid as fact from {FACTS} where usable and not ({gone}){before}",
    )
    out: list[Drop] = []
    limits: dict[str, Any] = {}
    for column, cap in criteria.at_most.items():
        word = f"{column.replace('.', '_')}_cap"
        _drop(facts, out, word, _capped(facts, column, cap))
        limits.setdefault("at_most", {})[column] = {"count": cap.count, "keep": cap.keep}
    if criteria.balance is not None:
        sql, limits["balance"] = _balanced(facts, criteria.balance)
        _drop(facts, out, "balance", sql)
    if criteria.sample is not None:
        sql, limits["sample"] = _sampled(facts, criteria.sample)
        _drop(facts, out, "sample", sql)
    return out, limits


def _drop(facts: Facts, out: list[Drop], reason: str, sql: str) -> None:
    """Add the rows of ``sql`` as what falls for ``reason``, and take them from what is left."""
    table = f"drawn_{len(out)}"
    answer(facts.connection, f"create temp table {table} as {sql}")
    answer(facts.connection, f"delete from {LEFT} where fact in (from {table})")
    out.append(Drop(reason=reason, table=table))


def _rows(value: str) -> str:
    """Return SQL of what is left that has a value."""
    return f"from {FACTS} f join {LEFT} on f.rowid = {LEFT}.fact where {value} is not null"


def _capped(facts: Facts, column: str, cap: Cap) -> str:
    """Return SQL of the clips above a cap. Clips without a value are of no group."""
    value = _groups(facts, column, "at_most")
    order = ", ".join(name for name in ("source_id", "start", "clip_id") if name in facts.columns)
    if cap.column is not None:
        number = facts.values[cap.column].number
        order = f"{number} {'asc' if cap.keep.startswith('-') else 'desc'} nulls last, {order}"
    elif cap.keep == "longest":
        order = f"seconds desc nulls last, {order}"
    full = f"select hash({value}) {_rows(value)} group by 1 having count(*) > {cap.count}"
    return (
        f"select fact from (select f.rowid as fact, row_number() over (partition by {value} order by {order}) as place "
        f"{_rows(value)} and hash({value}) in ({full})) where place > {cap.count}"
    )


def _balanced(facts: Facts, balance: Balance) -> tuple[str, dict[str, Any]]:
    value = _groups(facts, balance.column, "balance")
    # Of an even number of values the lower of the two in the middle.
    counts = f"select count(*) as many {_rows(value)} group by {value}"
    middle = f"select many from ({counts}) order by many offset (select (count(*) - 1) // 2 from ({counts})) limit 1"
    medians = answer(facts.connection, middle)
    limits: dict[str, Any] = {"column": balance.column}
    if not medians:
        return "select 0::bigint as fact where false", limits
    ((median,),) = medians
    limits |= {"median": median, "count": max(1, math.floor(exact(balance.most) * median))}
    order = f"{_hash('balance', balance.seed, 'clip_id')}, clip_id"
    full = f"select hash({value}) {_rows(value)} group by 1 having count(*) > {limits['count']}"
    sql = (
        f"select fact from (select f.rowid as fact, row_number() over (partition by {value} order by {order}) as place "
        f"{_rows(value)} and hash({value}) in ({full})) where place > {limits['count']}"
    )
    return sql, limits


def _sampled(facts: Facts, sample: ClipSample) -> tuple[str, dict[str, Any]]:
    ((count,),) = answer(facts.connection, f"select count(*) from {LEFT}")
    limits: dict[str, Any] = {"of": count}
    drawn = f"select fact, {_hash('sample', sample.seed, 'clip_id')} as h, clip_id from {FACTS} f join {LEFT} on f.rowid = fact"
    if sample.clips is not None:
        limits = {"clips": sample.clips} | limits
        return f"select fact from ({drawn}) order by h, clip_id offset {sample.clips}", limits
    assert sample.share is not None
    limits = {"share": sample.share} | limits
    above = int(exact(sample.share) * 2**BITS)
    if above >= 2**BITS:
        return "select 0::bigint as fact where false", limits
    return f"select fact from ({drawn}) where h >= '{above:0{BITS // 4}x}'", limits


def _hash(what: str, seed: int, column: str) -> str:
    """Return SQL of a clip's place in a draw: the MD5 of ``WHAT:SEED:CLIP_ID`` in hexadecimal, the same everywhere."""
    return f"md5({literal(f'{what}:{seed}:')} || {column})"


def _groups(facts: Facts, column: str, who: str) -> str:
    """Return the column of ``facts`` with a group's name. Raises ``UsageError`` for values that make no groups."""
    value: Value = facts.values[column]
    if value.kind == "other" or value.type in ("FLOAT", "DOUBLE"):
        raise UsageError(
            f"{who}: column {column!r} is {value.type.lower()}; it needs one of words, whole numbers, or true and false"
        )
    return value.sql
