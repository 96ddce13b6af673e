"""Copies of rendered clips are found whatever was done to them, other clips stay apart, and splits follow the groups."""

from __future__ import annotations

import json
import re
import shutil
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dailies import Dataset
from dailies.curation import schema, world
from dailies.curation.clips import split_of
from dailies.curation.duplicates import Embeddings, Search, Signatures, find, group_clips, neighbours, read_embeddings
from dailies.curation.duplicates.alike import all_offsets
from dailies.curation.duplicates.candidates import TABLES, WINDOW, candidates
from dailies.curation.duplicates.groups import components, stars
from dailies.curation.duplicates.signatures import bars, inside
from dailies.curation.duplicates.splits import splits_of
from dailies.curation.errors import RecipeError, UsageError
from dailies.curation.tables import DatasetTables, verify
from dailies.curation.world import Background, Camera, Script, Shape, Shot
from dailies.pipelines import again, overview, run
from dailies.pipelines.grouping import group_step
from dailies.pipelines.recipes.describe import describe
from dailies.pipelines.recipes.recipe import parse_recipe
from dailies.pipelines.recipes.steps import DedupStep, SelectStep
from dailies.pipelines.reports import Summary
from dailies.pipelines.run_rows import record_run
from dailies.pipelines.selecting import select_step
from tests import report_dataset
from tests.conftest import Dailies
from tests.rendered_video import remuxed

FPS, SIZE = 12, (192, 108)
KINDS = ("plain", "crf35", "half", "trimmed", "logo", "letterbox", "remux")
RECIPE = """
name: copies
steps:
  - observe: {observers: [boundary], evidence: {fps: 1, short_side: 108}}
  - cut: {detector: boundary, min_seconds: 1, max_seconds: 8, validation_share: 0.3, test_share: 0.3}
  - dedup: {}
  - select: {name: main, duplicates: keep}
  - export: {mode: copy}
"""


def script(seed: int) -> Script:
    """Four seconds of one shot: each seed has a scene of its own, in the same colours and shapes."""
    draw = np.random.default_rng(seed)
    shapes = tuple(
        Shape(
            kind=kind,
            color=color,
            radius=int(draw.integers(12, 30)),
            x=int(draw.integers(20, 170)),
            y=int(draw.integers(20, 90)),
            velocity=(int(draw.integers(-12, 12)), int(draw.integers(-6, 6))),
        )
        for kind, color in (("circle", "purple"), ("square", "cyan"))
    )
    ground = Background(texture="cloudy", color="sand", seed=seed)
    return Script(
        shots=(Shot(frames=4 * FPS, background=ground, shapes=shapes, camera=Camera(velocity=(8, 0))),),
        size=SIZE,
        fps=FPS,
    )


def logo(frame: np.ndarray) -> np.ndarray:
    stamped = frame.copy()
    stamped[6:20, -44:-6] = 255
    stamped[9:17, -40:-20] = (200, 0, 0)
    return stamped


def write_copies(folder: Path, seed: int, kinds: Sequence[str]) -> None:
    """Write a video and what was made of it, as ``SEED-KIND``."""
    frames = list(world.frames(script(seed)))
    ways: dict[str, Any] = {
        "plain": (frames, 20),
        "crf35": (frames, 35),
        "half": ([cv2.resize(frame, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA) for frame in frames], 20),
        "trimmed": (frames[FPS:], 20),
        "logo": ([logo(frame) for frame in frames], 20),
        "letterbox": ([cv2.copyMakeBorder(frame, 14, 14, 0, 0, cv2.BORDER_CONSTANT) for frame in frames], 20),
        "mirrored": ([frame[:, ::-1] for frame in frames], 20),
    }
    for kind in kinds:
        if kind == "remux":
            remuxed(folder / f"{seed}-plain.mp4", folder / f"{seed}-remux.mkv")
        else:
            pictures, crf = ways[kind]
            world.encode(iter(pictures), folder / f"{seed}-{kind}.mp4", fps=FPS, crf=crf)


def groups(dataset: Path) -> dict[str, dict[str, Any]]:
    """Each clip's row of the table of groups, by its source's file name."""
    rows = Dataset(dataset).sql(
        "select regexp_extract(uri, '[^/]+$') as name, * from clips join duplicates_dedup using (clip_id)"
    )
    return {row["name"]: row for row in rows.to_pylist()}


@pytest.fixture(scope="module")
def copied(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Summary]:
    """Videos, a dataset of them that was curated with dedup, and the run's summary."""
    folder = tmp_path_factory.mktemp("copies")
    videos = folder / "videos"
    videos.mkdir()
    write_copies(videos, 0, [*KINDS, "mirrored"])
    write_copies(videos, 1, [*KINDS, "mirrored"])
    for seed in range(2, 8):
        write_copies(videos, seed, ["plain"])
    shutil.copy(videos / "2-plain.mp4", videos / "2-again.mp4")
    summary = run.curate([str(videos)], str(folder / "data"), recipe(), engine="local", workers=1)
    return videos, folder / "data", summary


def recipe(text: str = RECIPE, overrides: Sequence[str] = ()) -> Any:
    import yaml

    return parse_recipe(yaml.safe_load(text), overrides)


# ---- copies ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("kind", KINDS)
def test_a_copy_is_found_whatever_was_done_to_it(copied: tuple[Path, Path, Summary], seed: int, kind: str) -> None:
    rows = groups(copied[1])
    (row,) = [row for name, row in rows.items() if name.startswith(f"{seed}-{kind}")]
    assert row["duplicate_group"] == rows[f"{seed}-plain.mp4"]["duplicate_group"]
    assert row["duplicate_kind"] == "perceptual"
    assert row["duplicate_size"] == len(KINDS)
    assert 0 <= row["duplicate_distance"] <= 0.25


def test_other_clips_and_mirrored_ones_stay_apart(copied: tuple[Path, Path, Summary]) -> None:
    _, data, summary = copied
    rows = groups(data)
    for name in ("0-mirrored.mp4", "1-mirrored.mp4", *(f"{seed}-plain.mp4" for seed in range(3, 8))):
        row = rows[name]
        assert (row["duplicate_group"], row["duplicate_kind"], row["duplicate_distance"]) == (None, None, None), name
        assert row["duplicate_size"] == 1
    assert summary.duplicates is not None
    assert summary.duplicates.groups == 3
    assert summary.duplicates.copies == {"exact": 2, "perceptual": 2 * len(KINDS)}
    assert summary.duplicates.spare == 2 * (len(KINDS) - 1) + 1
    assert verify(DatasetTables.open(data)) == []


def test_the_same_bytes_are_exact_copies_and_a_group_goes_by_its_smallest_clip(
    copied: tuple[Path, Path, Summary],
) -> None:
    rows = groups(copied[1])
    for name in ("2-plain.mp4", "2-again.mp4"):
        assert (rows[name]["duplicate_kind"], rows[name]["duplicate_distance"]) == ("exact", 0)
    by_group: dict[str, list[str]] = {}
    for row in rows.values():
        if row["duplicate_group"]:
            by_group.setdefault(row["duplicate_group"], []).append(row["clip_id"])
    assert all(group == min(clips) for group, clips in by_group.items())


def test_no_group_lies_on_two_sides_of_a_split_in_verdicts_and_exports(copied: tuple[Path, Path, Summary]) -> None:
    _, data, summary = copied
    rows = groups(data)
    cut = {row["duplicate_group"]: set() for row in rows.values()}
    for row in rows.values():
        cut[row["duplicate_group"]].add(row["split"])
    assert any(len(splits) > 1 for group, splits in cut.items() if group)  # as cut, copies were in several
    verdicts = {
        row["clip_id"]: row["split"] for row in Dataset(data).tables.table("selections/main").read().to_pylist()
    }
    assert summary.exports[0].path is not None
    index = pq.read_table(f"{summary.exports[0].path}/index.parquet").to_pylist()
    exported = {row["clip_id"]: row for row in index}
    for row in rows.values():
        if row["duplicate_group"]:
            first = verdicts[row["duplicate_group"]]
            assert verdicts[row["clip_id"]] == first
            assert exported[row["clip_id"]]["split"] == first
            assert exported[row["clip_id"]]["shard"].startswith(f"data/{first}-")
            assert exported[row["clip_id"]]["duplicate_group"] == row["duplicate_group"]
        else:
            assert verdicts[row["clip_id"]] == row["split"]


def test_grouping_again_decodes_nothing_and_later_commands_know_it(
    copied: tuple[Path, Path, Summary], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also of a dataset whose recipe has no such step: it gets one."""
    videos, data, _ = copied
    mine = tmp_path / "data"
    shutil.copytree(data, mine)
    plain = recipe("\n".join(line for line in RECIPE.splitlines() if "dedup" not in line))
    run.curate([str(videos)], str(mine), plain, engine="local", workers=1)
    hidden = videos.with_name("gone")
    videos.rename(hidden)
    try:
        report = again.dedup_again(str(mine), engine="local", workers=1)
        assert report.copies == {"exact": 2, "perceptual": 2 * len(KINDS)}
        strict = again.dedup_again(str(mine), ["dedup.perceptual=false"], engine="local", workers=1)
        assert strict.copies == {"exact": 2}
        # ``on`` again by a key of its own; nothing is as near as that but a remux
        near = again.dedup_again(str(mine), ["dedup.perceptual.distance=0.001"], engine="local", workers=1)
        assert near.copies == {"exact": 2, "perceptual": 4}
        selected = again.select_again(str(mine), "main", ["main.rules.duplicate_size={max: 1, nulls: drop}"])
        assert selected.kept == near.clips - 2 - 4
        assert selected.reasons == {"duplicate_size_high": 6}
    finally:
        hidden.rename(videos)
    assert set(Dataset(mine).clips().column_names) >= {column.name for column in schema.DUPLICATE_COLUMNS}


def test_a_cap_on_groups_leaves_one_of_each_and_all_that_are_alone(
    copied: tuple[Path, Path, Summary], tmp_path: Path
) -> None:
    _, data, summary = copied
    mine = tmp_path / "data"
    shutil.copytree(data, mine)
    cap = "main.at_most={duplicate_group: {count: 1, keep: longest}}"
    selected = again.select_again(str(mine), "main", [cap])
    assert summary.duplicates is not None
    assert selected.kept == summary.duplicates.clips - summary.duplicates.spare
    kept = Dataset(mine).sql("select uri from clips join selection_main using (clip_id) where keep")["uri"].to_pylist()
    assert not [uri for uri in kept if "trimmed" in uri]
    assert len([uri for uri in kept if "mirrored" in uri]) == 2


def test_another_split_of_the_same_clips_is_another_export(copied: tuple[Path, Path, Summary], tmp_path: Path) -> None:
    _, data, summary = copied
    mine = tmp_path / "data"
    shutil.copytree(data, mine)
    again.dedup_again(str(mine), ["dedup.perceptual=false"], engine="local", workers=1)
    again.select_again(str(mine), "main", ())
    report = again.export_again(str(mine), "export", (), engine="local", workers=1)
    assert report.path is not None
    assert summary.exports[0].path is not None
    assert Path(report.path).name != Path(summary.exports[0].path).name
    assert (report.extracted, report.taken_over) == (0, sum(summary.exports[0].splits.values()))


def test_a_copy_that_joins_and_is_not_kept_makes_another_export(tmp_path: Path) -> None:
    """Its clips are the same ones; what it says of their groups is not."""
    videos = tmp_path / "videos"
    videos.mkdir()
    for seed in (5, 6):
        write_copies(videos, seed, ["plain"])
    longer = recipe(overrides=["main.rules.seconds.min=3.5"])
    first = run.curate([str(videos)], str(tmp_path / "data"), longer, engine="local", workers=1).exports[0]
    assert (
        run.curate([str(videos)], str(tmp_path / "data"), longer, engine="local", workers=1).exports[0].path
        == first.path
    )
    write_copies(videos, 5, ["trimmed"])
    second = run.curate([str(videos)], str(tmp_path / "data"), longer, engine="local", workers=1).exports[0]
    assert second.path != first.path
    assert (second.extracted, second.taken_over) == (0, 2)
    sizes = [pq.read_table(f"{export.path}/index.parquet")["duplicate_size"].to_pylist() for export in (first, second)]
    assert [sorted(each) for each in sizes] == [[1, 1], [1, 2]]


@pytest.mark.parametrize(
    ("steps", "message"),
    [
        ("  - select: {}\n  - dedup: {}", "step dedup: comes after select main, whose splits follow it; put it before"),
        ("  - dedup: {}\n  - dedup: {name: more}", "two dedup steps; one step looks for copies of all kinds"),
        ("  - dedup: {exact: false, perceptual: false}", "nothing is looked for; leave the step out"),
        ("  - dedup: {semantic: {}}", "semantic.embed='embed': no earlier step makes embeddings by that name"),
        ("  - dedup: {perceptual: {distance: 3}}", "distance=3"),
    ],
)
def test_a_step_that_cannot_be_met_is_refused(steps: str, message: str) -> None:
    head = RECIPE.partition("  - dedup")[0]
    with pytest.raises(RecipeError) as error:
        recipe(f"{head}{steps}\n")
    assert message in str(error.value)


def test_only_its_own_values_change_with_the_command(copied: tuple[Path, Path, Summary]) -> None:
    with pytest.raises(UsageError, match="use dailies select --name main"):
        again.dedup_again(str(copied[1]), ["main.duplicates=drop"])
    with pytest.raises(UsageError, match="use dailies dedup"):
        again.select_again(str(copied[1]), "main", ["dedup.exact=false"])


# ---- pictures -------------------------------------------------------------------------------------------------------


def scenes(count: int, seed: int = 0) -> np.ndarray:
    """(count, 256) gray pictures with the spectrum of natural ones."""
    noise = np.fft.rfft2(np.random.default_rng(seed).standard_normal((count, 16, 16)))
    falls = 0.03 + np.hypot(np.fft.fftfreq(16)[:, None], np.fft.rfftfreq(16)[None])
    pictures = np.fft.irfft2(noise / falls, (16, 16))
    pictures = 120 + 40 * pictures / pictures.std((1, 2), keepdims=True)
    return np.clip(pictures, 0, 255).astype(np.uint8).reshape(count, 256)


def signatures_of(pictures: np.ndarray) -> Signatures:
    """Of (clips, frames, 256) pictures, a second apart."""
    clips, frames, _ = pictures.shape
    return Signatures.of(
        [pictures.reshape(-1, 256)],
        [np.tile(np.arange(frames, dtype=float), clips)],
        [np.repeat(np.arange(clips), frames)],
        np.arange(clips),
        np.ones((clips, 256), bool),
    )


def clip_rows(count: int, **columns: Sequence[Any]) -> pa.Table:
    rows = {
        "clip_id": [f"c{n:06}" for n in range(count)],
        "source_id": [f"s{n:06}" for n in range(count)],
        "content_id": [f"k{n:06}" for n in range(count)],
        "manifest": pa.array([None] * count, pa.string()),
        "split": [split_of(f"k{n:06}", 0.1, 0.1) for n in range(count)],
        **{name: [0] * count for name in ("stream", "start")},
        **{name: [1] * count for name in ("end", "time_base_num", "time_base_den")},
    }
    return pa.table(rows | columns)


def test_among_many_clips_copies_are_found_and_nothing_else() -> None:
    pictures = scenes(4 * 3000).reshape(3000, 4, 256)
    noise = np.random.default_rng(1).normal(0, 5, (300, 4, 256))
    copies = np.clip(pictures[:300] + noise, 0, 255).astype(np.uint8)
    search = Search(clip_rows(3300), signatures=signatures_of(np.concatenate([pictures, copies])))
    pairs = search.pairs().clips
    assert {tuple(pair) for pair in pairs} == {(n, 3000 + n) for n in range(300)}


def test_a_picture_that_all_clips_have_costs_no_more_than_another() -> None:
    """A title card: pairs stay proportional to frames, and what else the clips show decides."""
    count = 2000
    pictures = scenes(4 * count).reshape(count, 4, 256)
    pictures[:, 0] = scenes(1, seed=9)
    signatures = signatures_of(pictures)
    assert len(candidates(signatures.pictures, signatures.owners)) < TABLES * WINDOW * count * 2
    rows, _ = group_clips(clip_rows(count), Search(clip_rows(count), signatures=signatures))
    assert rows["duplicate_group"].null_count == count


def test_clips_of_one_source_are_not_compared() -> None:
    """A long shot is divided, and its parts look alike."""
    pictures = np.repeat(scenes(4).reshape(1, 4, 256), 2, axis=0)
    for sources, found in ((["s", "s"], 0), (["s", "t"], 1)):
        rows = clip_rows(2, source_id=sources)
        assert len(Search(rows, signatures=signatures_of(pictures)).pairs().clips) == found


def test_a_later_and_shorter_cut_of_a_clip_is_a_copy_and_one_frame_is_not_enough() -> None:
    pictures = scenes(6, seed=2)
    for frames, found in ((pictures[2:6], 1), (pictures[4:6], 1), (pictures[5:], 1), (None, 0)):
        other = np.concatenate([pictures[:1], scenes(3, seed=5)]) if frames is None else frames
        signatures = Signatures.of(
            [np.concatenate([pictures, other])],
            [np.concatenate([np.arange(6.0), np.arange(float(len(other))) + 0.1])],
            [np.repeat([0, 1], [6, len(other)])],
            np.arange(2),
            np.ones((2, 256), bool),
        )
        assert len(Search(clip_rows(2), signatures=signatures).pairs().clips) == found


def compared(picture: np.ndarray, other: np.ndarray) -> int:
    """How many pairs are found of two clips of four frames each that show these pictures (256,)."""
    draw = np.random.default_rng(1)
    clips = np.stack([np.tile(picture, (4, 1)), np.tile(other, (4, 1))]).astype(float)
    noisy = np.clip(clips + draw.normal(0, 2, clips.shape), 0, 255).astype(np.uint8)
    return len(Search(clip_rows(2), signatures=signatures_of(noisy)).pairs().clips)


def test_a_mirrored_clip_of_a_nearly_symmetric_scene_is_no_copy() -> None:
    """It is within the limit, and nearer still when it is turned over."""
    left, right = (picture.reshape(16, 16).astype(float) for picture in scenes(2, seed=3))
    scene = np.clip((left + left[:, ::-1]) / 2 + (right - 120) * 0.1, 0, 255)
    assert compared(scene.ravel(), scene.ravel()) == 1
    assert compared(scene.ravel(), scene[:, ::-1].ravel()) == 0


def test_a_logo_spoils_only_the_blocks_under_it_and_another_half_is_no_logo() -> None:
    scene = scenes(1, seed=6).reshape(16, 16)
    for size, found in (((5, 7), 1), ((8, 16), 0)):
        stamped = scene.copy()
        stamped[: size[0], -size[1] :] = 250
        assert compared(scene.ravel(), stamped.ravel()) == found


def test_bars_are_told_from_dark_scenes() -> None:
    frames = np.full((3, 256, 256), 90, np.uint8)
    frames[:, :32] = frames[:, -24:] = 16
    frames[1, :40] = 16  # darker for a moment
    assert bars(frames) == (32, 24, 0, 0)
    assert inside((32, 24, 0, 0)).reshape(16, 16).sum(0).tolist() == [12] * 16
    assert bars(np.full((2, 256, 256), 16, np.uint8)) == (0, 0, 0, 0)


def test_two_letterboxed_scenes_are_not_alike_by_their_bars() -> None:
    pictures = scenes(8).reshape(2, 4, 16, 16).copy()
    pictures[..., :4, :] = pictures[..., -4:, :] = 16
    signatures = signatures_of(pictures.reshape(2, 4, 256))
    told = np.tile(inside((64, 64, 0, 0)), (2, 1))
    whole = Search(clip_rows(2), signatures=signatures, distance=0.9)
    within = Search(
        clip_rows(2),
        signatures=Signatures.of(
            [signatures.pictures], [signatures.seconds], [signatures.sequences], signatures.clips, told
        ),
        distance=0.9,
    )
    assert len(whole.pairs().clips) <= 1
    assert len(within.pairs().clips) == 0


# ---- groups ---------------------------------------------------------------------------------------------------------


def never(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    return np.zeros(len(left), bool)


def test_components_are_what_hangs_together() -> None:
    draw = np.random.default_rng(0)
    pairs = draw.integers(0, 3000, (1800, 2))
    root = list(range(3000))

    def find(item: int) -> int:
        while root[item] != item:
            item = root[item]
        return item

    for left, right in pairs:
        root[max(find(left), find(right))] = min(find(left), find(right))
    assert components(3000, pairs).tolist() == [find(n) for n in range(3000)]
    assert components(3, np.empty((0, 2), np.int64)).tolist() == [0, 1, 2]


def test_a_chain_does_not_swallow_the_dataset_and_missed_pairs_are_asked_for() -> None:
    count = 100_000
    chain = np.stack([np.arange(count - 1), np.arange(1, count)], 1)
    shuffled = np.random.default_rng(0).permutation(count)[chain]
    sizes = np.bincount(stars(count, shuffled, never))
    assert sizes.max() == 3
    hub = np.array([[0, n] for n in range(1, 6)] + [[5, 6], [6, 7]])
    assert stars(8, hub, never).tolist() == [0] * 6 + [6, 6]
    assert stars(8, hub, lambda left, right: (left == 0) & (right == 6)).tolist() == [0] * 7 + [7]


# ---- embeddings -----------------------------------------------------------------------------------------------------


def directions(count: int, channels: int = 64) -> np.ndarray:
    vectors = np.random.default_rng(3).standard_normal((count, channels)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def beside(vectors: np.ndarray, cosine: float) -> np.ndarray:
    other = np.random.default_rng(4).standard_normal(vectors.shape)
    other -= (other * vectors).sum(1, keepdims=True) * vectors
    other /= np.linalg.norm(other, axis=1, keepdims=True)
    return np.asarray(cosine * vectors + np.sqrt(1 - cosine**2) * other)


@pytest.mark.parametrize("count", [3000, 24_000])
def test_like_embeddings_are_found_by_lists_as_by_all(count: int) -> None:
    if count > neighbours.EXHAUSTIVE:
        pytest.importorskip("faiss")
    vectors = directions(count)
    planted = beside(vectors[:200], 0.97)
    less = beside(vectors[200:400], 0.90)
    pairs, distances = neighbours.near_pairs(np.concatenate([vectors, planted, less]).astype(np.float16), 0.95)
    right = {(n, count + n) for n in range(200)}
    assert len(right & {tuple(pair) for pair in pairs}) >= 0.97 * 200
    assert {tuple(pair) for pair in pairs} <= right
    assert distances == pytest.approx(0.03, abs=0.002)


def test_a_million_of_the_same_would_stay_a_million_pairs() -> None:
    vectors = np.tile(directions(1), (6000, 1)).astype(np.float16)
    pairs, _ = neighbours.near_pairs(vectors, 0.95)
    assert len(pairs) <= neighbours.NEIGHBOURS * len(vectors)
    rows, _ = group_clips(
        clip_rows(6000), Search(clip_rows(6000), embeddings=Embeddings(clips=np.arange(6000), vectors=vectors))
    )
    assert rows["duplicate_group"].null_count == 0
    assert set(rows["duplicate_kind"].to_pylist()) == {"semantic"}


EMBED = """
from contextlib import contextmanager
import numpy as np
import pyarrow as pa
from dailies.curation import video
from dailies.curation.schema import field

class Embed:
    columns = (field("embedding", pa.list_(pa.float32()), "mean colour"),)

    @contextmanager
    def open(self):
        def score(evidence):
            means = [np.mean([video.unjpeg(frame.jpeg).mean((0, 1)) for frame in clip.frames], 0) for clip in evidence]
            return pa.table({"embedding": [mean.tolist() for mean in means]}, schema=pa.schema(list(self.columns)))

        yield score
"""


def test_semantic_groups_come_from_a_scorers_embeddings(copied: tuple[Path, Path, Summary], tmp_path: Path) -> None:
    """All of the rendered videos are sand-coloured."""
    pytest.importorskip("faiss")
    videos, _, _ = copied
    (tmp_path / "mine.py").write_text(EMBED)
    head = RECIPE.partition("  - dedup")[0]
    steps = (
        f"  - score: {{scorer: '{tmp_path / 'mine.py'}:Embed'}}\n"
        "  - dedup: {exact: false, perceptual: false, semantic: {embed: embed, similarity: 0.99}}\n"
    )
    summary = run.curate([str(videos)], str(tmp_path / "data"), recipe(head + steps), engine="local", workers=1)
    assert summary.duplicates is not None
    assert summary.duplicates.copies == {"semantic": summary.duplicates.clips}
    row = groups(tmp_path / "data")["5-plain.mp4"]
    assert 0 <= row["duplicate_distance"] <= 0.01


# ---- splits ---------------------------------------------------------------------------------------------------------


def test_a_remux_never_lands_in_another_split() -> None:
    """Over many ids; by content alone it does in 18 of 100 cases where 10 % are for validation and 10 % for testing."""
    count = 4000
    rows = clip_rows(2 * count)
    pairs = np.stack([np.arange(count), count + np.arange(count)], 1)
    cut = rows["split"].to_pylist()
    assert sum(cut[n] != cut[count + n] for n in range(count)) / count == pytest.approx(0.34, abs=0.03)
    splits = splits_of(rows, pairs).split.to_pylist()
    assert all(splits[n] == splits[count + n] for n in range(count))
    shares = Counter(splits)
    assert shares["test"] / (2 * count) == pytest.approx(0.1, abs=0.02)
    assert shares["validation"] / (2 * count) == pytest.approx(0.1, abs=0.02)


def test_splits_follow_from_what_there_is_and_not_from_its_order() -> None:
    count = 600
    rows, draw = clip_rows(count), np.random.default_rng(0)
    pairs = draw.integers(0, count, (300, 2))
    splits = dict(zip(rows["clip_id"].to_pylist(), splits_of(rows, pairs).split.to_pylist(), strict=True))
    order = draw.permutation(count)
    place = np.argsort(order)
    shuffled = rows.take(pa.array(order))
    other = splits_of(shuffled, place[pairs][::-1, ::-1]).split.to_pylist()
    assert dict(zip(shuffled["clip_id"].to_pylist(), other, strict=True)) == splits


def test_sources_that_a_group_connects_share_a_split_with_all_of_their_clips() -> None:
    sources = ["a", "a", "b", "b", "c"]
    contents = ["k2", "k2", "k1", "k1", "k0"]
    rows = clip_rows(5, source_id=sources, content_id=contents, split=["test", "test", "train", "train", "validation"])
    result = splits_of(rows, np.array([[1, 2]]))
    assert result.split.to_pylist() == ["train"] * 4 + ["validation"]
    assert result.largest == 4


def test_what_a_manifest_holds_out_stays_held_out_and_takes_copies_along() -> None:
    told = [json.dumps({"split": word}) for word in ("train", "Val", "test")]
    rows = clip_rows(
        5,
        source_id=["a", "b", "c", "d", "a"],
        manifest=pa.array([told[0], told[1], told[2], None, told[1]]),
        split=["train", "validation", "test", "train", "validation"],
    )
    result = splits_of(rows, np.array([[0, 1], [2, 3]]))
    # the last is another span of the first one's source, whose manifest puts it elsewhere
    assert result.split.to_pylist() == ["validation", "validation", "test", "test", "validation"]
    assert result.overruled == 1


# ---- the command line -----------------------------------------------------------------------------------------------


def test_the_command_prints_groups_and_what_follows(copied: tuple[Path, Path, Summary], dailies: Dailies) -> None:
    _, data, _ = copied
    printed = dailies("dedup", str(data), "--workers", "1").stdout
    rows = dict(re.findall(r"^ (\S[^│\n]*?)  +(\d+) +\d+%$", printed, re.M))
    assert (rows["copies: exact"], rows["copies: perceptual"], rows["without a copy"]) == ("2", "14", "7")
    assert rows["would go if one of each group stayed"] == "13"
    assert f"3 groups, the largest of {len(KINDS)} clips" in printed
    assert max(map(len, printed.partition("next:")[0].splitlines())) <= 80
    assert f"dailies select {data}" in printed
    report = json.loads(dailies("dedup", str(data), "--json").stdout)
    assert (report["groups"], report["largest_group"]) == (3, len(KINDS))


def test_recipes_show_the_keys_of_the_step(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(RECIPE)
    keys = {key.name: key for part in describe(str(path)) for key in part.keys}
    assert keys["dedup.perceptual.distance"].value == 0.25
    assert (keys["dedup.perceptual"].value, keys["dedup.semantic"].value) == (True, False)
    assert all(key.about for name, key in keys.items() if name.startswith("dedup."))


# ---- a dataset of rows alone -----------------------------------------------------------------------------------------


def grouped(path: Path) -> tuple[DatasetTables, Any]:
    """Return a dataset with groups and a selection, and its recipe; nothing is decoded for it."""
    report_dataset.build(path, 40)
    at = next(n for n, step in enumerate(report_dataset.STEPS) if "select" in step)
    steps = [*report_dataset.STEPS[:at], {"dedup": {"perceptual": False}}, *report_dataset.STEPS[at:]]
    grouping = parse_recipe({"name": "grouped", "steps": steps})
    dataset = DatasetTables.open(str(path))
    record_run(dataset, grouping)
    group_step(dataset, grouping, grouping.step(DedupStep))
    select_step(dataset, grouping, grouping.step(SelectStep))
    return dataset, grouping


def test_a_selection_after_groups_is_up_to_date_until_they_are_made_anew(tmp_path: Path) -> None:
    dataset, grouping = grouped(tmp_path / "ds")
    assert [each.what for each in overview.overview(dataset.url).missing] == []
    table = dataset.table(grouping.duplicates(grouping.step(DedupStep)))
    version = table.version()
    group_step(dataset, grouping, grouping.step(DedupStep))  # comes to the same
    assert table.version() == version
    assert [each.what for each in overview.overview(dataset.url).missing] == []
    table.replace(table.read().slice(1), properties=table.properties())
    group_step(dataset, grouping, grouping.step(DedupStep))
    assert ["select" in each.what for each in overview.overview(dataset.url).missing] == [True]


def test_clips_that_came_since_they_were_grouped_are_refused(tmp_path: Path) -> None:
    dataset, grouping = grouped(tmp_path / "ds")
    clips = dataset.table(grouping.clips)
    row = clips.read(equals={"status": "ok"}).slice(0, 1).to_pylist()[0]
    clips.append([{**row, "clip_id": "f" * 24, "source_id": "e" * 24, "status": "too_short"}], keys=())
    select_step(dataset, grouping, grouping.step(SelectStep))  # one that is not usable is in no group
    clips.append([{**row, "clip_id": "f" * 24, "source_id": "f" * 24, "split": "test"}], keys=())
    with pytest.raises(UsageError, match=r"1 clip came since clips were grouped.*run dailies dedup"):
        select_step(dataset, grouping, grouping.step(SelectStep))
    group_step(dataset, grouping, grouping.step(DedupStep))
    select_step(dataset, grouping, grouping.step(SelectStep))


def test_an_embedding_without_direction_takes_no_copies_from_others(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    vectors = directions(4).astype(np.float32)
    vectors[1], vectors[2, 0], vectors[3] = vectors[0], np.nan, 0
    ids = pa.array([f"c{n}" for n in range(4)])
    batch = pa.record_batch({"clip_id": ids, "embedding": pa.array(list(vectors), pa.list_(pa.float32()))})
    found = read_embeddings([batch], ids, 4, tmp_path / "vectors")
    assert found.clips.tolist() == [0, 1]
    assert neighbours.near_pairs(found.vectors, 0.99)[0].tolist() == [[0, 1]]
    assert "2 of the embeddings have no direction" in caplog.text


def test_pairs_are_asked_about_by_the_frames_that_they_have(monkeypatch: pytest.MonkeyPatch) -> None:
    pictures = scenes(40 * 8).reshape(40, 8, 256)
    pictures[20:] = pictures[:20]
    asked: list[int] = []

    def noted(signatures: Signatures, left: np.ndarray, right: np.ndarray) -> Any:
        asked.append(len(left))
        return all_offsets(signatures, left, right)

    monkeypatch.setattr(find, "all_offsets", noted)
    monkeypatch.setattr(find, "FRAME_PAIRS", 5 * 64)
    clips = clip_rows(40)
    near = Search(clips, exact=False, signatures=signatures_of(pictures)).near(
        np.arange(39), np.r_[np.arange(20, 40), np.arange(1, 20)]
    )
    assert asked == [5] * 7 + [4]
    assert near.tolist() == [True] * 20 + [False] * 19
