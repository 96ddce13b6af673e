"""What a selection would keep, and what each of its limits would keep if it lay elsewhere; nothing is written."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dailies.curation.select.conditions import at_rank, rank_high, rank_low
from dailies.curation.select.expressions import double
from dailies.curation.select.facts import FACTS
from dailies.curation.select.judge import MASK_BITS, Judgement
from dailies.curation.select.rules import Criteria, Rule
from dailies.curation.select.source import answer

SHARES = (0.95, 0.9, 0.75, 0.5, 0.25)


@dataclass(frozen=True, slots=True, kw_only=True)
class Falling:
    """How many clips fall for a reason, and how many by it ``alone``: these it would keep if it were not asked."""

    reason: str
    clips: int
    alone: int


@dataclass(frozen=True, slots=True, kw_only=True)
class LimitPreview:
    """One side of a rule over numbers. ``limit``: where it lies, None without values; ``keeps``: the share of the clips with
    a value that it keeps; ``at``: what limit would keep 0.95, 0.9, … of them, by that share as text, where it is finite."""

    rule: str
    side: str
    limit: float | None
    keeps: float
    at: Mapping[str, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Previewed:
    """What a selection would come to: numbers of clips, seconds, and what falls for each reason."""

    clips: int
    kept: int
    kept_seconds: float
    reasons: tuple[Falling, ...]
    limits: tuple[LimitPreview, ...]


def preview(judged: Judgement, criteria: Criteria) -> Previewed:
    """Return what a selection would come to, and each of its limits beside others."""
    seconds = "sum(seconds)" if "seconds" in judged.facts.columns else "0.0"
    rows = answer(
        judged.facts.connection,
        f"select {seconds}, count(*), columns('mask_.*') "
        f"from (select *, {judged.masks()} from {judged.joined}) group by {judged.mask_names()}",
    )
    falls = [0] * len(judged.asked)
    alone = [0] * len(judged.asked)
    kept, kept_seconds = 0, 0.0
    for length, count, *masks in rows:
        bits = [n for n in range(len(judged.asked)) if masks[n // MASK_BITS] >> (n % MASK_BITS) & 1]
        for number in bits:
            falls[number] += count
        if len(bits) == 1:
            alone[bits[0]] += count
        if not bits:
            kept, kept_seconds = kept + count, kept_seconds + (length or 0.0)
    return Previewed(
        clips=sum(row[1] for row in rows),
        kept=kept,
        kept_seconds=kept_seconds,
        reasons=tuple(
            Falling(reason=each.reason, clips=falls[number], alone=alone[number])
            for number, each in enumerate(judged.asked)
            if falls[number]
        ),
        limits=tuple(
            limit for name, rule in criteria.rules.items() if rule.limited for limit in _limits(judged, name, rule)
        ),
    )


def _limits(judged: Judgement, name: str, rule: Rule) -> Sequence[LimitPreview]:
    facts = judged.facts
    value = facts.values[name if rule.expression is None else rule.expression]
    known = f"usable and {value.number} is not null"
    known += f" and not {facts.apart[name]}" if name in facts.apart else ""
    sides = [side for side in ("min", "max") if side in judged.limits[name]]
    if not sides:  # a quantile that is infinite limits nothing
        return []
    ((count,),) = answer(facts.connection, f"select count(*) from {FACTS} where {known}")
    if not count:
        return [LimitPreview(rule=name, side=side, limit=judged.limits[name][side], keeps=0.0, at={}) for side in sides]
    ranks: dict[tuple[str, float], int] = {}
    for side in sides:
        for share in SHARES:
            ranks[side, share] = rank_low(round(1 - share, 6), count) if side == "min" else rank_high(share, count)
    wanted = [at_rank(value.number, known, rank, count) for rank in ranks.values()]
    wanted += [
        f"count(*) filter (where {known} and {_passes(value.number, side, judged.limits[name])})" for side in sides
    ]
    (row,) = answer(facts.connection, f"select {', '.join(wanted)} from {FACTS}")
    limits_at = dict(zip(ranks, row, strict=False))
    return [
        LimitPreview(
            rule=name,
            side=side,
            limit=judged.limits[name][side],
            keeps=row[len(ranks) + number] / count,
            at={f"{share:g}": limits_at[side, share] for share in SHARES if math.isfinite(limits_at[side, share])},
        )
        for number, side in enumerate(sides)
    ]


def _passes(number: str, side: str, limits: Mapping[str, Any]) -> str:
    return f"{number} {'>=' if side == 'min' else '<='} {double(limits[side])}"
