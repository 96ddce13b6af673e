"""Processes of this machine share the items of a stage; the caller begins with them alone, since most stages are short.

A process and what it imports take a second to start, so none starts before a stage has taken a while. Each is served by
a thread, which hands it an item, waits for what becomes of it, and takes the next. Processes are started by command line
(``dailies.pipelines.isolate``): one that is forked off would inherit the locks of this one's threads.
"""

from __future__ import annotations

import logging
import pickle
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from queue import SimpleQueue
from threading import Event, Lock, Thread, Timer
from types import FunctionType
from typing import Any, Generic, TypeVar

from dailies.curation.errors import Crashed, NotInstalled, outage
from dailies.pipelines.isolate import Isolated

ALONE_SECONDS = 2.0  # a stage that takes no longer needs no other process: that is what two of them take to start
DEATHS = 2  # of processes at work on one item, which end the run: the first may have been the other items' fault
WAIT_SECONDS = 0.05  # between two looks whether killed processes are gone

log = logging.getLogger("dailies")

ItemT = TypeVar("ItemT")
ResultT = TypeVar("ResultT")
Call = Callable[[ItemT], ResultT]


@dataclass(frozen=True)
class There(Generic[ItemT, ResultT]):
    """How another process does a stage's items.

    Args:
        name: of the stage.
        call: Lets a process do an item, and returns its answer; raises ``NotInstalled`` where that lacks what it takes.
        result: What the answer says became of the item; raises what the work raised.
        close: Lets a process close what the stage has opened there.
    """

    name: str
    call: Callable[[Isolated, ItemT], Any]
    result: Callable[[Any], ResultT]
    close: Callable[[Isolated], None]


class Processes:
    """Processes that call ``function`` (``"module:name"``), kept from stage to stage. They end with ``close``."""

    def __init__(self, function: str, answer: Any) -> None:
        self._function, self._answer = function, answer
        self._idle: list[Isolated] = []

    def close(self) -> None:
        while self._idle:
            self._idle.pop().close()

    def share(
        self,
        items: Iterable[ItemT],
        there: There[ItemT, ResultT],
        here: AbstractContextManager[Call[ItemT, ResultT]],
        most: int,
    ) -> Generator[ResultT, None, None]:
        """Yield what becomes of each item, in any order. ``here`` opens what does items in this process; ``most``: processes.

        Where a process lacks what this one may have, such as a module beside the running script, it goes on here, for
        which ``here`` may be opened once more. Raises what the work raises, and ``Outage`` for an item at which two
        processes died. However it ends, no process is at work afterwards.
        """
        sharing: _Sharing[ItemT, ResultT] = _Sharing(items, there, self._take, self._idle.append)
        threads = [Thread(target=sharing.serve, daemon=True) for _ in range(most)]
        started = bool(self._idle)  # by a stage before, which was worth it, so this one is likely to be
        try:
            for thread in threads:
                thread.start()
            if not started:
                yield from sharing.alone(here)
            sharing.ready.set()
            yield from sharing.rest(most)
            if sharing.lacking is not None:
                yield from sharing.alone(here)
        finally:
            sharing.stop(threads)

    def _take(self) -> Isolated:
        return self._idle.pop() if self._idle else Isolated(self._function, answer=self._answer, stall_seconds=None)


@dataclass(slots=True)
class _Item(Generic[ItemT]):
    value: ItemT
    deaths: int = 0


class _Sharing(Generic[ItemT, ResultT]):
    """The items of one stage, and the threads that hand them to processes."""

    def __init__(
        self,
        items: Iterable[ItemT],
        there: There[ItemT, ResultT],
        take: Callable[[], Isolated],
        give: Callable[[Isolated], None],
    ) -> None:
        self.ready = Event()  # to start processes, or to see that nothing is left
        self._items, self._back, self._lock = iter(items), deque[_Item[ItemT]](), Lock()
        self._there, self._take, self._give = there, take, give
        self._answers: SimpleQueue[Any] = SimpleQueue()  # also an exception, and None of a thread that has ended
        self._busy: set[Isolated] = set()
        self._serving = 0  # threads that take items
        self._stopped = False
        self.lacking: NotInstalled | None = None  # what a process said it lacks; then none takes another item

    # ---- in the caller's thread ----

    def alone(self, here: AbstractContextManager[Call[ItemT, ResultT]]) -> Iterator[ResultT]:
        """Do items in this process, until another has done the first of its own."""
        began = time.monotonic()
        with here as call:
            if self.lacking is not None:  # and this process does not
                log.warning(
                    f"stage {self._there.name}: other processes lack what this one has, so it runs in one process "
                    f"({self.lacking}); they import nothing from the working directory: start from another one"
                )
            # Each process opens the work too, and must be worth that.
            timer = Timer(max(ALONE_SECONDS, time.monotonic() - began), self.ready.set)
            timer.daemon = True
            timer.start()
            try:
                while self._answers.empty() and (item := self._next()) is not None:
                    yield call(item.value)
            finally:
                timer.cancel()

    def rest(self, threads: int) -> Iterator[ResultT]:
        """Yield what processes make of items until all ``threads`` have ended."""
        while threads:
            answer = self._answers.get()
            if isinstance(answer, BaseException):
                raise answer
            if answer is None:
                threads -= 1
            else:
                yield self._there.result(answer)

    def stop(self, threads: Iterable[Thread]) -> None:
        """Kill the processes at work, and wait for the threads that serve them."""
        self._stopped = True
        self.ready.set()
        left = [thread for thread in threads if thread.ident is not None]
        while left := [thread for thread in left if thread.is_alive()]:
            for child in tuple(self._busy):
                child.interrupt()
            left[0].join(WAIT_SECONDS)

    # ---- in threads ----

    def serve(self) -> None:
        """Hand items to a process, and to another one where it dies, until none is left."""
        try:
            self.ready.wait()
            child: Isolated | None = None
            with self._lock:
                self._serving += 1
            while (item := self._next(serving=True)) is not None:
                if child is None:
                    child = self._take()
                    self._busy.add(child)
                try:
                    self._answers.put(self._there.call(child, item.value))
                except Crashed as error:
                    self._busy.discard(child)
                    child = None
                    if self._stopped or self._gave_back(item, error):
                        return
                except NotInstalled as error:
                    self._busy.discard(child)
                    child.close()
                    with self._lock:
                        self._back.append(item)
                        self.lacking = error
                    return
            if child is not None:
                with suppress(Crashed):  # every item is done, and whoever takes the child next starts it again
                    self._there.close(child)
                self._busy.discard(child)
                self._give(child)
        except BaseException as error:
            self._answers.put(error)
        finally:
            self._answers.put(None)  # last: the caller may not stop looking after a process before

    def _next(self, *, serving: bool = False) -> _Item[ItemT] | None:
        with self._lock:
            if not self._stopped and not (serving and self.lacking):
                if self._back:
                    return self._back.popleft()
                for value in self._items:
                    return _Item(value)
            self._serving -= serving
            return None

    def _gave_back(self, item: _Item[ItemT], error: Crashed) -> bool:
        """Give an item back at which a process died; return whether others go on, in which case that one is not replaced.

        It may have died for want of memory, and then fewer may have enough.
        """
        item.deaths += 1
        if item.deaths == DEATHS:
            raise outage(
                f"stage {self._there.name}: {DEATHS} processes, one after the other, died at the same work ({error}); "
                "fewer --workers take less memory"
            ) from error
        with self._lock:
            self._back.append(item)
            others = self._serving > 1
            self._serving -= others
            return others


# ---- what can be sent -----------------------------------------------------------------------------------------------


def travels(value: Any) -> bool:
    """Return whether another process can be sent ``value``: not where its class lies in a script, a notebook or a function."""
    try:
        _Pickler(_Nowhere(), protocol=5).dump(value)
    except (pickle.PicklingError, TypeError, AttributeError):
        return False
    return True


class _Pickler(pickle.Pickler):
    def reducer_override(self, obj: Any) -> Any:
        if isinstance(obj, type | FunctionType) and obj.__module__ == "__main__":
            raise pickle.PicklingError(f"{obj.__qualname__} is of the running script")
        return NotImplemented


class _Nowhere:
    def write(self, data: Any) -> int:
        return len(data)
