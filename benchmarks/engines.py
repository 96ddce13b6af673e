"""How long curating takes from the command's start to its end, by each engine, and again when nothing is left to do.

    python benchmarks/engines.py SOURCE… [--first 3] [--runs 1] [--only ENGINE] [--json]

Seconds of ``dailies curate`` with the default recipe on the first so many videos, in a process and a temporary dataset of
its own each time; the median of the runs.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # so that it runs by its path, too

from dailies.curation.sources import list_sources

ENGINES = {"auto": [], "loop": ["--workers", "1"], "ray": ["--engine", "ray"]}


def seconds(videos: Sequence[str], out: Path, options: Sequence[str]) -> float:
    command = [sys.executable, "-m", "dailies", "curate", *videos, "--out", str(out), "--json", *options]
    began = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True)
    return round(time.perf_counter() - began, 1)


def measure(videos: Sequence[str], runs: int, engines: Sequence[str]) -> dict[str, dict[str, float]]:
    times: dict[str, dict[str, list[float]]] = {name: {"first": [], "again": []} for name in engines}
    for _ in range(runs):
        for name in engines:
            with tempfile.TemporaryDirectory() as folder:
                for which in ("first", "again"):
                    times[name][which].append(seconds(videos, Path(folder, "dataset"), ENGINES[name]))
    return {name: {which: statistics.median(each) for which, each in of.items()} for name, of in times.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sources", nargs="+")
    parser.add_argument("--first", type=int)
    parser.add_argument("--runs", type=int, default=1)
    parser.add_argument("--only", choices=list(ENGINES))
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    videos = [str(row["address"]) for row in list_sources(args.sources)][: args.first]
    times = measure(videos, args.runs, [args.only] if args.only else list(ENGINES))
    if args.json:
        print(json.dumps({"videos": len(videos), **times}))
        return
    print(f"{len(videos)} videos   first   again")
    for name, of in times.items():
        print(f"{name:8} {of['first']:6.1f}  {of['again']:6.1f}")


if __name__ == "__main__":
    main()
