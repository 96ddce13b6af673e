"""What the default recipe's observers say of a file, and whether that is what was rendered."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from dailies.curation import schema, video
from dailies.curation.observations import observe_row
from dailies.curation.observe import EvidenceGrid
from dailies.curation.observers import OBSERVERS
from dailies.curation.types import Sampling
from tests.rendered_video import COLOURS, number, patches

OBSERVING = [OBSERVERS[name]() for name in ("boundary", "luma", "motion", "sharpness")]
GRID = EvidenceGrid(fps=5, short_side=108, quality=95)
GRAY, BGR = (Sampling(fps=None, short_side=108, planes=planes) for planes in ("gray", "bgr"))
CLOSE = 5  # of 255: two percent
TICK = {"mp4": Fraction(0), "mov": Fraction(0), "avi": Fraction(0), "ts": Fraction(1, 90_000)}  # else a millisecond


def observed(path: Path) -> dict[str, Any]:
    """The observations row."""
    unit = {"source_id": schema.source_id(str(path)), "uri": str(path), "manifest": None}
    return observe_row({**unit, "segment": 0, "segments": None, "origin": None}, OBSERVING, GRID)


def times(row: dict[str, Any]) -> list[Fraction]:
    """Seconds of every frame."""
    base = Fraction(row["probe"]["time_base_num"], row["probe"]["time_base_den"])
    return [pts * base for pts in row["pts"]]


def check_frames(path: Path, row: dict[str, Any], truth: list[Fraction], numbers: list[int] | None = None) -> None:
    """Every frame is the right one and stands in the row, which left frames out, at its time, to the container's tick.

    ``truth``: seconds of each frame, of which only mp4 and mov keep the beginning. ``numbers``: what they say, in order.
    """
    assert row["status"] == "ok", row["failure"]
    with video.open_source(str(path)) as source:
        seen = [(picture.pts, number(picture.planes(GRAY))) for picture in source.frames()]
    assert [index for _, index in seen] == (list(range(len(truth))) if numbers is None else numbers)
    assert row["pts"] == [pts for pts, _ in seen]
    got, tick = times(row), TICK.get(path.suffix[1:], Fraction(1, 1000))
    start = truth[0] if path.suffix in (".mp4", ".mov") else got[0]
    assert max(abs((at - start) - (wanted - truth[0])) for at, wanted in zip(got, truth, strict=True)) <= tick


def check_colours(
    path: Path, row: dict[str, Any], wanted: np.ndarray = COLOURS, luma: np.ndarray | None = None
) -> None:
    """The first frame's chart, as pictures and as evidence, is upright and within two percent of ``wanted``."""
    shape = (row["probe"]["height"], row["probe"]["width"])
    with video.open_source(str(path)) as source:
        picture = next(source.frames())
        rgb, bgr, gray = picture.rgb(), picture.planes(BGR), picture.planes(GRAY)
    assert rgb.shape[:2] == shape
    for found in (rgb, bgr[..., ::-1], video.unjpeg(row["evidence"][0]["jpeg"])):
        assert np.abs(patches(found) - wanted).max() <= CLOSE
    if luma is not None:
        assert np.abs(patches(gray) - luma).max() <= CLOSE
