"""What a folder lacks is refused, by training and the zoo alike, and never filled with noise."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("diffusers")

from safetensors.torch import load_file, save_file  # noqa: E402

from dailies.curation.errors import ModelError  # noqa: E402
from dailies.training.data.manifest import weights_hash  # noqa: E402
from dailies.training.diffusion.encoders import (  # noqa: E402
    Encoders,
    ImageEncoder,
    Models,
    TextEncoder,
    inspect_encoders,
)
from dailies.zoo.catalog import resolve  # noqa: E402
from dailies.zoo.formats import safetensors_info  # noqa: E402
from dailies.zoo.formats.components import load_image_model, load_model, load_text_model, load_tokenizer  # noqa: E402
from dailies.zoo.load import load_pipeline  # noqa: E402
from tests import svd_format, tiny_run  # noqa: E402

CPU = torch.device("cpu")
CLIP = resolve("zoo:clip-world")
CONSUMERS: dict[str, Callable[[Path], Any]] = {
    "training's text encoder": lambda folder: TextEncoder(folder, 8, CPU),
    "training's image encoder": lambda folder: ImageEncoder(folder, CPU),
    "publishing's text model": load_text_model,
    "publishing's image model": load_image_model,
}
WEIGHTS = "model.safetensors"
OWN = {"text": "text_model.final_layer_norm.weight", "image": "vision_model.post_layernorm.weight"}


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    folder = tmp_path / "clip"
    shutil.copytree(CLIP, folder)
    return folder


def change(folder: Path, edit: Callable[[dict[str, Any]], None]) -> None:
    tensors = load_file(folder / "model.safetensors")
    edit(tensors)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def half(consumer: str) -> str:
    return "text" if "text" in consumer else "image"


@pytest.mark.parametrize("consumer", CONSUMERS)
def test_a_tensor_that_is_missing_is_named(clip: Path, consumer: str) -> None:
    name = OWN[half(consumer)]
    change(clip, lambda tensors: tensors.__delitem__(name))
    with pytest.raises(ModelError, match=r"1 tensors are missing, .*layer_?norm.weight first"):
        CONSUMERS[consumer](clip)


@pytest.mark.parametrize("consumer", CONSUMERS)
def test_a_tensor_that_has_another_name_is_named(clip: Path, consumer: str) -> None:
    name = OWN[half(consumer)]
    change(clip, lambda tensors: tensors.__setitem__(name + "_", tensors.pop(name)))
    with pytest.raises(ModelError, match="1 tensors are missing"):
        CONSUMERS[consumer](clip)


@pytest.mark.parametrize("consumer", CONSUMERS)
def test_a_tensor_that_nothing_uses_is_named(clip: Path, consumer: str) -> None:
    name = OWN[half(consumer)]
    change(clip, lambda tensors: tensors.__setitem__(name.replace("layer", "more"), tensors[name].clone()))
    with pytest.raises(ModelError, match="1 tensors are unused"):
        CONSUMERS[consumer](clip)


@pytest.mark.parametrize("consumer", CONSUMERS)
def test_a_tensor_of_another_shape_is_named(clip: Path, consumer: str) -> None:
    name = OWN[half(consumer)]
    change(clip, lambda tensors: tensors.__setitem__(name, tensors[name][:-1].clone()))
    with pytest.raises(ModelError, match=r"1 tensors are of another shape, .*layer_?norm\.weight first"):
        CONSUMERS[consumer](clip)


@pytest.mark.parametrize("consumer", CONSUMERS)
def test_a_pickle_is_not_opened(clip: Path, consumer: str) -> None:
    class Attack:
        def __reduce__(self) -> Any:
            return Path.touch, (clip / "run",)

    (clip / "model.safetensors").unlink()
    torch.save({"weights": Attack()}, clip / "pytorch_model.bin")
    with pytest.raises(ModelError, match=r"no weights in safetensors; pytorch_model\.bin can run code"):
        CONSUMERS[consumer](clip)
    assert not (clip / "run").exists()


@pytest.mark.parametrize("consumer", CONSUMERS)
def test_an_adapter_is_not_taken_for_a_model(clip: Path, consumer: str) -> None:
    (clip / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": str(CLIP), "peft_type": "LORA"}))
    with pytest.raises(ModelError, match="it is an adapter"):
        CONSUMERS[consumer](clip)


@pytest.mark.parametrize("lacking", ["tokenizer.json", "words"])
def test_a_text_model_without_words_is_refused_before_any_work(clip: Path, lacking: str) -> None:
    if lacking == "words":
        row = json.loads((clip / "tokenizer.json").read_text())
        special = [token["content"] for token in row["added_tokens"]]
        row["model"]["vocab"] = {word: number for number, word in enumerate(special)}
        row["model"]["merges"] = []
        (clip / "tokenizer.json").write_text(json.dumps(row))
    else:
        (clip / lacking).unlink()
        with pytest.raises(ModelError, match="no vocabulary"):
            inspect_encoders(Models(vae=str(resolve("zoo:vae-world")), text=str(clip)))
    with pytest.raises(ModelError, match=r"no vocabulary|knows no words"):
        TextEncoder(clip, 8, CPU)


def test_a_tokenizer_of_a_larger_model_is_refused(clip: Path) -> None:
    config = json.loads((clip / "config.json").read_text())
    config["text_config"]["vocab_size"] = 100
    (clip / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelError, match="ids up to 511; the text model has 100 vectors"):
        load_tokenizer(clip)


def test_prompts_differ_and_loads_do_not(clip: Path) -> None:
    one, other = TextEncoder(clip, 8, CPU), TextEncoder(clip, 8, CPU)
    red, blue = one(["a red circle", "a blue square"])
    assert not torch.equal(red, blue)
    assert torch.equal(red, other(["a red circle"])[0])


def test_every_model_of_a_run_is_loaded_before_its_work(clip: Path) -> None:
    """The image encoder is needed by the last phase alone."""
    name = OWN["image"]
    change(clip, lambda tensors: tensors.__delitem__(name))
    models = Models(vae=str(resolve("zoo:vae-world")), text=str(CLIP), image=str(clip))
    with pytest.raises(ModelError, match="1 tensors are missing"):
        Encoders(models, text_tokens=8).load(("vae", "text", "image"))


@pytest.mark.parametrize("part", ["unet", "vae", "image_encoder"])
@pytest.mark.parametrize("how", ["missing", "unused"])
def test_a_published_folder_is_loaded_whole_or_not_at_all(tmp_path: Path, part: str, how: str) -> None:
    folder = svd_format.svd(tmp_path / "svd")
    load_pipeline(folder, device="cpu")
    (file,) = (folder / part).glob("*.safetensors")
    tensors = load_file(file)
    if how == "missing":
        del tensors[sorted(tensors)[0]]
    else:
        tensors["one.more"] = torch.zeros(1)
    save_file(tensors, file, metadata={"format": "pt"})
    with pytest.raises(ModelError, match=f"1 tensors are {how}"):
        load_pipeline(folder, device="cpu")


def test_a_published_folder_without_its_words_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "clip"
    models = tiny_run.make_models(tmp_path)
    load_tokenizer(models["text"])
    (folder / "tokenizer.json").unlink()
    with pytest.raises(ModelError, match="no vocabulary"):
        load_tokenizer(folder)


def test_a_vae_is_loaded_by_the_same_way_in(tmp_path: Path) -> None:
    from diffusers import AutoencoderKL

    shutil.copytree(resolve("zoo:vae-world"), tmp_path / "vae")
    (file,) = (tmp_path / "vae").glob("*.safetensors")
    tensors = load_file(file)
    tensors["more"] = torch.zeros(1)
    save_file(tensors, file)
    with pytest.raises(ModelError, match="unused, more first"):
        load_model(AutoencoderKL, tmp_path / "vae")


def test_what_a_desktop_leaves_in_a_models_folder_is_no_weights(clip: Path) -> None:
    before, size = weights_hash(str(clip)), safetensors_info.size(clip)
    for name in (".DS_Store", f"._{WEIGHTS}", "Thumbs.db", "desktop.ini"):
        (clip / name).write_bytes(b"\0litter")
    assert (weights_hash(str(clip)), safetensors_info.size(clip)) == (before, size)
    Encoders(Models(text=str(clip), image=str(clip)), text_tokens=8).load(("text", "image"))
    (clip / WEIGHTS).unlink()
    with pytest.raises(ModelError, match="no weights in safetensors"):
        load_text_model(clip)
