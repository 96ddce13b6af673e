"""``verify`` finds what is broken, and says where; SQL sees every table, and reads only what it is asked for."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dailies.curation import export_schema, schema
from dailies.curation.errors import Unreadable, UsageError
from dailies.curation.tables import DatasetProblem, DatasetTables, connect, current, move_sources, query, verify
from tests.dataset_builder import CLIPS, EXPORT, MOTION, OBSERVATIONS, SCORES, SELECTION, fill, observation, python

SHARD = "data/train-00000-of-00002.parquet"


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    dataset = DatasetTables.create(tmp_path_factory.mktemp("original") / "dataset")
    fill(dataset, ["a", "b", "c"])
    return dataset


@pytest.fixture
def dataset(original, tmp_path):
    return DatasetTables.open(shutil.copytree(original.url, tmp_path / "dataset"))  # one that was moved is as good


# ---- verify ---------------------------------------------------------------------------------------------------------


def part_of(dataset: DatasetTables, name: str) -> Path:
    table = dataset.table(name)
    return Path(table.folder.file(next(iter(table.files()))))


def cut_short(dataset: DatasetTables) -> None:
    path = part_of(dataset, SCORES)
    path.write_bytes(path.read_bytes()[:-1])


def overwritten(dataset: DatasetTables) -> None:
    path = part_of(dataset, SCORES)
    path.write_bytes(bytes(path.stat().st_size))


def clip(name: str, source: str, start: int, end: int) -> dict[str, object]:
    return {"clip_id": name, "source_id": source, "start": start, "end": end}


def rewrite_index(change: Callable[[list[dict[str, object]]], object]) -> Callable[[DatasetTables], None]:
    def act(dataset: DatasetTables) -> None:
        path = dataset.folder.file(f"exports/{EXPORT}/index.parquet")
        rows = pq.read_table(path).to_pylist()
        change(rows)
        pq.write_table(pa.Table.from_pylist(rows, schema=export_schema.export_index([MOTION])), path)

    return act


def swapped(rows: list[dict[str, object]]) -> None:
    rows[0]["row"], rows[1]["row"] = rows[1]["row"], rows[0]["row"]


BROKEN: list[tuple[str, Callable[[DatasetTables], object], str]] = [
    ("a part is gone", lambda d: part_of(d, SCORES).unlink(), f"{SCORES}: part-.*: is missing"),
    ("a part is cut short", cut_short, f"{SCORES}: part-.*: is of .* bytes; .* bytes were committed"),
    ("a part is overwritten", overwritten, f"{SCORES}: part-.*: cannot be read"),
    (
        "a key twice",
        lambda d: d.table(SCORES).append([{"clip_id": "a-0", "source_id": "a"}]),
        f"{SCORES}: a-0: stands more than once",
    ),
    (
        "a score of no clip",
        lambda d: d.table(SCORES).append([{"clip_id": "z-0", "source_id": "z"}]),
        f"{SCORES}: z-0: clip_id is in no clips table",
    ),
    (
        "a clip of no source",
        lambda d: d.table(CLIPS).append([clip("z-0", "z", 0, 9)]),
        f"{CLIPS}: z: source_id is in no observations table",
    ),
    (
        "an empty span",
        lambda d: d.table(CLIPS).append([clip("n", "a", 9, 9)]),
        f"{CLIPS}: n: its span is empty",
    ),
    (
        "a span past the end",
        lambda d: d.table(CLIPS).append([clip("n", "a", 50, 101)]),
        f"{CLIPS}: n: its span reaches outside",
    ),
    (
        "a span in a source without frames",
        lambda d: (
            d.table(OBSERVATIONS).append([{"source_id": "f", "segment": 0, "status": "failed"}]),
            d.table(CLIPS).append([clip("n", "f", 0, 1)]),
        ),
        f"{CLIPS}: n: its span reaches outside",
    ),
    (
        "a column too few",
        lambda d: d.table("scores/odd@1", pa.schema([("clip_id", pa.string()), ("status", pa.int64())])).append(
            [{"clip_id": "a-0", "status": 1}]
        ),
        "scores/odd@1: status: is int64, not string",
    ),
    ("a shard is gone", lambda d: d.folder.delete(f"exports/{EXPORT}/{SHARD}"), f"{SHARD}: is missing"),
    (
        "a shard more",
        lambda d: d.folder.write(f"exports/{EXPORT}/data/x.parquet", b"x"),
        "data/x.parquet: is not named by the index",
    ),
    (
        "a shard overwritten",
        lambda d: d.folder.write(f"exports/{EXPORT}/{SHARD}", b"not parquet"),
        f"{SHARD}: cannot be read",
    ),
    ("clips swapped", rewrite_index(swapped), "row 0 of row group 0 of .* holds a-0 instead"),
    (
        "a clip not in the index",
        rewrite_index(lambda rows: rows.pop(0)),
        "a-0: row 0 of row group 0 .* is not in the index",
    ),
    (
        "a clip not in its shard",
        rewrite_index(lambda rows: rows.append({**rows[0], "clip_id": "z", "row": 99})),
        "z: there is no row 99 in row group 0",
    ),
    (
        "a clip twice in the index",
        rewrite_index(lambda rows: rows.append({**rows[-1]})),
        "lost: stands more than once in the index",
    ),
]


@pytest.mark.parametrize(("damage", "message"), [case[1:] for case in BROKEN], ids=[case[0] for case in BROKEN])
def test_damage_is_found(dataset, damage, message):
    damage(dataset)
    problems = [str(problem) for problem in verify(dataset)]
    assert any(re.search(message, problem) for problem in problems), problems


def test_an_export_from_before_clips_told_how_they_were_extracted_is_as_good(dataset):
    path = dataset.folder.file(f"exports/{EXPORT}/index.parquet")
    pq.write_table(pq.read_table(path).drop_columns(["extraction"]), path)
    assert list(verify(dataset)) == []


def test_an_export_from_before_the_column_was_renamed_is_read_and_says_so_once(dataset, caplog):
    export_schema._note_once.cache_clear()
    path = dataset.folder.file(f"exports/{EXPORT}/index.parquet")
    index = pq.read_table(path).drop_columns(["extraction"])
    pq.write_table(index.append_column("cut", pa.array(["none"] * len(index), pa.string())), path)

    def no_media(video: bytes) -> int:
        raise AssertionError("clips of mode none have no bytes of their own")

    assert list(verify(dataset, check_media=no_media)) == []
    assert list(verify(dataset)) == []
    assert [record.message for record in caplog.records] == [
        f"exports/{EXPORT}: made by an older dailies; reading its column 'cut' as 'extraction'"
    ]


def test_many_problems_of_a_kind_are_summed_up(dataset):
    dataset.table(SCORES).append([{"clip_id": f"z-{n}"} for n in range(50)])
    problems = verify(dataset)
    assert len(problems) == 21
    assert problems[-1] == DatasetProblem(SCORES, "30 more", "clip_id is in no clips table")


def test_deep_looks_at_every_video(dataset):
    seen = []

    def frames(video: bytes) -> int:
        seen.append(video)
        if video.endswith(b"a-0"):
            raise Unreadable("not a video")
        return 4 if video.endswith(b"b-1") else 5

    problems = {(problem.where, problem.message) for problem in verify(dataset, check_media=frames)}
    assert problems == {
        ("a-0", "its video cannot be decoded: not a video"),
        ("b-1", "4 frames of its video decode; it should have 5"),
    }
    assert len(set(seen)) == 6


# ---- sql ------------------------------------------------------------------------------------------------------------


def test_every_table_has_a_view_and_the_current_ones_a_short_name(dataset):
    assert query(dataset, f'select count(*) as n from "{OBSERVATIONS}"')["n"].to_pylist() == [3]
    joined = """
        select count(*) as n, min(s.motion) as low, any_value(t.caption_coca) as text from clips
        join scores_motion s using (clip_id) join captions_coca t using (clip_id) join selection_main m using (clip_id)
        join export_main e using (clip_id) join observations o on o.source_id = clips.source_id where m.keep
    """
    assert query(dataset, joined).to_pylist() == [{"n": 6, "low": 1.5, "text": "a square"}]
    assert query(dataset, "select run_id from runs")["run_id"].to_pylist() == ["r1"]
    assert query(dataset, "select evidence[1].jpeg as j from observations limit 1")["j"].to_pylist() == [b"jpeg"]
    assert len(query(dataset, "show tables")) == 6 + 1 + 5 + 1 + 1, (
        "tables, exports, short names of both, and manifests"
    )


def test_current_is_what_the_last_run_says_and_else_the_newest(dataset):
    other, newer = "scores/motion@00000002", "scores/blur@00000003"
    for name in ("scores/blur@00000001", newer, other):
        dataset.table(name, schema.scores([])).append([{"clip_id": "a-0"}])
    assert current(dataset)["scores_motion"] == SCORES, "the last run says so, though another is newer"
    assert current(dataset)["scores_blur"] == newer
    runs = dataset.table("runs", schema.RUNS)
    runs.append(
        [{"run_id": "r2", "started": datetime.now(UTC), "tables": f'{{"motion": "{other}", "x": "scores/gone@1"}}'}]
    )
    assert current(dataset)["scores_motion"] == other
    assert current(dataset)["clips"] == CLIPS


def test_a_clock_set_back_makes_no_older_run_current(dataset):
    """Excludes the order of ``started``, and runs of before, which have no number, after those that have one."""
    names = [f"scores/motion@0000000{number}" for number in range(3)]
    for name in names:
        dataset.table(name, schema.scores([])).append([{"clip_id": "a-0"}])
    runs = dataset.table("runs", schema.RUNS)
    for number, (name, day) in enumerate(zip(names, (20, 19, 18), strict=True)):
        line = {"run_id": name, "started": datetime(2040, 1, day, tzinfo=UTC), "tables": json.dumps({"motion": name})}
        runs.append([line | {"number": number + 1}])
    assert current(dataset)["scores_motion"] == names[2]
    assert dataset.runs(["run_id"])["run_id"].to_pylist() == ["r1", *names]


def test_tables_without_rows_can_be_asked(dataset):
    dataset.table(SCORES).delete(["a", "b", "c"])
    dataset.table(SELECTION, schema.SELECTIONS).replace([])
    sql = "select (select count(*) from scores_motion) + (select count(*) from selection_main) as n"
    assert query(dataset, sql)["n"].to_pylist() == [0]
    assert query(DatasetTables.create(dataset.url + "-new"), "select 1 as n")["n"].to_pylist() == [1]


@pytest.mark.parametrize(
    ("sql", "message"),
    [
        ("select nope from clips", 'Referenced column "nope" not found'),
        ("select * from dataset", "Table with name dataset does not exist"),
        ("selec 1", "syntax error"),
        ("select cast('x' as int)", "Could not convert string 'x'"),
    ],
)
def test_wrong_sql_is_an_error_of_ours(dataset, sql, message):
    with pytest.raises(UsageError, match=message):
        query(dataset, sql)


@pytest.mark.parametrize("moved", [False, True])
@pytest.mark.skipif(not os.path.exists("/proc/self/io"), reason="counts bytes read in /proc")
def test_only_the_columns_asked_for_are_read(dataset, moved):
    if moved:
        move_sources(dataset, {"n0": "/elsewhere/n0.mp4"})
    dataset.table(OBSERVATIONS).append([observation(f"n{n}", os.urandom(2_000_000)) for n in range(5)])  # 20 MB

    def bytes_read(sql: str) -> int:
        with connect(dataset) as connection:
            before = int(Path("/proc/self/io").read_text().split()[1])
            connection.execute(sql).fetchall()
            return int(Path("/proc/self/io").read_text().split()[1]) - before

    assert bytes_read("select count(*) from observations") < 1_000_000
    assert bytes_read("select uri, probe from observations where status = 'ok'") < 1_000_000
    assert bytes_read("select evidence from observations") > 20_000_000


def test_the_rest_does_not_import_duckdb_or_torch_or_ray():
    imports = "import sys, dailies.curation.tables.dataset, dailies.curation.tables.integrity"
    code = f"{imports}; print({{'duckdb', 'torch', 'ray', 'av'}} & set(sys.modules))"
    out = python("-c", code).communicate()[0]
    assert out.strip() == "set()"
