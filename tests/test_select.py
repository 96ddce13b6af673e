"""Selection: rules and quantiles, with the reason for every clip that falls."""

from __future__ import annotations

import json
import math
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.dataset as pads
import pyarrow.parquet as pq
import pytest

from dailies.curation.errors import Damaged, RecipeError, UsageError
from dailies.curation.select import (
    ClipRows,
    Criteria,
    Judgement,
    Rule,
    check_manifest_columns,
    judging,
    preview,
    select,
)
from dailies.curation.select.source import answer


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
        "uri": [f"/films/{n:02d}.mp4" for n in range(count)],
        "manifest": [None] * count,
    }
    return pa.table(base | columns)


def reasons(table: pa.Table, **rules: Rule) -> list[str | None]:
    return list(select(table, rules)[0]["reason"].to_pylist())


def test_limits_are_inclusive_and_name_the_side() -> None:
    table = clips(motion=[0.5, 1.0, 2.0, 2.5])
    assert reasons(table, motion=Rule(min=1, max=2)) == ["motion_low", None, None, "motion_high"]


def test_a_folder_named_like_a_column_and_its_value_says_nothing_of_clips(tmp_path: Path) -> None:
    folder = tmp_path / "status=failed" / "split=test" / "motion=9"
    folder.mkdir(parents=True)
    table = clips(motion=[0.5, 1.0])
    pq.write_table(table, folder / "part.parquet")
    lazy = pads.dataset(folder / "part.parquet", schema=table.schema, format="parquet")
    with judging(ClipRows(rows=lazy), Criteria(rules={"motion": Rule(max=0.7)})) as judged:
        verdicts = pa.concat_tables(judged.verdicts())
    assert verdicts["reason"].to_pylist() == [None, "motion_high"]
    assert verdicts["split"].to_pylist() == ["train", "train"]


def test_sources_that_could_not_be_cut_are_no_copies_of_each_other() -> None:
    nothing = [None, None]
    table = clips(
        status=["failed", "failed"], content_id=nothing, stream=nothing, start=nothing, end=nothing, uri=nothing
    )
    assert select(table, {}, readable=lambda uri: uri.startswith("/"))[0]["reason"].to_pylist() == ["failed", "failed"]


@pytest.mark.parametrize(("values", "allowed"), [([2020, 2021], ("2020",)), (["2020", "2021"], (2020,))])
def test_words_of_another_type_are_refused_and_drop_nothing(values: list[Any], allowed: tuple[Any, ...]) -> None:
    with pytest.raises(UsageError, match=r"column 'year' is .* one_of="):
        reasons(clips(year=values), year=Rule(one_of=allowed))


def test_a_quantile_drops_its_share_and_is_resolved_to_a_number() -> None:
    table = clips(motion=[float(n) for n in range(8)])
    verdicts, limits = select(table, {"motion": Rule(min_quantile=0.25)})
    assert verdicts["keep"].to_pylist() == [False] * 2 + [True] * 6
    assert limits == {"motion": {"min": 2.0}}


def test_an_upper_quantile_keeps_its_share() -> None:
    verdicts, limits = select(clips(text=[float(n) for n in range(8)]), {"text": Rule(max_quantile=0.75)})
    assert verdicts["keep"].to_pylist() == [True] * 6 + [False] * 2
    assert limits == {"text": {"max": 5.0}}


def kept(count: int, **rule: float) -> int:
    """How many of so many clips, all of different value, a rule keeps."""
    return reasons(clips(x=[float(n) for n in range(count)][::-1]), x=Rule(**rule)).count(None)


@pytest.mark.parametrize(
    ("count", "quantile", "dropped", "kept_below"),
    [
        (7, 0.25, 1, 2),
        (10, 0.25, 2, 3),
        (10, 0.24, 2, 3),
        (4, 0.5, 2, 2),
        (3, 0.1, 0, 1),
        (1, 0.5, 0, 1),
        (9, 0.99, 8, 9),
    ],
)
def test_a_part_of_a_clip_is_a_clip_kept(count: int, quantile: float, dropped: int, kept_below: int) -> None:
    """Of 7 clips a quarter is 1.75: one falls below, and two stay below. Excludes both limits rounded the other way or to the
    nearest."""
    assert kept(count, min_quantile=quantile) == count - dropped
    assert kept(count, max_quantile=quantile) == kept_below


@pytest.mark.parametrize(("quantile", "share"), [(0.07, 7), (0.29, 29), (0.57, 57), (0.58, 58)])
def test_a_quantile_is_the_decimal_that_was_written(quantile: float, share: int) -> None:
    """As floats, 0.07 · 100 is a little over 7, and 0.29 · 100 a little under 29."""
    assert kept(100, min_quantile=quantile) == 100 - share
    assert kept(100, max_quantile=quantile) == share


def test_the_whole_quantile_leaves_the_highest_and_none_of_it_the_lowest() -> None:
    table = clips(motion=[1.0, 3.0, 2.0, 3.0, 1.0])
    assert reasons(table, motion=Rule(min_quantile=1)) == ["motion_low", None, "motion_low", None, "motion_low"]
    assert reasons(table, motion=Rule(max_quantile=0)) == [None, "motion_high", "motion_high", "motion_high", None]
    assert reasons(table, motion=Rule(min_quantile=0, max_quantile=1)) == [None] * 5


def test_ties_with_a_quantile_are_kept() -> None:
    assert reasons(clips(motion=[0.0, 0.0, 0.0, 0.0, 1.0]), motion=Rule(min_quantile=0.5)) == [None] * 5
    assert reasons(clips(motion=[0.0, 1.0, 1.0, 1.0, 2.0]), motion=Rule(max_quantile=0.4)) == [None] * 4 + [
        "motion_high"
    ]


def test_a_quantile_is_of_usable_clips_that_have_a_value() -> None:
    """Of the clips with 2, 3, 4 and 5 half fall; two that are too short and one without a value do not count."""
    status = ["too_short", "too_short", *["ok"] * 5]
    table = clips(motion=[0.0, 1.0, 2.0, 3.0, 4.0, 5.0, None], status=status)
    verdicts, limits = select(table, {"motion": Rule(min_quantile=0.5, nulls="keep")})
    assert limits == {"motion": {"min": 4.0}}
    assert verdicts["reason"].to_pylist() == ["too_short", "too_short", "motion_low", "motion_low", None, None, None]


def test_an_upper_quantile_is_of_usable_clips_too() -> None:
    """Of the clips with 1 to 4 half stay. With the short ones, six in all, 3 of the lowest would: -2, -1 and 1."""
    table = clips(text=[-2.0, -1.0, 1.0, 2.0, 3.0, 4.0], status=["too_short", "too_long", *["ok"] * 4])
    verdicts, limits = select(table, {"text": Rule(max_quantile=0.5)})
    assert limits == {"text": {"max": 2.0}}
    assert verdicts["reason"].to_pylist() == ["too_short", "too_long", None, None, "text_high", "text_high"]


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


def test_of_copies_the_first_that_can_be_read_stays() -> None:
    """Where none can, the first stays. Excludes the last one that can be read, and one that cannot."""
    table = clips(content_id=["same"] * 4)
    for there, kept in (("0123", 0), ("123", 1), ("3", 3), ("", 0)):
        verdicts, _ = select(table, {}, readable=lambda uri, there=there: uri[-5] in there)  # type: ignore[misc]
        assert verdicts["keep"].to_pylist() == [number == kept for number in range(4)]


def test_of_many_copies_that_cannot_be_read_the_order_is_asked_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Excludes ranking all copies again for each that is gone, and asking twice about a source."""
    count, asked, statements = 200, Counter[str](), list[str]()
    table = clips(content_id=["k"] * count + ["l"] * 2)

    def there(uri: str) -> bool:
        asked[uri] += 1
        return uri in ("/films/150.mp4", "/films/200.mp4")

    def counted(connection: Any, statement: str) -> Any:
        statements.append(statement)
        return answer(connection, statement)

    monkeypatch.setattr("dailies.curation.select.copies.answer", counted)
    verdicts, _ = select(table, {}, readable=there)
    left = verdicts.filter(verdicts["keep"])["clip_id"].to_pylist()
    assert left == ["c150", "c200"]
    assert set(asked.values()) == {1}
    assert "/films/199.mp4" not in asked, "one that can be read was there before"
    assert len(statements) < 10


def test_verdicts_come_in_batches_whose_texts_cannot_be_too_large(monkeypatch: pytest.MonkeyPatch) -> None:
    """DuckDB refuses a batch whose texts come to 2 GB: rows of ids that long must be few."""
    rows: list[int] = []
    judge = Judgement._verdicts

    def noting(self: Judgement, batch: pa.RecordBatch) -> pa.Table:
        rows.append(len(batch))
        return judge(self, batch)

    monkeypatch.setattr(Judgement, "_verdicts", noting)
    assert len(select(clips(x=[0] * 20_000), {})[0]) == sum(rows) == 20_000
    assert max(rows) <= 8192


def test_of_copies_the_first_sources_stays_wherever_it_stands() -> None:
    """Excludes the first and the last by clip and by row, and the last by source."""
    table = clips(x=[0] * 3, content_id=["k"] * 3, source_id=["s2", "s1", "s3"])
    for rows in ([0, 1, 2], [2, 1, 0], [1, 0, 2]):
        assert reasons(table.take(rows)) == ["duplicate", None, "duplicate"]
    verdicts, _ = select(table, {}, duplicates="keep")
    assert verdicts["keep"].to_pylist() == [True] * 3


def test_of_copies_that_say_different_things_the_same_stays_wherever_they_lie() -> None:
    """Ids of sources and clips follow from paths: what the manifests say, and spans before shots, decides before them."""
    said = ['{"split": "val"}', None, '{"split": "test"}', '{"split": "train"}']
    spans = ["p", "q", "r", None]
    for ids in (["s0", "s1", "s2", "s3"], ["s3", "s2", "s1", "s0"], ["s2", "s0", "s3", "s1"]):
        table = clips(manifest=said, content_id=["k"] * 4, source_id=ids, clip_id=ids[::-1], span_id=spans)
        kept = select(table, {})[0]
        (left,) = kept.filter(kept["keep"])["source_id"].to_pylist()
        assert said[ids.index(left)] == '{"split": "test"}'


@pytest.mark.parametrize(("column", "values"), [("stream", [0, 1]), ("start", [0, 50]), ("end", [100, 99])])
def test_clips_of_a_copied_file_are_no_copies_of_one_another(column: str, values: list[int]) -> None:
    table = clips(x=[0, 0], content_id=["k", "k"], **{column: values})
    assert reasons(table) == [None, None]


def test_a_copy_that_is_too_short_falls_by_that_alone() -> None:
    verdicts, _ = select(clips(x=[0, 0], content_id=["k", "k"], status=["too_short", "too_short"]), {})
    assert verdicts["reasons"].to_pylist() == [["too_short"], ["too_short"]]


def test_words_that_are_missing_are_kept_where_the_rule_says_so() -> None:
    table = clips(camera=["static", None, "pan"], size=[1, 2, 3])
    assert reasons(table, camera=Rule(one_of=("static",), nulls="keep")) == [None, None, "camera_other"]
    assert reasons(table, size=Rule(one_of=(1, 3))) == [None, "size_other", None]


def test_manifest_columns_can_be_asked() -> None:
    table = clips(manifest=['{"license": "CC-BY"}', '{"license": "unknown"}', None])
    rule = Rule(one_of=("CC-BY", "CC0"), nulls="drop")
    verdicts, _ = select(table, {"manifest.license": rule})
    assert verdicts["reason"].to_pylist() == [None, "manifest_license_other", "manifest_license_missing"]


def test_numbers_that_were_stored_as_text_stand_beside_numbers() -> None:
    table = clips(manifest=['{"score": "0.9"}', '{"score": 0.1}', '{"score": ""}'])
    assert reasons(table, **{"manifest.score": Rule(min=0.5, nulls="drop")}) == [
        None, "manifest_score_low", "manifest_score_missing"
    ]  # fmt: skip


@pytest.mark.parametrize("text", ["nan", "NaN", "-nan"])
def test_a_text_that_says_there_is_no_number_is_none(text: str) -> None:
    """DuckDB takes NaN for greater than any number, so that it would pass each lower limit."""
    table = clips(manifest=['{"score": "4"}', '{"score": "2"}', f'{{"score": "{text}"}}', '{"score": "inf"}'])
    name, word = "manifest.score", "manifest_score"
    found = [None, f"{word}_low", f"{word}_missing", None]
    assert reasons(table, **{name: Rule(min=3, nulls="drop")}) == found
    assert reasons(table, **{name: Rule(max=3, nulls="keep")}) == [f"{word}_high", None, None, f"{word}_high"]
    assert reasons(table, **{name: Rule(min_quantile=0.34, nulls="drop")}) == found
    both = Rule(any=({name: Rule(min=3, nulls="drop")},))
    assert reasons(table, both=both) == [None, "both_unmet", "both_unmet", None]
    with pytest.raises(UsageError, match="is null for 1 of 4 clips"):
        reasons(table, **{name: Rule(min=3)})


def test_a_rule_over_a_column_that_no_manifest_has_is_refused() -> None:
    rules = {"motion": Rule(min=1), "manifest.licence": Rule(one_of=("CC0",), nulls="drop")}
    with pytest.raises(UsageError, match=r"select main: unknown column 'manifest.licence'.*did you mean license\?"):
        check_manifest_columns(rules, ["license", "views"], "select main")
    with pytest.raises(UsageError, match="there is no manifest with further columns"):
        check_manifest_columns(rules, [], "select main")
    check_manifest_columns(rules, ["licence"], "select main")


def test_of_spans_that_share_frames_the_first_stays() -> None:
    """Meeting spans share none. A span after a dropped one is measured against the one that stayed, and unusable spans and
    other sources do not count. The shot falls."""
    spans = [(0, 50), (49, 80), (50, 60), (59, 70), (60, 99), (0, 10), (0, 99), (0, 199)]
    table = clips(
        x=[0] * 8,
        start=[start for start, _ in spans],
        end=[end for _, end in spans],
        source_id=[*["s"] * 5, "other", "s", "s"],
        content_id=["k"] * 5 + ["l", "k", "k"],
        status=["ok"] * 7 + ["too_long"],
        span_id=[*"abcdef", None, "g"],
    )
    wanted = [None, "overlapping", None, "overlapping", None, None, "overlapping", "too_long"]
    assert reasons(table) == wanted
    assert reasons(table.take([4, 2, 0, 7, 5, 3, 1, 6])) == wanted
    assert select(table, {}, overlaps="keep")[0]["keep"].to_pylist() == [True] * 7 + [False]


def test_a_shot_that_shares_frames_with_a_span_falls() -> None:
    """Its frames could be in two splits. One frame is enough, and a short span within a long one hides none of it; shots that
    meet a span, lie in another stream, or are beside an unusable span stay."""
    spans = [(10, 60, "ok"), (20, 30, "ok"), (80, 90, "ok"), (100, 120, "too_long")]
    shots = [(0, 10), (0, 11), (59, 70), (60, 80), (40, 50), (70, 100), (90, 130)]
    table = clips(
        x=[0] * 12,
        start=[span[0] for span in [*spans, *shots, (10, 60)]],
        end=[span[1] for span in [*spans, *shots, (10, 60)]],
        source_id=["s"] * 12,
        content_id=["k"] * 12,
        status=[*(span[2] for span in spans), *["ok"] * 8],
        stream=[*[0] * 11, 1],
        span_id=[*"abcd", *[None] * 8],
    )
    of_spans = [None, "overlapping", None, "too_long"]
    of_shots = [None, "overlapping", "overlapping", None, "overlapping", "overlapping", None]
    assert reasons(table) == [*of_spans, *of_shots, None]
    assert set(select(table, {}, overlaps="keep")[0]["reason"].to_pylist()) == {None, "too_long"}


def test_of_a_shot_and_a_span_of_the_same_frames_the_span_stays() -> None:
    table = clips(x=[0, 0], content_id=["k", "k"], source_id=["s", "s"], span_id=[None, "a"])
    assert reasons(table) == ["duplicate", None]


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
    with pytest.raises(RecipeError):
        Rule(**wrong)


def test_no_clips_is_no_error() -> None:
    table = clips(motion=[1.0]).slice(0, 0)
    verdicts, limits = select(table, {"motion": Rule(min_quantile=0.5)})
    assert len(verdicts) == 0
    assert limits == {"motion": {}}


@pytest.mark.parametrize(
    ("rule", "limits", "fell"),
    [
        (Rule(min_quantile=0.75), {"min": sys.float_info.max}, ["motion_low"] * 6 + [None] * 2),
        (Rule(max_quantile=0.9), {}, [None] * 8),
        (Rule(min_quantile=0.0), {}, [None] * 8),
        (Rule(max_quantile=0.1), {"max": -sys.float_info.max}, [None] * 2 + ["motion_high"] * 6),
    ],
)
def test_an_infinite_value_is_a_number_and_a_limit_stays_json(
    rule: Rule, limits: dict[str, float], fell: list[str | None]
) -> None:
    table = clips(motion=[-math.inf, -math.inf, 1.0, 2.0, 3.0, 4.0, math.inf, math.inf])
    with judging(ClipRows(rows=table), Criteria(rules={"motion": rule})) as judged:
        assert pa.concat_tables(judged.verdicts())["reason"].to_pylist() == fell
        assert json.loads(json.dumps(judged.limits["motion"], allow_nan=False)) == limits
        for limit in preview(judged, Criteria(rules={"motion": rule})).limits:
            assert all(map(math.isfinite, limit.at.values()))


@pytest.mark.parametrize("damage", ["footer", "gone", "values"])
def test_a_damaged_part_is_named(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "part.parquet"
    table = clips(motion=[float(n) for n in range(50)])
    pq.write_table(table, path, compression="zstd")
    rows = ClipRows(rows=pads.dataset(path, schema=table.schema, format="parquet"))
    sound = path.read_bytes()
    path.write_bytes(sound[:-20] if damage == "footer" else b"PAR1" + b"\xff" * 400 + sound[404:])
    if damage == "gone":
        path.unlink()
    with (
        pytest.raises(Damaged, match=r"cannot be read.*dailies verify"),
        judging(rows, Criteria(rules={"motion": Rule(min=1)})) as judged,
    ):
        list(judged.verdicts())
