"""Spans that manifests name are kept in a table of the dataset, so that any later run makes their clips without a decode."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from dailies.curation import schema
from dailies.curation.export.card import recount
from dailies.curation.tables import DatasetTables, KeySet, Table

log = logging.getLogger("dailies")

SPAN = pa.struct([pa.field(name, schema.SPANS.field(name).type) for name in ("span_id", "start", "end", "manifest")])


def record_spans(dataset: DatasetTables, observations: str, rows: Sequence[dict[str, Any]]) -> None:
    """Store the spans that ``rows`` of ``list_sources`` name and that are not stored yet, or with other columns.

    A source with spans is cut as a whole only where a row, or a run before its first span, named it as a whole: that too
    is stored. A row without columns says nothing against those stored. The clips of a span whose row now says other
    things are withdrawn, to be made again; spans that are named no more stay. A line tells of both.
    ``observations``: name of the table of what was observed.
    """
    stored = {span["span_id"]: span for span in stored_spans(dataset).to_pylist()}
    spanned = {span["source_id"] for span in stored.values()}
    before = dataset.table(observations, schema.OBSERVATIONS).keys("source_id") if any(r["spans"] for r in rows) else ()
    named: dict[str, dict[str, Any]] = {}
    uris: dict[str, str] = {}
    for row in rows:
        source = row["source_id"]
        if not row["spans"] and source not in spanned:
            continue
        spans = list(row["spans"])
        if row["whole"] or (source not in spanned and source in before):
            spans.append({"start": None, "end": None, "manifest": row["manifest"]})
        for span in spans:
            identity = schema.span_id(source, span["start"], span["end"])
            named[identity] = {"span_id": identity, "source_id": source, **span}
        if row["spans"]:
            uris[source] = row["uri"]
    corrected = {key: span for key, span in named.items() if key in stored and not _agree(stored[key], span)}
    if corrected:
        first = _first(list(corrected.values()), {row["source_id"]: row["uri"] for row in rows})
        log.warning(
            f"{first}: the row says other things than before (such rows: {len(corrected)}); clips are made again"
        )
        _correct(dataset, stored, corrected)
    if fresh := [span for key, span in named.items() if key not in stored]:
        dataset.table("spans", schema.SPANS).append(fresh)
    lost = [
        span
        for key, span in stored.items()
        if span["source_id"] in uris and span["start"] is not None and key not in named
    ]
    if lost:
        log.warning(
            f"{_first(lost, uris)}: named by a manifest before, but by no row now (such spans: {len(lost)}); their clips "
            "stay. To begin a file anew, dailies withdraw it and --readmit it"
        )


def _correct(dataset: DatasetTables, stored: dict[str, Any], corrected: dict[str, Any]) -> None:
    """Put spans in place of those stored. Their rows go last, so that a second run finishes what a killed one left."""
    dataset.withdraw_spans(corrected.values())
    for name in dataset.exports():
        recount(dataset.folder / "exports" / name)
    spans = [corrected.get(key, span) for key, span in stored.items()]
    dataset.table("spans", schema.SPANS).replace(pa.Table.from_pylist(spans, schema=schema.SPANS))


def _first(spans: Sequence[dict[str, Any]], uris: dict[str, str]) -> str:
    """Return the first of some spans as a line may begin with it."""
    first = min(spans, key=lambda span: (uris[span["source_id"]], span["start"] or 0.0))
    uri = uris[first["source_id"]]
    return uri if first["start"] is None else f"{uri} start={first['start']:g} end={first['end']:g}"


def _agree(stored: dict[str, Any], span: dict[str, Any]) -> bool:
    """Return whether a row says what is stored. Numbers of manifests in CSV were stored as text once, and nulls as ''."""
    if span["manifest"] is None or span["manifest"] == stored["manifest"]:
        return True
    old, new = json.loads(stored["manifest"] or "{}"), json.loads(span["manifest"])
    return all(_alike(old.get(name), new.get(name)) for name in old.keys() | new.keys())


def _alike(old: Any, new: Any) -> bool:
    if isinstance(old, str) and isinstance(new, int | float):
        try:
            return float(old) == new
        except ValueError:
            return False
    return bool(old == new) or (old == "" and new is None)


def stored_spans(dataset: DatasetTables) -> pa.Table:
    """Return the rows of ``schema.SPANS``, of which most datasets have none."""
    table = dataset.table("spans", schema.SPANS)
    return table.read() if table.exists() else schema.SPANS.empty_table()


def cut_units(observed: pa.Table, spans: pa.Table, clips: Table) -> tuple[pa.Table, KeySet, int]:
    """Return what is still to cut.

    Units are ``observed`` (``source_id``, ``files``) with ``whole``, ``manifest`` (of the whole, if it was named beside
    spans), ``spans`` (those to do) and ``units`` (how many units that are). With them come the keys of what is done, source
    ids of whole sources and span ids, and how many of these are of observed sources.
    """
    rows = clips.read(["source_id", "span_id"]) if clips.exists() else clips.schema.empty_table()
    shots = pc.unique(rows.filter(rows["span_id"].is_null())["source_id"])
    done = KeySet([shots, pc.unique(rows["span_id"]).drop_null()])
    by_source: dict[str, list[dict[str, Any]]] = {}
    for span in spans.to_pylist():
        by_source.setdefault(span["source_id"], []).append(span)
    units, already = [], 0
    for unit in observed.to_pylist():
        source = unit["source_id"]
        named = by_source.get(source)
        wanted = [span for span in named or () if span["start"] is not None]
        as_whole = next((span for span in named or () if span["start"] is None), None)
        whole = named is None or as_whole is not None
        todo = [span for span in wanted if span["span_id"] not in done]
        whole_todo = whole and source not in done
        count = len(todo) + whole_todo
        already += len(wanted) + whole - count
        if count:
            manifest = as_whole["manifest"] if as_whole else None
            units.append(unit | {"whole": whole_todo, "manifest": manifest, "spans": todo, "units": count})
    return pa.Table.from_pylist(units, schema=UNIT), done, already


UNIT = pa.schema(
    [
        pa.field("source_id", pa.string()),
        pa.field("files", pa.list_(pa.string())),
        pa.field("whole", pa.bool_()),
        pa.field("manifest", pa.string()),
        pa.field("spans", pa.list_(SPAN)),
        pa.field("units", pa.int64()),
    ]
)
"""The unit of work of cutting: a source, with what of it is to do."""
