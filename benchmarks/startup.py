"""How long commands take that have little to do: what a person waits for, wall time of a process of its own.

    python benchmarks/startup.py [--runs 5] [--only WORD] [--no-bytecode] [--json]

Curates three rendered videos in a temporary folder first. Seconds, the least of the runs, so that what else the machine
does counts little; all commands take their turn in every run. Python keeps the bytecode of what it imports, as it does
for any user; with ``--no-bytecode`` each process compiles all of it, as where PYTHONDONTWRITEBYTECODE is set.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # so that it runs by its path, too

from dailies.curation import world

CURATE = ("curate", "videos", "--out", "dataset", "--engine", "local", "--set", "cut.min_seconds=1")
# What it is called → its arguments and the code it must end with.
COMMANDS: dict[str, tuple[tuple[str, ...], int]] = {
    "--help": (("--help",), 0),
    "--version": (("--version",), 0),
    "curate --help": (("curate", "--help"), 0),
    "train --help": (("train", "--help"), 0),
    "zoo --help": (("zoo", "--help"), 0),
    "a misspelled command": (("curat",), 2),
    "a misspelled option": (("curate", "videos", "--out", "dataset", "--recip", "svd"), 2),
    "a misspelled recipe": (("curate", "videos", "--out", "dataset", "--recipe", "defualt"), 2),
    "a misspelled key": (("curate", "videos", "--out", "dataset", "--set", "cut.min_second=1"), 2),
    "a misspelled step": (("curate", "videos", "--out", "dataset", "--set", "observ.x=1"), 2),
    "a missing source": (("curate", "no-videos", "--out", "other", "--engine", "local"), 2),
    "a missing dataset": (("select", "no-dataset"), 2),
    "a misspelled training recipe": (("train", "tinny", "--data", "export"), 2),
    "a misspelled field of training": (("train", "tiny", "--set", "stepz=1", "--dry-run"), 2),
    "recipe list": (("recipe", "list"), 0),
    'sql "select 1"': (("sql", "dataset", "select 1"), 0),
    "sql over clips": (("sql", "dataset", "select status, count(*) from clips group by status"), 0),
    "select": (("select", "dataset"), 0),
    "curate, nothing to do": (CURATE, 0),
    "export, nothing to do": (("export", "dataset", "--engine", "local"), 0),
    "verify": (("verify", "dataset"), 0),
    "gc": (("gc", "dataset", "--dry-run"), 0),
    "zoo list": (("zoo", "list", "--zoo", "zoo"), 0),
    "train tiny --dry-run": (("train", "tiny", "--dry-run"), 0),
}


def seconds(arguments: tuple[str, ...], code: int, folder: Path, bytecode: bool) -> float:
    env = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    env |= {"PYTHONPYCACHEPREFIX": str(folder / "bytecode")} if bytecode else {"PYTHONDONTWRITEBYTECODE": "1"}
    line = [sys.executable, "-m", "dailies", *arguments]
    began = time.perf_counter()
    done = subprocess.run(line, cwd=folder, env=env, capture_output=True, text=True, check=False)
    took = time.perf_counter() - began
    if done.returncode != code:
        raise SystemExit(f"dailies {' '.join(arguments)} ended with {done.returncode}, not {code}:\n{done.stderr}")
    return took


def measure(runs: int, only: str, bytecode: bool) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "videos").mkdir()
        for seed in range(3):
            world.encode(world.write_script(seed, shots=3), folder / "videos" / f"{seed}.mp4")
        seconds(CURATE, 0, folder, bytecode)
        chosen = {title: command for title, command in COMMANDS.items() if only in title}
        least = dict.fromkeys(chosen, float("inf"))
        for _ in range(runs + bytecode):  # the first one writes it
            for title, (arguments, code) in chosen.items():
                least[title] = min(least[title], seconds(arguments, code, folder, bytecode))
        return least


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--only", default="", metavar="WORD", help="only commands with this in their name")
    parser.add_argument("--no-bytecode", action="store_true")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    least = measure(args.runs, args.only, not args.no_bytecode)
    if args.json:
        print(json.dumps(least))
        return
    machine = f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}"
    print(f"{datetime.now(UTC).date()}, {machine}; seconds, least of {args.runs}")
    for title, took in least.items():
        print(f"{title:34}{took:8.2f}")


if __name__ == "__main__":
    main()
