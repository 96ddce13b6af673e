"""Scorers: models over evidence. One file a model; this table names them all.

A scorer is a small picklable spec made on the driver; what ``open()`` gives is live, heavy and lives in a worker. A new one is
one file and one line in ``SCORERS``: its columns, the recipe's checks and the contract tests follow.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any, ClassVar, Protocol

import pyarrow as pa

from dailies.curation.scorers.clip import Clip
from dailies.curation.scorers.raft import Raft
from dailies.curation.scorers.text import Text
from dailies.curation.types import Evidence, Resources


class Scorer(Protocol):
    """A model over evidence; scores are columns, decisions are made in ``select``."""

    identity: ClassVar[str]  # names it in fingerprints for good, wherever its class moves
    meaning: ClassVar[int]  # raised when the code changes what the numbers mean
    requires: ClassVar[tuple[str, ...]]  # packages that only an extra brings, checked before any work
    columns: ClassVar[tuple[pa.Field, ...]]  # with units

    @property
    def needs(self) -> tuple[str, ...]:
        """Columns of earlier steps it reads, e.g. a caption; a class variable where they are always the same."""

    @property
    def resources(self) -> Resources: ...

    def weights(self) -> str | None:
        """sha256 or pinned revision of the weights; part of the fingerprint."""

    def open(self) -> AbstractContextManager[Callable[[Sequence[Evidence]], pa.Table]]:
        """Load the model. The call takes evidence of n clips and returns n rows of ``columns``, in order.

        Raises ``SourceError`` for evidence it cannot read; the stage then finds the bad clip by itself.
        """


SCORERS: dict[str, Any] = {
    "clip": Clip,
    "raft": Raft,
    "text": Text,
}
