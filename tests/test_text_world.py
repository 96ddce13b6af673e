"""Text areas against the rendered world's truth, and what stays in place over footage that moves."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from benchmarks.text import errors
from dailies.curation import world
from dailies.curation.observe import EvidenceGrid, observe
from dailies.curation.observers.motion import MotionObserver
from dailies.curation.scorers import text
from dailies.curation.scorers.dbnet import boxes_in, grown
from dailies.curation.scorers.looks import FramePart, look, merged
from dailies.curation.scorers.overlay import static_share
from dailies.curation.scorers.text import TextScorer, border_area
from dailies.curation.timing import Span
from dailies.curation.types import Evidence, EvidenceFrame
from dailies.curation.video import jpeg, unjpeg
from dailies.curation.world.script import Background, Camera, Script, Shape, Shot

SIZE = (640, 360)


SIZES = pytest.mark.parametrize("size", [(640, 360), (320, 180)], ids=["360 lines", "180 lines"])


@SIZES
def test_areas_are_true(size: tuple[int, int]) -> None:
    """On few frames: excludes boxes grown by the share that labels are shrunk by, of cores that the network draws wider."""
    pytest.importorskip("rapidocr", reason="needs the text detector")
    seen = errors(TextScorer(), size, 32)
    assert seen["within_15_percent"] >= 0.9, seen
    assert abs(seen["median_error"]) < 0.04, seen
    assert seen["largest_without_text"] < 0.005, seen


@pytest.mark.slow
@SIZES
def test_areas_are_true_within_15_percent_in_95_of_100_frames(size: tuple[int, int]) -> None:
    pytest.importorskip("rapidocr", reason="needs the text detector")
    seen = errors(TextScorer(), size, 240)
    assert seen["within_15_percent"] >= 0.95, seen
    assert seen["largest_without_text"] < 0.005, seen


def test_moving_and_static_shots_separate_perfectly(tmp_path: Path) -> None:
    """By the column ``motion``: the slowest moving shot has more than the most of any static one."""
    amounts: dict[bool, list[float]] = {True: [], False: []}
    for number in range(4):
        script = world.write_script((31, number), shots=4, still=0.5, transitions={"cut": 1}, flashes=0, text=0.5)
        seen = observe(str(world.encode(script, tmp_path / f"{number}.mp4")), [MotionObserver()], None)
        for shot in world.truth(script).shots:
            span = Span(start=seen.pts[shot.frame], end=seen.pts[shot.end - 1], time_base=seen.probe.time_base)
            motion = MotionObserver().reduce({track.name: track for track in seen.tracks}, span)["motion"]
            amounts[shot.flow == 0].append(float(motion or 0))
    assert min(len(each) for each in amounts.values()) >= 3
    assert max(amounts[True]) < 0.2 < min(amounts[False])  # the default recipe's limit lies between


# ---- boxes from maps ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("angle", [0, 10, 90])
@pytest.mark.parametrize(("length", "height"), [(90, 60), (300, 60), (500, 40)])
def test_a_box_is_found_again_from_its_core(length: float, height: float, angle: float) -> None:
    """The core is the box shrunk as DBNet's labels are; excludes growing by a fixed multiple of the core's area over its
    perimeter, which is right for one shape alone."""
    shrunk = 0.6
    by = shrunk * length * height / (length + height)
    map_hw = np.zeros((640, 640), np.float32)
    core = cv2.boxPoints(((320, 320), (length - by - 1, height - by - 1), angle))
    cv2.fillPoly(map_hw, [np.round(core).astype(np.int32)], 0.9)
    (box,) = boxes_in(map_hw)
    assert (box.length, box.height) == pytest.approx(
        tuple(side + grown(length - by, height - by) for side in (length - by, height - by)), rel=0.06
    )
    assert length - by + grown(length - by, height - by, shrunk) == pytest.approx(length)
    assert height - by + grown(length - by, height - by, shrunk) == pytest.approx(height)


def test_rings_crosses_and_faint_cores_are_no_boxes() -> None:
    map_hw = np.zeros((300, 300), np.float32)
    cv2.circle(map_hw, (60, 60), 40, 0.9, 8)
    cv2.line(map_hw, (160, 60), (240, 60), 0.9, 16)
    cv2.line(map_hw, (200, 20), (200, 100), 0.9, 16)
    map_hw[200:220, 40:200] = 0.4
    assert boxes_in(map_hw) == []
    map_hw[200:220, 40:200] = 0.8
    assert len(boxes_in(map_hw)) == 1


def test_a_line_that_is_joined_to_a_shape_by_a_bridge_is_a_box_without_it() -> None:
    map_hw = np.zeros((300, 500), np.float32)
    map_hw[200:216, 140:440] = 0.9
    alone = boxes_in(map_hw)
    cv2.circle(map_hw, (60, 120), 50, 0.7, -1)
    cv2.line(map_hw, (90, 150), (145, 206), 0.6, 4)
    joined = [box for box in boxes_in(map_hw) if box.length > 2 * box.height]
    assert [(box.length, box.height) for box in joined] == [pytest.approx((alone[0].length, alone[0].height), rel=0.1)]


class Seeing:
    """A detector that finds nothing and notes how many pixels it looks at."""

    def __init__(self) -> None:
        self.looks: list[int] = []

    def boxes(self, rgb: np.ndarray, zoom: float, score: float = 0.6) -> list:  # type: ignore[type-arg]
        self.looks.append(round(rgb.shape[0] * zoom * rgb.shape[1] * zoom))
        return []


def test_frames_without_text_cost_one_look_and_two_glances_and_frames_that_are_alike_one() -> None:
    rng = np.random.default_rng(0)
    frames = [cv2.GaussianBlur(rng.integers(0, 256, (384, 683, 3), np.uint8), (0, 0), 9) for _ in range(3)]
    frames = [cv2.normalize(frame, None, 0, 255, cv2.NORM_MINMAX) for frame in frames]
    detector = Seeing()
    assert look(detector, frames, 640, 0.3) == [[], [], []]
    assert sorted(px // 1000 for px in detector.looks) == [57, 57, 230]
    detector = Seeing()
    assert look(detector, [frames[0], frames[0].copy(), frames[0].copy()], 640, 0.3) == [[], [], []]
    assert len(detector.looks) == 1


def test_parts_join_where_they_touch_and_their_lines_are_as_high() -> None:
    one, other = FramePart(0, 0, 100, 40, 20, 0.01), FramePart(90, 10, 200, 50, 24, 0.02)
    high, apart = FramePart(50, 0, 150, 200, 90, 0.1), FramePart(300, 0, 400, 40, 20, 0.01)
    joined = merged([one, high, apart, other])
    assert {part[:4] for part in joined} == {(0, 0, 200, 50), high[:4], apart[:4]}


def test_borders_are_the_upper_and_the_lower_fifth() -> None:
    def rectangle(top: float, bottom: float) -> np.ndarray:
        return np.array([(0, top), (200, top), (200, bottom), (0, bottom)], np.float32)

    assert border_area([rectangle(80, 100)], 100, 200) == pytest.approx(0.2, abs=0.011)
    assert border_area([rectangle(70, 90)], 100, 200) == pytest.approx(0.1, abs=0.011)
    assert border_area([rectangle(25, 75)], 100, 200) == 0
    assert border_area([rectangle(0, 10), rectangle(5, 20)], 100, 200) == pytest.approx(0.2, abs=0.011)


# ---- overlays -------------------------------------------------------------------------------------------------------


def evidence(camera: Camera, draw: Callable[[np.ndarray, int], object], tmp_path: Path) -> list[bytes]:
    """Evidence of a rendered shot of 5 s with something drawn over each picture."""
    shapes = (
        Shape(kind="star", color="red", radius=60, x=200, y=180, velocity=(30, 0)),
        Shape(kind="square", color="white", radius=40, x=480, y=110, velocity=(-25, 10)),
    )
    shot = Shot(
        frames=60, background=Background(texture="checked", color="olive", seed=3), camera=camera,
        shapes=shapes if camera.velocity != (0, 0) else (),
    )  # fmt: skip
    path = world.encode(Script(shots=(shot,), size=SIZE, fps=12), tmp_path / "shot.mp4")
    seen = observe(str(path), [], EvidenceGrid(fps=1, short_side=360))
    out = []
    for number, frame in enumerate(seen.evidence):
        picture = unjpeg(frame.jpeg).copy()
        draw(picture, number)
        out.append(jpeg(picture, 80))
    return out


MOVING = Camera(velocity=(47, 21))


def logo(picture: np.ndarray, number: int) -> None:
    """A disc with a star in it, no letters: 60 x 60 px, 1.6 % of the frame."""
    cv2.circle(picture, (590, 50), 30, (255, 255, 255), -1)
    cv2.drawMarker(picture, (590, 50), (200, 30, 30), cv2.MARKER_STAR, 40, 6)


def watermark(picture: np.ndarray, number: int) -> None:
    """Half-transparent letters, 130 x 24 px or so."""
    over = picture.copy()
    cv2.putText(over, "SAMPLE", (30, 330), cv2.FONT_HERSHEY_SIMPLEX, 1.1, (255, 255, 255), 4, cv2.LINE_AA)
    cv2.addWeighted(over, 0.7, picture, 0.3, 0, dst=picture)


def subtitle(picture: np.ndarray, number: int) -> None:
    words = ["So you came back", "I never left", "Then who was it", "at the door", "all night"][number]
    cv2.putText(picture, words, (120, 330), cv2.FONT_HERSHEY_SIMPLEX, 1.1, (255, 255, 255), 3, cv2.LINE_AA)


def test_a_logo_stays_in_place_over_footage_that_moves(tmp_path: Path) -> None:
    assert shown_static(evidence(MOVING, logo, tmp_path)) == pytest.approx(60 * 60 / (640 * 360), rel=0.3)


def test_a_watermark_that_shows_the_footage_through_stays_in_place(tmp_path: Path) -> None:
    (width, height), _ = cv2.getTextSize("SAMPLE", cv2.FONT_HERSHEY_SIMPLEX, 1.1, 4)
    assert shown_static(evidence(MOVING, watermark, tmp_path)) == pytest.approx(width * height / (640 * 360), rel=0.4)


@pytest.mark.parametrize("draw", [lambda picture, number: None, subtitle], ids=["nothing", "subtitles that change"])
def test_nothing_stays_in_place(draw: Callable[[np.ndarray, int], object], tmp_path: Path) -> None:
    assert shown_static(evidence(MOVING, draw, tmp_path)) == pytest.approx(0, abs=0.002)


def test_where_the_picture_stays_nothing_can_be_told(tmp_path: Path) -> None:
    static = evidence(Camera(), logo, tmp_path)
    assert shown_static(static) is None
    assert shown_static(evidence(MOVING, logo, tmp_path)[:2]) is None
    assert shown_static([jpeg(np.zeros((90, 160, 3), np.uint8), 80)] * 4) is None


def shown_static(jpegs: Sequence[bytes]) -> float | None:
    return static_share(map(unjpeg, jpegs))


def test_a_long_clip_takes_no_more_memory_and_each_frame_is_decoded_once(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(1)
    tracemalloc.start()
    try:
        static_share(rng.integers(0, 255, (180, 320, 3), np.uint8) for _ in range(100))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 30 * 180 * 320 * 4  # bytes: gradients of ten frames
    decoded: list[bytes] = []

    def counted(data: bytes) -> Any:
        decoded.append(data)
        return unjpeg(data)

    monkeypatch.setattr(text.video, "unjpeg", counted)
    monkeypatch.setattr(text, "look", lambda _detector, pictures, *_: [[] for _ in pictures])
    frames = [EvidenceFrame(pts=at, jpeg=jpeg(rng.integers(0, 255, (48, 64, 3), np.uint8), 80)) for at in range(7)]
    span = Span(start=0, end=7, time_base=Fraction(1))
    TextScorer()._clip(None, Evidence(clip_id="a", span=span, frames=tuple(frames)))  # type: ignore[arg-type]
    assert sorted(decoded) == sorted(frame.jpeg for frame in frames)
