"""How well cuts are found against a truth file, by a recipe's detector and by those that people use: precision, recall, F1, and
how pure the clips are that come of them.

    python benchmarks/cuts.py FOLDER TRUTH.json [--recipe NAME] [--set STEP.KEY=VALUE] [--only-ours] [--json]

TRUTH.json: ``{video: {"events": [{"frame", "end", "kind"}]}}`` (or ``"cuts"``, as the rendered world writes it); a hard cut at
frame f begins a new shot with f, a gradual transition spans ``[frame, end)``. A hard cut is found within two frames, a gradual
one by the middle of the found extent, anywhere inside it or within two frames of it; one to one. A clip is impure when it
holds a frame of a transition or of two shots.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from collections.abc import Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # so that it runs by its path, too

from rich import box
from rich.console import Console
from rich.table import Table

from benchmarks.detectors import OTHERS, Intervals
from dailies.curation.clips import ClipRules, pieces, places_of
from dailies.curation.observe import Observation, observe
from dailies.curation.types import Cut
from dailies.pipelines.recipes.recipe import load_recipe
from dailies.pipelines.recipes.steps import CutStep, ObserveStep

TOLERANCE = 2  # frames

Event = Mapping[str, Any]


def matched(events: Sequence[Event], found: Sequence[int]) -> tuple[list[bool], int]:
    """Which events are found, and how many found cuts match none. One to one, in order."""
    free = sorted(found)
    hits = []
    for event in events:
        near = [cut for cut in free if event["frame"] - TOLERANCE <= cut <= event["end"] + TOLERANCE]
        hits.append(bool(near))
        if near:
            free.remove(near[0])
    return hits, len(free)


def impure(events: Sequence[Event], spans: Sequence[tuple[int, int]]) -> int:
    """How many frame spans hold a frame of a transition, or frames of two shots."""
    return sum(
        any(first < event["frame"] < last or max(first, event["frame"]) < min(last, event["end"]) for event in events)
        for first, last in spans
    )


def summarise(per_video: Sequence[tuple[Sequence[Event], Sequence[int], Sequence[tuple[int, int]]]]) -> dict[str, Any]:
    """``per_video``: events, found cuts, clip spans."""
    kinds: dict[str, list[int]] = {}
    hit_count = false = clips = bad = 0
    for events, found, spans in per_video:
        hits, extra = matched(events, found)
        false += extra
        hit_count += sum(hits)
        clips += len(spans)
        bad += impure(events, spans)
        for event, hit in zip(events, hits, strict=True):
            kinds.setdefault(event["kind"], [0, 0])[0] += hit
            kinds[event["kind"]][1] += 1
    total = sum(count for _, count in kinds.values())
    precision, recall = hit_count / max(1, hit_count + false), hit_count / max(1, total)
    return {
        "precision": round(precision, 4),
        "recall": round(recall, 4),
        "f1": round(2 * precision * recall / max(precision + recall, 1e-9), 4),
        "false_cuts": false,
        "recall_by_kind": {kind: f"{hit}/{count}" for kind, (hit, count) in sorted(kinds.items())},
        "clips": clips,
        "impure_clips": bad,
    }


def evaluate(seen: Observation, cuts: Sequence[Cut], step: CutStep) -> tuple[list[int], list[tuple[int, int]]]:
    """Found cuts as frames (the middle of gradual ones) and clips as frame spans."""
    base: Fraction = seen.probe.time_base
    rules = ClipRules(**step.model_dump(exclude={"detector"}))
    found = [(first + last) // 2 for first, last in places_of([cut for cut in cuts if cut.kind != "fade"], seen.pts)]
    ends = [*seen.pts, seen.end]
    spans = [
        (piece.first, piece.last)
        for piece in pieces(cuts, seen.pts, seen.end, base, rules)
        if (ends[piece.last] - ends[piece.first]) * base >= step.min_seconds
    ]
    return found, spans


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("truth", type=Path)
    parser.add_argument("--recipe", default="default")
    parser.add_argument("--set", action="append", default=[], dest="overrides")
    parser.add_argument("--only-ours", action="store_true", help="leave the other detectors out")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    recipe = load_recipe(args.recipe, args.overrides)
    step = recipe.step(CutStep)
    observers = [o for o in recipe.step(ObserveStep).observers if o.name in step.detector.observers]
    others = {} if args.only_ours else OTHERS
    if others and shutil.which("ffmpeg") is None:
        parser.error("TransNetV2 reads videos with ffmpeg: install it, or give --only-ours")
    rows: dict[str, list[Any]] = {name: [] for name in (step.detector.name, *others)}
    for name, said in json.loads(args.truth.read_text()).items():
        print(name, file=sys.stderr)
        path = str(args.folder / name)
        seen, events = observe(path, observers, None), said.get("events", said.get("cuts", []))
        cuts = step.detector.cuts({track.name: track for track in seen.tracks})
        rows[step.detector.name].append((events, *evaluate(seen, cuts, step)))
        for other, find in others.items():
            rows[other].append((events, *evaluate(seen, as_cuts(other, find(path), seen.pts), step)))
    results = {name: summarise(per_video) for name, per_video in rows.items()}
    if args.json:
        print(json.dumps(results))
    else:
        show(results)


def as_cuts(detector: str, intervals: Intervals, pts: Sequence[int]) -> list[Cut]:
    return [
        Cut(start=pts[old], end=pts[min(new, len(pts) - 1)], kind="cut", detector=detector, strength=1.0)
        for old, new in intervals
    ]


def show(results: Mapping[str, Mapping[str, Any]]) -> None:
    table = Table(box=box.SIMPLE, pad_edge=False, collapse_padding=True)
    kinds = list(next(iter(results.values()))["recall_by_kind"])
    for heading in ("", "P", "R", "F1", "false", *kinds, "impure"):
        table.add_column(heading, justify="right" if heading else "left", no_wrap=True)
    for name, row in results.items():
        shares = [f"{row[key]:.3f}" for key in ("precision", "recall", "f1")]
        impure_share = f"{row['impure_clips']}/{row['clips']}"
        table.add_row(name, *shares, str(row["false_cuts"]), *row["recall_by_kind"].values(), impure_share)
    console = Console()
    console.width = max(console.width, 110)  # a table that is piped is not to be squeezed
    console.print(table)


if __name__ == "__main__":
    main()
