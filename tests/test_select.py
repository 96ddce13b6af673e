"""Selection: rules and quantiles, with the reason for every clip that falls."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest
from pydantic import ValidationError

from dailies.curation.errors import UsageError
from dailies.curation.select import Rule, select


def clips(**columns: list[Any]) -> pa.Table:
    """Clips of different sources, 1 s each, with given columns."""
    count = len(next(iter(columns.values())))
    base = {
        "clip_id": [f"c{n:02d}" for n in range(count)],
        "source_id": [f"s{n:02d}" for n in range(count)],
        "content_id": [f"k{n:02d}" for n in range(count)],
        "split": ["train"] * count,
        "status": ["ok"] * count,
        "stream": [0] * count,
        "start": [0] * count,
        "end": [100] * count,
        "manifest": [None] * count,
    }
    return pa.table(base | columns)


def reasons(table: pa.Table, **rules: Rule) -> list[str | None]:
    return list(select(table, rules)[0]["reason"].to_pylist())


def test_limits_are_inclusive_and_name_the_side() -> None:
    table = clips(motion=[0.5, 1.0, 2.0, 2.5])
    assert reasons(table, motion=Rule(min=1, max=2)) == ["motion_low", None, None, "motion_high"]


def test_a_quantile_drops_its_share_and_is_resolved_to_a_number() -> None:
    table = clips(motion=[float(n) for n in range(8)])
    verdicts, limits = select(table, {"motion": Rule(min_quantile=0.25)})
    assert verdicts["keep"].to_pylist() == [False] * 2 + [True] * 6
    assert limits == {"motion": {"min": 2.0}}


def test_an_upper_quantile_keeps_its_share() -> None:
    verdicts, limits = select(clips(text=[float(n) for n in range(8)]), {"text": Rule(max_quantile=0.75)})
    assert verdicts["keep"].to_pylist() == [True] * 6 + [False] * 2
    assert limits == {"text": {"max": 5.0}}


def test_ties_with_a_quantile_are_kept() -> None:
    assert reasons(clips(motion=[0.0, 0.0, 0.0, 0.0, 1.0]), motion=Rule(min_quantile=0.5)) == [None] * 5


def test_each_axis_is_resolved_over_all_clips_whatever_the_other_axes_drop() -> None:
    table = clips(a=[0.0, 1.0, 2.0, 3.0], b=[3.0, 2.0, 1.0, 0.0])
    verdicts, limits = select(table, {"a": Rule(min_quantile=0.5), "b": Rule(min_quantile=0.5)})
    assert limits == {"a": {"min": 2.0}, "b": {"min": 2.0}}
    assert verdicts["reasons"].to_pylist() == [["a_low"], ["a_low"], ["b_low"], ["b_low"]]


def test_all_reasons_are_given_in_rule_order() -> None:
    verdicts, _ = select(clips(a=[0.0], b=[9.0]), {"b": Rule(max=1), "a": Rule(min=1)})
    assert verdicts["reason"].to_pylist() == ["b_high"]
    assert verdicts["reasons"].to_pylist() == [["b_high", "a_low"]]


def test_a_null_is_refused_unless_the_rule_says_what_it_means() -> None:
    table = clips(motion=[None, 1.0, float("nan")])
    with pytest.raises(UsageError, match=r"'motion' is null for 2 of 3 clips.*nulls: keep or nulls: drop"):
        reasons(table, motion=Rule(min=0))
    assert reasons(table, motion=Rule(min=0, nulls="drop")) == ["motion_missing", None, "motion_missing"]
    assert reasons(table, motion=Rule(min=0, nulls="keep")) == [None, None, None]


def test_short_shots_fall_first_and_are_not_asked_for_values() -> None:
    table = clips(motion=[None, 1.0], status=["too_short", "ok"])
    assert reasons(table, motion=Rule(min=0)) == ["too_short", None]


def test_copies_of_a_file_are_kept_once() -> None:
    table = clips(motion=[1.0, 1.0, 1.0], content_id=["k", "other", "k"])
    assert reasons(table, motion=Rule(min=0)) == [None, None, "duplicate"]


def test_manifest_columns_can_be_asked() -> None:
    table = clips(manifest=['{"license": "CC-BY"}', '{"license": "unknown"}', None])
    rule = Rule(one_of=("CC-BY", "CC0"), nulls="drop")
    verdicts, _ = select(table, {"manifest.license": rule})
    assert verdicts["reason"].to_pylist() == [None, "manifest_license_other", "manifest_license_missing"]


def test_a_word_is_not_compared_with_a_number() -> None:
    with pytest.raises(UsageError, match="column 'name' is text; this rule needs numbers"):
        reasons(clips(name=["a"]), name=Rule(min=1))


@pytest.mark.parametrize(
    "wrong",
    [
        {},
        {"nulls": "drop"},
        {"min": 1, "min_quantile": 0.1},
        {"max": 1, "max_quantile": 0.1},
        {"min_quantile": 1.5},
        {"one_of": ["a"], "min": 1},
        {"minimum": 1},
    ],
)
def test_a_rule_that_says_nothing_or_two_things_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Rule(**wrong)


def test_no_clips_is_no_error() -> None:
    table = clips(motion=[1.0]).slice(0, 0)
    verdicts, limits = select(table, {"motion": Rule(min_quantile=0.5)})
    assert len(verdicts) == 0
    assert limits == {"motion": {}}
