"""The report in a real browser: opened from disk, on a phone and a desktop, in light and dark; and live, where clips play."""

from __future__ import annotations

import io
import time
from collections.abc import Iterator
from pathlib import Path
from threading import Thread
from typing import Any

import numpy as np
import pytest
from PIL import Image

import dailies as door
from dailies.curation import world
from dailies.curation.tables import DatasetTables
from dailies.pipelines.report import gather, serve, write_report
from dailies.pipelines.report.data import ReportData
from tests.browser import browser, keep, watched
from tests.report_dataset import build

SIZES = {"phone": {"width": 375, "height": 812}, "desktop": {"width": 1280, "height": 900}}
RECIPE = """
name: live
steps:
  - observe: {observers: [boundary, motion], evidence: {fps: 2, short_side: 180}}
  - cut: {detector: boundary, min_seconds: 1, max_seconds: 4}
  - select: {rules: {motion: {min: 0.3, nulls: drop}}}
  - export: {preset: ultrafast}
"""


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    with browser() as shown:
        yield shown


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, ReportData]:
    dataset = build(tmp_path_factory.mktemp("browser") / "dataset", 300).path
    return f"file://{write_report(dataset)}", gather(str(dataset))


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", SIZES)
def test_the_page_opens_from_disk_and_asks_nothing(size: str, scheme: Any, chromium: Any, written: Any) -> None:
    url, _ = written
    with watched(chromium, url, viewport=SIZES[size], color_scheme=scheme) as (page, said, asked):
        assert said == []
        assert asked == [url]
        assert page.title().startswith("dataset:")  # a hostile caption sets another
        assert page.evaluate("document.documentElement.scrollWidth") == SIZES[size]["width"]
        picture = np.asarray(Image.open(io.BytesIO(keep(page, f"{size}-{scheme}"))).convert("L"), dtype=float)
        assert picture.shape[1] == SIZES[size]["width"]
        assert (np.median(picture) > 200) == (scheme == "light")
        assert (np.median(picture) < 60) == (scheme == "dark")
        assert _too_small(page) == []
        assert _unnamed(page) == []


def _too_small(page: Any) -> list[str]:
    """Text under 12 px, and controls that a finger misses."""
    found: list[str] = page.evaluate(
        """() => [...document.querySelectorAll('body *')].filter((each) =>
             [...each.childNodes].some((node) => node.nodeType === 3 && node.textContent.trim())
             && !each.closest('script, [hidden], dialog') && parseFloat(getComputedStyle(each).fontSize) < 12)
           .map((each) => each.textContent.slice(0, 30))
           .concat([...document.querySelectorAll('input[type=range]')]
             .filter((each) => each.getBoundingClientRect().height < 24).map((each) => each.id))"""
    )
    return found


def _unnamed(page: Any) -> list[str]:
    """Pictures and controls without a name for who cannot see them, and headings that skip a level."""
    found: list[str] = page.evaluate(
        """() => {
          const bare = [...document.querySelectorAll('[role=img], [tabindex], button, input')].filter((each) =>
            !each.getAttribute('aria-label') && !each.labels?.length && !each.textContent.trim());
          let level = 0;
          const skips = [...document.querySelectorAll('h1, h2, h3, h4')].filter((each) => {
            const its = Number(each.tagName[1]), skip = its > level + 1;
            level = its;
            return skip;
          });
          return [...bare, ...skips].map((each) => each.outerHTML.slice(0, 80));
        }"""
    )
    return found


def test_a_slider_says_what_the_limit_keeps(chromium: Any, written: Any) -> None:
    """By keys, as by a finger; the numbers are those that were counted, which other tests count again."""
    url, data = written
    limits = [limit for score in data.scores for limit in score.thresholds]
    with watched(chromium, url, viewport=SIZES["desktop"]) as (page, said, asked):
        sliders = page.locator("input[data-slider]")
        assert sliders.count() == len(limits)
        for number, limit in enumerate(limits):
            out, command = page.locator(f"[data-out='{number}']"), page.locator(f"[data-set='{number}']")
            before = out.text_content()
            assert f"keeps {limit.clips[limit.at]:,} clips" in before
            assert not command.is_visible()
            line = page.locator(f"article:has(#m{number}) line.limit")
            x = float(line.get_attribute("x1"))
            sliders.nth(number).focus()
            for _ in range(4):
                page.keyboard.press("ArrowRight")
            at = limit.at + 4
            change = limit.clips[at] - limit.clips[limit.at]
            assert f"keeps {limit.clips[at]:,} clips ({'+' if change > 0 else '−' if change < 0 else '±'}" in (
                out.text_content()
            )
            value = limit.shares[at] if limit.quantile else limit.positions[at]
            assert command.text_content() == f"{limit.setting}={value}"
            assert command.is_visible()
            assert float(line.get_attribute("x1")) > x
            for _ in range(4):
                page.keyboard.press("ArrowLeft")
            assert out.text_content() == before
        assert said == []
        assert asked == [url]


def test_the_thumb_stands_under_its_line(chromium: Any, written: Any) -> None:
    url, _ = written
    with watched(chromium, url, viewport=SIZES["desktop"]) as (page, _, _):
        plot = page.locator(".score svg.histogram").first.bounding_box()
        slider = page.locator("input[data-slider]").first.bounding_box()
        assert slider["x"] == pytest.approx(plot["x"] - 12, abs=1)  # half a thumb
        assert slider["width"] == pytest.approx(plot["width"] + 24, abs=1)


def test_a_clip_runs_while_it_has_the_focus(chromium: Any, written: Any) -> None:
    url, _ = written
    with watched(chromium, url, viewport=SIZES["phone"], has_touch=True) as (page, _, _):
        frame = page.locator(".frame[tabindex]").first
        strip = frame.locator(".strip")
        name = "each => getComputedStyle(each).animationName"
        assert strip.evaluate(name) == "none"
        frame.tap()
        assert strip.evaluate(name) == "run"
        assert "steps(5" in strip.evaluate("each => getComputedStyle(each).animationTimingFunction")
        assert frame.get_attribute("aria-label").startswith("Frames of ")


def test_without_scripts_the_page_still_says_everything(chromium: Any, written: Any) -> None:
    url, data = written
    with watched(chromium, url, viewport=SIZES["phone"], java_script_enabled=False) as (page, _, _):
        assert page.locator("input[data-slider]").first.is_hidden()
        assert f"keeps {data.funnel.kept.clips:,} clips" in page.locator(".keeps").first.text_content()


def test_an_exported_clip_plays_live(chromium: Any, tmp_path: Path) -> None:
    script = world.write_script((9,), shots=2, shot_frames=(40, 50), transitions=["cut"], still=0.0, text=0.0)
    world.encode(script, tmp_path / "a.mp4")
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    out = tmp_path / "dataset"
    recipe = str(tmp_path / "recipe.yaml")
    door.curate(str(tmp_path / "a.mp4"), out, recipe=recipe, engine="local", workers=1, progress=door.silent)
    times = {each.step: each for each in gather(str(out)).times}
    assert set(times) == {"observe", "cut", "select.main", "export.export"}
    assert all(each.runs == 1 and each.seconds > 0 for each in times.values())
    serving = serve(str(out))
    Thread(target=serving.run, daemon=True).start()
    try:
        with watched(chromium, serving.address, viewport=SIZES["desktop"]) as (page, said, asked):
            page.locator("button[data-clip]").first.click()
            video = page.locator("dialog[open] video")
            until = time.monotonic() + 15
            while video.evaluate("each => each.readyState") < 2 and time.monotonic() < until:
                time.sleep(0.05)
            if video.evaluate("each => each.canPlayType('video/mp4; codecs=\"avc1.42E01E\"')"):
                clips = DatasetTables.open(out).table("selections/main").read(["clip_id"])["clip_id"].to_pylist()
                assert video.evaluate("each => each.videoWidth") == 320
                assert any(url.endswith(f"/clip/{clip}") for url in asked for clip in clips)
            page.keyboard.press("Escape")
            assert page.locator("dialog[open]").count() == 0
            assert said == []
            assert all(url.startswith(serving.address) for url in asked)
    finally:
        serving.stop()
