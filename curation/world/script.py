"""A rendered world is made of these parts: frozen, keyword-only, JSON-able. They draw nothing and know no pixels.

Units: pixels, seconds, frames. ``x`` grows to the right and ``y`` downwards, so a velocity of ``(0, 30)`` px/s goes
down. Positions are those of the frame at zoom 1 with the camera at rest: ``(0, 0)`` is its top left corner. A shot's
clock starts at its first whole frame; while a transition still blends it in, the clock is negative.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import Any, Literal, get_args

import numpy as np

Color = tuple[int, int, int]  # RGB, 0 to 255
ShapeKind = Literal["circle", "square", "triangle", "star", "ring", "cross", "heart"]
Texture = Literal["cloudy", "striped", "checked", "dotted", "shaded"]
TransitionKind = Literal["cut", "dissolve", "fade", "wipe", "push"]
Direction = Literal["left", "right", "up", "down"]
OverlayStyle = Literal["plain", "outline", "box"]
FlashKind = Literal["flash", "lights"]

# Saturated or at the ends of the grey axis, so that they stay apart from each other when 64 pixels are all there is.
COLORS: dict[str, Color] = {
    "red": (218, 30, 40),
    "green": (30, 160, 60),
    "blue": (35, 75, 225),
    "yellow": (250, 220, 40),
    "orange": (250, 125, 15),
    "purple": (125, 35, 175),
    "cyan": (45, 215, 230),
    "pink": (255, 130, 195),
    "white": (248, 248, 248),
    "black": (18, 18, 20),
}
# Muted, so that every shape stands out from its background.
BACKGROUNDS: dict[str, Color] = {
    "grey": (128, 130, 132),
    "charcoal": (56, 58, 62),
    "sand": (208, 190, 156),
    "brown": (110, 82, 62),
    "navy": (40, 52, 90),
    "olive": (98, 108, 66),
    "teal": (58, 108, 108),
    "mauve": (152, 122, 148),
    "mist": (190, 204, 210),
}
VECTORS: dict[str, tuple[int, int]] = {"left": (-1, 0), "right": (1, 0), "up": (0, -1), "down": (0, 1)}
LARGE = 0.15  # a radius of at least this share of the frame's short side is "large"


def _one_of(field: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise ValueError(f"{field}={value!r}: must be one of {', '.join(allowed)}")


def heading(velocity: tuple[float, float], *, plain: str = "moves", diagonal: str = "moves diagonally") -> str:
    """Name a velocity's direction, to the nearest of eight: "moves left", "moves diagonally up and left"."""
    vx, vy = velocity
    octant = round(math.atan2(vy, vx) / (math.pi / 4)) % 8
    across = {7: "right", 0: "right", 1: "right", 3: "left", 4: "left", 5: "left"}.get(octant)
    along = {1: "down", 2: "down", 3: "down", 5: "up", 6: "up", 7: "up"}.get(octant)
    if across and along:
        return f"{diagonal} {along} and {across}"
    return f"{plain} {across or along}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """A filled shape. ``radius``: px from the centre to its rim, at t = 0.

    ``x, y``: its centre at t = 0, or the centre of its orbit where it circles. It moves by ``velocity`` px/s against
    the background, circles at ``orbit`` px once in ``period`` s (negative: anticlockwise), and its radius grows by a
    factor of exp(``growth``) per second. Raises ``ValueError`` for an unknown kind or colour.
    """

    kind: ShapeKind
    color: str
    radius: float
    x: float
    y: float
    velocity: tuple[float, float] = (0.0, 0.0)
    orbit: float = 0.0
    period: float = 2.0
    phase: float = 0.0  # radians
    growth: float = 0.0  # 1/s

    def __post_init__(self) -> None:
        _one_of("Shape.kind", self.kind, get_args(ShapeKind))
        _one_of("Shape.color", self.color, tuple(COLORS))
        if self.radius <= 0 or self.period == 0:
            raise ValueError(
                f"Shape.radius={self.radius}, Shape.period={self.period}: radius must be positive, period not zero"
            )

    def at(self, t: float) -> tuple[float, float, float]:
        """Return centre (x, y) and radius at ``t`` seconds, px."""
        angle = self.phase + math.tau * t / self.period
        x = self.x + self.velocity[0] * t + self.orbit * math.cos(angle)
        y = self.y + self.velocity[1] * t + self.orbit * math.sin(angle)
        return x, y, self.radius * math.exp(self.growth * t)

    @property
    def still(self) -> bool:
        """Return whether it does not move."""
        return self.velocity == (0.0, 0.0) and not self.orbit and not self.growth

    @property
    def speed(self) -> float:
        """Speed along its path against the background, px/s; a circle's rim speed where it circles."""
        return math.hypot(*self.velocity) + abs(math.tau * self.orbit / self.period)

    @property
    def motion(self) -> str:
        """Its motion as a caption says it."""
        parts = [heading(self.velocity)] if any(self.velocity) else []
        parts += ["moves in a circle"] if self.orbit else []
        parts += [("grows" if self.growth > 0 else "shrinks")] if self.growth else []
        return " and ".join(parts) or "stands still"

    def size(self, short_side: float) -> str:
        """Return "large" or "small" against the frame's short side, px; empty while it grows or shrinks."""
        return "" if self.growth else "large" if self.radius >= LARGE * short_side else "small"


@dataclass(frozen=True, slots=True, kw_only=True)
class Camera:
    """Moves by ``velocity`` px/s (so the picture moves the other way), zooms from ``zoom`` by a factor of
    exp(``zoom_rate``) per second (negative: out), and sways by ``shake`` px root mean square per axis.
    """

    velocity: tuple[float, float] = (0.0, 0.0)
    zoom: float = 1.0
    zoom_rate: float = 0.0  # 1/s
    shake: float = 0.0
    seed: int = 0  # of the shake

    def __post_init__(self) -> None:
        if self.zoom <= 0:
            raise ValueError(f"Camera.zoom={self.zoom}: must be positive")

    def at(self, t: float) -> tuple[float, float, float]:
        """Return offset (x, y) px from where it stood at rest, and zoom, at ``t`` seconds."""
        x, y = self.velocity[0] * t, self.velocity[1] * t
        if self.shake:
            hertz, phases = _tremor(self.seed)
            # A sine has a root mean square of sqrt(1 / 2), and three unlike ones add up in squares.
            sway = np.sin(math.tau * hertz * t + phases) @ _SWAY * self.shake / math.sqrt((_SWAY**2).sum() / 2)
            x, y = x + float(sway[0]), y + float(sway[1])
        return x, y, self.zoom * math.exp(self.zoom_rate * t)

    @property
    def still(self) -> bool:
        """Return whether it does not move."""
        return self.velocity == (0.0, 0.0) and not self.zoom_rate and not self.shake

    @property
    def motion(self) -> str:
        """Its motion as a caption says it."""
        vx, vy = self.velocity
        parts = []
        if vx or vy:
            parts.append(heading(self.velocity, plain="pans" if abs(vx) > abs(vy) else "tilts", diagonal="moves"))
        parts += [("zooms in" if self.zoom_rate > 0 else "zooms out")] if self.zoom_rate else []
        parts += ["shakes"] if self.shake else []
        return " and ".join(parts) or "stands still"


_SWAY = np.array((1.0, 0.4, 0.15))  # a hand sways widely and slowly, and trembles little


@lru_cache(maxsize=64)
def _tremor(seed: int) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Draw frequencies (Hz) and phases of a hand's tremble, each (2 axes, 3 sines)."""
    rng = np.random.default_rng([seed, 0x5A])
    return rng.uniform((0.7, 2.0, 4.0), (2.0, 4.0, 7.0), (2, 3)), rng.uniform(0, math.tau, (2, 3))


@dataclass(frozen=True, slots=True, kw_only=True)
class Background:
    """A textured plane that has no end. ``color`` is one of ``BACKGROUNDS``."""

    texture: Texture
    color: str
    seed: int = 0

    def __post_init__(self) -> None:
        _one_of("Background.texture", self.texture, get_args(Texture))
        _one_of("Background.color", self.color, tuple(BACKGROUNDS))


@dataclass(frozen=True, slots=True, kw_only=True)
class Overlay:
    """One line of text that stands on the screen, over the picture, while the camera moves beneath it.

    ``x, y``: top left corner of its box; ``size``: font size in px. Shown in the shot's frames ``[start, end)``; the
    defaults mean always, blends included.
    """

    text: str
    x: int
    y: int
    size: int
    color: str = "white"
    style: OverlayStyle = "outline"
    start: int | None = None
    end: int | None = None

    def __post_init__(self) -> None:
        _one_of("Overlay.color", self.color, tuple(COLORS))
        _one_of("Overlay.style", self.style, get_args(OverlayStyle))
        if not self.text.strip() or "\n" in self.text:
            raise ValueError(f"Overlay.text={self.text!r}: must be one line that is not blank")
        if self.size < 4:
            raise ValueError(f"Overlay.size={self.size}: must be at least 4 px")

    def shows(self, frame: int) -> bool:
        """Tell whether it is on screen in the shot's ``frame`` (negative while the shot is blended in)."""
        return (self.start is None or self.start <= frame) and (self.end is None or frame < self.end)


@dataclass(frozen=True, slots=True, kw_only=True)
class Flash:
    """A change of brightness that is no cut.

    "flash": ``frames`` frames from the shot's frame ``start`` on are ``strength`` of the way to white. "lights": until
    ``start`` the shot has only 1 - ``strength`` of its light; it comes on over ``frames`` frames.
    """

    start: int
    kind: FlashKind = "flash"
    frames: int = 1
    strength: float = 0.9

    def __post_init__(self) -> None:
        _one_of("Flash.kind", self.kind, get_args(FlashKind))
        if self.frames < 1 or not 0 < self.strength <= 1:
            raise ValueError(
                f"Flash.frames={self.frames}, Flash.strength={self.strength}: at least 1 frame, and strength in (0, 1]"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Shot:
    """One shot. ``frames`` counts those wholly of it; what a transition blends comes on top. Later shapes lie on top."""

    frames: int
    background: Background
    shapes: tuple[Shape, ...] = ()
    camera: Camera = Camera()
    overlays: tuple[Overlay, ...] = ()
    flashes: tuple[Flash, ...] = ()

    def __post_init__(self) -> None:
        if self.frames < 1:
            raise ValueError(f"Shot.frames={self.frames}: must be at least 1")
        for flash in self.flashes:
            if flash.start < 0 or flash.start + flash.frames > self.frames:
                raise ValueError(f"Shot.flashes: [{flash.start}, +{flash.frames}) is not within the shot's frames")

    @property
    def still(self) -> bool:
        """Return whether all its frames are the same picture."""
        moving = not self.camera.still or any(not shape.still for shape in self.shapes)
        changing = bool(self.flashes) or any((o.start, o.end) != (None, None) for o in self.overlays)
        return not moving and not changing

    def caption(self, short_side: float) -> str:
        """Describe it: "a large red circle moves left over a striped grey background, the camera pans left"."""
        # What looks large or small changes as the camera zooms.
        sizes = ["" if self.camera.zoom_rate else shape.size(short_side) for shape in self.shapes]
        names = [" ".join(filter(None, (size, s.color, s.kind))) for size, s in zip(sizes, self.shapes, strict=True)]
        clauses = [
            f"{'an' if name[0] == 'o' else 'a'} {name} {shape.motion}"
            for name, shape in zip(names, self.shapes, strict=True)
        ]
        who = " and ".join([", ".join(clauses[:-1]), clauses[-1]] if len(clauses) > 1 else clauses)
        ground = f"a {self.background.texture} {self.background.color} background"
        parts = [f"{who} over {ground}" if who else ground]
        parts += [] if self.camera.still else [f"the camera {self.camera.motion}"]
        parts += [f'with the words "{" / ".join(o.text for o in self.overlays)}"'] if self.overlays else []
        return ", ".join(parts)


@dataclass(frozen=True, slots=True, kw_only=True)
class Transition:
    """The way one shot follows another. ``frames``: how many frames are blended, 0 for a cut.

    ``direction``: where a wipe's edge or a push's pictures go; the others ignore it.
    """

    kind: TransitionKind = "cut"
    frames: int = 0
    direction: Direction = "left"

    def __post_init__(self) -> None:
        _one_of("Transition.kind", self.kind, get_args(TransitionKind))
        _one_of("Transition.direction", self.direction, get_args(Direction))
        if (self.kind == "cut") != (self.frames == 0) or self.frames < 0:
            raise ValueError(f"Transition.frames={self.frames}: must be 0 for a cut and positive for the others")


@dataclass(frozen=True, slots=True, kw_only=True)
class Script:
    """A video in words: ``shots`` in order, ``transitions[i]`` between shots i and i + 1. ``size``: (width, height) px.

    Raises ``ValueError`` when they do not fit together.
    """

    shots: tuple[Shot, ...]
    transitions: tuple[Transition, ...] = ()
    size: tuple[int, int] = (320, 180)
    fps: float = 24

    def __post_init__(self) -> None:
        if not self.shots or len(self.transitions) != len(self.shots) - 1:
            raise ValueError(
                f"Script.transitions={len(self.transitions)}: {len(self.shots)} shots need one fewer, and at least one shot"
            )
        if min(self.size) < 16 or self.fps <= 0:
            raise ValueError(f"Script.size={self.size}, Script.fps={self.fps}: at least 16 px a side, and fps positive")

    @property
    def frames(self) -> int:
        """Number of frames of the video."""
        return sum(shot.frames for shot in self.shots) + sum(t.frames for t in self.transitions)

    @property
    def spans(self) -> tuple[tuple[int, int], ...]:
        """``[start, end)`` of the frames wholly of each shot, in frames of the video from 0."""
        spans, start = [], 0
        for shot, transition in zip(self.shots, (*self.transitions, Transition()), strict=True):
            spans.append((start, start + shot.frames))
            start += shot.frames + transition.frames
        return tuple(spans)

    def to_json(self) -> dict[str, Any]:
        """Return plain dicts, lists, numbers and strings."""
        return asdict(self)
