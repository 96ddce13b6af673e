"""Select: rules and quantiles over columns → verdicts with reasons. Pure: a table in, a table out; nothing is recomputed."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cache
from operator import itemgetter
from typing import Annotated, Any, Literal, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from pydantic import Field, model_validator

from dailies.curation import schema
from dailies.curation.config import StrictModel, offered, read_object
from dailies.curation.errors import UsageError

UNUSABLE = ("failed", "too_short", "too_long", "outside", "empty")
"""Statuses of clips, see ``schema.CLIP_COLUMNS``, that no rule is asked about; each is the reason itself."""

Share = Annotated[float, Field(ge=0, le=1)]


class Rule(StrictModel):
    """A rule says what one column must be.

    A missing value is neither high nor low, so it is an error unless ``nulls`` says what it means.

    Args:
        min: least value that is kept.
        max: highest value that is kept.
        min_quantile: share of the clips with a value that falls at the low end; ties are kept.
        max_quantile: share of the clips with a value that is kept from the low end; ties are kept.
        one_of: the values that are kept.
        nulls: what a missing value means.
    """

    min: float | None = None
    max: float | None = None
    min_quantile: Share | None = None
    max_quantile: Share | None = None
    one_of: tuple[str | int | bool, ...] | None = None
    nulls: Literal["keep", "drop"] | None = None

    @model_validator(mode="after")
    def _is_one_rule(self) -> Self:
        if self.min is not None and self.min_quantile is not None:
            raise ValueError(f"min={self.min:g}, min_quantile={self.min_quantile:g}: two lower limits; give one")
        if self.max is not None and self.max_quantile is not None:
            raise ValueError(f"max={self.max:g}, max_quantile={self.max_quantile:g}: two upper limits; give one")
        conditions = self.model_dump(exclude={"nulls"}, exclude_none=True)
        if not conditions:
            raise ValueError("a rule needs min, max, min_quantile, max_quantile or one_of")
        if self.one_of is not None and len(conditions) > 1:
            others = ", ".join(name for name in conditions if name != "one_of")
            raise ValueError(f"one_of stands alone; leave {others} out")
        return self


@dataclass(frozen=True, slots=True, kw_only=True)
class Unjudged:
    """Sources whose clips no rule over a column is asked about, since the column says nothing of them, and why."""

    why: str
    sources: pa.Array


def select(
    clips: pa.Table,
    rules: Mapping[str, Rule],
    *,
    unjudged: Mapping[str, Unjudged] = {},
    duplicates: Literal["drop", "keep"] = "drop",
    overlaps: Literal["drop", "keep"] = "drop",
    readable: Callable[[str], bool] = lambda uri: True,
) -> tuple[pa.Table, dict[str, dict[str, Any]]]:
    """Judge every clip.

    ``clips``: one row per clip with the columns of ``schema.CLIP_COLUMNS`` and whatever the rules name. Returns verdicts
    (``schema.SELECTIONS``, sorted by clip_id) and per column the limits that the quantiles came to. ``unjudged``: by column,
    sources whose clips its rule neither drops nor counts in its quantiles; its limits say of how many, as ``not_applied``.

    Reasons are stable words: ``failed``, ``too_short``, ``duplicate``, ``overlapping`` (shares frames with a
    manifest's span of its source: an earlier one, or any for a shot), ``motion_low``, ``text_area_high``, ``license_other``,
    ``motion_missing``. Raises ``UsageError`` when a column is null for some clips and its rule does not say what that means.
    """
    clips = clips.sort_by("clip_id")
    status = clips["status"].to_numpy(zero_copy_only=False)
    usable = np.asarray(status == "ok", dtype=bool)
    fell: list[tuple[str, NDArray[np.bool_]]] = [(word, status == word) for word in UNUSABLE]
    if duplicates == "drop":
        fell.append(("duplicate", _copies(clips, usable, readable)))
    if overlaps == "drop":
        fell.append(("overlapping", _overlapping(clips, usable)))
    resolved: dict[str, dict[str, Any]] = {}
    for column, rule in rules.items():
        resolved[column] = {}
        asked = usable
        if column in unjudged:
            apart = usable & _is_in(clips["source_id"], unjudged[column].sources)
            asked = usable & ~apart
            if apart.any():
                count = int(apart.sum())
                resolved[column]["not_applied"] = f"{count} clip{'s' * (count > 1)}: {unjudged[column].why}"
        for reason, mask in _judge(column, rule, column_values(clips, column), asked, resolved[column]):
            fell.append((reason, mask))
    return _verdicts(clips, fell), resolved


def check_manifest_columns(columns: Iterable[str], names: Sequence[str], who: str) -> None:
    """Raise ``UsageError`` for one of ``columns`` that is ``manifest.NAME`` with a NAME not among the manifests' columns."""
    for column in columns:
        name = column.removeprefix("manifest.")
        if name != column and name not in names:
            raise UsageError(
                f"{who}: unknown column {column!r}"
                f"{offered(name, names, label='the manifests have') or '; there is no manifest with further columns'}"
            )


def column_values(clips: pa.Table, column: str) -> pa.ChunkedArray:
    """Return a column by name; ``manifest.NAME`` reaches into the manifest's own columns."""
    if not column.startswith("manifest."):
        return clips[column]
    key = column.removeprefix("manifest.")
    texts = clips["manifest"].to_pylist()
    return schema.typed_column([read_object(text or "{}", "manifest of a clip", UsageError).get(key) for text in texts])


def _judge(
    column: str, rule: Rule, values: pa.ChunkedArray, usable: NDArray[np.bool_], resolved: dict[str, Any]
) -> list[tuple[str, NDArray[np.bool_]]]:
    """Return (reason, who falls by it) of one rule; fills in the limits used."""
    word = column.replace(".", "_")
    null = _nulls(values)
    missing = usable & null
    if missing.any() and rule.nulls is None:
        raise UsageError(
            f"column {column!r} is null for {int(missing.sum())} of {int(usable.sum())} clips; "
            "say what that means with nulls: keep or nulls: drop in its rule"
        )
    out = [(f"{word}_missing", missing if rule.nulls == "drop" else np.zeros_like(missing))]
    known = usable & ~null
    if rule.one_of is not None:
        allowed = set(rule.one_of)
        texts = [isinstance(value, str) for value in allowed]
        if pa.types.is_string(values.type) and not any(texts):
            raise UsageError(f"column {column!r} is text; one_of={sorted(rule.one_of)}: put the values in quotes")
        if (pa.types.is_integer(values.type) or pa.types.is_floating(values.type)) and all(texts):
            raise UsageError(f"column {column!r} is of numbers; one_of={sorted(rule.one_of)}: leave the quotes out")
        other = np.asarray([value not in allowed for value in values.to_pylist()], dtype=bool)
        resolved["one_of"] = sorted(map(str, allowed))
        return [*out, (f"{word}_other", known & other)]
    numbers = _numbers(column, values)
    low, high = limits(rule, numbers[known])
    if low is not None:
        resolved["min"] = low
        out.append((f"{word}_low", known & (numbers < low)))
    if high is not None:
        resolved["max"] = high
        out.append((f"{word}_high", known & (numbers > high)))
    return out


def limits(rule: Rule, values: NDArray[np.float64]) -> tuple[float | None, float | None]:
    """Return the rule's lower and upper limit, quantiles resolved over ``values``, of which there may be none."""
    low, high = rule.min, rule.max
    if values.size:
        ordered = np.sort(values)
        if rule.min_quantile is not None:
            low = float(ordered[min(values.size - 1, math.floor(_exact(rule.min_quantile) * values.size))])
        if rule.max_quantile is not None:
            high = float(ordered[max(0, math.ceil(_exact(rule.max_quantile) * values.size) - 1)])
    return low, high


def _exact(quantile: float) -> Fraction:
    """Return the decimal as it was written: as floats, 0.07 · 100 is over 7, and keeps one clip too many."""
    return Fraction(quantile).limit_denominator(1_000_000)


def _numbers(column: str, values: pa.ChunkedArray) -> NDArray[np.float64]:
    try:
        return np.asarray(values.cast(pa.float64()).to_numpy(zero_copy_only=False), dtype=np.float64)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        raise UsageError(needs_numbers(column, values.type)) from None


def needs_numbers(column: str, kind: pa.DataType) -> str:
    """Say why a rule with limits cannot be for a column of this type."""
    return f"column {column!r} is {'text' if pa.types.is_string(kind) else kind}; this rule needs numbers (use one_of)"


def _is_in(values: pa.ChunkedArray, among: pa.Array) -> NDArray[np.bool_]:
    return np.asarray(pc.is_in(values, value_set=among).to_numpy(zero_copy_only=False), dtype=bool)


def _nulls(values: pa.ChunkedArray) -> NDArray[np.bool_]:
    return np.asarray(values.is_null(nan_is_null=True).to_numpy(zero_copy_only=False), dtype=bool)


def _copies(clips: pa.Table, usable: NDArray[np.bool_], readable: Callable[[str], bool]) -> NDArray[np.bool_]:
    """Return usable clips whose content and span another clip has too, but for one: the first readable one.

    A manifest's span goes before a shot of the same frames, since it has columns of its own; then what a manifest says
    decides, and only of those that say the same the source id, which follows from where the source lies.
    """
    columns = [clips[name].to_pylist() for name in ("content_id", "stream", "start", "end")]
    told = clips["manifest"].to_pylist()
    by = (
        [span is None for span in _span_ids(clips)],
        [manifest is None for manifest in told],
        [manifest or "" for manifest in told],
        clips["source_id"].to_pylist(),
        range(len(clips)),
    )
    order = list(zip(*by, strict=True))
    uris = clips["uri"].to_pylist()
    alike: dict[tuple[Any, ...], list[int]] = {}
    for content, row in zip(zip(*columns, strict=True), range(len(clips)), strict=True):
        if usable[row]:
            alike.setdefault(content, []).append(row)
    copies = np.zeros(len(clips), dtype=bool)
    there = cache(readable)
    for group in alike.values():
        if len(group) > 1:
            group.sort(key=order.__getitem__)
            kept = next((row for row in group if there(uris[row])), group[0])
            copies[[row for row in group if row != kept]] = True
    return copies


def _span_ids(clips: pa.Table) -> list[str | None]:
    """Return the manifest's span that each clip is; clips made before there were such spans are shots."""
    return clips["span_id"].to_pylist() if "span_id" in clips.column_names else [None] * len(clips)


def _overlapping(clips: pa.Table, usable: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return usable clips that share frames with a manifest's usable span of the same source, which stays.

    Of spans the first stays, and those that begin before its end fall; shots fall beside any span.
    """
    names = ("source_id", "stream", "start", "end")
    rows = list(zip(*(clips[name].to_pylist() for name in names), _span_ids(clips), strict=True))
    ordered = sorted((row[:4], row[4] is None, at) for at, row in enumerate(rows) if usable[at])
    out = np.zeros(len(clips), dtype=bool)
    ends: dict[tuple[Any, ...], int] = {}
    covered: dict[tuple[Any, ...], list[list[int]]] = {}  # by all spans, as intervals apart
    for (source, stream, start, end), shot, at in ordered:
        if shot:
            continue
        if start < ends.get((source, stream), start):
            out[at] = True
        else:
            ends[source, stream] = end
        intervals = covered.setdefault((source, stream), [])
        if intervals and start <= intervals[-1][1]:
            intervals[-1][1] = max(intervals[-1][1], end)
        else:
            intervals.append([start, end])
    for (source, stream, start, end), shot, at in ordered:
        if shot:
            spans = covered.get((source, stream), [])
            before = bisect_left(spans, end, key=itemgetter(0))  # so many begin before the shot ends
            out[at] = before > 0 and spans[before - 1][1] > start
    return out


def _verdicts(clips: pa.Table, fell: list[tuple[str, NDArray[np.bool_]]]) -> pa.Table:
    reasons: list[list[str]] = [[] for _ in range(len(clips))]
    for reason, mask in fell:
        for row in np.flatnonzero(mask):
            reasons[int(row)].append(reason)
    return pa.table(
        {
            "clip_id": clips["clip_id"],
            "source_id": clips["source_id"],
            "split": clips["split"],
            "keep": [not why for why in reasons],
            "reason": [why[0] if why else None for why in reasons],
            "reasons": reasons,
        },
        schema=schema.SELECTIONS,
    )
