"""Groups of copies stay true when a source is withdrawn: sizes, names, and what is alone then."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from dailies.curation import schema
from dailies.curation.tables import DatasetTables, Table
from dailies.curation.tables.regroup import regroup

GROUPED = {  # clip: source, smallest clip of its group, kind, distance, size
    "a": ("s1", "a", "perceptual", 0.1, 3),
    "b": ("s2", "a", "exact", 0.0, 3),
    "c": ("s3", "a", "exact", 0.0, 3),
    "d": ("s1", "d", "perceptual", 0.2, 2),
    "e": ("s4", "d", "perceptual", 0.2, 2),
    "f": ("s4", "f", "semantic", 0.01, 2),
    "g": ("s5", "f", "semantic", 0.01, 2),
    "h": ("s1", None, None, None, 1),
    "i": ("s5", None, None, None, 1),
}
SHOWN = ("source_id", *(field.name for field in schema.DUPLICATE_COLUMNS))
WITHOUT_S1 = {
    "b": ("s2", "b", None, None, 2),
    "c": ("s3", "b", None, None, 2),
    "e": ("s4", None, None, None, 1),
    **{clip: GROUPED[clip] for clip in "fgi"},
}


@pytest.fixture
def table(tmp_path: Path) -> Table:
    """Groups in two parts, with properties."""
    table = DatasetTables.create(tmp_path / "dataset").table("duplicates/dedup@12345678", schema.DUPLICATES)
    rows = [
        {"clip_id": clip, "duplicate_split": "train", **dict(zip(SHOWN, values, strict=True))}
        for clip, values in GROUPED.items()
    ]
    parts = [rows[:4], rows[4:]]
    shape = schema.DUPLICATES
    table.replace((shape.empty_table().from_pylist(part, schema=shape) for part in parts), properties={"step": {}})
    return table


def held(table: Table) -> dict[str, tuple[Any, ...]]:
    return {row["clip_id"]: tuple(row[name] for name in SHOWN) for row in table.read().to_pylist()}


def test_what_is_left_of_a_group_is_counted_again(table: Table, tmp_path: Path) -> None:
    """Groups that lost no clip stay as they are, and so do splits; which copy made a clip one is not known."""
    DatasetTables.open(tmp_path / "dataset").withdraw(["s1"])
    assert held(table) == WITHOUT_S1
    assert set(table.read()["duplicate_split"].to_pylist()) == {"train"}
    assert table.properties() == {"step": {}}


def test_a_withdrawal_that_was_killed_is_finished_by_the_next(table: Table, tmp_path: Path) -> None:
    table.delete(["s1"])
    DatasetTables.open(tmp_path / "dataset").withdraw(["s1"])
    assert held(table) == WITHOUT_S1


def test_groups_that_lost_nothing_are_not_written_again(table: Table) -> None:
    version = table.version()
    regroup(table)
    assert table.version() == version
