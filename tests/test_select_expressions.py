"""Expressions of rules against the same in Python; what has no value; and what is refused before any work."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

import pyarrow as pa
import pytest

from dailies.curation.errors import RecipeError, UsageError
from dailies.curation.select import Balance, Cap, ClipSample, Criteria, Rule, check_rules, select
from tests.test_select import clips as plain_clips
from tests.test_select_truth import Row, arrow, exact, table, value_of

EXPRESSIONS: Mapping[str, Callable[[Row], Any]] = {
    "text < 0.5 and motion > 1": lambda r: r["text"] < 0.5 and r["motion"] > 1,
    "not (text < 0.5 or label = 'a')": lambda r: not (r["text"] < 0.5 or r["label"] == "a"),
    "frames + 2 * frames - 1 >= 5": lambda r: 3 * r["frames"] - 1 >= 5,
    "1 + frames * 2 = 5": lambda r: r["frames"] == 2,
    "4 - frames - 1 = 1": lambda r: r["frames"] == 2,
    "text < 0.7 or text > 0.2 and motion > 1": lambda r: r["text"] < 0.7 or (r["text"] > 0.2 and r["motion"] > 1),
    "label not in ('a', 'b')": lambda r: r["label"] not in ("a", "b"),
    "label not like 'a%'": lambda r: r["label"] != "a",
    "frames not between 1 and 2": lambda r: r["frames"] not in (1, 2),
    "not not frames > 2": lambda r: r["frames"] > 2,
    "- -frames > 2": lambda r: r["frames"] > 2,
    "+frames > 2": lambda r: r["frames"] > 2,
    "frames * 2000000000 > 3e9": lambda r: r["frames"] > 1,
    "frames * frames * 1000000000 * 10 > 1": lambda r: r["frames"] > 0,
    "starts_with(split, 'tr')": lambda r: r["split"] == "train",
    "ends_with(split, 'in')": lambda r: r["split"] == "train",
    "contains(split, 'lid')": lambda r: r["split"] == "validation",
    "greatest(text, 0.5) = 0.5": lambda r: r["text"] <= 0.5,
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
    ("text", "falls"),
    [
        ("frames is null", ["unmet", "unmet", None]),
        ("frames is not null", [None, None, "unmet"]),
        ("coalesce(frames, 7) = 7", ["unmet", "unmet", None]),
        ("frames % frames = 0", ["missing", None, "missing"]),  # 0 by 0
        ("1 / frames > 0", ["missing", None, "missing"]),
        ("sqrt(0 - frames) >= 0", [None, "missing", "missing"]),
        ("ln(frames) > 0", ["missing", None, "missing"]),
        ("log10(frames) > 0", ["missing", None, "missing"]),
        ("frames > 0 or frames > 1", ["unmet", None, "missing"]),
        ("frames > 5 and frames is not null", ["unmet", "unmet", "unmet"]),
    ],
)
def test_what_has_no_value_is_missing_and_not_false(text: str, falls: list[str | None]) -> None:
    table = plain_clips(frames=[0, 2, None])
    reasons = select(table, {"mine": Rule(expression=text, nulls="drop")})[0]["reason"].to_pylist()
    assert reasons == [word and f"mine_{word}" for word in falls]


def test_whole_numbers_are_computed_as_floats() -> None:
    """In 32 bits the square of 100,000 is too large."""
    table = plain_clips(a=[0, 0]).set_column(10, "a", pa.array([100_000, 1], pa.int32()))
    assert select(table, {"large": Rule(expression="a * a", min=1e10)})[0]["keep"].to_pylist() == [True, False]


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
