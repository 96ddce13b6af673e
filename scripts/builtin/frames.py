"""Single frames of the rendered world with what can be seen in them: the built-in models' training set.

A frame's caption says what one picture can show: "a large red circle and a small blue star over a striped grey
background, with words on it". It keeps the words and the order of words of the world's captions without the motion;
shapes are listed from left to right, because the order in which they were drawn can't be seen, and sizes are those on
the screen.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import cv2
import numpy as np
from numpy.typing import NDArray

from dailies.curation.atomic import new_file
from dailies.curation.world import BACKGROUNDS, COLORS, Shot, write_script
from dailies.curation.world.render import Stage, fill_outline, outline_area, to_screen
from dailies.curation.world.script import LARGE, ShapeKind, Texture

# Seeds are tuples, so that these can't meet the small integers of the quickstart and the tests.
TRAINING, HELD_OUT = 7_000_000, 9_000_000
STORED = (160, 90)  # (width, height) px at which frames are kept
MOST = 3  # shapes in a shot, in the order in which they were drawn
KINDS: tuple[str, ...] = get_args(ShapeKind)
TEXTURES: tuple[str, ...] = get_args(Texture)
COLOR_NAMES, GROUND_NAMES = tuple(COLORS), tuple(BACKGROUNDS)


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """A shape as a frame shows it. ``x``, ``y``: centre; ``radius``; all as shares of the frame's height."""

    kind: str
    color: str
    x: float
    y: float
    radius: float

    @property
    def name(self) -> str:
        return f"{'large' if self.radius >= LARGE else 'small'} {self.color} {self.kind}"


def seen_shapes(shot: Shot, index: int, *, size: tuple[int, int], fps: float) -> tuple[Seen, ...]:
    """The shapes that the shot's frame ``index`` shows, in the order in which they were drawn.

    One of which more than half lies outside the frame or behind later ones is left out: nobody could name it.
    """
    width, height = size
    t = index / fps
    camera = shot.camera.at(t)
    layers = np.zeros((height, width), np.uint8)
    drawn = []
    for number, shape in enumerate(shot.shapes, 1):
        x, y, radius = shape.at(t)
        u, v = to_screen(x, y, camera, size)
        fill_outline(layers, shape.kind, u, v, radius * camera[2], number)
        drawn.append((u, v, radius * camera[2]))
    areas = np.bincount(layers.ravel(), minlength=len(drawn) + 1)[1:]
    return tuple(
        Seen(kind=shape.kind, color=shape.color, x=u / height, y=v / height, radius=radius / height)
        for shape, (u, v, radius), area in zip(shot.shapes, drawn, areas, strict=True)
        if area > 0.5 * outline_area(shape.kind) * radius**2
    )


def frame_caption(shapes: Sequence[Seen], texture: str, ground: str, words: bool) -> str:
    """What one frame shows, in the world's words."""
    names = [f"a {shape.name}" for shape in sorted(shapes, key=lambda shape: shape.x)]
    who = " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)
    place = f"a {texture} {ground} background"
    return f"{who} over {place}" * bool(who) + place * (not who) + ", with words on it" * words


def shot_caption(shot: Shot, index: int, *, size: tuple[int, int], fps: float) -> str:
    """The caption of the shot's frame ``index``."""
    words = any(overlay.shows(index) for overlay in shot.overlays)
    shapes = seen_shapes(shot, index, size=size, fps=fps)
    return frame_caption(shapes, shot.background.texture, shot.background.color, words)


# ---- a training set -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class FrameSet:
    """``pixels`` (n, 90, 160, 3) uint8 RGB; ``shapes`` (n, 3, 5) float32: kind, colour (indices, -1 for none), x, y,
    radius (shares of the height); ``captions`` of the frames and ``stories``, the world's captions of their shots.
    """

    pixels: NDArray[np.uint8]
    shapes: NDArray[np.float32]
    captions: list[str]
    stories: list[str]


CHUNK = 4000  # frames in one file


def training_set(frames: int, folder: Path) -> FrameSet:
    """At least ``frames`` frames, kept in ``folder`` chunk by chunk, so that a second run or model renders nothing."""
    chunks = [
        rendered_set(CHUNK, first=TRAINING + number * CHUNK, folder=folder) for number in range(-(-frames // CHUNK))
    ]
    return FrameSet(
        pixels=np.concatenate([chunk.pixels for chunk in chunks]),
        shapes=np.concatenate([chunk.shapes for chunk in chunks]),
        captions=[caption for chunk in chunks for caption in chunk.captions],
        stories=[story for chunk in chunks for story in chunk.stories],
    )


def rendered_set(frames: int, *, first: int = TRAINING, folder: Path | None = None) -> FrameSet:
    """``frames`` frames, each of its own shot; kept in ``folder``, where one is given, and read back from it."""
    path = folder / f"frames-{first}-{frames}.npz" if folder else None
    if path and path.exists():
        with np.load(path) as kept:
            return FrameSet(
                pixels=kept["pixels"],
                shapes=kept["shapes"],
                captions=kept["captions"].tolist(),
                stories=kept["stories"].tolist(),
            )
    pixels = np.empty((frames, STORED[1], STORED[0], 3), np.uint8)
    shapes = np.full((frames, MOST, 5), -1, np.float32)
    captions, stories = [], []
    for row, (picture, found, caption, story) in zip(range(frames), _pictures(first), strict=False):
        pixels[row] = picture
        for slot, shape in enumerate(found):
            kind, color = KINDS.index(shape.kind), COLOR_NAMES.index(shape.color)
            shapes[row, slot] = kind, color, shape.x, shape.y, shape.radius
        captions.append(caption)
        stories.append(story)
    made = FrameSet(pixels=pixels, shapes=shapes, captions=captions, stories=stories)
    if path:
        path.parent.mkdir(parents=True, exist_ok=True)
        with new_file(path) as hidden:
            np.savez(hidden, pixels=pixels, shapes=shapes, captions=np.array(captions), stories=np.array(stories))
    return made


def _pictures(first: int) -> Iterator[tuple[NDArray[np.uint8], tuple[Seen, ...], str, str]]:
    """Endless frames as evidence shows them: drawn at one of two sizes, compressed, and brought to one size."""
    for number in itertools.count(first):
        rng = np.random.default_rng([number, 0xF1])
        size = (320, 180) if rng.random() < 0.25 else (192, 108)
        script = write_script((number,), shots=1, size=size)
        shot = script.shots[0]
        index = int(rng.integers(shot.frames))
        picture = worn(Stage(shot, size=size, fps=script.fps).frame(index), rng)
        found = seen_shapes(shot, index, size=size, fps=script.fps)
        caption = shot_caption(shot, index, size=size, fps=script.fps)
        yield cv2.resize(picture, STORED, interpolation=cv2.INTER_AREA), found, caption, shot.caption(size[1])


def worn(picture: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
    """``picture`` after a codec: JPEG at a random quality, sometimes a little out of focus before it."""
    if rng.random() < 0.3:
        picture = np.asarray(cv2.GaussianBlur(picture, (0, 0), float(rng.uniform(0.4, 1.1))), np.uint8)
    _, data = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(40, 96))])
    return np.asarray(cv2.imdecode(data, cv2.IMREAD_COLOR), np.uint8)


# ---- what is where --------------------------------------------------------------------------------------------------


def patch_labels(shapes_n35: NDArray[np.float32], grid: tuple[int, int]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Kind and colour under each patch of a (rows, columns) grid: two (n, rows·columns) int64, the last class is none.

    A patch shows a shape when its middle lies within the shape's radius, or when it is the one nearest to its centre.
    """
    rows, columns = grid
    aspect = STORED[0] / STORED[1]
    y, x = np.meshgrid((np.arange(rows) + 0.5) / rows, (np.arange(columns) + 0.5) / columns * aspect, indexing="ij")
    kinds = np.full((len(shapes_n35), rows * columns), len(KINDS), np.int64)
    colors = np.full_like(kinds, len(COLOR_NAMES))
    for slot in range(shapes_n35.shape[1]):
        kind, color, u, v, radius = shapes_n35[:, slot].T
        apart = np.hypot(x.reshape(1, -1) - u[:, None], y.reshape(1, -1) - v[:, None])
        under = (apart < radius[:, None]) | (apart == apart.min(axis=1, keepdims=True))
        under &= kind[:, None] >= 0
        kinds = np.where(under, kind[:, None].astype(np.int64), kinds)
        colors = np.where(under, color[:, None].astype(np.int64), colors)
    return kinds, colors
