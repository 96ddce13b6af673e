"""What a report says for an audit: recipe, weights, tables and their versions, runs, exports; failures, and time per step."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import yaml

from dailies.curation import schema
from dailies.curation.addresses import name_of, scrub, scrub_data
from dailies.curation.config import read_object
from dailies.curation.errors import DailiesError, DatasetError
from dailies.curation.plain_text import shortened
from dailies.curation.tables import DatasetTables
from dailies.pipelines.exporting import report as report_export
from dailies.pipelines.footage import notes
from dailies.pipelines.recipes import CurationRecipe, CutStep, ObserveStep, SelectStep, kind_of_step, resolved
from dailies.pipelines.report.data import ExportNoted, Failures, Lineage, MadeBy, RunNoted, StageTime
from dailies.pipelines.report.judged import JudgedClips
from dailies.pipelines.selecting import clips_table, read_by

RUNS_SHOWN = 12
MOST_SECONDS = 1e12
LONGEST = 2000  # characters of a message or a command


def lineage(dataset: DatasetTables, recipe: CurationRecipe, clips: JudgedClips) -> Lineage:
    """Return where the dataset, and this selection of it, come from."""
    rows = dataset.runs(["started", "command", "version", "recipe_hash"])
    last = rows.slice(max(0, len(rows) - RUNS_SHOWN)).to_pylist()
    runs = [
        RunNoted(
            started="" if row["started"] is None else f"{row['started']:%Y-%m-%d %H:%M:%S}",
            command=shortened(scrub(row["command"] or ""), LONGEST),
            version=row["version"] or "",
            recipe_hash=row["recipe_hash"] or "",
        )
        for row in last
    ]
    usable = clips.rows.filter(pc.equal(clips.rows["status"], "ok"))["source_id"]
    return Lineage(
        recipe=yaml.safe_dump(scrub_data(recipe.source), sort_keys=False, allow_unicode=True, width=100),
        recipe_name=recipe.name,
        recipe_hash=recipe.hash,
        selected=scrub_data(dict(clips.properties)),
        stale=_stale(dataset, recipe, clips),
        in_recipe=_step(recipe, clips) is not None,
        steps=tuple(_made_by(dataset, recipe)),
        runs=tuple(runs),
        more_runs=len(rows) - len(runs),
        exports=tuple(_exports(dataset)),
        notes=notes(dataset, recipe, usable),
    )


def _stale(dataset: DatasetTables, recipe: CurationRecipe, clips: JudgedClips) -> str | None:
    """Return why a selection is not of the dataset as it is now; None where it is."""
    read = clips.properties.get("tables")
    if not isinstance(read, dict):
        return None
    there = set(dataset.tables())
    changed = [name for name, version in read.items() if name not in there or dataset.table(name).version() != version]
    if changed:
        return f"clips or scores came or went since it was made: {', '.join(sorted(changed))}"
    step = _step(recipe, clips)
    if step is None:
        return "the recipe of the last run has no selection of this name"
    if clips.properties.get("rules") != step.criteria.told():
        return "it was made by other rules than the recipe's"
    if any(clips.properties.get(name) not in (None, getattr(step, name)) for name in ("duplicates", "overlaps")):
        return "it was made by another choice of copies and overlaps than the recipe's"
    if set(read) != set(read_by(recipe, step)):
        return "it was made from other tables than the recipe's"
    return None


def _step(recipe: CurationRecipe, clips: JudgedClips) -> SelectStep | None:
    steps = (step for step in recipe.steps if isinstance(step, SelectStep))
    return next((step for step in steps if step.name == clips.selection), None)


def _made_by(dataset: DatasetTables, recipe: CurationRecipe) -> Iterator[MadeBy]:
    named = recipe.tables()
    for step in recipe.steps:
        kind = kind_of_step(step)
        name = named.get(step.name) or named.get(f"{kind}.{step.name}")
        if name is None:  # an export, which is listed apart
            continue
        weights = ""
        if isinstance(step, ObserveStep):
            specs = [*step.observers]
        elif isinstance(step, CutStep):
            specs = [step.detector]
        else:
            specs = [spec for spec in (getattr(step, "spec", None),) if spec is not None]
            for spec in specs:
                weights = str(resolved(spec).weights() or "")
        table = dataset.table(name)
        there = table.exists()
        yield MadeBy(
            step=step.name,
            kind=kind,
            identity=", ".join(spec.identity.rsplit(".", 1)[-1] for spec in specs),
            meaning=", ".join(str(spec.meaning) for spec in specs),
            weights=weights,
            table=name,
            version=table.version() if there else None,
            rows=sum(count for _, count in table.files().values()) if there else 0,
        )


def _exports(dataset: DatasetTables) -> Iterator[ExportNoted]:
    for name in dataset.exports_by_age():
        try:
            export = report_export(name, dataset.folder / "exports" / name)
        except DailiesError:  # one that is damaged, of which ``dailies verify`` says more
            continue
        yield ExportNoted(
            name=name, splits=export.splits, failed=export.failed, bytes=export.bytes, seconds=export.seconds
        )


# ---- what failed ----------------------------------------------------------------------------------------------------


def failures(dataset: DatasetTables, recipe: CurationRecipe) -> tuple[Failures, ...]:
    """Return what could not be done, by stage and kind, the most frequent first."""
    failed: list[Failures] = []
    observed = dataset.table(recipe.observations, schema.OBSERVATIONS)
    failed += by_kind("observe", observed.read(["uri", "failure"], equals={"status": "failed"}))
    clips = clips_table(dataset, recipe)
    failed += by_kind("cut", clips.read(["uri", "failure"], equals={"status": "failed"}))
    for step in recipe.before(None):
        table = dataset.table(recipe.annotations(step), schema.scores(step.spec.columns))
        failed += by_kind(step.name, table.read(["clip_id", "failure"], equals={"status": "failed"}))
    for name in dataset.exports_by_age()[-1:]:
        try:
            index = (dataset.folder / "exports" / name).read_parquet("index.parquet", ["clip_id", "status", "failure"])
        except DailiesError as error:
            failed.append(Failures(stage="export", kind="damaged", count=1, message=str(error), where=name))
            continue
        failed += by_kind("export", index.filter(pc.equal(index["status"], "failed")).drop_columns("status"))
    return tuple(sorted(failed, key=lambda each: -each.count))


def by_kind(stage: str, rows: pa.Table) -> list[Failures]:
    """Count failed rows by kind, and name the first of each: of all the others, nothing becomes Python's."""
    where = next(name for name in rows.column_names if name != "failure")
    kinds = pc.fill_null(pc.struct_field(rows["failure"], "kind"), "unknown")
    numbered = pa.table({"kind": kinds, "row": np.arange(len(rows))})
    counted = numbered.group_by("kind").aggregate([("row", "min"), ([], "count_all")]).sort_by("row_min")
    firsts = rows.select([where, "failure"]).take(counted["row_min"]).to_pylist()
    failed = []
    for each, first in zip(counted.to_pylist(), firsts, strict=True):
        message, place = _message((first["failure"] or {}).get("message"), first[where])
        failed.append(Failures(stage=stage, kind=each["kind"], count=each["count_all"], message=message, where=place))
    return failed


def _message(message: str | None, where: str | None) -> tuple[str, str]:
    return shortened(scrub(message or ""), LONGEST), shortened(name_of(where or ""), LONGEST)


# ---- how long it took -----------------------------------------------------------------------------------------------


def times(dataset: DatasetTables, recipe: CurationRecipe) -> tuple[StageTime, ...]:
    """Return how long each step took, in those runs that noted it and whose step made the table of today."""
    runs = dataset.table("runs")
    if "stage_seconds" not in runs.schema.names:
        return ()
    totals: dict[str, list[float]] = {}
    now: Mapping[str, Any] = recipe.tables()
    for row in dataset.runs(["tables", "stage_seconds"]).to_pylist():
        tables = read_object(row["tables"] or "{}", "tables of a run", DatasetError)
        noted = read_object(row["stage_seconds"] or "{}", "stage_seconds of a run", DatasetError)
        for step, seconds in noted.items():
            if not isinstance(seconds, int | float) or not 0 <= seconds <= MOST_SECONDS:
                raise DatasetError(f"stage_seconds of a run: {step} took {str(seconds)[:60]}, which is no time")
            if step not in now or tables.get(step) == now[step]:
                totals.setdefault(step, []).append(float(seconds))
    order = [*now, *(step for step in totals if step not in now)]
    return tuple(
        StageTime(step=step, seconds=sum(totals[step]), runs=len(totals[step])) for step in order if step in totals
    )
