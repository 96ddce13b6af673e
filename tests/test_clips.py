"""From cuts to clips: every frame of a clip is of one shot, lengths are kept, nothing is lost without a row."""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping
from fractions import Fraction
from itertools import pairwise
from typing import Any, ClassVar

import pytest

from dailies.curation.clips import ClipRules, _named_split, clip_rows, frames_of, pieces, places_of, span_of, split_of
from dailies.curation.schema import clip_id
from dailies.curation.types import Cut, Track

BASE = Fraction(1, 25)
RULES = ClipRules(min_seconds=1, max_seconds=4)


def cut(start: int, end: int) -> Cut:
    return Cut(start=start, end=end, kind="cut" if end == start + 1 else "dissolve", detector="x", strength=1.0)


def spans(cuts: list[Cut], count: int, rules: ClipRules = RULES) -> list[tuple[int, int]]:
    return [(piece.first, piece.last) for piece in pieces(cuts, range(count), count, BASE, rules)]


def test_a_hard_cut_is_where_the_new_shot_begins() -> None:
    assert frames_of([cut(9, 10), cut(19, 25)], range(40)) == [(10, 10), (20, 25)]
    assert spans([cut(9, 10)], 30) == [(0, 10), (10, 30)]


def test_a_cut_is_said_to_be_in_the_middle_of_what_was_not_seen_and_a_transition_where_it_surely_is() -> None:
    gradual = Cut(start=15, end=29, kind="dissolve", detector="x", strength=1.0, core=(18, 25))
    assert places_of([cut(9, 10), gradual, cut(33, 36)], range(40)) == [(10, 10), (18, 26), (35, 35)]


def test_frames_of_a_gradual_transition_are_in_no_clip() -> None:
    assert spans([cut(19, 25)], 60) == [(0, 20), (25, 60)]


def test_a_margin_is_given_up_beside_cuts_and_not_at_the_ends_of_the_source() -> None:
    rules = ClipRules(min_seconds=1, max_seconds=4, margin_frames=2)
    assert spans([cut(29, 30)], 60, rules) == [(0, 28), (32, 60)]


def test_a_shot_swallowed_by_its_margins_leaves_no_clip() -> None:
    rules = ClipRules(min_seconds=1, max_seconds=4, margin_frames=2)
    assert spans([cut(29, 30), cut(32, 33)], 60, rules) == [(0, 28), (35, 60)]


@pytest.mark.parametrize("count", [99, 100, 101, 199, 201, 250, 601, 1001])
@pytest.mark.parametrize("longest", [4, 3.99, 1.5])
def test_long_shots_are_split_evenly_and_completely(count: int, longest: float) -> None:
    parts = spans([], count, ClipRules(min_seconds=1, max_seconds=longest))
    assert parts[0][0] == 0
    assert parts[-1][1] == count
    assert all(one[1] == other[0] for one, other in pairwise(parts))
    lengths = [last - first for first, last in parts]
    assert max(lengths) * BASE <= Fraction(longest).limit_denominator(1000)
    assert max(lengths) - min(lengths) <= 1


def test_a_shot_of_just_the_maximum_is_left_whole() -> None:
    """At most 4 s are 100 frames: excludes a part more than it takes."""
    assert spans([], 100) == [(0, 100)]
    assert spans([], 101) == [(0, 50), (50, 101)]
    assert spans([], 200) == [(0, 100), (100, 200)]


class Known:
    """A detector that says what it was told."""

    meaning: ClassVar[int] = 1
    tracks: ClassVar[tuple[str, ...]] = ()

    def __init__(self, *cuts: Cut) -> None:
        self._cuts = list(cuts)

    def cuts(self, tracks: Mapping[str, Track]) -> list[Cut]:
        return self._cuts


def rows_of(pts: list[int], end: int, *cuts: Cut, **rules: Any) -> list[dict[str, Any]]:
    """Clips of an observations row at 25 ticks a second."""
    probe = {"stream": 0, "width": 64, "height": 36, "time_base_num": 1, "time_base_den": 25}
    source = {"source_id": "s", "content_id": "k", "uri": "u", "manifest": None}
    row = {**source, "probe": probe, "pts": pts, "end": end, "tracks": []}
    return clip_rows(row, Known(*cuts), [], ClipRules(**{"min_seconds": 1, "max_seconds": 4, **rules}))


def test_lengths_are_inclusive() -> None:
    """A second is long enough and a tick less is not; one frame may stand for four seconds and not for a tick more."""
    shots = rows_of(list(range(100, 149)), 149, cut(124, 125))
    assert [(row["seconds"], row["status"]) for row in shots] == [(1, "ok"), (0.96, "too_short")]
    assert [rows_of([100], 100 + ticks)[0]["status"] for ticks in (24, 25, 100, 101)] == [
        "too_short", "ok", "ok", "too_long"
    ]  # fmt: skip
    assert rows_of([100], 102, min_seconds=0.08)[0]["status"] == "ok"  # 0.08 is 2 / 25, not the float beside it


def test_a_row_says_where_its_clip_lies() -> None:
    """Every second tick a frame, from tick 100 on: 12.5 a second. Excludes times from the clock's zero, frames counted from
    the cut, and a rate of the gaps between frames in place of the frames."""
    pts = list(range(100, 260, 2))
    _, row = rows_of(pts, 260, Cut(start=158, end=160, kind="cut", detector="x", strength=1.5))
    assert (row["first_frame"], row["frames"], row["fps"]) == (30, 50, 12.5)
    assert (row["start"], row["end"], row["start_seconds"], row["seconds"]) == (160, 260, 2.4, 4)
    assert span_of(row).seconds == 4
    assert (row["start_kind"], row["start_detector"], row["start_strength"]) == ("cut", "x", 1.5)
    assert (row["end_kind"], row["end_detector"], row["end_strength"]) == ("source", None, None)


def test_margins_are_the_same_on_both_sides() -> None:
    rules = ClipRules(min_seconds=1, max_seconds=4, margin_frames=3)
    assert spans([cut(29, 30), cut(69, 75)], 110, rules) == [(0, 27), (33, 67), (78, 110)]
    assert spans([cut(29, 30), cut(35, 36)], 60, rules) == [(0, 27), (39, 60)]  # six frames are all margin
    assert spans([cut(29, 30), cut(36, 37)], 60, rules) == [(0, 27), (33, 34), (40, 60)]


def test_a_pause_longer_than_the_maximum_stands_by_itself() -> None:
    pts = [*range(100), *range(300, 340)]  # frame 99 is shown for over eight seconds
    found = [(p.first, p.last) for p in pieces([], pts, 340, BASE, RULES)]
    assert (99, 100) in found
    assert found[0][0] == 0
    assert found[-1][1] == 140
    assert all(last == first for (_, last), (first, _) in itertools.pairwise(found))
    assert len(found) < 8


def test_the_maximum_holds_where_the_frame_rate_varies() -> None:
    pts = [n if n < 100 else 100 + 5 * (n - 100) for n in range(200)]  # slows down to a fifth
    parts = list(pieces([], pts, pts[-1] + 5, BASE, RULES))
    ends = [*pts, pts[-1] + 5]
    assert max(ends[piece.last] - pts[piece.first] for piece in parts) * BASE <= 4


def test_each_end_says_what_bounds_it() -> None:
    between = cut(149, 150)
    parts = list(pieces([between], range(200), 200, BASE, RULES))
    assert [(piece.before, piece.after) for piece in parts] == [(None, "length"), ("length", between), (between, None)]


def test_a_split_follows_the_content_and_keeps_its_shares() -> None:
    ids = [f"content-{n}" for n in range(4000)]
    splits = [split_of(identity, 0.1, 0.2) for identity in ids]
    assert splits == [split_of(identity, 0.1, 0.2) for identity in ids]
    assert splits.count("test") / len(ids) == pytest.approx(0.2, abs=0.03)
    assert splits.count("validation") / len(ids) == pytest.approx(0.1, abs=0.03)
    assert {split_of(identity, 0, 0) for identity in ids} == {"train"}


def test_another_validation_share_moves_nothing_in_or_out_of_test() -> None:
    ids = [f"content-{n}" for n in range(400)]
    tests = [[name for name in ids if split_of(name, share, 0.2) == "test"] for share in (0, 0.1, 0.8)]
    assert tests[0] == tests[1] == tests[2] != []
    wider = [[name for name in ids if split_of(name, share, 0.2) == "validation"] for share in (0.1, 0.3)]
    assert set(wider[0]) < set(wider[1])


def test_a_split_is_by_content_with_each_share_in_its_place() -> None:
    """Copies under other names share it."""
    for validation, test, wanted in ((1, 0, "validation"), (0, 1, "test"), (0, 0, "train")):
        rules = ClipRules(min_seconds=1, max_seconds=4, validation_share=validation, test_share=test)
        assert _named_split({"manifest": None, "content_id": "k"}, rules) == wanted
    half = ClipRules(min_seconds=1, max_seconds=4, validation_share=0.5, test_share=0)
    copies = [{"manifest": None, "content_id": "k", "source_id": f"s{n}", "uri": f"u{n}"} for n in range(20)]
    assert len({_named_split(copy, half) for copy in copies}) == 1


def test_a_manifests_own_split_wins() -> None:
    rules = ClipRules(min_seconds=1, max_seconds=4, validation_share=0, test_share=0)
    assert _named_split({"manifest": '{"split": "test"}', "content_id": "k"}, rules) == "test"
    assert _named_split({"manifest": '{"split": "holdout"}', "content_id": "k"}, rules) == "train"
    assert _named_split({"manifest": None, "content_id": "k"}, rules) == "train"


@pytest.mark.parametrize(
    ("word", "split"),
    [("val", "validation"), ("Dev", "validation"), ("VALID", "validation"), ("Test", "test"), ("testing", "test")],
)
def test_a_split_goes_by_any_of_its_names(word: str, split: str) -> None:
    rules = ClipRules(min_seconds=1, max_seconds=4, validation_share=0, test_share=0)
    assert _named_split({"manifest": json.dumps({"Split": word}), "content_id": "k"}, rules) == split
    assert _named_split({"manifest": json.dumps({"split": None}), "content_id": "k"}, rules) == "train"


# ---- spans that a manifest names -------------------------------------------------------------------------------------


def span_rows(spans: list[tuple[float, float]], *cuts: Cut, whole: bool = False, **row: Any) -> list[dict[str, Any]]:
    """Clips of a source of 4 s whose frames begin at ticks 100 to 199, at 25 a second, by its spans in seconds."""
    named = [
        {"span_id": f"p{n}", "start": start, "end": end, "manifest": json.dumps({"caption": f"c{n}"})}
        for n, (start, end) in enumerate(spans)
    ]
    probe = {"stream": 0, "width": 64, "height": 36, "time_base_num": 1, "time_base_den": 25}
    source = {"source_id": "s", "content_id": "k", "uri": "u", "manifest": '{"caption": "all"}', "tracks": []}
    observed = {**source, "probe": probe, "pts": list(range(100, 200)), "end": 200, **row}
    rules = ClipRules(min_seconds=0.2, max_seconds=4, margin_frames=3)
    return clip_rows(observed, Known(*cuts), [], rules, whole=whole, spans=named)


@pytest.mark.parametrize(
    ("span", "frames"),
    [
        ((0, 4), (0, 100)),
        ((1, 2), (25, 50)),  # [start, end): the frame at 2 s is the next span's
        ((0.04, 0.64), (1, 16)),
        ((0.041, 0.639), (1, 16)),  # rounded to milliseconds, it still names its frames
        ((0.05999, 1.0), (1, 25)),
        ((3.0, 4.1), (75, 100)),  # stated lengths reach a little past the last frame
    ],
)
def test_a_span_is_just_the_frames_that_begin_in_it(span: tuple[float, float], frames: tuple[int, int]) -> None:
    (clip,) = span_rows([span])
    assert (clip["first_frame"], clip["first_frame"] + clip["frames"]) == frames
    assert (clip["start"], clip["end"]) == (100 + frames[0], 100 + frames[1])
    assert (clip["status"], clip["span_start"], clip["span_end"]) == ("ok", *span)
    assert (clip["start_kind"], clip["end_kind"], clip["manifest"]) == ("span", "span", '{"caption": "c0"}')


def test_a_span_without_frames_is_a_row_with_its_reason() -> None:
    slow = {"pts": [100, 150], "end": 200}  # two frames, 2 s each
    assert [row["status"] for row in span_rows([(4, 5), (3, 4.2), (9, 10), (0, 0.1)])] == [
        "outside", "outside", "outside", "too_short"
    ]  # fmt: skip
    (row,) = span_rows([(0.5, 1.5)], **slow)
    assert (row["status"], row["span_id"], row.get("start"), row.get("frames")) == ("empty", "p0", None, None)
    assert (row["manifest"], row["split"]) == ('{"caption": "c0"}', "train")


def test_a_span_holds_its_cuts_and_says_so() -> None:
    """A hard cut at 50 and a transition of the frames 70 to 74, of whose ends one is enough."""
    cuts = (cut(149, 150), cut(169, 175))
    counts = {(0, 2): 0, (2, 2.8): 0, (1.96, 2.04): 1, (0, 2.04): 1, (2, 2.84): 1, (2.96, 4): 1, (3, 4): 0, (0, 4): 2}
    assert [row["cuts_inside"] for row in span_rows(list(counts), *cuts)] == list(counts.values())
    shots = span_rows([], *cuts, whole=True)
    assert [(row["first_frame"], row["frames"], row["cuts_inside"]) for row in shots] == [
        (0, 47, 0), (53, 14, 0), (78, 22, 0)
    ]  # fmt: skip


def test_a_span_and_a_shot_of_the_same_frames_are_two_clips() -> None:
    shot, span = span_rows([(0, 4)], whole=True)
    assert (shot["start"], shot["end"]) == (span["start"], span["end"])
    assert shot["clip_id"] == clip_id("s", "k", 0, 100, 200, BASE)  # which never changes
    assert shot["clip_id"] != span["clip_id"]
    assert (shot["manifest"], span["manifest"]) == ('{"caption": "all"}', '{"caption": "c0"}')


def test_few_long_frames_are_pieces_of_one_frame() -> None:
    pts = [0, 625, 1250, 1875]  # 25 s apart
    parts = list(pieces([], pts, 2500, BASE, RULES))
    assert [(piece.first, piece.last) for piece in parts] == [(0, 1), (1, 2), (2, 3), (3, 4)]
