"""What a run compares of its data and models: bytes and not places, without what desktops leave there."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

pytest.importorskip("torch")
pytest.importorskip("diffusers")

from dailies.curation.errors import RunError
from dailies.training.data import MAIN
from dailies.training.data.content import model_content, shards_content
from dailies.training.data.export import Export
from dailies.training.diffusion.encoders import Models
from dailies.training.recipes.phase import Phase
from dailies.training.recipes.recipe import TrainingRecipe, UNetSpec
from dailies.training.run_log import Run
from dailies.zoo.formats import hashes

LITTER = b"\0\5\26\7\0\2\0\0Mac OS X"


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DAILIES_CACHE", str(tmp_path / "cache"))


def model_folder(place: Path) -> Path:
    place.mkdir()
    (place / "config.json").write_text("{}")
    (place / "model.safetensors").write_bytes(b"weights")
    return place


def test_a_models_content_is_what_it_was_with_litter_and_without(tmp_path: Path) -> None:
    place = model_folder(tmp_path / "model")
    lines = sorted(f"{hashlib.sha256(path.read_bytes()).hexdigest()} {path.name}\n" for path in place.iterdir())
    expected = hashlib.sha256("".join(lines).encode()).hexdigest()
    assert model_content(place) == expected
    for litter in ("._model.safetensors", "._config.json", ".DS_Store"):
        (place / litter).write_bytes(LITTER)
    assert model_content(place) == expected


def test_a_models_weights_are_read_again_only_where_they_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place, read = model_folder(tmp_path / "model"), []
    sha256 = hashes.sha256
    monkeypatch.setattr(hashes, "sha256", lambda path, bar: [read.append(path.name), sha256(path, bar)][1])
    before = model_content(place)
    assert model_content(place) == before
    assert read == ["config.json", "model.safetensors"]
    (place / "model.safetensors").write_bytes(b"others!")
    assert model_content(place) != before
    assert read[2:] == ["model.safetensors"]


def test_an_exports_content_is_what_it_was_with_litter_and_without(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    pq.write_table(pa.table({"clip_id": ["a"], "caption": ["a ball"]}), tmp_path / "data/train-00000.parquet")
    before = shards_content(tmp_path)
    (tmp_path / "data/._train-00000.parquet").write_bytes(LITTER)
    assert shards_content(tmp_path) == before
    assert len(Export(tmp_path).rows) == 1


# ---- pictures -------------------------------------------------------------------------------------------------------

PHASE = Phase(name="image", task="text-to-image", images="folder", image_path=".", size=(16, 16), steps=1, batch=1)
UNET = UNetSpec(channels=(32,), attention=(False,), heads=1)


def recipe_of(root: Path, *more: Phase, **changes: Any) -> TrainingRecipe:
    images: Any = "parquet" if root.suffix == ".parquet" else "folder"
    phase = dataclasses.replace(PHASE, images=images, image_path=str(root), **changes)
    return TrainingRecipe(name="content", unet=UNET, text_tokens=8, phases=(phase, *more), autocast=False)


def picture(shade: int) -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (24, 24), (shade, 0, 0)).save(out, "bmp")  # whose size says nothing of its pixels
    return out.getvalue()


def make_pictures(root: Path, shade: int = 9, caption: str = "red") -> Path:
    """Pictures a and b, the second as told, as a folder or as one Parquet file by ``root``'s suffix."""
    if root.suffix == ".parquet":
        pq.write_table(pa.table({"image": [picture(1), picture(shade)], "text": ["one", caption]}), root)
        return root
    root.mkdir(exist_ok=True)
    for name, red, text in (("a", 1, "one"), ("b", shade, caption)):
        (root / f"{name}.bmp").write_bytes(picture(red))
        (root / f"{name}.txt").write_text(text)
    return root


@pytest.fixture(scope="module")
def export(tmp_path_factory: pytest.TempPathFactory) -> Export:
    folder = tmp_path_factory.mktemp("content") / "export"
    (folder / "data").mkdir(parents=True)
    pq.write_table(pa.table({"clip_id": ["a"]}), folder / "data/train-00000.parquet")
    return Export(folder)


def begin(out: Path, recipe: TrainingRecipe, export: Export) -> dict[str, Any]:
    """Begin or resume a run as far as its log goes, its first phase begun; what run.json then holds."""
    run = Run(out, recipe, {MAIN: export}, Models())
    if not run.facts["phases"]:
        run.facts["phases"] = [{"name": "image"}]
    run.write()
    facts: dict[str, Any] = json.loads((out / "run.json").read_text())
    return facts


@pytest.mark.parametrize("name", ["pictures", "pictures.parquet"])
def test_pictures_may_move_and_others_are_refused(name: str, export: Export, tmp_path: Path) -> None:
    begin(tmp_path / "run", recipe_of(make_pictures(tmp_path / name)), export)
    (tmp_path / "moved").mkdir()
    moved = (tmp_path / name).rename(tmp_path / "moved" / name)
    facts = begin(tmp_path / "run", recipe_of(moved), export)
    assert facts["recipe"]["phases"][0]["image_path"] == str(moved)
    for change in ({"shade": 10}, {"caption": "RED"}):
        make_pictures(moved, **change)  # type: ignore[arg-type]
        with pytest.raises(RunError, match=r"^phase image: image_path: .* as its bytes were then .*; put the old ones"):
            begin(tmp_path / "run", recipe_of(moved), export)
    make_pictures(moved)
    begin(tmp_path / "run", recipe_of(moved), export)
    with pytest.raises(RunError, match=r"^recipe: .* was begun with recipe\.phases\[image\]\.lr [^;]*; take another"):
        begin(tmp_path / "run", recipe_of(moved.rename(tmp_path / name), lr=0.5), export)


def test_a_picture_that_was_renamed_or_added_is_another_content(export: Export, tmp_path: Path) -> None:
    root = make_pictures(tmp_path / "pictures")
    begin(tmp_path / "run", recipe_of(root), export)
    (root / "._a.bmp").write_bytes(LITTER)
    begin(tmp_path / "run", recipe_of(root), export)
    for suffix in (".bmp", ".txt"):
        (root / f"b{suffix}").rename(root / f"c{suffix}")
    with pytest.raises(RunError, match="phase image: image_path"):
        begin(tmp_path / "run", recipe_of(root), export)


def test_pictures_of_a_phase_that_is_not_trained_yet_may_come_and_change(export: Export, tmp_path: Path) -> None:
    root, later = make_pictures(tmp_path / "pictures"), tmp_path / "later"
    recipe = recipe_of(root, dataclasses.replace(PHASE, name="later", image_path=str(later)))
    assert begin(tmp_path / "run", recipe, export)["content"]["images"].keys() == {"image"}
    contents = []
    later.mkdir()
    (later / "a.bmp").write_bytes(picture(3))  # whose caption is still to come
    assert begin(tmp_path / "run", recipe, export)["content"]["images"].keys() == {"image"}
    for shade in (3, 4):
        make_pictures(later, shade)
        contents.append(begin(tmp_path / "run", recipe, export)["content"]["images"]["later"])
    assert contents[0] != contents[1]
    root.rename(tmp_path / "away")
    assert begin(tmp_path / "run", recipe, export)["content"]["images"].keys() == {"image", "later"}
    make_pictures(root, 5)
    with pytest.raises(RunError, match="phase image: image_path"):
        begin(tmp_path / "run", recipe, export)


def test_runs_that_kept_no_content_of_pictures_are_told_by_place(export: Export, tmp_path: Path) -> None:
    root = make_pictures(tmp_path / "pictures")
    facts = begin(tmp_path / "run", recipe_of(root), export)
    del facts["content"]["images"]
    for moved in (False, True):
        (tmp_path / "run" / "run.json").write_text(json.dumps(facts))
        if not moved:
            begin(tmp_path / "run", recipe_of(root), export)
            continue
        with pytest.raises(RunError, match=r"^recipe: .* recipe\.phases\[image\]\.image_path '"):
            begin(tmp_path / "run", recipe_of(root.rename(tmp_path / "moved")), export)
