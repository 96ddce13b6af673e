"""Motion against rendered truth: how fast, by whom (the camera or things before it), and whatever the encoding."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from dailies.curation import world
from dailies.curation.observe import observe
from dailies.curation.observers import camera
from dailies.curation.observers.motion import METHODS, TRACKS, MotionObserver, reduced
from dailies.curation.timing import Span
from dailies.curation.types import Track
from dailies.curation.world import Background, Camera, Script, Shape, Shot

# ---- scenes: a textured plane under a camera, and a textured disc before it -------------------------------------------

MIDDLE = 500  # px of the plane's centre
DISC = 60  # px at 240


@dataclass(frozen=True, kw_only=True)
class Scene:
    """All per half second, as the measures state them: px at 240, percent and degrees. ``thing``: the disc's shift."""

    pan: float = 0
    tilt: float = 0
    zoom: float = 0
    roll: float = 0
    thing: float | None = None


@cache
def plane(seed: int) -> np.ndarray[Any, Any]:
    """Dead leaves: discs of all sizes over each other, with the edges and the statistics of photographs."""
    rng, out = np.random.default_rng(seed), np.zeros((2 * MIDDLE, 2 * MIDDLE, 3), np.float32)
    for radius in np.minimum(3 * rng.random(20_000) ** -0.5, 80):
        at, color = rng.integers(0, 2 * MIDDLE, 2), rng.uniform(20, 235) + rng.normal(0, 20, 3)
        cv2.circle(out, (int(at[0]), int(at[1])), round(radius), color.tolist(), -1, cv2.LINE_AA)
    grain = cv2.GaussianBlur(rng.normal(0, 12, out.shape).astype(np.float32), (0, 0), 1.2)
    return np.clip(out + 2 * grain, 0, 255).astype(np.uint8)


def picture(scene: Scene, seconds: float, height: int) -> np.ndarray[Any, Any]:
    """(h, w, 3) RGB, 16:9, at a time."""
    halves, size = 2 * seconds, (height * 16 // 9, height)
    turn = (1 + scene.zoom / 100) ** halves * np.exp(-1j * math.radians(scene.roll) * halves)
    looked_at = MIDDLE + scene.pan * halves + 1j * (MIDDLE - scene.tilt * halves)
    out = warped(plane(5), turn, looked_at, size)
    if scene.thing is not None:
        at = 40 * scene.thing / abs(scene.thing or 1) - scene.thing * halves  # starts on one side, passes the middle
        disc = np.zeros(size[::-1], np.uint8)
        centre = ((size[0] / 2 - at * height / 240) * 16, size[1] / 2 * 16)
        cv2.circle(disc, tuple(map(round, centre)), round(DISC * height / 240 * 16), 255, -1, cv2.LINE_AA, 4)
        share = disc[..., None] / 255
        out = np.round(out * (1 - share) + warped(plane(9), 1, MIDDLE * (1 + 1j) + at, size) * share).astype(np.uint8)
    return out


def warped(image: np.ndarray[Any, Any], turn: complex, centre: complex, size: tuple[int, int]) -> np.ndarray[Any, Any]:
    """The image as seen with ``centre`` in the middle; a place is x + iy, and ``turn`` scales and turns about the middle."""
    turn = turn * size[1] / 240
    shift = complex(size[0] - 1, size[1] - 1) / 2 - turn * centre
    matrix = np.array([[turn.real, -turn.imag, shift.real], [turn.imag, turn.real, shift.imag]])
    return np.asarray(cv2.warpAffine(image, matrix, size, flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT))


def filmed(scene: Scene, path: Path, *, fps: int = 24, height: int = 252, seconds: float = 2.1, **codec: Any) -> Path:
    count = round(seconds * fps)
    return world.encode((picture(scene, n / fps, height) for n in range(count)), path, fps=fps, **codec)


@pytest.fixture(scope="module")
def filmed_once(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Scene], Path]:
    """A scene, filmed for every method together."""
    folder, films = tmp_path_factory.mktemp("scenes"), dict[Scene, Path]()

    def film(scene: Scene) -> Path:
        if scene not in films:
            films[scene] = filmed(scene, folder / f"{len(films)}.mp4")
        return films[scene]

    return film


def measured(path: Path, observer: MotionObserver) -> dict[str, Any]:
    seen = observe(str(path), [observer], None)
    whole = Span(start=seen.pts[0], end=seen.end, time_base=seen.probe.time_base)
    return dict(observer.reduce({track.name: track for track in seen.tracks}, whole))


# ---- the camera -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    ("scene", "label"),
    [
        (Scene(), "static"),
        (Scene(pan=3.3), "pan right"),
        (Scene(pan=-13.3), "pan left"),  # 40 px/s at 360
        (Scene(tilt=13.3), "tilt up"),
        (Scene(pan=9, tilt=-6), "pan right, tilt down"),
        (Scene(zoom=6), "zoom in"),
        (Scene(zoom=-4), "zoom out"),
        (Scene(roll=3), "roll clockwise"),
        (Scene(roll=-2, zoom=3), "zoom in, roll anticlockwise"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_the_camera_does_is_measured_and_named(
    filmed_once: Callable[[Scene], Path], method: str, scene: Scene, label: str
) -> None:
    """Within 5 % and 0.1; what it leaves over is less than a tenth of the whole."""
    found = measured(filmed_once(scene), MotionObserver(method=method))
    for name in ("pan", "tilt", "zoom", "roll"):
        assert found[f"motion_{name}"] == pytest.approx(getattr(scene, name), rel=0.05, abs=0.1), name
    assert found["motion_local"] < 0.1 * found["motion"] + 0.05
    assert found["motion_camera"] == label


@pytest.mark.parametrize("method", METHODS)
def test_a_thing_that_moves_before_a_still_camera_is_local_motion_only(
    filmed_once: Callable[[Scene], Path], method: str
) -> None:
    """The flow of a thing spreads a little past its edges, which makes its share of the frame larger."""
    found = measured(filmed_once(Scene(thing=13)), MotionObserver(method=method))
    share = math.pi * DISC**2 / (240 * 240 * 16 / 9)
    assert found["motion_local"] == pytest.approx(13 * share, rel=0.2)
    assert found["motion_local"] == pytest.approx(found["motion"], rel=0.1)
    assert [found[f"motion_{name}"] for name in ("pan", "tilt", "zoom", "roll")] == pytest.approx([0] * 4, abs=0.1)
    assert found["motion_camera"] == "static"


@pytest.mark.parametrize("method", METHODS)
def test_a_pan_past_a_moving_thing_is_both(filmed_once: Callable[[Scene], Path], method: str) -> None:
    """The camera is measured as if there were no thing."""
    found = measured(filmed_once(Scene(pan=6, thing=6)), MotionObserver(method=method))
    share = math.pi * DISC**2 / (240 * 240 * 16 / 9)
    assert found["motion_pan"] == pytest.approx(6, rel=0.05)
    assert found["motion_local"] == pytest.approx((6 + 6) * share, rel=0.25)
    assert found["motion_camera"] == "pan right"


def test_a_thing_over_two_fifths_of_the_frame_does_not_move_the_camera() -> None:
    """Flow maps of two movements each, with noise: the one that has more of the frame is the camera's, in 200 of 200."""
    rng = np.random.default_rng(7)
    x, y = np.meshgrid((np.arange(28) - 13.5) * 15, (np.arange(16) - 7.5) * 15)
    places = x + 1j * y
    for _ in range(200):
        shift, twist = complex(*rng.normal(0, 8, 2)), complex(*rng.normal(0, 0.03, 2))
        top, left = rng.integers(0, 16 - 12 + 1), rng.integers(0, 28 - 15 + 1)
        thing = np.zeros(places.shape)
        thing[top : top + 12, left : left + 15] = 1  # 40 %
        apart = rng.uniform(3, 20) * np.exp(2j * math.pi * rng.random())
        flow = shift + twist * places + apart * thing + (rng.normal(0, 0.15, (2, 16, 28)) * [[[1]], [[1j]]]).sum(0)
        seen = camera.movement(flow, 240, 420)
        assert abs(complex(-seen.pan, seen.tilt) - shift) < 0.25
        assert seen.zoom == pytest.approx(abs(1 + twist), abs=0.01)
        assert seen.local > 0.2 * abs(apart)


def test_a_camera_in_the_hand_is_told_from_one_that_pans(tmp_path: Path) -> None:
    ground = Background(texture="cloudy", color="grey", seed=3)
    shots = {
        "handheld": Shot(frames=120, background=ground, camera=Camera(shake=6, seed=2)),
        "pan right": Shot(frames=120, background=ground, camera=Camera(velocity=(30, 0), shake=1, seed=2)),
    }
    for label, shot in shots.items():
        path = world.encode(Script(shots=(shot,)), tmp_path / "a.mp4")
        assert measured(path, MotionObserver())["motion_camera"] == label


@pytest.mark.parametrize(
    ("pan", "tilt", "zoom", "said"),
    [
        ([0.2, -0.3, 0.1], [0, 0, 0], [0, 0, 0], "static"),
        ([5, 5, 0, 0], [0.6, 0.6, 0.6, 0.6], [0, 0, 0, 0], "pan right, tilt up"),
        ([20, 20], [1, 1], [0, 0], "pan right"),  # a tilt of a twentieth is an error of the fit
        ([5, 5, -5, -5], [0, 0, 0, 0], [0, 0, 0, 0], "pan"),  # there and back
        ([5, -4, 6, -5], [3, -3, 2, -2], [4, 4, 4, 4], "handheld, zoom in"),
        ([], [], [], None),
    ],
)
def test_camera_words(pan: list[float], tilt: list[float], zoom: list[float], said: str | None) -> None:
    still = np.zeros(len(pan))
    moved = [np.array(each, np.float64) for each in (pan, tilt, zoom)]
    motion = np.hypot(moved[0], moved[1])
    assert camera.label(motion, *moved, still, still) == said
    if said and said != "static":
        assert camera.label(motion, *moved, still, 0.9 * motion) == "unclear"


def test_chaos_is_no_movement_of_the_camera(tmp_path: Path) -> None:
    rng = np.random.default_rng(4)
    pictures = [np.kron(rng.integers(0, 256, (14, 24, 3), np.uint8), np.ones((18, 18, 1), np.uint8)) for _ in range(6)]
    path = world.encode((pictures[n // 8] for n in range(48)), tmp_path / "a.mp4", fps=16)
    assert measured(path, MotionObserver())["motion_camera"] == "unclear"


def test_measures_are_of_the_pairs_within_a_clip() -> None:
    """The first sample's value compares it with what lies before the clip."""
    base = Fraction(1, 10)
    values = {"motion_pan": [math.nan, 3, 90, 3, 5], "motion": [math.nan, 3, 90, 3, 5]}
    tracks = {
        name: Track(
            name=name, pts=np.arange(5) * 5, values=np.array(values.get(name, [math.nan] + [0] * 4), np.float32)
        )
        for name in TRACKS
    }
    found = MotionObserver().reduce(tracks, Span(start=10, end=25, time_base=base))
    assert (found["motion"], found["motion_pan"], found["motion_camera"]) == (4, 4, "pan right")
    short = MotionObserver().reduce(tracks, Span(start=10, end=14, time_base=base))
    assert set(short.values()) == {None}


def test_values_are_per_half_second_whatever_the_rate_of_sampling(tmp_path: Path) -> None:
    path = filmed(Scene(pan=8), tmp_path / "a.mp4")
    for fps in (1, 2, 4):
        assert measured(path, MotionObserver(fps=fps))["motion"] == pytest.approx(8, rel=0.05)
    flow = np.full((160, 90, 2), 3, np.float32)  # an upright picture: 3 px of 90 in a second are 4 of 240 in half a one
    assert reduced(flow, 1.0)[:3] == pytest.approx((4 * math.sqrt(2), -4, 4), rel=1e-5)


# ---- the score --------------------------------------------------------------------------------------------------------


def moving(speed: float) -> Shot:
    shape = Shape(kind="circle", color="red", radius=40, x=60, y=90, velocity=(speed, 0))
    return Shot(frames=48, background=Background(texture="cloudy", color="navy", seed=3), shapes=(shape,))


def test_a_static_shot_scores_near_zero_and_motion_ranks_by_speed(tmp_path: Path) -> None:
    panning = [replace(moving(0), shapes=(), camera=Camera(velocity=(speed, 0))) for speed in (10, 30)]
    scores = [
        measured(world.encode(Script(shots=(shot,)), tmp_path / f"{number}.mp4"), MotionObserver())["motion"]
        for number, shot in enumerate([moving(0), moving(10), moving(20), *panning])
    ]
    assert scores[0] < 0.05
    assert scores == sorted(scores)
    assert scores[1] > 0.2


@pytest.mark.parametrize("method", METHODS)
def test_a_faint_picture_moves_as_fast_as_a_clear_one(tmp_path: Path, method: str) -> None:
    """OpenCV's Farnebäck without the gain reads a sixth of this pan."""
    faint = (100 + 0.3 * picture(Scene(pan=8), n / 24, 252) for n in range(50))
    path = world.encode((np.round(each).astype(np.uint8) for each in faint), tmp_path / "a.mp4", fps=24, crf=12)
    assert measured(path, MotionObserver(method=method))["motion"] == pytest.approx(8, rel=0.05)


SCENES = {
    "static": (Scene(), None),
    "slow pan": (Scene(pan=2, tilt=1), "motion_pan"),
    "pan": (Scene(pan=10), "motion_pan"),
    "zoom": (Scene(zoom=5), "motion_zoom"),
    "roll": (Scene(roll=3), "motion_roll"),
    "thing": (Scene(thing=8), "motion_local"),
    "pan past a thing": (Scene(pan=8, thing=6), "motion_pan"),
}
QUIET = {"x265-params": "log-level=none"}


def variants(scene: Scene, folder: Path) -> Iterator[tuple[str, Path]]:
    """The same scene, encoded otherwise."""
    for name, how in {
        "worse": {"crf": 35},
        "hevc": {"codec": "libx265", "crf": 28, "options": QUIET},
        "mpeg4": {"codec": "mpeg4", "bitrate": 1_500_000},
        "half the size": {"height": 126},
        "double the size": {"height": 504},
        "60 fps": {"fps": 60},
        "12 fps": {"fps": 12},
    }.items():
        yield name, filmed(scene, folder / "variant.mp4", **how)


SLOW = (
    "pan",
    "thing",
    "roll",
)  # "pan past a thing" pans and moves a thing, and "zoom" turns the picture about its middle, too


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow if name in SLOW else ()) for name in SCENES]
)
def test_the_same_content_scores_the_same_however_it_is_encoded(tmp_path: Path, name: str) -> None:
    """Within 10 % and 0.02, by both methods: the score, and the measure that the scene is about."""
    scene, own = SCENES[name]
    observers = [MotionObserver(method=method) for method in METHODS]
    original = filmed(scene, tmp_path / "original.mp4")
    wanted = [measured(original, observer) for observer in observers]
    for variant, path in variants(scene, tmp_path):
        for observer, before in zip(observers, wanted, strict=True):
            after = measured(path, observer)
            for column in ["motion"] + ([own] if own else []):
                allowed = 0.1 * abs(before[column]) + 0.02
                assert after[column] == pytest.approx(before[column], abs=allowed), (variant, observer.method, column)
            assert after["motion_camera"] == before["motion_camera"], (variant, observer.method)
