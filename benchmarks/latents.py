"""How fast a phase's batches are made from an export's clips, and from latents of them, in paired runs.

    python benchmarks/latents.py EXPORT [--latents RECIPE[:PHASE]] [--set …] [--views 4] [--steps 10] [--runs 3] [--json]

EXPORT: a folder that ``dailies export`` made. Latents of it are made for the phase first, in a temporary folder. Both
are read as of a dataset that does not fit into memory. Milliseconds per sample of ``Batches``, which is
all that comes before a step begins: decoding, the VAE, text and image encoders; the median of the runs. ``ratio``: of
the first to the second.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # so that it runs by its path, too

import torch

from dailies.pipelines.latents import LatentsRequest, export_latents, recipe_of
from dailies.pipelines.model_refs import models_of
from dailies.training.data import items, precomputed
from dailies.training.data.batches import Batches
from dailies.training.data.export import Export
from dailies.training.data.split import MAIN, load
from dailies.training.diffusion.encoders import Encoders


def measure(export: str, made: str, latents: str, sets: Sequence[str], steps: int, runs: int) -> dict[str, Any]:
    recipe, phase = recipe_of(latents, sets)
    models = models_of(recipe)
    times: dict[str, list[float]] = {"clips": [], "latents": []}
    items.CACHE_BYTES = precomputed.CACHE_BYTES = 0  # as of data that does not fit
    for number in range(runs + 1):  # the first loads the models
        for name, folder in (("clips", export), ("latents", made)):
            encoders = Encoders(models, text_tokens=recipe.text_tokens)
            source = Batches(recipe, phase, load(recipe, phase, {MAIN: Export(folder)}, models), encoders, 1.0)
            source.training(0)
            began = time.perf_counter()
            for step in range(1, steps + 1):
                source.training(step % phase.steps)
            if number:
                times[name].append((time.perf_counter() - began) / steps / phase.batch)
    shown = {name: round(1000 * statistics.median(each), 2) for name, each in times.items()}
    size = f"{phase.size[0]}x{phase.size[1]}x{phase.frames}"
    return {"phase": f"{recipe.name}:{phase.name}", "size": size, **shown, "ratio": ratio(times)}


def ratio(times: dict[str, list[float]]) -> float:
    """The median of the pairs'."""
    return round(statistics.median(a / b for a, b in zip(times["clips"], times["latents"], strict=True)), 1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("export")
    parser.add_argument("--latents", default="tiny:hq", metavar="RECIPE[:PHASE]")
    parser.add_argument("--set", action="append", default=[], dest="sets", metavar="PHASE.FIELD=VALUE")
    parser.add_argument("--views", type=int, default=4)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    with tempfile.TemporaryDirectory() as folder:
        request = LatentsRequest(
            export=args.export, latents=args.latents, out=f"{folder}/latents", views=args.views, sets=args.sets
        )
        began = time.perf_counter()
        made = export_latents(request, engine="local")
        spent = time.perf_counter() - began
        result = measure(args.export, made.path, args.latents, args.sets, args.steps, args.runs)
    clips = sum(made.splits.values())
    result |= {"kB_a_view": round(made.bytes / clips / made.views / 1e3, 1), "s_a_clip_made": round(spent / clips, 2)}
    if args.json:
        print(json.dumps(result))
        return
    for name, value in result.items():
        print(f"{name:>14}  {value}")


if __name__ == "__main__":
    main()
