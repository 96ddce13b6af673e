"""Rows of the table of runs: what each run was asked for, and which exports it came to."""

from __future__ import annotations

import json
import sys
from datetime import UTC, datetime
from importlib.metadata import version

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
        "recipe": json.dumps(recipe.source | {"name": recipe.name}, sort_keys=True),
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
    table = dataset.table("runs", schema.RUNS)
    (row,) = table.read(equals={"run_id": run_id}).to_pylist()
    tables = json.loads(row["tables"]) | {f"export.{step}": f"exports/{export}"}
    table.put([row | {"tables": json.dumps(tables)}], equals={"run_id": run_id})
