"""Datasets: what is committed is there, once and whole; what is not is invisible, and gc finds it."""

from __future__ import annotations

import pickle

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dailies.curation import schema
from dailies.curation.errors import DailiesError, DatasetError
from dailies.curation.tables import Committer, DatasetTables, KeySet, Table, read_part, verify, write_part
from dailies.curation.tables.withdraw import _rewrite_shard
from tests.dataset_builder import CLIPS, EXPORT, MOTION, OBSERVATIONS, SCORES, SELECTION, fill, observation, python


@pytest.fixture
def dataset(tmp_path):
    return DatasetTables.create(tmp_path / "a dataset")


@pytest.fixture
def observations(dataset) -> Table:
    return dataset.table(OBSERVATIONS, schema.OBSERVATIONS)


# ---- a folder -------------------------------------------------------------------------------------------------------


def test_only_a_dataset_opens_as_one(tmp_path):
    with pytest.raises(DatasetError, match="nowhere: there is no dataset"):
        DatasetTables.open(tmp_path / "nowhere")
    (tmp_path / "holiday").mkdir()
    (tmp_path / "holiday" / "beach.jpg").touch()
    with pytest.raises(DatasetError, match="holiday: not empty"):
        DatasetTables.create(tmp_path / "holiday")
    (tmp_path / "file").touch()
    with pytest.raises(DatasetError, match=r"file: a file; name a new or an empty folder for the dataset$"):
        DatasetTables.create(tmp_path / "file")


def test_a_dataset_is_made_once_and_found_again(tmp_path):
    made = DatasetTables.create(tmp_path / "new" / "folder")
    assert (
        DatasetTables.create(made.url).url
        == DatasetTables.open(f"file://{made.url}").url
        == str(tmp_path / "new" / "folder")
    )
    assert made.tables() == made.exports() == []


def test_a_later_format_is_refused(dataset):
    dataset.folder.write("dataset.json", b'{"format": 2}')
    with pytest.raises(DatasetError, match="format 2 is not 1, which this version reads"):
        DatasetTables.open(dataset.url)


@pytest.mark.parametrize("character", ["%", "?", "#", "\\", "\n", "\t", "\x7f", "\udcff"])
def test_a_path_that_tables_cannot_lie_at_is_refused_in_one_line(tmp_path, character):
    with pytest.raises(DatasetError, match="a dataset's path m") as caught:
        DatasetTables.create(f"{tmp_path}/a{character}b/set")
    assert "\n" not in str(caught.value)
    str(caught.value).encode()
    assert list(tmp_path.iterdir()) == []


def test_a_path_may_have_everything_else_in_it(tmp_path):
    dataset = DatasetTables.create(f'{tmp_path}/it\'s [a] "b" & c=d, é*;:!')
    fill(dataset, ["a"])
    assert verify(dataset) == []
    assert dataset.table(OBSERVATIONS).delete(["a"]) == 1


@pytest.mark.parametrize("name", ["clips", "clips/shots", "observations", "../runs@x", "scores/a/b@c", "observations@"])
def test_table_names_are_checked(dataset, name):
    with pytest.raises(DatasetError, match="not a table's name"):
        dataset.table(name)


def test_the_whole_dataset(dataset):
    fill(dataset, ["a", "b"])
    assert dataset.tables() == sorted([OBSERVATIONS, CLIPS, SCORES, "captions/coca@cab7cab7", SELECTION, "runs"])
    assert dataset.exports() == [EXPORT]
    assert verify(dataset) == []
    assert dataset.gc() == []


# ---- parts and commits ----------------------------------------------------------------------------------------------


def test_a_part_is_invisible_until_it_is_committed(observations):
    receipt = observations.write_part([observation("a")])
    assert not observations.exists()
    assert observations.version() is None
    assert len(observations.read()) == len(observations.keys()) == 0
    observations.commit([receipt])
    assert observations.version() == 0
    assert list(observations.keys()) == ["a"]
    assert observations.files() == {receipt.path: (receipt.size, 1)}


def test_rows_come_back_as_they_were(observations):
    observations.append([observation("a", b"\xff\xd8")])
    (row,) = observations.read().to_pylist()
    assert row["evidence"] == [{"pts": 0, "jpeg": b"\xff\xd8"}, {"pts": 50, "jpeg": b"\xff\xd8"}]
    assert row["probe"]["codec"] == "h264"
    assert observations.schema == schema.OBSERVATIONS
    assert observations.schema.field("end").metadata == {b"doc": b"first tick after the last frame", b"unit": b"tick"}


def test_media_lie_uncompressed_and_without_statistics(observations):
    receipt = observations.write_part([observation("a")])
    metadata = pq.ParquetFile(observations.folder.file(receipt.path)).metadata.row_group(0)
    columns = {metadata.column(n).path_in_schema: metadata.column(n) for n in range(metadata.num_columns)}
    jpeg = columns["evidence.list.element.jpeg"]
    assert jpeg.compression == "UNCOMPRESSED"
    assert jpeg.statistics is None
    assert "RLE_DICTIONARY" not in jpeg.encodings
    assert {column.compression for column in columns.values() if column is not jpeg} == {"ZSTD"}
    assert columns["source_id"].statistics.max == "a"


def test_row_groups_stay_small(observations):
    receipt = observations.write_part([observation(str(n), bytes(5_000_000)) for n in range(6)])
    metadata = pq.ParquetFile(observations.folder.file(receipt.path)).metadata
    # 32 MiB hold three of two pictures of 5 MB: excludes a row a group, and a group that is closed only once it is over.
    assert [metadata.row_group(n).num_rows for n in range(metadata.num_row_groups)] == [3, 3]


def test_what_rows_lack_is_null_and_what_does_not_fit_is_named(observations):
    table = pa.table({"source_id": pa.array(["a"]).dictionary_encode(), "segment": pa.array([0], pa.int64())})
    observations.append(table)
    assert observations.read(["source_id", "segment", "uri"]).to_pylist() == [
        {"source_id": "a", "segment": 0, "uri": None}
    ]
    for rows, message in (
        ([{"source_id": "b", "sgment": 0}], "unknown column 'sgment'"),
        ([{"source_id": "b", "segment": "first"}], "column 'segment' does not fit int32"),
        (pa.table({"source_id": ["b"], "segment": [1 << 40]}), "column 'segment' does not fit int32"),
    ):
        with pytest.raises(DatasetError, match=message):
            observations.write_part(rows)


def test_types_that_would_change_in_storage_are_refused_or_plain(dataset):
    vector = pa.schema([("clip_id", pa.string()), ("embedding", pa.list_(pa.float32(), 2))])
    table = dataset.table(SCORES, vector)
    table.append([{"clip_id": "a", "embedding": [1.0, 2.0]}])
    table.append(pa.table({"clip_id": ["b"], "embedding": pa.array([[3.0, 4.0]], vector.field(1).type)}))
    assert sorted(table.read()["embedding"].to_pylist()) == [[1.0, 2.0], [3.0, 4.0]]
    for kind in (pa.uint8(), pa.float16()):
        with pytest.raises(DatasetError, match=f"column 'n' cannot be stored as {kind}"):
            dataset.table("scores/n@1", pa.schema([("clip_id", pa.string()), ("n", kind)]))


def test_receipts_travel(observations):
    receipt = write_part(observations.url, schema.OBSERVATIONS, [observation("a"), observation("b", status="failed")])
    assert (receipt.rows, receipt.failed, receipt.keys) == (2, 1, ("a", "b"))
    assert pickle.loads(pickle.dumps(receipt)) == receipt


def test_nothing_to_write_is_a_unit_done_and_no_file(dataset):
    clips = dataset.table(CLIPS, schema.clips([]))
    with Committer(clips, key="source_id") as committer:
        assert committer.add(clips.write_part([], keys=["a still image"]))
        assert "a still image" in committer
    assert not clips.exists()
    assert dataset.gc() == []


# ---- each unit once -------------------------------------------------------------------------------------------------


def test_a_unit_that_arrives_twice_is_committed_once(dataset, observations):
    first, again = (observations.write_part([observation("a"), observation("b")]) for _ in range(2))
    with Committer(observations) as committer:
        assert committer.add(first)
        assert not committer.add(again)
    with Committer(observations) as resumed:
        assert "a" in resumed
        assert not resumed.add(again)
    assert (committer.rows, committer.parts, committer.dropped, resumed.rows) == (2, 1, 1, 0)
    assert len(observations.read()) == 2
    assert [garbage.path for garbage in dataset.gc()] == [f"{OBSERVATIONS}/{again.path}"]


def test_units_bundled_in_two_ways_are_an_error_after_what_arrived_is_committed(observations):
    parts = [observations.write_part([observation(name) for name in pair]) for pair in ("ab", "bc")]

    def commit() -> None:
        with Committer(observations, interval=3600) as committer:
            for part in parts:
                committer.add(part)

    with pytest.raises(DailiesError, match="holds 2 units, 1 of which are committed already, b for one"):
        commit()
    assert sorted(observations.keys()) == ["a", "b"]


def test_receipts_are_committed_together(observations):
    with Committer(observations, interval=3600) as committer:
        for name in "abc":
            committer.add(observations.write_part([observation(name)]))
        assert not observations.exists()
    assert observations.version() == 0
    with Committer(observations, interval=0) as committer:
        for name in "de":
            committer.add(observations.write_part([observation(name)]))
    assert observations.version() == 2


def test_two_runs_that_both_got_past_the_lock_cannot_double_rows(observations):
    for name in "ab":  # once when the table is made, once when it is there
        first, second = Committer(observations), Committer(observations)
        first.add(observations.write_part([observation(name)]))
        second.add(observations.write_part([observation(name)]))
        first.flush()
        with pytest.raises(DatasetError, match="another run has written to this table"):
            second.flush()
        assert len(observations.read(equals={"source_id": name})) == 1


def test_keys_hold_what_they_were_given():
    keys = KeySet([pa.array(["b", "a", "b"]), pa.array(["longer than the others"]), pa.array([], pa.string())])
    assert len(keys) == 3
    assert "a" in keys
    assert "" not in keys
    assert "longer than the others, by far" not in keys
    assert None not in keys
    keys.add(str(n) for n in range(300_000))
    keys.add(["a", "c"])
    assert len(keys) == 300_004
    assert all(key in keys for key in ("a", "b", "c", "0", "299999", "longer than the others"))
    assert len(set(keys)) == 300_004
    assert len(KeySet()) == 0
    assert "a" not in KeySet()


# ---- reading --------------------------------------------------------------------------------------------------------


def test_reading_chosen_rows(observations):
    observations.append([observation("a"), observation("b", status="failed")])
    assert observations.read(["source_id"], equals={"status": "ok"}).to_pylist() == [{"source_id": "a"}]
    assert [
        batch.num_rows for batch in observations.batches(["uri"], filter=pa.compute.field("source_id") == "z")
    ] == []


def test_rows_are_found_again_where_they_lie(observations):
    for pair in ("ab", "cd"):
        observations.append([observation(name, name.encode()) for name in pair])
    places = observations.located(["source_id"], equals={"source_id": "d"})
    assert places["source_id"].to_pylist() == ["d"]
    (rows,) = read_part(places["file"][0].as_py(), ["evidence", "source_id"], source_ids=["d", "z"])
    assert rows.column_names == ["evidence", "source_id"]
    assert rows["evidence"].to_pylist()[0][0]["jpeg"] == b"d"
    assert list(read_part(places["file"][0].as_py(), ["uri"], source_ids=["a"])) == []


def test_a_table_is_streamed_in_little_memory(observations):
    for number in range(8):
        observations.append([observation(f"{number}-{n}", bytes(4_000_000)) for n in range(4)])  # 32 MB each
    code = f"""
import pyarrow as pa
from dailies.curation.tables import Table
from dailies.curation.tables import Folder
table = Table("t", Folder.at({observations.url!r}))
rows = sum(batch.num_rows for batch in table.batches())
print(rows, pa.default_memory_pool().max_memory())
"""
    out = python("-c", code).communicate()[0].split()
    assert int(out[0]) == 32
    assert int(out[1]) < 160e6, "of 256 MB"


def test_a_table_that_is_not_there(dataset):
    with pytest.raises(DatasetError, match=f"{CLIPS}: no such table"):
        dataset.table(CLIPS).read()
    assert len(dataset.table(CLIPS, schema.clips([])).read()) == 0


# ---- changing -------------------------------------------------------------------------------------------------------


def test_columns_are_added_and_never_retyped(dataset):
    dataset.table(SCORES, schema.scores([])).append([{"clip_id": "a"}])
    wider = dataset.table(SCORES, schema.scores([MOTION]))
    assert wider.schema.field("motion").metadata[b"unit"] == b"px"
    wider.append([{"clip_id": "b", "motion": 2.0}])
    older = dataset.table(SCORES, schema.scores([]))
    older.append([{"clip_id": "c"}])
    rows = sorted((row["clip_id"], row["motion"]) for row in older.read(["clip_id", "motion"]).to_pylist())
    assert rows == [("a", None), ("b", 2.0), ("c", None)]
    with pytest.raises(DatasetError, match="column 'motion' is stored as float, not as string: columns are added"):
        dataset.table(SCORES, schema.scores([pa.field("motion", pa.string())]))


def test_replace_puts_new_rows_and_properties_in_place_of_the_old(dataset):
    table = dataset.table(SELECTION, schema.SELECTIONS)
    assert table.properties() == {}
    table.replace(pa.table({"clip_id": ["a", "b"]}), properties={"rules": {"motion": 1}})
    table.replace([pa.table({"clip_id": ["c"]}), pa.table({"clip_id": ["d"]})], properties={"rules": {"motion": 2}})
    assert sorted(table.keys()) == ["c", "d"]
    assert table.properties() == {"rules": {"motion": 2}}
    assert table.version() == 1
    with pytest.raises(DatasetError, match="unknown column 'clip'"):
        table.replace([pa.table({"clip_id": ["e"]}), pa.table({"clip": ["f"]})])
    assert sorted(table.keys()) == ["c", "d"]
    for nothing in ([], [schema.SELECTIONS.empty_table()]):
        table.replace(nothing, properties={"rules": None})
        assert (len(table.read()), table.properties()) == (0, {"rules": None})


def test_delete_takes_exactly_the_rows_named(dataset):
    table = dataset.table(SCORES, schema.scores([MOTION]))
    table.append([{"clip_id": f"{n}", "source_id": "ab"[n % 2], "status": "ok"} for n in range(10)])
    table.append([{"clip_id": "x", "source_id": "c", "status": "failed"}, {"clip_id": "y", "source_id": None}])
    kept = set(table.files())
    assert table.delete(["a", "nobody"]) == 5
    assert len(kept & set(table.files())) == 1, "a part without such rows is left alone"
    assert table.delete(equals={"status": "failed"}) == 1
    assert table.delete(["b"], equals={"clip_id": "1"}) == 1
    assert sorted(table.keys()) == ["3", "5", "7", "9", "y"]
    assert table.delete([]) == table.delete() == 0
    assert table.delete(["b"]) == 4
    assert dataset.table("scores/none@1", schema.scores([])).delete(["a"]) == 0


def test_withdraw_takes_sources_out_of_everything(dataset):
    sources = ["a", "b", "c", "d", "e"]
    fill(dataset, sources)
    shards = {shard.path for shard in (dataset.folder / "exports" / EXPORT / "data").list()}
    counts = dataset.withdraw(["b", "a", "nobody"])
    assert counts == {
        OBSERVATIONS: 2,
        CLIPS: 4,
        SCORES: 4,
        "captions/coca@cab7cab7": 4,
        SELECTION: 4,
        f"exports/{EXPORT}": 5,
    }
    for name in dataset.tables():
        if name != "runs":
            assert set(dataset.table(name).keys("source_id")) == {"c", "d", "e"}
    assert dataset.table(SELECTION).properties() == {"rules": {"motion": {"min": 1}}}
    assert verify(dataset) == []
    export = dataset.folder / "exports" / EXPORT
    videos = [v for s in (export / "data").list() for v in pq.read_table(s.path)["video"].to_pylist()]
    assert sorted(videos) == sorted(f"video of {s}-{n}".encode() for s in "cde" for n in range(2))
    assert not shards & {shard.path for shard in (export / "data").list()}
    dataset.gc()
    assert set(dataset.withdraw(["a"]).values()) == {0}
    dataset.withdraw(sources)
    assert (export / "data").list() == []
    assert verify(dataset) == []
    left = [info.path for info in dataset.folder.list(recursive=True) if b"video of" in _bytes(info.path)]
    assert left == []


def _bytes(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read()
    except IsADirectoryError:
        return b""


def test_a_withdrawal_cut_short_leaves_the_export_as_it_was(dataset):
    fill(dataset, ["a", "b", "c"])
    export = dataset.folder / "exports" / EXPORT
    before = [info.path for info in (export / "data").list()]
    _rewrite_shard(export, "data/train-00000-of-00002.parquet", pa.array(["a"]))
    assert [(problem.where[:22], problem.message) for problem in verify(dataset)] == [
        ("data/train-00000-of-00", "is not named by the index")
    ]
    assert len(dataset.gc()) == 1
    assert [info.path for info in (export / "data").list()] == before
    assert verify(dataset) == []


# ---- garbage --------------------------------------------------------------------------------------------------------


def test_gc_removes_what_nothing_refers_to_and_nothing_else(dataset, observations):
    fill(dataset, ["a", "b"])
    notes = ["notes.txt", "exports/readme.txt", "videos/a.parquet", f"{OBSERVATIONS}/notes.txt"]
    garbage = [
        f"{OBSERVATIONS}/{observations.write_part([observation('c')]).path}",
        f"{OBSERVATIONS}/.part-0.parquet.1.tmp",
        f"{OBSERVATIONS}/_delta_log/00000000000000000009.json#1",
        f"captions/other@1/{dataset.table('captions/other@1', schema.scores([])).write_part([{'clip_id': 'a'}]).path}",
        "exports/.staging-x/data/train-00000-of-00001.parquet",
        "exports/.staging-x/index.parquet",
        f"exports/{EXPORT}/data/train-00000-of-00002-w0.parquet",
    ]
    for name in [*notes, *garbage]:
        if not dataset.folder.holds(name):
            dataset.folder.write(name, b"1234")
    garbage += [f"{SCORES}/{path}" for path in dataset.table(SCORES).files()]
    dataset.table(SCORES).delete(["a"])  # its part is rewritten
    assert dataset.gc(older_than_hours=1) == []
    found = dataset.gc(dry_run=True)
    assert sorted(item.path for item in found) == sorted(garbage)
    assert {item.size for item in found if "staging" in item.path} == {4}
    assert dataset.gc() == found
    assert dataset.gc() == []
    assert not any(info.path.endswith(".staging-x") for info in (dataset.folder / "exports").list())
    assert all(dataset.folder.holds(name) for name in notes)
    assert [str(problem) for problem in verify(dataset)] == []
