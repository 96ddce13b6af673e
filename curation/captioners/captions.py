"""Every captioner's table holds these columns."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa

from dailies.curation.schema import field

# A captioner NAME's `text` is known to later steps as `caption_NAME`.
COLUMNS: tuple[pa.Field, ...] = (
    field("text", pa.string(), "the caption"),
    field("tokens", pa.int32(), "its length as its maker counts: the model's tokens, or words", "token"),
)


def caption_table(rows: Sequence[tuple[str, int]]) -> pa.Table:
    """Return captions and their lengths as a table of ``COLUMNS``."""
    return pa.Table.from_pylist([{"text": text, "tokens": tokens} for text, tokens in rows], schema=pa.schema(COLUMNS))
