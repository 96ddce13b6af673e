"""The processes that share each batch, as numbers; nothing here imports torch."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class World:
    """Process ``rank`` of ``size`` that share each batch."""

    rank: int = 0
    size: int = 1

    def part(self, samples: int) -> range:
        """Return this rank's share of ``samples``: those of all ranks, one after the other, are all of them in order."""
        return range(samples * self.rank // self.size, samples * (self.rank + 1) // self.size)


ALONE = World()
