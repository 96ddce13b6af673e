"""What was made before the files moved to their rooms is opened, resumed, exported and trained on, and nothing runs again."""

from __future__ import annotations

import json
import tarfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from dailies.curation.scorers.text import TextScorer
from dailies.curation.tables import DatasetTables, query, verify
from dailies.pipelines import engine as engines
from dailies.pipelines.again import export_again, select_again
from dailies.pipelines.overview import overview
from dailies.pipelines.recipes.recipe import load_recipe
from dailies.pipelines.run import curate
from tests.s3_server import s3_server

BEFORE = Path(__file__).parent / "before"
RECIPES = BEFORE / "recipes"  # the built-in ones of then
QUICKSTART = str(RECIPES / "quickstart.yaml")
TABLES: dict[str, dict[str, str]] = json.loads((BEFORE / "tables.json").read_text())
SETTINGS = (
    *("cut.validation_share=0.3", "cut.test_share=0.1", "export.max_short_side=96"),
    *("main.rules.motion.min=0.05", "captioned.rules.motion.min=0.05"),
)
EXPORT = "export@2357cbe4"


@pytest.mark.parametrize("recipe", TABLES)
def test_the_recipes_of_then_keep_their_table_names(recipe: str) -> None:
    assert load_recipe(str(RECIPES / f"{recipe}.yaml")).tables() == TABLES[recipe]


@pytest.fixture
def before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder with ``manifest.csv`` and ``dataset``; the videos are where the manifest says."""
    pytest.importorskip("moto.server", reason="needs moto[s3] and flask: the sources lie on an S3 server")
    pytest.importorskip("open_clip", reason="needs the extra models: the recipe has captions")
    import fsspec

    with tarfile.open(BEFORE / "dataset.tar.xz") as archive:
        archive.extractall(tmp_path, filter="data")
    monkeypatch.chdir(tmp_path)
    with s3_server("videos") as url:
        for video in sorted((tmp_path / "videos").iterdir()):
            fsspec.filesystem("s3").put(str(video), f"{url}/{video.name}")
        yield tmp_path


def test_a_dataset_is_resumed_selected_and_exported_without_a_stage_run_again(
    before: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: Counter[str] = Counter()
    meaning = TextScorer.meaning
    run = engines.run

    def counting(work: Any, bundles: Any, engine: Any) -> Iterator[Any]:
        def counted() -> Iterator[Any]:
            for bundle in bundles:
                done[work.name] += len(bundle)
                yield bundle

        return run(work, counted(), engine)

    monkeypatch.setattr(engines, "run", counting)
    monkeypatch.setattr(TextScorer, "meaning", 1)  # of then; high titles count since
    dataset = DatasetTables.open("dataset")
    parts = {name: dataset.table(name).files() for name in dataset.tables() if "@" in name}
    assert verify(dataset) == []

    summary = curate(["manifest.csv"], "dataset", load_recipe(QUICKSTART, SETTINGS), engine="local")
    assert not done, "the dataset holds all of this already"
    assert summary.sources.ok == 3
    assert [Path(export.path or "").name for export in summary.exports] == [EXPORT]
    assert dataset.exports() == [EXPORT]
    assert {name: dataset.table(name).files() for name in parts} == parts  # columns may have been added
    assert query(dataset, "select count(*) as n from export_export where exported_status = 'ok'")["n"].to_pylist() == [
        5
    ]

    assert select_again("dataset", "captioned", ["captioned.rules.motion.min=0"]).kept == 6
    export = export_again("dataset", "export", ["export.max_short_side=64"], engine="local")
    assert sum(export.splits.values()) == 6
    assert set(done) == {"extract", "export"}, "only what exporting does"
    assert verify(DatasetTables.open("dataset")) == []

    done.clear()
    monkeypatch.setattr(TextScorer, "meaning", meaning)
    summary = curate(["manifest.csv"], "dataset", load_recipe(QUICKSTART, SETTINGS), engine="local")
    assert summary.sources.ok == 3
    assert set(done) == {"text", "extract", "export"}, (
        "text is measured again, and nothing is decoded, cut or captioned"
    )
    assert verify(DatasetTables.open("dataset")) == []


def test_info_counts_an_export_from_before_there_were_copies(tmp_path: Path) -> None:
    with tarfile.open(BEFORE / "dataset.tar.xz") as archive:
        archive.extractall(tmp_path, filter="data")
    path = tmp_path / "dataset" / "exports" / EXPORT / "index.parquet"
    index = pq.read_table(path)
    since = [
        "cut",
        "lost_seconds",
        "frames_encoded",
        "encoder",
        *(name for name in index.column_names if "crop_" in name),
    ]
    pq.write_table(index.drop_columns(since), path)
    (export,) = overview(str(tmp_path / "dataset")).exports
    rows = [row for row in index.to_pylist() if row["status"] == "ok"]
    assert (sum(export.splits.values()), export.lost_seconds) == (len(rows), 0.0) == (5, 0.0)
    assert export.seconds == pytest.approx(sum(row["seconds"] for row in rows))
    assert export.bytes == sum(row["bytes"] for row in rows) > 0


def test_a_training_run_goes_on_to_what_it_would_have_come_to(tmp_path: Path) -> None:
    """It was stopped after the first of three steps. Its paths are of another machine: those of the built-in models are found
    by name, and the test puts the export's in."""
    pytest.importorskip("diffusers", reason="needs the extras models and train")
    from safetensors.torch import load_file

    from dailies.pipelines.model_refs import models_of
    from dailies.training.loop import train
    from dailies.training.recipes import TrainingRecipe, UNetSpec, load_recipe

    for archive in ("dataset", "run"):
        with tarfile.open(BEFORE / f"{archive}.tar.xz") as file:
            file.extractall(tmp_path, filter="data")
    export, run = tmp_path / "dataset" / "exports" / EXPORT, tmp_path / "begun"
    facts = json.loads((run / "run.json").read_text())
    (run / "run.json").write_text(json.dumps(facts | {"data": str(export)}))

    tiny = load_recipe("tiny")
    phase = replace(
        tiny.phase("video"), steps=3, batch=2, warmup=1, validate_every=1, save_every=1, samples=1, sample_steps=2,
        validation_clips=1, frames=3, size=(16, 16), guidance=(1.0, 2.0),
    )  # fmt: skip
    unet = UNetSpec(channels=(32,), attention=(False,), heads=1, time_id_width=8)
    recipe: TrainingRecipe = replace(tiny, name="before", unet=unet, phases=(phase,), autocast=False)
    lines: list[str] = []
    train(recipe, export, run, models_of(recipe), resume=True, device="cpu", say=lines.append)
    assert "video: goes on from step 1" in lines

    (entry,) = json.loads((run / "run.json").read_text())["phases"]
    came_to = [[0, 1.4089329640070598], [1, 1.393557866414388], [2, 1.393620769182841], [3, 1.394728144009908]]
    for (step, loss), (step_before, loss_before) in zip(entry["validation"], came_to, strict=True):
        assert step == step_before
        assert loss == pytest.approx(loss_before, rel=1e-4)  # processors add up in other orders
    weights = load_file(run / entry["checkpoint"] / "unet_ema" / "diffusion_pytorch_model.safetensors")
    total = float(sum(weight.double().abs().sum() for weight in weights.values()))
    assert total == pytest.approx(12883.458374210171, rel=1e-6)


def test_latents_say_what_they_are_for() -> None:
    pytest.importorskip("diffusers", reason="needs the extras models and train")
    from dailies.training.data.manifest import parse_manifest

    manifest = parse_manifest((BEFORE / "latents.json").read_bytes(), "latents.json")
    assert (manifest.recipe, manifest.phase, manifest.views, manifest.shown) == ("tiny", "hq", 1, (0,))
    assert [(bucket.size, bucket.frames) for bucket in manifest.buckets] == [((16, 16), 3)]
