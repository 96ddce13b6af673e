"""The evaluators are tested, so that their figures can be believed."""

from __future__ import annotations

from typing import Any

from benchmarks.cuts import impure, matched, summarise


def event(frame: int, end: int | None = None, kind: str = "cut") -> dict[str, Any]:
    return {"frame": frame, "end": end if end is not None else frame, "kind": kind}


def test_a_cut_is_found_within_two_frames() -> None:
    assert matched([event(10)], [12]) == ([True], 0)
    assert matched([event(10)], [13]) == ([False], 1)


def test_a_gradual_transition_is_found_anywhere_inside() -> None:
    assert matched([event(10, 30, "dissolve")], [25]) == ([True], 0)
    assert matched([event(10, 30, "dissolve")], [33]) == ([False], 1)


def test_matching_is_one_to_one() -> None:
    assert matched([event(10)], [9, 11]) == ([True], 1)
    assert matched([event(10), event(11)], [10]) == ([True, False], 0)


def test_purity() -> None:
    events = [event(10), event(30, 40, "wipe")]
    assert impure(events, [(0, 10), (10, 30), (40, 60)]) == 0
    assert impure(events, [(0, 11), (10, 31), (39, 60), (31, 39)]) == 4


def test_figures() -> None:
    result = summarise([([event(10), event(50)], [10, 20], [(0, 10), (20, 60)])])
    assert (result["precision"], result["recall"], result["f1"]) == (0.5, 0.5, 0.5)
    assert result["recall_by_kind"] == {"cut": "1/2"}
    assert (result["clips"], result["impure_clips"]) == (2, 1)
