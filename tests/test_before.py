"""What was made before the files moved to their rooms is opened, resumed and exported, and no stage runs again."""

from __future__ import annotations

import json
import tarfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dailies.curation.tables import Dataset, query, verify
from dailies.pipelines import engine as engines
from dailies.pipelines.recipe import load_recipe
from dailies.pipelines.run import curate, export_again, select_again
from tests.s3_server import s3_server

BEFORE = Path(__file__).parent / "before"
TABLES: dict[str, dict[str, str]] = json.loads((BEFORE / "tables.json").read_text())
SETTINGS = (
    *("cut.validation_share=0.3", "cut.test_share=0.1", "export.max_short_side=96"),
    *("main.rules.motion.min=0.05", "captioned.rules.motion.min=0.05"),
)
EXPORT = "export@c5f23466"


@pytest.mark.parametrize("recipe", TABLES)
def test_the_built_in_recipes_keep_their_table_names(recipe: str) -> None:
    assert load_recipe(recipe).tables() == TABLES[recipe]


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
    run = engines.run

    def counting(work: Any, bundles: Any, engine: Any) -> Iterator[Any]:
        def counted() -> Iterator[Any]:
            for bundle in bundles:
                done[work.name] += len(bundle)
                yield bundle

        return run(work, counted(), engine)

    monkeypatch.setattr(engines, "run", counting)
    dataset = Dataset.open("dataset")
    versions = {name: dataset.table(name).version() for name in dataset.tables() if "@" in name}
    assert verify(dataset) == []

    summary = curate(["manifest.csv"], "dataset", load_recipe("quickstart", SETTINGS), engine="local")
    assert not done, "the dataset holds all of this already"
    assert summary.sources.ok == 3
    assert [Path(export.path or "").name for export in summary.exports] == [EXPORT]
    assert dataset.exports() == [EXPORT]
    assert {name: dataset.table(name).version() for name in versions} == versions
    assert query(dataset, "select count(*) as n from export_export where status = 'ok'")["n"].to_pylist() == [5]

    assert select_again("dataset", "captioned", ["captioned.rules.motion.min=0"]).kept == 6
    export = export_again("dataset", "export", ["export.max_short_side=64"], engine="local")
    assert sum(export.splits.values()) == 6
    assert set(done) == {"extract", "export"}, "only what exporting does"
    assert verify(Dataset.open("dataset")) == []
