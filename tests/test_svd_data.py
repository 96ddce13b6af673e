"""What ``curate --recipe svd`` exports is what ``train svd`` reads, with small weights in the place of the paper's."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("open_clip")
pytest.importorskip("diffusers")

from dailies.curation import world  # noqa: E402
from dailies.curation.tables import DatasetTables  # noqa: E402
from dailies.zoo.catalog import resolve  # noqa: E402
from tests import svd_format  # noqa: E402
from tests.conftest import Dailies  # noqa: E402
from tests.tiny_chat_models import save_tiny  # noqa: E402

AXES = {"motion": "low", "text_area": "high", "clip_similarity": "low", "aesthetic": "low"}
SMALL_TRAINING = '''
from dataclasses import replace

from dailies.training.recipes.recipe import TrainingRecipe
from dailies.training.recipes.svd import svd


def recipe() -> TrainingRecipe:
    """SVD's runs on images, videos and image-to-video, as they read data; sizes and steps alone are small."""
    paper = svd()
    small = dict(
        size=(32, 24), steps=1, batch=1, warmup=0, validate_every=1, save_every=1, validation_clips=1, samples=1, sample_steps=1
    )
    phases = [replace(paper.phase(name), **small) for name in ("I-b", "II-a", "i2v-base")]
    phases[0] = replace(phases[0], start=None)
    phases[1] = replace(phases[1], start=phases[0].name)
    phases[2] = replace(phases[2], start=phases[1].name)
    return replace(paper, name="small", phases=tuple(phases), unet=None, models="given", text_tokens=8)
'''  # fmt: skip


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("svd") / "videos"
    folder.mkdir()
    for number in range(3):
        script = world.write_script(number, shots=6, size=(160, 90), shot_frames=(52, 60))
        world.encode(script, folder / f"{number}.mp4")
    return folder


def local_weights(folder: Path) -> list[str]:
    """``--set`` for weights that are here in place of those that the recipe names; nothing else of it is changed."""
    width = json.loads((resolve("zoo:coca-world") / "open_clip_config.json").read_text())["model_cfg"]["embed_dim"]
    torch.manual_seed(2)
    torch.save(torch.nn.Linear(width, 1).state_dict(), folder / "head.pth")
    model = "zoo:coca-world"
    sets = {
        "caption_coca.model": model,
        "caption_video.model": save_tiny("instructblip-video", folder / "video"),
        "caption_video.max_tokens": 8,
        "caption_summary.model": save_tiny("llama", folder / "llm"),
        "caption_summary.max_tokens": 8,
        "embed.model": model,
        "aesthetic.trained_on": model,
        "aesthetic.head": folder / "head.pth",
    }
    return [word for key, value in sets.items() for word in ("--set", f"{key}={value}")]


def test_svd_is_curated_and_trained_on_without_another_setting(
    dailies: Dailies, videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = dailies("curate", videos, "--out", tmp_path / "data", "--recipe", "svd", "--engine", "local", "--workers", 1,
                   *local_weights(tmp_path), "--json")  # fmt: skip
    assert done.returncode == 0, done.stderr
    export = tmp_path / "data" / "exports" / "latest"
    manifest = json.loads((export / "export.json").read_text())
    assert manifest["rules"] == {
        "motion": {"min_quantile": 0.25, "nulls": "drop"},
        "text_area": {"max_quantile": 0.75, "nulls": "drop"},
        "clip_similarity": {"min_quantile": 0.5, "nulls": "drop"},
        "aesthetic": {"min_quantile": 0.25, "nulls": "drop"},
    }
    check_shares(tmp_path / "data", manifest["limits"])
    kept = [row for row in pq.read_table(export / "index.parquet").to_pylist() if row["status"] == "ok"]
    assert len(kept) >= 2
    for row in kept:
        assert all(row[name].strip() for name in ("caption_coca", "caption_video", "caption_summary"))
        assert row["seconds"] >= 2

    (tmp_path / "small.py").write_text(SMALL_TRAINING)
    weights, image = svd_format.sd(tmp_path / "sd"), svd_format.svd(tmp_path / "vision")
    run = tmp_path / "run"
    done = dailies("train", tmp_path / "small.py:recipe", "--data", export, "--from", weights,
                   "--image-encoder", image, "--out", run)  # fmt: skip
    assert done.returncode == 0, done.stderr
    phases = json.loads((run / "run.json").read_text())["phases"]
    assert [(phase["name"], phase["done"]) for phase in phases] == [("I-b", True), ("II-a", True), ("i2v-base", True)]


def check_shares(url: Path, limits: dict[str, dict[str, float]]) -> None:
    """Each axis loses its share of the clips, or less where clips are alike."""
    rows = DatasetTables.open(str(url)).table("selections/main").read().to_pylist()
    judged = [row for row in rows if row["reason"] not in ("too_short", "failed")]
    for column, side in AXES.items():
        fell = sum(f"{column}_{side}" in (row["reasons"] or [row["reason"]]) for row in judged)
        share = 0.5 if column == "clip_similarity" else 0.25
        assert fell <= share * len(judged) + 1, column
        assert column in limits
    assert any(row["keep"] for row in judged)


def test_training_draws_from_captions_that_the_recipe_writes() -> None:
    """The names that ``train svd`` draws captions from are those of the recipe's captioners."""
    from dailies.pipelines.recipes.recipe import load_recipe
    from dailies.training.recipes.svd import CAPTIONS

    shown: set[str] = {column.name for step in load_recipe("svd").before(None) for column in step.shown.values()}
    assert {name for name, _ in CAPTIONS} <= shown
    rules: Any = next(step for step in load_recipe("svd").steps if step.name == "main").rules
    assert set(rules) == set(AXES)
