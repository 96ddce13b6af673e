"""Semantic copies end to end, by the built-in model; and chains of copies, which no group follows."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from dailies import Dataset
from dailies.curation import world
from dailies.curation.duplicates import Embeddings, Search, group_clips
from dailies.curation.world import Background, Camera, Script, Shape, Shot
from dailies.pipelines import again, run
from tests.test_dedup import FPS, RECIPE, SIZE, clip_rows, groups, recipe, scenes, signatures_of

SCENES = {
    "ball": Shape(kind="circle", color="red", radius=24, x=60, y=50, velocity=(14, 0)),
    "box": Shape(kind="square", color="blue", radius=26, x=120, y=60, velocity=(-12, 0)),
    "tent": Shape(kind="triangle", color="yellow", radius=30, x=90, y=54, velocity=(0, 4)),
}
GROUNDS = {"ball": ("striped", "olive"), "box": ("cloudy", "sand"), "tent": ("dotted", "navy")}


def write_takes(folder: Path) -> None:
    """Two takes of each scene: the second one with another camera and ground, so that no frame of it is a copy of a frame."""
    for name, shape in SCENES.items():
        texture, color = GROUNDS[name]
        for take in (1, 2):
            ground = Background(texture=texture, color=color, seed=take)
            camera = Camera(velocity=(6.0 * take, 0))
            shot = Shot(frames=2 * FPS, background=ground, shapes=(shape,), camera=camera)
            frames = world.frames(Script(shots=(shot,), size=SIZE, fps=FPS))
            world.encode(frames, folder / f"{name}-{take}.mp4", fps=FPS)


def test_takes_of_one_scene_are_semantic_copies_and_share_a_split(tmp_path: Path) -> None:
    """By looks, some of them are no copies: their grounds and cameras differ."""
    for package in ("open_clip", "faiss"):
        pytest.importorskip(package)
    (tmp_path / "videos").mkdir()
    write_takes(tmp_path / "videos")
    data = tmp_path / "data"
    head = RECIPE.partition("  - dedup")[0]
    steps = "  - score: {scorer: embed}\n  - dedup: {semantic: {similarity: 0.9}}\n"
    summary = run.curate([str(tmp_path / "videos")], str(data), recipe(head + steps), engine="local", workers=1)
    assert summary.duplicates is not None
    assert (summary.duplicates.groups, sum(summary.duplicates.copies.values())) == (3, 6)
    assert summary.duplicates.copies["semantic"] >= 4
    rows = groups(data)
    for name in SCENES:
        first, second = rows[f"{name}-1.mp4"], rows[f"{name}-2.mp4"]
        assert first["duplicate_group"] == second["duplicate_group"] is not None
        assert first["duplicate_split"] == second["duplicate_split"]
        if first["duplicate_kind"] == "semantic":
            assert first["duplicate_distance"] == pytest.approx(1 - cosine(data, name), abs=2e-3)  # stored as halves
    # another limit, above all of these cosines, asks the stored embeddings again
    strict = again.dedup_again(
        str(data), ["dedup.semantic.similarity=0.9999", "dedup.perceptual=false"], engine="local", workers=1
    )
    assert strict.groups == 0


def cosine(data: Path, name: str) -> float:
    """The cosine of the stored embeddings of a scene's two takes."""
    rows = Dataset(data).sql(
        f"select embedding from scores_embed join clips using (clip_id) where uri like '%{name}-%'"
    )
    first, second = (np.asarray(vector) for vector in rows["embedding"].to_pylist())
    return float(first @ second)


def groups_of(search: Search, count: int) -> tuple[list[list[int]], int]:
    """The clips of each group, those that are alone too, by number; and how many clips the largest set of one split has."""
    table, splits = group_clips(clip_rows(count), search)
    rows = table.to_pylist()
    members: dict[str, list[int]] = {}
    for number, row in enumerate(rows):
        members.setdefault(row["duplicate_group"] or row["clip_id"], []).append(number)
    assert all(group == rows[numbers[0]]["clip_id"] for group, numbers in members.items())  # named by the smallest id
    return list(members.values()), splits.largest


def stars_of(chain: list[list[int]]) -> bool:
    """Whether each group has a clip that is next to all others in a chain of clips."""
    return all(any(all(abs(each - centre) <= 1 for each in clips) for centre in clips) for clips in chain)


def test_no_group_follows_a_chain_of_embeddings_and_no_split_does() -> None:
    """Each embedding is 15 degrees from the next: two neighbours are within the limit of 20, and two steps are not."""
    angles = np.radians(15 * np.arange(9))
    vectors = np.stack([np.cos(angles), np.sin(angles)], 1).astype(np.float16)
    embeddings = Embeddings(clips=np.arange(9), vectors=vectors)
    chain, together = groups_of(Search(clip_rows(9), embeddings=embeddings, similarity=np.cos(np.radians(20))), 9)
    assert stars_of(chain)
    assert sum(len(clips) > 1 for clips in chain) >= 3
    assert together == max(map(len, chain)) <= 3


def test_copies_by_looks_share_a_split_where_groups_part_them() -> None:
    """Each picture is turned 15 degrees into another one from the next: two neighbours look alike, and two steps do not."""
    scene, other = (picture.astype(float) - picture.mean() for picture in scenes(2, seed=4))
    other -= scene * (other @ scene) / (scene @ scene)
    other *= np.linalg.norm(scene) / np.linalg.norm(other)
    angles = np.radians(15 * np.arange(5))[:, None]
    turned = np.clip(120 + np.cos(angles) * scene + np.sin(angles) * other, 0, 255).astype(np.uint8)
    chain, together = groups_of(Search(clip_rows(5), signatures=signatures_of(turned[:, None].repeat(3, 1))), 5)
    assert stars_of(chain)
    assert 1 < len(chain) < 5
    assert together == 5
