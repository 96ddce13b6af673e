"""Clips as the trainer reads them: which frames, how large, by either library, from bytes and from sources."""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args

import cv2
import numpy as np
import pytest

from dailies.curation import video
from dailies.curation.timing import Span
from dailies.training.data.reader import Backend, read
from tests.rendered_video import UNEVEN, number, render

BACKENDS = get_args(Backend)


def row_of(path: Path, mode: Any = "encode", **more: Any) -> dict[str, Any]:
    """The columns of an export's row that reading asks for."""
    source = video.open_source(str(path))
    pts = [picture.pts for picture in video.stream(source)]
    span = Span(start=pts[0], end=pts[-1] + (pts[-1] - pts[-2]), time_base=source.time_base)
    cut = video.extract_clip(str(path), span, mode, encoding=video.Encoding(crf=12))
    return {
        "video": cut.data,
        "uri": str(path),
        "content_id": video.content_id(str(path))[0],
        "stream": 0,
        "source_start": span.start,
        "source_end": span.end,
        "time_base_num": span.time_base.numerator,
        "time_base_den": span.time_base.denominator,
        "extraction": mode,
        "fps": cut.fps,
        "width": cut.width,
        "height": cut.height,
        **{f"crop_{side}": 0 for side in ("left", "top", "right", "bottom")},
        **more,
    }


def numbers(pixels: np.ndarray) -> list[int]:
    return [number(rgb.mean(-1)) for rgb in pixels]


@pytest.mark.parametrize("mode", ["encode", "smart", "none"])
@pytest.mark.parametrize("backend", BACKENDS)
def test_frames_lie_on_the_grid(backend: Backend, mode: str, tmp_path: Path) -> None:
    render(tmp_path / "a.mp4")  # 36 frames at 25 per second
    row = row_of(tmp_path / "a.mp4", mode)
    assert numbers(read(row, 25, 36, (192, 108), backend)) == list(range(36))
    assert numbers(read(row, 5, 8, (96, 56), backend)) == [0, 5, 10, 15, 20, 25, 30, 35]
    assert numbers(read(row, 8, 4, (96, 56), backend)) == [0, 3, 6, 9]  # 3.1, 6.3, 9.4: half a frame early counts
    assert numbers(read(row, 40, 4, (96, 56), backend)) == [0, 1, 1, 2]
    assert numbers(read(row, 5, 10, (96, 56), backend))[-2:] == [35, 35]


@pytest.mark.parametrize("backend", BACKENDS)
def test_variable_rates_are_read_by_time(backend: Backend, tmp_path: Path) -> None:
    render(tmp_path / "a.mp4", pts=UNEVEN)
    row = row_of(tmp_path / "a.mp4")
    half = 600 * 0.5 / row["fps"]
    wanted = [next(n for n, at in enumerate(UNEVEN) if at >= point * 100 - half) for point in range(9)]
    assert numbers(read(row, 6, 9, (192, 108), backend)) == wanted


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("size", [(96, 56), (64, 64), (56, 96), (192, 108), (384, 216), (85, 48), (50, 28)])
def test_frames_cover_the_size_and_hardly_more(backend: Backend, size: tuple[int, int], tmp_path: Path) -> None:
    render(tmp_path / "a.mp4", count=3)
    pixels = read(row_of(tmp_path / "a.mp4"), 25, 2, size, backend)
    height, width = pixels.shape[1:3]
    assert (width >= size[0], height >= size[1]) == (True, True)
    assert min(width - size[0], height - size[1]) <= 2
    assert width / height == pytest.approx(192 / 108, rel=0.06)
    for shown, whole in zip(pixels, read(row_of(tmp_path / "a.mp4"), 25, 2, (192, 108), backend), strict=True):
        wanted = cv2.resize(whole, (width, height), interpolation=cv2.INTER_AREA)
        assert np.abs(shown.astype(int) - wanted).mean() < 4  # all of the picture, from edge to edge


def test_a_source_is_cropped_as_its_row_says(tmp_path: Path) -> None:
    render(tmp_path / "a.mp4", count=3, options={"crf": "8"})
    whole = row_of(tmp_path / "a.mp4", "none")
    cropped = whole | {"crop_left": 32, "crop_top": 8, "width": 160, "height": 100}
    full = read(whole, 25, 2, (192, 108))
    inner = read(cropped, 25, 2, (160, 100))
    assert inner.shape == (2, 100, 160, 3)
    assert np.abs(inner.astype(int) - full[:, 8:, 32:]).mean() < 1


def test_both_libraries_give_the_same_pictures(tmp_path: Path) -> None:
    render(tmp_path / "a.mp4", size=(384, 216))
    row = row_of(tmp_path / "a.mp4")
    one, other = (read(row, 25, 5, (384, 216), backend) for backend in BACKENDS)
    assert numbers(one) == numbers(other) == list(range(5))
    assert np.abs(one.astype(int) - other).mean() < 2
