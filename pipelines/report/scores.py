"""Columns of numbers: how clips spread over them, and what moving a limit would keep. Counted over every clip."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from dailies.curation.config import joined
from dailies.curation.plain_text import shortened
from dailies.pipelines.report.data import Bars, ClipNote, Histogram, Score, Side, Threshold
from dailies.pipelines.report.judged import JudgedClips, numbers

BINS = 40
STEPS = 160  # places where a limit can be moved to
NEAREST = 6  # clips shown on each side of a limit
WORDS, LONGEST = 16, 200  # bars of a chart at most, and characters of a word
TAIL = 0.005  # share of the clips at either end that a histogram may put into its last bin
FARTHEST = 1e300  # where a chart ends: the distance of two such numbers is one too
SIDES: Mapping[Side, str] = {"min": "low", "max": "high"}


def is_number(kind: pa.DataType) -> bool:
    """Return whether a column of this type has a histogram."""
    return bool(pa.types.is_floating(kind) or pa.types.is_integer(kind))


def score(
    clips: JudgedClips,
    column: str,
    doc: str,
    unit: str,
    values: pa.ChunkedArray | None = None,
    marks: Sequence[tuple[Side, float]] = (),
) -> Score | None:
    """Return how the usable clips spread over a column, with the limits of the rule over it; None where no clip has a value.

    ``values``: of what is no column by itself; ``marks``: limits of rules within another one, which drop no clip alone.
    """
    values = clips.column(column) if values is None else values
    if values is None or not is_number(values.type):
        return None
    value = numbers(values)
    usable = clips.usable
    known = usable & ~np.isnan(value)
    finite = value[known & np.isfinite(value)]
    if not len(finite):
        return None
    limit = clips.limits[column] if column in clips.limited else {}
    limits = {side: float(limit[side]) for side in SIDES if is_finite(limit.get(side))}
    low, high = spread_of(finite, [*limits.values(), *(value for _, value in marks)])
    word = column.replace(".", "_")
    by_rule = np.zeros(len(value), dtype=bool)
    for side in SIDES:
        by_rule |= clips.fell(f"{word}_{SIDES[side]}")
    return Score(
        column=column,
        doc=doc,
        unit=unit,
        known=int(known.sum()),
        missing=int((usable & ~known).sum()),
        quantiles=quantiles(value[known]),
        histogram=histogram(value, known, clips.keep, by_rule, low, high),
        thresholds=tuple(
            threshold(clips, column, side, limits[side], value, known, low, high) for side in SIDES if side in limits
        ),
        marks=tuple(marks),
    )


def parts(clips: JudgedClips, rule: str, documented: Callable[[str], tuple[str, str]]) -> Iterator[Score]:
    """Yield how clips spread over each column, or expression, that the rules within an ``all`` or ``any`` are over.

    Their limits, but for quantiles, are marked. ``documented``: what is said of a column, and its unit. What has a rule of
    its own as well is left out.
    """
    marks: dict[tuple[str, str | None], list[tuple[Side, float]]] = {}
    for column, inner in _within((clips.properties.get("rules") or {}).get(rule)):
        of_it = marks.setdefault((column, inner.get("expression")), [])
        of_it += [(side, float(inner[side])) for side in SIDES if is_finite(inner.get(side))]
    holds = shortened(str(clips.limits[rule]["holds"]), LONGEST)
    for (column, expression), limits in marks.items():
        values = clips.column(column) if expression is None else clips.computed(expression)
        if values is not None and column not in clips.limited:
            doc, unit = documented(column) if expression is None else (expression, "")
            yield from filter(None, [score(clips, column, f"{doc}; a part of {rule}: {holds}", unit, values, limits)])


def _within(rule: Any) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield the rules that stand in ``all`` and ``any``, however deep, by name."""
    for group in [*(rule.get("all") or ()), *(rule.get("any") or ())] if isinstance(rule, Mapping) else ():
        for name, inner in group.items():
            if {"all", "any"} & inner.keys():
                yield from _within(inner)
            else:
                yield name, inner


def quantiles(values: NDArray[np.float64]) -> tuple[float, float, float, float, float]:
    """Return the least, 5 %, median, 95 % and greatest of numbers, infinite ones among them; see ``Score``."""
    ordered = np.sort(values)
    place = np.array([0, 0.05, 0.5, 0.95, 1]) * (len(ordered) - 1)
    lower, upper = ordered[np.floor(place).astype(int)], ordered[np.ceil(place).astype(int)]
    part = place - np.floor(place)
    with np.errstate(invalid="ignore"):  # infinity times nothing, and infinities of both signs, are no number
        between = lower * (1 - part) + upper * part
    least, low, median, high, most = np.where((part == 0) | np.isnan(between), lower, between).tolist()
    return least, low, median, high, most


def is_finite(value: Any) -> bool:
    """Return whether a limit is a number that a chart can have: an integer of a rule may be larger than any float."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= sys.float_info.max


def spread_of(values: NDArray[np.float64], limits: Sequence[float]) -> tuple[float, float]:
    """Return the range of a histogram: all but the far ends of long tails, and the limits that are not far from it.

    Of a limit that lies farther away than the clips are wide, the chart would show one bar: it ends before, see ``charts``.
    """
    values = np.clip(values, -FARTHEST, FARTHEST)
    low, near_low, near_high, high = (float(q) for q in np.quantile(values, [0, TAIL, 1 - TAIL, 1]))
    width = near_high - near_low
    if width > 0:
        low, high = max(low, near_low - width / 4), min(high, near_high + width / 4)
    width = high - low
    near = [limit for limit in limits if abs(limit) <= FARTHEST]
    if width > 0:
        near = [limit for limit in near if low - width <= limit <= high + width]
    low, high = min([low, *near]), max([high, *near])
    narrow = max(1e-290, 1e-12 * max(abs(low), abs(high)))  # floats so close have no places between them
    if high - low < narrow:
        low, high = low - max(0.5, narrow), high + max(0.5, narrow)
    return low, high


def histogram(
    value: NDArray[np.float64],
    known: NDArray[np.bool_],
    keep: NDArray[np.bool_],
    by_rule: NDArray[np.bool_],
    low: float,
    high: float,
    bins: int = BINS,
) -> Histogram:
    """Count clips with a known value into bins from ``low`` to ``high``; what lies beyond goes into the last one."""
    edges = np.linspace(low, high, bins + 1)
    at = np.clip(np.searchsorted(edges, value, side="right") - 1, 0, bins - 1)

    def count(which: NDArray[np.bool_]) -> tuple[int, ...]:
        return tuple(int(n) for n in np.bincount(at[known & which], minlength=bins))

    return Histogram(
        edges=tuple(float(edge) for edge in edges),
        kept=count(keep),
        by_rule=count(~keep & by_rule),
        by_others=count(~keep & ~by_rule),
        below=int((known & (value < low)).sum()),
        above=int((known & (value > high)).sum()),
    )


def threshold(
    clips: JudgedClips,
    column: str,
    side: Side,
    limit: float,
    value: NDArray[np.float64],
    known: NDArray[np.bool_],
    low: float,
    high: float,
) -> Threshold:
    """Return what a limit would keep at each of many places.

    Only clips that are kept, or that fell by this limit and nothing else, can change. A kept one beyond the limit was not
    asked, and stays wherever the limit is.
    """
    reason = f"{column.replace('.', '_')}_{SIDES[side]}"
    keep, alone = clips.keep & clips.usable, clips.only(reason) & known
    beyond = value < limit if side == "min" else value > limit
    asked = known & clips.asked(column)
    always = keep & (~asked | beyond)
    moving = (keep & ~always) | alone
    seconds = clips.seconds
    order = np.argsort(value[moving], kind="stable")
    ordered, lengths = value[moving][order], np.concatenate([[0.0], np.cumsum(seconds[moving][order])])
    digits = int(np.ceil(-np.log10((high - low) / STEPS))) + 1  # people read them, and set what they read
    positions = np.unique(np.append(np.round(np.linspace(low, high, STEPS + 1), digits), limit))
    quantile, setting = _setting(clips, column, side)
    if quantile:
        positions, shares = _as_shares(np.sort(value[asked]), positions, side, limit)
    if side == "min":
        first = np.searchsorted(ordered, positions, side="left")
        counts, sums = len(ordered) - first, lengths[-1] - lengths[first]
    else:
        first = np.searchsorted(ordered, positions, side="right")
        counts, sums = first, lengths[first]
    counts, sums = counts + int(always.sum()), sums + float(seconds[always].sum())
    inside, outside = _nearest(clips, column, side, limit, value, known)
    return Threshold(
        column=column,
        side=side,
        reason=reason,
        value=limit,
        positions=tuple(float(place) for place in positions),
        clips=tuple(int(count) for count in counts),
        seconds=tuple(round(float(total), 1) for total in sums),
        at=int(np.searchsorted(positions, limit)),
        setting=setting,
        quantile=quantile,
        shares=shares if quantile else (),
        inside=inside,
        outside=outside,
    )


def _as_shares(
    values: NDArray[np.float64], positions: NDArray[np.float64], side: Side, limit: float
) -> tuple[NDArray[np.float64], tuple[float, ...]]:
    """Return the positions that a quantile reaches, and the share of each: with it the rule comes to the same clips.

    ``values``: in order, of all clips that the rule was asked of, as ``rank_low`` and ``rank_high`` count them. A share lies
    between two ranks, in as few digits as tell them apart: at a rank itself, what is rounded keeps one clip more or less.
    """
    count = len(values)
    under = np.searchsorted(values, positions, side="left" if side == "min" else "right")
    reached = ((under < count) if side == "min" else (under > 0)) | (positions == limit)
    positions, under = positions[reached], under[reached]
    ranks = np.clip(under if side == "min" else under - 1, 0, max(0, count - 1))
    digits = len(str(count))
    return positions, tuple(round((int(rank) + 0.5) / max(1, count), digits) for rank in ranks)


def _setting(clips: JudgedClips, column: str, side: Side) -> tuple[bool, str]:
    """Return whether a rule has this limit as a quantile, and what ``--set`` calls it."""
    rule = (clips.properties.get("rules") or {}).get(column)
    quantile = isinstance(rule, dict) and rule.get(f"{side}_quantile") is not None
    return quantile, joined([str(clips.selection), "rules", *column.split("."), f"{side}{'_quantile' * quantile}"])


def _nearest(
    clips: JudgedClips, column: str, side: Side, limit: float, value: NDArray[np.float64], known: NDArray[np.bool_]
) -> tuple[tuple[ClipNote, ...], tuple[ClipNote, ...]]:
    """Return the clips nearest to a limit that it lets pass, and those that it does not; in the order of their values."""
    passes = value >= limit if side == "min" else value <= limit
    sides = []
    ids = clips.rows["clip_id"]
    for among in (known & passes, known & ~passes):
        rows = np.flatnonzero(among)
        with np.errstate(over="ignore"):  # what is too far to be a number is far
            chosen = rows[np.argsort(np.abs(value[rows] - limit), kind="stable")[:NEAREST]]
        chosen = chosen[np.argsort(value[chosen], kind="stable")]
        sides.append(
            tuple(ClipNote(clip_id=ids[int(row)].as_py(), note=f"{column} {value[row]:.4g}") for row in chosen)
        )
    return sides[0], sides[1]


# ---- charts of columns that have no rule ----------------------------------------------------------------------------


def plain(
    clips: JudgedClips,
    column: str,
    doc: str,
    unit: str,
    values: NDArray[np.float64],
    among: NDArray[np.float64] | None = None,
) -> Score | None:
    """Return how the usable clips spread over numbers that are no column, such as the length of a caption.

    ``among``: numbers that the chart's axis goes over, by default its own, so that several charts can share one.
    """
    known = clips.usable & np.isfinite(values)
    if not known.any():
        return None
    low, high = spread_of(values[known] if among is None else among, [])
    bins = BINS
    if bool((values[known] == np.floor(values[known])).all()):  # a bin for each number, or for so many of them
        low, high = np.floor(low) - 0.5, np.ceil(high) + 0.5
        bins = int(min(BINS, high - low))
    return Score(
        column=column,
        doc=doc,
        unit=unit,
        known=int(known.sum()),
        missing=int((clips.usable & ~known).sum()),
        quantiles=quantiles(values[known]),
        histogram=histogram(values, known, clips.keep, np.zeros(len(values), bool), float(low), float(high), bins),
    )


def bars(clips: JudgedClips, column: str, doc: str) -> Bars | None:
    """Return the usable clips by a column of words; None where there are none, or as good as one for each clip."""
    usable = clips.usable
    texts = clips.rows[column].filter(pa.array(usable))
    if pc.count_distinct(texts).as_py() > max(WORDS, (len(texts) - texts.null_count) // 4):
        return None
    table = pa.table({"word": texts, "keep": pa.array(clips.keep[usable])}).drop_null()
    sums = table.group_by(["word", "keep"]).aggregate([([], "count_all")]).to_pylist()
    counts: dict[str, list[int]] = {}
    for row in sums:
        counts.setdefault(str(row["word"]), [0, 0])[0 if row["keep"] else 1] += row["count_all"]
    if not counts:
        return None
    order = sorted(counts, key=lambda word: (-sum(counts[word]), word))
    others = sum(sum(counts[word]) for word in order[WORDS:])
    return Bars(
        column=column,
        doc=doc,
        rows=tuple((shortened(word, LONGEST), counts[word][0], counts[word][1]) for word in order[:WORDS]),
        others=others,
    )


def words_in(texts: pa.ChunkedArray) -> NDArray[np.float64]:
    """Return how many words each text has; NaN for none."""
    trimmed = pc.utf8_trim_whitespace(texts)
    counts = pc.list_value_length(pc.utf8_split_whitespace(trimmed))
    return numbers(pc.if_else(pc.equal(trimmed, ""), pa.scalar(None, pa.int32()), counts))
