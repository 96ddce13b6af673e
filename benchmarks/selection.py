"""A selection of many clips: generated tables are read, joined and judged by rules of every kind, and the verdicts written.

    python benchmarks/selection.py [--clips 10000000] [--folder FOLDER] [--json]

Seconds and the most memory that the process took are of ``select_step`` alone, in a process of its own, which is what
``dailies select`` runs. Rows are as curation writes them, in parts of a million: twenty clips a source, two percent of the
sources copies of another, one clip in twenty-five too short, three scores of which some are missing. ``--folder`` keeps the
dataset, so that a second run need not make it; else it lies in a temporary folder.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from dailies.curation import schema
from dailies.curation.errors import DatasetError
from dailies.curation.tables import DatasetTables
from dailies.pipelines.recipes.recipe import CurationRecipe, parse_recipe
from dailies.pipelines.selecting import clips_table, select_step

PART = 1_000_000
CLIPS_EACH = 20
HEX = np.frombuffer(b"0123456789abcdef", dtype=np.uint8)
CATEGORIES = ("people", "animals", "landscape", "city", "food", "sport", "vehicles", "other")
RECIPE = {
    "name": "benchmark",
    "steps": [
        {"observe": {"observers": ["boundary", "motion", "sharpness"]}},
        {"cut": {"detector": "boundary"}},
        *({"score": {"scorer": f"{Path(__file__).resolve()}:{name}"}} for name in ("Text", "Category", "Beauty")),
        {
            "select": {
                "rules": {
                    "motion": {"min_quantile": 0.25, "nulls": "drop"},
                    "text_share": {"max_quantile": 0.75, "nulls": "drop"},
                    "beauty": {"min": 0.1, "nulls": "drop"},
                    "seconds": {"min": 2.5, "max": 9.5},
                    "label": {"one_of": [*CATEGORIES[:-1]], "nulls": "keep"},
                    "detail": {"expression": "width * height / 1000", "min": 200},
                    "clean": {"expression": "text_share < 0.5 or motion > 1", "nulls": "drop"},
                    "either": {
                        "any": [
                            {"text_share": {"max": 0.3, "nulls": "drop"}},
                            {
                                "both": {
                                    "all": [
                                        {"beauty": {"min_quantile": 0.3, "nulls": "drop"}},
                                        {"motion": {"max": 4, "nulls": "drop"}},
                                    ]
                                }
                            },
                        ]
                    },
                },
                "at_most": {"source_id": {"count": 5, "keep": "beauty"}},
                "balance": {"column": "label", "most": 1.0},
                "sample": {"share": 0.5, "seed": 1},
            }
        },
    ],
}  # fmt: skip


class _Made:
    """A scorer whose numbers are made here, and which opens nothing."""

    requires = ()
    needs = ()

    def open(self) -> None:
        raise NotImplementedError("its table is there already")


class Text(_Made):
    columns = (schema.field("text_share", pa.float32(), "made up", "share"),)


class Category(_Made):
    columns = (schema.field("label", pa.string(), "made up"),)


class Beauty(_Made):
    columns = (schema.field("beauty", pa.float32(), "made up"),)


def recipe() -> CurationRecipe:
    return parse_recipe(RECIPE)


def make(folder: Path, clips: int) -> None:
    """Make a dataset of so many clips and three scores of each."""
    dataset, made = DatasetTables.create(folder), recipe()
    draw = np.random.default_rng(0)
    sources = -(-clips // CLIPS_EACH)
    ids, contents = _hexes(draw, sources), _hexes(draw, sources)
    original = np.arange(sources)
    copies = draw.random(sources) < 0.02
    original[copies] = draw.integers(0, sources, int(copies.sum()))
    contents = contents.take(pa.array(original))
    table = dataset.table(made.clips, clips_table(dataset, made).schema)
    scores = [dataset.table(made.annotations(step), schema.scores(step.spec.columns)) for step in made.before(None)]
    for start in range(0, clips, PART):
        rows = _clips(draw, np.arange(start, min(start + PART, clips)), ids, contents)
        table.commit([table.write_part(rows, keys=())])
        for score, values in zip(scores, _scores(draw, len(rows)), strict=True):
            order = pa.array(draw.permutation(len(rows)))
            score.append(rows.select(["clip_id", "source_id", "status"]).append_column(*values).take(order), keys=())


def _clips(draw: np.random.Generator, numbers: np.ndarray, ids: pa.Array, contents: pa.Array) -> pa.Table:
    count, source, place = len(numbers), pa.array(numbers // CLIPS_EACH), numbers % CLIPS_EACH
    sizes = np.asarray([(640, 360), (1280, 720), (1920, 1080)], dtype=np.int32)[draw.integers(0, 3, count)]
    return pa.table(
        {
            "clip_id": _hexes(draw, count),
            "source_id": ids.take(source),
            "content_id": contents.take(source),
            "uri": pa.array([f"/films/{number:08d}.mp4" for number in numbers // CLIPS_EACH]),
            "split": pa.array(np.where(numbers // CLIPS_EACH % 20 == 0, "validation", "train")),
            "status": pa.array(np.where(draw.random(count) < 0.04, "too_short", "ok")),
            "stream": pa.array(np.zeros(count, np.int32)),
            "start": pa.array(place * 10_000),
            "end": pa.array(place * 10_000 + 9_000),
            "seconds": pa.array(2 + 8 * draw.random(count)),
            "width": pa.array(sizes[:, 0]),
            "height": pa.array(sizes[:, 1]),
            "motion": pa.array((5 * draw.random(count)).astype(np.float32)),
        }
    )


def _scores(draw: np.random.Generator, count: int) -> Iterator[tuple[str, pa.Array]]:
    yield "text_share", pa.array(draw.random(count).astype(np.float32), mask=draw.random(count) < 0.01)
    which = np.minimum(draw.geometric(0.3, count) - 1, len(CATEGORIES) - 1)
    yield "label", pa.array(CATEGORIES).take(pa.array(which))
    yield "beauty", pa.array(draw.random(count).astype(np.float32), mask=draw.random(count) < 0.01)


def _hexes(draw: np.random.Generator, count: int) -> pa.StringArray:
    """Return ids as ``schema.digest`` makes them: 24 hexadecimal digits."""
    drawn = draw.integers(0, 256, (count, 12), dtype=np.uint8)
    digits = np.stack([HEX[drawn >> 4], HEX[drawn & 15]], axis=2)
    ends = pa.py_buffer(np.arange(count + 1, dtype=np.int32) * 24)
    return pa.StringArray.from_buffers(count, ends, pa.py_buffer(digits.tobytes()))


def timed(folder: str) -> dict[str, Any]:
    """Select once, in this process. Returns seconds, the most resident memory in GB, and what was kept."""
    dataset, made = DatasetTables.open(folder), recipe()
    started = time.perf_counter()
    report = select_step(dataset, made, made.steps[-1])
    seconds = time.perf_counter() - started
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9
    return {"clips": report.clips, "seconds": seconds, "peak_gb": peak, "kept": report.kept, "reasons": report.reasons}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, default=10_000_000)
    parser.add_argument("--folder", help="of the dataset, which is made if it is not there")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--timed", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.timed:
        print(json.dumps(timed(arguments.timed)))
        return
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(arguments.folder or f"{temporary}/dataset")
        try:
            DatasetTables.open(folder)
        except DatasetError:
            make(folder, arguments.clips)
        command = [sys.executable, __file__, "--timed", str(folder)]
        result = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    if arguments.json:
        print(json.dumps(result))
        return
    print(
        f"{result['clips']:,} clips: {result['seconds']:.1f} s, {result['peak_gb']:.2f} GB at most, kept {result['kept']:,}"
    )
    for reason, count in result["reasons"].items():
        print(f"  {reason:<20} {count:>10,}")


if __name__ == "__main__":
    main()
