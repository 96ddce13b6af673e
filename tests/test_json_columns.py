"""Values of a manifest's column that are of several types: what they come to, and that they are not all held in Python."""

from __future__ import annotations

import json
import tracemalloc

import pyarrow.compute as pc
import pytest

from dailies.curation.select import Rule, column_values, select
from dailies.curation.select.manifest import typed_sql
from dailies.curation.tables import confined
from tests.test_select import clips

MIXES = {
    "numbers, some in quotes": [1, "2.5", "", 4, None, "nan"],
    "numbers and words": [1, "two", 3, 4.5],
    "anything beside true": [True, 1, "a", 2.0, None],
    "too large": [2**70, 1, 1.5],
    "lists": [[1], [2.5], [], [3]],
    "lists of several types": [[1], [2], ["a"], []],
    "objects": [{"a": 1}, {"b": "x"}, {"a": 2.5}],
}


@pytest.mark.parametrize("mix", MIXES)
def test_a_column_that_is_read_a_page_at_a_time_is_as_if_it_were_read_whole(
    mix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = clips(manifest=[json.dumps({"x": value}) for value in MIXES[mix]])
    whole = column_values(rows, "manifest.x")
    monkeypatch.setattr("dailies.curation.select.manifest.PAGE", 2)
    with confined(memory=1 << 28) as connection:
        connection.register("clips", rows)
        sql = typed_sql(connection, "clips", ["manifest.x"])["manifest.x"]
        paged = connection.sql(f"select {sql} as value from clips").to_arrow_table()["value"]
    assert paged.type == whole.type
    assert str(paged.to_pylist()) == str(whole.to_pylist())  # NaN is not itself


def test_a_column_of_many_mixed_values_takes_no_memory_of_its_own() -> None:
    count = 40_000
    rows = clips(manifest=[json.dumps({"x": n if n % 2 else f"{n}.5"}) for n in range(count)])
    tracemalloc.start()
    try:
        verdicts, _ = select(rows, {"manifest.x": Rule(min=count / 2)}, duplicates="keep", overlaps="keep")
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert pc.sum(verdicts["keep"]).as_py() == count // 2
    assert most < 4 << 20  # all texts at once take 8 MB
