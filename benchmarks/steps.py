"""Training steps: seconds of a step, and whether steps after samples were made are slower than the others.

::

    python benchmarks/steps.py EXPORT [--recipe tiny] [--phase video] [--steps 60] [--every 6]

Both kinds of steps come from the same run, interleaved: those right after samples, and the others.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from dailies.pipelines.model_refs import models_of
from dailies.training.loop import train
from dailies.training.recipes import load_recipe


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("export", type=Path)
    parser.add_argument("--recipe", default="tiny")
    parser.add_argument("--phase", default="video")
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--every", type=int, default=6)
    options = parser.parse_args()
    sets = [f"steps={options.steps}", f"sample_every={options.every}", "samples=1", "sample_steps=4"]
    sets += [f"validate_every={options.steps}", f"save_every={options.steps}"]
    recipe = load_recipe(options.recipe, [f"{options.phase}.{one}" for one in sets])
    # The phase by itself, from random weights: what it starts from does not change how long it takes.
    alone = type(recipe)(**{**vars(recipe), "phases": (recipe.phase(options.phase),), "init_from": "random"})
    with tempfile.TemporaryDirectory() as folder:
        run = train(alone, options.export, folder, models_of(alone), say=lambda line: None)
        text = (run.phase_folder(alone.phases[0]) / "metrics.jsonl").read_text()
    rows = [row for row in map(json.loads, text.splitlines()) if "loss" in row][
        options.every :
    ]  # the first ones warm up
    seconds = {row["step"]: alone.phases[0].batch / row["samples_per_second"] for row in rows}
    after = [taken for step, taken in seconds.items() if step % options.every == 0]
    others = [taken for step, taken in seconds.items() if step % options.every]
    print(f"{options.recipe}:{options.phase}, {len(seconds)} steps, {rows[-1]['tflops_per_second'] * 1000:.1f} GFLOP/s")
    print(f"step after samples  {statistics.median(after) * 1000:7.1f} ms")
    print(f"other steps         {statistics.median(others) * 1000:7.1f} ms")
    print(f"ratio               {statistics.median(after) / statistics.median(others):7.3f}")


if __name__ == "__main__":
    main()
