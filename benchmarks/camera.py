"""How true the fit of the camera's movement is beside OpenCV's, on the same flow maps in one run, and what a map costs.

    python benchmarks/camera.py [--scenes 40] [--runs 5] [--json]

Each scene is two pictures of a textured plane under a camera of known pan and tilt, zoom and roll, in half of the scenes behind
a textured thing that covers two fifths of the frame and moves otherwise. Their flow (DIS, as observed) is averaged to 16 px and
handed to each fit. ``numbers`` are maps made of numbers instead, with noise of 0.15 px and such a thing. The error is the mean
over the frame of the distance between measured and true movement, in pixels at a short side of 240. OpenCV's is
``cv2.estimateAffinePartial2D`` at its defaults, with the same threshold, over all cells;
``both`` refits its RANSAC as ours is refitted. Our time includes local motion, which the others leave out.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # so that it runs by its path, too

from dailies.curation.observers import camera, motion

Complex = NDArray[np.complex128]
Similarity = tuple[complex, complex]  # (shift, twist): flow = shift + twist · place
HEIGHT, WIDTH = camera.REFERENCE, 420  # px at which everything is stated
ROWS, COLUMNS = motion.MAP_SHORT_SIDE, 28
ANALYSED = 120  # px of the short side that flow is computed at
PLANE = 1000  # px
THING = (12, 15)  # rows and columns of the map: two fifths of it
KINDS = ("pan", "zoom", "roll", "all", "numbers")


@dataclass(frozen=True, kw_only=True)
class Scene:
    """``thing``: its (top, left) cell and its shift, px; None where nothing stands before the plane."""

    camera: Similarity
    thing: tuple[int, int, complex] | None


def places() -> Complex:
    """Return (rows, columns) centres of the map's cells about the frame's, px."""
    x = ((np.arange(COLUMNS) + 0.5) / COLUMNS - 0.5) * WIDTH
    y = ((np.arange(ROWS) + 0.5) / ROWS - 0.5) * HEIGHT
    return np.asarray(x + 1j * y[:, None])


# ---- scenes ---------------------------------------------------------------------------------------------------------


def scenes(kind: str, count: int) -> Iterator[tuple[Scene, Complex]]:
    """Yield scenes with their flow maps; every second rendered one, and all of ``numbers``, have a thing."""
    rng = np.random.default_rng(KINDS.index(kind))
    for number in range(count):
        shift = complex(*rng.normal(0, 8, 2)) if kind in ("pan", "all", "numbers") else 0j
        zoom = rng.uniform(0.92, 1.08) if kind in ("zoom", "all", "numbers") else 1.0
        roll = rng.uniform(-4, 4) if kind in ("roll", "all", "numbers") else 0.0
        top, left = rng.integers(0, ROWS - THING[0] + 1), rng.integers(0, COLUMNS - THING[1] + 1)
        apart = rng.uniform(3, 20) * np.exp(2j * math.pi * rng.random())
        behind = kind == "numbers" or number % 2 == 1
        scene = Scene(
            camera=(shift, zoom * np.exp(1j * math.radians(roll)) - 1),
            thing=(int(top), int(left), complex(shift + apart)) if behind else None,
        )
        yield scene, of_numbers(scene, rng) if kind == "numbers" else rendered(scene, number)


def of_numbers(scene: Scene, rng: np.random.Generator) -> Complex:
    shift, twist = scene.camera
    flow = shift + twist * places()
    if scene.thing is not None:
        top, left, moved = scene.thing
        flow[top : top + THING[0], left : left + THING[1]] = moved
    noise: Complex = rng.normal(0, 0.15, flow.shape) + 1j * rng.normal(0, 0.15, flow.shape)
    return flow + noise


def rendered(scene: Scene, seed: int) -> Complex:
    """Return the flow map between two pictures of a scene."""
    ground, front = plane(2 * seed), plane(2 * seed + 1)
    before, after = (np.asarray(pictured(scene, ground, front, moved)) for moved in (False, True))
    flow = motion._dis()(before, after)
    small = cv2.resize(flow, (COLUMNS, ROWS), interpolation=cv2.INTER_AREA) * (HEIGHT / ANALYSED)
    return np.asarray(small[..., 0] + 1j * small[..., 1].astype(np.float64))


def plane(seed: int) -> NDArray[np.uint8]:
    """Return a square of dead leaves: discs of all sizes over each other, with the edges of photographs."""
    rng, out = np.random.default_rng(seed), np.zeros((PLANE, PLANE), np.float32)
    for radius in np.minimum(3 * rng.random(8_000) ** -0.5, 80):
        at = rng.integers(0, PLANE, 2)
        cv2.circle(out, (int(at[0]), int(at[1])), round(radius), rng.uniform(20, 235), -1, cv2.LINE_AA)
    grain = cv2.GaussianBlur(rng.normal(0, 24, out.shape), (0, 0), 1.2)
    return np.asarray(np.clip(out + grain, 0, 255), np.uint8)


def pictured(scene: Scene, ground: NDArray[np.uint8], front: NDArray[np.uint8], moved: bool) -> NDArray[np.uint8]:
    """Return a gray picture at the size of the analysis, before or after the movement."""
    shift, twist = scene.camera if moved else (0j, 0j)
    picture = seen(ground, 1 + twist, shift)
    if scene.thing is not None:
        top, left, apart = scene.thing
        cell, offset = HEIGHT / ROWS, apart if moved else 0j
        mask = np.zeros((HEIGHT, WIDTH), np.float32)
        first = (round(left * cell), round(top * cell))
        last = (round((left + THING[1]) * cell) - 1, round((top + THING[0]) * cell) - 1)
        cv2.rectangle(mask, first, last, 1, -1)
        place = np.array([[1, 0, offset.real], [0, 1, offset.imag]])
        share = cv2.warpAffine(mask, place, (WIDTH, HEIGHT))
        picture = np.round(picture * (1 - share) + seen(front, 1, offset) * share).astype(np.uint8)
    size = (round(WIDTH * ANALYSED / HEIGHT), ANALYSED)
    return np.asarray(cv2.resize(picture, size, interpolation=cv2.INTER_AREA), np.uint8)


def seen(texture: NDArray[np.uint8], turn: complex, shift: complex) -> NDArray[np.uint8]:
    """Return a texture whose middle is the frame's, scaled and turned about it, then shifted."""
    middle = complex(WIDTH, HEIGHT) / 2 - (0.5 + 0.5j)
    moved = middle + shift - turn * (PLANE / 2) * (1 + 1j)
    matrix = np.array([[turn.real, -turn.imag, moved.real], [turn.imag, turn.real, moved.imag]])
    return np.asarray(cv2.warpAffine(texture, matrix, (WIDTH, HEIGHT), flags=cv2.INTER_CUBIC), np.uint8)


# ---- fits -----------------------------------------------------------------------------------------------------------


def ours(flow: Complex) -> Similarity:
    fit = camera.movement(flow, HEIGHT, WIDTH)
    return complex(-fit.pan, fit.tilt), fit.zoom * np.exp(-1j * math.radians(fit.roll)) - 1


def opencv(method: int) -> Callable[[Complex], Similarity]:
    start = np.stack([places().real.ravel(), places().imag.ravel()], axis=1)

    def fit(flow: Complex) -> Similarity:
        moved = start + np.stack([flow.real.ravel(), flow.imag.ravel()], axis=1)
        matrix, _ = cv2.estimateAffinePartial2D(start, moved, method=method, ransacReprojThreshold=camera.AGREES)
        return complex(matrix[0, 2], matrix[1, 2]), complex(matrix[0, 0], matrix[1, 0]) - 1

    return fit


def both(flow: Complex) -> Similarity:
    """Take OpenCV's consensus and our refit, which leaves out the frame's edge."""
    cells, inside, _ = camera._layout(*flow.shape, HEIGHT, WIDTH)
    return camera._refined(cells, flow.ravel(), inside, *RANSAC(flow))


RANSAC = opencv(cv2.RANSAC)
FITS: dict[str, Callable[[Complex], Similarity]] = {
    "ours": ours,
    "ransac": RANSAC,
    "lmeds": opencv(cv2.LMEDS),
    "both": both,
}


def error(fit: Similarity, truth: Similarity) -> float:
    return float(np.abs(fit[0] - truth[0] + (fit[1] - truth[1]) * places()).mean())


def microseconds(fit: Callable[[Complex], Similarity], maps: list[Complex]) -> float:
    started = time.perf_counter()
    for flow in maps:
        fit(flow)
    return 1e6 * (time.perf_counter() - started) / len(maps)


def measure(count: int, runs: int) -> dict[str, Any]:
    rows, maps = [], []
    for kind in KINDS:
        drawn = list(scenes(kind, count))
        maps += [flow for _, flow in drawn]
        for behind in (False, True):
            chosen = [(scene, flow) for scene, flow in drawn if (scene.thing is not None) == behind]
            for name, fit in FITS.items() if chosen else ():
                errors = [error(fit(flow), scene.camera) for scene, flow in chosen]
                rows.append(
                    {
                        "scene": kind,
                        "thing": behind,
                        "fit": name,
                        "maps": len(errors),
                        "median_px": round(statistics.median(errors), 3),
                        "largest_px": round(max(errors), 3),
                        "over_1_px": sum(each > 1 for each in errors),
                    }
                )
    taken = [{name: microseconds(fit, maps) for name, fit in FITS.items()} for _ in range(runs)]
    cost = {name: round(statistics.median(each[name] for each in taken)) for name in FITS}
    return {"errors": rows, "microseconds_per_map": cost, "cores": os.cpu_count()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scenes", type=int, default=40)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    result = measure(options.scenes, options.runs)
    if options.json:
        print(json.dumps(result))
        return
    print(f"{'scene':<9}{'thing':<7}{'fit':<8}{'maps':>5}{'median px':>11}{'largest px':>12}{'over 1 px':>11}")
    for row in result["errors"]:
        print(
            f"{row['scene']:<9}{'yes' if row['thing'] else 'no':<7}{row['fit']:<8}{row['maps']:5d}"
            f"{row['median_px']:11.3f}{row['largest_px']:12.3f}{row['over_1_px']:11d}"
        )
    for name, cost in result["microseconds_per_map"].items():
        print(f"{name:<8} {cost} microseconds a map")


if __name__ == "__main__":
    main()
