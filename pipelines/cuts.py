"""Cuts of a few videos, without a dataset: observe what the detector needs, threshold, print."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from dailies.curation.clips import places_of
from dailies.curation.errors import SourceError
from dailies.curation.observe import Observation
from dailies.curation.sources import list_sources
from dailies.pipelines.cli.progress import progress
from dailies.pipelines.isolate import Isolated
from dailies.pipelines.recipe import Recipe
from dailies.pipelines.steps import CutStep, ObserveStep


def find_cuts(
    videos: Sequence[str], recipe: Recipe, *, quiet: bool = False
) -> tuple[dict[str, list[dict[str, Any]]], dict[str, str]]:
    """Path → cuts, and path → reason for those that could not be read.

    A cut is ``{"frame", "end", "kind"}``: ``frame`` is the index, in presentation order from 0, of the first frame of the new
    shot; a gradual transition is ``[frame, end)``. Both as near as the frames that were decoded tell: clips keep clear of
    more. Raises ``UsageError`` for a path that is not there.
    """
    rows = list(list_sources(videos))
    step, detector = recipe.one(ObserveStep), recipe.one(CutStep).detector
    observers = [observer for observer in step.observers if observer.name in detector.observers]
    found: dict[str, list[dict[str, Any]]] = {}
    failed: dict[str, str] = {}
    with (
        Isolated("dailies.curation.observe:observe", stall_seconds=step.stall_seconds) as child,
        progress("cuts", len(rows), "videos", quiet=quiet) as bar,
    ):
        for row in rows:
            try:
                seen: Observation = child.call(row["uri"], observers, None)
            except SourceError as error:
                failed[row["uri"]] = str(error)
                bar.advance(failed=1)
                continue
            tracks = {track.name: track for track in seen.tracks}
            cuts = [cut for cut in detector.cuts(tracks) if cut.kind != "fade"]
            places = places_of(cuts, seen.pts)
            found[row["uri"]] = [
                {"frame": frame, "end": end, "kind": cut.kind} for (frame, end), cut in zip(places, cuts, strict=True)
            ]
            bar.advance()
    return found, failed
