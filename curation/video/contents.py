"""Whether two sources hold the same: by size and sampled bytes first, and by all bytes where these are the same.

A content id is 24 hex digits over size and sampled bytes, which tell apart what differs by accident. Two files of one size may
still differ elsewhere, so wherever two of over ``READ_WHOLE`` bytes have the same, all their bytes decide. The content id of
one that turns out to be another has 24 digits of that hash behind it: ``SAMPLED-WHOLE``.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from contextlib import closing
from typing import Any

from dailies.curation.errors import SourceError
from dailies.curation.policy import local_path
from dailies.curation.retrying import retried
from dailies.curation.video.bytes_io import CHUNK, CHUNKS, InputFile, content_id, file_error, store_error

READ_WHOLE = CHUNK * CHUNKS
"""Bytes of a file up to which its content id is over all of it."""
STEP = 1 << 20


def whole_hash(address: str, heartbeat: Callable[[], None] = lambda: None) -> str:
    """Return the sha256 of all bytes of a source, in hex. Raises ``SourceError``."""
    path, hasher = local_path(address), hashlib.sha256()
    try:
        with closing(retried(lambda: InputFile.at(address))) as file:
            while part := file.read(STEP):
                hasher.update(part)
                heartbeat()
            if file.error is not None:
                raise file.error
    except Exception as error:  # each store raises its own
        if path is None:  # a store's own error would show the whole address in a traceback
            raise store_error(error) from None
        raise file_error(error) from error
    return hasher.hexdigest()


def sampled_id(content: str) -> str:
    """Return the part of a content id that is over size and sampled bytes."""
    return content.partition("-")[0]


def told_apart(content: str, sha256: str) -> str:
    """Return the content id of a source that is another one than the first of this sampled id."""
    return f"{sampled_id(content)}-{sha256[:24]}"


def holds(address: str, content: str) -> bool:
    """Return whether a content id is of what lies at an address now. Raises ``SourceError``."""
    if content_id(address)[0] != sampled_id(content):
        return False
    return content == sampled_id(content) or told_apart(content, whole_hash(address)) == content


def is_source(
    source: Mapping[str, Any], content: str | None, address: str, hash_of: Callable[[str], str] = whole_hash
) -> bool:
    """Return whether what lies at ``address`` and has the sampled id ``content`` is a source of a dataset.

    ``source``: its ``content_id``, and ``sha256`` where it is known; where it is not, sampled bytes decide. An address that
    cannot be read whole is of no source.
    """
    if content is None or not source["content_id"] or sampled_id(source["content_id"]) != content:
        return False
    try:
        return source.get("sha256") is None or hash_of(address) == source["sha256"]
    except SourceError:
        return False
