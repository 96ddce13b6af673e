"""Where sources lie now: a source is its content, so one that was moved keeps its id and all that was made from it.

A place that is new to the dataset is compared, by size and then by content, with the sources whose place is gone. Copies
that are still there stay sources of their own. What was withdrawn stays out, by place and by content.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache
from itertools import count
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from dailies.curation import schema, video
from dailies.curation.addresses import is_queried, public
from dailies.curation.errors import SourceError, UsageError
from dailies.curation.policy import local_path, opening_by, policy_in_force
from dailies.curation.tables import DatasetTables, Table, move_sources, moved_sources, with_places

THREADS = 16  # stores are asked about so many places at once


@dataclass(frozen=True, slots=True, kw_only=True)
class Placed:
    """What to curate: ``rows`` with their ids; ``moved``: uris of sources that lay elsewhere; ``withdrawn``: uris left out.

    ``addresses``: by id, what to read those sources by whose ``uri`` lacks a password or a query.
    """

    rows: list[dict[str, Any]]
    moved: tuple[str, ...]
    withdrawn: tuple[str, ...]

    @property
    def addresses(self) -> dict[str, str]:
        return {row["source_id"]: row["address"] for row in self.rows if row["address"] != row["uri"]}


def place_sources(dataset: DatasetTables, rows: Sequence[dict[str, Any]]) -> Placed:
    """Find each source's id, and note where those lie that were moved."""
    known = known_sources(dataset)
    identified = _identify(rows, known, withdrawn_table(dataset).read().to_pylist())
    lost = _Lost(known, {row["uri"] for row in rows})
    kept: list[dict[str, Any]] = []
    moved: dict[str, str] = {}
    for row, content in identified.new:
        if source := lost.take(row, content):
            moved[source["source_id"]] = row["uri"]
            row["source_id"] = source["source_id"]
        kept.append(row)
    order = {row["address"]: number for number, row in enumerate(rows)}
    kept = sorted([*identified.known, *kept], key=lambda row: order[row["address"]])
    places = dict(zip(*(column.to_pylist() for column in moved_sources(dataset).columns), strict=True))
    # Of a source that is to be observed again, a withdrawal that was cut short may have left a place.
    outdated = {row["source_id"]: row["uri"] for row in kept if places.get(row["source_id"], row["uri"]) != row["uri"]}
    move_sources(dataset, moved | outdated)
    return Placed(rows=kept, moved=tuple(moved.values()), withdrawn=tuple(identified.withdrawn))


def find_addresses(dataset: DatasetTables, rows: Sequence[dict[str, Any]]) -> dict[str, str]:
    """Return, by id, what to read those of the dataset's sources by that ``rows`` name with a password or a query."""
    identified = _identify(rows, known_sources(dataset), [])
    return {row["source_id"]: row["address"] for row in identified.known if row["address"] != row["uri"]}


@dataclass(frozen=True, slots=True)
class _Identified:
    """``known``: rows with the ids of known sources; ``new``: others, with their content as far as it was read."""

    known: list[dict[str, Any]] = field(default_factory=list)
    new: list[tuple[dict[str, Any], str | None]] = field(default_factory=list)
    withdrawn: list[str] = field(default_factory=list)


def _identify(
    rows: Sequence[dict[str, Any]], known: Mapping[str, dict[str, Any]], out: Sequence[Mapping[str, Any]]
) -> _Identified:
    """Tell which sources these are.

    A place leads to its source. Where several addresses have one place, since their queries differ, the content decides:
    the same content is one source, however it is signed, and another is another.
    """
    by_uri: dict[str, list[dict[str, Any]]] = {}
    for source in known.values():
        by_uri.setdefault(source["uri"], []).append(source)
    groups: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        groups.setdefault(row["uri"], []).append(row)
    out_uris = {public(row["uri"]) for row in out if row["uri"]}
    out_contents: dict[str, list[Mapping[str, Any]]] = {}
    for gone in out:
        if gone["content_id"]:
            out_contents.setdefault(video.sampled_id(gone["content_id"]), []).append(gone)
    fresh: list[dict[str, Any]] = []
    told: list[dict[str, Any]] = []
    for row in rows:
        if row.get("refused"):
            continue
        if _needs_content(row, groups[row["uri"]], by_uri.get(row["uri"], []), out_uris):
            told.append(row)
        elif row["uri"] not in by_uri:
            fresh.append(row)
    lost = {source["bytes"] for source in known.values() if source["uri"] not in groups and source["content_id"]}
    contents = _contents(fresh, lost | {row["bytes"] for row in out}) | _contents(told, None)
    identified, taken, hashes = _Identified(), set(known), cache(video.whole_hash)
    for uri, group in groups.items():
        there = by_uri.get(uri, [])
        group = _merged(group, contents)
        for row, match in _matched(group, there, contents):
            known_by = video.sampled_id(match["content_id"]) if match and match["content_id"] else None
            content = contents.get(row["address"]) or known_by
            # Of a place whose query decides, only what cannot be read may be what was withdrawn under another query.
            another = is_queried(row["address"]) and content is not None
            copies = out_contents.get(content or "", ())
            if any(video.is_source(gone, content, row["address"], hashes) for gone in copies) or (
                uri in out_uris and not another
            ):
                identified.withdrawn.append(uri)
            elif match is not None:
                identified.known.append(row | {"source_id": match["source_id"]})
            else:
                identity = next(name for name in _names(row, known, content, len(taken)) if name not in taken)
                taken.add(identity)
                identified.new.append((row | {"source_id": identity}, content))
    return identified


def _needs_content(
    row: Mapping[str, Any],
    group: Sequence[Any],
    there: Sequence[Any],
    out: Collection[str],
) -> bool:
    """Return whether the place of a row may be that of several sources, so that its content must tell them apart."""
    several = len(group) > 1 or len(there) > 1
    return several or (is_queried(row["address"]) and (bool(there) or row["uri"] in out))


def _merged(group: Sequence[dict[str, Any]], contents: Mapping[str, str]) -> list[dict[str, Any]]:
    """Return the rows of one place, those of one content as one row: it is one source, signed several times."""
    merged: dict[str, dict[str, Any]] = {}
    for row in group:
        key = contents.get(row["address"], row["address"])
        if (first := merged.get(key)) is None:
            merged[key] = dict(row)
            continue
        spans = {(span["start"], span["end"]): span for span in (*row["spans"], *first["spans"])}
        first["spans"] = [spans[edges] for edges in sorted(spans)]
        first["manifest"] = first["manifest"] if first["manifest"] is not None else row["manifest"]
        first["whole"] = first["whole"] or row["whole"]
    return list(merged.values())


def _matched(
    group: Sequence[dict[str, Any]], there: Sequence[dict[str, Any]], contents: Mapping[str, str]
) -> list[tuple[dict[str, Any], dict[str, Any] | None]]:
    """Return each row of a place with its source, by content; one that failed before takes what came of no other."""
    # One place and the same sampled bytes are enough: sources signed anew would be read whole in each run.
    by_content = {video.sampled_id(source["content_id"]): source for source in there if source["content_id"]}
    failed = [source for source in there if not source["content_id"]]
    alone = len(group) == len(there) == 1
    pairs: list[tuple[dict[str, Any], dict[str, Any] | None]] = []
    for row in group:
        content = contents.get(row["address"])
        source = by_content.get(content) if content else there[0] if alone else None
        pairs.append((row, source or (failed.pop(0) if failed else None)))
    return pairs


def _names(
    row: Mapping[str, Any], known: Mapping[str, Mapping[str, Any]], content: str | None, number: int
) -> Iterator[str]:
    """Yield ids for a new source: that of its place, and others where that is taken."""
    identity, uri = row["source_id"], row["uri"]
    yield identity
    if identity in known and known[identity]["uri"] != uri:  # the source that lay here lies elsewhere now
        yield schema.digest("source", uri, known[identity]["uri"])
    if content is not None:  # others of this place came under another query
        yield schema.digest("source", uri, content)
    for further in count(number):
        yield schema.digest("source", uri, further)


def known_sources(dataset: DatasetTables) -> dict[str, dict[str, Any]]:
    """Return the sources of every observations table by id: ``source_id``, ``uri``, ``content_id``, ``bytes`` and ``sha256``,
    which a table of before has not."""
    sources: dict[str, dict[str, Any]] = {}
    for name in dataset.tables():
        if name.startswith("observations@"):
            table = dataset.table(name)
            columns = ["source_id", "uri", "content_id", "bytes", *({"sha256"} & set(table.schema.names))]
            rows = with_places(dataset, table.read(columns, equals={"segment": 0}))
            for row in rows.to_pylist():
                if row["source_id"] not in sources or row["content_id"]:
                    sources[row["source_id"]] = row | {"uri": public(row["uri"])}
    return sources


def _contents(rows: Sequence[Mapping[str, Any]], sizes: set[int | None] | None) -> dict[str, str]:
    """Return, by address, the content ids of those that can be read and, where ``sizes`` are given, have one of these."""
    if not rows or (sizes is not None and not sizes):
        return {}
    policy = policy_in_force()  # of this thread

    def content(address: str) -> str | None:
        with opening_by(policy):
            return _content(address, sizes)

    addresses = [row["address"] for row in rows]
    with ThreadPoolExecutor(THREADS) as pool:
        contents = pool.map(content, addresses)
        return {address: content for address, content in zip(addresses, contents, strict=True) if content}


def _content(address: str, sizes: set[int | None] | None) -> str | None:
    try:
        return video.content_id(address)[0] if sizes is None else video.content_among(address, sizes)
    except SourceError:
        return None  # observing it says why


class _Lost:
    """Sources that were observed and are not named now, by content."""

    def __init__(self, known: Mapping[str, dict[str, Any]], named: set[str]) -> None:
        self.sources = [source for source in known.values() if source["content_id"] and source["uri"] not in named]
        self._by_content: dict[str, list[dict[str, Any]]] = {}
        for source in self.sources:
            self._by_content.setdefault(video.sampled_id(source["content_id"]), []).append(source)
        self._hash_of = cache(video.whole_hash)

    def take(self, row: Mapping[str, Any], content: str | None) -> dict[str, Any] | None:
        """Return, once, a source of this content whose place is gone; of several rather one with the same file name."""
        sources = self._by_content.get(content or "", [])
        ordered = sorted(sources, key=lambda source: _name(source["uri"]) != _name(row["uri"]))
        for source in ordered:
            if not readable(source["uri"]) and video.is_source(source, content, row["address"], self._hash_of):
                sources.remove(source)
                return source
        return None


def _name(uri: str) -> str:
    return uri.rpartition("/")[2]


def readable(uri: str) -> bool:
    """Return whether there is something at ``uri`` that may be read."""
    path = local_path(uri)
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
    address = argument if "://" in argument else os.path.abspath(os.path.expanduser(argument))
    content = _content(address, set(pc.unique(rows["bytes"]).to_pylist()))
    for row in rows.to_pylist():
        if row["uri"] == public(address) or video.is_source(row, content, address):
            yield row["source_id"]
