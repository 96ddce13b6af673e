"""What a run compares of its data and models: bytes and not places, without what desktops leave there."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

pytest.importorskip("torch")
pytest.importorskip("diffusers")

from dailies.training.data.content import model_content, shards_content
from dailies.training.data.export import Export
from dailies.zoo.formats import hashes

LITTER = b"\0\5\26\7\0\2\0\0Mac OS X"


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(hashes.ENV, str(tmp_path / "cache"))


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
    monkeypatch.setattr(hashes, "sha256", lambda path: [read.append(path.name), sha256(path)][1])
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
