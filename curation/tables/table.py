"""One Delta Lake table: workers write parts, the driver commits them, readers see whole commits only.

What a kill leaves behind is never named by a commit, and ``DatasetTables.gc`` removes it.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import chain
from typing import Any, TypeVar

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as pads
import pyarrow.parquet as pq

from dailies.curation.config import read_object
from dailies.curation.errors import DatasetError
from dailies.curation.parquet_files import Overclaims, open_parquet
from dailies.curation.tables.delta_log import DeltaLog
from dailies.curation.tables.parts import KeySet, Receipt, part_name, write_part
from dailies.curation.tables.storage import Folder, Unparquet, write_parquet

T = TypeVar("T")
ItemT = TypeVar("ItemT")

WRITERS = 2
"""Parts of one commit that are written at once: compressing takes one thread a part."""

PROPERTIES = "properties"
"""Where in a part's footer ``Table.replace`` leaves them: Delta Lake's own refuse names that it does not know."""


class Table:
    """A table of a dataset, by name. Made by ``DatasetTables.table``; nothing is stored before the first commit.

    Its first column is its key. Every method first reads what was added to the log, and so sees what others committed.
    """

    __slots__ = ("_claims", "folder", "log", "name")

    def __init__(self, name: str, folder: Folder, schema: pa.Schema | None = None) -> None:
        """Open a table; columns of ``schema`` that the stored one lacks are added to it.

        Raises ``DatasetError`` naming the column where one is retyped, or cannot be stored.
        """
        self.name = name
        self.folder = folder
        self.log = DeltaLog(name, folder, schema)
        self._claims: set[str] = set()  # parts that come to no more than they may

    def __repr__(self) -> str:
        return f"Table({self.name!r}, {self.folder.url!r})"

    @property
    def url(self) -> str:
        return self.folder.url

    @property
    def schema(self) -> pa.Schema:
        """The schema as stored, or as declared while nothing is stored."""
        return self.log.schema(self.log.open())

    def exists(self) -> bool:
        return self.log.exists()

    def version(self) -> int | None:
        """Return the number of its last commit, from 0; ``None`` while there is none."""
        delta = self.log.open()
        return None if delta is None else int(delta.version())

    def committed(self) -> float | None:
        """Return when its last commit was made, in seconds since the epoch."""
        delta = self.log.open()
        return None if delta is None else float(delta.history(1)[0]["timestamp"]) / 1000

    # ---- reading ----------------------------------------------------------------------------------------------------

    def files(self) -> dict[str, tuple[int, int]]:
        """Return its current parts by name, relative to the table, with their sizes in bytes and their rows."""
        parts = self.log.parts(self.log.open())
        sizes = zip(parts["size_bytes"].to_pylist(), parts["num_records"].to_pylist(), strict=True)
        return dict(zip(parts["path"].to_pylist(), sizes, strict=True))

    def arrow(self, *, bounded: bool = False) -> pads.Dataset:
        """Return the current rows as a pyarrow dataset: lazy; filters on the key skip parts by their bounds.

        ``bounded``: who reads them bounds what they come to, so that parts are held against what their footers claim alone.
        """
        delta = self.log.open()
        return self._arrow(self.log.schema(delta), self.log.parts(delta), bounded=bounded)

    def read(
        self,
        columns: Sequence[str] | None = None,
        *,
        filter: pc.Expression | None = None,
        equals: Mapping[str, Any] | None = None,
    ) -> pa.Table:
        """Return the rows in memory, in any order. ``equals``: only those with these values in these columns."""
        return self.arrow().to_table(columns=columns and list(columns), filter=_where(filter, equals))

    def batches(
        self,
        columns: Sequence[str] | None = None,
        *,
        filter: pc.Expression | None = None,
        equals: Mapping[str, Any] | None = None,
    ) -> Iterator[pa.RecordBatch]:
        """Yield what ``read`` returns in batches of at most one row group, a few of them in memory at a time."""
        yield from _stream(self.arrow(), columns, _where(filter, equals))

    def located(self, columns: Sequence[str], *, equals: Mapping[str, Any] | None = None) -> pa.Table:
        """Return what ``read`` does, with a column ``file``: URL of the part that holds the row, for ``read_part``."""
        rows = self.arrow().to_table(columns=[*columns, "__filename"], filter=_where(None, equals))
        file = pc.replace_substring(rows["__filename"], f"{self.folder.path}/", f"{self.url}/", max_replacements=1)
        return rows.drop_columns("__filename").append_column("file", file)

    def keys(self, column: str | None = None) -> KeySet:
        """Return the values of the key column (by default the first one): what is done. Reads that column alone."""
        delta = self.log.open()
        if delta is None:
            return KeySet()
        schema = self.log.schema(delta)
        rows = _stream(self._arrow(schema, self.log.parts(delta)), [column or schema.names[0]], None)
        return KeySet(batch.column(0) for batch in rows)

    def properties(self) -> dict[str, Any]:
        """Return what ``replace`` was given along with the current rows."""
        for path in self.files():
            footer = pq.read_schema(self.folder.file(path), filesystem=self.folder.fs).metadata or {}
            return read_object(footer.get(PROPERTIES.encode(), b"{}"), f"{self.url}: {PROPERTIES}", DatasetError)
        return {}

    # ---- writing ----------------------------------------------------------------------------------------------------

    def write_part(self, rows: pa.Table | Sequence[Mapping[str, Any]], *, keys: Iterable[str] | None = None) -> Receipt:
        """Write one part: ``write_part`` with this table's URL and schema."""
        return write_part(self.url, self.log.declared or self.schema, rows, keys=keys)

    def commit(self, receipts: Sequence[Receipt]) -> None:
        """Append parts in one transaction, making the table if need be. ``Committer`` also keeps units unique.

        Raises ``DatasetError`` where another run has written to the table meanwhile.
        """
        self.log.commit(self.log.open(), receipts)

    def append(self, rows: pa.Table | Sequence[Mapping[str, Any]], *, keys: Iterable[str] | None = None) -> None:
        """Write and commit rows at once."""
        self.commit([self.write_part(rows, keys=keys)])

    def replace(self, rows: pa.Table | Iterable[pa.Table], *, properties: Mapping[str, Any] | None = None) -> None:
        """Put ``rows`` in place of all rows in one transaction, each table of an iterable in a part of its own.

        They are read back in the order in which they are given, until a source is withdrawn.
        ``properties``, any JSON, stay with the rows: see ``properties``.
        """
        delta = self.log.open()
        schema = self.log.declared or self.log.schema(delta)
        metadata = {PROPERTIES: json.dumps(dict(properties or {}))}
        tables = [rows] if isinstance(rows, pa.Table) else rows

        def write(numbered: tuple[int, pa.Table]) -> Receipt:
            number, table = numbered
            return write_part(self.url, schema, table, keys=(), metadata=metadata, number=number)

        parts = list(_in_threads(write, enumerate(tables)))
        if not parts:  # properties need a part to lie in
            parts = [write_part(self.url, schema, schema.empty_table(), keys=(), metadata=metadata)]
        self.log.commit(delta, parts, removed=self.log.parts(delta)["path"].to_pylist())

    def delete(
        self,
        source_ids: Iterable[str] | None = None,
        *,
        filter: pc.Expression | None = None,
        equals: Mapping[str, Any] | None = None,
    ) -> int:
        """Delete the rows of these sources that pass ``filter`` and have the values of ``equals``, in one transaction.

        Returns their number. Parts that hold such a row are rewritten without it; the old ones are gone after
        ``DatasetTables.gc``.
        """
        if source_ids is not None:
            chosen = pc.field("source_id").isin(pa.array(list(source_ids), pa.string()))
            filter = chosen if filter is None else filter & chosen
        return self._put([], _where(filter, equals))

    def put(self, rows: Sequence[Mapping[str, Any]], *, equals: Mapping[str, Any]) -> None:
        """Put ``rows`` in place of those that have the values of ``equals``, in one transaction."""
        self._put([self.write_part(rows, keys=())], _where(None, equals))

    def rewrite(self, columns: Sequence[str], change: Callable[[pa.Table], pa.Table | None]) -> list[str]:
        """Write those parts again, in one transaction, of whose rows ``change`` makes others; returns the old ones.

        ``change`` returns ``None`` for rows that stay as they are; to decide, it gets ``columns`` alone.
        """
        delta = self.log.open()
        if delta is None:
            return []
        rows = self._arrow(self.log.schema(delta), self.log.parts(delta))
        changed, parts = [], []
        for fragment in rows.get_fragments():
            part = pads.FileSystemDataset([fragment], rows.schema, rows.format, self.folder.fs)
            if change(part.to_table(columns=list(columns))) is None:
                continue
            changed.append(fragment.path[len(self.folder.path) + 1 :])
            parts += self._rewrite(part, _changed(_stream(part, None, None), change))
        if changed:
            self.log.commit(delta, parts, removed=changed)
        return changed

    # ---- underneath -------------------------------------------------------------------------------------------------

    def _arrow(self, schema: pa.Schema, parts: pa.Table, *, bounded: bool = False) -> pads.Dataset:
        key = pc.field(schema.names[0])
        low, high = f"min.{schema.names[0]}", f"max.{schema.names[0]}"
        # Pre-buffering merges requests to an object store; on a disk it would only hold a whole part in memory.
        options = pads.ParquetFragmentScanOptions(pre_buffer=not self.folder.local)
        parquet = pads.ParquetFileFormat(default_fragment_scan_options=options)
        fragments = []
        for part in parts.to_pylist():
            has_bounds = part.get(low) is not None and part.get(high) is not None
            within = (key >= part[low]) & (key <= part[high]) if has_bounds else None
            path = f"{self.folder.path}/{part['path']}"  # checked by ``_open`` and ``_parts``
            self._check_claims(part["path"], bounded=bounded)
            fragments.append(parquet.make_fragment(path, self.folder.fs, partition_expression=within))
        return pads.FileSystemDataset(fragments, schema, parquet, self.folder.fs)

    def _check_claims(self, part: str, *, bounded: bool) -> None:
        """Raise ``Unparquet`` for a part that comes to more than it may: what scans a table counts nothing.

        In an object store, where each part would cost a request though its rows are not asked for, none is looked at.
        """
        if not self.folder.local or part in self._claims:
            return
        try:
            open_parquet(self.folder.file(part), self.folder.fs, whole=not bounded).close()
        except Overclaims as error:
            raise Unparquet(f"{self.url}/{part}: cannot be read: {error}") from error
        except (OSError, pa.ArrowException):  # missing or damaged: whoever reads its rows learns it
            return
        if not bounded:
            self._claims.add(part)

    def _put(self, added: Sequence[Receipt], where: pc.Expression | None) -> int:
        """Commit parts in place of the rows of ``where``; returns the number of these."""
        delta = self.log.open()
        if where is None or (delta is None and not added):
            return 0
        rows = self._arrow(self.log.schema(delta), self.log.parts(delta))
        counts: dict[str, int] = {}
        for batch in _stream(rows, ["__filename"], where):
            for entry in pc.value_counts(batch.column(0)).to_pylist():
                counts[entry["values"]] = counts.get(entry["values"], 0) + entry["counts"]
        parts = list(added)
        for fragment in rows.get_fragments():
            if fragment.path in counts:
                part = pads.FileSystemDataset([fragment], rows.schema, rows.format, self.folder.fs)
                parts += self._rewrite(part, _stream(part, None, ~where | where.is_null()))
        if counts or parts:
            self.log.commit(delta, parts, removed=[path[len(self.folder.path) + 1 :] for path in counts])
        return sum(counts.values())

    def _rewrite(self, part: pads.Dataset, batches: Iterator[pa.RecordBatch]) -> list[Receipt]:
        """Write another part with these rows instead; none if no row is left, unless properties lie in it."""
        footer = pq.read_schema(part.files[0], filesystem=self.folder.fs).metadata or {}
        metadata = {PROPERTIES: footer[PROPERTIES.encode()].decode()} if PROPERTIES.encode() in footer else None
        first = next(batches, None)
        if metadata is None and first is None:
            return []
        path = part_name()
        kept = batches if first is None else chain([first], batches)
        tables = (pa.Table.from_batches([batch]) for batch in kept)
        rows, size = write_parquet(self.folder, path, tables, part.schema, metadata)
        stats = json.dumps({"numRecords": rows})
        return [Receipt(path=path, size=size, rows=rows, failed=0, keys=(), stats=stats)]


def _in_threads(work: Callable[[ItemT], T], items: Iterable[ItemT]) -> Iterator[T]:
    """Yield ``work`` of each item in order, of which ``WRITERS`` are worked on at once, and no more are in memory."""
    with ThreadPoolExecutor(WRITERS) as pool:
        begun: deque[Future[T]] = deque()
        for item in items:
            if len(begun) == WRITERS:
                yield begun.popleft().result()
            begun.append(pool.submit(work, item))
        while begun:
            yield begun.popleft().result()


def _where(filter: pc.Expression | None, equals: Mapping[str, Any] | None) -> pc.Expression | None:
    for column, value in (equals or {}).items():
        same = pc.field(column) == value
        filter = same if filter is None else filter & same
    return filter


def _changed(
    batches: Iterator[pa.RecordBatch], change: Callable[[pa.Table], pa.Table | None]
) -> Iterator[pa.RecordBatch]:
    for batch in batches:
        changed = change(pa.Table.from_batches([batch]))
        yield batch if changed is None else changed.combine_chunks().to_batches()[0]


def _stream(rows: pads.Dataset, columns: Sequence[str] | None, where: pc.Expression | None) -> Iterator[pa.RecordBatch]:
    scanner = rows.scanner(columns=columns and list(columns), filter=where, batch_readahead=1, fragment_readahead=1)
    for batch in scanner.to_batches():
        if batch.num_rows:
            yield batch
