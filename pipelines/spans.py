"""Spans that manifests name are kept in a table of the dataset, so that any later run makes their clips without a decode."""

from __future__ import annotations

import logging
from collections.abc import Collection, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from dailies.curation import schema
from dailies.curation.addresses import scrub_data
from dailies.curation.config import read_object
from dailies.curation.errors import UsageError
from dailies.curation.export.card import recount
from dailies.curation.tables import DatasetTables, KeySet, Table

log = logging.getLogger("dailies")

SPAN = pa.struct([pa.field(name, schema.SPANS.field(name).type) for name in ("span_id", "start", "end", "manifest")])


def record_spans(
    dataset: DatasetTables, observations: str, rows: Sequence[dict[str, Any]], *, kept: Collection[str] = ()
) -> None:
    """Store the spans that ``rows`` of ``list_sources`` name and that are not stored yet, or with other columns.

    A source with spans is cut as a whole only where a row, or a run before its first span, named it as a whole: that too
    is stored, and so is a row of a source without spans that says other things than when the source was observed. A row
    without columns says nothing against those stored. The clips of a span, or of a whole, whose row now says other things
    are withdrawn, to be made again; spans that are named no more stay. A line tells of both.

    Args:
        observations: Name of the table of what was observed.
        kept: Names of the tables of scores and captions that depend on no manifest.
    """
    stored = {span["span_id"]: span for span in stored_spans(dataset).to_pylist()}
    spanned = {span["source_id"] for span in stored.values()}
    observed = _observed_manifests(dataset, observations, {row["source_id"] for row in rows})
    in_effect = {key: span["manifest"] for key, span in stored.items()}
    for source, manifest in observed.items():  # what shots were cut with, where no row of a whole says otherwise
        whole = schema.span_id(source, None, None)
        if source not in spanned or whole in stored:
            in_effect[whole] = in_effect.get(whole) or manifest
    named: dict[str, dict[str, Any]] = {}
    uris: dict[str, str] = {}
    for row in rows:
        source = row["source_id"]
        spans = list(row["spans"])
        as_whole = {"start": None, "end": None, "manifest": row["manifest"]}
        if spans or source in spanned:
            if row["whole"] or (source not in spanned and source in observed):
                spans.append(as_whole)
        elif source in observed and not _agree(observed[source], row["manifest"]):
            spans.append(as_whole)
        for span in spans:
            identity = schema.span_id(source, span["start"], span["end"])
            named[identity] = {"span_id": identity, "source_id": source, **span}
        if row["spans"]:
            uris[source] = row["uri"]
    corrected = {
        key: span for key, span in named.items() if key in in_effect and not _agree(in_effect[key], span["manifest"])
    }
    if corrected:
        first = _first(list(corrected.values()), {row["source_id"]: row["uri"] for row in rows})
        log.warning(
            f"{first}: the row says other things than before (such rows: {len(corrected)}); clips are made again"
        )
        _correct(dataset, stored, corrected, kept)
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


def _observed_manifests(dataset: DatasetTables, observations: str, sources: Collection[str]) -> dict[str, str | None]:
    """Return what the manifests said of those of ``sources`` that were observed, at that time."""
    table = dataset.table(observations, schema.OBSERVATIONS)
    rows = table.read(["source_id", "manifest"], equals={"segment": 0}).to_pylist()
    return {row["source_id"]: row["manifest"] for row in rows if row["source_id"] in sources}


def _correct(dataset: DatasetTables, stored: dict[str, Any], corrected: dict[str, Any], kept: Collection[str]) -> None:
    """Put spans in place of those stored. Their rows go last, so that a second run finishes what a killed one left."""
    dataset.withdraw_spans(corrected.values(), kept=kept)
    for name in dataset.exports():
        recount(dataset.folder / "exports" / name)
    if corrected.keys() & stored.keys():
        spans = [corrected.get(key, span) for key, span in stored.items()]
        dataset.table("spans", schema.SPANS).replace(pa.Table.from_pylist(spans, schema=schema.SPANS))


def _first(spans: Sequence[dict[str, Any]], uris: dict[str, str]) -> str:
    """Return the first of some spans as a line may begin with it."""
    first = min(spans, key=lambda span: (uris[span["source_id"]], span["start"] or 0.0))
    uri = uris[first["source_id"]]
    return uri if first["start"] is None else f"{uri} start={first['start']:g} end={first['end']:g}"


def _agree(stored: str | None, named: str | None) -> bool:
    """Return whether a row, as JSON, says what is stored.

    Numbers of manifests in CSV were stored as text once, and nulls as ''; in JSON Lines, every cell had its own type.
    """
    if named is None or named == stored:
        return True
    old, new = (read_object(text or "{}", "manifest of a source", UsageError) for text in (stored, named))
    old = scrub_data(old)
    return all(_alike(old.get(name), new.get(name)) for name in old.keys() | new.keys())


def _alike(old: Any, new: Any) -> bool:
    for text, number in ((old, new), (new, old)):
        if isinstance(text, str) and isinstance(number, int | float):
            try:
                return float(text) == number
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
