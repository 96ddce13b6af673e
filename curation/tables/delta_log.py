"""The log of one Delta Lake table: which parts and columns are current, and the commits that change them.

What deltalake raises leaves here as a ``DatasetError``; where a store fails for a moment, the call is tried again.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

import pyarrow as pa
from deltalake import CommitProperties, DeltaTable, Schema, Transaction
from deltalake.exceptions import CommitFailedError, DeltaError, TableNotFoundError
from deltalake.transaction import AddAction, RemoveAction, create_table_with_add_actions

from dailies.curation.atomic import sync
from dailies.curation.errors import DatasetError, Unsafe
from dailies.curation.inside import Stamp
from dailies.curation.retrying import cause_of
from dailies.curation.tables.filesystem import called
from dailies.curation.tables.parts import Receipt, check_parts
from dailies.curation.tables.storage import Folder, plain_schema

T = TypeVar("T")

APP = "dailies"
"""Names this program's commits in the log: see ``DeltaLog.commit``."""

COMMIT_ID = "dailies_commit"
"""Key of a commit's own id in the log, by which a commit is known whose answer was lost."""


class DeltaLog:
    """The log of the table ``name`` in ``folder``; nothing is stored before the first commit."""

    __slots__ = ("_delta", "_sound", "declared", "folder", "name")

    def __init__(self, name: str, folder: Folder, schema: pa.Schema | None = None) -> None:
        """Open a log; columns of ``schema`` that the stored one lacks are added to it.

        Raises ``DatasetError`` naming the column where one is retyped, or cannot be stored.
        """
        self.name = name
        self.folder = folder
        self._delta: DeltaTable | None = None
        self._sound: tuple[Stamp | None, Stamp | None] = None, None  # of the log and the parts, once they held no link
        self.declared = None if schema is None else plain_schema(schema)
        if self.declared is not None:
            self._evolve(self.declared)

    def exists(self) -> bool:
        try:
            self._refuse_links()
        except Unsafe:  # something is there, and whoever reads it learns what
            return True
        return bool(self._retried(lambda: DeltaTable.is_deltatable(self.folder.url)))

    def open(self, *, snapshot: bool = False) -> DeltaTable | None:
        """Return the table as of now; a ``snapshot`` is not brought up to date by later calls."""
        self._refuse_links()
        try:
            if snapshot or self._delta is None:
                fresh = self._retried(lambda: DeltaTable(self.folder.url))
                self._delta = self._delta if snapshot else fresh
                return fresh
            self._retried(self._delta.update_incremental)
            return self._delta
        except TableNotFoundError:
            return None
        except (DeltaError, OSError) as error:
            raise DatasetError(f"{self.folder.url}: cannot be read as a table: {cause_of(error)}") from error

    def parts(self, delta: DeltaTable | None) -> pa.Table:
        """Return one row per part: ``path``, ``size_bytes``, ``num_records`` and bounds of the key."""
        if delta is None:
            return pa.table({"path": pa.array([], pa.string()), "size_bytes": [], "num_records": []})
        parts = pa.table(delta.get_add_actions(flatten=True)).sort_by("path")
        check_parts(parts["path"], self.folder.url)
        return parts

    def schema(self, delta: DeltaTable | None) -> pa.Schema:
        """Return the schema as stored, or as declared while nothing is stored."""
        if delta is not None:
            return pa.schema(delta.schema().to_arrow())
        if self.declared is None:
            raise DatasetError(f"{self.folder.url}: no such table")
        return self.declared

    def commit(self, delta: DeltaTable | None, added: Sequence[Receipt], *, removed: Sequence[str] = ()) -> DeltaTable:
        """Make one commit on top of ``delta``; returns the table as of it.

        Each commit carries the next number of this program's sequence. Of two runs that write one table at once, which
        only an object store allows, the second to commit so fails instead of adding the same units again.
        """
        now = int(time.time() * 1000)
        actions: list[AddAction | RemoveAction] = [
            AddAction(part.path, part.size, {}, modification_time=now, data_change=True, stats=part.stats)
            for part in added
            if part.path
        ]
        actions += [RemoveAction(path, True, now) for path in removed]
        sequence = 1 if delta is None else (delta.transaction_version(APP) or 0) + 1
        commit_id = uuid.uuid4().hex
        marked = CommitProperties(app_transactions=[Transaction(APP, sequence)], custom_metadata={COMMIT_ID: commit_id})
        schema = Schema.from_arrow(self.schema(delta))
        at = -1 if delta is None else delta.version()

        def attempt() -> None:
            try:
                if delta is None:
                    create_table_with_add_actions(
                        self.folder.url, schema, actions, mode="error", commit_properties=marked
                    )
                else:
                    delta.create_write_transaction(actions, "append", schema, commit_properties=marked)
            except (DeltaError, OSError):
                # Its answer may have been lost on the way, and the store then says that such a commit exists.
                if self.folder.local or not self._is_ours(at + 1, commit_id):
                    raise

        with self._explain_errors():
            self._retried(attempt)
            if delta is None:
                delta = self._retried(lambda: DeltaTable(self.folder.url))
            else:
                self._retried(delta.update_incremental)
        if self.folder.local:  # deltalake does not sync its log
            sync(self.folder.file(f"_delta_log/{delta.version():020}.json"))
            sync(f"{self.folder.path}/_delta_log")
        return delta

    # ---- underneath -------------------------------------------------------------------------------------------------

    def _refuse_links(self) -> None:
        """Raise ``Unsafe`` if the log or a part is a link: deltalake and Arrow open what they find by its path."""
        log, parts = self._sound
        self._sound = self.folder.refuse_links("_delta_log", log), self.folder.refuse_links("", parts)

    def _evolve(self, declared: pa.Schema) -> None:
        """Append the columns that are new; refuse the ones that are retyped or that the table cannot hold."""
        for column in declared:
            try:
                stored = pa.schema(Schema.from_arrow(pa.schema([column])).to_arrow()).field(0).type
            except Exception as error:  # deltalake raises just that
                raise DatasetError(f"{self.name}: column {column.name!r} cannot be stored as {column.type}") from error
            if stored != column.type:  # unsigned integers silently become signed ones
                raise DatasetError(
                    f"{self.name}: column {column.name!r} cannot be stored as {column.type}; use {stored}"
                )
        delta = self.open()
        if delta is None:
            return
        present = self.schema(delta)
        for column in declared:
            if column.name in present.names and present.field(column.name).type != column.type:
                raise DatasetError(
                    f"{self.name}: column {column.name!r} is stored as {present.field(column.name).type}, not as "
                    f"{column.type}: columns are added, never retyped"
                )

        def add() -> None:
            assert self._delta is not None
            self._delta.update_incremental()  # an earlier try may have added them without an answer
            present = pa.schema(self._delta.schema().to_arrow()).names
            if added := [column for column in declared if column.name not in present]:
                self._delta.alter.add_columns(list(Schema.from_arrow(pa.schema(added)).fields))

        with self._explain_errors():
            self._retried(add)

    def _is_ours(self, version: int, commit_id: str) -> bool:
        """Return whether the commit of that version was made with ``commit_id``."""
        name = f"_delta_log/{version:020}.json"
        return self.folder.holds(name) and commit_id.encode() in self.folder.read(name)

    def _retried(self, work: Callable[[], T]) -> T:
        """Return ``work()``, tried again where a store, and not a disk, fails: see ``called``."""
        return work() if self.folder.local else called(self.folder.url, work)

    def _conflict(self) -> DatasetError:
        return DatasetError(
            f"{self.folder.url}: another run has written to this table meanwhile; let one run at a time write"
        )

    @contextmanager
    def _explain_errors(self) -> Iterator[None]:
        try:
            yield
        except CommitFailedError as error:
            raise self._conflict() from error
        except DeltaError as error:
            if "already exists" in str(error):
                raise self._conflict() from error
            raise DatasetError(f"{self.folder.url}: cannot be written: {cause_of(error)}") from error
