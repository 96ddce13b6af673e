"""From cuts to clips: every frame of a clip is of one shot, lengths are kept, nothing is lost without a row."""

from __future__ import annotations

import itertools
from fractions import Fraction
from itertools import pairwise

import pytest

from dailies.curation.clips import ClipRules, _named_split, frames_of, pieces, places_of, split_of
from dailies.curation.types import Cut

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


def test_a_manifests_own_split_wins() -> None:
    rules = ClipRules(min_seconds=1, max_seconds=4, validation_share=0, test_share=0)
    assert _named_split({"manifest": '{"split": "test"}', "content_id": "k"}, rules) == "test"
    assert _named_split({"manifest": '{"split": "holdout"}', "content_id": "k"}, rules) == "train"
    assert _named_split({"manifest": None, "content_id": "k"}, rules) == "train"


def test_few_long_frames_are_pieces_of_one_frame() -> None:
    pts = [0, 625, 1250, 1875]  # 25 s apart
    parts = list(pieces([], pts, 2500, BASE, RULES))
    assert [(piece.first, piece.last) for piece in parts] == [(0, 1), (1, 2), (2, 3), (3, 4)]
