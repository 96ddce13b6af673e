"""How true motion scores are: on rendered pans whose speed is known, and how the methods rank a folder's videos.

    python benchmarks/motion.py [FOLDER] [--json]

Each pan is rendered at 360 px, encoded as H.264 and observed as any source is. Motion is stated in pixels at 240 px per half
second. With FOLDER: Spearman's rank correlation of the videos' mean motion between DIS at 120 px (default) and Farnebäck at
240 px (SVD's), and CPU milliseconds of each per second of video.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # so that it runs by its path, too

from curation import video, world
from curation.observe import observe
from curation.observers.motion import REFERENCE, Motion
from curation.timing import Grid, Span
from curation.types import Frame
from curation.world_script import Background, Camera, Script, Shape, Shot

METHODS = {"dis": Motion(), "farneback": Motion(method="farneback", short_side=240)}
SPEEDS = (0, 5, 10, 20, 40, 80, 150)  # px per second at 360 px
TEXTURES = ("cloudy", "dotted", "shaded")
SUFFIXES = {".mp4", ".mov", ".mkv", ".webm", ".avi", ".ts"}


def pans(folder: Path) -> list[dict[str, Any]]:
    rows = []
    for speed in SPEEDS:
        row: dict[str, Any] = {"true": round(speed / 2 * REFERENCE / 360, 2)}
        found: dict[str, list[float]] = {name: [] for name in METHODS}
        for texture in TEXTURES:
            ground = Background(texture=texture, color="grey", seed=3)
            shape = Shape(kind="circle", color="red", radius=20, x=100, y=60)
            shot = Shot(frames=97, background=ground, camera=Camera(velocity=(speed, 0)), shapes=(shape,))
            path = world.encode(Script(shots=(shot,), size=(640, 360), fps=24), folder / f"{texture}-{speed}.mp4")
            for name, method in METHODS.items():
                seen = observe(str(path), [method], None)
                whole = Span(start=seen.pts[0], end=seen.end, time_base=seen.probe.time_base)
                found[name].append(float(method.reduce({t.name: t for t in seen.tracks}, whole)["motion"] or 0))
        rows.append(row | {name: round(float(np.median(values)), 2) for name, values in found.items()})
    return rows


def ranks(folder: Path) -> dict[str, Any]:
    """Both methods see the same frames of one decode; decoding is not counted."""
    scores: dict[str, list[float]] = {name: [] for name in METHODS}
    spent, seconds = dict.fromkeys(METHODS, 0.0), 0.0
    for path in sorted(path for path in folder.iterdir() if path.suffix in SUFFIXES):
        with video.open_source(str(path), skim=True) as source:
            live = {name: method.start(source.probe) for name, method in METHODS.items()}
            grid, pts = Grid(2, source.time_base), []
            for picture in source.pictures():
                if not grid.due(picture.pts):
                    continue
                pts.append(picture.pts)
                for name, method in METHODS.items():
                    frame = Frame(pts=picture.pts, pixels=picture.planes(method.needs))
                    began = time.process_time()
                    live[name].see(frame)
                    spent[name] += time.process_time() - began
            whole = Span(start=pts[0], end=pts[-1] + 1, time_base=source.time_base)
            seconds += float(whole.end - whole.start) * float(source.time_base)
        for name, method in METHODS.items():
            tracks = {track.name: track for track in live[name].finish()}
            scores[name].append(float(method.reduce(tracks, whole)["motion"] or 0))
    return {
        "videos": len(scores["dis"]),
        "rank_correlation": round(spearman(scores["dis"], scores["farneback"]), 3),
        "cpu_ms_per_second": {name: round(1000 * value / seconds, 2) for name, value in spent.items()},
    }


def spearman(one: list[float], other: list[float]) -> float:
    first, second = (np.argsort(np.argsort(values)) for values in (one, other))
    return float(np.corrcoef(first, second)[0, 1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        result: dict[str, Any] = {"pans": pans(Path(folder))}
    if args.folder:
        result |= ranks(args.folder)
    if args.json:
        print(json.dumps(result))
        return
    print(f"{'true':>8}" + "".join(f"{name:>12}" for name in METHODS))
    for row in result.pop("pans"):
        print(f"{row['true']:8.2f}" + "".join(f"{row[name]:12.2f}" for name in METHODS))
    for key, value in result.items():
        print(f"{key:<18} {value}")


if __name__ == "__main__":
    main()
