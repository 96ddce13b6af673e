"""Two files of one size that differ only between the bytes that a content id samples are two, wherever it matters."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import yaml

from dailies import Dataset
from dailies.curation import schema, video, world
from dailies.curation.errors import Changed
from dailies.curation.tables import DatasetTables, Table, verify
from dailies.pipelines import contents
from dailies.pipelines.contents import tell_apart
from dailies.pipelines.maintenance import take_down
from dailies.pipelines.places import place_sources
from dailies.pipelines.recipes.recipe import parse_recipe
from dailies.pipelines.reports import Summary
from dailies.pipelines.run import curate
from tests.dataset_builder import observation
from tests.test_dedup import FPS, script

PADDING = 4 << 20  # bytes behind the video, which no player looks at
RECIPE = """
name: contents
steps:
  - observe: {observers: [boundary], evidence: {fps: 1, short_side: 108}}
  - cut: {detector: boundary, min_seconds: 1, max_seconds: 8}
  - dedup: {perceptual: false}
  - select: {}
"""
Curate = Callable[..., Summary]


@pytest.fixture
def again(tmp_path: Path) -> Curate:
    recipe = parse_recipe(yaml.safe_load(RECIPE))

    def run(*sources: Path, **options: Any) -> Summary:
        names = [str(source) for source in sources]
        return curate(names, str(tmp_path / "data"), recipe, engine="local", workers=1, **options)

    return run


@pytest.fixture(scope="module")
def padded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A video with a box of padding behind it."""
    path = world.encode(world.frames(script(0)), tmp_path_factory.mktemp("padded") / "a.mp4", fps=FPS)
    with open(path, "ab") as file:
        file.write((PADDING + 8).to_bytes(4, "big") + b"free" + bytes(PADDING))
    return path


def changed(path: Path, to: Path) -> Path:
    """Copy a file with another byte between those that are sampled."""
    data = bytearray(path.read_bytes())
    step = (len(data) - 65536) // 15
    data[14 * step - 1000] ^= 255
    to.write_bytes(bytes(data))
    assert video.content_id(str(to)) == video.content_id(str(path))
    return to


def contents_of(tmp_path: Path, view: str = "clips") -> dict[str, str]:
    rows = Dataset(tmp_path / "data").sql(f"select regexp_extract(uri, '[^/]+$') as name, content_id from {view}")
    return {row["name"]: row["content_id"] for row in rows.to_pylist()}


def test_they_are_two_sources_of_which_none_is_dropped_and_copies_are_one(
    tmp_path: Path, padded: Path, again: Curate
) -> None:
    first, other, copy = tmp_path / "a.mp4", changed(padded, tmp_path / "b.mp4"), tmp_path / "c.mp4"
    shutil.copy(padded, first)
    shutil.copy(other, copy)
    summary = again(first, other, copy)
    assert summary.duplicates is not None
    assert summary.duplicates.copies == {"exact": 2}
    assert summary.selections[0].reasons == {"duplicate": 1}
    names = contents_of(tmp_path)
    assert names["b.mp4"] == names["c.mp4"] != names["a.mp4"]
    assert {video.sampled_id(name) for name in names.values()} == {video.content_id(str(padded))[0]}
    assert verify(DatasetTables.open(tmp_path / "data")) == []
    rows = Dataset(tmp_path / "data").sql("select clip_id, uri from clips where contains(content_id, '-')").to_pylist()
    later, path = rows[0]["clip_id"], Path(rows[0]["uri"])  # the one that came second, whichever it was
    Dataset(tmp_path / "data").frames(later)
    before = path.read_bytes()
    shutil.copy(padded if path in (other, copy) else other, tmp_path / "mine.mp4")
    path.unlink()
    shutil.copy(tmp_path / "mine.mp4", path)
    with pytest.raises(Changed):
        Dataset(tmp_path / "data").frames(later)
    path.write_bytes(before)


def test_one_that_joins_later_leaves_what_is_there_as_it_is(tmp_path: Path, padded: Path, again: Curate) -> None:
    again(padded)
    before = Dataset(tmp_path / "data").sql("select clip_id from clips")["clip_id"].to_pylist()
    other = changed(padded, tmp_path / "b.mp4")
    again(padded, other)
    after = Dataset(tmp_path / "data").sql("select clip_id from clips where uri like '%a.mp4'")["clip_id"].to_pylist()
    assert after == before
    again(padded, other)
    assert len(set(contents_of(tmp_path).values())) == 2
    assert Dataset(tmp_path / "data").sql("select keep from selection_main")["keep"].to_pylist() == [True, True]


def test_one_is_not_taken_for_another_that_was_moved_away(tmp_path: Path, padded: Path, again: Curate) -> None:
    first, second = tmp_path / "first.mp4", tmp_path / "second.mp4"
    shutil.copy(padded, first)
    again(first)
    os.rename(first, second)
    assert again(second).sources.moved == (str(second),)
    os.remove(second)
    third = changed(padded, tmp_path / "third.mp4")
    assert again(third).sources.moved == ()
    assert len(contents_of(tmp_path, "observations")) == 2


def test_one_that_changed_where_it_is_not_sampled_has_changed(tmp_path: Path, padded: Path, again: Curate) -> None:
    path = tmp_path / "a.mp4"
    shutil.copy(padded, path)
    again(path)
    os.utime(path, ns=(1, 1))
    assert again(path).sources.changed == ()
    changed(padded, path)
    assert again(path).sources.changed == (str(path),)


def test_withdrawing_one_leaves_the_other_and_keeps_out_the_one(tmp_path: Path, padded: Path, again: Curate) -> None:
    other, copy = changed(padded, tmp_path / "b.mp4"), tmp_path / "c.mp4"
    again(padded, other)
    take_down(str(tmp_path / "data"), [str(other)])
    assert list(contents_of(tmp_path)) == ["a.mp4"]
    shutil.copy(other, copy)
    os.remove(other)
    summary = again(padded, copy)
    assert summary.sources.withdrawn == (str(copy),)
    third = changed(padded, tmp_path / "d.mp4")
    data = bytearray(third.read_bytes())
    data[-70_000] ^= 1
    third.write_bytes(bytes(data))
    assert video.content_id(str(third)) == video.content_id(str(padded))
    assert again(padded, third).sources.withdrawn == ()


def test_datasets_of_before_are_told_apart_by_the_next_run(tmp_path: Path, padded: Path, again: Curate) -> None:
    """Their observations have no hash of all bytes, and one content id for both."""
    other = changed(padded, tmp_path / "b.mp4")
    again(padded, other)
    dataset = DatasetTables.open(tmp_path / "data")
    names = {name.partition("@")[0].partition("/")[0]: name for name in dataset.tables()}
    plain = video.content_id(str(padded))[0]

    def as_before(rows: pa.Table) -> pa.Table:
        for column, value in (("content_id", plain), ("sha256", None)):
            if column in rows.column_names:
                at = rows.schema.get_field_index(column)
                rows = rows.set_column(at, rows.schema.field(at), pa.array([value] * len(rows), pa.string()))
        return rows

    for name in (names["observations"], names["clips"]):
        dataset.table(name).rewrite(["source_id"], as_before)
    assert len(set(contents_of(tmp_path).values())) == 1
    again(padded, other)
    assert len(set(contents_of(tmp_path).values())) == 2
    assert Dataset(tmp_path / "data").sql("select keep from selection_main")["keep"].to_pylist() == [True, True]
    assert verify(dataset) == []


def test_only_where_two_share_an_id_is_a_store_asked_for_all_bytes(
    tmp_path: Path, padded: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once: what is read is noted."""
    read: list[str] = []

    def whole_hash(address: str) -> str:
        read.append(address)
        return "5" * 64

    monkeypatch.setattr(contents.video, "whole_hash", whole_hash)
    dataset = DatasetTables.create(tmp_path / "data")
    observations = dataset.table("observations@00000000", schema.OBSERVATIONS)
    uris = {name: f"s3://bucket/{name}.mp4" for name in ("a", "b", "c", "small", "small-copy")}
    ids = {"a": "k1", "b": "k1", "c": "k2", "small": "k3", "small-copy": "k3"}
    by_uri = {uris[name]: (ids[name], 5 << 20) for name in ids}
    monkeypatch.setattr(contents.video, "content_id", by_uri.__getitem__)
    observations.append(
        [
            observation(
                name, uri=uri, unit=f"{name}/0", content_id=ids[name], bytes=1000 if "small" in name else 5 << 20
            )
            for name, uri in uris.items()
        ]
    )
    clips = dataset.table("clips/shots@00000000", schema.clips([]))
    for _ in range(2):
        tell_apart(dataset, observations, clips, {})
    assert sorted(read) == [uris["a"], uris["b"]]
    rows = {row["source_id"]: row for row in observations.read(["source_id", "content_id", "sha256"]).to_pylist()}
    assert {name: row["content_id"] for name, row in rows.items()} == ids
    assert rows["a"]["sha256"] == "5" * 64
    assert rows["c"]["sha256"] is None
    assert place_sources(dataset, []).rows == []


def pair(tmp_path: Path) -> tuple[DatasetTables, Table, Table, dict[str, Path]]:
    """A dataset of two files of one size and sampled bytes that differ elsewhere, taken for one, with a clip of each."""
    files = {name: tmp_path / f"{name}.mp4" for name in ("a", "b")}
    for number, path in enumerate(files.values()):
        data = bytearray(3 << 20)
        data[100_000] = number
        path.write_bytes(data)
    content, size = video.content_id(str(files["a"]))
    assert video.content_id(str(files["b"])) == (content, size)
    dataset = DatasetTables.create(tmp_path / "data")
    observations = dataset.table("observations@00000000", schema.OBSERVATIONS)
    observations.append(
        [
            observation(name, uri=str(path), unit=f"{name}/0", content_id=content, bytes=size)
            for name, path in files.items()
        ]
    )
    clips = dataset.table("clips/shots@00000000", schema.clips([]))
    empty = schema.empty_row(schema.clips([]))
    clips.append([{**empty, "clip_id": f"clip-{name}", "source_id": name, "status": "ok"} for name in files], keys=())
    return dataset, observations, clips, files


@pytest.mark.parametrize("method", ["delete", "rewrite"])
def test_a_run_that_is_killed_while_it_tells_apart_is_finished_by_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    dataset, observations, clips, _ = pair(tmp_path)

    def killed(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Table, method, killed)
        with pytest.raises(KeyboardInterrupt):
            tell_apart(dataset, observations, clips, {})
    tell_apart(dataset, observations, clips, {})
    assert clips.read(["source_id"])["source_id"].to_pylist() == ["a"]
    assert len(set(observations.read(["content_id"])["content_id"].to_pylist())) == 2


def test_what_lies_there_since_tells_nothing_of_what_was_observed(tmp_path: Path) -> None:
    dataset, observations, clips, files = pair(tmp_path)
    files["b"].write_bytes(b"x" * (3 << 20))
    tell_apart(dataset, observations, clips, {})
    rows = {row["source_id"]: row for row in observations.read(["source_id", "content_id", "sha256"]).to_pylist()}
    assert rows["b"]["sha256"] is None
    assert rows["a"]["content_id"] == rows["b"]["content_id"]
    known = {row["source_id"]: row for row in observations.read().to_pylist()}
    assert contents.copies_of(known, ["a"]) == ["a", "b"]  # nothing says that it was another one
