"""Whether a Matroska file is whole is read from its outermost elements (RFC 8794, RFC 9559)."""

from __future__ import annotations

from typing import Any

SEGMENT = 0x18538067
PARTS = frozenset(
    {0x114D9B74, 0x1549A966, 0x1654AE6B, 0x1F43B675, 0x1C53BB6B, 0x1043A770, 0x1254C367, 0x1941A469, 0xEC, 0xBF}
)  # of a segment: SeekHead, Info, Tracks, Cluster, Cues, Chapters, Tags, Attachments, Void, CRC-32


def is_whole(file: Any) -> bool:
    """Tell whether ``file``, open to be read, holds all of the segment whose size it states, one part behind the other.

    Its place in the file is another afterwards.
    """
    at = 0
    while (element := _element(file, at)) is not None:
        kind, begins, size = element
        if kind == SEGMENT:
            return size is not None and _is_filled(file, begins, begins + size)
        if size is None:
            return False
        at = begins + size
    return False


def _is_filled(file: Any, at: int, end: int) -> bool:
    """Tell whether known parts lie side by side from ``at`` to ``end``, to the last byte."""
    while at < end:
        element = _element(file, at)
        if element is None or element[0] not in PARTS or element[2] is None:
            return False
        at = element[1] + element[2]
    file.seek(end - 1)
    return at == end and len(file.read(1)) == 1


def _element(file: Any, at: int) -> tuple[int, int, int | None] | None:
    """Return the ID of the element at byte ``at``, where its data begin and, where it is known, their size in bytes."""
    file.seek(at)
    head = file.read(12)
    if not head or not head[0] >> 4:
        return None  # an ID has four bytes at most
    length = 9 - head[0].bit_length()
    if len(head) <= length or not head[length]:
        return None
    begins = length + 9 - head[length].bit_length()
    if len(head) < begins:
        return None
    bits = 7 * (begins - length)
    size = int.from_bytes(head[length:begins], "big") & (1 << bits) - 1
    known = size != (1 << bits) - 1
    return int.from_bytes(head[:length], "big"), at + begins, size if known else None
