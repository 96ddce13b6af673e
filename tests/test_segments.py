"""A long source observed in segments tells what the whole tells, and in less memory."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from dailies.curation import observe, world
from dailies.curation.clips import ClipRules, clip_rows
from dailies.curation.detectors import DETECTORS
from dailies.curation.errors import Truncated
from dailies.curation.observations import joined_row, observe_row
from dailies.curation.observe import EvidenceGrid, Observation, Segment
from dailies.curation.observers import OBSERVERS

EVIDENCE = EvidenceGrid(fps=1, short_side=90, quality=80)
CODECS = {
    "b-frames": ("mp4", {}),
    "no b-frames": ("mp4", {"bframes": 0}),
    "short gop": ("mp4", {"gop": 12}),
    "transport stream": ("ts", {"gop": 48}),
    "matroska": ("mkv", {"gop": 48}),
}


@pytest.fixture(scope="module")
def pictures() -> list[np.ndarray]:
    """Fifty seconds of the rendered world."""
    return list(world.frames(world.write_script((77,), shots=26, size=(128, 72), shot_frames=(24, 60))))


@pytest.fixture(scope="module", params=CODECS)
def film(request: pytest.FixtureRequest, pictures: list[np.ndarray], tmp_path_factory: pytest.TempPathFactory) -> str:
    """The pictures in several flavours."""
    container, options = CODECS[request.param]
    path = tmp_path_factory.mktemp("segments") / f"long.{container}"
    return str(world.encode(iter(pictures), path, fps=24, **options))


def observers() -> list[Any]:
    """Those that see frames, but every one of them; ``test_sound`` tells of sound."""
    made = [cls() for cls in OBSERVERS.values()]
    return [observer for observer in made if observer.needs is not None and not observer.needs.every]


def in_segments(path: str, seconds: float) -> list[Observation]:
    first = observe.observe(path, observers(), EVIDENCE, segment_seconds=seconds)
    later = [
        observe.observe(
            path, observers(), EVIDENCE, segment=Segment(number=number, count=first.segments, origin=first.origin)
        )
        for number in range(1, first.segments)
    ]
    return [first, *later]


def test_segments_joined_are_the_whole(film: str) -> None:
    whole = observe.observe(film, observers(), EVIDENCE)
    parts = in_segments(film, 13)
    assert len(parts) == whole_count(whole, 13) > 2
    assert [pts for part in parts for pts in part.pts] == list(whole.pts)
    assert [e.pts for part in parts for e in part.evidence] == [e.pts for e in whole.evidence]
    assert [e.jpeg for part in parts for e in part.evidence] == [e.jpeg for e in whole.evidence]
    assert parts[-1].end == whole.end
    for part, following in itertools.pairwise(parts):
        assert part.end == following.pts[0]
    for number, track in enumerate(whole.tracks):
        pts = np.concatenate([part.tracks[number].pts for part in parts])
        values = np.concatenate([part.tracks[number].values for part in parts])
        np.testing.assert_array_equal(pts, track.pts)
        np.testing.assert_allclose(values, track.values, rtol=1e-4, atol=1e-5)


def whole_count(whole: Observation, seconds: float) -> int:
    return round(float((whole.end - whole.pts[0]) * whole.probe.time_base) / seconds)


def test_rows_of_segments_make_the_same_clips(film: str) -> None:
    unit = {"source_id": "s", "uri": film, "manifest": None, "segment": 0, "segments": None, "origin": None}
    rules = ClipRules(min_seconds=1, max_seconds=4)
    whole = observe_row(unit, observers(), EVIDENCE)
    first = observe_row(unit, observers(), EVIDENCE, 13)
    rows = [first]
    for number in range(1, first["segments"]):
        later = unit | {"segment": number, "segments": first["segments"], "origin": first["origin"]}
        rows.append(observe_row(later, observers(), EVIDENCE))
    assert {row["status"] for row in rows} == {"ok"}
    assert [row["unit"] for row in rows] == [f"s/{number}" for number in range(len(rows))]
    made = [clip_rows(row, DETECTORS["boundary"](), observers(), rules) for row in (whole, joined_row(rows))]
    assert [clip["clip_id"] for clip in made[0]] == [clip["clip_id"] for clip in made[1]]
    assert len(made[0]) > 20


def test_a_truncated_source_says_so_in_its_last_segments(tmp_path: Path) -> None:
    film = str(world.encode(world.write_script((78,), shots=16, size=(128, 72)), tmp_path / "film.mp4"))
    data = Path(faststart(film, tmp_path / "whole.mp4")).read_bytes()
    cut_short = tmp_path / "short.mp4"
    cut_short.write_bytes(data[: int(0.8 * len(data))])
    with pytest.raises(Truncated, match="ends"):
        observe.observe(str(cut_short), observers(), None)
    with pytest.raises(Truncated, match=r"segment \d of \d: ends"):
        in_segments(str(cut_short), 10)


def faststart(path: str, to: Path) -> str:
    """The same packets, the header first."""
    with av.open(path) as source, av.open(str(to), "w", options={"movflags": "faststart"}) as out:
        stream = out.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.size:
                packet.stream = stream
                out.mux(packet)
    return str(to)


def test_sound_that_outlasts_the_picture_is_no_reason_to_fail(tmp_path: Path) -> None:
    """Matroska says how long the longest stream is: the last segments hold no frame, and that is all."""
    script = world.write_script((78,), shots=8, size=(128, 72), shot_frames=(48, 60))
    film, both = world.encode(script, tmp_path / "film.mp4"), tmp_path / "both.mkv"
    with av.open(str(film)) as source, av.open(str(both), "w") as out:
        picture = out.add_stream_from_template(source.streams.video[0])
        sound = out.add_stream("aac", rate=48000)
        for packet in source.demux(video=0):
            if packet.size:
                packet.stream = picture
                out.mux(packet)
        for at in range(0, 60 * 48000, 1024):
            frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
            frame.sample_rate, frame.pts = 48000, at
            out.mux(sound.encode(frame))
        out.mux(sound.encode(None))
    whole, parts = observe.observe(str(both), observers(), None), in_segments(str(both), 10)
    assert not parts[-1].pts
    assert [pts for part in parts for pts in part.pts] == list(whole.pts)


def test_short_and_slow_sources_are_not_split(tmp_path: Path) -> None:
    slow = world.encode(world.write_script((79,), shots=4, size=(128, 72), fps=5), tmp_path / "slow.mp4")
    assert observe.observe(str(slow), observers(), None, segment_seconds=1).segments == 1


def test_a_dataset_is_the_same_with_and_without_segments(dailies: Any, tmp_path: Path) -> None:
    """Through every table, evidence of clips that lie in two segments among them."""
    from tests.test_curate import FAST

    footage = tmp_path / "footage"
    footage.mkdir()
    script = world.write_script(
        (80,), shots=40, size=(128, 72), fps=12, shot_frames=(18, 30), transition_frames=(4, 10)
    )
    world.encode(script, footage / "long.mp4")
    world.encode(world.write_script((81,), shots=2, size=(128, 72)), footage / "short.mp4")
    found = []
    for seconds in (30, 900):
        out = tmp_path / str(seconds)
        done = dailies(
            "curate",
            footage,
            "--out",
            out,
            *FAST,
            "--engine",
            "local",
            "--json",
            "--set",
            "text.side=320",  # finding text would take most of the time
            "--set",
            f"observe.segment_seconds={seconds}",
        )
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["sources"]["ok"] == 2
        segments = dailies("sql", out, "select count(*) as n from observations", "--json")
        assert json.loads(segments.stdout)[0]["n"] == (2 if seconds == 900 else 4)
        wanted = (
            "select clip_id, start_kind, end_kind, text_area from clips join scores_text using (clip_id) order by 1"
        )
        found.append(dailies("sql", out, wanted, "--json").stdout)
    assert found[0] == found[1]
    assert len(json.loads(found[0])) > 20
