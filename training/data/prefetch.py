"""The next batches are made while an accelerator works on this one."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")


def ahead(make: Callable[[int], T], start: int, stop: int, depth: int) -> Generator[T, None, None]:
    """``make(start)`` … ``make(stop − 1)`` in order, up to ``depth`` of them made beforehand in another thread; none
    with 0, for on a CPU they would take what the step needs. What ``make`` raises comes at its turn."""
    if depth == 0:
        yield from map(make, range(start, stop))
        return
    with ThreadPoolExecutor(1, thread_name_prefix="ahead") as worker:
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
