"""Spans that manifests name are kept in a table of the dataset, so that any later run makes their clips without a decode."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from dailies.curation import schema
from dailies.curation.tables import DatasetTables, KeySet, Table

SPAN = pa.struct([pa.field(name, schema.SPANS.field(name).type) for name in ("span_id", "start", "end", "manifest")])


def record_spans(dataset: DatasetTables, observations: str, rows: Sequence[dict[str, Any]]) -> None:
    """Store the spans that ``rows`` of ``list_sources`` name and that are not stored yet.

    A source with spans is cut as a whole only where a row, or a run before its first span, named it as a whole: that too
    is stored. What is stored stays as it was first named. ``observations``: name of the table of what was observed.
    """
    table = dataset.table("spans", schema.SPANS)
    stored = table.read(["span_id", "source_id"]) if table.exists() else schema.SPANS.empty_table()
    spanned = set(stored["source_id"].to_pylist())
    before = dataset.table(observations, schema.OBSERVATIONS).keys("source_id") if any(r["spans"] for r in rows) else ()
    fresh: list[dict[str, Any]] = []
    for row in rows:
        source = row["source_id"]
        if not row["spans"] and source not in spanned:
            continue
        named = list(row["spans"])
        if row["whole"] or (source not in spanned and source in before):
            named.append({"start": None, "end": None, "manifest": row["manifest"]})
        fresh += [
            {"span_id": schema.span_id(source, span["start"], span["end"]), "source_id": source, **span}
            for span in named
        ]
    done = set(stored["span_id"].to_pylist())
    if fresh := [row for row in fresh if row["span_id"] not in done]:
        table.append(fresh)


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
