"""When memory runs out, this says what to lower."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from dailies.curation.errors import OutOfMemory, lacks_memory
from dailies.training.recipes.recipe import Phase


@contextmanager
def explain_oom(hint: Callable[[], str]) -> Iterator[None]:
    """Raise ``OutOfMemory`` with ``hint``, which says what to lower, where the block runs out of memory."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if lacks_memory(error):
            raise OutOfMemory(hint()) from error
        raise


def oom_hint(phase: Phase, levels: int, processes: int = 1) -> str:
    """Say what to lower in ``phase``, what costs least first: time, then how much of a video there is, then its size.

    ``levels``: how many the network has; ``processes``: how many share a batch.
    """
    part = max(1, phase.batch // phase.accumulate // processes)
    width, height = phase.size
    free, costly = [], []
    if part > 1:
        parts = range(phase.accumulate + 1, phase.batch + 1)
        more = next(n for n in parts if phase.batch % n == 0 and phase.batch // n // processes < part)
        free.append(f"accumulate={more} instead of {phase.accumulate}")
    if left := sorted(set(range(levels)) - set(phase.checkpoint_levels)):
        free.append(f"checkpoint_levels={tuple(sorted({*phase.checkpoint_levels, left[0]}))}")
    if phase.frames > 1:
        costly.append(f"fewer frames than {phase.frames}")
    costly.append(f"a smaller size than {width}×{height}")
    hint = f"phase {phase.name}: out of memory at {part} samples at a time of {phase.frames} frames of {width}×{height} px. "
    if free:
        hint += f"Try, in this order: {'; '.join(free)}: slower, same results, and the run goes on. Then "
    else:
        hint += "Try, in this order: "
    return hint + "; ".join(costly) + ": another recipe, so another run."
