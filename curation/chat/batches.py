"""Asks in batches: of a length, within a budget of tokens, and made ready on threads while the model works.

Nothing here knows a model.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor, Future
from itertools import islice
from typing import Protocol, TypeVar

WINDOW = 2
"""Batches' worth of asks that are sorted by length at a time, while as many are made ready."""


class Sized(Protocol):
    """What counts of an ask: tokens that are read, most that are written, and what must be alike in a batch."""

    @property
    def tokens(self) -> int: ...

    @property
    def max_tokens(self) -> int: ...

    @property
    def shape(self) -> tuple[object, ...]: ...


T = TypeVar("T")
R = TypeVar("R")
S = TypeVar("S", bound=Sized)


def windows(asks: Iterable[S], budget: int) -> Iterator[list[S]]:
    """Yield asks in order in lists that come to ``WINDOW`` budgets of tokens, the last one to what is left."""
    window: list[S] = []
    tokens = 0
    for ask in asks:
        window.append(ask)
        tokens += ask.tokens + ask.max_tokens
        if tokens >= WINDOW * budget:
            yield window
            window, tokens = [], 0
    if window:
        yield window


def batches(asks: Sequence[S], budget: int) -> Iterator[list[S]]:
    """Yield asks in batches of one shape, the longest first, each of at most ``budget`` tokens with padding, or of one ask."""
    batch: list[S] = []
    read = write = 0
    for ask in sorted(asks, key=lambda ask: (repr(ask.shape), -ask.tokens - ask.max_tokens)):
        longest, most = max(read, ask.tokens), max(write, ask.max_tokens)
        if batch and (ask.shape != batch[0].shape or (len(batch) + 1) * (longest + most) > budget):
            yield batch
            batch, longest, most = [], ask.tokens, ask.max_tokens
        batch.append(ask)
        read, write = longest, most
    if batch:
        yield batch


def ahead(items: Sequence[T], ready: Callable[[int, T], R], pool: Executor, waiting: Callable[[], int]) -> Iterator[R]:
    """Yield what ``ready`` makes of each numbered item, in order; ``waiting()`` at a time are in the pool's hands or done.

    Raises what ``ready`` raises.
    """
    rest = enumerate(items)
    futures: deque[Future[R]] = deque()
    try:
        while True:
            futures.extend(pool.submit(ready, *item) for item in islice(rest, max(0, waiting() - len(futures))))
            if not futures:
                return
            yield futures.popleft().result()
    finally:
        for future in futures:
            future.cancel()
