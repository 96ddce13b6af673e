"""Rows of the table of runs: what each run was asked for, which exports it came to, and how long its steps took."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any

from dailies.curation import schema
from dailies.curation.addresses import scrub
from dailies.curation.tables import DatasetTables
from dailies.pipelines.recipes.recipe import CurationRecipe


def record_run(dataset: DatasetTables, recipe: CurationRecipe) -> str:
    """Append a run to the dataset with its whole recipe, so that the parameters of every result are on record.

    Returns its id.
    """
    table = dataset.table("runs", schema.RUNS)
    started, number = datetime.now(UTC), 1 + (-1 if (before := table.version()) is None else before)
    run_id = schema.digest("run", number, started.isoformat(), recipe.hash)
    row = {
        "run_id": run_id,
        "started": started,
        "command": scrub(" ".join(sys.argv)),
        "version": version("dailies"),
        "recipe": json.dumps(recipe.source | {"name": recipe.name}),  # as it is ordered: so rules and caps are asked
        "recipe_hash": recipe.hash,
        "tables": json.dumps(recipe.tables()),
        "number": number,
    }
    table.append([row], keys=(run_id,))
    return run_id


def record_export(dataset: DatasetTables, run_id: str, step: str, export: str) -> None:
    """Note, in one commit, that a run's export step comes to this export, whether it makes it or finds it made.

    An export that is made is noted before it appears: a name without its folder is passed over, and the other way round
    a run that is killed would leave an export that no run names.
    """
    tables = json.loads(_row(dataset, run_id)["tables"]) | {f"export.{step}": f"exports/{export}"}
    _amend(dataset, run_id, tables=json.dumps(tables))


def record_times(dataset: DatasetTables, run_id: str, seconds: Mapping[str, float]) -> None:
    """Note, in one commit, how long each step of a run took, by the names that its ``tables`` have."""
    _amend(dataset, run_id, stage_seconds=json.dumps({step: round(took, 3) for step, took in seconds.items()}))


def _row(dataset: DatasetTables, run_id: str) -> dict[str, Any]:
    (row,) = dataset.table("runs", schema.RUNS).read(equals={"run_id": run_id}).to_pylist()
    return dict(row)


def _amend(dataset: DatasetTables, run_id: str, **columns: str) -> None:
    table = dataset.table("runs", schema.RUNS)
    table.put([_row(dataset, run_id) | columns], equals={"run_id": run_id})
