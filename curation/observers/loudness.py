"""How loud sound is, by ITU-R BS.1770-4 and EBU R 128: K-weighting, for any rate, and the loudness of a programme.

Energies are kept of short blocks of time, a quarter of the gating block of 400 ms by default, so that the loudness of any
span follows from them without the sound.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
BLOCK = Fraction(1, 10)  # seconds: gating blocks of 400 ms overlap by three quarters
GATING = 4  # blocks in one of them
OFFSET = -0.691  # LUFS of a full-scale sine of 997 Hz in one front channel, with the filter's gain there: -3.01
SILENT = -70.0  # LUFS: blocks below it do not count
RELATIVE = 10.0  # LU below the loudness of the blocks above, where the second gate lies
RESPONSE = Fraction(1, 10)  # seconds after which the filter's response is below 1e-9 of its beginning
SIZE = 1 << 15  # of the Fourier transforms


def weights(channels: Sequence[str]) -> Floats:
    """Return by how much the energy of each of a layout's channels counts; low effects do not.

    BS.1770-4, table 4: 1.41 at 60 to 120 degrees from the front, 1 elsewhere. The surrounds of 5.1 stand at 110, whether
    a file calls them back or side; where there are both, as in 7.1, those in the back are at 135 and beyond (BS.2051). A
    single one behind is at 180.
    """
    beside = {"SL", "SR"} if {"SL", "SR"} & set(channels) else {"BL", "BR"}
    return np.array([0.0 if name.startswith("LFE") else 1.41 if name in beside else 1.0 for name in channels])


def coefficients(rate: int) -> tuple[tuple[Floats, Floats], tuple[Floats, Floats]]:
    """Return (b, a) of the shelf, which stands for the head, and of the high pass of K-weighting at ``rate`` samples a second.

    BS.1770 states them at 48 kHz alone; these are the bilinear transforms of the analogue filters that give its numbers.
    """
    k, gain, q = math.tan(math.pi * 1681.974450955533 / rate), 10 ** (3.999843853973347 / 20), 0.7071752369554196
    middle, scale = gain**0.4996667741545416, 1 + k / q + k * k
    shelf = np.array([gain + middle * k / q + k * k, 2 * (k * k - gain), gain - middle * k / q + k * k]) / scale
    under = np.array([scale, 2 * (k * k - 1), 1 - k / q + k * k]) / scale
    k, q = math.tan(math.pi * 38.13547087602444 / rate), 0.5003270373238773
    scale = 1 + k / q + k * k
    return (shelf, under), (np.array([1.0, -2.0, 1.0]), np.array([scale, 2 * (k * k - 1), 1 - k / q + k * k]) / scale)


@lru_cache(maxsize=8)
def response(rate: int) -> Floats:
    """Return the impulse response of K-weighting, as long as it is heard."""
    wave = np.zeros(round(RESPONSE * rate))
    wave[0] = 1
    for b, a in coefficients(rate):
        out = np.zeros_like(wave)
        x1 = x2 = y1 = y2 = 0.0
        for at, x in enumerate(wave):
            y = b[0] * x + b[1] * x1 + b[2] * x2 - a[1] * y1 - a[2] * y2
            out[at], x1, x2, y1, y2 = y, x, x1, y, y1
        wave = out
    return wave


class Filter:
    """Convolves sound with a finite ``kernel``, piece by piece. What was before the first piece is silence."""

    def __init__(self, kernel: Floats, channels: int) -> None:
        self._before = np.zeros((channels, len(kernel) - 1), np.float32)
        size = max(SIZE, 1 << math.ceil(math.log2(2 * len(kernel))))
        self._size, self._step = size, size - len(kernel) + 1
        self._spectrum = np.fft.rfft(np.asarray(kernel, np.float32), size)

    def __call__(self, samples: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the next samples, (channels, n), filtered."""
        kept = self._before.shape[1]
        whole = np.concatenate([self._before, samples], axis=1)
        self._before = whole[:, whole.shape[1] - kept :]
        out = np.empty(samples.shape, np.float32)
        for at in range(0, samples.shape[1], self._step):
            piece = whole[:, at : at + self._size]
            filtered = np.fft.irfft(np.fft.rfft(piece, self._size) * self._spectrum, self._size)
            out[:, at : at + self._step] = filtered[:, kept : piece.shape[1]]
        return out


def integrated(energies: Floats, gating: int = GATING) -> float | None:
    """Return the integrated loudness (LUFS) of consecutive blocks, of which ``gating`` make a gating block.

    ``energies``: mean squares of K-weighted sound, weighted and summed over the channels; NaN where it is not known: a
    gating block with such a one does not count. ``None`` where they are too few
    or none passes the gate: what is not heard has no loudness.
    """
    if len(energies) < gating:
        return None
    known = np.isfinite(energies)
    total, count = (np.concatenate([[0.0], np.cumsum(each)]) for each in (np.where(known, energies, 0.0), known))
    powers = np.maximum(total[gating:] - total[:-gating], 0) / gating
    powers = powers[count[gating:] - count[:-gating] == gating]
    loud = powers[powers > _power(SILENT)]
    if not len(loud):
        return None
    gate = loudness(float(loud.mean())) - RELATIVE
    return loudness(float(loud[loud > _power(gate)].mean()))


def loudness(power: float) -> float:
    """Return the loudness of a mean square, LUFS."""
    return OFFSET + 10 * math.log10(power)


def _power(lufs: float) -> float:
    return float(10 ** ((lufs - OFFSET) / 10))
