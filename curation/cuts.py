"""The cuts of one video, exact to the frame: a hard cut between frames that were skipped is looked for among these.

Observing skips frames that no other refers to, and clips give up those around a cut. Who asks for the cuts themselves
pays for decoding a few frames more.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from fractions import Fraction
from itertools import pairwise

import cv2

from dailies.curation.clips import frames_of, places_of
from dailies.curation.detectors import Detector
from dailies.curation.observe import observe
from dailies.curation.observers import Listener, Observer, likeness
from dailies.curation.timing import Span
from dailies.curation.types import Cut, FrameSampling
from dailies.curation.video.extract import Extractor

THUMBNAIL = FrameSampling(fps=None, short_side=likeness.HEIGHT, planes="bgr")


def find_cuts(
    uri: str, observers: Sequence[Observer | Listener], detector: Detector, heartbeat: Callable[[], None] = lambda: None
) -> list[tuple[Cut, tuple[int, int]]]:
    """Return the cuts and transitions of ``uri``, without fades at its ends, each with its ``[first, last)`` frame indexes.

    The indexes of a hard cut are equal: its new shot begins there. ``heartbeat`` is called for every frame. Raises
    ``SourceError``.
    """
    observation = observe(uri, observers, None, heartbeat)
    cuts = [cut for cut in detector.cuts({track.name: track for track in observation.tracks}) if cut.kind != "fade"]
    with Extractor(uri, stream=observation.probe.stream) as reader:
        exact = list(_exact(reader, cuts, observation.pts, observation.probe.time_base, heartbeat))
    return list(zip(exact, places_of(exact, observation.pts), strict=True))


def _exact(
    reader: Extractor, cuts: Sequence[Cut], pts: Sequence[int], time_base: Fraction, heartbeat: Callable[[], None]
) -> Iterator[Cut]:
    """Yield the ``cuts``, the hard ones between neighbouring frames of ``pts``: where the picture changes most."""
    for cut, (first, last) in zip(cuts, frames_of(cuts, pts), strict=True):
        if cut.kind != "cut" or first == last:
            yield cut
            continue
        span = Span(start=cut.start, end=cut.end + 1, time_base=time_base)
        thumbs = [
            (picture.pts, likeness.thumbnail(picture.planes(THUMBNAIL))) for picture in reader.frames(span, heartbeat)
        ]
        steps = [(cv2.norm(old, new, cv2.NORM_L1), before, after) for (before, old), (after, new) in pairwise(thumbs)]
        _, start, end = max(steps, default=(0.0, cut.start, cut.end))
        yield replace(cut, start=start, end=end)
