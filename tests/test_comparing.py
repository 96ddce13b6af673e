"""Two selections beside each other, by what they say of each clip alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import dailies as door
from dailies.curation.tables import DatasetTables
from dailies.pipelines.recipes.recipe import parse_recipe
from dailies.pipelines.recipes.steps import SelectStep
from dailies.pipelines.selecting import select_step
from tests.report_dataset import STEPS, build


def test_selections_are_compared_whatever_else_is_damaged(tmp_path: Path) -> None:
    truth = build(tmp_path / "dataset", 80)
    other: dict[str, Any] = {"select": {"name": "other", "rules": {"motion": {"min": 1.0, "nulls": "drop"}}}}
    recipe = parse_recipe({"name": "reported", "steps": [*STEPS, other]})
    dataset = DatasetTables.open(truth.path)
    (step,) = (step for step in recipe.steps if isinstance(step, SelectStep) and step.name == "other")
    select_step(dataset, recipe, step)
    before = door.Dataset(truth.path).diff("main", "other")
    kept = {
        name: set(dataset.table(f"selections/{name}").read(["clip_id"], equals={"keep": True})["clip_id"].to_pylist())
        for name in ("main", "other")
    }
    assert before.both.clips == len(kept["main"] & kept["other"]) > 0
    assert before.only_b.clips == len(kept["other"] - kept["main"]) > 0
    export = truth.path / "exports" / "export@12345678"
    export.mkdir(parents=True)
    (export / "index.parquet").write_bytes(b"PAR1 of no use")
    for part in (truth.path / truth.recipe.observations).glob("*.parquet"):
        part.write_bytes(b"PAR1 of no use")
    assert door.Dataset(truth.path).diff("main", "other") == before
