"""Shards of an export, as its index names them: nothing else may be read, rewritten or deleted by what an index says."""

from __future__ import annotations

import re

import pyarrow as pa
import pyarrow.compute as pc

from dailies.curation.errors import Unsafe
from dailies.curation.tables.storage import Folder

SHARD = re.compile(r"data/[A-Za-z0-9_-][A-Za-z0-9_.-]*\.parquet")


def shards_of(export: Folder, column: pa.ChunkedArray) -> list[str]:
    """Return the different names in an index's column ``shard``; failed clips have none. Raises ``Unsafe`` for any other."""
    names = [name for name in pc.unique(column).to_pylist() if name is not None]
    for name in names:
        if not SHARD.fullmatch(name):
            raise Unsafe(
                f"{export.url}: its index names {name!r}, which is no shard; get it whole, from whom you trust"
            )
    return names
