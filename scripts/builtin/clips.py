"""Short clips of the rendered world's scenes, as evidence shows them: the built-in video captioner's training set.

A clip is up to eight pictures of one scene, 0.25 to 1 s apart and mostly half a second, worn by JPEG. With them is kept what
the training's extra heads are told: which shape is where in each picture, and where the camera stands.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from dailies.curation.atomic import new_file
from dailies.curation.world import Script
from dailies.curation.world.render import Stage
from dailies.curation.world.scenes import write_scene
from scripts.builtin.frames import COLOR_NAMES, KINDS, TRAINING, seen_shapes, worn

STORED = (160, 96)  # (width, height) px, the model's own input
MOST_FRAMES, MOST_SHAPES = 8, 2
CHUNK = 2000  # clips in one file


@dataclass(frozen=True, kw_only=True)
class ClipSet:
    """``pixels``: chunks of (2000, 8, 96, 160, 3) uint8 RGB, which stay on the disk. The first ``counts`` (n,) of the eight
    are pictures; ``times`` (n, 8) s.

    ``shapes`` (n, 8, 2, 5) float32: kind, colour (indices, -1 for none), x, y, radius (shares of the frame's height);
    ``cameras`` (n, 8, 3): its place x, y (shares of the height) and zoom. ``numbers`` (n,): the scenes' seeds.
    """

    pixels: Sequence[NDArray[np.uint8]]
    counts: NDArray[np.int64]
    times: NDArray[np.float32]
    shapes: NDArray[np.float32]
    cameras: NDArray[np.float32]
    numbers: NDArray[np.int64]

    def pictures(self, row: int) -> NDArray[np.uint8]:
        """The pictures (counts, 96, 160, 3) of one clip."""
        return self.pixels[row // CHUNK][row % CHUNK, : self.counts[row]]


def scene(number: int) -> Script:
    """The scene of a training seed, small enough to be rendered quickly and mostly smaller than evidence."""
    rng = np.random.default_rng([number, 0xF2])
    return write_scene((number,), size=(320, 180) if rng.random() < 0.25 else (192, 108))


def picture_times(script: Script, rng: np.random.Generator) -> list[int]:
    """Frames of the shot that evidence would keep, at most eight, spread evenly."""
    spacing = 0.5 if rng.random() < 0.6 else float(rng.uniform(0.25, 1.0))
    start = 0.0 if rng.random() < 0.5 else float(rng.uniform(0, 0.5)) * spacing
    frames = script.shots[0].frames
    indices = [round(t * script.fps) for t in np.arange(start, frames / script.fps, spacing)]
    indices = [index for index in indices if index < frames]
    if len(indices) <= MOST_FRAMES:
        return indices
    return [indices[round(at)] for at in np.linspace(0, len(indices) - 1, MOST_FRAMES)]


def training_clips(clips: int, folder: Path, first: int = TRAINING) -> ClipSet:
    """At least ``clips`` clips from seed ``first`` on, kept in ``folder`` by chunks: a second run renders nothing."""
    chunks = [_chunk(first + number * CHUNK, folder) for number in range(-(-clips // CHUNK))]
    facts = [np.load(chunk / "facts.npz") for chunk in chunks]
    merged = {name: np.concatenate([part[name] for part in facts]) for name in facts[0].files}
    return ClipSet(pixels=[np.load(chunk / "pixels.npy", mmap_mode="r") for chunk in chunks], **merged)


def _chunk(first: int, folder: Path) -> Path:
    """The folder of one chunk, rendered if it is not there."""
    chunk = folder / f"clips-{first}-{CHUNK}"
    if not (chunk / "facts.npz").exists():
        chunk.mkdir(parents=True, exist_ok=True)
        arrays = render(range(first, first + CHUNK))
        with new_file(chunk / "pixels.npy") as hidden:
            np.save(hidden, arrays.pop("pixels"))
        with new_file(chunk / "facts.npz") as hidden:
            np.savez(hidden, **arrays)  # type: ignore[arg-type]
    return chunk


def render(numbers: Sequence[int]) -> dict[str, NDArray[np.generic]]:
    """Render the scenes of these seeds; the fields of ``ClipSet``."""
    n = len(numbers)
    pixels = np.zeros((n, MOST_FRAMES, STORED[1], STORED[0], 3), np.uint8)
    counts, times = np.zeros(n, np.int64), np.zeros((n, MOST_FRAMES), np.float32)
    shapes = np.full((n, MOST_FRAMES, MOST_SHAPES, 5), -1, np.float32)
    cameras = np.zeros((n, MOST_FRAMES, 3), np.float32)
    for row, number in enumerate(numbers):
        for at, (t, picture, seen, camera) in enumerate(_pictures(number)):
            pixels[row, at], times[row, at], cameras[row, at] = picture, t, camera
            shapes[row, at, : len(seen)] = np.reshape(seen, (-1, 5))  # of none, too
            counts[row] = at + 1
    return {
        "pixels": pixels,
        "counts": counts,
        "times": times,
        "shapes": shapes,
        "cameras": cameras,
        "numbers": np.array(numbers, np.int64),
    }


def _pictures(
    number: int,
) -> Iterator[tuple[float, NDArray[np.uint8], list[tuple[float, ...]], tuple[float, float, float]]]:
    """Time, picture, shapes and camera of each picture of one clip."""
    script = scene(number)
    shot, size = script.shots[0], script.size
    stage = Stage(shot, size=size, fps=script.fps)
    for index in picture_times(script, np.random.default_rng([number, 0xF3])):
        # One codec for the whole clip.
        picture = worn(stage.frame(index), np.random.default_rng([number, 0xF4]))
        small = Image.fromarray(picture).resize(STORED, Image.Resampling.BICUBIC)
        seen = [
            (KINDS.index(s.kind), COLOR_NAMES.index(s.color), s.x, s.y, s.radius)
            for s in seen_shapes(shot, index, size=size, fps=script.fps)
        ]
        x, y, zoom = shot.camera.at(index / script.fps)
        yield index / script.fps, np.asarray(small), seen, (x / size[1], y / size[1], zoom)
