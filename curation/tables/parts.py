"""Parts: the Parquet files that workers write and read, without opening the table they belong to.

A part is invisible until a commit names it. A *unit* is what a stage does or does not do as a whole, a source or a clip;
the keys of the units in a part are in its *receipt*, which the worker returns to the driver.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from dailies.curation.errors import DatasetError, Unsafe
from dailies.curation.tables.storage import Folder, first_line, plain_schema, write_parquet


@dataclass(frozen=True, slots=True, kw_only=True)
class Receipt:
    """A part that is written and not yet committed.

    ``path`` is relative to the table, ``size`` in bytes; ``failed`` counts the rows with that status. ``keys`` are the
    units whose rows it holds, ``stats`` Delta Lake's JSON of counts and bounds. Small plain data.
    """

    path: str
    size: int
    rows: int
    failed: int
    keys: tuple[str, ...]
    stats: str


PART_NAME = r"part-[0-9a-f]{32}\.parquet"


def part_name(number: int | None = None) -> str:
    """Make a name that no other part of any table has. ``number``: parts are read by name, so in this order."""
    drawn = uuid.uuid4().hex
    return f"part-{drawn if number is None else f'{number:08x}{drawn[8:]}'}.parquet"


def check_parts(names: pa.Array | pa.ChunkedArray, url: str) -> None:
    """Raise ``Unsafe`` for a name that ``part_name`` never made: a log that others wrote may name any file of the disk."""
    good = pc.match_substring_regex(names, rf"\A{PART_NAME}\z")
    if not pc.all(good, min_count=0).as_py():
        wrong = names.filter(pc.invert(good))[0].as_py()
        raise Unsafe(f"{url}: its log names {wrong!r}, which is no part of a table; get it whole, from whom you trust")


def write_part(
    url: str | Path,
    schema: pa.Schema,
    rows: pa.Table | Sequence[Mapping[str, Any]],
    *,
    keys: Iterable[str] | None = None,
    metadata: Mapping[str, str] | None = None,
    number: int | None = None,
) -> Receipt:
    """Write one part of the table at ``url``, in any process: nothing of the table itself is read.

    ``keys`` are the units in it; without it, the values of the schema's first column. Without rows no file is written,
    unless there is ``metadata`` for its footer.
    ``number``: see ``part_name``. Raises ``DatasetError`` where the rows do not fit the schema.
    """
    schema = plain_schema(schema)
    table = conform(rows, schema, str(url))
    key = schema.names[0]
    if keys is None:
        keys = pc.unique(table[key]).to_pylist()
    count, size, path = 0, 0, ""
    if len(table) or metadata is not None:
        path = part_name(number)
        count, size = write_parquet(Folder.beneath(url), path, [table], schema, metadata)
    stats: dict[str, Any] = {"numRecords": count}
    if count and pa.types.is_string(schema.field(key).type):
        low, high = pc.min_max(table[key]).as_py().values()
        stats |= {"minValues": {key: low}, "maxValues": {key: high}, "nullCount": {key: table[key].null_count}}
    failed = table["status"].to_pylist().count("failed") if "status" in schema.names else 0
    return Receipt(path=path, size=size, rows=count, failed=failed, keys=tuple(keys), stats=json.dumps(stats))


def conform(rows: pa.Table | Sequence[Mapping[str, Any]], schema: pa.Schema, name: str) -> pa.Table:
    """Give ``rows`` exactly the schema's columns and types, in its order; what they lack is null.

    Raises ``DatasetError`` naming the column that is unknown, or that does not fit its type.
    """
    present = rows.column_names if isinstance(rows, pa.Table) else dict.fromkeys(key for row in rows for key in row)
    if unknown := [column for column in present if column not in schema.names]:
        raise DatasetError(f"{name}: unknown column {unknown[0]!r}; allowed: {', '.join(schema.names)}")
    columns = []
    for column in schema:
        try:
            if not isinstance(rows, pa.Table):
                columns.append(pa.array([row.get(column.name) for row in rows], column.type))
            elif column.name in present:
                columns.append(rows[column.name].cast(column.type))
            else:
                columns.append(pa.nulls(len(rows), column.type))
        except (pa.ArrowException, TypeError, ValueError) as error:
            raise DatasetError(
                f"{name}: column {column.name!r} does not fit {column.type}: {first_line(error)}"
            ) from error
    return pa.Table.from_arrays(columns, schema=schema)


def read_part(url: str, columns: Sequence[str], *, source_ids: Sequence[str]) -> Iterator[pa.Table]:
    """Read the rows of some sources from the part at ``url`` (the ``file`` of ``Table.located``), a row group at a time.

    Row groups without such a row are not read, but for their source ids. Columns newer than the part are left out.
    """
    parent, _, name = url.rpartition("/")
    check_parts(pa.array([name]), parent)
    folder = Folder.beneath(parent)
    wanted = pa.array(source_ids, pa.string())
    with folder.parquet(name) as part:
        present = [name for name in columns if name in part.schema_arrow.names]
        for group in range(part.num_row_groups):
            mask = pc.is_in(part.read_row_group(group, ["source_id"])["source_id"], value_set=wanted)
            if pc.any(mask).as_py():
                yield part.read_row_group(group, present).filter(mask).select(present)


class KeySet:
    """A set of keys in about 24 bytes each, for sets that a Python set would hold in gigabytes.

    Most lie in a sorted array; those added since in a Python set, until there are enough to be worth a sort.
    """

    __slots__ = ("_recent", "_sorted")

    def __init__(self, chunks: Iterable[pa.Array] = ()) -> None:
        encoded = [np.asarray(pc.unique(chunk).to_pylist(), dtype="S") for chunk in chunks if len(chunk)]
        self._sorted = np.unique(np.concatenate(encoded)) if encoded else np.empty(0, dtype="S1")
        self._recent: set[str] = set()

    def __len__(self) -> int:
        return len(self._sorted) + len(self._recent)

    def __contains__(self, key: object) -> bool:
        if not isinstance(key, str):
            return False
        if key in self._recent:
            return True
        wanted = key.encode()
        if len(wanted) > self._sorted.itemsize:  # numpy would widen a copy of the whole array to compare
            return False
        at = int(np.searchsorted(self._sorted, np.bytes_(wanted)))
        return at < len(self._sorted) and bool(self._sorted[at] == wanted)

    def __iter__(self) -> Iterator[str]:
        for key in self._sorted:
            yield key.decode()
        yield from self._recent

    def add(self, keys: Iterable[str]) -> None:
        self._recent.update(key for key in keys if key not in self)
        if len(self._recent) > max(1 << 18, len(self._sorted) // 4):
            self._sorted = np.union1d(self._sorted, np.asarray(list(self._recent), dtype="S"))
            self._recent = set()
