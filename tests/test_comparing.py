"""Two selections beside each other, by what they say of each clip alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa

import dailies as door
from dailies.curation import schema
from dailies.curation.tables import DatasetTables
from dailies.pipelines.recipes.recipe import parse_recipe
from dailies.pipelines.recipes.steps import SelectStep
from dailies.pipelines.reports import Held
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


def test_clips_of_two_cuts_are_compared_each_once_and_the_first_selection_says_the_split(tmp_path: Path) -> None:
    """One clip is in both tables of clips, one in none; and groups that changed since may have moved a split."""
    dataset = DatasetTables.create(tmp_path / "dataset")
    lengths = {"one": {"c0": 2.0, "c1": 3.0}, "two": {"c0": 2.0, "c2": 5.0}}
    verdicts = {"a": ("one", "train", [True, True, False, False]), "b": ("two", "test", [True, False, True, False])}
    for name, (cut, split, keeps) in verdicts.items():
        clips = dataset.table(f"clips/{cut}@12345678", schema.clips([]))
        clips.append([{"clip_id": clip, "seconds": seconds} for clip, seconds in lengths[cut].items()], keys=())
        rows = [
            {"clip_id": f"c{n}", "split": split, "keep": keep, "reason": None if keep else name}
            for n, keep in enumerate(keeps)
        ]
        judged = pa.Table.from_pylist(rows, schema=schema.SELECTIONS)
        table = dataset.table(f"selections/{name}", schema.SELECTIONS)
        table.replace(judged, properties={"tables": {clips.name: 0}})
    told = door.Dataset(dataset.url).diff("a", "b")
    both, first, second = (Held(clips=1, seconds=seconds) for seconds in (2.0, 3.0, 5.0))
    assert (told.both, told.only_a, told.only_b) == (both, first, second)
    assert told.neither == Held(clips=1, seconds=0.0), "its length is not known"
    assert told.splits == {"train": {"both": both, "only_a": first, "only_b": second}}
    assert (told.b_drops, told.a_drops) == ({"b": first}, {"a": second})
