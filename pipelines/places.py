"""Where sources lie now: a source is its content, so one that was moved keeps its id and all that was made from it.

A place that is new to the dataset is compared, by size and then by content, with the sources whose place is gone. Copies
that are still there stay sources of their own. What was withdrawn stays out, by place and by content.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from dailies.curation import schema, video
from dailies.curation.errors import SourceError, UsageError
from dailies.curation.tables import DatasetTables, Table, move_sources, moved_sources, with_places

THREADS = 16  # stores are asked about so many places at once


@dataclass(frozen=True, slots=True, kw_only=True)
class Placed:
    """What to curate: ``rows`` with their ids; ``moved``: uris of sources that lay elsewhere; ``withdrawn``: uris left out."""

    rows: list[dict[str, Any]]
    moved: tuple[str, ...]
    withdrawn: tuple[str, ...]


def place_sources(dataset: DatasetTables, rows: Sequence[dict[str, Any]]) -> Placed:
    """Find each source's id, and note where those lie that were moved."""
    known = known_sources(dataset)
    by_uri = {source["uri"]: source for source in known.values()}
    out = withdrawn_table(dataset).read().to_pylist()
    fresh = [row["uri"] for row in rows if row["uri"] not in by_uri and not row.get("refused")]
    lost = _Lost(known, {row["uri"] for row in rows})
    contents = _contents(fresh, {source["bytes"] for source in [*lost.sources, *out]})
    out_uris, out_contents = ({row[name] for row in out if row[name]} for name in ("uri", "content_id"))
    kept: list[dict[str, Any]] = []
    moved: dict[str, str] = {}
    left_out: list[str] = []
    for row in rows:
        uri = row["uri"]
        content = by_uri[uri]["content_id"] if uri in by_uri else contents.get(uri)
        if uri in out_uris or content in out_contents:
            left_out.append(uri)
        elif uri in by_uri:
            kept.append(row | {"source_id": by_uri[uri]["source_id"]})
        elif source := lost.take(uri, contents.get(uri)):
            moved[source["source_id"]] = uri
            kept.append(row | {"source_id": source["source_id"]})
        elif row["source_id"] in known:  # the source that lay here lies elsewhere now
            kept.append(row | {"source_id": schema.digest("source", uri, known[row["source_id"]]["uri"])})
        else:
            kept.append(row)
    places = dict(zip(*(column.to_pylist() for column in moved_sources(dataset).columns), strict=True))
    # Of a source that is to be observed again, a withdrawal that was cut short may have left a place.
    outdated = {row["source_id"]: row["uri"] for row in kept if places.get(row["source_id"], row["uri"]) != row["uri"]}
    move_sources(dataset, moved | outdated)
    return Placed(rows=kept, moved=tuple(moved.values()), withdrawn=tuple(left_out))


def known_sources(dataset: DatasetTables) -> dict[str, dict[str, Any]]:
    """Return the sources of every observations table by id: ``source_id``, ``uri``, ``content_id`` and ``bytes``."""
    sources: dict[str, dict[str, Any]] = {}
    for name in dataset.tables():
        if name.startswith("observations@"):
            columns = ["source_id", "uri", "content_id", "bytes"]
            rows = with_places(dataset, dataset.table(name).read(columns, equals={"segment": 0}))
            for row in rows.to_pylist():
                if row["source_id"] not in sources or row["content_id"]:
                    sources[row["source_id"]] = row
    return sources


def _contents(uris: Sequence[str], sizes: set[int | None]) -> dict[str, str]:
    """Return the content ids of those that have one of these sizes and can be read."""
    if not sizes:
        return {}
    policy = video.policy_in_force()  # of this thread

    def content(uri: str) -> str | None:
        with video.opening_by(policy):
            return _content(uri, sizes)

    with ThreadPoolExecutor(THREADS) as pool:
        contents = pool.map(content, uris)
        return {uri: content for uri, content in zip(uris, contents, strict=True) if content}


def _content(uri: str, sizes: set[int | None]) -> str | None:
    try:
        return video.content_among(uri, sizes)
    except SourceError:
        return None  # observing it says why


class _Lost:
    """Sources that were observed and are not named now, by content."""

    def __init__(self, known: Mapping[str, dict[str, Any]], named: set[str]) -> None:
        self.sources = [source for source in known.values() if source["content_id"] and source["uri"] not in named]
        self._by_content: dict[str, list[dict[str, Any]]] = {}
        for source in self.sources:
            self._by_content.setdefault(source["content_id"], []).append(source)

    def take(self, uri: str, content: str | None) -> dict[str, Any] | None:
        """Return, once, a source of this content whose place is gone; of several rather one with the same file name."""
        sources = self._by_content.get(content or "", [])
        ordered = sorted(sources, key=lambda source: _name(source["uri"]) != _name(uri))
        for source in ordered:
            if _address(source["uri"]) == _address(uri) or not readable(source["uri"]):
                sources.remove(source)
                return source
        return None


def _address(uri: str) -> str:
    """Return a URL without its query, in which signatures stand; a path as it is."""
    return uri.partition("?")[0] if "://" in uri else uri


def _name(uri: str) -> str:
    return _address(uri).rpartition("/")[2]


def readable(uri: str) -> bool:
    """Return whether there is something at ``uri`` that may be read."""
    path = video.local_path(uri)
    if path is not None:
        return os.access(path, os.R_OK)
    try:
        video.size_of(uri)
    except SourceError:
        return False
    return True


# ---- withdrawn ------------------------------------------------------------------------------------------------------


def withdrawn_table(dataset: DatasetTables) -> Table:
    """Return the table of what was withdrawn, which may not exist yet."""
    return dataset.table("withdrawn", schema.WITHDRAWN)


def remember_withdrawn(dataset: DatasetTables, sources: Sequence[Mapping[str, Any]]) -> None:
    """Note sources (rows of ``known_sources``) that are to stay out."""
    table = withdrawn_table(dataset)
    there, now = table.keys(), datetime.now(UTC)
    rows = [{**source, "withdrawn": now} for source in sources if source["source_id"] not in there]
    if rows:
        table.append(rows)


def readmit(dataset: DatasetTables, named: Sequence[str]) -> None:
    """Forget that these were withdrawn: paths or URLs where they lay, or where a copy lies.

    Raises ``UsageError``, before anything is changed, for one that was not withdrawn.
    """
    table = withdrawn_table(dataset)
    rows = table.read()
    chosen: set[str] = set()
    for argument in named:
        matching = set(_matching(rows, argument))
        if not matching:
            raise UsageError(
                f"--readmit={argument}: not withdrawn from {dataset.url}; "
                f"`dailies sql {dataset.url} 'select uri from withdrawn'` lists what is"
            )
        chosen |= matching
    table.delete(chosen)


def _matching(rows: pa.Table, argument: str) -> Iterator[str]:
    uri = argument if "://" in argument else os.path.abspath(os.path.expanduser(argument))
    content = _content(uri, set(pc.unique(rows["bytes"]).to_pylist()))
    for row in rows.to_pylist():
        if row["uri"] == uri or (content and row["content_id"] == content):
            yield row["source_id"]
