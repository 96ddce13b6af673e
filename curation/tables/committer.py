"""Commits of a stage: the driver collects workers' receipts and commits their parts, each unit once.

A task that was retried, or a run that was resumed, so doubles nothing.
"""

from __future__ import annotations

import time
from types import TracebackType
from typing import Self

from dailies.curation.errors import DailiesError, DatasetError
from dailies.curation.tables.parts import KeySet, Receipt
from dailies.curation.tables.table import Table


class Committer:
    """Collects receipts on the driver and commits them, each unit once.

    A context manager: what arrived is committed at its end, also when an error ends it, for every part is whole. In
    between, a receipt that comes ``interval`` seconds or more after the last commit sets off the next. ``rows`` and
    ``parts`` count what was committed, ``dropped`` the parts that came twice (a retried task), which ``gc`` removes.
    """

    def __init__(
        self, table: Table, *, key: str | None = None, done: KeySet | None = None, interval: float = 5.0
    ) -> None:
        """Begin with what is committed.

        ``key``: the column that holds the units' keys, by default the first one; ``done``: the keys of what is committed,
        where they are not one column's.
        """
        self.table = table
        self.interval = interval
        self.rows = self.parts = self.dropped = 0
        self._delta = table.log.open(snapshot=True)
        self._done = table.keys(key) if done is None else done
        self._pending: list[Receipt] = []
        self._last = time.monotonic()

    def __contains__(self, key: str) -> bool:
        """Return whether the unit is done."""
        return key in self._done

    def add(self, receipt: Receipt) -> bool:
        """Take a receipt; returns whether it was new.

        Raises ``DailiesError`` where only some of its units are done: then units were bundled in two ways at once.
        """
        done = [key for key in receipt.keys if key in self._done]
        if done and len(done) < len(receipt.keys):
            raise DailiesError(
                f"{self.table.name}: part {receipt.path} holds {len(receipt.keys)} units, {len(done)} of which are "
                f"committed already, {done[0]} for one: a unit must not be in two parts"
            )
        if done:
            self.dropped += 1
            return False
        self._done.add(receipt.keys)
        self._pending.append(receipt)
        if time.monotonic() - self._last >= self.interval:
            self.flush()
        return True

    def flush(self) -> None:
        """Commit what has arrived."""
        pending, self._pending = [receipt for receipt in self._pending if receipt.rows], []
        if pending:
            if self.table.folder.local and not self.table.folder.holds(pending[0].path):
                raise DatasetError(
                    f"{self.table.url}: a worker's part is not here; on several machines the dataset must lie on a disk "
                    "that all of them share, or in an object store"
                )
            self._delta = self.table.log.commit(self._delta, pending)
            self.parts += len(pending)
            self.rows += sum(receipt.rows for receipt in pending)
        self._last = time.monotonic()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.flush()
