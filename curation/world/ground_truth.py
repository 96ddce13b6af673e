"""The truth about a rendered video: its cuts, flashes, shots, shapes and texts, worked out from its script."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dailies.curation.world.relations import Relation, relations
from dailies.curation.world.render import outline_area, text_box, to_screen
from dailies.curation.world.script import FlashKind, Script, ShapeKind, Shot, Texture, TransitionKind
from dailies.curation.world.telling import speed_word, tell_fields


@dataclass(frozen=True, slots=True, kw_only=True)
class CutTruth:
    """A place where shots meet. ``frame``: the first that shows the new shot; ``end``: the first wholly of it."""

    frame: int
    end: int
    kind: TransitionKind


@dataclass(frozen=True, slots=True, kw_only=True)
class FlashTruth:
    """A change of light in frames ``[frame, end)``, which is no cut."""

    frame: int
    end: int
    kind: FlashKind


@dataclass(frozen=True, slots=True, kw_only=True)
class TextTruth:
    """A text in ``box`` (x0, y0, x1, y1) px, x1 and y1 outside, in frames ``[frame, end)`` of the video, blends left out."""

    frame: int
    end: int
    text: str
    box: tuple[int, int, int, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class ShapeTruth:
    """A shape and its motion: ``velocity`` and ``speed`` px/s are against the background; ``growth`` 1/s.

    ``pace``: "slowly", "quickly" or "" (``telling.speed_word``).
    """

    kind: ShapeKind
    color: str
    size: str
    motion: str
    velocity: tuple[float, float]
    speed: float
    growth: float
    pace: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ShotTruth:
    """One shot. Frames ``[frame, end)`` are wholly its own.

    ``camera_velocity`` px/s: a picture moves the other way. ``flow``: the mean speed at which the picture moves on the
    screen, px/s, over pixels and frames; shapes count as discs of their area. ``text_share``: the area of its text
    boxes over the frame's, when most text is on screen at once; ``mean_text_share`` is the mean over its frames.
    ``relations``: how each two shapes stand to each other, by their places in ``shapes``. ``fields``: as a caption has them.
    """

    frame: int
    end: int
    caption: str
    still: bool
    texture: Texture
    background: str
    shapes: tuple[ShapeTruth, ...]
    relations: tuple[Relation, ...]
    camera: str
    camera_velocity: tuple[float, float]
    zoom_rate: float
    shake: float
    flow: float
    texts: tuple[TextTruth, ...]
    text_share: float
    mean_text_share: float
    fields: dict[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Truth:
    """Everything true of a video, in presentation order, frames from 0. ``size``: (width, height) px."""

    size: tuple[int, int]
    fps: float
    frames: int
    cuts: tuple[CutTruth, ...]
    flashes: tuple[FlashTruth, ...]
    shots: tuple[ShotTruth, ...]

    def to_json(self) -> dict[str, Any]:
        """Return plain dicts, lists, numbers and strings; the fields keep their names."""
        plain: dict[str, Any] = json.loads(json.dumps(asdict(self)))
        return plain


def truth(script: Script) -> Truth:
    """Work out the truth about a script's frames without rendering them."""
    spans = script.spans
    cuts = [
        CutTruth(frame=end, end=start, kind=transition.kind)
        for (_, end), (start, _), transition in zip(spans[:-1], spans[1:], script.transitions, strict=True)
    ]
    flashes = [
        FlashTruth(frame=start + flash.start, end=start + flash.start + flash.frames, kind=flash.kind)
        for shot, (start, _) in zip(script.shots, spans, strict=True)
        for flash in shot.flashes
    ]
    return Truth(
        size=script.size,
        fps=script.fps,
        frames=script.frames,
        cuts=tuple(cuts),
        flashes=tuple(flashes),
        shots=tuple(_shot_truth(shot, start, script) for shot, (start, _) in zip(script.shots, spans, strict=True)),
    )


def _shot_truth(shot: Shot, start: int, script: Script) -> ShotTruth:
    short_side = min(script.size)
    texts, shares = [], np.zeros(shot.frames)
    for overlay in shot.overlays:
        first, last = max(0, overlay.start or 0), min(shot.frames, shot.frames if overlay.end is None else overlay.end)
        x0, y0, x1, y1 = box = text_box(overlay, script.size)
        if first < last:
            texts.append(TextTruth(frame=start + first, end=start + last, text=overlay.text, box=box))
            shares[first:last] += (x1 - x0) * (y1 - y0) / (script.size[0] * script.size[1])
    shapes = [
        ShapeTruth(
            kind=shape.kind,
            color=shape.color,
            size="" if shot.camera.zoom_rate else shape.size(short_side),
            motion=shape.motion,
            velocity=shape.velocity,
            speed=round(shape.speed, 3),
            growth=shape.growth,
            pace=speed_word(shape.velocity, short_side),
        )
        for shape in shot.shapes
    ]
    return ShotTruth(
        frame=start,
        end=start + shot.frames,
        caption=shot.caption(short_side),
        still=shot.still,
        texture=shot.background.texture,
        background=shot.background.color,
        shapes=tuple(shapes),
        relations=relations(shot, script.fps),
        camera=shot.camera.motion,
        camera_velocity=shot.camera.velocity,
        zoom_rate=shot.camera.zoom_rate,
        shake=shot.camera.shake,
        flow=round(_flow(shot, script.size, script.fps), 3),
        texts=tuple(texts),
        text_share=round(float(shares.max()), 6),
        mean_text_share=round(float(shares.mean()), 6),
        fields=tell_fields(shot, short_side, fps=script.fps),
    )


def _flow(shot: Shot, size: tuple[int, int], fps: float) -> float:
    """Return the picture's mean speed on the screen, px/s, of a grid of points followed from frame to frame."""
    if shot.still or (shot.camera.still and not shot.shapes):
        return 0.0
    step, means = 1 / fps, []
    us, vs = np.meshgrid((np.arange(48) + 0.5) * size[0] / 48, (np.arange(27) + 0.5) * size[1] / 27)
    for index in np.unique(np.linspace(0, max(0, shot.frames - 2), 12).astype(int)):
        t = float(index) * step
        (cx, cy, zoom), after = shot.camera.at(t), shot.camera.at(t + step)
        # World points under the grid, and where the next frame shows them.
        x, y = (us - size[0] / 2) / zoom + size[0] / 2 + cx, (vs - size[1] / 2) / zoom + size[1] / 2 + cy
        moved = np.hypot(*_offsets(x, y, after, size, us, vs))
        for shape in shot.shapes:
            (px, py, radius), (qx, qy, later) = shape.at(t), shape.at(t + step)
            inside = np.hypot(x - px, y - py) < radius * disc_radius(shape.kind)
            nx, ny = qx + (x - px) * later / radius, qy + (y - py) * later / radius
            moved = np.where(inside, np.hypot(*_offsets(nx, ny, after, size, us, vs)), moved)
        means.append(float(moved.mean()) / step)
    return float(np.mean(means))


def _offsets(
    x: NDArray[np.float64],
    y: NDArray[np.float64],
    camera: tuple[float, float, float],
    size: tuple[int, int],
    us: NDArray[np.float64],
    vs: NDArray[np.float64],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    u, v = to_screen(x, y, camera, size)
    return u - us, v - vs


def disc_radius(kind: str) -> float:
    """Return the radius of the disc of the same area as the unit shape."""
    return math.sqrt(outline_area(kind) / math.pi)
