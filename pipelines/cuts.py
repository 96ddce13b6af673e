"""Cuts of a few videos, without a dataset: observe what the detector needs, then threshold."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from dailies.curation.addresses import public, scrub
from dailies.curation.errors import item_error
from dailies.curation.policy import SourcePolicy
from dailies.curation.progress import Progress, silent
from dailies.curation.sources import list_sources
from dailies.curation.types import Cut
from dailies.pipelines.isolate import Isolated
from dailies.pipelines.recipes.recipe import CurationRecipe
from dailies.pipelines.recipes.steps import CutStep, ObserveStep
from dailies.pipelines.stages import MEMORY_GB
from dailies.pipelines.units import file_sizes


@dataclass(frozen=True, slots=True, kw_only=True)
class FrameCut:
    """A cut as frame indexes [frame, end), in presentation order from 0; equal for a hard cut.

    ``frame`` is the first frame of the new shot, or of a gradual transition, which is as exact as the samples are dense;
    clips keep a wider distance.
    """

    frame: int
    end: int
    kind: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CutsReport:
    """The result of ``find_cuts``: ``cuts`` of each video by path; ``failures``: why a video could not be read."""

    cuts: Mapping[str, tuple[FrameCut, ...]]
    failures: Mapping[str, str]


def find_cuts(
    videos: Sequence[str],
    recipe: CurationRecipe,
    *,
    policy: SourcePolicy = SourcePolicy(),  # noqa: B008 - frozen
    follow_links: bool = True,
    progress: Progress = silent,
) -> CutsReport:
    """Find the cuts of ``videos`` (files, folders or globs) with the recipe's detector.

    ``policy``: what may be opened beside what ``videos`` name; ``follow_links``: whether to look behind links in folders.
    Raises ``UsageError`` for a path that does not exist.
    """
    rows = list(list_sources(videos, policy=policy, follow_links=follow_links))
    names: dict[str, str] = {}  # of two addresses whose queries alone differ, the second gets a number
    for row in rows:
        alike = sum(public(address) == row["uri"] for address in names)
        names[row["address"]] = f"{row['uri']} ({alike + 1})" if alike else row["uri"]
    step, detector = recipe.step(ObserveStep), recipe.step(CutStep).detector
    observers = [observer for observer in step.observers if observer.name in detector.observers]
    cuts: dict[str, tuple[FrameCut, ...]] = {}
    failures: dict[str, str] = {}
    sizes = file_sizes({address: address for address in names})
    with (
        Isolated(
            "dailies.curation.cuts:find_cuts",
            answer=list[tuple[Cut, tuple[int, int]]],
            policy=policy.naming(row["uri"] for row in rows if row["named"]),
            stall_seconds=step.stall_seconds,
            memory_gb=MEMORY_GB,
        ) as child,
        progress("cuts", len(rows), "videos", size=sum(sizes.values())) as bar,
    ):
        for row in rows:
            if row["refused"]:
                failures[names[row["address"]]] = row["refused"]
                bar.advance(failed=1, size=sizes[row["address"]])
                continue
            try:
                placed: list[tuple[Cut, tuple[int, int]]] = child.call(row["address"], observers, detector)
            except Exception as error:
                failures[names[row["address"]]] = scrub(str(item_error(error)), row["address"])
                bar.advance(failed=1, size=sizes[row["address"]])
                continue
            cuts[names[row["address"]]] = tuple(
                FrameCut(frame=frame, end=end, kind=cut.kind) for cut, (frame, end) in placed
            )
            bar.advance(size=sizes[row["address"]])
    return CutsReport(cuts=cuts, failures=failures)
