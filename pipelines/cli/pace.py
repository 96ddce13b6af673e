"""How fast a stage goes, and how long it will still take, from what was measured alone."""

from __future__ import annotations

import math

LEAST_UNITS = 3  # measured before anything is said,
LEAST_SECONDS = 4.0  # and for how long
WARM_SHARE, WARM_MOST = (
    0.2,
    5.0,
)  # of the time to the first unit, and seconds: until then others that began with it finish
MEMORY = 30.0  # seconds; or half of what was measured: older units count less


class StagePace:
    """The pace of one stage, from when its units were done.

    The time to the first unit is not measured: models are loaded and workers started in it. Later units count by an
    exponential average, so that the pace follows a change, and a single slow unit does not throw it.
    """

    def __init__(self, begun: float, total: float, after: float = 0) -> None:
        """Begin at ``begun`` (s, of any clock) with a stage of size ``total``, which size ``after`` follows."""
        self._begun, self._rest, self._after = begun, total, after
        self._warm: float | None = None
        self._last = begun
        self._count = 0
        self._measured = self._seconds = self._units = self._size = 0.0

    def add(self, now: float, units: float, size: float) -> None:
        """Note that ``units`` more, of that ``size`` together, were done at ``now``."""
        self._rest -= size
        if self._warm is None:
            self._warm = now + min(WARM_SHARE * (now - self._begun), WARM_MOST)
        seconds, self._last = now - self._last, now
        if now <= self._warm:
            return
        fade = math.exp(-seconds / max(MEMORY, self._measured / 2))
        self._count += 1
        self._measured += seconds
        self._seconds = self._seconds * fade + seconds
        self._units = self._units * fade + units
        self._size = self._size * fade + size

    def rate(self, now: float) -> float | None:
        """Return units a second; ``None`` while too few were measured."""
        return self._units / self._time(now) if self._is_known() else None

    def left(self, now: float) -> float | None:
        """Return the seconds until the stage is done; ``None`` while too little was measured."""
        return self._until(now, self._rest)

    def left_with_after(self, now: float) -> float | None:
        """Return the seconds until what follows the stage is done too; ``None`` where nothing does, or as ``left``."""
        return self._until(now, self._rest + self._after) if self._after else None

    def _is_known(self) -> bool:
        return self._count >= LEAST_UNITS and self._measured >= LEAST_SECONDS and self._size > 0

    def _gap(self) -> float:
        """Return the usual time between two units, s."""
        return self._measured / self._count

    def _time(self, now: float) -> float:
        """Return the time that the average is over; a unit that takes much longer than others counts before it is done."""
        return self._seconds + max(0.0, now - self._last - 3 * self._gap())

    def _until(self, now: float, size: float) -> float | None:
        if not self._is_known():
            return None
        since = min(now - self._last, self._gap())  # of which the running unit has used this much
        return max(0.0, max(0.0, size) * self._time(now) / self._size - since)
