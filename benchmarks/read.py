"""How fast clips of an export are read for training, by PyAV and by decord, in paired runs on one thread.

    python benchmarks/read.py EXPORT [--fps 7] [--frames 14] [--runs 3] [--json]

EXPORT: a folder that ``dailies export`` made. Each clip is read from its first frame on, so many frames on a grid of
so many a second, at the sizes of SVD's phases. Milliseconds per clip, the median of the runs.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from pathlib import Path
from typing import Any, get_args

import pyarrow.parquet as pq

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # so that it runs by its path, too

from dailies.training.data.reader import Backend, read

SIZES = ((384, 256), (576, 320), (1024, 576))


def measure(rows: list[dict[str, Any]], size: tuple[int, int], fps: float, frames: int, runs: int) -> dict[str, Any]:
    times: dict[str, list[float]] = {name: [] for name in get_args(Backend)}
    for _ in range(runs):
        for name in get_args(Backend):
            began = time.perf_counter()
            for row in rows:
                read(row, fps, frames, size, name)
            times[name].append((time.perf_counter() - began) / len(rows))
    shown = {name: round(1000 * statistics.median(each), 1) for name, each in times.items()}
    return {"size": "x".join(map(str, size)), "clips": len(rows), **shown}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("export", type=Path)
    parser.add_argument("--fps", type=float, default=7.0)
    parser.add_argument("--frames", type=int, default=14)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    rows = [row for path in sorted((args.export / "data").glob("*.parquet")) for row in pq.read_table(path).to_pylist()]
    results = [measure(rows, size, args.fps, args.frames, args.runs) for size in SIZES]
    if args.json:
        print(json.dumps(results))
        return
    print("".join(f"{name:>12}" for name in results[0]))
    for result in results:
        print("".join(f"{value:>12}" for value in result.values()))


if __name__ == "__main__":
    main()
