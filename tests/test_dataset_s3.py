"""Datasets in an object store: a real S3 server in a process of its own."""

from __future__ import annotations

import os

import pytest

from dailies.curation import schema
from dailies.curation.errors import DatasetError
from dailies.curation.tables import Committer, DatasetTables, query, read_part, verify
from tests.dataset_builder import CLIPS, EXPORT, OBSERVATIONS, SELECTION, fill, observation
from tests.s3_server import s3_server

pytest.importorskip("moto.server", reason="needs moto[s3] and flask: the S3 server that datasets are tested against")


@pytest.fixture(scope="module")
def bucket():
    with s3_server("videos") as url:
        yield url


def test_a_dataset_in_a_bucket(bucket):
    dataset = DatasetTables.create(f"{bucket}/some where/dataset")
    assert not dataset.is_local
    with dataset.writer():
        fill(dataset, ["a", "b"])
    dataset = DatasetTables.open(dataset.url)
    assert len(dataset.tables()) == 6
    assert dataset.exports() == [EXPORT]
    assert verify(dataset) == []
    assert query(dataset, "select count(*) as n from observations")["n"].to_pylist() == [2]

    observations = dataset.table(OBSERVATIONS, schema.OBSERVATIONS)
    (place,) = observations.located(["source_id"], equals={"source_id": "b"}).to_pylist()
    (rows,) = read_part(place["file"], ["evidence"], source_ids=["b"])
    assert rows["evidence"][0].as_py()[0]["jpeg"] == b"jpeg"

    orphan = observations.write_part([observation("d", os.urandom(6_000_000))])  # a multipart upload
    assert dataset.withdraw(["a"])[CLIPS] == 2
    assert dataset.table(SELECTION).properties() == {"rules": {"motion": {"min": 1}}}
    assert dataset.gc() == [], "another run may be about to commit what is young"
    assert f"{OBSERVATIONS}/{orphan.path}" in {item.path for item in dataset.gc(older_than_hours=0)}
    assert sorted(dataset.table(OBSERVATIONS).keys()) == ["b"]
    assert verify(dataset) == []


def test_of_two_runs_without_a_lock_the_second_to_commit_fails(bucket):
    dataset = DatasetTables.create(f"{bucket}/two")
    table = dataset.table(OBSERVATIONS, schema.OBSERVATIONS)
    with dataset.writer(), DatasetTables.open(dataset.url).writer():
        for name in "ab":  # once when the table is made, once when it is there
            first, second = Committer(table), Committer(table)
            first.add(table.write_part([observation(name)]))
            second.add(table.write_part([observation(name)]))
            first.flush()
            with pytest.raises(DatasetError, match="another run has written to this table"):
                second.flush()
    assert sorted(table.read(["source_id"])["source_id"].to_pylist()) == ["a", "b"]


def test_what_is_not_there(bucket):
    with pytest.raises(DatasetError, match="s3://videos/nothing: there is no dataset"):
        DatasetTables.open(f"{bucket}/nothing")
    with pytest.raises(DatasetError, match=r"s3://no-such-bucket/x/dataset\.json: .*NO_SUCH_BUCKET"):
        DatasetTables.create("s3://no-such-bucket/x")
    with pytest.raises(DatasetError, match="ftp://somewhere/x: cannot be used"):
        DatasetTables.open("ftp://somewhere/x")
