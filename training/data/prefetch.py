"""The next batches are prepared while an accelerator works on this one."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")


def prefetch(make: Callable[[int], T], start: int, stop: int, depth: int) -> Generator[T, None, None]:
    """Yield ``make(start)`` … ``make(stop − 1)`` in order, up to ``depth`` of them prepared in another thread.

    With ``depth`` 0 none is prepared early: on a CPU that would take time from the step. What ``make`` raises is raised
    at its turn.
    """
    if depth == 0:
        yield from map(make, range(start, stop))
        return
    with ThreadPoolExecutor(1, thread_name_prefix="prefetch") as worker:
        waiting: deque[Future[T]] = deque()
        try:
            for number in range(start, stop):
                waiting.append(worker.submit(make, number))
                if len(waiting) > depth:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()
