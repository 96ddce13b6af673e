"""Datasets under ``kill -9``: real processes, killed at seeded moments."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import time
from collections import Counter
from pathlib import Path

import pytest

from dailies.curation import schema
from dailies.curation.errors import DatasetError
from dailies.curation.tables import DatasetTables, verify
from tests.dataset_builder import OBSERVATIONS, SELECTION, observation, python

CHILDREN = Path(__file__).with_name("dataset_builder.py")


@pytest.fixture
def dataset(tmp_path):
    return DatasetTables.create(tmp_path / "dataset")


def start(verb: str, dataset: DatasetTables) -> subprocess.Popen[str]:
    return python(CHILDREN, verb, dataset.url)


def kill_after(child: subprocess.Popen[str], lines: int, seconds: float) -> list[str]:
    """Kill it some time after it has said so much; returns what it said."""
    assert child.stdout is not None
    said = [child.stdout.readline().strip() for _ in range(lines)]
    time.sleep(seconds)
    child.send_signal(signal.SIGKILL)
    said += child.stdout.read().split()
    assert child.wait() == -signal.SIGKILL
    return said


def test_a_writer_killed_again_and_again_leaves_whole_units_once(dataset):
    moments = random.Random(7)
    units: set[str] = set()
    for _ in range(3):
        said = kill_after(start("write", dataset), moments.randrange(1, 20), moments.random() / 50)
        table = dataset.table(OBSERVATIONS, schema.OBSERVATIONS)
        rows = table.read(["source_id", "evidence"]).to_pylist()
        assert max(Counter(row["source_id"] for row in rows).values(), default=1) == 1
        bundles = Counter(row["source_id"].split("-")[0] for row in rows)
        assert set(bundles.values()) <= {3}, "rows of a part come all or not at all"
        assert all(len(frame["jpeg"]) == 20_000 for row in rows for frame in row["evidence"])
        assert units <= set(table.keys()), "what was committed stays"
        assert not units & set(said), "and is not done again"
        units = set(table.keys())
    table.write_part([observation("one more")])
    named = set(table.files())
    stored = {table.folder.relative(info) for info in table.folder.list(recursive=True)}
    orphans = {path for path in stored if path.endswith((".parquet", ".tmp")) and "_delta_log" not in path} - named
    removed = {item.path.removeprefix(f"{OBSERVATIONS}/") for item in dataset.gc()}
    assert {path for path in removed if "_delta_log" not in path} == orphans
    assert named <= {table.folder.relative(info) for info in table.folder.list()}
    assert orphans, "one at least"
    assert len(units) > 10
    assert set(table.keys()) == units
    assert verify(dataset) == []


def test_a_replacement_is_seen_whole_or_not_at_all(dataset):
    moments = random.Random(3)
    seen = []
    for _ in range(2):
        kill_after(start("replace", dataset), moments.randrange(1, 6), moments.random() / 50)
        table = dataset.table(SELECTION, schema.SELECTIONS)
        rows = table.read()
        assert len(rows) == 1000
        assert set(rows["reason"].to_pylist()) == {str(table.properties()["generation"])}
        seen.append(table.properties()["generation"])
    assert seen == sorted(set(seen))


def test_half_a_part_is_never_visible(dataset):
    assert kill_after(start("half", dataset), 1, 0) == ["half"]
    table = dataset.table(OBSERVATIONS, schema.OBSERVATIONS)
    (half,) = table.folder.list()
    assert half.size > 1_000_000
    assert half.path.endswith(".tmp"), "nor does it bear the name of a part"
    assert not table.exists()
    assert [item.path for item in dataset.gc()] == [dataset.folder.relative(half)]


def test_one_writer_at_a_time_and_none_after_kill_9(dataset):
    holder = start("hold", dataset)
    assert holder.stdout is not None
    child = int(holder.stdout.readline())
    try:
        for other in (dataset.writer, dataset.gc, lambda: dataset.withdraw(["a"])):
            with pytest.raises(DatasetError, match=f"pid {holder.pid} on .* is writing to it"):
                _enter(other)
    finally:
        holder.kill()
        holder.wait()
    os.kill(child, 0)  # its child lives, without the lock
    try:
        with dataset.writer(), dataset.writer():
            dataset.gc()
            with pytest.raises(DatasetError, match=f"pid {os.getpid()} "):
                _enter(DatasetTables.open(dataset.url).writer)
        with DatasetTables.open(dataset.url).writer():
            pass
    finally:
        os.kill(child, signal.SIGKILL)


def _enter(what):
    context = what()
    with context:
        pass
