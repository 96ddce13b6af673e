"""How true motion scores are: on rendered pans, zooms, rolls and things of known speed, and how the methods rank a folder.

    python benchmarks/motion.py [FOLDER] [--json]

Each scene is rendered at 360 px, encoded as H.264 and observed as any source is. Pans are stated in pixels at 240 px per half
second, zooms in percent and rolls in degrees per half second. With FOLDER: Spearman's rank correlation of its videos' mean
motion between DIS (default) and Farnebäck (SVD's), cuts and all, and CPU milliseconds of each per second of video.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # so that it runs by its path, too

from dailies.curation import video, world
from dailies.curation.observe import observe
from dailies.curation.observers.camera import REFERENCE
from dailies.curation.observers.motion import MotionObserver
from dailies.curation.timing import Grid, Span
from dailies.curation.types import Frame
from dailies.curation.world.script import Background, Camera, Script, Shape, Shot

METHODS = {name: MotionObserver(method=name) for name in ("dis", "farneback")}
SPEEDS = (0, 5, 10, 20, 40, 80, 150)  # px per second at 360 px
ZOOMS = (0.02, 0.05, 0.1, 0.2, -0.1)  # 1/s
ROLLS = (0.5, 1, 2, 4, -2)  # degrees per half second
THINGS = (5, 10, 20, 40)  # px per second at 360 px
FPS, SECONDS = 24, 4
TEXTURES = ("cloudy", "dotted", "shaded")
SUFFIXES = {".mp4", ".mov", ".mkv", ".webm", ".avi", ".ts"}


Row = dict[str, Any]


def pans(folder: Path) -> list[Row]:
    return [
        {"scene": "pan", "true": round(speed / 2 * REFERENCE / 360, 2)}
        | scored("motion", [shot(texture, Camera(velocity=(speed, 0))) for texture in TEXTURES], folder)
        for speed in SPEEDS
    ]


def zooms(folder: Path) -> list[Row]:
    return [
        {"scene": "zoom", "true": round(100 * (math.exp(rate / 2) - 1), 2)}
        | scored("motion_zoom", [shot(texture, Camera(zoom_rate=rate)) for texture in TEXTURES], folder)
        for rate in ZOOMS
    ]


def rolls(folder: Path) -> list[Row]:
    """The rendered world does not roll: one picture of it is turned."""
    rows = []
    for degrees in ROLLS:
        films = []
        for texture in TEXTURES:
            large = next(world.frames(Script(shots=(shot(texture, Camera()),), size=(1000, 1000))))
            films.append([turned(large, degrees * 2 * frame / FPS) for frame in range(SECONDS * FPS)])
        rows.append({"scene": "roll", "true": degrees} | scored("motion_roll", films, folder))
    return rows


def things(folder: Path) -> list[Row]:
    """Local motion of a disc of a radius of a quarter of the height, before a still camera."""
    share = math.pi * 90**2 / (640 * 360)
    return [
        {"scene": "thing", "true": round(share * speed / 2 * REFERENCE / 360, 2)}
        | scored("motion_local", [shot(texture, Camera(), radius=90, speed=speed) for texture in TEXTURES], folder)
        for speed in THINGS
    ]


def shot(texture: Any, camera: Camera, *, radius: float = 20, speed: float = 0) -> Shot:
    """Its disc passes the middle half way."""
    ground = Background(texture=texture, color="grey", seed=3)
    x, y = (320 - speed * SECONDS / 2, 180) if speed else (100, 60)
    shape = Shape(kind="circle", color="red", radius=radius, x=x, y=y, velocity=(speed, 0))
    return Shot(frames=SECONDS * FPS + 1, background=ground, camera=camera, shapes=(shape,))


def turned(picture: Any, degrees: float) -> Any:
    """Its middle, turned anticlockwise, as a camera sees it that turns clockwise."""
    size = picture.shape[1], picture.shape[0]
    matrix = cv2.getRotationMatrix2D((size[0] / 2, size[1] / 2), degrees, 1)
    return cv2.warpAffine(picture, matrix, size, flags=cv2.INTER_CUBIC)[320:680, 180:820]


def scored(column: str, films: Sequence[Any], folder: Path) -> Row:
    """Median over films, by method."""
    found: dict[str, list[float]] = {name: [] for name in METHODS}
    for film in films:
        source = Script(shots=(film,), size=(640, 360), fps=FPS) if isinstance(film, Shot) else film
        path = world.encode(source, folder / "film.mp4", fps=FPS)
        for name, method in METHODS.items():
            seen = observe(str(path), [method], None)
            whole = Span(start=seen.pts[0], end=seen.end, time_base=seen.probe.time_base)
            found[name].append(float(method.reduce({t.name: t for t in seen.tracks}, whole)[column] or 0))
    return {name: round(float(np.median(values)), 2) for name, values in found.items()}


def ranks(folder: Path) -> dict[str, Any]:
    """Both methods see the same frames of one decode; decoding is not counted."""
    scores: dict[str, list[float]] = {name: [] for name in METHODS}
    spent, seconds = dict.fromkeys(METHODS, 0.0), 0.0
    for path in sorted(path for path in folder.iterdir() if path.suffix in SUFFIXES):
        with video.open_source(str(path), skip_nonref=True) as source:
            live = {name: method.start(source.probe) for name, method in METHODS.items()}
            grid, pts = Grid(2, source.time_base), []
            for picture in source.frames():
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
        scenes = [row for made in (pans, zooms, rolls, things) for row in made(Path(folder))]
    result: dict[str, Any] = {"scenes": scenes}
    if args.folder:
        result |= ranks(args.folder)
    if args.json:
        print(json.dumps(result))
        return
    print(f"{'scene':<6}{'true':>8}" + "".join(f"{name:>12}" for name in METHODS))
    for row in result.pop("scenes"):
        print(f"{row['scene']:<6}{row['true']:8.2f}" + "".join(f"{row[name]:12.2f}" for name in METHODS))
    for key, value in result.items():
        print(f"{key:<18} {value}")


if __name__ == "__main__":
    main()
