"""The default detector on rendered truth: every kind of transition is found, nothing else is, and no clip holds a blend."""

from __future__ import annotations

import hashlib
import itertools
from pathlib import Path
from typing import get_args

import numpy as np
import pytest

from dailies.curation import world
from dailies.curation.clips import ClipRules, frames_of, pieces, places_of
from dailies.curation.detectors.boundary import BoundaryDetector
from dailies.curation.observe import Observation, observe
from dailies.curation.observers import boundary, likeness
from dailies.curation.observers.boundary import BoundaryObserver
from dailies.curation.types import Cut, Track
from dailies.curation.world.script import TransitionKind


def seen_of(script: world.Script, folder: Path) -> Observation:
    return observe(str(world.encode(script, folder / "a.mp4")), [BoundaryObserver()], None)


def cuts_of(seen: Observation, detector: BoundaryDetector | None = None) -> list[Cut]:
    return (detector or BoundaryDetector()).cuts({track.name: track for track in seen.tracks})


def found(seen: Observation, detector: BoundaryDetector | None = None) -> list[tuple[int, int]]:
    """(first frame not wholly of the old shot, first wholly of the new) of each cut."""
    return frames_of(cuts_of(seen, detector), seen.pts)


@pytest.mark.parametrize("seeds", [(500, 501), pytest.param((502, 503), marks=pytest.mark.slow)])
@pytest.mark.parametrize("kind", get_args(TransitionKind))
def test_every_transition_is_found_and_no_clip_holds_a_frame_of_it(
    kind: str, seeds: tuple[int, ...], tmp_path: Path
) -> None:
    for seed in seeds:
        script = world.write_script((seed,), transitions=[kind] * 4)
        seen = seen_of(script, tmp_path)
        cuts = found(seen)
        truth = [(old[1], new[0]) for old, new in itertools.pairwise(script.spans)]
        assert len(cuts) == len(truth), f"seed {seed}: {cuts}, not {truth}"
        for (first, last), (start, end) in zip(cuts, truth, strict=True):
            assert first <= start <= end <= last, f"seed {seed}: {first}-{last} does not cover {start}-{end}"
            assert last - first <= end - start + 24, (
                f"seed {seed}: {first}-{last} gives up too much around {start}-{end}"
            )
        for (first, last), (start, end) in zip(places_of(cuts_of(seen), seen.pts), truth, strict=True):
            assert max(abs(first - start), abs(last - end)) <= 4, (
                f"seed {seed}: {first}-{last} is said of {start}-{end}"
            )


@pytest.mark.parametrize(
    "fools", [{"flashes": 1.0, "cameras": {"still": 1.0}}, {"cameras": {"shake": 1.0}}, {"cameras": {"zoom": 1.0}}]
)
def test_flashes_lights_shakes_and_zooms_are_no_cuts(fools: dict[str, object], tmp_path: Path) -> None:
    for seed in range(600, 604):
        script = world.write_script((seed,), shots=1, shot_frames=(72, 96), **({"flashes": 0.0} | fools))
        assert found(seen_of(script, tmp_path)) == [], f"seed {seed}"


def test_a_source_that_fades_in_and_out_keeps_none_of_it(tmp_path: Path) -> None:
    pictures = list(world.frames(world.write_script((79,), shots=1, shot_frames=(96, 97))))
    last = len(pictures) - 1
    faded = [np.uint8(picture * min(1, at / 24, (last - at) / 24)) for at, picture in enumerate(pictures)]
    seen = observe(str(world.encode(faded, tmp_path / "faded.mp4", fps=24)), [BoundaryObserver()], None)
    cuts = cuts_of(seen)
    assert cuts[0].kind == "fade"
    rules = ClipRules(min_seconds=1, max_seconds=10)
    spans = [(p.first, p.last) for p in pieces(cuts, seen.pts, seen.end, seen.probe.time_base, rules)]
    ((first, end),) = [(first, end) for first, end in spans if end - first >= 24]
    assert first >= 22
    assert end <= last - 22


def test_a_fade_in_does_not_hide_the_transition_right_after_it() -> None:
    pts = np.arange(40)
    blend, middle = np.zeros(40, np.float32), np.zeros(40, np.float32)
    blend[0:4], blend[6:12], middle[9] = 1.0, 0.95, 0.8
    values = {"boundary": blend, "boundary_cut": 0 * blend, "boundary_middle": middle, "boundary_blend": blend}
    (cut,) = BoundaryDetector().cuts({name: Track(name=name, pts=pts, values=track) for name, track in values.items()})
    assert (cut.kind, cut.start, cut.core) == ("dissolve", 0, (6, 11))


def test_a_lower_threshold_finds_no_fewer(tmp_path: Path) -> None:
    seen = seen_of(world.write_script((510,), shots=5), tmp_path)
    counts = [len(found(seen, BoundaryDetector(hard=level, gradual=level))) for level in (0.999999, 0.5, 0.0001)]
    assert counts[0] < counts[1] < counts[2]


def test_strengths_do_not_depend_on_how_samples_are_blocked(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = np.random.default_rng(0).uniform(0, 1, (700, len(likeness.NAMES))).astype(np.float32)
    whole = boundary.strengths(rows)
    monkeypatch.setattr(boundary, "BLOCK", 64)
    np.testing.assert_allclose(boundary.strengths(rows), whole, rtol=1e-4, atol=1e-5)


def test_other_weights_mean_other_numbers() -> None:
    """Who changes the weights raises ``BoundaryObserver.meaning``, which names the tables: then these two change together.

    The same weights in another format keep the meaning: strengths differ by rounding alone (``test_boundary_network``).
    """
    sha256 = hashlib.sha256(boundary.NETWORK_FILE.read_bytes()).hexdigest()
    assert (BoundaryObserver.meaning, sha256[:16]) == (3, "113f7af10fc3d324")


@pytest.mark.parametrize("wrong", [{"hard": 0}, {"gradual": 1}, {"edge": -1}, {"guard": -1}])
def test_a_threshold_that_cannot_be_is_refused_by_name(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        BoundaryDetector(**wrong)  # type: ignore[arg-type]
