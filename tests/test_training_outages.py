"""What training makes of an error while it reads: a bad item is replaced and said, what is no item's fault ends the run."""

from __future__ import annotations

import dataclasses
import errno
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

torch = pytest.importorskip("torch")
pytest.importorskip("diffusers")

from dailies.curation.errors import ExportError, Outage, OutOfMemory, Unreadable  # noqa: E402
from dailies.training.data import load  # noqa: E402
from dailies.training.data.batches import Batches  # noqa: E402
from dailies.training.data.pictures import folder_pictures, parquet_pictures  # noqa: E402
from dailies.training.data.storage import of_row_group  # noqa: E402
from dailies.training.diffusion.encoders import Encoders  # noqa: E402
from dailies.training.recipes.phase import Phase  # noqa: E402
from dailies.training.recipes.recipe import TrainingRecipe, UNetSpec  # noqa: E402
from tests.training_export import MODELS  # noqa: E402

PHASE = Phase(name="image", task="text-to-image", images="folder", image_path=".", size=(16, 16), steps=1, batch=2)


def picture_folder(folder: Path, names: str = "abcdef") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for number, name in enumerate(names):
        Image.fromarray(np.full((24, 24, 3), 40 * number, np.uint8)).save(folder / f"{name}.png")
        (folder / f"{name}.txt").write_text(f"picture {name}")
    return folder


@pytest.fixture
def batches(tmp_path: Path) -> Any:
    phase = dataclasses.replace(PHASE, image_path=str(picture_folder(tmp_path / "pictures")))
    unet = UNetSpec(channels=(32,), attention=(False,), heads=1)
    recipe = TrainingRecipe(name="outages", unet=unet, text_tokens=8, phases=(phase,), autocast=False)
    made = Batches(recipe, phase, load(recipe, phase, {}), Encoders(MODELS, text_tokens=8), 1.0)
    yield made
    made.close()


def failing(batches: Batches, monkeypatch: pytest.MonkeyPatch, error: Exception, *items: int) -> None:
    (loader,) = {id(loader): loader for loader in list(batches._loaders.values())[:1]}.values()
    load = loader.load

    def bad(spec: Any, column: str | None) -> Any:
        if not items or spec.item in items:
            raise error
        return load(spec, column)

    monkeypatch.setattr(loader, "load", bad)


@pytest.mark.parametrize("error", [ValueError("odd"), RuntimeError("decoder"), KeyError("field"), OSError("broken")])
def test_whatever_a_bad_item_raises_it_is_replaced_and_keeps_its_reason(
    error: Exception, batches: Batches, monkeypatch: pytest.MonkeyPatch
) -> None:
    failing(batches, monkeypatch, error, 1)
    (name,) = [batches.split.train[0].items.clip_ids[1]]
    batches.check_readable()
    assert list(batches.failed) == [name]
    assert batches.failed[name].startswith(f"defect: {type(error).__name__}: ")


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE, errno.ENOMEM])
def test_what_is_no_items_fault_ends_the_run_and_marks_no_item(
    number: int, batches: Batches, monkeypatch: pytest.MonkeyPatch
) -> None:
    failing(batches, monkeypatch, OSError(number, os.strerror(number), "a.png"), 1)
    with pytest.raises(Outage) as caught:
        batches.check_readable()
    assert os.strerror(number) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not batches.failed


def test_memory_that_runs_out_ends_the_run(batches: Batches, monkeypatch: pytest.MonkeyPatch) -> None:
    failing(batches, monkeypatch, MemoryError("of 3 GB"))
    with pytest.raises(OutOfMemory, match="of 3 GB"):
        batches.training(0)
    assert not batches.failed


def test_a_folder_that_goes_away_ends_the_run_and_one_picture_does_not(batches: Batches) -> None:
    root = Path(str(batches.phase.image_path))
    names = batches.split.train[0].items.clip_ids
    (root / names[1]).unlink()
    batches.check_readable()
    assert list(batches.failed) == [names[1]]
    shutil.rmtree(root)
    with pytest.raises(Outage, match="resumes once that is mended"):
        batches.training(0)
    root.mkdir()  # as the place of a file system that is not mounted
    with pytest.raises(Outage, match="resumes once that is mended"):
        batches.training(0)
    assert list(batches.failed) == [names[1]]


def test_damage_within_a_shard_costs_its_items_and_a_shard_that_is_away_the_run(tmp_path: Path) -> None:
    shard = tmp_path / "a.parquet"
    pq.write_table(pa.table({"image": [b"0123456789" * 90] * 3, "text": ["a"] * 3}), shard)
    good = shard.read_bytes()
    pictures = parquet_pictures(shard, (16, 16))
    shard.write_bytes(b"PAR1" + bytes(len(good) - 8) + b"PAR1")
    with pytest.raises(Unreadable, match=r"^a\.parquet, row group 0: "):
        pictures.frames(0, 0, 1)
    shard.unlink()
    with pytest.raises(Outage, match=r"a\.parquet"):
        pictures.frames(0, 0, 1)
    with pytest.raises(OutOfMemory), of_row_group(shard, 0):
        raise pa.ArrowMemoryError("malloc of size 3 failed")


def test_a_folders_pictures_are_read_without_litter(tmp_path: Path) -> None:
    root = picture_folder(tmp_path / "pictures", "ab")
    (root / "__MACOSX").mkdir()
    for litter in ("._a.png", "__MACOSX/b.png"):
        (root / litter).write_bytes(b"\0\5\26\7")
    assert folder_pictures(root, (16, 16)).clip_ids == ["a.png", "b.png"]
    pq.write_table(pa.table({"image": [b"x"], "text": ["a"]}), tmp_path / "a.parquet")
    (tmp_path / "._a.parquet").write_bytes(b"\0\5\26\7")
    assert parquet_pictures(tmp_path, (16, 16)).clip_ids == ["a.parquet:0:0"]


def test_a_picture_file_that_is_no_parquet_is_named(tmp_path: Path) -> None:
    (tmp_path / "half.parquet").write_bytes(b"PAR1 and so on")
    with pytest.raises(ExportError, match=r"image_path=.*: half\.parquet cannot be read: .*; put it back whole"):
        parquet_pictures(tmp_path, (16, 16))
