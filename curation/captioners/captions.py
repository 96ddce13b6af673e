"""A caption as a captioner gives it, and the columns of every captioner's table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal

import pyarrow as pa

from dailies.curation.chat import Reply, prompt_hash
from dailies.curation.errors import SourceError, Unanswered
from dailies.curation.schema import STATE, digest, field
from dailies.curation.types import Evidence

Status = Literal["ok", "truncated", "blocked", "empty", "failed"]
STATUSES: dict[Status, str] = {
    "ok": "whole",
    "truncated": "its maker reached the most tokens it may write; the text is there as far as it goes",
    "blocked": "its maker refused, or a filter of contents did; no text",
    "empty": "its maker answered nothing; no text",
    "failed": "there is no answer, which the next run asks for again, or it has not the form that was asked for",
}
"""What may come of a caption. The row's ``failure`` says why there is no text."""

# A captioner NAME's `text` is known to later steps as `caption_NAME`, any other of its columns as `COLUMN_NAME`.
COLUMNS: tuple[pa.Field, ...] = (
    field("text", pa.string(), "the caption, null where there is none"),
    field(
        "tokens",
        pa.int32(),
        "its length as its maker counts: the model's tokens, or words; null without a text",
        "token",
    ),
    field("fields", pa.string(), "its fields as a JSON object, null for a plain caption"),
    field("flags", pa.string(), "what speaks against it, as words joined by commas, null where nothing does"),
    field("model", pa.string(), "its maker: a model's name or address, or the captioner's own where it has none"),
    field("revision", pa.string(), "revision or sha256 of the model, null where nobody tells"),
    field(
        "prompt_hash",
        pa.string(),
        "first 16 digits of the sha256 of the prompt, the system's part before it; null without one",
    ),
    field("prompt_tokens", pa.int32(), "tokens that its maker read for it, null where it does not count", "token"),
)
ORIGIN = frozenset({"model", "revision", "prompt_hash", "prompt_tokens"})
"""Columns that say where a caption is from: they stay in the captioner's table, where an audit looks."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Caption:
    """One caption.

    ``text``: None where ``status`` is blocked, empty or failed, and ``error`` says why. ``fields``: a JSON object, see
    ``COLUMNS`` for it and the others.
    """

    text: str | None
    tokens: int | None
    status: Status = "ok"
    error: SourceError | None = None
    fields: str | None = None
    flags: Sequence[str] = ()
    model: str
    revision: str | None = None
    prompt_hash: str | None = None
    prompt_tokens: int | None = None

    def __post_init__(self) -> None:
        if (self.text is None) != (self.status in ("blocked", "empty", "failed")):
            raise ValueError(
                f"status={self.status!r}, text={self.text!r}: a text is there where ok or truncated, only there"
            )


def caption_table(
    captions: Sequence[Caption], more: Mapping[pa.Field, Sequence[Any]] = MappingProxyType({})
) -> pa.Table:
    """Return captions as a table of ``COLUMNS``, the columns of a captioner's own in ``more`` with their values, and
    ``STATE``."""
    rows = pa.Table.from_pylist([_row(caption) for caption in captions], schema=pa.schema([*COLUMNS, *STATE]))
    for own, values in more.items():
        rows = rows.add_column(rows.num_columns - len(STATE), own, pa.array(values, own.type))
    return rows


def caption_of(reply: Reply, *, prompt: str) -> Caption:
    """Return a chat model's reply to ``prompt`` as a caption."""
    written = reply.outcome in ("ok", "truncated")
    failed = Unanswered(reply.why or STATUSES[reply.outcome])
    if reply.kind is not None:
        failed.kind = reply.kind
    return Caption(
        text=reply.text if written else None,
        tokens=reply.tokens if written else None,
        status=reply.outcome,
        error=None if written else failed,
        model=reply.model,
        revision=reply.revision,
        prompt_hash=prompt_hash(prompt),
        prompt_tokens=reply.prompt_tokens,
    )


def seed_of(seed: int, clip: Evidence, content: Sequence[str]) -> int:
    """Return a seed of what the clip shows, which its columns ``content`` tell: a caption depends neither on the batch or the
    worker that it falls to, nor on where its source lies, as a clip's id does."""
    span = clip.span
    parts = [clip.columns[name] for name in content]
    return int(digest("caption", seed, *parts, span.start, span.end, span.time_base)[:15], 16)


def _row(caption: Caption) -> dict[str, Any]:
    row = {column.name: getattr(caption, column.name) for column in COLUMNS}
    why = None
    if caption.text is None:
        kind = caption.error.kind if caption.error is not None and caption.status == "failed" else caption.status
        why = {"kind": kind, "message": str(caption.error or STATUSES[caption.status])}
    return row | {"flags": ",".join(caption.flags) or None, "status": caption.status, "why": why}
