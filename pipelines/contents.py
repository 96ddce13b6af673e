"""Tells apart sources that have one size and the same sampled bytes, and differ elsewhere."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from dailies.curation import video
from dailies.curation.errors import SourceError
from dailies.curation.policy import opening_by, policy_in_force
from dailies.curation.tables import DatasetTables, Table, with_places

THREADS = 4  # files that are read whole at once
MADE_FROM = ("selections/", "duplicates/", "signatures/", "captions/", "scores/", "clips/")
"""Beginnings of the names of tables whose clip ids follow from content ids, those that follow from others first."""

log = logging.getLogger("dailies")


def tell_apart(dataset: DatasetTables, observations: Table, clips: Table, addresses: Mapping[str, str]) -> None:
    """Give sources content ids of their own that share one with another source and hold something else.

    Only where two of over 1 MiB share one are all bytes read, once. The source that has clips keeps the id that it has, else
    the one with the smallest source id; clips of another that was taken for it go, so that they are made anew.
    ``addresses``: by source id, what to read those sources by whose uri lacks a password or a query.
    """
    columns = ["source_id", "uri", "content_id", "bytes", "sha256"]
    rows = observations.read(columns, filter=(pc.field("segment") == 0) & (pc.field("bytes") > video.READ_WHOLE))
    sampled = pc.list_element(pc.split_pattern(rows["content_id"], "-"), 0)
    counts = pc.value_counts(sampled.drop_null())
    shared = counts.field("values").filter(pc.greater(counts.field("counts"), 1))
    if not len(shared):
        return
    sources = with_places(dataset, rows.filter(pc.is_in(sampled, value_set=shared))).to_pylist()
    hashes = _hashes(sources, addresses)
    cut = clips.keys("source_id") if clips.exists() else ()
    ids = dict(_ids(sources, hashes, cut))
    stale = [source["source_id"] for source in sources if ids[source["source_id"]] != source["content_id"]]
    fresh = {source["source_id"] for source in sources if hashes.get(source["source_id"]) != source["sha256"]}
    if stale:
        log.warning(
            f"{len(stale)} of the sources have size and sampled bytes of another, and differ elsewhere; told apart"
        )
        for name in sorted(filter(lambda name: name.startswith(MADE_FROM), dataset.tables()), key=_order):
            dataset.table(name).delete(stale)
    if stale or fresh:  # last: it is by these that a run after one that was killed knows what there is to do
        _rewrite(observations, {name: (ids[name], hashes.get(name)) for name in fresh.union(stale)})


def _order(table: str) -> int:
    """Return where among ``MADE_FROM`` the name of a table is."""
    return next(at for at, start in enumerate(MADE_FROM) if table.startswith(start))


def _hash_now(address: str, content: str) -> str | None:
    """Return the sha256 of all bytes at an address, None where something else than ``content`` lies there by now, or nothing
    that can be read."""
    try:
        return video.whole_hash(address) if video.content_id(address)[0] == video.sampled_id(content) else None
    except SourceError:
        return None


def _hashes(sources: list[dict[str, Any]], addresses: Mapping[str, str]) -> dict[str, str]:
    """Return the sha256 of sources by id, of those that can be read where it is not known."""
    policy = policy_in_force()  # of this thread

    def read(source: Mapping[str, Any]) -> str | None:
        with opening_by(policy):
            return _hash_now(addresses.get(source["source_id"], source["uri"]), source["content_id"])

    unknown = [source for source in sources if source["sha256"] is None]
    with ThreadPoolExecutor(THREADS) as pool:
        known = dict(zip((source["source_id"] for source in unknown), pool.map(read, unknown), strict=True))
    hashes = {source["source_id"]: source["sha256"] or known[source["source_id"]] for source in sources}
    return {name: sha256 for name, sha256 in hashes.items() if sha256 is not None}


def _ids(sources: list[dict[str, Any]], hashes: Mapping[str, str], cut: Collection[str]) -> Iterator[tuple[str, str]]:
    """Yield the content id of each source. What could not be read whole keeps the id that it has."""
    first: dict[str, str] = {}
    for source in sorted(
        sources, key=lambda row: ("-" in row["content_id"], row["source_id"] not in cut, row["source_id"])
    ):
        name, sampled = source["source_id"], video.sampled_id(source["content_id"])
        sha256 = hashes.get(name)
        if sha256 is None:
            yield name, source["content_id"]
        elif first.setdefault(sampled, sha256) == sha256:
            yield name, sampled
        else:
            yield name, video.told_apart(sampled, sha256)


def _rewrite(observations: Table, values: Mapping[str, tuple[str, str | None]]) -> None:
    wanted = pa.array(list(values), pa.string())

    def changed(rows: pa.Table) -> pa.Table | None:
        if not pc.any(pc.is_in(rows["source_id"], value_set=wanted)).as_py():
            return None
        if "sha256" not in rows.column_names:  # only asked whether there is something to change
            return rows
        sources = rows["source_id"].to_pylist()
        for column, place in (("content_id", 0), ("sha256", 1)):
            before = rows[column].to_pylist()
            new = [
                values[name][place] if name in values else value for name, value in zip(sources, before, strict=True)
            ]
            at = rows.schema.get_field_index(column)
            rows = rows.set_column(at, rows.schema.field(at), pa.array(new, pa.string()))
        return rows

    observations.rewrite(["source_id"], changed)


def copies_of(known: Mapping[str, Mapping[str, Any]], wanted: Collection[str]) -> list[str]:
    """Return the ids of the sources that hold what one of those ``wanted`` holds; ``known``: rows of ``known_sources``.

    Of two that share a content id without all their bytes having been read, these are read where they still lie there.
    """
    contents: dict[str, list[Mapping[str, Any]]] = {}
    for name in wanted:
        if known[name]["content_id"]:
            contents.setdefault(known[name]["content_id"], []).append(known[name])
    return [
        name
        for name, row in known.items()
        if any(_same_bytes(row, other) for other in contents.get(row["content_id"] or "", ()))
    ]


def _same_bytes(row: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Return whether two sources of one content id hold the same, as far as can be told."""
    if row["source_id"] == other["source_id"] or (row["bytes"] or 0) <= video.READ_WHOLE:
        return True
    first, second = (source.get("sha256") or _hash_now(source["uri"], source["content_id"]) for source in (row, other))
    return None in (first, second) or first == second
