"""A query that somebody else wrote sees the dataset's tables and nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest

from dailies.curation.errors import UsageError
from dailies.curation.tables import DatasetTables, query
from tests.conftest import Dailies


@pytest.fixture
def dataset(tmp_path: Path) -> DatasetTables:
    (tmp_path / "secret.txt").write_text("the key")
    return DatasetTables.create(str(tmp_path / "dataset"))


@pytest.mark.parametrize(
    "statement",
    [
        "select content from read_text('{folder}/secret.txt')",
        "select * from '{folder}/secret.txt'",
        "select * from glob('{folder}/*')",
        "select * from sniff_csv('{folder}/secret.txt')",
        "copy (select 1) to '{folder}/written.csv'",
        "export database '{folder}/exported'",
        "attach '{folder}/attached.db'",
        "install httpfs",
        "load httpfs",
        "set enable_external_access = true",
        "set temp_directory = '{folder}/spilled'",
        "set memory_limit = '1TB'",
        "select 1; copy (select 1) to '{folder}/written.csv'",
    ],
)
def test_a_query_reaches_nothing_outside(dataset: DatasetTables, tmp_path: Path, statement: str) -> None:
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(UsageError, match=r"--unrestricted|does not exist"):
        query(dataset, statement.format(folder=tmp_path))
    assert sorted(tmp_path.rglob("*")) == before


def test_who_asks_for_duckdb_whole_gets_it(dataset: DatasetTables, tmp_path: Path, dailies: Dailies) -> None:
    done = dailies("sql", dataset.url, f"copy (select 7) to '{tmp_path}/written.csv' (header false)", "--unrestricted")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "written.csv").read_text() == "7\n"


def test_what_does_not_fit_in_memory_goes_to_no_name_that_others_can_guess(
    dataset: DatasetTables, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / ".tmp").symlink_to(tmp_path / "elsewhere")
    monkeypatch.chdir(tmp_path)
    (row,) = query(dataset, "select current_setting('temp_directory') as folder").to_pylist()
    assert not Path(row["folder"]).is_relative_to(tmp_path)
    assert not Path(row["folder"]).exists(), "and it goes with the query"
