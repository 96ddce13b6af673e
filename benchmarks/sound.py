"""How much longer work takes with the sound: CPU seconds of one process, in paired runs over the same files.

    python -m benchmarks.sound FOLDER [--of observe|extract] [--recipe default] [--runs 3] [--first N] [--json]

Of ``observe``, each run observes every file three times, in turn: as the recipe does, with the observer ``sound``, and with
it and speech. Of ``extract``, each run extracts every file's clips twice for each mode: without their sound, as
``export.audio: drop`` does, and with it. Files without sound are left out. Ratios are medians over the runs.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any, get_args

from dailies.curation.errors import NotCopied
from dailies.curation.observe import observe
from dailies.curation.observers import SoundObserver
from dailies.curation.observers.speech import PACKAGE
from dailies.curation.timing import Span, ticks
from dailies.curation.types import Probe
from dailies.curation.video import Extractor, probe
from dailies.curation.video.extract import Mode
from dailies.curation.video.soundtrack import Audio
from dailies.pipelines.recipes.recipe import load_recipe
from dailies.pipelines.recipes.steps import ObserveStep

ENDINGS = frozenset({".mp4", ".mov", ".mkv", ".webm", ".avi", ".ts"})
SECONDS = 5  # of a clip
MODES: tuple[Mode, ...] = ("encode", "smart", "copy")
Work = Callable[[Sequence[str]], None]


def observing(recipe: str) -> Mapping[str, tuple[str, Work]]:
    """Name → the name of what it is compared with, and the work."""
    step = load_recipe(recipe, []).step(ObserveStep)
    sounds: dict[str, list[Any]] = {"plain": [], "sound": [SoundObserver()]}
    if find_spec(PACKAGE) is not None:
        sounds["speech"] = [SoundObserver(speech=True)]

    def observed(paths: Sequence[str], sound: Sequence[Any]) -> None:
        for path in paths:
            observe(path, [*step.observers, *sound], step.evidence)

    return {name: ("plain", partial(observed, sound=sound)) for name, sound in sounds.items()}


def extracting() -> Mapping[str, tuple[str, Work]]:
    """As ``observing``; a copy that finds no keyframe in its clip is skipped in both."""

    def extracted(paths: Sequence[str], mode: Mode, audio: Audio) -> None:
        for path in paths:
            with Extractor(path) as extractor:
                for span in spans(probe(path)):
                    try:
                        extractor.extract(span, mode, audio=audio)
                    except NotCopied:
                        continue

    return {
        f"{mode}_{audio}": (f"{mode}_drop", partial(extracted, mode=mode, audio=audio))
        for mode in MODES
        for audio in get_args(Audio)
    }


def spans(video: Probe) -> Iterator[Span]:
    """Yield the clips of a video, one after the other; one that would be shorter than half of the others is left out."""
    length, begins = ticks(SECONDS, video.time_base), video.start or 0
    for start in range(0, max(1, (video.duration or length) - length // 2), length):
        end = min(start + length, video.duration or length)
        yield Span(start=begins + start, end=begins + end, time_base=video.time_base)


def cpu_seconds(work: Work, paths: Sequence[str]) -> float:
    began = time.process_time()
    work(paths)
    return time.process_time() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--of", choices=("observe", "extract"), default="observe")
    parser.add_argument("--recipe", default="default")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--first", type=int, help="so many files alone")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    inside = sorted(str(path) for path in args.folder.iterdir() if path.suffix.lower() in ENDINGS)
    paths = [path for path in inside if probe(path).has_audio][: args.first]
    kinds = observing(args.recipe) if args.of == "observe" else extracting()
    seconds: dict[str, list[float]] = {name: [] for name in kinds}
    for number in range(args.runs + 1):
        for name, (_, work) in kinds.items():
            taken = cpu_seconds(work, paths if number else paths[:1])
            seconds[name] += [taken] if number else []  # the first warms up
    result: dict[str, Any] = {"files": len(paths), "runs": args.runs}
    for name, (plain, _) in kinds.items():
        result[f"{name}_cpu_seconds"] = round(statistics.median(seconds[name]), 2)
        ratios = [value / base for value, base in zip(seconds[name], seconds[plain], strict=True)]
        result[f"{name}_over_{plain}"] = round(statistics.median(ratios), 3)
    print(json.dumps(result) if args.json else "\n".join(f"{key:<28} {value}" for key, value in result.items()))


if __name__ == "__main__":
    main()
