"""Camera and local motion are told apart here: what one movement of the whole picture explains of a flow map, and the rest.

The picture's movement is a similarity: shift, scale and turn about the frame's centre. With places and flow as complex
numbers (x to the right, y downwards) it is ``flow = shift + twist · place``, which two places determine. The movement that
most places agree with wins, out of a hundred that two places each propose (RANSAC, Fischler and Bolles 1981), and is then
fitted to those that agree. Things that move in front of it may cover two fifths of the frame. Pure numpy; a map is (h, w)
complex, in pixels at a short side of ``REFERENCE``.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

Complex = NDArray[np.complex128]
Floats = NDArray[np.float64]

REFERENCE = 240  # px of the short side at which everything is stated
AGREES = 0.75  # px: flow within this of a movement agrees with it; flow's own errors are smaller
EDGE = 0.125  # share of height and width along each edge where flow reads low: it is no part of the fit
PROPOSALS = 100  # of the movement when it has half the frame, one in four is right
REFITS = 4  # after which the fit stands still


@dataclass(frozen=True, slots=True, kw_only=True)
class Movement:
    """A movement of the camera between two frames, and what moves besides.

    ``pan``: px, positive when the camera turns right, so that the picture moves left. ``tilt``: px, positive when it turns up.
    ``zoom``: the picture's scale, above 1 when it zooms in. ``roll``: degrees, positive when the camera turns clockwise, so
    that the picture turns anticlockwise. ``local``: px, mean length of the flow that the four leave over.
    """

    pan: float
    tilt: float
    zoom: float
    roll: float
    local: float


def movement(flow_hw: Complex, height: float, width: float) -> Movement:
    """Fit the camera's movement to a flow map of at least two cells that covers a frame of ``height`` × ``width`` px."""
    places, inside, pairs = _layout(*flow_hw.shape, height, width)
    flow = flow_hw.ravel()
    shift, twist = _refined(places, flow, inside, *_agreed(places, flow, pairs))
    scale = 1 + twist
    left = np.abs(flow - shift - twist * places)
    # What leaves the frame is seen no more: there, flow is a guess.
    after = places * scale + shift
    stays = (np.abs(after.real) <= width / 2) & (np.abs(after.imag) <= height / 2)
    return Movement(
        pan=-float(shift.real),
        tilt=float(shift.imag),
        zoom=float(abs(scale)),
        roll=-float(np.degrees(np.angle(scale))),
        local=float(left[stays].mean() if stays.any() else left.mean()),
    )


@lru_cache(maxsize=16)
def _layout(rows: int, columns: int, height: float, width: float) -> tuple[Complex, Floats, NDArray[np.intp]]:
    """Return (n,) places of n cells about the centre, px; (n,) 1 inside, 0 at the frame's edge; (2, ``PROPOSALS``) pairs."""
    x = ((np.arange(columns) + 0.5) / columns - 0.5) * width
    y = ((np.arange(rows) + 0.5) / rows - 0.5) * height
    places = (x + 1j * y[:, None]).ravel()
    inside = (np.abs(places.real) < (0.5 - EDGE) * width) & (np.abs(places.imag) < (0.5 - EDGE) * height)
    rng = np.random.default_rng(0)
    first = rng.integers(0, len(places), PROPOSALS)
    second = (first + rng.integers(1, len(places), PROPOSALS)) % len(places)
    return places, inside.astype(np.float64), np.stack([first, second])


def _agreed(places: Complex, flow: Complex, pairs: NDArray[np.intp]) -> tuple[complex, complex]:
    """Return (shift, twist) of the proposed movement that leaves the least, errors beyond ``AGREES`` counting alike."""
    first, second = pairs
    twist = (flow[first] - flow[second]) / (places[first] - places[second])
    shift = flow[first] - twist * places[first]
    left = flow - shift[:, None] - twist[:, None] * places
    best = int(np.minimum(left.real**2 + left.imag**2, AGREES**2).sum(axis=1).argmin())
    return complex(shift[best]), complex(twist[best])


def _refined(places: Complex, flow: Complex, inside: Floats, shift: complex, twist: complex) -> tuple[complex, complex]:
    """Refine by least squares over the places inside that agree (weights of Geman and McClure)."""
    for _ in range(REFITS):
        left = np.abs(flow - shift - twist * places)
        weight = inside / (1 + (left / AGREES) ** 2) ** 2
        weight /= weight.sum()
        middle, mean = (weight * places).sum(), (weight * flow).sum()
        away = places - middle
        twist = complex((weight * (flow - mean) * away.conj()).sum() / (weight * np.abs(away) ** 2).sum())
        shift = complex(mean - twist * middle)
    return shift, twist


# ---- in words -------------------------------------------------------------------------------------------------------

WORDS = (
    ("pan", "right", "left"),
    ("tilt", "up", "down"),
    ("zoom", "in", "out"),
    ("roll", "clockwise", "anticlockwise"),
)
STATIC, HANDHELD, UNCLEAR = "static", "handheld", "unclear"
MOVES = 0.5  # px per half second at half a picture's height from its centre: below it a camera stands
SHARE = 0.2  # of the strongest movement: what is less goes without saying
UNEXPLAINED = 0.8  # share of the flow that is local where a movement of the camera is no explanation
ONE_WAY = 0.5  # net over total: from here on a movement has a direction


def label(motion: Floats, pan: Floats, tilt: Floats, zoom: Floats, roll: Floats, local: Floats) -> str | None:
    """Name a clip's camera motion ("static", "pan right, zoom in", "handheld") from one value per sample, units as measured.

    A movement that goes both ways has no direction: "pan". The camera is handheld when its shift reverses again and again.
    What it does is "unclear" where the best fit leaves most of the flow over. ``None`` without a sample.
    """
    if not len(pan):
        return None
    arm = REFERENCE / 2
    moved = np.stack([pan, tilt, zoom / 100 * arm, np.radians(roll) * arm])  # all in px
    total, net = np.abs(moved).mean(axis=1), moved.mean(axis=1)
    least = max(MOVES, SHARE * float(total.max()))
    labels = [HANDHELD] if _reverses(moved[0] + 1j * moved[1], least) else []
    for number, (name, ahead, back) in enumerate(WORDS):
        if total[number] >= least and not (labels[:1] == [HANDHELD] and number < 2):
            way = ahead if net[number] > 0 else back
            labels.append(f"{name} {way}" if abs(net[number]) >= ONE_WAY * total[number] else name)
    if labels and local.mean() > UNEXPLAINED * motion.mean():
        return UNCLEAR
    return ", ".join(labels) or STATIC


def _reverses(shift: Complex, least: float) -> bool:
    """Tell whether the shift turns back at two of its samples at least, and at every third."""
    far = np.abs(shift) >= least
    turns = (shift[1:] * shift[:-1].conj()).real < 0
    count = int((turns & far[1:] & far[:-1]).sum())
    return count >= 2 and count * 3 >= len(turns)
