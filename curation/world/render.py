"""The rendered world gets its pixels here: backgrounds are drawn once per shot, on a plane that repeats, and warped."""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import lru_cache
from typing import Any, TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from dailies.curation.world.script import (
    BACKGROUNDS,
    COLORS,
    VECTORS,
    Background,
    Camera,
    Flash,
    Overlay,
    Script,
    Shape,
    Shot,
    Transition,
)

Pixels = NDArray[np.uint8]  # (h, w, 3) RGB
Floats = NDArray[np.float32]
Number = TypeVar("Number", float, NDArray[np.float64])
FLASH_WHITE = 250.0  # a flash is near white, as an overexposed frame is

# ---- backgrounds ----------------------------------------------------------------------------------------------------


def plane(background: Background, size: tuple[int, int]) -> Pixels:
    """Draw the background as a (2h, 2w, 3) tile for frames of ``size`` (w, h). Its edges meet, so no camera runs out."""
    width, height = 2 * size[0], 2 * size[1]
    rng = np.random.default_rng([background.seed, 0xB6])
    tone = _pattern(background.texture, rng, width, height)
    if background.texture != "cloudy":
        tone = np.float32(0.85) * tone + np.float32(0.3) * _clouds(rng, width, height, slope=1.7)
    base = np.asarray(BACKGROUNDS[background.color], np.float32)
    contrast = 0.13 + 3.5 / base.mean()  # dark colours need more of it to be seen
    tint = (base * contrast + rng.uniform(-5, 5, 3)).astype(np.float32)
    # A fine grain gives even a smooth background something that can be seen to move; blurred, it stays cheap to encode.
    noise = rng.standard_normal((height, width), dtype=np.float32) * 6
    grain: Floats = cv2.GaussianBlur(noise, (0, 0), 0.8, borderType=cv2.BORDER_REFLECT)
    canvas: Any = base + grain[..., None] + tint * tone[..., None]
    tile: Pixels = np.clip(canvas + 0.5, 0, 255).astype(np.uint8)
    return tile


def _clouds(rng: np.random.Generator, width: int, height: int, slope: float) -> Floats:
    """Draw noise whose amplitude falls with frequency as f^-slope, (h, w), mean 0, standard deviation 1; it tiles."""
    fy, fx = np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None]
    # Nothing below three waves per tile: what is broader than the frame would be a tint, not a texture.
    frequency = np.maximum(np.hypot(fx * width, fy * height), 3)
    white = rng.standard_normal((height, width), dtype=np.float32)
    noise = np.fft.irfft2(np.fft.rfft2(white) * (frequency**-slope).astype(np.float32), (height, width))
    return np.asarray((noise - noise.mean()) / noise.std(), np.float32)


def _pattern(texture: str, rng: np.random.Generator, width: int, height: int) -> Floats:
    """Draw a texture (h, w), about -1 to 1; every wave fits a whole number of times into the tile."""
    y, x = np.arange(height, dtype=np.float32)[:, None] / height, np.arange(width, dtype=np.float32) / width

    def wave(angle: float, period: float) -> Floats:
        kx, ky = round(width / period * math.cos(angle)), round(height / period * math.sin(angle))
        waves: Floats = np.sin(math.tau * (kx * x + ky * y) + np.float32(phase))
        return waves

    phase = float(rng.uniform(0, math.tau))
    angle = float(rng.choice([0, math.pi / 4, math.pi / 2, 3 * math.pi / 4]))
    period = float(rng.uniform(0.10, 0.16)) * height
    if texture == "cloudy":
        pattern = 1.15 * np.tanh(0.9 * _clouds(rng, width, height, slope=1.5))
    elif texture == "striped":
        pattern = np.tanh(4 * wave(angle, period))
    elif texture == "checked":
        pattern = np.tanh(5 * wave(angle, 1.2 * period) * wave(angle + math.pi / 2, 1.2 * period))
    elif texture == "dotted":
        pattern = np.tanh(3 * (wave(angle, period) + wave(angle + math.pi / 2, period) - 0.9))
    else:  # "shaded": one slow slope across the frame, two of which make up the tile
        pattern = 1.5 * wave(float(rng.choice([0, math.pi / 2])), height)
    return np.asarray(pattern, np.float32)


# ---- shapes ---------------------------------------------------------------------------------------------------------


def _ring(points: int, radii: tuple[float, ...] = (1.0,), turn: float = -math.pi / 2) -> NDArray[np.float64]:
    """Place ``points`` corners around the centre, at ``radii`` in turn, from the top on."""
    angle = turn + math.tau * np.arange(points) / points
    radius = np.resize(np.asarray(radii), points)
    return np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1)


def _heart() -> NDArray[np.float64]:
    t = np.linspace(0, math.tau, 64, endpoint=False)
    x = 16 * np.sin(t) ** 3
    y = -(13 * np.cos(t) - 5 * np.cos(2 * t) - 2 * np.cos(3 * t) - np.cos(4 * t))
    return np.stack([x, y], axis=1) / 16


_ARM = 0.36
# Contours in units of the radius; a second contour is a hole.
OUTLINES: dict[str, tuple[NDArray[np.float64], ...]] = {
    "circle": (_ring(64),),
    "square": (_ring(4, (1.2,), turn=-math.pi / 4),),
    "triangle": (_ring(3, (1.2,)) + np.array((0, 0.15)),),
    "star": (_ring(10, (1.2, 0.5)),),
    "ring": (_ring(64, (1.05,)), _ring(64, (0.6,))),
    "cross": (
        np.array(
            [
                (-_ARM, -1.1), (_ARM, -1.1), (_ARM, -_ARM), (1.1, -_ARM), (1.1, _ARM), (_ARM, _ARM),
                (_ARM, 1.1), (-_ARM, 1.1), (-_ARM, _ARM), (-1.1, _ARM), (-1.1, -_ARM), (-_ARM, -_ARM),
            ]
        ),
    ),
    "heart": (_heart(),),
}  # fmt: skip
_SHIFT = 6  # cv2 draws at 1/64 px


def fill_outline(
    image: Pixels, kind: str, x: float, y: float, radius: float, value: int, *, line: int = cv2.LINE_8
) -> None:
    """Fill a shape's outline at ``(x, y)`` px with ``radius`` px by ``value`` into ``image``, (h, w) uint8."""
    contours = [np.round((outline * radius + (x, y)) * (1 << _SHIFT)).astype(np.int32) for outline in OUTLINES[kind]]
    cv2.fillPoly(image, contours, value, lineType=line, shift=_SHIFT)


def outline_area(kind: str) -> float:
    """Return the area of a shape of radius 1, its hole left out."""
    first, *holes = [_polygon_area(outline) for outline in OUTLINES[kind]]
    return first - sum(holes)


def _polygon_area(corners: NDArray[np.float64]) -> float:
    x, y = corners.T
    return abs(float(np.dot(x, np.roll(y, 1)) - np.dot(y, np.roll(x, 1)))) / 2


def draw_shape(frame: Pixels, shape: Shape, x: float, y: float, radius: float) -> None:
    """Draw ``shape`` at screen position ``(x, y)`` px with ``radius`` px into ``frame``, its soft shadow first."""
    height, width = frame.shape[:2]
    reach = 1.2 * radius + 2
    drop = 0.1 * radius
    x0, y0 = max(0, int(x - reach)), max(0, int(y - reach))
    x1, y1 = min(width, int(x + reach + drop) + 2), min(height, int(y + reach + 2 * drop) + 2)
    if x0 >= x1 or y0 >= y1:
        return
    mask = np.zeros((y1 - y0, x1 - x0), np.uint8)
    fill_outline(mask, shape.kind, x - x0, y - y0, radius, 255, line=cv2.LINE_AA)
    shifted = np.array([[1, 0, drop], [0, 1, 1.4 * drop]])
    shadow = cv2.warpAffine(mask, shifted, (mask.shape[1], mask.shape[0]))
    shadow = cv2.blur(shadow, (2 * int(drop) + 1, 2 * int(drop) + 1))
    alpha = mask[..., None] * np.float32(1 / 255)
    dark = 1 - shadow[..., None] * np.float32(0.4 / 255)
    # Lit from above: the colour named is that of the middle.
    light = 1.08 - 0.16 * np.clip((np.arange(y0, y1, dtype=np.float32) - y) / (2 * radius) + 0.5, 0, 1)
    paint = np.minimum(light[:, None, None] * np.asarray(COLORS[shape.color], np.float32), 255)
    region = frame[y0:y1, x0:x1]
    region[...] = region * dark * (1 - alpha) + paint * alpha + 0.5


# ---- text -----------------------------------------------------------------------------------------------------------


@lru_cache(maxsize=32)
def _font(size: int) -> ImageFont.FreeTypeFont:
    font = ImageFont.load_default(size=size)
    if not isinstance(font, ImageFont.FreeTypeFont):
        raise RuntimeError("Pillow was built without FreeType: text overlays need its scalable font")
    return font


def _stroke(overlay: Overlay) -> int:
    return max(1, round(overlay.size / 10)) if overlay.style == "outline" else 0


def text_size(overlay: Overlay) -> tuple[int, int]:
    """Return (width, height) px of the overlay's box: its ink, its outline and a narrow margin."""
    left, top, right, bottom = _font(overlay.size).getbbox(overlay.text, stroke_width=_stroke(overlay))
    margin = _margin(overlay)
    return math.ceil(right - left) + 2 * margin, math.ceil(bottom - top) + 2 * margin


def _margin(overlay: Overlay) -> int:
    return max(1, round(overlay.size * (0.25 if overlay.style == "box" else 0.15)))


def text_box(overlay: Overlay, size: tuple[int, int]) -> tuple[int, int, int, int]:
    """Return ``(x0, y0, x1, y1)`` px of the overlay on a frame of ``size`` (w, h), clipped to it; x1 and y1 are outside."""
    width, height = text_size(overlay)
    x0, y0 = max(0, overlay.x), max(0, overlay.y)
    return x0, y0, max(x0, min(size[0], overlay.x + width)), max(y0, min(size[1], overlay.y + height))


class _Label:
    """An overlay's pixels, drawn once: ``paint`` = color x alpha and ``keep`` = 1 - alpha over its ``box``."""

    def __init__(self, overlay: Overlay, size: tuple[int, int]) -> None:
        self.overlay = overlay
        self.box = text_box(overlay, size)
        width, height = text_size(overlay)
        ink = COLORS[overlay.color]
        # Whatever the ink, its outline or box is the far end of the grey axis.
        against = (12, 12, 14) if sum(ink) > 330 else (244, 244, 244)
        plate = (*against, 215) if overlay.style == "box" else (*against, 0)
        image = Image.new("RGBA", (width, height), plate)
        stroke, margin = _stroke(overlay), _margin(overlay)
        left, top, _, _ = _font(overlay.size).getbbox(overlay.text, stroke_width=stroke)
        ImageDraw.Draw(image).text(
            (margin - left, margin - top),
            overlay.text,
            font=_font(overlay.size),
            fill=(*ink, 255),
            stroke_width=stroke,
            stroke_fill=(*against, 255),
        )
        x0, y0, x1, y1 = self.box
        rgba = np.asarray(image, np.float32)[y0 - overlay.y : y1 - overlay.y, x0 - overlay.x : x1 - overlay.x]
        alpha = rgba[..., 3:] * np.float32(1 / 255)
        self.paint, self.keep = np.asarray(rgba[..., :3] * alpha), 1 - alpha

    def draw(self, frame: Pixels) -> None:
        x0, y0, x1, y1 = self.box
        region = frame[y0:y1, x0:x1]
        region[...] = region * self.keep + self.paint + 0.5


# ---- shots ----------------------------------------------------------------------------------------------------------


def to_screen(x: Number, y: Number, camera: tuple[float, float, float], size: tuple[int, int]) -> tuple[Number, Number]:
    """Project a point of the world, or an array of them, to px on the screen of a camera at (x offset, y offset, zoom)."""
    cx, cy, zoom = camera
    return zoom * (x - size[0] / 2 - cx) + size[0] / 2, zoom * (y - size[1] / 2 - cy) + size[1] / 2


class Stage:
    """One shot, ready to be rendered frame by frame."""

    def __init__(self, shot: Shot, *, size: tuple[int, int], fps: float) -> None:
        self._shot, self._size, self._fps = shot, size, fps
        self._plane = plane(shot.background, size)
        self._labels = [_Label(overlay, size) for overlay in shot.overlays]
        self._backdrop = self._warp(shot.camera, 0.0) if shot.camera.still else None
        self._picture = self._draw(0) if shot.still else None

    def frame(self, index: int) -> Pixels:
        """Draw the shot's frame ``index`` (negative, or past its end, in a blend) as a new (h, w, 3) uint8 RGB array."""
        return self._draw(index) if self._picture is None else self._picture.copy()

    def _draw(self, index: int) -> Pixels:
        shot, t = self._shot, index / self._fps
        frame = self._warp(shot.camera, t) if self._backdrop is None else self._backdrop.copy()
        camera = shot.camera.at(t)
        for shape in shot.shapes:
            x, y, radius = shape.at(t)
            draw_shape(frame, shape, *to_screen(x, y, camera, self._size), radius * camera[2])
        # A flash outshines whatever light there is.
        for flash in sorted(shot.flashes, key=lambda flash: flash.kind == "flash"):
            frame = _lit(frame, flash, index)
        for label in self._labels:
            if label.overlay.shows(index):
                label.draw(frame)
        return frame

    def _warp(self, camera: Camera, t: float) -> Pixels:
        cx, cy, zoom = camera.at(t)
        width, height = self._size
        # From a frame's pixel to the plane's: the frame's middle stays where it is as the camera zooms.
        matrix = np.array(
            [
                [1 / zoom, 0, width / 2 + cx - width / 2 / zoom],
                [0, 1 / zoom, height / 2 + cy - height / 2 / zoom],
            ]
        )
        # Whole turns around the tile change nothing but keep cv2's fixed-point coordinates small.
        matrix[0, 2] %= 2 * width
        matrix[1, 2] %= 2 * height
        flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        frame: Pixels = cv2.warpAffine(self._plane, matrix, self._size, flags=flags, borderMode=cv2.BORDER_WRAP)
        return frame


def _lit(frame: Pixels, flash: Flash, index: int) -> Pixels:
    """Put ``frame`` under the light of ``flash`` at the shot's frame ``index``."""
    since = index - flash.start
    if flash.kind == "flash":
        if not 0 <= since < flash.frames:
            return frame
        white = np.full_like(frame, FLASH_WHITE)
        return np.asarray(cv2.addWeighted(frame, 1 - flash.strength, white, flash.strength, 0), np.uint8)
    on = min(1.0, max(0.0, (since + 1) / flash.frames))
    return frame if on == 1 else np.asarray(cv2.convertScaleAbs(frame, alpha=1 - flash.strength * (1 - on)), np.uint8)


def blend(old: Pixels, new: Pixels, transition: Transition, index: int) -> Pixels:
    """Blend frame ``index`` of ``transition.frames``: every one of them differs from both pure pictures."""
    share = (index + 1) / (transition.frames + 1)
    if transition.kind == "dissolve":
        return np.asarray(cv2.addWeighted(old, 1 - share, new, share, 0), np.uint8)
    if transition.kind == "fade":
        # Black for a sixth of the way, so that even a short fade gets there.
        light = max(0.0, abs(1 - 2 * share) * 1.2 - 0.2)
        return np.asarray(cv2.convertScaleAbs(old if share < 0.5 else new, alpha=light), np.uint8)
    vx, vy = VECTORS[transition.direction]
    height, width = old.shape[:2]
    along, length = (1, width) if vx else (0, height)
    # Both are drawn as if going left or up, on mirrored pictures where they go the other way.
    mirror = vx + vy > 0
    if mirror:
        old, new = np.flip(old, along), np.flip(new, along)
    if transition.kind == "push":
        edge = min(length - 1, max(1, round(share * length)))
        both = np.concatenate([old, new], axis=along)
        out = both[:, edge : edge + width] if along else both[edge : edge + height]
    else:
        # An edge about 3 % of the frame wide, so that it does not shimmer as it moves.
        soft = 0.03 * length
        ramp = (share * (length + soft) - (length - 1 - np.arange(length))) / soft
        alpha = np.clip(ramp, 0, 1).astype(np.float32).reshape((1, length, 1) if along else (length, 1, 1))
        out = (old * (1 - alpha) + new * alpha + 0.5).astype(np.uint8)
    return np.ascontiguousarray(np.flip(out, along) if mirror else out)


def frames(script: Script) -> Iterator[Pixels]:
    """Yield every frame of ``script`` in presentation order: (h, w, 3) uint8 RGB, each a new array."""
    stage: Stage | None = None
    for number, shot in enumerate(script.shots):
        stage = stage or Stage(shot, size=script.size, fps=script.fps)
        for index in range(shot.frames):
            yield stage.frame(index)
        if number < len(script.transitions):
            transition = script.transitions[number]
            following = Stage(script.shots[number + 1], size=script.size, fps=script.fps)
            for index in range(transition.frames):
                old, new = stage.frame(shot.frames + index), following.frame(index - transition.frames)
                yield blend(old, new, transition, index)
            stage = following
