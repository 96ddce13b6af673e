"""The report's numbers, counted here again from what the dataset was made of; and its page, which trusts no text."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import re
import shlex
import tracemalloc
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pytest
from numpy.typing import NDArray
from PIL import Image

import dailies as door
from dailies.curation import schema
from dailies.curation.config import parse_assignment
from dailies.curation.errors import DatasetError, UsageError
from dailies.curation.select import column_values
from dailies.curation.select.conditions import rank_high, rank_low
from dailies.curation.tables import DatasetTables
from dailies.pipelines import again
from dailies.pipelines.maintenance import take_down
from dailies.pipelines.recipes import CaptionStep, SelectStep
from dailies.pipelines.recipes.recipe import parse_recipe
from dailies.pipelines.report import charts, gather, page, render, samples, stats, write_report
from dailies.pipelines.report import judged as judging
from dailies.pipelines.report.data import Amount, FunnelStep, ReportData, Threshold
from dailies.pipelines.report.funnel import reason_order
from dailies.pipelines.report.judged import BETWEEN, JudgedClips, judged, numbers
from dailies.pipelines.report.lineage import by_kind, times
from dailies.pipelines.report.samples import duplicates
from dailies.pipelines.report.scores import bars, plain, score, words_in
from dailies.pipelines.run_rows import record_run
from dailies.pipelines.selecting import select_step
from tests.conftest import Dailies
from tests.report_dataset import HOSTILE, SECRET, STEPS, UNLICENSED, Truth, build, picture

Flags = NDArray[np.bool_]


@pytest.fixture(scope="module")
def truth(tmp_path_factory: pytest.TempPathFactory) -> Truth:
    return build(tmp_path_factory.mktemp("report") / "dataset", 600)


@pytest.fixture(scope="module")
def data(truth: Truth) -> ReportData:
    return gather(str(truth.path))


def falls(truth: Truth, **limits: float) -> dict[str, Flags]:
    """Who falls by what, as the rules say, in their order; ``limits`` in place of theirs."""
    ok = truth.status == "ok"
    unlicensed = np.isin(np.arange(len(ok)), [*UNLICENSED])
    with np.errstate(invalid="ignore"):
        luma = truth.luma[ok].astype(np.float32)
        most = limits.get("luma", float(np.sort(luma)[int(np.ceil(0.9 * len(luma))) - 1]))
        return {
            "too_short": ~ok,
            "duplicate": _second_of_a_pair(truth),
            "motion_missing": ok & np.isnan(truth.motion),
            "motion_low": ok & (truth.motion.astype(np.float32) < limits.get("motion", 0.5)),
            "luma_high": ok & (truth.luma.astype(np.float32) > most),
            "text_area_missing": ok & np.isnan(truth.text),
            "text_area_high": ok & (truth.text.astype(np.float32) > limits.get("text_area", 0.07)),
            "manifest_license_missing": ok & ~truth.cc & unlicensed,
            "manifest_license_other": ok & ~truth.cc & ~unlicensed,
        }


def _second_of_a_pair(truth: Truth) -> Flags:
    """Of copies the selection keeps one, whichever: here only what it said of them is taken from it."""
    rows = DatasetTables.open(truth.path).table("selections/main").read(["clip_id", "reasons"]).to_pylist()
    told = {row["clip_id"] for row in rows if "duplicate" in row["reasons"]}
    return np.asarray([clip in told for clip in truth.ids])


def all_reasons(fell: dict[str, Flags]) -> list[set[str]]:
    count = len(next(iter(fell.values())))
    return [{name for name, mask in fell.items() if mask[n]} for n in range(count)]


def test_the_funnel_counts_each_reason_once_and_in_order(truth: Truth, data: ReportData) -> None:
    fell = falls(truth)
    why = all_reasons(fell)
    assert data.funnel.clips.clips == 600
    assert {step.reason for step in data.funnel.steps} == {name for name, mask in fell.items() if mask.any()}
    left = np.ones(600, dtype=bool)
    for step in data.funnel.steps:
        now = left & fell[step.reason]
        left &= ~fell[step.reason]
        assert step.dropped.clips == now.sum(), step.reason
        assert step.dropped.seconds == pytest.approx(truth.seconds[now].sum())
        assert step.fell.clips == fell[step.reason].sum()
        assert step.alone.clips == sum(reasons == {step.reason} for reasons in why)
        assert (step.left.clips, step.left.seconds) == (left.sum(), pytest.approx(truth.seconds[left].sum()))
    assert data.funnel.kept.clips == left.sum() > 0
    assert fell["duplicate"].sum() > 0
    order = [step.reason for step in data.funnel.steps]
    assert order.index("motion_low") < order.index("luma_high") < order.index("text_area_high")
    assert order[:2] == ["too_short", "duplicate"]
    assert order[-1] == "manifest_license_other"
    assert stats(str(truth.path)) == data.funnel


def limit_of(data: ReportData, column: str) -> Threshold:
    (limit,) = (limit for score in data.scores for limit in score.thresholds if score.column == column)
    return limit


@pytest.mark.parametrize("column", ["motion", "luma", "text_area"])
def test_a_moved_limit_keeps_what_it_says(column: str, truth: Truth, data: ReportData) -> None:
    """Brute force: every rule is asked again, with this limit at each place."""
    limit = limit_of(data, column)
    assert len(limit.positions) > 100
    assert limit.positions[limit.at] == pytest.approx(limit.value)
    for place, clips, seconds in zip(limit.positions, limit.clips, limit.seconds, strict=True):
        fell = falls(truth, **{column: place})
        kept = ~np.logical_or.reduce(list(fell.values()))
        assert clips == kept.sum(), place
        assert seconds == pytest.approx(truth.seconds[kept].sum(), abs=0.06)
    assert limit.clips[limit.at] == data.funnel.kept.clips
    assert limit.clips[0] != limit.clips[-1]


@pytest.mark.parametrize("column", ["motion", "luma", "text_area"])
def test_what_the_page_says_to_set_keeps_what_it_says(
    column: str, data: ReportData, tmp_path: Path, truth: Truth
) -> None:
    """A limit that was given as a quantile is set as one."""
    other = build(tmp_path / "other", 600)
    limit = limit_of(data, column)
    assert limit.quantile == (column == "luma")
    for at in (limit.at // 2, (limit.at + len(limit.positions)) // 2):
        setting = f"{limit.setting}={limit.shares[at] if limit.quantile else limit.positions[at]}"
        assert again.select_again(str(other.path), "main", [setting]).kept == limit.clips[at]


@pytest.mark.parametrize("name", ["$(touch owned)", "it's; {}", 'a="b" {}', "größe . 'ü'", "plain"])
def test_the_command_that_a_page_tells_holds_its_words_together(name: str) -> None:
    column = f"manifest.{name}"
    clips = verdicts(clip_id=list("abc"), manifest=[json.dumps({name: n}) for n in range(3)])
    its = score(replace(clips, limits={column: {"min": 1.0}}), column, "", "")
    assert its is not None
    (limit,) = its.thresholds
    before, after = page.around(limit.setting)
    (word,) = shlex.split(f"{before}0.25{after}")
    (step, rules, *keys, side), value = parse_assignment(word)
    assert (step, rules, ".".join(keys), side, value) == ("main", "rules", column, "min", 0.25)
    assert (before, after) == (f"{limit.setting}=", "") or name != "plain"


def test_clips_beside_a_limit_are_the_nearest(truth: Truth, data: ReportData) -> None:
    limit = limit_of(data, "motion")
    value = dict(zip(truth.ids, truth.motion, strict=True))
    ok = {clip for clip, status in zip(truth.ids, truth.status, strict=True) if status == "ok"}
    below = sorted(value[clip] for clip in ok if value[clip] < 0.5)
    above = sorted(value[clip] for clip in ok if value[clip] >= 0.5)
    assert [value[each.clip_id] for each in limit.outside] == below[-6:]
    assert [value[each.clip_id] for each in limit.inside] == above[:6]


def test_histograms_count_every_usable_clip(truth: Truth, data: ReportData) -> None:
    ok = truth.status == "ok"
    known = ok & ~np.isnan(truth.motion)
    score = next(score for score in data.scores if score.column == "motion")
    bars = score.histogram
    assert (score.known, score.missing) == (known.sum(), (ok & ~known).sum())
    assert sum(bars.kept) + sum(bars.by_rule) + sum(bars.by_others) == known.sum()
    assert sum(bars.kept) == data.funnel.kept.clips
    assert sum(bars.by_rule) == (known & (truth.motion < 0.5)).sum()
    assert score.quantiles[2] == pytest.approx(np.median(truth.motion[known]))
    assert bars.above == (truth.motion[known].astype(np.float32) > bars.edges[-1]).sum() > 0


def test_a_limit_moves_neither_clips_without_a_value_nor_those_that_it_was_not_asked_of() -> None:
    """By hand: limits at values, where ties are kept; one clip without a value, and one that was not asked, are kept."""
    clips = verdicts(
        clip_id=list("abcdefg"),
        x=[1, 2, 2, 3, 4, None, 1],
        why=["x_low", "", "other", "", BETWEEN.join(["other", "x_low"]), "", ""],
        keep=[False, True, False, True, False, True, True],
    )
    asked = JudgedClips(clips.rows, "main", {"x": {"min": 2.0}}, {"rules": {"x": {"min": 2}}})
    (limit,) = score(asked, "x", "", "").thresholds  # type: ignore[union-attr]
    counted = dict(zip(limit.positions, limit.clips, strict=True))
    assert [counted[float(place)] for place in (1, 2, 4)] == [5, 4, 2]
    high = JudgedClips(
        pa.table({**clips.rows.to_pydict(), "why": ["", "", "", "x_high", "x_high", "", ""]}).set_column(
            clips.rows.schema.get_field_index("keep"), "keep", pa.array([True, True, True, False, False, True, True])
        ),
        "main",
        {"x": {"max": 2.0}},
        {"rules": {"x": {"max": 2}}},
    )
    (limit,) = score(high, "x", "", "").thresholds  # type: ignore[union-attr]
    counted = dict(zip(limit.positions, limit.clips, strict=True))
    assert [counted[float(place)] for place in (1, 2, 4)] == [3, 5, 7]


@pytest.mark.parametrize("count", [7, 13])
@pytest.mark.parametrize("side", ["min", "max"])
def test_a_share_that_is_told_keeps_what_it_says(side: Literal["min", "max"], count: int) -> None:
    """Sevenths and thirteenths end in no decimal. Infinity has a rank; clips that the rule was not asked of have none."""
    x = [*map(float, range(count - 1)), np.inf if side == "min" else -np.inf, -5.0, 99.0, None, None]
    asked = np.sort(np.asarray(x[:count]))
    limit = float(asked[count // 2])
    low, fell = (
        side == "min",
        np.asarray([value is not None and (value < limit if side == "min" else value > limit) for value in x]),
    )
    fell[count:] = False
    clips = verdicts(
        clip_id=[f"c{n:02}" for n in range(len(x))],
        source_id=["mine"] * count + ["other"] * 3 + ["mine"],
        x=x,
        why=[f"x_{'low' if low else 'high'}" if yes else "" for yes in fell],
        keep=(~fell).tolist(),
    )
    told = {
        "limits": {"x": {side: limit, "not_applied": "3 clips"}},
        "properties": {"rules": {"x": {f"{side}_quantile": 0.5}}},
    }
    its = score(replace(clips, **told, apart={"x": pa.array(["other"])}), "x", "", "")
    assert its is not None
    assert its.missing == 2
    (moved,) = its.thresholds
    assert moved.quantile
    assert len(moved.shares) == len(moved.positions) > 1
    rank = rank_low if low else rank_high
    for share, kept in zip(moved.shares, moved.clips, strict=True):
        value = asked[rank(share, count)]
        assert kept == (asked >= value if low else asked <= value).sum() + 4, share
    assert rank_low(1.5e-7, 10_000_000) == 1


@pytest.mark.parametrize(
    ("x", "limit", "off"),
    [
        ([-1e308, 0.0, 1e308], 1e308, True),
        ([1.0, 2.0, 3.0], 1e308, True),
        ([0.1, 0.2, 0.9], 1e6, True),
        ([0.1, 0.2, 0.9], 1.5, False),
        ([1e17] * 3, 1e17, False),
        ([-1e25, -1e25, -1e25], 3.0, False),
        ([0.0, 0.0, 0.0], 0.07, False),
        ([0.0, 5e-324, 1e-310], 1e-310, False),
        ([np.inf, 1.0, 2.0], 2.0, False),
        pytest.param([0.1, 0.2, 0.9], 10**400, None, id="larger than any float"),
    ],
)
def test_a_chart_of_any_numbers_has_places(x: list[float], limit: float, off: bool | None) -> None:
    clips = verdicts(clip_id=list("abc"), x=x, seconds=[np.inf, 1.0, np.nan])
    asked = replace(clips, limits={"x": {"max": limit}}, properties={"rules": {"x": {"max": limit}}})
    its = score(asked, "x", "", "")
    assert its is not None
    edges = its.histogram.edges
    assert np.isfinite(edges).all()
    assert (np.diff(edges) > 0).all()
    assert sum(its.histogram.kept) == 3
    json.dumps([[each.positions, each.clips, each.seconds] for each in its.thresholds], allow_nan=False)
    if off is None:
        assert its.thresholds == ()
        return
    (moved,) = its.thresholds
    assert moved.positions[moved.at] == limit
    assert (limit > edges[-1]) == off
    chart = str(charts.histogram(its.histogram, "", [("max", limit)]))
    assert ('x1="40.000"' in chart) >= off
    assert ('class="limit off"' in chart) == off
    assert plain(clips, "x", "", "", np.asarray(x)) is not None


def test_a_limit_far_away_leaves_the_clips_a_chart() -> None:
    clips = verdicts(clip_id=[f"{n:03}" for n in range(100)], x=[n / 100 for n in range(100)])
    its = score(replace(clips, limits={"x": {"max": 1e6}}), "x", "", "")
    assert its is not None
    assert max(its.histogram.kept) < 10
    assert its.thresholds[0].at == len(its.thresholds[0].positions) - 1


def test_what_a_rule_dropped_stands_beside_what_was_kept(truth: Truth, data: ReportData) -> None:
    rows = DatasetTables.open(truth.path).table("selections/main").read(["clip_id", "keep", "reason"]).to_pylist()
    said = {row["clip_id"]: row for row in rows}
    assert [pair.step for pair in data.beside] == list(data.funnel.steps)
    for pair in data.beside:
        assert len(pair.dropped) == min(6, pair.step.dropped.clips)
        assert {said[each.clip_id]["reason"] for each in pair.dropped} == {pair.step.reason}
        assert all(said[each.clip_id]["keep"] for each in pair.kept)
        assert len(pair.kept) == 6


def test_a_clip_shows_the_evidence_of_its_own_span(truth: Truth, data: ReportData) -> None:
    """The pictures of sources differ in colour, so that one of another would show."""
    row = next(n for n, clip in enumerate(truth.ids) if clip in data.clips)
    shown = data.clips[truth.ids[row]].picture
    assert shown is not None
    assert (shown.frames, shown.width, shown.height) == (5, 256, 144)
    sprite = np.asarray(Image.open(io.BytesIO(shown.jpeg)), dtype=float)
    for frame in range(5):
        mine = sprite[:, frame * 256 : (frame + 1) * 256].mean((0, 1))
        real = np.asarray(Image.open(io.BytesIO(picture((row // 4 + frame) % 32))), dtype=float).mean((0, 1))
        assert np.abs(mine - real).max() < 3


class _Page(HTMLParser):
    """What a browser would make of a page: its elements, and whatever leads elsewhere."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.links: list[str] = []
        self.handlers: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        for name, value in attrs:
            if name in ("src", "href", "srcset", "action", "data", "poster"):
                self.links.append(value or "")
            if name.startswith("on") or name == "style":
                self.handlers.append(name)


def test_no_text_of_the_data_becomes_markup_or_shows_a_secret(truth: Truth, data: ReportData) -> None:
    text = render(data)
    page = _Page(text)
    assert page.tags.count("script") == 2
    assert page.tags.count("style") == 1
    assert "img" not in page.tags
    assert not page.handlers
    assert all(link.startswith("#") or link == "data:," for link in page.links)
    assert "owned" in text  # it is shown, as text
    assert "\u202e" not in text
    assert SECRET not in text
    assert "https://host.example/a.mp4" in text
    for seen in (data.clips, data.failures, data.captioned):
        assert seen
    assert any(HOSTILE in failure.message for failure in data.failures)


def test_a_page_takes_its_scripts_by_their_hash_alone(data: ReportData) -> None:
    text = render(data)
    (policy,) = re.findall(r'Content-Security-Policy" content="([^"]+)"', text)
    policy = policy.replace("&#39;", "'")
    assert policy.startswith("default-src 'none'; img-src data:;")
    assert "unsafe" not in policy
    for tag in ("style", "script"):
        body = re.findall(rf"<{tag}>(.*?)</{tag}>", text, re.DOTALL)[-1]
        digest = base64.b64encode(hashlib.sha256(body.encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{digest}'" in policy


def test_a_full_page_leaves_pictures_out_and_says_so(truth: Truth, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(samples, "MOST_BYTES", 20_000)
    fewer = gather(str(truth.path))
    pictured = [clip.picture for clip in fewer.clips.values() if clip.picture]
    assert 0 < sum(len(each.jpeg) for each in pictured) < 40_000
    assert fewer.unpictured == len(fewer.clips) - len(pictured) > 0
    assert f"{fewer.unpictured} clips of these have no frames" in " ".join(render(fewer).split())


def test_a_hundred_thousand_clips_fit(tmp_path: Path) -> None:
    """Pictures of noise take the most bytes that pictures can."""
    truth = build(tmp_path / "large", 100_000, each=500, noise=True)
    path = Path(write_report(str(truth.path)))
    assert path == tmp_path / "large" / "report.html"
    assert 1e6 < path.stat().st_size < 15e6
    text = path.read_text()
    assert "of 100,000 clips" in text
    assert f"{(truth.status == 'ok').sum() - np.isnan(truth.motion[truth.status == 'ok']).sum():,} clips" in text


# ---- order, duplicates, lengths -------------------------------------------------------------------------------------


def test_reasons_stand_in_the_order_in_which_clips_list_them() -> None:
    """Words that no rule's column begins: of a cap or a combined rule. Their order is known from clips that fell by both."""
    rules = {"motion": {}, "text_area": {}, "text": {}}
    ways = [("failed",), ("text_high",), ("text_area_high", "capped"), ("motion_low", "either"), ("either", "capped")]
    order = reason_order(ways, rules)
    assert order == ["failed", "motion_low", "text_area_high", "text_high", "either", "capped"]
    assert reason_order([("b", "a"), ("c", "b")], {}) == ["c", "b", "a"]
    drawn = {"motion": {}, "text": {}, "at_most": {"source_id": {}, "motion": {}}, "balance": {}, "sample": {}}
    reasons = ["sample", "balance", "motion_cap", "source_id_cap", "text_unmet", "motion_low"]
    assert reason_order([(reason,) for reason in reasons], drawn) == [
        *("motion_low", "text_unmet", "source_id_cap", "motion_cap", "balance", "sample")
    ]


def verdicts(**columns: list[Any]) -> JudgedClips:
    count = len(columns["clip_id"])
    base: dict[str, list[Any]] = {
        "status": ["ok"] * count,
        "seconds": [1.0] * count,
        "why": [""] * count,
        "keep": [True] * count,
        "content_id": [str(n) for n in range(count)],
        "stream": [0] * count,
        "start": [0] * count,
        "end": [9] * count,
    }
    return JudgedClips(pa.table(base | columns), "main", {}, {})


def test_a_reason_is_a_whole_word() -> None:
    several = BETWEEN.join(["a", "x_low", "b"])
    clips = verdicts(clip_id=list("abcde"), why=["x_low", "max_x_low", several, "x_low_b", "manifest_a,x_low,b_low"])
    assert clips.fell("x_low").tolist() == [True, False, True, False, False]
    assert clips.only("x_low").tolist() == [True, False, False, False, False]


def test_a_column_may_have_a_comma_in_its_name(tmp_path: Path) -> None:
    truth = build(tmp_path / "dataset", 40)
    rules = {"manifest.a,luma_low, b": {"min": 3, "nulls": "drop"}}
    recipe = parse_recipe({"name": "reported", "steps": [*STEPS[:-1], {"select": {"rules": rules}}]})
    dataset = DatasetTables.open(truth.path)
    record_run(dataset, recipe)
    select_step(dataset, recipe, recipe.step(SelectStep))
    data = gather(str(truth.path))
    reasons = [step.reason for step in data.funnel.steps]
    assert reasons == ["too_short", "duplicate", "manifest_a,luma_low, b_missing"]
    assert [pair.step.reason for pair in data.beside] == reasons
    assert all(pair.dropped for pair in data.beside)
    assert {reason for clip in data.clips.values() for reason in clip.reasons} == {*reasons}


def test_groups_of_duplicates_are_those_of_the_step_and_copies_beside_them() -> None:
    seen = duplicates(
        verdicts(
            clip_id=list("abcdef"),
            why=["", "x", "", "duplicate", "", ""],
            keep=[True, False, True, False, True, True],
            content_id=["1", "2", "3", "3", "4", "5"],
            duplicate_group=["g", "g", None, None, None, None],
            duplicate_kind=["semantic", "semantic", None, None, None, None],
            duplicate_distance=[0.0, 0.125, None, None, None, None],
        )
    )
    assert (seen.groups, seen.clips) == (2, 4)
    assert [(group.kind, [each.clip_id for each in group.clips]) for group in seen.shown] == [
        ("semantic", ["a", "b"]),
        ("exact", ["c", "d"]),
    ]
    assert seen.shown[0].clips[1].note == "1.0 s, distance 0.125"
    assert duplicates(verdicts(clip_id=["a"])).groups == 0


def test_of_many_clips_few_become_objects(monkeypatch: pytest.MonkeyPatch) -> None:
    """Arrays are of 8 bytes a clip and column; lists of lists, and a word of each clip, are of ten times that."""
    count = 100_000
    clips = verdicts(
        clip_id=[f"{n:06}" for n in range(count)],
        why=["", "x_low"] * (count // 2),
        keep=[True, False] * (count // 2),
        x=list(range(count)),
        word=[str(n) for n in range(count)],
        duplicate_group=[n // 2 for n in range(count)],
        manifest=['{"x": 1, "y": 2}', '{"x": 2}'] * (count // 2),
    )
    ruled = replace(clips, limits={"x": {"min": 3}})
    (step,) = (FunnelStep(reason="x_low", limit="", dropped=Amount(), fell=Amount(), alone=Amount(), left=Amount()),)
    tracemalloc.start()
    assert bars(clips, "word", "") is None
    assert [len(pair.dropped) for pair in samples.beside(ruled, [step])] == [6]
    found = duplicates(clips)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert (found.groups, found.clips, len(found.shown)) == (count // 2, count, 12)
    assert [each.clip_id for each in found.shown[0].clips] == ["004166", "004167"]
    assert peak < 60 * count
    read: list[int] = []
    monkeypatch.setattr(
        judging, "column_values", lambda rows, name: read.append(len(rows)) or column_values(rows, name)
    )
    for _ in range(2):
        assert numbers(clips.column("manifest.x"))[:3].tolist() == [1, 2, 1]
        assert np.isnan(numbers(clips.column("manifest.y"))[1])
    assert read == [2, 2]


def test_captions_are_as_long_as_their_words() -> None:
    counts = words_in(pa.chunked_array([["a  b c", "", None, " one "]]))
    assert np.array_equal(counts, [3, np.nan, np.nan, 1], equal_nan=True)
    score = plain(verdicts(clip_id=list("abcd")), "caption", "", "words", counts)
    assert score is not None
    assert (score.known, score.missing) == (2, 2)
    assert sum(score.histogram.kept) == 2
    assert score.histogram.edges[0] == 0.5  # a number stands in the middle of its bin


# ---- what lies around it --------------------------------------------------------------------------------------------


def test_a_dataset_without_clips_has_a_page(tmp_path: Path, truth: Truth) -> None:
    dataset = DatasetTables.create(tmp_path / "empty")
    broken = {"source_id": "a", "uri": "/a.mp4", "segment": 0, "unit": "a/0"}
    row = {**schema.empty_row(schema.OBSERVATIONS), **broken, **schema.failed("observe", "unreadable", "no video")}
    dataset.table(truth.recipe.observations, schema.OBSERVATIONS).append([row])
    record_run(dataset, truth.recipe)
    data = gather(str(tmp_path / "empty"))
    assert data.funnel.selection is None
    assert (data.funnel.clips.clips, data.funnel.sources.failed) == (0, {"unreadable": 1})
    text = render(data)
    for empty in ("No selection yet", "There are no usable clips.", "No two clips are known", "noted its times"):
        assert empty in text


def test_a_selection_that_was_made_before_says_so(tmp_path: Path) -> None:
    truth = build(tmp_path / "dataset", 40)
    dataset = DatasetTables.open(truth.path)
    assert gather(str(truth.path)).lineage.stale is None
    table = dataset.table(truth.recipe.clips)
    fresh = {"clip_id": ["new"], "source_id": ["new"], "status": ["ok"], "seconds": [3.0]}
    table.append(pa.table(fresh), keys=())
    data = gather(str(truth.path))
    assert truth.recipe.clips in str(data.lineage.stale)
    step = next(step for step in data.funnel.steps if step.reason == "not_judged")
    assert step.dropped.clips == 1


def test_a_selection_is_no_older_for_what_another_was_made_by(tmp_path: Path) -> None:
    truth = build(tmp_path / "dataset", 24)
    other: dict[str, Any] = {"select": {"name": "other", "rules": {"motion": {"min": 1.0, "nulls": "drop"}}}}
    recipe = parse_recipe({"name": "reported", "steps": [*STEPS, other]})
    dataset = DatasetTables.open(truth.path)
    record_run(dataset, recipe)
    again.select_again(str(truth.path), "other", ["other.rules.motion.min=2"])
    assert gather(str(truth.path), selection="main").lineage.stale is None
    for now, why in (
        (recipe, None),
        (parse_recipe({"name": "other name", "steps": STEPS}), None),
        (parse_recipe({"name": "reported", "steps": STEPS}, ["main.rules.motion.min=2"]), "other rules"),
        (parse_recipe({"name": "reported", "steps": STEPS}, ["main.overlaps=keep"]), "copies and overlaps"),
        (parse_recipe({"name": "reported", "steps": STEPS}, ["text.side=512"]), "other tables"),
        (parse_recipe({"name": "reported", "steps": [*STEPS[:-1], other]}), "no selection of this name"),
    ):
        record_run(dataset, now)
        data = gather(str(truth.path), selection="main")
        assert (data.lineage.stale is None) if why is None else (why in str(data.lineage.stale))
        assert ("makes it anew" in render(data)) == (why not in (None, "no selection of this name"))


def test_the_page_says_what_was_chosen_by_what(truth: Truth, data: ReportData) -> None:
    lineage = data.lineage
    assert "min: 0.5" in lineage.recipe
    assert lineage.selected["limits"]["luma"]["max"] == pytest.approx(limit_of(data, "luma").value)
    made = {step.step: step for step in lineage.steps}
    assert made["text"].table == truth.recipe.annotations(truth.recipe.before(None)[0])
    assert len(made["text"].weights) == 64  # sha256
    assert lineage.runs[0].recipe_hash == truth.recipe.hash
    assert [(each.step, each.seconds) for each in data.times] == [
        *(("observe", 12.5), ("cut", 0.5), ("text", 30.0), ("select.main", 0.2))
    ]


def test_nested_rules_caps_and_samples_are_shown(tmp_path: Path) -> None:
    """What ``any`` asks has no threshold of its own, but its columns have a histogram where its limits are marked."""
    truth = build(tmp_path / "dataset", 200)
    settings = [
        "main.rules={bright: {expression: luma * 2, min: 100}, "
        "either: {any: [{motion: {min: 2, nulls: drop}}, {twice: {expression: text_area * 2, max: 0.02, nulls: drop}}]}}",
        "main.at_most={source_id: 2}",
        "main.sample={clips: 20, seed: 1}",
    ]
    again.select_again(str(truth.path), "main", settings)
    data = gather(str(truth.path))
    reasons = [step.reason for step in data.funnel.steps]
    assert reasons == ["too_short", "duplicate", "bright_low", "either_unmet", "source_id_cap", "sample"]
    assert data.funnel.kept.clips == 20
    assert data.caps
    marked = {each.column: each.marks for each in data.scores if each.marks}
    assert marked == {"motion": (("min", 2.0),), "twice": (("max", 0.02),)}
    assert [each.column for each in data.scores][:3] == ["bright", "motion", "twice"]
    assert sum(each.column == "motion" for each in data.scores) == 1
    twice = next(each for each in data.scores if each.column == "twice")
    usable = (truth.status == "ok") & ~np.isnan(truth.text)
    assert twice.known == usable.sum()
    assert twice.quantiles[4] == pytest.approx(2 * truth.text[usable].max(), rel=1e-6)
    assert [pair.step.reason for pair in data.beside] == reasons
    text = render(data)
    assert "luma * 2 &lt; 100" in text
    assert "over 2 per source_id" in text
    assert "a part of either: motion ≥ 2 or" in text


def test_what_a_rule_computes_has_a_histogram_and_a_limit_that_moves(tmp_path: Path) -> None:
    """As a column's: counted again here, over clips in another order than the table's, and with a value that is missing."""
    truth = build(tmp_path / "dataset", 300)
    rule = "main.rules={rush: {expression: motion * 10 - luma, max: -90, nulls: keep}}"
    again.select_again(str(truth.path), "main", [rule])
    data = gather(str(truth.path))
    (rush,) = (each for each in data.scores if each.thresholds)
    value = truth.motion.astype(np.float32).astype(np.float64) * 10 - truth.luma.astype(np.float32)
    usable = truth.status == "ok"
    known = usable & ~np.isnan(value)
    assert (rush.column, rush.doc) == ("rush", "motion * 10 - luma")
    assert (rush.known, rush.missing) == (known.sum(), (usable & ~known).sum())
    assert sum(rush.histogram.kept) + sum(rush.histogram.by_rule) + sum(rush.histogram.by_others) == known.sum()
    duplicates = _second_of_a_pair(truth)
    assert sum(rush.histogram.by_rule) == (known & (value > -90)).sum()
    (limit,) = rush.thresholds
    assert (limit.value, limit.reason, limit.setting) == (-90, "rush_high", "main.rules.rush.max")
    for place in (20, 80, 140):
        passes = usable & ~duplicates & ~(value > limit.positions[place])
        assert limit.clips[place] == passes.sum()
    again.select_again(str(truth.path), "main", [rule, f"{limit.setting}={limit.positions[80]}"])
    assert gather(str(truth.path)).funnel.kept.clips == limit.clips[80]
    (beside,) = (pair for pair in data.beside if pair.step.reason == "rush_high")
    by_id = dict(zip(truth.ids, value, strict=True))
    shown = [by_id[note.clip_id] for note in beside.dropped]
    assert shown == sorted(shown)
    assert min(shown) > -90


def test_a_computed_chart_that_the_columns_of_today_do_not_allow_is_left_out(truth: Truth) -> None:
    """The table changed since the selection was made: a column is gone, or holds text now."""
    rows = pa.table(
        {"clip_id": ["a"], "source_id": ["s"], "status": ["ok"], "luma": ["text"], "keep": [True], "why": [""]}
    )
    for expression in ("luma * 2", "gone * 2", "luma ) 2"):
        clips = JudgedClips(rows, "main", {"x": {"expression": expression, "min": 1}}, {})
        assert clips.column("x") is None
        assert score(clips, "x", "", "") is None


def test_failures_are_counted_by_kind_and_few_become_objects(monkeypatch: pytest.MonkeyPatch) -> None:
    kinds = ["hung"] * 3 + [None] + ["truncated"] * 20_000 + ["hung"] * 2
    failures = [
        None if kind is None else schema.failed("cut", kind, f"{kind} {n}")["failure"] for n, kind in enumerate(kinds)
    ]
    rows = pa.table(
        {
            "uri": [f"/v/{n}.mp4" for n in range(len(kinds))],
            "failure": pa.array(failures, schema.FAILURE),
        }
    )
    rows = pa.concat_tables([rows.slice(0, 7), rows.slice(7)])  # as tables of parts are
    tracemalloc.start()
    try:
        counted = by_kind("cut", rows)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert [(each.kind, each.count, each.message, each.where) for each in counted] == [
        ("hung", 5, "hung 0", "0.mp4"),
        ("unknown", 1, "", "3.mp4"),
        ("truncated", 20_000, "truncated 4", "4.mp4"),
    ]
    assert peak < 1_000_000


def test_long_texts_leave_the_page_small(small: Truth) -> None:
    """Ten million characters of a model's caption, of what a tool said, and of a recipe."""
    long = "x" * 10_000_000
    dataset = DatasetTables.open(small.path)
    step = next(step for step in small.recipe.steps if isinstance(step, CaptionStep))
    table = dataset.table(small.recipe.annotations(step), schema.scores(step.spec.columns))
    row = table.read().to_pylist()[0]
    table.put([{**row, "text": long}], equals={"clip_id": row["clip_id"]})
    failed = schema.failed("score", "unreadable", long)
    table = dataset.table(small.recipe.annotations(small.recipe.before(None)[0]))
    row = table.read().to_pylist()[0]
    table.put([{**row, **failed}], equals={"clip_id": row["clip_id"]})
    data = gather(str(small.path))
    lengths = [len(text) for clip in data.clips.values() for text in clip.captions.values()]
    assert max(lengths) == 4000
    assert max(len(each.message) for each in data.failures) == 2000
    whole = replace(data, lineage=replace(data.lineage, recipe=long, selected={"rules": long}))
    assert len(render(whole)) < len(render(data)) + 250_000


@pytest.mark.parametrize(
    "text", ['{"observe": "long"}', "[]", "not JSON", '{"observe": NaN}', '{"observe": [1]}', '{"observe": 1e400}']
)
def test_times_that_are_none_are_one_line(text: str, small: Truth) -> None:
    dataset = DatasetTables.open(small.path)
    rows = dataset.table("runs").read().to_pylist()
    dataset.table("runs").put([{**rows[-1], "stage_seconds": text}], equals={"run_id": rows[-1]["run_id"]})
    with pytest.raises(DatasetError, match="stage_seconds of a run"):
        times(dataset, small.recipe)


def test_a_run_need_not_say_when_it_was(small: Truth) -> None:
    dataset = DatasetTables.open(small.path)
    row = dataset.table("runs").read().to_pylist()[-1]
    dataset.table("runs").put([{**row, "started": None, "stage_seconds": None}], equals={"run_id": row["run_id"]})
    data = gather(str(small.path))
    assert data.lineage.runs[-1].started == ""
    assert data.times == ()


def test_the_page_of_a_dataset_in_a_store_replaces_no_file(
    small: Truth, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(DatasetTables, "is_local", False)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "report.html").write_text("of another dataset")
    with pytest.raises(UsageError, match=r"report\.html is there already, .*; --out report\.html replaces it"):
        write_report(str(small.path))
    assert (tmp_path / "report.html").read_text() == "of another dataset"
    assert write_report(str(small.path), "report.html") == "report.html"
    assert (tmp_path / "report.html").read_text().startswith("<!doctype html>")


@pytest.fixture
def small(tmp_path: Path) -> Truth:
    return build(tmp_path / "dataset", 24)


def test_withdrawing_deletes_the_pages_in_the_dataset(small: Truth, tmp_path: Path) -> None:
    inside = [Path(write_report(str(small.path))), Path(write_report(str(small.path), selection="main"))]
    outside = Path(write_report(str(small.path), tmp_path / "mine.html"))
    (small.path / "reporting.html").write_text("of somebody's own")
    assert [path.name for path in inside] == ["report.html", "report-main.html"]
    take_down(str(small.path), [schema.digest("source", 1)])
    assert not any(path.exists() for path in inside)
    assert outside.exists()
    assert (small.path / "reporting.html").exists()


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["--selection", "mian"], "--selection=mian: no such selection; there are main (did you mean main?)"),
        (["--out", "a.txt"], "--out=a.txt: a report is a page; name a file that ends in .html"),
        (["--out", "no/such/a.html"], "--out=no/such/a.html: there is no folder no/such; make it, or name another"),
    ],
)
def test_a_report_that_cannot_be_is_one_line(words: list[str], line: str, small: Truth, dailies: Dailies) -> None:
    done = dailies("report", small.path, *words)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.splitlines()[-1] == f"dailies: {line}"


def test_the_funnel_is_printed(small: Truth, dailies: Dailies, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    done = dailies("stats", small.path)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0].startswith("sources    6 usable, 60.0 s of video; 1 failed")
    assert all(len(line) <= 80 for line in lines)
    funnel = stats(str(small.path))
    assert f"kept {funnel.kept.clips}".split()[1] in next(line for line in lines if line.startswith(" kept"))
    whole = json.loads(dailies("stats", small.path, "--json").stdout)
    assert whole["kept"]["clips"] == funnel.kept.clips
    assert [step["reason"] for step in whole["steps"]] == [step.reason for step in funnel.steps]


def test_the_python_door_has_both(small: Truth) -> None:
    dataset = door.Dataset(small.path)
    assert dataset.stats() == stats(str(small.path))
    assert dataset.stats("main").selection == "main"
    assert Path(dataset.report()).is_file()
    with pytest.raises(UsageError, match="no such selection"):
        dataset.stats("other")


def test_clips_without_a_verdict_are_none(truth: Truth) -> None:
    dataset = DatasetTables.open(truth.path)
    rows = pa.table({"clip_id": ["unknown"], "status": ["ok"], "seconds": [1.0]})
    seen = judged(dataset, rows, "main")
    assert seen.rows["keep"].to_pylist() == [None]
    assert not seen.keep.any()
