"""How much longer observing takes with the sound: CPU seconds of one process, in paired runs over the same files.

    python -m benchmarks.sound FOLDER [--recipe default] [--runs 3] [--first N] [--json]

Each run observes every file three times, in turn: as the recipe does, with the observer ``sound``, and with it and speech.
Files without sound are left out. Ratios are medians over the runs.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from dailies.curation.observe import observe
from dailies.curation.observers import SoundObserver
from dailies.curation.observers.speech import PACKAGE
from dailies.curation.video import probe
from dailies.pipelines.recipes.recipe import load_recipe
from dailies.pipelines.recipes.steps import ObserveStep

ENDINGS = frozenset({".mp4", ".mov", ".mkv", ".webm", ".avi", ".ts"})


def cpu_seconds(paths: Sequence[str], observers: Sequence[Any], evidence: Any) -> float:
    began = time.process_time()
    for path in paths:
        observe(path, observers, evidence)
    return time.process_time() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--recipe", default="default")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--first", type=int, help="so many files alone")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    inside = sorted(str(path) for path in args.folder.iterdir() if path.suffix.lower() in ENDINGS)
    paths = [path for path in inside if probe(path).has_audio][: args.first]
    step = load_recipe(args.recipe, []).step(ObserveStep)
    sounds = {"plain": [], "sound": [SoundObserver()]}
    if find_spec(PACKAGE) is not None:
        sounds["speech"] = [SoundObserver(speech=True)]
    seconds: dict[str, list[float]] = {name: [] for name in sounds}
    for number in range(args.runs + 1):
        for name, sound in sounds.items():
            taken = cpu_seconds(paths if number else paths[:1], [*step.observers, *sound], step.evidence)
            seconds[name] += [taken] if number else []  # the first warms up
    result: dict[str, Any] = {"files": len(paths), "runs": args.runs}
    for name, values in seconds.items():
        result[f"{name}_cpu_seconds"] = round(statistics.median(values), 2)
        ratios = [value / plain for value, plain in zip(values, seconds["plain"], strict=True)]
        result[f"{name}_over_plain"] = round(statistics.median(ratios), 3)
    print(json.dumps(result) if args.json else "\n".join(f"{key:<24} {value}" for key, value in result.items()))


if __name__ == "__main__":
    main()
