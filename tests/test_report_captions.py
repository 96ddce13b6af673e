"""Captioners beside each other in the report: counted on known captions, and looked at in a browser."""

from __future__ import annotations

import io
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from dailies.pipelines.report import gather, write_report
from dailies.pipelines.report.data import ReportData
from tests import captioned_dataset, report_dataset
from tests.browser import browser, keep, watched
from tests.report_dataset import HOSTILE

SIZES = {"phone": {"width": 375, "height": 812}, "desktop": {"width": 1280, "height": 900}}
OTHERS = [
    None if number % 9 == 4 else HOSTILE if number == 1 else " ".join(["a ring over sand"] * (1 + number % 7))
    for number in range(60)
]
STATUS = ["failed" if text is None else "truncated" if number % 5 == 0 else "ok" for number, text in enumerate(OTHERS)]
FLAGS = ["against_camera,long" if text and number % 6 == 0 else None for number, text in enumerate(OTHERS)]


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("report") / "dataset"
    captioned_dataset.build(path, OTHERS, status=STATUS, flags=FLAGS)
    return path


@pytest.fixture(scope="module")
def data(path: Path) -> ReportData:
    return gather(str(path))


def test_captioners_stand_beside_each_other(data: ReportData) -> None:
    first, other = data.captioners
    usable = data.funnel.clips.clips - sum(step.fell.clips for step in data.funnel.steps if step.reason == "too_short")
    assert (first.column, other.column) == ("caption_motion", "caption_other")
    assert first.usable == other.usable == first.texts == usable
    assert other.texts == sum(text is not None for text in OTHERS)
    assert dict(other.statuses) == Counter(STATUS)
    assert list(other.statuses) == sorted(other.statuses, key=lambda item: -item[1])
    assert other.flagged == sum(flag is not None for flag in FLAGS) == dict(other.flags)["long"]
    assert (first.flagged, first.flags) == (0, ())


def test_lengths_share_an_axis_and_count_every_caption(data: ReportData) -> None:
    first, other = (part.lengths for part in data.captioners)
    assert first is not None
    assert other is not None
    assert first.histogram.edges == other.histogram.edges
    counts = [len(text.split()) for text in OTHERS if text]
    assert (other.known, other.quantiles[0], other.quantiles[4]) == (len(counts), min(counts), max(counts))
    bins = [sum(each) for each in zip(other.histogram.kept, other.histogram.by_others, strict=True)]
    assert bins == np.histogram(counts, other.histogram.edges)[0].tolist()


def test_what_stands_there_is_not_charted_again(data: ReportData) -> None:
    assert [score.column for score in data.lengths] == ["seconds"]
    assert not [chart.column for chart in data.charts if chart.column.startswith(("status_", "flags_", "caption_"))]


def test_one_captioner_stands_beside_nobody(tmp_path: Path) -> None:
    alone = gather(str(report_dataset.build(tmp_path / "dataset", 20).path))
    assert alone.captioners == ()
    assert [score.column for score in alone.lengths] == ["seconds", "caption_motion"]


def test_the_page_reads_at_any_size_in_light_and_dark(path: Path) -> None:
    url = f"file://{write_report(str(path))}"
    with browser() as chromium:
        for size in SIZES:
            for scheme in ("light", "dark"):
                with watched(chromium, url, viewport=SIZES[size], color_scheme=scheme) as (page, said, asked):
                    look(page, f"captions-{size}-{scheme}", SIZES[size]["width"], scheme)
                    assert said == []
                    assert asked == [url]


def look(page: Any, name: str, width: int, scheme: str) -> None:
    assert page.title().startswith("dataset:")
    assert page.evaluate("document.documentElement.scrollWidth") == width
    shown = page.locator("#captions .captioners article")
    assert shown.count() == 2
    boxes = [shown.nth(number).bounding_box() for number in range(2)]
    assert (boxes[0]["y"] == boxes[1]["y"]) == (width > 720), "side by side where there is room"
    assert "against camera" in shown.nth(1).inner_text()
    picture = page.locator("#captions").screenshot()
    keep(page, name)
    pixels = np.asarray(Image.open(io.BytesIO(picture)).convert("L"), dtype=float)
    assert (np.median(pixels) > 200) == (scheme == "light")
