"""An mp4 track with several sample descriptions: each picture has the pixels of its own, none those of another."""

from __future__ import annotations

import io
from fractions import Fraction
from pathlib import Path
from typing import Any

import fsspec
import pytest

from dailies.curation import video
from dailies.curation.clips import clip_rows
from dailies.curation.detectors import BoundaryDetector
from dailies.curation.observers import BoundaryObserver
from dailies.curation.video.boxes import described_aspects
from tests.rendered_video import reboxed, render, with_descriptions
from tests.test_geometry import LARGE, RULES, check_modes, disc, observe_file

TALL = LARGE[::-1]
WIDE = Fraction(4, 3)


def sizes(uri: str) -> list[tuple[int, int]]:
    """Sizes of the pictures, upright and of square pixels, as they follow each other."""
    with video.open_source(uri) as source:
        return list(dict.fromkeys(picture.canvas.size for picture in source.frames()))


@pytest.mark.parametrize("stated", [True, False])
def test_a_track_of_two_sizes_has_square_pixels_in_both(stated: bool, tmp_path: Path) -> None:
    """Excludes the size on screen, which is that of the first, over the size of the second: 1011 × 180."""
    parts: list[dict[str, Any]] = [{"size": size, "picture": disc} for size in (LARGE, TALL)]
    path = with_descriptions(tmp_path / "x.mp4", *parts, stated=stated)
    row = observe_file(path, [BoundaryObserver()])
    clips = clip_rows(row, BoundaryDetector(), [BoundaryObserver()], RULES)
    assert [(c["first_frame"], c["frames"], c["width"], c["height"]) for c in clips] == [
        (0, 18, *LARGE), (18, 18, *TALL)
    ]  # fmt: skip
    for clip in clips:
        check_modes(path, clip)


@pytest.mark.parametrize("stated", [True, False])
@pytest.mark.parametrize(
    ("parts", "right"),
    [
        ([((160, 120), None), ((160, 120), WIDE)], [(160, 120), (213, 120)]),
        ([((160, 120), WIDE), ((120, 160), None)], [(213, 120), (120, 160)]),
        ([((120, 160), None), ((160, 120), WIDE)], [(120, 160), (213, 120)]),
        ([((160, 90), None), ((320, 180), None)], [(160, 90), (320, 180)]),
    ],
)
def test_each_description_speaks_of_its_own_pictures(
    parts: list[tuple[tuple[int, int], Fraction | None]], right: list[tuple[int, int]], stated: bool, tmp_path: Path
) -> None:
    given = [{"size": size, "aspect": aspect} for size, aspect in parts]
    path = with_descriptions(tmp_path / "x.mp4", *given, stated=stated)
    assert sizes(str(path)) == right
    fsspec.filesystem("memory").pipe("/v/described.mp4", path.read_bytes())
    assert sizes("memory://v/described.mp4") == right


def test_alike_descriptions_leave_the_containers_word(tmp_path: Path) -> None:
    """Two recordings of one camera whose pictures say nothing of their pixels: the file's size on screen holds for both."""
    path = with_descriptions(tmp_path / "x.mp4", {"size": (160, 120)}, {"size": (160, 120)})
    on_screen = (213 << 16).to_bytes(4, "big") + (120 << 16).to_bytes(4, "big")
    path.write_bytes(reboxed(path.read_bytes(), {b"tkhd": lambda header: header[:-8] + on_screen}))
    assert sizes(str(path)) == [(213, 120)]


def test_boxes_tell_what_is_stated_of_each_size_and_nothing_where_they_are_cut_short(tmp_path: Path) -> None:
    parts: list[dict[str, Any]] = [
        {"size": (160, 120), "aspect": WIDE}, {"size": (120, 160)}, {"size": (64, 64)}, {"size": (64, 64), "aspect": WIDE}
    ]  # fmt: skip
    data = with_descriptions(tmp_path / "x.mp4", *parts).read_bytes()
    stated = described_aspects(io.BytesIO(data), 1)
    assert stated is not None
    assert stated[160, 120] == WIDE
    assert stated.get((120, 160), 1) == 1
    assert (64, 64) not in stated
    assert described_aspects(io.BytesIO(data), 2) is None  # there is no such track
    render(tmp_path / "one.mp4", aspect=WIDE, count=2)
    assert described_aspects(io.BytesIO((tmp_path / "one.mp4").read_bytes()), 1) is None
    moov = data.index(b"moov") - 4
    for end in range(moov, len(data), 97):
        described_aspects(io.BytesIO(data[:end]), 1)
