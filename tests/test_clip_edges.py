"""Which frames, which part and which reason count at the edges of clips: holes, changes of size, spans, exact cuts."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from fractions import Fraction
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from dailies.curation import cuts as exact_cuts
from dailies.curation.clips import ClipRules, clip_rows, failed_row, holes_of, pieces
from dailies.curation.detectors import Detector
from dailies.curation.errors import Unreadable
from dailies.curation.geometry import larger, largest_within, shape_change, with_changes
from dailies.curation.observe import HOLES
from dailies.curation.observers import Observer
from dailies.curation.observers.tracking import FULL_SIZE
from dailies.curation.timing import Span
from dailies.curation.types import Cut, FrameSampling, Track
from tests.test_clips import BASE, RULES, Known, cut
from tests.test_geometry import at

MARGIN = ClipRules(min_seconds=0.2, max_seconds=4, margin_frames=3)


class Where:
    """An observer that says which span it was asked for."""

    def __init__(self, name: str, short_side: int) -> None:
        self.name, self.needs = name, FrameSampling(fps=None, short_side=short_side, planes="gray")

    def reduce(self, _tracks: Mapping[str, Track], span: Span) -> Mapping[str, Any]:
        return {self.name: (span.start, span.end)}


def hole_row(*holes: tuple[int, float]) -> list[dict[str, Any]]:
    """The tracks of a source that lacks a part before each tick, the frame before being shown for so many seconds."""
    return [{"name": HOLES, "pts": [until for until, _ in holes], "values": [seconds for _, seconds in holes]}]


def clips_of(*cuts: Cut, spans: Sequence[tuple[float, float]] = (), rules: ClipRules = RULES, **row: Any) -> Any:
    """Clips of a source of 4 s whose frames begin at ticks 100 to 199, at 25 a second."""
    probe = {"stream": 0, "width": 64, "height": 36, "time_base_num": 1, "time_base_den": 25}
    source = {"source_id": "s", "content_id": "k", "uri": "u", "manifest": None, "tracks": []}
    observed = {**source, "probe": probe, "pts": list(range(100, 200)), "end": 200, **row}
    named = [{"span_id": f"p{n}", "start": a, "end": b, "manifest": "{}"} for n, (a, b) in enumerate(spans)]
    observers = cast(Sequence[Observer], [Where("full", FULL_SIZE), Where("small", 64)])
    return clip_rows(observed, cast(Detector, Known(*cuts)), observers, rules, whole=not spans, spans=named)


# ---- changes of size ------------------------------------------------------------------------------------------------


def sized(*sizes: tuple[int, int, int]) -> list[dict[str, Any]]:
    fields = ("pts", "width", "height", "rotation", "pixel_format", "pixel_aspect")
    return [{name: getattr(at(*size), name) for name in fields} for size in sizes]


def test_what_needs_the_full_size_is_measured_where_the_pictures_have_it_and_all_else_over_the_whole_clip() -> None:
    geometries = sized((100, 320, 180), (130, 640, 360), (170, 320, 180))
    (clip,) = clips_of(geometries=geometries)
    assert (clip["width"], clip["height"], clip["full"], clip["small"]) == (640, 360, (130, 170), (100, 200))
    first, last = clips_of(cut(149, 150), geometries=geometries)
    assert (first["full"], first["small"]) == ((130, 150), (100, 150))
    assert (last["full"], last["small"]) == ((150, 170), (150, 200))
    (span,) = clips_of(spans=[(0, 1.28)], geometries=geometries)
    assert (span["width"], span["full"], span["small"]) == (640, (130, 132), (100, 132))


def test_a_source_without_geometries_has_the_size_of_its_probe() -> None:
    (clip,) = clips_of()
    assert (clip["width"], clip["height"], clip["full"]) == (64, 36, (100, 200))


def test_the_larger_picture_is_so_by_area_and_of_equals_the_first_stays() -> None:
    assert larger((320, 180), (180, 400)) == (180, 400)
    assert larger((320, 180), (180, 320)) == (320, 180)
    whole = Span(start=0, end=30, time_base=BASE)
    assert largest_within([at(0, 320, 180), at(10, 180, 320), at(20, 320, 180)], whole) == (
        (320, 180), Span(start=0, end=10, time_base=BASE)
    )  # fmt: skip


def test_shapes_differ_by_over_a_percent_either_way() -> None:
    for wide, over in ((1009, False), (1011, True)):
        assert (shape_change((1000, 1000), (wide, 1000)) > 1) is over
        assert (shape_change((wide, 1000), (1000, 1000)) > 1) is over


@pytest.mark.parametrize(
    ("start", "end", "covers"), [(36, 38, False), (36, 40, True), (38, 42, True), (38, 46, True), (40, 42, False)]
)
def test_a_cut_stands_for_a_change_that_lies_behind_its_first_and_up_to_its_last_picture(
    start: int, end: int, covers: bool
) -> None:
    """The first picture of the new shape is at 40; a cut whose old shot ends there is another."""
    known = Cut(start=start, end=end, kind="dissolve", detector="x", strength=1.5)
    found = with_changes([known], [at(0, 320, 180), at(40, 180, 320)], range(0, 100, 2))
    assert [each.kind for each in found].count("geometry") == (not covers)
    assert [each.start for each in found] == sorted(each.start for each in found)


# ---- holes ----------------------------------------------------------------------------------------------------------


def between(cuts: list[Cut], holes: dict[int, int], rules: ClipRules = MARGIN) -> list[tuple[Any, ...]]:
    """(first, last, end, kind before, kind behind) of the pieces of 100 frames, a tick each."""
    return [
        (p.first, p.last, p.end, *(by.kind if isinstance(by, Cut) else by for by in (p.before, p.after)))
        for p in pieces(cuts, range(100), 100, BASE, rules, holes)
    ]


def test_a_hole_bounds_clips_without_a_margin_and_the_frame_before_lasts_as_long_as_it_is_shown() -> None:
    assert between([], {40: 45}) == [(0, 40, 45, None, "hole"), (40, 100, 100, "hole", None)]


def test_a_hard_cut_at_a_hole_is_the_hole() -> None:
    assert between([cut(39, 40)], {40: 45}) == between([], {40: 45})
    assert [piece[:2] for piece in between([cut(38, 39)], {40: 45})] == [(0, 36), (40, 100)]


@pytest.mark.parametrize("place", [40, 43, 45])
def test_a_hole_at_a_transition_adds_no_edge(place: int) -> None:
    """Its frames 40 to 44 are no clip's."""
    found = between([cut(39, 45)], {place: place + 2})
    assert [piece[:2] + piece[3:] for piece in found] == [(0, 37, None, "dissolve"), (48, 100, "dissolve", None)]


def test_a_hole_is_before_the_frame_at_its_tick_and_there_is_none_before_the_first() -> None:
    pts = [100, 102, 110, 112]
    track = Track(name=HOLES, pts=np.array([100, 110]), values=np.array([0.5, 0.12], np.float32))
    assert holes_of({HOLES: track}, pts, BASE) == {2: 105}
    assert holes_of({}, pts, BASE) == {}


def test_a_span_counts_the_holes_in_it_and_ends_where_its_last_frame_does() -> None:
    """A hole before the frame at 2 s, whose frame before is shown for 0.2 s."""
    pts = [*range(100, 150), *range(160, 200)]
    rows = clips_of(spans=[(0, 2), (0, 4), (2.4, 4), (1, 2.44)], pts=pts, tracks=hole_row((160, 0.2)))
    assert [(row["cuts_inside"], row["end"]) for row in rows] == [(0, 154), (1, 200), (0, 200), (1, 161)]


# ---- spans ----------------------------------------------------------------------------------------------------------


def test_a_span_may_end_a_tenth_of_a_second_past_its_source_and_no_tick_more() -> None:
    probe = {"stream": 0, "width": 64, "height": 36, "time_base_num": 1, "time_base_den": 50}
    rows = clips_of(spans=[(3, 4.1), (3, 4.12), (3.98, 4), (4, 4.1)], pts=list(range(100, 300)), end=300, probe=probe)
    assert [row["status"] for row in rows] == ["ok", "outside", "too_short", "outside"]
    assert (rows[1]["width"], rows[1]["height"], rows[1].get("seconds")) == (64, 36, None)


def test_a_span_is_not_split_but_too_long() -> None:
    (row,) = clips_of(spans=[(0, 4)], rules=ClipRules(min_seconds=1, max_seconds=3))
    assert (row["status"], row["frames"], row["start_kind"]) == ("too_long", 100, "span")


def test_a_span_is_known_by_content_and_failures_by_what_failed() -> None:
    """Copies of a source share its clips of spans; two spans of one failed source are two rows."""
    one, copy, other = (clips_of(spans=[(0, 2)], **row)[0]["clip_id"] for row in
                        ({}, {"source_id": "t"}, {"content_id": "l"}))  # fmt: skip
    assert one == copy != other
    error = Unreadable("x")
    ids = {failed_row("s", error, span)["clip_id"] for span in (None, "p0", "p1")}
    assert len(ids) == 3
    assert json.loads(json.dumps(failed_row("s", error, "p0")))["span_id"] == "p0"


# ---- exact cuts -----------------------------------------------------------------------------------------------------


class Shown:
    """A source whose pictures, one a tick, are each of one level; asked for, a span gives those in it."""

    def __init__(self, *levels: int) -> None:
        self._levels = levels

    def __enter__(self) -> Shown:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def frames(self, span: Span, _heartbeat: Any = None) -> Iterator[Any]:
        for pts in range(span.start, min(span.end, len(self._levels))):
            pixels = np.full((90, 160, 3), self._levels[pts], np.uint8)
            yield SimpleNamespace(pts=pts, planes=lambda _, pixels=pixels: pixels)


@pytest.mark.parametrize(("new", "first"), [(11, 11), (12, 12), (14, 14)])
def test_a_hard_cut_is_where_the_picture_changes_most_also_at_the_ends(
    new: int, first: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ten and fourteen were decoded, a light change of each picture between; a transition and a fade are left as they are."""
    levels = [20 + 2 * n + (150 if n >= new else 0) for n in range(40)]
    hard, gradual, fade = (
        Cut(start=start, end=end, kind=kind, detector="x", strength=1.0)
        for start, end, kind in ((10, 14, "cut"), (20, 26, "dissolve"), (30, 39, "fade"))
    )
    seen = SimpleNamespace(tracks=[], pts=list(range(40)), probe=SimpleNamespace(stream=0, time_base=Fraction(1, 25)))
    monkeypatch.setattr(exact_cuts, "observe", lambda *_: seen)
    monkeypatch.setattr(exact_cuts, "Extractor", lambda *_, **__: Shown(*levels))
    found = exact_cuts.find_cuts("u", [], cast(Detector, Known(hard, gradual, fade)))
    assert [(each.start, each.end, place) for each, place in found] == [
        (first - 1, first, (first, first)), (20, 26, (23, 23))
    ]  # fmt: skip


# ---- pauses within the maximum --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("durations", "parts"),
    [
        # in ticks of 1/25 s, of which 100 are allowed: frames of each part
        pytest.param([1] * 100 + [100], [100, 1], id="a pause of exactly the maximum"),
        pytest.param([1] * 100 + [99], [100, 1], id="one just below"),
        pytest.param([1] * 50 + [90] + [1] * 50, [50, 1, 50], id="one among moving frames"),
        pytest.param([99] * 3, [1, 1, 1], id="slides"),
        pytest.param([1] * 100 + [101] + [1] * 100, [100, 1, 100], id="a longer one stands alone"),
        pytest.param([2] * 60, [30, 30], id="even frames"),
    ],
)
def test_a_pause_does_not_shatter_the_shot_around_it(durations: list[int], parts: list[int]) -> None:
    edges = [0]
    for ticks in durations:
        edges.append(edges[-1] + ticks)
    rows = clips_of(pts=edges[:-1], end=edges[-1], rules=ClipRules(min_seconds=0.04, max_seconds=4))
    cut_out = [row for row in rows if row["status"] != "failed"]
    assert sum(row["frames"] for row in cut_out) == len(durations)
    assert [row["frames"] for row in cut_out] == parts
