"""How long observing takes, all observers and evidence, against what decoding alone takes, in paired runs on two cores.

    python -m benchmarks.observe FOLDER [--recipe default] [--runs 5] [--only-ours] [--json]

Floor: ``ffmpeg -threads 2 -i X -f null -`` over the files of FOLDER (or one file), one after the other. Ours: the recipe's
observe step over the same files by two processes of one thread each, as workers are; starting them is not counted.
PySceneDetect: its adaptive detector alone, in one process as its command line runs it. Medians of ratios within a run.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from dailies.curation import world
from dailies.curation.cores import ONE_THREAD
from dailies.curation.errors import SourceError
from dailies.curation.observe import observe
from dailies.pipelines.recipes.recipe import load_recipe
from dailies.pipelines.recipes.steps import ObserveStep


def ours(path: str, recipe: str) -> int:
    """Observe one file; returns the peak memory of the process so far in bytes."""
    step = load_recipe(recipe, []).step(ObserveStep)
    try:
        observe(path, step.observers, step.evidence)
    except SourceError as error:
        print(f"{path}: {error}", file=sys.stderr)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def warm(path: str, recipe: str) -> None:
    """Import everything and load the network, which a worker does once."""
    ours(path, recipe)
    time.sleep(0.5)  # so that each process takes one


def floors(paths: list[str]) -> None:
    for path in paths:
        subprocess.run(["ffmpeg", "-v", "quiet", "-threads", "2", "-i", path, "-f", "null", "-"], check=False)


def scenedetect(paths: list[str]) -> None:
    from scenedetect import AdaptiveDetector, detect

    for path in paths:
        detect(path, AdaptiveDetector())


def seconds(work: Any) -> float:
    began = time.monotonic()
    work()
    return time.monotonic() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--recipe", default="default")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--only-ours", action="store_true", help="seconds and peak memory alone, of what is hours long")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    if not args.only_ours and shutil.which("ffmpeg") is None:
        parser.error("the floor is measured with ffmpeg: install it, or give --only-ours")
    endings = {".mp4", ".mov", ".mkv", ".webm", ".avi", ".ts"}
    inside = sorted(args.folder.iterdir()) if args.folder.is_dir() else [args.folder]
    # The longest first, or one process would be left with it at the end.
    paths = sorted((str(p) for p in inside if p.suffix.lower() in endings), key=os.path.getsize, reverse=True)
    rows, peak = [], 0
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool, tempfile.TemporaryDirectory() as folder:
        short = str(world.encode(world.write_script((0,), shots=1), Path(folder) / "short.mp4"))
        usual = dict(os.environ)
        os.environ |= ONE_THREAD  # what is spawned takes it on
        list(pool.map(warm, [short] * 2, [args.recipe] * 2))
        os.environ.clear()
        os.environ.update(usual)
        for _ in range(args.runs):
            began = time.monotonic()
            peak = max([peak, *pool.map(ours, paths, [args.recipe] * len(paths))])
            mine = time.monotonic() - began
            others = () if args.only_ours else (seconds(lambda: floors(paths)), seconds(lambda: scenedetect(paths)))
            rows.append((mine, *others))
    result = {"files": len(paths), "ours_seconds": round(statistics.median(row[0] for row in rows), 2)}
    if not args.only_ours:
        result |= {
            "floor_seconds": round(statistics.median(row[1] for row in rows), 2),
            "ours_over_floor": round(statistics.median(row[0] / row[1] for row in rows), 2),
            "scenedetect_over_floor": round(statistics.median(row[2] / row[1] for row in rows), 2),
        }
    result |= {"peak_megabytes": round(peak / 1e6), "runs": args.runs}
    print(json.dumps(result) if args.json else "\n".join(f"{key:<24} {value}" for key, value in result.items()))


if __name__ == "__main__":
    main()
