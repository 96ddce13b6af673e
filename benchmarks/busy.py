"""Training and curating beside busy processes: how long a step and a run take, before and now.

::

    python -m benchmarks.busy EXPORT [--busy 0 1 3] [--steps 12] [--phase video]
    python -m benchmarks.busy --curate FOLDER [--busy 0 1 3] [--engine local]

Before: torch on as many threads as there are cores, whatever else computes. Passive: the same, with threads that sleep
while they wait for each other. Now: on as many as there are free cores. Each is a process of its own, and so is each busy
one, which counts up; give the machine nothing else to do.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from dailies.curation.cores import ONE_THREAD

EVERY = {"OMP_NUM_THREADS": str(os.cpu_count())}
WAYS = {"before": EVERY, "passive": EVERY | {"OMP_WAIT_POLICY": "passive"}, "now": {}}
WARM = 3  # steps, and more where the load was looked at later


@contextmanager
def beside(count: int) -> Iterator[None]:
    """Run ``count`` processes that are never idle."""
    busy = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
    try:
        yield
    finally:
        for process in busy:
            process.kill()
            process.wait()


def alone(arguments: Sequence[str], settings: dict[str, str]) -> str:
    """Run this file with ``arguments`` in a process of its own, and return its last line."""
    usual = {name: value for name, value in os.environ.items() if name not in (*ONE_THREAD, "OMP_WAIT_POLICY")}
    command = [sys.executable, "-m", "benchmarks.busy", *arguments]
    done = subprocess.run(command, env=usual | settings, capture_output=True, text=True, check=True)
    return done.stdout.splitlines()[-1]


def step_seconds(export: Path, phase: str, steps: int) -> float:
    """Train a phase of recipe ``tiny`` for some steps, and return the median step's seconds."""
    from dailies.pipelines.model_refs import models_of
    from dailies.training.loop import train
    from dailies.training.recipes import load_recipe

    never = [f"{name}_every={steps + 1}" for name in ("sample", "validate", "save")]
    sets = [f"steps={steps}", *never, "samples=1", "sample_steps=1", "validation_clips=1"]
    recipe = load_recipe("tiny", [f"{phase}.{one}" for one in sets])
    single = type(recipe)(**{**vars(recipe), "phases": (recipe.phase(phase),), "init_from": "random"})
    with tempfile.TemporaryDirectory() as folder:
        run = train(single, export, folder, models_of(single), say=lambda line: None)
        text = (run.phase_folder(single.phases[0]) / "metrics.jsonl").read_text()
    rows = [row for row in map(json.loads, text.splitlines()) if "loss" in row][WARM:]
    return statistics.median(single.phases[0].batch / row["samples_per_second"] for row in rows)


def curate_seconds(videos: Path, engine: str) -> float:
    """Curate a folder of rendered videos by the quickstart's recipe, and return how long it took."""
    from dailies.pipelines.engine import check_engine
    from dailies.pipelines.recipes.recipe import load_recipe
    from dailies.pipelines.run import curate

    with tempfile.TemporaryDirectory() as folder:
        began = time.monotonic()
        curate([str(videos)], f"{folder}/dataset", load_recipe("quickstart"), engine=check_engine(engine))
        return time.monotonic() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("export", type=Path, nargs="?")
    parser.add_argument("--curate", type=Path, metavar="FOLDER")
    parser.add_argument("--engine", default="local")
    parser.add_argument("--busy", type=int, nargs="+", default=[0, 1, 3])
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--phase", default="video")
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS))
    parser.add_argument("--once", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.export is None and options.curate is None:
        parser.error("EXPORT or --curate FOLDER is needed")
    if options.once:
        training = options.export is not None
        print(
            step_seconds(options.export, options.phase, options.steps)
            if training
            else curate_seconds(options.curate, options.engine)
        )
        return
    print(f"{'s':8}" + "".join(f"{f'{count} busy':>10}" for count in options.busy))
    for way in options.ways:
        seconds = []
        for count in options.busy:
            with beside(count):
                seconds.append(float(alone([*sys.argv[1:], "--once"], WAYS[way])))
        print(f"{way:8}" + "".join(f"{taken:10.2f}" for taken in seconds), flush=True)


if __name__ == "__main__":
    main()
