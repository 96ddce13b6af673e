"""What the observers say of rendered videos whose truth is known."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import av
import cv2
import numpy as np
import pytest

from dailies.curation import world
from dailies.curation.observations import evidence_within
from dailies.curation.observe import EvidenceGrid, Observation, observe
from dailies.curation.observers.change import ChangeObserver
from dailies.curation.observers.luma import LumaObserver
from dailies.curation.timing import Span
from dailies.curation.video import unjpeg
from dailies.curation.world import Background, Script, Shape, Shot


def ground(seed: int = 1, texture: str = "cloudy") -> Background:
    return Background(texture=texture, color=sorted(world.BACKGROUNDS)[seed % len(world.BACKGROUNDS)], seed=seed)


def film(path: Path, *shots: Shot, fps: float = 24, size: tuple[int, int] = (320, 180)) -> str:
    return str(
        world.encode(
            Script(shots=shots, transitions=tuple(world.Transition() for _ in shots[1:]), size=size, fps=fps), path
        )
    )


def measured(path: str, observer: object) -> dict[str, float | str | None]:
    seen = observe(path, [observer], None)
    whole = Span(start=seen.pts[0], end=seen.end, time_base=seen.probe.time_base)
    return dict(observer.reduce({track.name: track for track in seen.tracks}, whole))


@pytest.fixture(scope="module")
def some_video(small_world: Path) -> str:
    return str(sorted(small_world.glob("*.mp4"))[0])


# ---- each signal ----------------------------------------------------------------------------------------------------


def test_change_is_pyscenedetects_content_score(some_video: str) -> None:
    """Fed the same pictures, PySceneDetect's own detector with its statistics gives the same numbers."""
    from fractions import Fraction

    from scenedetect import ContentDetector, FrameTimecode, StatsManager

    from dailies.curation import video

    observer = ChangeObserver()
    track = observe(some_video, [observer], None).tracks[0]
    detector, stats = ContentDetector(), StatsManager()
    detector.stats_manager = stats
    scores = []
    with video.open_source(some_video) as source:
        for number, picture in enumerate(source.frames()):
            at = FrameTimecode(number, fps=Fraction(24))
            detector.process_frame(at, picture.planes(observer.needs))
            if number:
                scores.append(stats.get_metrics(at, ["content_val"])[0])
    np.testing.assert_allclose(track.values[1:], scores, rtol=1e-6)


def test_change_at_a_lower_rate_compares_frames_further_apart(some_video: str) -> None:
    slow = observe(some_video, [ChangeObserver(fps=2)], None).tracks[0]
    assert slow.name == "change_2fps"
    assert np.median(np.diff(slow.pts)) * observe(some_video, [], None).probe.time_base == pytest.approx(0.5)


def moving(speed: float, seed: int = 3) -> Shot:
    shape = Shape(kind="circle", color="red", radius=40, x=60, y=90, velocity=(speed, 0))
    return Shot(frames=48, background=ground(seed), shapes=(shape,))


def test_luma_follows_brightness(tmp_path: Path) -> None:
    dark, light = (np.full((48, 64, 3), level, np.uint8) for level in (30, 200))
    for level, picture in ((30, dark), (200, light)):
        path = world.encode(iter([picture] * 10), tmp_path / f"{level}.mp4", fps=24)
        assert measured(str(path), LumaObserver())["luma"] == pytest.approx(level, abs=2)


# ---- one decode -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def seen(some_video: str) -> Observation:
    return observe(some_video, [], EvidenceGrid(fps=2, short_side=90, quality=90))


def test_every_frame_is_counted(seen: Observation, some_video: str, small_world: Path) -> None:
    truth = json.loads((small_world / "truth.json").read_text())[Path(some_video).name]
    assert len(seen.pts) == truth["frames"]
    assert (seen.end - seen.pts[0]) * seen.probe.time_base == pytest.approx(truth["frames"] / truth["fps"])


def test_evidence_lies_on_its_grid_at_its_size_and_shows_the_frame(seen: Observation, some_video: str) -> None:
    from dailies.curation import video

    # On the grid, or up to two frames later: frames that no other refers to are not decoded.
    late = [float(frame.pts * seen.probe.time_base) - n / 2 for n, frame in enumerate(seen.evidence[:4])]
    assert all(0 <= seconds <= 2 / 24 + 1e-6 for seconds in late)
    whole = Span(start=seen.pts[0], end=seen.end, time_base=seen.probe.time_base)
    frames = dict(zip(seen.pts, video.read_span(some_video, whole).pixels, strict=True))
    for kept in seen.evidence:
        jpeg = unjpeg(kept.jpeg)
        assert jpeg.shape == (90, 160, 3)
        wanted = cv2.resize(frames[kept.pts], (160, 90), interpolation=cv2.INTER_AREA)
        assert np.abs(jpeg.astype(int) - wanted).mean() < 6


def test_evidence_of_a_clip_is_what_lies_inside_it(seen: Observation) -> None:
    first, second, third = (frame.pts for frame in seen.evidence[:3])
    span = Span(start=second, end=third, time_base=seen.probe.time_base)
    assert [frame.pts for frame in evidence_within(seen.evidence, span)] == [second]
    assert first < second


def test_memory_does_not_grow_with_what_was_seen(tmp_path: Path) -> None:
    """Three hundred times the frames: their thumbnails alone would take 100 MB, their times and strengths take little."""
    short = film(tmp_path / "short.mp4", moving(20), fps=24)
    long = repeated(short, tmp_path / "long.mp4", 300)
    few, many = (peak_of_observing(path) for path in (short, long))
    assert many - few < 40e6


def repeated(path: str, to: Path, times: int) -> str:
    """The packets of ``path`` again and again, without decoding."""
    with av.open(path) as source, av.open(str(to), "w") as out:
        stream = out.add_stream_from_template(source.streams.video[0])
        packets = [packet for packet in source.demux(video=0) if packet.size]
        length = sum(packet.duration or 0 for packet in packets)
        stamps = [(packet.pts, packet.dts) for packet in packets]
        for turn in range(times):
            for packet, (pts, dts) in zip(packets, stamps, strict=True):
                packet.stream, packet.pts, packet.dts = stream, pts + turn * length, dts + turn * length
                out.mux(packet)
    return str(to)


def peak_of_observing(path: str) -> int:
    """Bytes, of a process of its own."""
    script = (
        "import resource, sys; from dailies.curation.observe import observe;"
        "from dailies.pipelines.recipes import ObserveStep, load_recipe;"
        "step = load_recipe('default', []).step(ObserveStep); seen = observe(sys.argv[1], step.observers, None);"
        "print(len(seen.pts), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
    )
    out = subprocess.run([sys.executable, "-c", script, path], capture_output=True, text=True, check=True).stdout
    return int(out.split()[1]) * (1 if sys.platform == "darwin" else 1024)
