"""An export takes clips that earlier ones hold from there, and extracts the others, whatever became of those files."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dailies.curation.export import ExportManifest, ExtractSettings, find_clips, made_alike, take_clips, write_extracted
from dailies.curation.export.earlier import misfit
from dailies.curation.tables import Folder
from dailies.curation.video.encode import Encoding
from dailies.pipelines import engine as engines
from dailies.pipelines.export_work import ShardWork
from tests.conftest import Dailies
from tests.s3_server import s3_server

RECIPE = """
name: again
steps:
  - observe: {observers: [boundary, motion, borders], evidence: {fps: 2, short_side: 180}}
  - cut: {detector: boundary, min_seconds: 1, max_seconds: 4}
  - select: {rules: {motion: {min: 0, nulls: drop}}}
  - export: {preset: ultrafast, shard_mb: 1}
"""


class World:
    """Five videos and datasets of them. ``extracted`` counts clips that were extracted since the last command began, ``put``
    those that were put into shards."""

    def __init__(self, folder: Path, dailies: Dailies) -> None:
        self.folder, self.dailies = folder, dailies
        self.videos = sorted((folder / "videos").glob("*.mp4"))
        self.extracted = self.put = 0

    def run(self, *arguments: object) -> dict[str, Any]:
        self.extracted = self.put = 0
        done = self.dailies(*arguments, "--json")
        assert done.returncode == 0, done.stderr
        self.said = done.stderr
        return dict(json.loads(done.stdout))

    def curate(self, dataset: Path, videos: int = 5, *sets: str) -> dict[str, Any]:
        arguments = ("--recipe", self.folder / "recipe.yaml", "--engine", "local", *sets)
        summary = self.run("curate", *self.videos[:videos], "--out", dataset, *arguments)
        return dict(summary["exports"][0])

    def select_fewer(self, dataset: Path) -> None:
        """About half of the clips."""
        motion = sorted(row["motion"] for row in rows(export_of(dataset)))
        self.run("select", dataset, "--set", f"main.rules.motion.min={motion[len(motion) // 2]}")

    def export(self, dataset: Path, *sets: str) -> dict[str, Any]:
        return self.run("export", dataset, "--engine", "local", *sets)


@pytest.fixture(scope="module")
def whole(small_world: Path, tmp_path_factory: pytest.TempPathFactory, dailies: Dailies) -> tuple[Path, Path]:
    """A folder with videos and a recipe, and a dataset of them with an export."""
    folder = tmp_path_factory.mktemp("again")
    shutil.copytree(small_world, folder / "videos")
    (folder / "recipe.yaml").write_text(RECIPE)
    World(folder, dailies).curate(folder / "dataset")
    return folder, folder / "dataset"


@pytest.fixture
def there(
    whole: tuple[Path, Path], tmp_path: Path, dailies: Dailies, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[World, Path]]:
    """The world, with its videos in place, and a dataset of its own."""
    world, run = World(whole[0], dailies), engines.run

    def counting(work: Any, bundles: Any, engine: Any) -> Iterator[Any]:
        def counted() -> Iterator[Any]:
            for bundle in bundles:
                world.extracted += len(bundle) if work.name == "extract" else 0
                world.put += len(bundle) if work.name == "export" else 0
                yield bundle

        return run(work, counted(), engine)

    monkeypatch.setattr(engines, "run", counting)
    shutil.copytree(whole[1], tmp_path / "dataset", symlinks=True)  # or exports/latest would be a second export
    yield world, tmp_path / "dataset"
    if (gone := world.folder / "gone").exists():
        gone.rename(world.folder / "videos")


def without_sources(world: World) -> None:
    """Take the videos away: whoever opens one fails."""
    (world.folder / "videos").rename(world.folder / "gone")


def rows(path: str | Path) -> list[dict[str, Any]]:
    return sorted(pq.read_table(Path(path) / "data").to_pylist(), key=lambda row: str(row["clip_id"]))


def export_of(dataset: Path) -> Path:
    return next((dataset / "exports").glob("export@*"))


def test_another_video_costs_its_own_clips_and_the_export_is_that_of_a_fresh_dataset(
    there: tuple[World, Path], tmp_path: Path
) -> None:
    world, dataset = there
    four = world.curate(tmp_path / "grown", 4)
    assert (four["extracted"], four["taken_over"]) == (len(rows(four["path"])), 0)
    five = world.curate(tmp_path / "grown", 5)
    fresh = rows(export_of(dataset))
    assert rows(five["path"]) == fresh
    assert world.extracted == five["extracted"] == len(fresh) - four["extracted"] > 0
    assert five["taken_over"] == four["extracted"]
    manifest = ExportManifest.from_json((Path(five["path"]) / "export.json").read_bytes())
    assert (manifest.extracted, manifest.taken_over) == (five["extracted"], five["taken_over"])
    again = world.curate(tmp_path / "grown", 5)
    assert (again["path"], again["extracted"], again["taken_over"]) == (five["path"], 0, 0)


@pytest.mark.parametrize("mode", ["encode", "smart", "copy"])
def test_another_threshold_opens_no_source_in_any_mode(mode: str, there: tuple[World, Path]) -> None:
    world, dataset = there
    sets = ["--set", f"export.mode={mode}"]
    if mode == "copy":
        sets += ["--set", "export.preset=veryfast"]
    before = rows(world.export(dataset, *sets)["path"])
    world.select_fewer(dataset)
    if mode != "copy":  # what cannot be copied is tried again
        without_sources(world)
    fewer = world.export(dataset)
    assert 0 < len(rows(fewer["path"])) < len(before)
    known = {row["clip_id"]: row for row in before}
    assert all(row == known[row["clip_id"]] for row in rows(fewer["path"]))
    assert (fewer["extracted"], fewer["taken_over"]) == (0, len(rows(fewer["path"])))
    assert world.extracted == fewer["not_copied"]


@pytest.mark.parametrize(
    "change", ["crf=30", "max_short_side=90", "max_fps=8", "crop=borders", "mode=smart", "codec=hevc", "audio=keep"]
)
def test_other_settings_take_nothing_over(change: str, there: tuple[World, Path]) -> None:
    world, dataset = there
    world.select_fewer(dataset)
    report = world.export(dataset, "--set", f"export.{change}")
    assert (report["extracted"], report["taken_over"]) == (len(rows(report["path"])), 0)
    assert world.extracted == report["extracted"] > 0


def test_clips_that_stay_in_their_sources_are_looked_up_there(there: tuple[World, Path]) -> None:
    world, dataset = there
    sets = ("--set", "export.mode=none", "--set", "export.preset=veryfast")
    world.export(dataset, *sets)
    world.select_fewer(dataset)
    assert (report := world.export(dataset))["taken_over"] == 0
    assert world.extracted == report["extracted"] > 0


def test_what_was_withdrawn_is_taken_from_nowhere(there: tuple[World, Path]) -> None:
    world, dataset = there
    before = rows(export_of(dataset))
    world.run("withdraw", dataset, world.videos[0])
    without_sources(world)
    assert [*dataset.glob("exports/*/data/*-w????????.parquet")], "a shard was written anew"
    report = world.export(dataset, "--set", "export.seed=1")
    assert report["failed"] == 0
    kept = [row for row in before if row["uri"] != world.videos[0].name]
    assert rows(report["path"]) == kept
    assert len(kept) < len(before)


def damage_bytes(export: Path) -> None:
    """Another bit within the first clip of a shard."""
    shard = next((export / "data").glob("*.parquet"))
    video = pq.read_table(shard)["video"][0].as_py()
    data = shard.read_bytes()
    at = data.index(video) + len(video) // 2
    shard.write_bytes(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])


def cut_short(export: Path) -> None:
    shard = next((export / "data").glob("*.parquet"))
    shard.write_bytes(shard.read_bytes()[:-50])


def remove(export: Path) -> None:
    next((export / "data").glob("*.parquet")).unlink()


def link(export: Path) -> None:
    shard = next((export / "data").glob("*.parquet"))
    shard.replace(export / "elsewhere")
    shard.symlink_to(export / "elsewhere")


def swap(export: Path) -> None:
    """An index whose first two clips change places."""
    index = pq.read_table(export / "index.parquet")
    listed = index.to_pylist()
    for name in ("shard", "row_group", "row"):
        listed[0][name], listed[1][name] = listed[1][name], listed[0][name]
    pq.write_table(pa.Table.from_pylist(listed, schema=index.schema), export / "index.parquet")


def beyond(export: Path) -> None:
    index = pq.read_table(export / "index.parquet")
    listed = index.to_pylist()
    listed[0]["row_group"], listed[1]["row"] = 99, 99
    pq.write_table(pa.Table.from_pylist(listed, schema=index.schema), export / "index.parquet")


def name_one_row(export: Path) -> None:
    """An index in which all clips lie in the row of the first."""
    index = pq.read_table(export / "index.parquet")
    listed = index.to_pylist()
    for row in listed:
        row |= {name: listed[0][name] for name in ("shard", "row_group", "row")}
    pq.write_table(pa.Table.from_pylist(listed, schema=index.schema), export / "index.parquet")


def outside(export: Path) -> None:
    index = pq.read_table(export / "index.parquet")
    names = pa.array(["../../../secrets.parquet"] * len(index))
    at = index.schema.get_field_index("shard")
    pq.write_table(index.set_column(at, "shard", names), export / "index.parquet")


def other_facts(export: Path) -> None:
    """A shard whose clips are of another number of frames than today's tables say."""
    shard = next((export / "data").glob("*.parquet"))
    table = pq.read_table(shard)
    at = table.schema.get_field_index("frames")
    pq.write_table(table.set_column(at, table.schema.field(at), pa.array([7] * len(table))), shard)


@pytest.mark.parametrize(
    "harm", [damage_bytes, cut_short, remove, link, swap, beyond, name_one_row, outside, other_facts]
)
def test_what_is_damaged_is_extracted_again_and_said_so(
    harm: Callable[[Path], None], there: tuple[World, Path], caplog: pytest.LogCaptureFixture
) -> None:
    world, dataset = there
    wanted = rows(export_of(dataset))
    harm(export_of(dataset))
    report = world.export(dataset, "--set", "export.seed=1")
    assert rows(report["path"]) == wanted
    assert report["failed"] == 0
    assert 0 < world.extracted == report["extracted"] <= len(wanted)
    assert report["taken_over"] == len(wanted) - report["extracted"]
    assert any("extracted again" in record.getMessage() for record in caplog.records)


@pytest.mark.parametrize("right_first", [True, False])
def test_a_row_that_an_index_names_twice_loses_a_clip(
    right_first: bool, whole: tuple[Path, Path], tmp_path: Path
) -> None:
    export = export_of(whole[1])
    right, wrong = pq.read_table(export / "index.parquet").to_pylist()[:2]
    place = {"file": "x", "extracted": right["shard"], "at": right["row_group"], "row": right["row"]}
    clips = [{**row, **place, "start": row["source_start"], "end": row["source_end"]} for row in (right, wrong)]
    bundle = [clip | {"export": export.name} for clip in (clips if right_first else clips[::-1])]
    settings = ExtractSettings(encoding=Encoding(crf=18, preset="ultrafast"))
    work = ShardWork(staging=str(tmp_path), exports=str(export.parent), settings=settings, columns=[], memory_gb=1)
    with work.open() as put:
        lost = put(pa.Table.from_pylist(bundle)).lost
    second = bundle[1]["clip_id"]
    assert lost[second] == f"{export}/{right['shard']}: its index names its row twice"
    assert lost.keys() == {wrong["clip_id"], second}


def test_what_still_cannot_be_extracted_costs_its_own_clip_and_no_shard(
    there: tuple[World, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A defect is tried again by each export of the same clips. Once it is gone, all shards are put together anew, and what
    was damaged since is found then."""
    world, dataset = there
    wanted = [row["clip_id"] for row in rows(export_of(dataset))]
    write, odd = write_extracted, set(wanted)

    def tripping(path: Any, clips: Any, extract: Any, **more: Any) -> int:
        def trip(clip: Any) -> Any:
            if clip["clip_id"] in odd:
                raise RuntimeError("odd")
            return extract(clip)

        return write(path, clips, trip, **more)

    with monkeypatch.context() as patch:
        patch.setattr("dailies.curation.export.write_extracted", tripping)
        none = world.export(dataset, "--set", "export.crf=30")
        assert (none["path"], none["failed"]) == (None, len(wanted))
        assert (world.extracted, world.put) == (len(wanted), 0)
        odd.intersection_update(wanted[:1])
        first = world.export(dataset)
        assert (first["failed"], first["kinds"]) == (1, {"defect": 1})
        assert world.put == len(wanted)
        for _ in range(2):
            assert world.export(dataset) == first | {"extracted": 0}
            assert (world.extracted, world.put) == (1, 0)
            assert not [*(dataset / "exports").glob(".staging*")]
    damage_bytes(Path(first["path"]))
    mended = world.export(dataset)
    assert [row["clip_id"] for row in rows(mended["path"])] == wanted
    assert mended["failed"] == 0
    assert world.extracted == mended["extracted"] > 1, "in a second round"
    assert world.put > len(wanted)


def test_a_killed_export_goes_on_and_counts_each_clip_once(
    there: tuple[World, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One of its clips was lost to damage, so it was extracted in a second round when the kill came."""
    world, dataset = there
    wanted = rows(export_of(dataset))
    damage_bytes(export_of(dataset))
    with monkeypatch.context() as patch:
        patch.setattr("dailies.pipelines.exporting._publish", lambda *arguments: 1 / 0)
        killed = world.dailies("export", dataset, "--engine", "local", "--set", "export.seed=1")
    assert "ZeroDivisionError" in killed.stderr
    assert world.extracted > 0
    report = world.export(dataset)
    assert rows(report["path"]) == wanted
    assert report["extracted"] + report["taken_over"] == len(wanted)
    assert report["extracted"] > world.extracted == 0, "by the call that was killed"
    assert not [*(dataset / "exports").glob(".staging*")]


def test_a_shard_in_a_store_is_read_where_it_lies(whole: tuple[Path, Path]) -> None:
    pytest.importorskip("moto.server", reason="needs moto[s3] and flask: a real S3 server")
    export = export_of(whole[1])
    index = pq.read_table(export / "index.parquet").to_pylist()
    observations = next(path.name for path in whole[1].glob("observations@*"))
    settings = ExtractSettings(encoding=Encoding(crf=18, preset="ultrafast"))
    with s3_server("store") as url:
        stored = Folder.at(f"{url}/exports/{export.name}")
        for path in export.rglob("*"):
            if path.is_file():
                stored.write(str(path.relative_to(export)), path.read_bytes())
        assert made_alike(stored, settings, observations)
        assert not made_alike(stored, settings, "observations@0")
        ids = pa.chunked_array([[row["clip_id"] for row in index]])
        places, problems = find_clips([stored], ids)
        assert (len(places), problems) == (len(index), [])
        row = places.to_pylist()[0]
        clip = next(row for row in index if row["clip_id"] == places["clip_id"][0].as_py())
        clip |= {"start": clip["source_start"], "end": clip["source_end"]}
        (taken,), wrong = take_clips(stored, row["shard"], {row["row_group"]: {row["row"]: clip}}, settings)
    assert not wrong
    assert taken["video"] == next(each["video"] for each in rows(export) if each["clip_id"] == clip["clip_id"])


def test_clips_of_an_export_from_before_there_was_sound_are_taken_as_without(
    whole: tuple[Path, Path], tmp_path: Path
) -> None:
    export = export_of(whole[1])
    shard = next((export / "data").glob("*.parquet"))
    old = pq.read_table(shard)
    old = old.drop_columns([name for name in old.column_names if name.startswith("audio")])
    (tmp_path / "data").mkdir()
    pq.write_table(old, tmp_path / "data" / shard.name, write_page_checksum=True)
    clip = old.drop_columns("video").to_pylist()[0]
    clip |= {"start": clip["source_start"], "end": clip["source_end"]}
    for settings, there in ((ExtractSettings(), 1), (ExtractSettings(audio="keep"), 0)):
        taken, wrong = take_clips(Folder.at(str(tmp_path)), f"data/{shard.name}", {0: {0: clip}}, settings)
        assert (len(taken), len(wrong)) == (there, 1 - there), wrong
    assert {
        row["audio"]
        for row in take_clips(Folder.at(str(tmp_path)), f"data/{shard.name}", {0: {0: clip}}, ExtractSettings())[0]
    } == {"dropped"}


CLIP = {"clip_id": "a", "start": 0, "end": 100, "frames": 10, "border_left": 3.5}
ROW: Mapping[str, Any] = {
    "clip_id": "a",
    "extraction": "encode",
    "source_start": 0,
    "source_end": 100,
    "lost_seconds": 0.0,
    "seconds": 1.0,
    "frames": 10,
    "frames_encoded": 10,
    "encoder": None,
    "fps": 10.0,
    "width": 8,
    "height": 8,
    "crop_left": 0,
    "crop_top": 0,
    "crop_right": 0,
    "crop_bottom": 0,
    "audio": "dropped",
    **dict.fromkeys(("audio_codec", "audio_stream", "audio_rate", "audio_channels", "audio_missing")),
    "video": b"mp4",
}


@pytest.mark.parametrize(
    ("settings", "change", "fits"),
    [
        ({}, {}, True),
        ({}, {"source_end": 90}, False),
        ({}, {"frames": 9}, False),
        ({}, {"video": b""}, False),
        ({}, {"fps": None}, False),
        ({}, {"extraction": "copy"}, False),
        ({"encoding": Encoding(max_fps=5)}, {"frames": 5}, True),
        ({"encoding": Encoding(max_fps=5)}, {"frames": 11}, False),
        ({"crop": True}, {"crop_left": 4}, True),
        ({"crop": True}, {"crop_left": 3}, False),
        ({"mode": "copy"}, {"extraction": "copy", "source_start": 20, "frames": 8}, True),
        ({"mode": "copy"}, {"extraction": "copy", "source_start": -1}, False),
        ({"mode": "copy"}, {"source_start": 20, "frames": 8}, False),
        ({"mode": "smart"}, {"extraction": "copy"}, True),
        ({"mode": "smart"}, {"extraction": "copy", "source_start": 20}, False),
        ({"mode": "none"}, {"extraction": "none", "video": None, "audio": None}, True),
        ({}, {"audio": "kept", "audio_codec": "aac"}, False),
        ({}, {"audio": "absent"}, False),
        ({}, {"audio": None}, False),
        ({"audio": "keep"}, {}, False),
        ({"audio": "keep"}, {"audio": "kept", "audio_codec": "aac"}, True),
        ({"audio": "keep"}, {"audio": "kept"}, False),
        ({"audio": "keep"}, {"audio": "absent"}, True),
        ({"audio": "keep"}, {"audio": "absent", "audio_codec": "aac"}, False),
    ],
)
def test_a_row_is_taken_if_extracting_its_clip_comes_to_such_a_one(
    settings: dict[str, Any], change: dict[str, Any], fits: bool
) -> None:
    assert (misfit({**ROW, **change}, CLIP, ExtractSettings(**settings)) is None) == fits
