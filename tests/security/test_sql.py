"""A query that somebody else wrote sees the dataset's tables and nothing else."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from dailies.curation import schema
from dailies.curation.errors import DatasetError, UsageError
from dailies.curation.tables import DatasetTables, query, sql
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
        "copy (select 1) to '/dev/stdout'",
        "prepare p as copy (select 1) to '{folder}/written.csv'; execute p",
        "explain analyze copy (select 1) to '{folder}/written.csv'",
        "from query('from read_text(''{folder}/secret.txt'')')",
        "create macro m(f) as table from read_text(f); from m('{folder}/secret.txt')",
        "from json_execute_serialized_sql(json_serialize_sql('from read_text(''{folder}/secret.txt'')'))",
        "from parquet_metadata('{folder}/secret.txt')",
        "call enable_logging(storage='file', storage_config={{'path': '{folder}/log'}})",
        "call enable_profiling(format='json', save_location='{folder}/profile')",
        "pragma profiling_output = '{folder}/profile'",
        "pragma log_query_path = '{folder}/log'",
        "create persistent secret x (type http, bearer_token 'a')",
        "from duckdb_secrets()",
        "import database '{folder}'",
        "from arrow_scan(1, 2, 3)",
        "from 'http://127.0.0.1:9/x.parquet'",
    ],
)
def test_a_query_reaches_nothing_outside(dataset: DatasetTables, tmp_path: Path, statement: str) -> None:
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(UsageError, match=r"--unrestricted|does not exist|No function matches"):
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


def test_a_result_is_bounded(dataset: DatasetTables, monkeypatch: pytest.MonkeyPatch) -> None:
    """It lies outside of the memory that DuckDB counts."""
    monkeypatch.setattr(sql, "MOST", 100 << 20)
    for statement in ("select repeat('x', 10000) from range(10000000)", "from range(10000000000)"):
        with pytest.raises(UsageError, match="the result comes to over"):
            query(dataset, statement)
    assert query(dataset, "from range(1000000)").num_rows == 1000000
    assert query(dataset, "from range(20000000)", unrestricted=True).num_rows == 20000000


@pytest.mark.parametrize("tables", ["[]", "{", '{"a": {"b": 1}}', "[" * 100_000, '"x"', '{"a": null}'])
def test_a_run_that_names_no_tables_is_one_line(dataset: DatasetTables, tables: str) -> None:
    row = {"run_id": "r", "started": datetime.now(UTC), "command": "c", "version": "0", "recipe": "{}"}
    row |= {"recipe_hash": "h", "tables": tables, "number": 1}
    dataset.table("runs", schema.RUNS).append([row], keys=("r",))
    for work in (lambda: query(dataset, "show tables"), dataset.exports_by_age):
        with pytest.raises(DatasetError, match="tables of a run") as caught:
            work()
        assert "\n" not in str(caught.value)
