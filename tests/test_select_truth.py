"""Selection against a second one, written plainly in Python: a clip at a time, nothing vectorised, no SQL."""

from __future__ import annotations

import hashlib
import json
import math
import random
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from typing import Any

import pyarrow as pa
import pytest

from dailies.curation.errors import DatasetError, UsageError
from dailies.curation.select import (
    Balance,
    Cap,
    ClipRows,
    ClipSample,
    Criteria,
    Rule,
    Unjudged,
    judging,
    preview,
    select,
)
from tests.test_select import clips as plain_clips

Row = dict[str, Any]


# ---- the plain way ---------------------------------------------------------------------------------------------------


def value_of(row: Row, column: str) -> Any:
    if column.startswith("manifest."):
        return json.loads(row["manifest"] or "{}").get(column.removeprefix("manifest."))
    value = row[column]
    return None if isinstance(value, float) and math.isnan(value) else value


def bounds(rule: Rule, values: Sequence[float]) -> tuple[float | None, float | None]:
    low, high, ordered = rule.min, rule.max, sorted(values)
    if rule.min_quantile is not None and ordered:  # so many fall, rounded down; at least one stays
        falling = math.floor(Fraction(str(rule.min_quantile)) * len(ordered))
        low = ordered[min(falling, len(ordered) - 1)]
    if rule.max_quantile is not None and ordered:  # so many stay, rounded up; at least one
        staying = max(1, math.ceil(Fraction(str(rule.max_quantile)) * len(ordered)))
        high = ordered[staying - 1]
    return low, high


def overlaps(rows: Sequence[Row]) -> set[str]:
    out: set[str] = set()
    ok = [row for row in rows if row["status"] == "ok"]
    for one in ok:
        for other in ok:
            if (one["span_id"] is None and other["span_id"] is not None
                    and (one["source_id"], one["stream"]) == (other["source_id"], other["stream"])
                    and other["start"] < one["end"] and other["end"] > one["start"]):  # fmt: skip
                out.add(one["clip_id"])
    end: dict[Any, int] = {}
    for row in sorted(ok, key=lambda row: (row["source_id"], row["stream"], row["start"], row["end"], row["clip_id"])):
        if row["span_id"] is not None:
            place = row["source_id"], row["stream"]
            if place in end and row["start"] < end[place]:
                out.add(row["clip_id"])
            else:
                end[place] = row["end"]
    return out


def copies(rows: Sequence[Row], readable: Callable[[str], bool]) -> set[str]:
    out: set[str] = set()
    groups: dict[Any, list[Row]] = {}
    for row in rows:
        if row["status"] == "ok":
            groups.setdefault((row["content_id"], row["stream"], row["start"], row["end"]), []).append(row)
    for group in groups.values():
        group.sort(key=lambda row: (row["span_id"] is None, row["manifest"] is None, row["manifest"] or "",
                                    row["source_id"], row["clip_id"]))  # fmt: skip
        stays = next((row for row in group if readable(row["uri"])), group[0])
        out |= {row["clip_id"] for row in group if row is not stays}
    return out


def holds(rule: Rule, column: str, row: Row, rows: Sequence[Row]) -> bool:
    """Whether a rule over a column holds, of a clip with or without a value."""
    value = value_of(row, column)
    if value is None:
        return rule.nulls == "keep"
    if rule.one_of is not None:
        return value in rule.one_of
    known = [float(v) for other in rows if other["status"] == "ok" and (v := value_of(other, column)) is not None]
    low, high = bounds(rule, known)
    return (low is None or float(value) >= low) and (high is None or float(value) <= high)


def plainly(rows: Sequence[Row], criteria: Criteria, readable: Callable[[str], bool]) -> dict[str, list[str]]:
    """The reasons of each clip."""
    rows = sorted(rows, key=lambda row: row["clip_id"])
    why: dict[str, list[str]] = {row["clip_id"]: [] if row["status"] == "ok" else [row["status"]] for row in rows}
    usable = [row for row in rows if row["status"] == "ok"]
    for word, fell in (("duplicate", copies(rows, readable)), ("overlapping", overlaps(rows))):
        for row in usable:
            why[row["clip_id"]] += [word] * (row["clip_id"] in fell)
    for name, rule in criteria.rules.items():
        word = name.replace(".", "_")
        known = [float(v) for row in usable if (v := value_of(row, name)) is not None] if rule.limited else []
        low, high = bounds(rule, known)
        for row in usable:
            if rule.any is not None or rule.all is not None:
                groups = [
                    all(holds(each, inner, row, rows) for inner, each in group.items()) for group in rule.nested or ()
                ]
                if not (any(groups) if rule.any is not None else all(groups)):
                    why[row["clip_id"]].append(f"{word}_unmet")
                continue
            value = value_of(row, name)
            if value is None:
                why[row["clip_id"]] += [f"{word}_missing"] * (rule.nulls == "drop")
            elif rule.one_of is not None:
                why[row["clip_id"]] += [f"{word}_other"] * (value not in rule.one_of)
            else:
                why[row["clip_id"]] += [f"{word}_low"] * (low is not None and float(value) < low)
                why[row["clip_id"]] += [f"{word}_high"] * (high is not None and float(value) > high)
    for word, fell in drawn([row for row in usable if not why[row["clip_id"]]], criteria):
        for each in fell:
            why[each].append(word)
    return why


def drawn(left: list[Row], criteria: Criteria) -> Iterator[tuple[str, set[str]]]:
    def by_value(column: str) -> dict[Any, list[Row]]:
        groups: dict[Any, list[Row]] = {}
        for row in left:
            if (value := value_of(row, column)) is not None:
                groups.setdefault(value, []).append(row)
        return groups

    def lot(what: str, seed: int) -> Callable[[Row], str]:
        return lambda row: hashlib.md5(f"{what}:{seed}:{row['clip_id']}".encode()).hexdigest()

    def first(row: Row) -> tuple[Any, ...]:
        return row["source_id"], row["start"], row["clip_id"]

    for column, cap in criteria.at_most.items():
        fell: set[str] = set()
        for group in by_value(column).values():
            key: Callable[[Row], Any] = first
            if cap.keep == "longest":
                key = lambda row: (-row["seconds"], first(row))  # noqa: E731
            elif cap.column is not None:
                sign, name = (1 if cap.keep.startswith("-") else -1), cap.column
                key = lambda row, sign=sign, name=name: (  # type: ignore[misc]  # noqa: E731
                    (value := value_of(row, name)) is None, sign * (value or 0), first(row)
                )  # fmt: skip
            fell |= {row["clip_id"] for row in sorted(group, key=key)[cap.count :]}
        yield f"{column.replace('.', '_')}_cap", fell
        left = [row for row in left if row["clip_id"] not in fell]
    if criteria.balance is not None:
        groups = by_value(criteria.balance.column)
        counts = sorted(map(len, groups.values()))
        fell = set()
        if counts:
            most = max(1, math.floor(Fraction(str(criteria.balance.most)) * counts[(len(counts) - 1) // 2]))
            for group in groups.values():
                fell |= {row["clip_id"] for row in sorted(group, key=lot("balance", criteria.balance.seed))[most:]}
        yield "balance", fell
        left = [row for row in left if row["clip_id"] not in fell]
    if (sample := criteria.sample) is not None:
        ordered = sorted(left, key=lot("sample", sample.seed))
        if sample.clips is not None:
            yield "sample", {row["clip_id"] for row in ordered[sample.clips :]}
        else:
            chance = Fraction(str(sample.share)) * 16**32
            yield "sample", {row["clip_id"] for row in left if int(lot("sample", sample.seed)(row), 16) >= int(chance)}


# ---- random tables ---------------------------------------------------------------------------------------------------


def table(seed: int, count: int = 120) -> list[Row]:
    draw = random.Random(seed)
    rows = []
    for number in range(count):
        source = draw.randrange(8)
        start = draw.randrange(6) * 10
        rows.append(
            {
                "clip_id": f"{draw.getrandbits(96):024x}",
                "source_id": f"s{source}",
                "content_id": f"k{source // 2}",  # pairs of sources are copies of each other
                "uri": f"/films/{source}.mp4",
                "split": draw.choice(["train", "validation"]),
                "status": draw.choice(["ok"] * 9 + ["too_short", "failed"]),
                "stream": draw.randrange(2),
                "start": start + draw.randrange(3),
                "end": start + draw.choice([5, 9, 10, 25]),
                "seconds": draw.choice([2.0, 3.0, 4.5]),
                "span_id": draw.choice([None, f"span{number}"]),
                "manifest": draw.choice([None, json.dumps({
                    "rating": draw.choice([1, 2, 3.5, None]), "license": draw.choice(["cc0", "cc-by", "other"]),
                    "hd": draw.choice([True, False]), "mixed": draw.choice([1, "two", True])})]),
                "motion": draw.choice([None, math.nan, *(draw.randrange(20) / 10 for _ in range(8))]),
                "text": draw.random(),
                "frames": draw.choice([None, *range(5)]),
                "label": draw.choice([None, "a", "a", "a", "b", "c", "d"]),
            }
        )  # fmt: skip
    return rows


def arrow(rows: Sequence[Row]) -> pa.Table:
    kinds = {"motion": pa.float32(), "span_id": pa.string(), "frames": pa.int32(), "manifest": pa.string()}
    return pa.table({name: pa.array([row[name] for row in rows], kinds.get(name)) for name in rows[0]})


def exact(rows: list[Row]) -> list[Row]:
    """The rows as a table holds them: motion is stored in 32 bits."""
    for row, motion in zip(rows, arrow(rows)["motion"].to_pylist(), strict=True):
        row["motion"] = motion
    return rows


CRITERIA = {
    "limits": Criteria(rules={"motion": Rule(min=0.5, max=1.5, nulls="drop"), "frames": Rule(max=2, nulls="keep")}),
    "quantiles": Criteria(
        rules={"motion": Rule(min_quantile=0.29, nulls="drop"), "text": Rule(min_quantile=0.07, max_quantile=0.57)}
    ),
    "words": Criteria(
        rules={
            "manifest.license": Rule(one_of=("cc0", "cc-by"), nulls="drop"),
            "manifest.rating": Rule(min=2, nulls="keep"),
            "manifest.hd": Rule(one_of=(True,), nulls="keep"),
            "frames": Rule(one_of=(1, 2, True), nulls="drop"),
        }
    ),
    "nested": Criteria(
        rules={
            "either": Rule(any=({"text": Rule(max=0.2)}, {"text": Rule(max=0.6), "motion": Rule(min=1, nulls="keep")})),
            "each": Rule(
                all=({"motion": Rule(max_quantile=0.8, nulls="keep")}, {"label": Rule(one_of=("a", "b"), nulls="drop")})
            ),
        }
    ),
    "caps": Criteria(
        rules={"text": Rule(max=0.8)},
        at_most={
            "label": Cap(count=9, keep="-motion"),
            "source_id": Cap(count=3, keep="longest"),
            "manifest.license": Cap(count=4, keep="frames"),
            "stream": Cap(count=4),
        },
    ),
    "balance": Criteria(balance=Balance(column="label", most=1.1, seed=3), sample=ClipSample(clips=20, seed=1)),
    "sample": Criteria(balance=Balance(column="frames", most=0.5), sample=ClipSample(share=0.4, seed=7)),
}  # fmt: skip


@pytest.mark.parametrize("asked", CRITERIA)
def test_sql_says_what_the_plain_way_says(asked: str) -> None:
    criteria = CRITERIA[asked]

    def readable(uri: str) -> bool:
        return uri[-5] in "1347"

    seen: Counter[str] = Counter()
    for seed in range(4):
        rows = exact(table(seed))
        wanted = plainly(rows, criteria, readable)
        with judging(ClipRows(rows=arrow(rows)), criteria, readable=readable) as judged:
            verdicts = pa.concat_tables(judged.verdicts()).to_pylist()
            counts = dict(judged.reasons)
        assert [row["clip_id"] for row in verdicts] == sorted(wanted)
        assert {row["clip_id"]: row["reasons"] for row in verdicts} == wanted
        assert all(row["keep"] == (not row["reasons"]) for row in verdicts)
        assert counts == Counter(reasons[0] for reasons in wanted.values() if reasons)
        seen.update(reason for reasons in wanted.values() for reason in reasons)
    assert seen["duplicate"]
    assert seen["overlapping"]
    assert len(seen) > 4, "the random tables must have something to drop"
    assert all(seen[f"{column.replace('.', '_')}_cap"] for column in criteria.at_most)


def test_over_sixty_reasons_are_told_apart() -> None:
    names = [f"x{number}" for number in range(70)]
    rows = exact(table(1, 8))
    clips = arrow(rows)
    for number, name in enumerate(names):
        clips = clips.append_column(name, pa.array([float(number == each) for each in (0, 5, 61, 62, 63, 69, 69, 1)]))
    rules = {name: Rule(max=0.5) for name in names}
    verdicts, _ = select(clips, rules, duplicates="keep", overlaps="keep")
    at = {row["clip_id"]: row["reasons"] for row in verdicts.to_pylist()}
    for row, number in zip(rows, (0, 5, 61, 62, 63, 69, 69, 1), strict=True):
        assert at[row["clip_id"]] == ([f"x{number}_high"] if row["status"] == "ok" else [row["status"]])


def test_what_a_rule_of_others_asks_is_told_in_words() -> None:
    groups = ({"a": Rule(min=1, max=2)}, {"b": Rule(one_of=("y", "x")), "c": Rule(expression="a > 0")})
    table = plain_clips(a=[1.0, 3.0], b=["x", "z"])
    _, limits = select(table, {"either": Rule(any=groups), "each": Rule(all=groups)})
    first, second = "a ≥ 1 and a ≤ 2", "(b in [x, y] and (a > 0))"
    assert limits == {"either": {"holds": f"{first} or {second}"}, "each": {"holds": f"{first} and {second}"}}


def test_true_is_one_and_no_other_number() -> None:
    table = plain_clips(hd=[True, False])
    for allowed, falls in (((1,), [None, "hd_other"]), ((0,), ["hd_other", None]), ((2,), ["hd_other"] * 2)):
        assert select(table, {"hd": Rule(one_of=allowed)})[0]["reason"].to_pylist() == falls


@pytest.mark.parametrize("nulls", ["keep", "drop"])
def test_a_word_where_numbers_are_needed_is_refused_whatever_is_missing(nulls: Any) -> None:
    table = plain_clips(manifest=['{"x": "4"}', '{"x": "many"}', None])
    with pytest.raises(UsageError, match=r"'manifest\.x' is text; this rule needs numbers"):
        select(table, {"manifest.x": Rule(min=1, nulls=nulls)})


def test_whole_numbers_beside_others_stay_what_they_are() -> None:
    """Excludes a column of whole numbers, in which 3.5 is 4."""
    table = plain_clips(manifest=['{"x": 3.5}', '{"x": 4}', '{"x": null}'])
    reasons = select(table, {"manifest.x": Rule(min=3.6, nulls="keep")})[0]["reason"].to_pylist()
    assert reasons == ["manifest_x_low", None, None]


@pytest.mark.parametrize("name", ["a~b", "a/b", "a~1b", "~0/1", 'a"b', "a'b", "a, b"])
def test_a_manifests_column_may_have_any_name(name: str) -> None:
    table = plain_clips(manifest=[json.dumps({name: 1}), json.dumps({name: 3, "a": 1, "b": 1})])
    assert select(table, {f"manifest.{name}": Rule(min=2)})[0]["keep"].to_pylist() == [False, True]


def test_a_manifests_column_of_several_types_is_text() -> None:
    rows = exact(table(2))
    verdicts, _ = select(
        arrow(rows), {"manifest.mixed": Rule(one_of=("1", "True"), nulls="drop")}, duplicates="keep", overlaps="keep"
    )
    at = {row["clip_id"]: row["reasons"] for row in verdicts.to_pylist()}
    for row in rows:
        if row["status"] == "ok":
            value = value_of(row, "manifest.mixed")
            word = "missing" if value is None else "other" if value == "two" else None
            assert at[row["clip_id"]] == ([f"manifest_mixed_{word}"] if word else [])


# ---- several tables --------------------------------------------------------------------------------------------------


def test_the_split_of_groups_holds_and_that_of_clips_where_there_is_none() -> None:
    """In verdicts, and where a rule asks for it."""
    table = plain_clips(x=[0] * 4)  # cut into train
    groups = pa.table({"clip_id": ["c02", "c01", "c00"], "of_group": ["test", "validation", None]})
    scores = [ClipRows(rows=groups, shown={"split": "of_group"})]
    criteria = Criteria(rules={"split": Rule(one_of=("train", "test"))})
    with judging(ClipRows(rows=table), criteria, scores=scores) as judged:
        verdicts = pa.concat_tables(judged.verdicts())
    assert verdicts["split"].to_pylist() == ["train", "validation", "test", "train"]
    assert verdicts["reason"].to_pylist() == [None, "split_other", None, None]


def test_a_table_that_has_a_clip_twice_is_refused() -> None:
    twice = ClipRows(rows=pa.table({"clip_id": ["c01", "c01"], "score": [1.0, 2.0]}))
    criteria = Criteria(rules={"score": Rule(min=1, nulls="keep")})
    with (
        pytest.raises(DatasetError, match="2 are 3 rows with their scores"),
        judging(ClipRows(rows=plain_clips(x=[0, 0])), criteria, scores=[twice]),
    ):
        pass


def test_what_was_kept_is_counted_and_the_commonest_reason_comes_first() -> None:
    table = plain_clips(x=[0, 9, 9, 5, 5, 5], y=[9, 9, 0, 0, 0, 0], seconds=[1.0, 2.0, 4.0, 8.0, 16.0, None])
    criteria = Criteria(rules={"x": Rule(min=1), "y": Rule(min=1)})
    with judging(ClipRows(rows=table), criteria) as judged:
        list(judged.verdicts())
        seen = preview(judged, criteria)
    assert list(judged.reasons.items()) == [("y_low", 4), ("x_low", 1)]
    assert (judged.clips, judged.kept, judged.kept_seconds) == (6, 1, 2.0)
    assert (seen.clips, seen.kept, seen.kept_seconds) == (6, 1, 2.0)


def test_a_value_of_which_half_the_median_is_less_than_a_clip_keeps_one() -> None:
    table = plain_clips(label=["a", "b", "b", "c", None])
    balance = Balance(column="label", most=0.5)
    verdicts, limits = select(table, {}, balance=balance, sample=ClipSample(clips=9))
    assert limits == {
        "balance": {"column": "label", "median": 1, "count": 1},
        "sample": {"clips": 9, "of": 4},  # of what balance leaves
    }
    kept = verdicts["keep"].to_pylist()
    assert (kept[0], sorted(kept[1:3]), kept[3:]) == (True, [False, True], [True, True])


def test_a_rule_is_not_asked_where_one_of_its_columns_says_nothing() -> None:
    table = plain_clips(a=[0.0, 0.0, 0.0, 5.0], b=[0.0] * 4)
    unjudged = {
        "a": Unjudged(why="a", sources=pa.array(["s00"])),
        "b": Unjudged(why="b", sources=pa.array(["s01"])),
    }
    criteria = Criteria(rules={"both": Rule(expression="a + b", min=1)})
    with judging(ClipRows(rows=table), criteria, unjudged=unjudged) as judged:
        verdicts = pa.concat_tables(judged.verdicts())
        (limit,) = preview(judged, criteria).limits
    assert verdicts["reason"].to_pylist() == [None, None, "both_low", None]
    assert judged.limits["both"]["not_applied"].startswith("2 clips")
    assert limit.keeps == 0.5, "of the two that are asked"


# ---- samples and previews --------------------------------------------------------------------------------------------


def test_a_sample_stays_where_clips_come() -> None:
    """A share decides each clip by itself; of a number, only as many change as come below the last one drawn."""
    rows = exact(table(8, 200))
    for sample in (ClipSample(share=0.3), ClipSample(clips=30)):
        few, many = (
            {
                row["clip_id"]
                for row in select(arrow(some), {}, duplicates="keep", overlaps="keep", sample=sample)[0].to_pylist()
                if row["keep"]
            }
            for some in (rows[:160], rows)
        )
        new = {row["clip_id"] for row in rows[160:]}
        assert few - many == set() if sample.share else len(few - many) == len(many & new)
        assert many - few <= new
    other = select(arrow(rows), {}, duplicates="keep", overlaps="keep", sample=ClipSample(clips=30, seed=1))[0]
    assert {row["clip_id"] for row in other.to_pylist() if row["keep"]} != many


def test_a_preview_says_what_falls_and_what_limits_would_keep() -> None:
    rows = [dict(row, status="ok", motion=float(n), text=float(n % 2)) for n, row in enumerate(table(9, 100))]
    criteria = Criteria(
        duplicates="keep",
        overlaps="keep",
        rules={"motion": Rule(min_quantile=0.25), "text": Rule(max=0.5)},
        sample=ClipSample(clips=10),
    )
    with judging(ClipRows(rows=arrow(rows)), criteria) as judged:
        seen = preview(judged, criteria)
    assert (seen.clips, seen.kept) == (100, 10)
    falls = {each.reason: (each.clips, each.alone) for each in seen.reasons}
    assert falls == {"motion_low": (25, 13), "text_high": (50, 38), "sample": (27, 27)}
    motion, text = seen.limits
    assert (motion.rule, motion.side, motion.limit, motion.keeps) == ("motion", "min", 25.0, 0.75)
    assert motion.at == {"0.95": 5.0, "0.9": 10.0, "0.75": 25.0, "0.5": 50.0, "0.25": 75.0}
    assert (text.side, text.limit, text.keeps) == ("max", 0.5, 0.5)
    assert text.at == {"0.95": 1.0, "0.9": 1.0, "0.75": 1.0, "0.5": 0.0, "0.25": 0.0}
