"""HDR becomes SDR: pictures in PQ or HLG of ITU-R BT.2100 as a BT.709 screen of today shows them. Pure functions on arrays.

One chain for both, so that the same light gives the same pixel: code values → light of a display whose brightest white is
``PEAK`` → its highlights rolled off to ``WHITE``, which becomes the brightest SDR white (BT.2390 §5.4.1) → BT.709 primaries
→ 8-bit code values for the display of BT.1886. Light below the knee of the roll-off, 88 cd/m², keeps its proportions.

What a file says of its mastering display is not asked: it is often missing or wrong, and at some places in a file only.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating[Any]]

PQ, HLG = 16, 18  # AVColorTransferCharacteristic: SMPTE ST 2084, ARIB STD-B67
PEAK = 1000.0  # cd/m²: HLG's nominal peak (BT.2100 table 5), at which BT.2408 §6.2 has PQ and HLG show the same
WHITE = 203.0  # cd/m² of HDR reference white, BT.2408 §2.1: SDR's white, after the roll-off of what is brighter
GAMMA = 2.4  # of the SDR display, BT.1886

# Chromaticities x, y of red, green, blue by AVColorPrimaries: BT.709, BT.2020, P3 of SMPTE EG 432-1. White is D65 in all.
PRIMARIES = {
    1: ((0.640, 0.330), (0.300, 0.600), (0.150, 0.060)),
    9: ((0.708, 0.292), (0.170, 0.797), (0.131, 0.046)),
    12: ((0.680, 0.320), (0.265, 0.690), (0.150, 0.060)),
}
D65 = (0.3127, 0.3290)
BT709, BT2020 = 1, 9
LUMINANCE = (0.2627, 0.6780, 0.0593)  # of R, G, B: BT.2100 table 5
STRIP = 64  # rows done at a time, so that what comes in between stays in the cache: it takes two thirds of the time
STEPS = 65535  # of the square root of light, the index of tables over light: fine where the eye is


# ---- the standards' functions ---------------------------------------------------------------------------------------


def pq_eotf(signal: Floats) -> Floats:
    """Convert PQ signal 0–1 → light in cd/m², BT.2100 table 4."""
    m1, m2, c1, c2, c3 = 2610 / 16384, 2523 / 32, 3424 / 4096, 2413 / 128, 2392 / 128
    power = signal ** (1 / m2)
    light: Floats = 10_000 * (np.maximum(power - c1, 0) / (c2 - c3 * power)) ** (1 / m1)
    return light


def pq_inverse_eotf(light: Floats) -> Floats:
    """Convert light in cd/m² → PQ signal 0–1, BT.2100 table 4."""
    m1, m2, c1, c2, c3 = 2610 / 16384, 2523 / 32, 3424 / 4096, 2413 / 128, 2392 / 128
    power = (light / 10_000) ** m1
    signal: Floats = ((c1 + c2 * power) / (1 + c3 * power)) ** m2
    return signal


def hlg_inverse_oetf(signal: Floats) -> Floats:
    """Convert HLG signal 0–1 → light of the scene, 0–1, BT.2100 table 5."""
    a, b, c = 0.17883277, 0.28466892, 0.55991073
    return np.where(signal <= 0.5, signal**2 / 3, (np.exp((signal - c) / a) + b) / 12)


def roll_off(light: Floats) -> Floats:
    """Roll light of a display of ``PEAK`` off to one of ``WHITE``, in cd/m²: the EETF of BT.2390 §5.4.1, black staying black.

    Rises up to ``PEAK``, where it reaches ``WHITE``; leaves everything below the knee as it is.
    """
    source = pq_inverse_eotf(np.array(PEAK))
    highest = pq_inverse_eotf(np.array(WHITE)) / source
    knee = 1.5 * highest - 0.5
    signal = pq_inverse_eotf(np.minimum(light, PEAK)) / source
    t = np.maximum(signal - knee, 0) / (1 - knee)
    spline = (2 * t**3 - 3 * t**2 + 1) * knee + (t**3 - 2 * t**2 + t) * (1 - knee) + (3 * t**2 - 2 * t**3) * highest
    return np.where(signal < knee, light, pq_eotf(spline * source))


def to_bt709(primaries: int) -> NDArray[np.float64]:
    """Return the (3, 3) matrix from linear RGB of ``primaries`` (AVColorPrimaries) to that of BT.709.

    Unknown primaries are taken for BT.2020's. By way of CIE XYZ, as BT.2087 annex 1 and BT.2407 §2 derive it.
    """
    return np.linalg.inv(_to_xyz(BT709)) @ _to_xyz(primaries if primaries in PRIMARIES else BT2020)


def _to_xyz(primaries: int) -> NDArray[np.float64]:
    columns = np.array([(x / y, 1, (1 - x - y) / y) for x, y in (*PRIMARIES[primaries], D65)]).T
    return columns[:, :3] * np.linalg.solve(columns[:, :3], columns[:, 3])  # white is the sum of the three


# ---- pictures -------------------------------------------------------------------------------------------------------


def sdr_rgb(codes: NDArray[np.uint16], transfer: int, primaries: int) -> NDArray[np.uint8]:
    """Convert (h, w, 3) R'G'B', full range of 16 bits, in ``PQ`` or ``HLG`` → (h, w, 3) R'G'B' of BT.709, 8 bits.

    The brightest of the three tells how far all three are rolled off, so that a highlight keeps its hue. Colours beyond
    BT.709 are clipped channel by channel (BT.2407 §2).
    """
    rgb = np.empty(codes.shape, np.uint8)
    for top in range(0, len(codes), STRIP):
        rgb[top : top + STRIP] = _sdr_strip(codes[top : top + STRIP], transfer, primaries)
    return rgb


def _sdr_strip(codes: NDArray[np.uint16], transfer: int, primaries: int) -> NDArray[np.uint8]:
    import cv2

    light = _light(transfer)[codes]
    if transfer == HLG:  # the OOTF, BT.2100 table 5: of a display of PEAK, whose system gamma is 1.2
        light *= cv2.pow(cv2.transform(light, np.array([LUMINANCE], np.float32)), 0.2)[..., None]
    brightest = np.maximum(np.maximum(light[..., 0], light[..., 1]), light[..., 2])
    light *= (_rolled()[_index(brightest)] / np.maximum(brightest, 1e-9))[..., None]
    light = cv2.transform(light, _matrix(primaries))
    return _sdr()[_index(np.clip(light, 0, 1, out=light))]


@lru_cache
def _matrix(primaries: int) -> NDArray[np.float32]:
    return to_bt709(primaries).astype(np.float32)


@lru_cache
def _light(transfer: int) -> NDArray[np.float32]:
    """Return (65536,) light by code value, up to 1: of the display, for HLG of the scene."""
    signal = np.linspace(0, 1, 65536)
    light = np.minimum(pq_eotf(signal) / PEAK, 1) if transfer == PQ else hlg_inverse_oetf(signal)
    return np.asarray(light, np.float32)


@lru_cache
def _rolled() -> NDArray[np.float32]:
    """Return a table by index of light in units of ``PEAK``: that light rolled off, in units of ``WHITE``."""
    return np.asarray(roll_off((np.arange(STEPS + 1) / STEPS) ** 2 * PEAK) / WHITE, np.float32)


@lru_cache
def _sdr() -> NDArray[np.uint8]:
    """Return a table by index: 8-bit code of light in units of ``WHITE``."""
    return np.rint(255 * (np.arange(STEPS + 1) / STEPS) ** (2 / GAMMA)).astype(np.uint8)


def _index(light: NDArray[np.float32]) -> NDArray[np.uint16]:
    return (np.sqrt(light) * np.float32(STEPS) + np.float32(0.5)).astype(np.uint16)
