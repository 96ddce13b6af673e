"""Selection against a second one, written plainly in Python: a clip at a time, nothing vectorised, no SQL."""

from __future__ import annotations

import hashlib
import json
import math
import random
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from fractions import Fraction
from typing import Any

import pyarrow as pa
import pytest

from dailies.curation.errors import RecipeError, UsageError
from dailies.curation.select import (
    Balance,
    Cap,
    ClipRows,
    ClipSample,
    Criteria,
    Rule,
    check_rules,
    judging,
    preview,
    select,
)

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
            "source_id": Cap(count=9, keep="longest"),
            "label": Cap(count=12, keep="-motion"),
            "manifest.license": Cap(count=7, keep="frames"),
            "stream": Cap(count=20),
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


# ---- expressions -----------------------------------------------------------------------------------------------------

EXPRESSIONS: Mapping[str, Callable[[Row], Any]] = {
    "text < 0.5 and motion > 1": lambda r: r["text"] < 0.5 and r["motion"] > 1,
    "not (text < 0.5 or label = 'a')": lambda r: not (r["text"] < 0.5 or r["label"] == "a"),
    "frames + 2 * frames - 1 >= 5": lambda r: 3 * r["frames"] - 1 >= 5,
    "(frames + 2) * frames == 8": lambda r: (r["frames"] + 2) * r["frames"] == 8,
    "-frames < -2": lambda r: r["frames"] > 2,
    "frames / 4 = 0.75": lambda r: r["frames"] == 3,
    "abs(text - 0.5) between 0.1 and 0.3": lambda r: 0.1 <= abs(r["text"] - 0.5) <= 0.3,
    "label in ('a', 'it''s') or text <> text": lambda r: r["label"] == "a",
    "manifest.rating >= 2": lambda r: value_of(r, "manifest.rating") >= 2,
    "split like 'val%' and length(label) = 1": lambda r: r["split"] == "validation",
    "least(text, frames) < 0.1": lambda r: min(r["text"], r["frames"]) < 0.1,
    "sqrt(text) > 0.9": lambda r: r["text"] > 0.81,
}
READ = {"motion": "motion", "label": "label", "frames": "frames", "manifest.rating": "manifest.rating"}


@pytest.mark.parametrize("text", EXPRESSIONS)
def test_an_expression_is_what_it_says(text: str) -> None:
    rows = exact(table(5))
    verdicts, limits = select(
        arrow(rows), {"mine": Rule(expression=text, nulls="keep")}, duplicates="keep", overlaps="keep"
    )
    assert limits == {"mine": {"holds": text}}
    at = {row["clip_id"]: row["reasons"] for row in verdicts.to_pylist()}
    checked = 0
    for row in rows:
        if row["status"] == "ok" and all(value_of(row, name) is not None for name in READ if name in text):
            assert at[row["clip_id"]] == ([] if EXPRESSIONS[text](row) else ["mine_unmet"])
            checked += 1
    assert checked > 30


def test_a_value_that_is_computed_has_limits_as_a_column() -> None:
    """What has none, since something is missing or divided by zero, is missing."""
    rows = exact(table(6))
    rule = Rule(expression="text / frames", max_quantile=0.5, nulls="drop")
    verdicts, limits = select(arrow(rows), {"ratio": rule}, duplicates="keep", overlaps="keep")
    usable = [row for row in rows if row["status"] == "ok"]
    ratios = sorted(row["text"] / row["frames"] for row in usable if row["frames"])
    assert limits == {"ratio": {"expression": "text / frames", "max": ratios[math.ceil(len(ratios) / 2) - 1]}}
    found = Counter(reason for reasons in verdicts["reasons"].to_pylist() for reason in reasons)
    assert found["ratio_missing"] == sum(not row["frames"] for row in usable)
    assert found["ratio_high"] == len(ratios) // 2


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("text <", "something is missing at its end"),
        ("(text < 1", r"'\)' is missing at its end"),
        ("text < 1 motion", "'motion' is not understood here"),
        ("read_text('/etc/passwd') = 'x'", "unknown function 'read_text'"),
        ("absolute(text) < 1", r"unknown function 'absolute'.*abs"),
        ("(select 1) = 1", "not understood|is missing"),
        ("text < 1; drop table facts", "';.*not understood"),
        ("text < 1 -- all", "'--? all' is not understood"),
        ("abs(text, 1) < 1", "abs takes 1 value, not 2"),
        ("text < 1e999", "too large"),
        ("text and true", "'and' needs true or false|and needs true or false"),
    ],
)
def test_what_is_no_expression_is_refused_before_work(text: str, said: str) -> None:
    columns = {"text": pa.float64(), "motion": pa.float32()}
    with pytest.raises(UsageError, match=said):
        check_rules(Criteria(rules={"mine": Rule(expression=text)}), columns)


@pytest.mark.parametrize(
    ("criteria", "said"),
    [
        (Criteria(rules={"mine": Rule(expression="label < 1")}), "rule mine: .*< needs"),
        (Criteria(rules={"mine": Rule(expression="text + 1")}), "is a number, not true or false"),
        (Criteria(rules={"mine": Rule(expression="label = 'a'", min=1)}), "is true or false; min and max need a number"),
        (Criteria(rules={"text": Rule(expression="text > 1")}), "rule text: is a column's name"),
        (Criteria(rules={"sample": Rule(expression="text > 1")}), "rules.sample: sample stands beside rules"),
        (Criteria(rules={"either": Rule(any=({"label": Rule(min=1)},))}), "column 'label' is text; this rule needs"),
        (Criteria(at_most={"text": Cap(count=1)}), "at_most: column 'text' is double; it needs one of words"),
        (Criteria(at_most={"label": Cap(count=1, keep="longset")}), r"unknown column 'longset'.*did you mean longest"),
        (Criteria(at_most={"label": Cap(count=1, keep="-label")}), "is by a column of numbers"),
        (Criteria(balance=Balance(column="text")), "balance: column 'text' is double"),
    ],
)  # fmt: skip
def test_columns_are_held_against_what_is_asked_of_them(criteria: Criteria, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        check_rules(criteria, {"text": pa.float64(), "label": pa.string(), "seconds": pa.float64()})


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: Rule(any=({"a": Rule(min=1)},), min=1),
        lambda: Rule(any=()),
        lambda: Rule(all=({},)),
        lambda: Rule(any=({"a": Rule(min=1)},), nulls="drop"),
        lambda: Rule(expression="a >"),
        lambda: Cap(count=0),
        lambda: ClipSample(),
        lambda: ClipSample(clips=1, share=0.5),
        lambda: Balance(column="a", most=0),
    ],
)  # fmt: skip
def test_what_says_nothing_or_two_things_is_refused(wrong: Callable[[], Any]) -> None:
    with pytest.raises(RecipeError):
        wrong()


def test_a_null_within_others_is_an_error_unless_its_rule_says_what_it_means() -> None:
    clips = arrow(exact(table(3)))
    with pytest.raises(UsageError, match=r"column 'motion' is null for .* nulls: keep or nulls: drop"):
        select(clips, {"either": Rule(any=({"motion": Rule(min=1)}, {"text": Rule(max=0.5)}))})
    with pytest.raises(UsageError, match=r"rule 'mine': motion > 1 is null for"):
        select(clips, {"mine": Rule(expression="motion > 1")})


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
