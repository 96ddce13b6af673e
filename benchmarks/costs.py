"""What each part of a recipe costs one core, for ``dailies recipe show``.

    python -m benchmarks.costs FOLDER [--first 12] [--only PART...] [--json] [--write]
    python -m benchmarks.costs --table

CPU seconds of one process of one thread, so that other work beside it hardly counts, over the first so many videos of
FOLDER, each taken as one clip: for a second of video where a part works while decoding or encoding, and for a clip where
it looks at evidence. An observer's are what decoding takes more with it than without. Models are those that are built in
or come in wheels; their loading is not counted. ``--write`` puts the figures into ``pipelines/recipes/costs.json``, whose
other rows stay; ``--table`` prints that file as ``docs/performance.md`` has it, and measures nothing.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import MISSING, fields, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import cv2

from benchmarks.extract import SUFFIXES, clips_of, ours
from dailies.curation.captioners import CAPTIONERS
from dailies.curation.detectors import DETECTORS
from dailies.curation.duplicates import FrameSignatures
from dailies.curation.errors import DailiesError
from dailies.curation.observe import EvidenceGrid, Observation, observe
from dailies.curation.observers import OBSERVERS
from dailies.curation.packages import installed
from dailies.curation.scorers import SCORERS
from dailies.curation.timing import Span
from dailies.curation.types import Evidence
from dailies.curation.video.extract import MODES
from dailies.pipelines.recipes.costs import FILE, FORMAT, measured_costs
from dailies.pipelines.recipes.recipe import parse_recipe, resolved
from dailies.pipelines.recipes.weights import WAYS

COSTLY = {
    "observer motion": ("method", "fps"),
    "observer boundary": ("fps",),
    "scorer text": ("side",),
    "captioner coca": ("decode", "beams"),
}
"""Parameters, beside those that name weights, which a figure is for."""


def asks_for_more(cls: Any) -> bool:
    """Whether it cannot be made by its name alone: its model is for the user to name."""
    return any(each.default is MISSING and each.default_factory is MISSING for each in fields(cls))


BEFORE: list[dict[str, Any]] = [
    {"observe": {"observers": [*OBSERVERS]}},
    {"cut": {"detector": "boundary"}},
    *({"caption": {"captioner": name}} for name, cls in CAPTIONERS.items() if not asks_for_more(cls)),
    *({"score": {"scorer": name}} for name in ("embed",) if name in SCORERS),
]
"""Steps that a scorer may read the columns of."""

BESIDE: Mapping[str, tuple[Mapping[str, Any], ...]] = {
    "observer motion": ({"method": "farneback"},),
    "scorer safety": ({"faces": "nudenet"},),
}
"""Parameters, beside those that are left out, with which an observer or scorer is measured once more."""

Row = dict[str, Any]


def row(part: str, seconds: float, per: str, spec: Any = None) -> Row:
    keys = (*WAYS, *COSTLY.get(part, ()))
    settings = {key: getattr(spec, key) for key in keys if hasattr(spec, key)}  # null is a value too: no faces
    return {"part": part, "seconds": float(f"{seconds:.3g}"), "per": per, "settings": settings}


def observing(paths: Sequence[str], observers: Sequence[Any], grid: EvidenceGrid | None) -> tuple[float, list[Any]]:
    began = time.process_time()
    seen = [observe(path, observers, grid) for path in paths]
    return time.process_time() - began, seen


def while_decoding(paths: Sequence[str]) -> Iterator[Row]:
    """Yield what decoding, evidence, observers and detectors take for a second of video."""
    observing(paths[:1], [cls() for cls in OBSERVERS.values()], EvidenceGrid())  # loads what is loaded once
    decode, seen = observing(paths, [], None)
    seconds = sum(length(each) for each in seen)
    yield row("decode", decode / seconds, "second")
    yield row("evidence", (observing(paths, [], EvidenceGrid())[0] - decode) / seconds, "second", EvidenceGrid())
    tracks: dict[str, list[Any]] = {}
    for name, cls in OBSERVERS.items():
        for spec in (cls(), *(cls(**parameters) for parameters in BESIDE.get(f"observer {name}", ()))):
            taken, seen = observing(paths, [spec], None)
            tracks[name] = seen
            yield row(f"observer {name}", max(0.0, taken - decode) / seconds, "second", spec)
    for name, cls in DETECTORS.items():
        (observer, *_) = cls().observers
        began = time.process_time()
        for each in tracks[observer]:
            cls().cuts({track.name: track for track in each.tracks})
        yield row(f"detector {name}", (time.process_time() - began) / seconds, "second")


def length(seen: Observation) -> float:
    return float((seen.end - seen.pts[0]) * seen.probe.time_base)


def of_clips(paths: Sequence[str]) -> Iterator[Row]:
    """Yield what scorers and captioners take for a clip, and what the signatures do by which copies are found."""
    clips = [evidence(path) for path in paths]
    yield row("signatures", timed(FrameSignatures(), clips), "clip")
    for kind, holder, table in (("scorer", "score", SCORERS), ("captioner", "caption", CAPTIONERS)):
        for name, parameters in ((part, each) for part in table for each in ({}, *BESIDE.get(f"{kind} {part}", ()))):
            try:
                spec = resolved(in_a_recipe(holder, kind, name, parameters).spec)
            except DailiesError as error:
                print(f"{kind} {name}: left out: {error}", file=sys.stderr)
                continue
            if not all(map(installed, spec.requires)):
                print(f"{kind} {name}: left out: its packages are not installed", file=sys.stderr)
                continue
            needed = [replace(clip, columns=clip.columns | columns_for(spec)) for clip in clips]
            yield row(f"{kind} {name}", timed(spec, needed), "clip", table[name](**parameters))


def timed(spec: Any, clips: Sequence[Evidence]) -> float:
    """Return the seconds that a scorer takes for a clip, without what it loads."""
    with spec.open() as score:
        score(clips[:1])
        began = time.process_time()
        score(clips)
        return (time.process_time() - began) / len(clips)


def in_a_recipe(holder: str, kind: str, name: str, parameters: Mapping[str, Any]) -> Any:
    """Return a step behind those that it may read, so that it takes what it needs from them."""
    step = {holder: {kind: {name: dict(parameters)} if parameters else name}}
    before = BEFORE[: BEFORE.index(step)] if step in BEFORE else BEFORE
    return parse_recipe({"name": "costs", "steps": [*before, step]}).steps[-1]


def columns_for(spec: Any) -> dict[str, Any]:
    """Return values for the columns that a scorer reads: its time does not depend on them."""
    width = 128  # of the built-in CoCa
    return {
        name: [width**-0.5] * width
        if "embedding" in name
        else "a dog runs over the grass"
        if "caption" in name
        else "pan right"
        if "camera" in name
        else 3.0
        for name in spec.needs
    }


def evidence(path: str) -> Evidence:
    seen = observe(path, [], EvidenceGrid())
    span = Span(start=seen.pts[0], end=seen.end, time_base=seen.probe.time_base)
    columns = {"content_id": seen.content_id, "stream": seen.probe.stream}
    return Evidence(clip_id=path, span=span, frames=tuple(seen.evidence), columns=columns)


def extracting(paths: Sequence[str]) -> Iterator[Row]:
    """Yield what each way to extract clips takes for a second of video."""
    clips = {Path(path): clips_of(Path(path), 4.0) for path in paths}
    seconds = sum(float(span.seconds) for spans in clips.values() for span in spans)
    for mode in MODES:
        began = time.process_time()
        list(ours(clips, mode))
        made = row("export", (time.process_time() - began) / seconds, "second")
        yield made | {"settings": {"mode": mode} | ({"codec": "h264"} if mode == "encode" else {})}


MEASURED = {"scorer": of_clips, "captioner": of_clips, "signatures": of_clips, "export": extracting}
"""The first word of what ``--only`` names → what measures it; all else is measured while decoding."""


def written(rows: Sequence[Row], hardware: str) -> dict[str, Any]:
    """Return the table with ``rows`` in place of those of the same parts that it has."""
    old = json.loads(FILE.read_text(encoding="utf-8"))["costs"] if FILE.is_file() else []
    parts = {(each["part"], json.dumps(each["settings"], sort_keys=True)) for each in rows}
    kept = [each for each in old if (each["part"], json.dumps(each["settings"], sort_keys=True)) not in parts]
    costs = sorted([*kept, *rows], key=lambda each: each["part"])
    return {"format": FORMAT, "hardware": hardware, "costs": costs}


def table() -> list[str]:
    """Return the lines of a table in Markdown of all that was measured."""
    lines = ["| part | values | a second of video | a clip |", "|---|---|---:|---:|"]
    for cost in measured_costs().costs:
        values = ", ".join(f"`{key}={'null' if value is None else value}`" for key, value in cost.settings.items())
        seconds = f"{cost.seconds * 1e3:.3g} ms" if cost.seconds >= 1e-4 else "under 0.1 ms"
        cells = (seconds, "") if cost.per == "second" else ("", seconds)
        lines.append(f"| {cost.part} | {values} | {cells[0]} | {cells[1]} |")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?", help="of videos")
    parser.add_argument("--table", action="store_true", help="print what was measured before, in Markdown")
    parser.add_argument("--first", type=int, default=12, help="videos that are taken")
    parser.add_argument(
        "--only", nargs="+", metavar="PART", help="parts that begin so, such as scorer, 'observer sound'"
    )
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--write", action="store_true", help="into pipelines/recipes/costs.json")
    parser.add_argument("--hardware", default=f"one core, {platform.processor() or platform.machine()}")
    args = parser.parse_args()
    if args.table:
        print("\n".join(table()))
        return
    if args.folder is None:
        parser.error("give a FOLDER of videos, or --table")
    cv2.setNumThreads(1)
    if installed("torch"):
        import torch

        torch.set_num_threads(1)
    videos = sorted(path for path in args.folder.iterdir() if path.suffix.lower() in SUFFIXES)[: args.first]
    paths = [str(path) for path in videos]
    wanted = {MEASURED.get(part.split()[0], while_decoding) for part in args.only or ()}
    stamp = {"command": "python -m benchmarks.costs FOLDER", "date": f"{datetime.now(UTC):%Y-%m-%d}"}
    rows = []
    for measured in (while_decoding, of_clips, extracting):
        if args.only and measured not in wanted:
            continue
        for each in measured(paths):
            if each["part"].startswith(tuple(args.only or ("",))):
                rows.append(each | stamp)
                if not args.json:
                    settings = ", ".join(f"{key}={value}" for key, value in each["settings"].items())
                    print(f"{each['seconds']:10.4f} s a {each['per']:<7} {each['part']} {settings}", flush=True)
    if args.json:
        print(json.dumps({"hardware": args.hardware, "videos": len(videos), "costs": rows}))
    if args.write:
        FILE.write_text(json.dumps(written(rows, args.hardware), indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
