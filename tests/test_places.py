"""A source is its content: moved, signed anew, copied or withdrawn, what was done of it is kept, or stays out."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta, tzinfo
from pathlib import Path
from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dailies import Dataset
from dailies.curation import schema, world
from dailies.curation.addresses import public
from dailies.curation.errors import UsageError
from dailies.curation.tables import (
    DatasetTables,
    Folder,
    clean_tables,
    current,
    move_sources,
    moved_sources,
    query,
    verify,
)
from dailies.curation.tables.delta_log import DeltaLog
from dailies.curation.video import cell_url
from dailies.pipelines import engine as engines
from dailies.pipelines import maintenance, places, run_rows
from dailies.pipelines.again import export_again, select_again
from dailies.pipelines.maintenance import bytes_left, take_down
from dailies.pipelines.places import place_sources
from dailies.pipelines.recipes.recipe import load_recipe
from dailies.pipelines.reports import Summary
from dailies.pipelines.run import curate
from tests.dataset_builder import (
    CAPTIONS,
    CLIPS,
    EXPORT,
    OBSERVATIONS,
    SCORES,
    SELECTION,
    clips_of,
    fill,
    observation,
)
from tests.test_curate import FAST

Curate = Callable[..., Summary]


@pytest.fixture
def videos(tmp_path: Path) -> Path:
    folder = tmp_path / "videos"
    folder.mkdir()
    for number in (6, 7):
        world.encode(world.write_script(number, shots=1, text=0, still=0), folder / f"{number}.mp4")
    return folder


@pytest.fixture
def done(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The name of a stage for each unit that was worked on."""
    names: list[str] = []
    run = engines.run

    def counting(work: Any, bundles: Any, engine: Any) -> Iterator[Any]:
        def counted() -> Iterator[Any]:
            for bundle in bundles:
                names.extend([work.name] * len(bundle))
                yield bundle

        return run(work, counted(), engine)

    monkeypatch.setattr(engines, "run", counting)
    return names


@pytest.fixture
def again(tmp_path: Path) -> Curate:
    def run(*sources: object, **how: Any) -> Summary:
        recipe = load_recipe(FAST[1], FAST[3::2])
        return curate([str(source) for source in sources], str(tmp_path / "dataset"), recipe, engine="local", **how)

    return run


def reasons(summary: Summary) -> dict[str, int]:
    return dict(summary.selections[0].reasons)


def test_a_moved_folder_keeps_its_clips_and_nothing_is_done_again(
    tmp_path: Path, videos: Path, done: list[str], again: Curate
) -> None:
    before = again(videos)
    assert {"observe", "cut"} <= set(done)
    done.clear()
    moved = videos.rename(tmp_path / "elsewhere")
    after = again(moved)
    assert done == []
    assert (after.sources.given, after.sources.ok, len(after.sources.moved)) == (2, 2, 2)
    assert after.clips == before.clips
    assert reasons(after) == reasons(before)
    for view in ("observations", "clips"):
        uris = query(DatasetTables.open(after.dataset), f"select distinct uri from {view} order by uri")
        assert uris["uri"].to_pylist() == [str(moved / "6.mp4"), str(moved / "7.mp4")]
    export = export_again(after.dataset, "export", ["export.crf=30"], engine="local")
    assert export.failed == 0
    assert sum(export.splits.values()) > 0
    dataset = Dataset(after.dataset)
    clips = dataset.clips()
    assert {Path(uri).parent for uri in clips["uri"].to_pylist()} == {moved}
    assert len(dataset.frames(clips["clip_id"][0].as_py()).pts) == clips["frames"][0].as_py()
    assert set(dataset.sql("select exported_uri as uri from export_export")["uri"].to_pylist()) == {"6.mp4"}, (
        "by name, not by place"
    )
    assert verify(DatasetTables.open(after.dataset)) == []
    assert again(moved).sources.moved == ()


def test_an_export_of_clips_left_in_their_sources_follows_a_move(tmp_path: Path, videos: Path) -> None:
    plain = [text for text in FAST[3::2] if not text.startswith("export.")]
    recipe = load_recipe(FAST[1], [*plain, "export.mode=none"])

    def export(folder: Path) -> str:
        (report,) = curate([str(folder)], str(tmp_path / "dataset"), recipe, engine="local").exports
        return str(report.path)

    before = export(videos)
    assert export(videos) == before
    videos.rename(tmp_path / "elsewhere")
    after = export(tmp_path / "elsewhere")
    assert after != before
    index = pq.read_table(f"{after}/index.parquet")
    assert all(Path(uri).is_file() for uri in index["uri"].to_pylist())


def test_the_export_of_the_later_run_is_current_whatever_the_clock_says(videos: Path, again: Curate) -> None:
    out = again(videos).dataset
    later = str(export_again(out, "export", ["export.crf=30"], engine="local").path)
    os.utime(f"{later}/index.parquet", (0, 0))
    assert current(DatasetTables.open(out))["export_export"] == f"exports/{Path(later).name}"
    assert Dataset(out).exports[-1] == later


class SlowClock(datetime):
    """Each reading is earlier than the one before."""

    readings = 0

    @classmethod
    def now(cls, tz: tzinfo | None = None) -> SlowClock:
        cls.readings += 1
        return cls(2040, 1, 1, tzinfo=tz) - timedelta(days=cls.readings)


def test_an_export_that_is_found_again_is_current_whatever_the_clock_says(
    videos: Path, again: Curate, done: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (run_rows, places):
        monkeypatch.setattr(module, "datetime", SlowClock)
    out = again(videos).dataset
    paths = [export_again(out, "export", [f"export.crf={crf}"], engine="local").path for crf in (30, 40)]
    dataset = DatasetTables.open(out)
    for sought in (*paths, paths[0]):
        os.utime(f"{sought}/index.parquet", (0, 0))
        done.clear()
        crf = (30, 40)[paths.index(sought)]
        assert export_again(out, "export", [f"export.crf={crf}"], engine="local").path == sought
        assert done == []
        assert current(dataset)["export_export"] == f"exports/{Path(str(sought)).name}"
        assert Dataset(out).exports[-1] == sought
        tables = json.loads(dataset.runs(["tables"])["tables"][-1].as_py())
        assert tables["export.export"] == f"exports/{Path(str(sought)).name}"
    summary = again(videos)
    assert done == []
    assert Dataset(out).exports[-1] == summary.exports[0].path, "curate finds its own again"
    assert query(dataset, "select count(*) as n, count(distinct run_id) as ids from runs").to_pylist() == [
        {"n": 7, "ids": 7}
    ]
    assert verify(dataset) == []


def test_an_export_is_of_its_run_from_the_moment_it_appears(
    videos: Path, again: Curate, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whichever write a run is killed at: before it the earlier export is current, from then on its own."""
    summary = again(videos)
    out, first = summary.dataset, str(summary.exports[0].path)
    publish = Folder.publish

    def killed(self: Folder, final: Folder, **how: Any) -> None:
        assert Dataset(out).exports[-1] == first
        publish(self, final, **how)
        raise Killed

    monkeypatch.setattr(Folder, "publish", killed)
    with pytest.raises(Killed):
        export_again(out, "export", ["export.crf=30"], engine="local")
    os.utime(f"{first}/index.parquet")
    assert Dataset(out).exports[0] == first
    assert current(DatasetTables.open(out))["export_export"] != f"exports/{Path(first).name}"


def test_of_two_lost_copies_the_one_of_the_same_name_is_taken() -> None:
    lost = {
        name: {"source_id": name, "uri": f"/gone/{name}.mp4", "content_id": "c", "bytes": 1} for name in ("a", "b", "c")
    }
    match = places._Lost(lost, set()).take({"uri": "/new/b.mp4", "address": "/new/b.mp4"}, "c")
    assert match is not None
    assert match["source_id"] == "b"


def test_another_video_at_the_old_place_is_a_source_of_its_own(tmp_path: Path, videos: Path, again: Curate) -> None:
    """Its id would be that of the source that was moved away."""
    old = videos / "6.mp4"
    again(old)
    new = old.rename(tmp_path / "moved.mp4")
    again(new)
    (videos / "7.mp4").rename(old)
    summary = again(old, new)
    assert (summary.sources.ok, summary.sources.changed) == (2, ())
    ids = query(DatasetTables.open(summary.dataset), "select count(distinct source_id) as n from clips")
    assert ids["n"].to_pylist() == [2]
    assert again(old, new).clips == summary.clips


def test_a_copy_is_a_source_of_its_own_and_takes_over_where_the_other_is_gone(
    tmp_path: Path, videos: Path, again: Curate
) -> None:
    """Whichever of the two has the lower id."""
    first, copy = videos / "6.mp4", tmp_path / "copy.mp4"
    alone = again(first).selections[0].kept
    shutil.copyfile(first, copy)
    summary = again(first, copy)
    assert (summary.sources.given, summary.sources.moved) == (2, ())
    assert reasons(summary)["duplicate"] > 0
    dataset = DatasetTables.open(summary.dataset)
    kept_uris = "select distinct uri from clips join selection_main using (clip_id) where keep"
    for gone, left in ((first, copy), (copy, first)):
        gone.rename(tmp_path / "away")
        assert select_again(dataset.url, "main", []).kept == alone
        assert query(dataset, kept_uris)["uri"].to_pylist() == [str(left)]
        (tmp_path / "away").rename(gone)


def row(uri: str, source: str = "new") -> dict[str, Any]:
    """A row of ``list_sources``; ``uri`` may hold a query."""
    return {"source_id": source, "uri": public(uri), "address": uri, "manifest": None, "spans": [], "whole": True}


@pytest.mark.parametrize(
    ("content", "source"), [(b"a film", "known"), (b"a play", "new")], ids=["same content", "other content"]
)
def test_a_signature_makes_no_other_source_where_the_content_is_the_same(
    tmp_path: Path, content: bytes, source: str
) -> None:
    from dailies.curation.video import content_id

    old, new = "memory://bucket/a.mp4?X-Amz-Signature=1", "memory://bucket/a.mp4?X-Amz-Signature=2"
    for uri, what in ((old, b"a film"), (new, content)):
        with fsspec.open(uri, "wb") as file:
            file.write(what)
    identity, size = content_id(old)
    dataset = DatasetTables.create(tmp_path / "dataset")
    fill(dataset, ["known", "other"])
    (name,) = (name for name in dataset.tables() if name.startswith("observations@"))
    dataset.table(name).delete(["known"])
    dataset.table(name).append([observation("known", uri=old, content_id=identity, bytes=size)])
    (kept,) = place_sources(dataset, [row(new)]).rows
    assert kept["source_id"] == source
    stored = query(dataset, "select uri from observations where source_id = 'known'")["uri"].to_pylist()
    clean_tables(dataset)
    stored += query(dataset, "select uri from observations where source_id = 'known'")["uri"].to_pylist()
    assert stored == [old, "memory://bucket/a.mp4"], "of an older dailies; as the next run leaves it"


def signed(number: int, signature: int) -> str:
    return f"memory://signed/{number}.mp4?X-Amz-Signature={signature}"


def test_urls_signed_anew_write_nothing(tmp_path: Path) -> None:
    from dailies.curation.video import content_id

    dataset = DatasetTables.create(tmp_path / "dataset")
    observations, clips = dataset.table(OBSERVATIONS, schema.OBSERVATIONS), dataset.table(CLIPS, schema.clips([]))
    for number in range(3):
        for signature in range(3):
            with fsspec.open(signed(number, signature), "wb") as file:
                file.write(bytes([number]) * 9)
        uri = public(signed(number, 0))
        identity, size = content_id(signed(number, 0))
        observations.append([observation(f"s{number}", uri=uri, content_id=identity, bytes=size)])
        clips.append([{**row, "uri": uri} for row in clips_of(f"s{number}")])
    before = {name: dataset.table(name).files() for name in dataset.tables()}
    for signature in (1, 2):
        placed = place_sources(dataset, [row(signed(number, signature)) for number in range(3)])
        assert placed.moved == ()
        assert placed.addresses == {f"s{number}": signed(number, signature) for number in range(3)}
        assert [kept["source_id"] for kept in placed.rows] == ["s0", "s1", "s2"]
        assert {name: dataset.table(name).files() for name in before} == before
        for view in ("observations", "clips", f'"{OBSERVATIONS}"', f'"{CLIPS}"'):
            uris = query(dataset, f"select distinct uri from {view} order by uri")
            assert uris["uri"].to_pylist() == [public(signed(number, 0)) for number in range(3)]
    assert not dataset.table("places").exists()
    assert len(query(dataset, "show tables")) == 2 + 2 + 1, "tables, short names, and manifests"
    assert verify(dataset) == []


def test_the_newest_place_holds_and_outdated_ones_do_not_pile_up(tmp_path: Path) -> None:
    dataset = DatasetTables.create(tmp_path / "dataset")
    move_sources(dataset, {})
    assert dataset.tables() == []
    assert moved_sources(dataset).to_pylist() == []
    lie: dict[str, str] = {}
    for turn in range(12):
        moves = {name: f"/{turn}/{name}" for name in ("abc", "a", "bc")[turn % 3]}
        lie |= moves
        move_sources(dataset, moves)
        rows = moved_sources(dataset).to_pylist()
        assert {row["source_id"]: row["uri"] for row in rows} == lie
        assert len(rows) == len(lie)
        assert len(dataset.table("places").read()) <= 2 * len(lie)
        assert dataset.table("places").version() == turn


def test_a_place_that_a_withdrawal_left_behind_does_not_hold_for_a_source_that_comes_back(tmp_path: Path) -> None:
    dataset = DatasetTables.create(tmp_path / "dataset")
    fill(dataset, ["a", "b"])
    move_sources(dataset, {"a": "/moved/a.mp4", "b": "/moved/b.mp4"})
    for name in (SCORES, CAPTIONS, SELECTION, CLIPS, OBSERVATIONS):  # where it was killed, places were left
        dataset.table(name).delete(["a"])
    place_sources(dataset, [row("/videos/a.mp4", "a")])
    dataset.table(OBSERVATIONS).append([observation("a")])
    uris = query(dataset, "select uri from observations order by uri")["uri"].to_pylist()
    assert uris == ["/moved/b.mp4", "/videos/a.mp4"]


# ---- withdrawn ------------------------------------------------------------------------------------------------------


def test_what_was_withdrawn_stays_out_until_it_is_readmitted(tmp_path: Path, videos: Path, again: Curate) -> None:
    out = again(videos).dataset
    gone = videos / "7.mp4"
    take_down(out, [str(gone)])
    shutil.copyfile(gone, videos / "copy.mp4")
    summary = again(videos)
    assert summary.sources.given == 1
    assert summary.sources.withdrawn == (str(gone), str(videos / "copy.mp4"))
    with pytest.raises(UsageError, match=r"--readmit=.*6.mp4: not withdrawn"):
        again(videos, readmit=[str(videos / "6.mp4")])
    (videos / "copy.mp4").unlink()
    summary = again(videos, readmit=[str(gone)])
    assert (summary.sources.given, summary.sources.ok, summary.sources.withdrawn) == (2, 2, ())
    assert again(videos).sources.withdrawn == ()


def test_copies_of_what_is_withdrawn_go_with_it_and_stay_out(videos: Path, again: Curate) -> None:
    original, copy = videos / "7.mp4", videos / "copy.mp4"
    shutil.copyfile(original, copy)
    out = again(videos).dataset
    take_down(out, [str(original)])
    assert query(DatasetTables.open(out), "select uri from observations")["uri"].to_pylist() == [str(videos / "6.mp4")]
    summary = again(videos)
    assert summary.sources.given == 1
    assert summary.sources.withdrawn == (str(original), str(copy))


def test_a_cell_is_readable_in_a_fresh_process(tmp_path: Path, videos: Path) -> None:
    pq.write_table(pa.table({"video": [(videos / "6.mp4").read_bytes()]}), tmp_path / "c.parquet")
    url = cell_url(str(tmp_path / "c.parquet"), "video", 0)
    ask = f"from dailies.pipelines.places import readable; assert readable({url!r})"
    subprocess.run([sys.executable, "-c", ask], check=True)


class Killed(Exception):
    pass


def killed_at(monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    """Let the process end before the given one of a withdrawal's writes and deletions."""
    left = [step]
    for kind, name in ((DeltaLog, "commit"), (Folder, "new_file"), (Folder, "delete")):
        inner = getattr(kind, name)

        def counted(*arguments: Any, inner: Any = inner, **how: Any) -> Any:
            left[0] -= 1
            if left[0] < 0:
                raise Killed
            return inner(*arguments, **how)

        monkeypatch.setattr(kind, name, counted)


def test_a_withdrawal_killed_anywhere_leaves_nothing_lost_and_is_finished_by_a_second(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows go before their origin and an index before the shards that it named: verify finds nothing but shards that no
    index names, and the source can be named again."""
    monkeypatch.setattr(maintenance, "recount", lambda export: None)  # the built export has no card
    for step in range(60):
        dataset = DatasetTables.create(tmp_path / str(step))
        fill(dataset, ["a", "b"])
        move_sources(dataset, {name: f"/moved/{name}.mp4" for name in ("a", "b")})
        with monkeypatch.context() as patch:
            killed_at(patch, step)
            try:
                take_down(dataset.url, ["/moved/a.mp4"])
            except Killed:
                ended = False
            else:
                ended = True
        wrong = {problem.message for problem in verify(dataset)}
        assert wrong <= {"is not named by the index"}, step
        take_down(dataset.url, ["/moved/a.mp4"])
        assert verify(dataset) == []
        for name in dataset.tables():
            if name not in ("runs", "withdrawn"):
                assert set(dataset.table(name).keys("source_id")) == {"b"}, (step, name)
        shards = (dataset.folder / "exports" / EXPORT / "data").list()
        assert not any(b"video of a-" in Path(shard.path).read_bytes() for shard in shards)
        if ended:
            assert step > 10
            return
    raise AssertionError("it was killed every time")


def test_a_store_says_when_the_bytes_are_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(maintenance, "recount", lambda export: None)
    dataset = DatasetTables.create(tmp_path / "dataset")
    fill(dataset, ["a", "b"])
    take_down(dataset.url, ["a"])
    assert bytes_left(dataset.url) is None
    monkeypatch.setattr(DatasetTables, "is_local", property(lambda self: False))
    assert bytes_left(dataset.url) is None, "everything was collected already"
    take_down(dataset.url, ["b"])
    left = bytes_left(dataset.url)
    assert left is not None
    assert f"dailies gc {dataset.url} --older-than 0" in left
    assert "24 hours" in left
    dataset.gc(older_than_hours=0)
    assert bytes_left(dataset.url) is None
