"""The views that SQL has of a dataset: their short names, and what each calls its columns.

Views that are joined ``using (clip_id)`` share no other column, so that none is ambiguous: ``clips`` says what a clip is,
``scores_NAME``, ``captions_NAME`` and ``duplicates_NAME`` have columns by the names that rules have for them,
``selection_NAME`` the verdicts,
``manifest`` what manifests say, and ``export_NAME`` what was exported, where a column that another view has is called
``exported_…``. Selections, or exports, among each other have the same columns. Under its full name a table is as stored.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import pyarrow as pa

from dailies.curation import export_schema, schema
from dailies.curation.config import read_object
from dailies.curation.errors import DatasetError
from dailies.curation.json_columns import typed_column
from dailies.curation.tables.dataset import DatasetTables, tables_named

KEY = "clip_id"
MANIFEST = "manifest"
ROW_STATE = ("status", "failure", "failed_version")
OF_EXPORTS = frozenset(export_schema.export_index([]).names) - (frozenset(schema.clips([]).names) - {KEY})
"""Columns of an export's index that no other view has."""


def current(dataset: DatasetTables) -> dict[str, str]:
    """Map each short name to the table it stands for: the last run's that has one, else the last that was written.

    Of exports it is the one that the newest run made or found again. The clock orders only what no run names.
    """
    age = {name: dataset.table(name).committed() or 0.0 for name in dataset.tables()}
    short = {_short(name): name for name in sorted(age, key=lambda name: (age[name], name))}
    for line in dataset.runs(["tables"])["tables"].to_pylist():
        short |= {_short(name): name for name in tables_named(line) if name in age}
    short |= {_short(name): name for name in (f"exports/{export}" for export in dataset.exports_by_age())}
    return dict(sorted(short.items()))


def _short(name: str) -> str:
    group, _, rest = name.partition("@")[0].partition("/")
    singular = {"selections": "selection", "exports": "export"}.get(group, group)
    return singular if group == "clips" or not rest else f"{singular}_{rest}"


def column_names(table: str, stored: Iterable[str], prefixes: Mapping[str, str]) -> dict[str, str]:
    """Return the columns of a short view, in order: stored name → name in the view.

    ``prefixes``: see ``score_prefixes``.
    """
    group, _, rest = table.partition("@")[0].partition("/")
    if group == "scores":
        prefix = prefixes.get(rest, "")
        return {name: _of_model(name, rest, f"{prefix}{name}") for name in stored if name != "source_id"}
    if group == "captions":
        known = {KEY: KEY, "text": f"caption_{rest}"}
        return {name: known.get(name, f"{name}_{rest}") for name in stored if name != "source_id"}
    if group == "duplicates":
        return {name: name for name in stored if name != "source_id"}
    if group == "signatures":
        return {name: _of_model(name, f"{group}_{rest}", f"signature_{name}") for name in stored if name != "source_id"}
    if group == "selections":
        return {name: name for name in stored if name not in ("source_id", "split")}
    if group == "exports":
        new = {name: export_schema.RENAMED_COLUMNS.get(name, name) for name in stored}
        return {name: as_now if as_now in OF_EXPORTS else f"exported_{as_now}" for name, as_now in new.items()}
    return {name: name for name in stored}


def _of_model(name: str, step: str, shown: str) -> str:
    if name == KEY:
        return name
    return f"{step}_{name}" if name in ROW_STATE else shown


def score_prefixes(dataset: DatasetTables) -> dict[str, str]:
    """Return what stands before the columns of a scorer whose step has a name of its own, by that name; the runs know."""
    prefixes: dict[str, str] = {}
    for text in dict.fromkeys(dataset.runs(["recipe"])["recipe"].to_pylist()):
        steps = read_object(text or "{}", "recipe of a run", DatasetError).get("steps")
        for step in steps if isinstance(steps, list) else ():
            body = step.get("score") if isinstance(step, dict) else None
            if isinstance(body, dict) and isinstance(name := body.get("name"), str):
                prefixes[name] = "" if name == _kind(body.get("scorer")) else f"{name}_"
    return prefixes


def _kind(scorer: Any) -> str:
    """Return what a scorer's step is called by itself: its name in a recipe, of ``FILE.py:CLASS`` the class."""
    name = next(iter(scorer), "") if isinstance(scorer, dict) else scorer
    name = str(name)
    return name.rpartition(":")[2].lower() if ":" in name else name


def manifest_of(dataset: DatasetTables) -> pa.Table | None:
    """Return a row per clip of what its manifest says, a typed column per column of the manifest; None without clips.

    A column is called as in the manifest; one whose name another view has, or that differs from one before it in case
    alone, has ``manifest_`` before it.
    """
    name = current(dataset).get("clips")
    if name is None:
        return None
    table = dataset.table(name)
    clips = table.read([KEY, "manifest"])
    taken = {name.lower() for name in (*table.schema.names, *OF_EXPORTS, *schema.SELECTIONS.names)}
    coded = clips["manifest"].combine_chunks().dictionary_encode()
    rows = [read_object(text, "manifest of a clip", DatasetError) for text in coded.dictionary.to_pylist()]
    columns: dict[str, Any] = {KEY: clips[KEY]}
    for name in dict.fromkeys(name for row in rows for name in row):
        shown = name
        while not shown or shown.lower() in taken:
            shown = f"manifest_{shown}"
        taken.add(shown.lower())
        values = typed_column([row.get(name) for row in rows]).combine_chunks()
        values = values.cast(pa.string()) if pa.types.is_null(values.type) else values
        columns[shown] = values.take(coded.indices)
    return pa.table(columns)
