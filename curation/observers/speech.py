"""How likely someone speaks, by Silero VAD: a small network over windows of 32 ms, whose weights come in the extra ``sound``.

https://github.com/snakers4/silero-vad, MIT licence. The network remembers what it heard. Here it begins anew every four
seconds, after a second's warm-up, so that what it says of a moment hangs on the last five seconds alone, and is the same
wherever a source is entered; and so that many such chunks go through it at once.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dailies.curation.observers.loudness import Filter
from dailies.curation.packages import package_folder

PACKAGE = "silero_vad"
RATE, WINDOW, CONTEXT = 16000, 512, 64  # samples a second, of a window, and of those before it that it sees
CHUNK, WARM = 128, 32  # windows after which the network begins anew, and which it hears before that
BATCH = 16  # chunks at a time
STATE = 128
SECONDS = (CHUNK + WARM) * WINDOW / RATE + 0.2  # that what it says of a moment hangs on
PASSED = 7200  # Hz: what is above would fold into what the network hears
Mono = NDArray[np.float32]


class SpeechPass:
    """Listens to one source. Its sound comes in runs without a gap; between them is silence."""

    def __init__(self) -> None:
        self._chunks: dict[int, Mono] = {}  # by number: sound at ``RATE``, not heard yet, and the last that was
        self._waiting: list[int] = []
        self._filter: Filter | None = None
        self._last: tuple[int, float] | None = None  # number of the run's last sample, and the sample
        self.windows: dict[int, float] = {}  # by number: how likely someone speaks

    def begin(self, rate: int) -> None:
        """Begin another run."""
        self._filter = Filter(low_pass(rate), 1) if rate > RATE else None
        self._last = None

    def hear(self, start: int, rate: int, samples: NDArray[np.float32]) -> None:
        """Take the run's next samples, (channels, n); ``start`` is the number of the first."""
        mono = samples.mean(axis=0, keepdims=True)
        wave = mono[0] if self._filter is None else self._filter(mono)[0]
        start -= 0 if self._filter is None else DELAY
        if self._last is not None:
            start, wave = start - 1, np.concatenate([[self._last[1]], wave])
        end = start + len(wave) - 1
        first, last = -(-start * RATE // rate), end * RATE // rate
        if self._last is not None and first * rate == start * RATE:
            first += 1  # heard already
        self._last = end, float(wave[-1])
        if last >= first:
            places = np.arange(first, last + 1, dtype=np.int64)
            at = (places * rate - start * RATE) / RATE
            self._write(first, np.interp(at, np.arange(len(wave)), wave).astype(np.float32))

    def _write(self, first: int, wave: Mono) -> None:
        length = CHUNK * WINDOW
        while len(wave):
            number, at = divmod(first, length)
            piece = wave[: length - at]
            if number not in self._chunks:
                self._chunks[number] = np.zeros(length, np.float32)
                self._waiting.append(number)
            self._chunks[number][at : at + len(piece)] = piece
            first, wave = first + len(piece), wave[len(piece) :]
        if len(self._waiting) > BATCH:
            self._listen(self._waiting[:-1])

    def finish(self) -> None:
        """Hear what is left."""
        self._listen(list(self._waiting))

    def _listen(self, numbers: list[int]) -> None:
        for at in range(0, len(numbers), BATCH):
            group = numbers[at : at + BATCH]
            for number, likely in zip(group, probabilities([self._warmed(number) for number in group]), strict=True):
                self.windows |= dict(enumerate(likely.tolist(), number * CHUNK))
        if numbers:
            self._waiting = [number for number in self._waiting if number > numbers[-1]]
            self._chunks = {number: wave for number, wave in self._chunks.items() if number >= numbers[-1]}

    def _warmed(self, number: int) -> Mono:
        """Return a chunk with what was before it."""
        before = self._chunks.get(number - 1, np.zeros(CHUNK * WINDOW, np.float32))
        return np.concatenate([before[-(WARM * WINDOW + CONTEXT) :], self._chunks[number]])


def probabilities(chunks: list[Mono]) -> NDArray[np.float32]:
    """Return (N, ``CHUNK``) probabilities of speech for chunks with what was before them."""
    session, waves = _session(), np.stack(chunks)
    state, outputs = np.zeros((2, len(chunks), STATE), np.float32), []
    for window in range(WARM + CHUNK):
        heard = waves[:, window * WINDOW : window * WINDOW + CONTEXT + WINDOW]
        out, state = session.run(None, {"input": heard, "state": state, "sr": np.array(RATE, np.int64)})
        outputs.append(out[:, 0])
    return np.stack(outputs[WARM:], axis=1)


@lru_cache(maxsize=1)
def _session() -> Any:
    """Load the network to run on one thread: parallelism is over sources. Raises ``NotInstalled``."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3  # it warns of its weights
    return onnxruntime.InferenceSession(str(_file()), options, providers=["CPUExecutionProvider"])


def weights() -> str:
    """Return the sha256 of the network's file. Raises ``NotInstalled``."""
    return hashlib.sha256(_file().read_bytes()).hexdigest()


def _file() -> Path:
    return package_folder(PACKAGE) / "data" / "silero_vad.onnx"


DELAY = 128  # samples by which the low pass is late


def low_pass(rate: int) -> NDArray[np.float64]:
    """Return a windowed sinc that lets ``PASSED`` Hz through."""
    at = np.arange(-DELAY, DELAY + 1)
    kernel = np.sinc(2 * PASSED / rate * at) * np.hanning(2 * DELAY + 3)[1:-1]
    return np.asarray(kernel / kernel.sum(), np.float64)


def by_block(windows: dict[int, float], seconds: float) -> Iterator[tuple[int, float]]:
    """Yield the number of each block of ``seconds``, and the mean of the windows whose middle it holds."""
    inside: dict[int, list[float]] = {}
    for number, likely in windows.items():
        inside.setdefault(int((number + 0.5) * WINDOW / RATE // seconds), []).append(likely)
    yield from ((number, sum(values) / len(values)) for number, values in inside.items())
