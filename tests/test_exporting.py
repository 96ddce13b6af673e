"""Exports in every mode, through the command line: what they hold, what they say they lost, and how they are read."""

from __future__ import annotations

import json
from dataclasses import replace
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dailies.curation import schema, video, world
from dailies.curation.errors import Changed, Damaged, RecipeError
from dailies.curation.export import CaptionMaker, ExportManifest, render_card
from dailies.curation.export.extraction import crop_of
from dailies.curation.export.plan import BATCH, LONG, Shard, by_source, plan_shards
from dailies.curation.tables.storage import Folder
from dailies.curation.types import Crop
from dailies.pipelines import exporting
from dailies.pipelines.exporting import _is_done
from dailies.pipelines.recipes import caption_makers
from dailies.pipelines.recipes.recipe import load_recipe
from dailies.training.data.export import Export
from dailies.training.data.items import Clips
from tests.conftest import Dailies

PLAIN = "boundary, motion"
RECIPE = """
name: modes
steps:
  - observe: {observers: [boundary, motion, borders], evidence: {fps: 2, short_side: 180}}
  - cut: {detector: boundary, min_seconds: 1, max_seconds: 4, validation_share: 0, test_share: 0}
  - caption: {captioner: motion}
  - select: {rules: {motion: {min: 0.1, nulls: drop}}}
  - export: {preset: ultrafast, shard_mb: 1}
"""


@pytest.fixture(scope="module")
def dataset(small_world: Path, tmp_path_factory: pytest.TempPathFactory, dailies: Dailies) -> Path:
    folder = tmp_path_factory.mktemp("modes")
    (folder / "recipe.yaml").write_text(RECIPE)
    arguments = ("--recipe", folder / "recipe.yaml", "--engine", "local", "--json")
    done = dailies("curate", small_world, "--out", folder / "dataset", *arguments)
    assert done.returncode == 0, done.stderr
    return folder / "dataset"


@pytest.fixture(scope="module")
def exported(dataset: Path, dailies: Dailies) -> dict[str, tuple[dict[str, Any], Path]]:
    """Mode → the report and the folder."""
    out = {}
    for mode in ("encode", "smart", "copy", "none"):
        sets = ["--set", f"export.mode={mode}"]
        if mode in ("copy", "none"):
            sets += ["--set", "export.preset=veryfast"]
        done = dailies("export", dataset, *sets, "--engine", "local", "--json")
        assert done.returncode == 0, done.stderr
        report = json.loads(done.stdout)
        out[mode] = (report, Path(report["path"]))
    return out


def rows_of(folder: Path) -> dict[str, dict[str, Any]]:
    return {row["clip_id"]: row for row in pq.read_table(folder / "data").to_pylist()}


@pytest.mark.parametrize("mode", ["smart", "copy", "none"])
def test_every_mode_holds_the_same_clips_and_their_frames(
    mode: str, exported: dict[str, tuple[dict[str, Any], Path]]
) -> None:
    whole, others = rows_of(exported["encode"][1]), rows_of(exported[mode][1])
    assert set(others) <= set(whole)
    if mode != "copy":
        assert set(others) == set(whole)
    for clip, row in others.items():
        assert row["extraction"] in {"smart": ("smart", "copy", "encode"), "copy": ("copy",), "none": ("none",)}[mode]
        assert (row["video"] is None) == (mode == "none")
        frames, wanted = video.clip_frames(row), video.clip_frames(whole[clip])
        skipped = round((row["source_start"] - whole[clip]["source_start"]) / (whole[clip]["time_base_den"] / 24))
        assert len(frames.pts) == row["frames"]
        assert frames.pixels.shape[1:] == (row["height"], row["width"], 3)
        for ours, theirs in zip(frames.pixels, wanted.pixels[skipped:], strict=False):
            assert np.abs(ours.astype(int) - theirs).mean() < 4


def test_copies_say_what_they_lost(exported: dict[str, tuple[dict[str, Any], Path]]) -> None:
    report, folder = exported["copy"]
    index = pq.read_table(folder / "index.parquet").to_pylist()
    whole = {row["clip_id"]: row["seconds"] for row in rows_of(exported["encode"][1]).values()}
    copied = [row for row in index if row["status"] == "ok"]
    for row in copied:
        assert row["seconds"] + row["lost_seconds"] == pytest.approx(whole[row["clip_id"]])
        assert row["frames_encoded"] == 0
    failed = [row for row in index if row["status"] == "failed"]
    assert {row["failure"]["kind"] for row in failed} <= {"not_copied"}
    assert report["not_copied"] == len(failed) == report["failed"]
    assert len(index) == len(whole)
    lost = sum(row["lost_seconds"] for row in copied) + sum(row["seconds"] for row in failed)
    assert report["lost_seconds"] == pytest.approx(lost)
    assert any(row["lost_seconds"] for row in copied)
    assert "lay before a clip's first keyframe" in (folder / "README.md").read_text()


def test_an_export_is_not_made_twice_and_leaves_nothing_behind(
    dataset: Path, exported: dict[str, tuple[dict[str, Any], Path]], dailies: Dailies
) -> None:
    before = {path: path.stat().st_mtime_ns for path in exported["smart"][1].rglob("*")}
    dailies("export", dataset, "--set", "export.mode=smart", "--engine", "local")
    assert {path: path.stat().st_mtime_ns for path in exported["smart"][1].rglob("*")} == before
    assert {path.name for path in exported["smart"][1].iterdir()} == {
        "data",
        "index.parquet",
        "export.json",
        "README.md",
    }
    assert not list((dataset / "exports").glob(".staging*"))


def test_export_json_says_what_the_index_holds(exported: dict[str, tuple[dict[str, Any], Path]]) -> None:
    for mode, (report, folder) in exported.items():
        manifest = ExportManifest.from_json((folder / "export.json").read_text())
        rows = [row for row in pq.read_table(folder / "index.parquet").to_pylist() if row["status"] == "ok"]
        assert {name: split.clips for name, split in manifest.splits.items()} == report["splits"]
        assert manifest.splits["train"].bytes == sum(row["bytes"] for row in rows) == report["bytes"]
        assert manifest.seconds == pytest.approx(sum(row["seconds"] for row in rows), abs=0.01)
        assert (manifest.sources, manifest.failed) == (len({row["source_id"] for row in rows}), report["failed"])
        assert (manifest.name, manifest.extraction["mode"]) == (folder.name, mode)
        assert manifest.rules == {"motion": {"min": 0.1, "nulls": "drop"}}
        assert manifest.limits == {"motion": {"min": 0.1}}
        assert f"hash `{manifest.recipe_hash}`" in (folder / "README.md").read_text()
        assert ExportManifest.from_json(manifest.to_json()) == manifest


def test_who_wrote_the_captions_is_told(exported: dict[str, tuple[dict[str, Any], Path]]) -> None:
    """And in what form fields became text: what is trained on them is prompted so."""
    folder = exported["encode"][1]
    manifest = ExportManifest.from_json((folder / "export.json").read_text())
    assert manifest.captions == {"caption_motion": CaptionMaker(captioner="motion")}
    assert "- `caption_motion` by `motion`\n" in (folder / "README.md").read_text()
    maker = CaptionMaker(captioner="video", model="a`b", revision="3", prompt_hash="12ab", format=1)
    text = render_card(replace(manifest, captions={"caption_v": maker}), pq.read_schema(folder / "index.parquet"))
    told = "by `video`, model ``a`b``, revision `3`, prompt `12ab`, fields as text by format 1 of dailies\n"
    assert f"- `caption_v` {told}" in text
    makers = caption_makers(recipe := load_recipe("captioned"), recipe.steps[-1])
    assert {name: (each.captioner, each.model) for name, each in makers.items()} == {
        "caption_coca": ("coca", "zoo:coca-world"),
        "caption_motion": ("motion", None),
        "caption_fuse": ("fuse", None),
    }
    assert makers["caption_coca"].revision


def test_a_card_escapes_what_it_is_given(exported: dict[str, tuple[dict[str, Any], Path]]) -> None:
    from huggingface_hub import DatasetCard

    folder = exported["encode"][1]
    manifest = ExportManifest.from_json((folder / "export.json").read_text())
    strange = replace(manifest, name="a <b>|*c*", recipe="tick`y", notes=("Half of it\nis # rendered.",))
    text = render_card(strange, pq.read_schema(folder / "index.parquet"))
    assert "# a \\<b\\>\\|\\*c\\*\n" in text
    assert "recipe ``tick`y``" in text
    assert "\nHalf of it is \\# rendered.\n" in text
    data = DatasetCard(text).data
    assert data.configs[0]["data_files"] == [{"split": "train", "path": "data/train-*.parquet"}]
    assert data.tags == ["video", "dailies"]


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"format": 2}', '{"format": 1, "name": "x"}'])
def test_a_manifest_that_is_none_is_damaged(text: str) -> None:
    with pytest.raises(Damaged, match=r"export\.json"):
        ExportManifest.from_json(text)


@pytest.mark.usefixtures("exported")
@pytest.mark.parametrize(
    ("kind", "asked", "again"),
    [
        ("defect", False, True),
        ("defect", True, True),
        ("unreadable", False, False),
        ("unreadable", True, True),
        ("not_copied", True, False),
    ],
)
def test_which_failures_of_an_export_are_tried_again(kind: str, asked: bool, again: bool, tmp_path: Path) -> None:
    """A defect in any case, whatever may be mended if asked, and never what no copy can be made of."""
    failure = {"stage": "export", "kind": kind, "message": "?"}
    pq.write_table(
        pa.table({"clip_id": ["a"], "status": ["failed"], "failure": pa.array([failure], schema.FAILURE)}),
        tmp_path / "index.parquet",
    )
    assert exporting._retriable(Folder.at(tmp_path), retry_failed=asked) is again


def test_an_export_left_half_finished_by_an_older_version_is_begun_anew(dataset: Path, dailies: Dailies) -> None:
    """Its files have the columns of then."""
    command = (
        "export",
        dataset,
        "--set",
        "export.mode=none",
        "--set",
        "export.preset=veryfast",
        "--set",
        "export.seed=5",
    )
    made = Path(json.loads(dailies(*command, "--engine", "local", "--json").stdout)["path"])
    rows = rows_of(made)
    staging = made.rename(made.with_name(f".staging-{made.name}"))
    for folder in ("cuts", "index"):
        (staging / folder).mkdir()
        for shard in (staging / "data").glob("*.parquet"):
            table = pq.read_table(shard).drop_columns(["extraction"])
            nulls = pa.nulls(len(table), schema.FAILURE)
            pq.write_table(table.append_column("failure", nulls), staging / folder / shard.name)
    again = dailies(*command, "--engine", "local", "--json")
    assert again.returncode == 0, again.stderr
    assert rows_of(made) == rows
    assert not (made / "cuts").exists()
    assert "extraction" in pq.read_schema(made / "index.parquet").names


def test_verify_finds_every_export_whole(dataset: Path, dailies: Dailies) -> None:
    done = dailies("verify", dataset, "--deep")
    assert done.returncode == 0, done.stdout


def test_the_trainer_reads_clips_where_they_lie(exported: dict[str, tuple[dict[str, Any], Path]]) -> None:
    seen = []
    for mode in ("encode", "none"):
        export = Export(exported[mode][1])
        rows = sorted(export.rows, key=lambda row: str(row.columns["clip_id"]))[:2]
        clips = Clips(export, rows, 8.0, (32, 48))
        seen.append([clips.frames(number, 0, clips.lengths[number]) for number in range(len(rows))])
    for encoded, left in zip(*seen, strict=True):
        assert encoded.shape == left.shape
        assert np.abs(encoded.astype(int) - left).mean() < 4


def test_a_source_that_changed_is_not_read_for_a_clip_left_in_it(
    exported: dict[str, tuple[dict[str, Any], Path]],
) -> None:
    row = next(iter(rows_of(exported["none"][1]).values()))
    with pytest.raises(Changed, match="changed since it was observed"):
        video.clip_frames(row | {"content_id": "0" * 24})


def test_size_and_rate_are_limited(dataset: Path, dailies: Dailies) -> None:
    sets = ("--set", "export.mode=encode", "--set", "export.max_short_side=90", "--set", "export.max_fps=6")
    done = dailies("export", dataset, *sets, "--set", "export.codec=hevc", "--engine", "local", "--json")
    rows = rows_of(Path(json.loads(done.stdout)["path"])).values()
    assert rows
    for row in rows:
        assert min(row["width"], row["height"]) == 90
        assert row["fps"] == pytest.approx(6, rel=0.2)
        assert row["encoder"] == "libx265"
        assert video.count_frames(row["video"]) == row["frames"]


@pytest.mark.parametrize(
    ("sets", "words"),
    [
        (["mode=copy", "max_fps=5"], "max_fps is for mode encode"),
        (["mode=smart", "codec=av1"], "codec is for mode encode"),
        (["mode=copy", "crop=borders"], "crop is for mode encode"),
        (["mode=cut"], "mode='cut': must be 'encode', 'copy', 'smart' or 'none'"),
        (["crf=60"], "crf=60: h264 takes 0 to 51"),
        (["crop=borders"], "crop needs the observer borders"),
    ],
)
def test_what_a_mode_cannot_do_is_refused_before_work(sets: list[str], words: str) -> None:
    with pytest.raises(RecipeError, match=words):
        load_recipe("default", [f"observe.observers=[{PLAIN}]", *(f"export.{one}" for one in sets)])


def test_batches_are_whole_sources_in_the_order_of_time() -> None:
    counts = {"a": 3, "b": 1, "c": LONG + 40, "d": 1, "e": 70}
    rows = [
        {"clip_id": f"{name}{n:04}", "source_id": name, "uri": name, "stream": 0, "start": n}
        for name, count in counts.items()
        for n in reversed(range(count))
    ]
    batches = by_source(pa.Table.from_pylist(rows))
    assert sorted(clip for batch in batches for clip in batch.clips["clip_id"].to_pylist()) == sorted(
        row["clip_id"] for row in rows
    )
    for batch in batches:
        pairs = list(zip(batch.clips["uri"].to_pylist(), batch.clips["start"].to_pylist(), strict=True))
        assert pairs == sorted(pairs)
        assert len(pairs) <= LONG
        assert len(pairs) <= BATCH or len({uri for uri, _ in pairs}) == 1
    homes = {name: sum(name in batch.clips["uri"].to_pylist() for batch in batches) for name in counts}
    assert homes == {"a": 1, "b": 1, "c": 2, "d": 1, "e": 1}
    assert [batch.name for batch in batches] == [batch.name for batch in by_source(pa.Table.from_pylist(rows[::-1]))]


def planned(clips: list[dict[str, Any]], seed: int = 3, shard_bytes: int = 30_000) -> dict[str, list[str]]:
    """Clips by shard."""
    shards = plan_shards(pa.Table.from_pylist(clips), seed=seed, shard_bytes=shard_bytes)
    return {shard.name: shard.clips["clip_id"].to_pylist() for shard in shards}


def test_shards_hold_clips_in_the_order_of_a_hash_of_seed_and_content() -> None:
    """100 x 100 px and 80 frames at 0.15 bit a pixel are 15,000 bytes: five such clips need three shards of 30,000. Excludes
    the order of the table, of the clips' ids, which depend on where the sources lie, and of another seed; shards rounded down;
    bits taken for bytes."""
    clip = {"width": 100, "height": 100, "frames": 80}
    clip |= {"stream": 0, "end": 160, "time_base_num": 1, "time_base_den": 25}
    clips = [{"clip_id": f"c{n}", "content_id": "x", "start": n, "split": "train", **clip} for n in range(5)]
    clips += [{"clip_id": "held", "content_id": "y", "start": 0, "split": "validation", **clip}]

    def by_hash(seed: int) -> list[str]:
        def key(name: str) -> str:
            parts = [str(part).encode() for part in ("order", seed, "x", 0, int(name[1:]), 160, 1, 25)]
            return blake2b(b"".join(len(p).to_bytes(8, "little") + p for p in parts), digest_size=12).hexdigest()

        return sorted((f"c{n}" for n in range(5)), key=key)

    for seed in (3, 4):
        order = by_hash(seed)
        wanted = {
            "train-00000-of-00003.parquet": order[:1],
            "train-00001-of-00003.parquet": order[1:3],
            "train-00002-of-00003.parquet": order[3:],
            "validation-00000-of-00001.parquet": ["held"],
        }
        assert planned(clips, seed) == planned(clips[::-1], seed) == wanted
    assert by_hash(3) != by_hash(4)
    elsewhere = [clip | {"clip_id": f"{9 - number}"} for number, clip in enumerate(clips)]
    names = {other["clip_id"]: clip["clip_id"] for clip, other in zip(clips, elsewhere, strict=True)}
    assert {shard: [names[n] for n in ids] for shard, ids in planned(elsewhere).items()} == planned(clips)


def test_a_shard_of_an_unfinished_export_is_kept_if_it_is_of_the_same_clips(tmp_path: Path) -> None:
    """An older dailies had another order, so a shard of that name may hold other clips."""
    rows = pa.table({"clip_id": ["a", "b"], "failure": pa.nulls(2, pa.string())})
    pq.write_table(rows, tmp_path / "train-0.parquet")
    for ids, done in ((["a", "b"], True), (["a", "c"], False), (["b", "a"], False)):
        assert _is_done(Folder.at(tmp_path), Shard(name="train-0.parquet", clips=pa.table({"clip_id": ids}))) == done
    assert not _is_done(Folder.at(tmp_path), Shard(name="train-1.parquet", clips=rows))


def test_a_border_is_cropped_with_the_pixel_that_it_ends_in() -> None:
    found = {"border_left": 20.2, "border_top": 3.0, "border_right": None, "border_bottom": 0.0}
    assert crop_of(found) == Crop(left=21, top=3, right=0, bottom=0)


def test_borders_are_cropped_as_they_were_found(tmp_path: Path, dailies: Dailies) -> None:
    """Rendered at 320 x 180 with bars of 20 above and 22 below; the export holds the 138 rows between them."""
    ground = world.Background(texture="dotted", color="grey", seed=3)
    shot = world.Shot(frames=48, background=ground, camera=world.Camera(velocity=(20, 0)))
    pictures = []
    for picture in world.frames(world.Script(shots=(shot,))):
        boxed = np.zeros_like(picture)
        boxed[20:158] = picture[20:158]
        pictures.append(boxed)
    world.encode(iter(pictures), tmp_path / "boxed.mp4", fps=24)
    (tmp_path / "recipe.yaml").write_text(RECIPE.replace("shard_mb: 1", "shard_mb: 1, crop: borders"))
    arguments = ("--recipe", tmp_path / "recipe.yaml", "--engine", "local", "--json")
    done = dailies("curate", tmp_path / "boxed.mp4", "--out", tmp_path / "dataset", *arguments)
    (export,) = json.loads(done.stdout)["exports"]
    (row,) = rows_of(Path(export["path"])).values()
    assert (row["crop_top"], row["crop_bottom"]) == (pytest.approx(20, abs=2), pytest.approx(22, abs=2))
    assert (row["crop_left"], row["crop_right"], row["width"]) == (0, 0, 320)
    assert row["height"] == pytest.approx(138, abs=4)
    clip = video.clip_frames(row).pixels
    first = row["crop_top"] + row["crop_top"] % 2
    wanted = np.stack(pictures)[:, first : first + row["height"]]
    assert np.abs(clip.astype(int) - wanted).mean() < 6
    assert clip[:, [0, -1]].mean() > 60  # nothing of the bars is left
