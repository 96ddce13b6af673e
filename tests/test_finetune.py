"""Starting from weights of your own: SVD's format, SD's format, and docs/training.md as it is written."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("diffusers")
pytest.importorskip("transformers")

from safetensors.torch import load_file  # noqa: E402

from tests import svd_format  # noqa: E402
from tests.conftest import Dailies  # noqa: E402
from tests.training_export import build_export  # noqa: E402

DOCS = Path(__file__).resolve().parents[1] / "docs" / "training.md"
# What makes the documented commands small enough for a test.
SMALL = {
    "size": "[32, 24]", "frames": 3, "steps": 2, "batch": 2, "accumulate": 2, "checkpoint_levels": "[0]", "warmup": 0,
    "validate_every": 2, "sample_every": 2, "save_every": 2, "validation_clips": 1, "samples": 1, "sample_steps": 2,
}  # fmt: skip
SETS = [word for name, value in SMALL.items() for word in ("--set", f"*.{name}={value}")]
UNET = "diffusion_pytorch_model.safetensors"
RECIPE = """
from dailies.training.recipes.phase import Phase
from dailies.training.recipes.recipe import TrainingRecipe


def recipe() -> TrainingRecipe:
    image = Phase(name="image", task="text-to-image", steps=2, batch=2, size=(32, 24))
    video = Phase(name="video", task="text-to-video", steps=2, batch=2, size=(32, 24), frames=3)
    return TrainingRecipe(name="mine", unet=None, phases=(image, video), text_tokens=8, models="given", init_from="given")
"""


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def export(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = build_export(
        tmp_path_factory.mktemp("finetune") / "export", clips=6, size=(64, 48), frames=(12, 15), validation=3
    )
    (folder / "index.parquet").touch()
    return folder


@pytest.fixture(scope="module")
def svd(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return svd_format.svd(tmp_path_factory.mktemp("weights") / "svd")


def documented(name: str) -> list[str]:
    """The words after ``dailies`` of the command in docs/training.md that begins so."""
    blocks = re.findall(r"```sh\n(.*?)```", DOCS.read_text(encoding="utf-8"), re.S)
    lines = [line for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    found = next(line for line in lines if line.startswith(f"dailies {name} ") and "--dry-run" not in line)
    return shlex.split(found, comments=True)[1:]


@pytest.mark.parametrize("recipe", ["finetune", "lora"])
def test_the_documented_finetune_of_an_svd_checkpoint(
    recipe: str, dailies: Dailies, export: Path, svd: Path, tmp_path: Path
) -> None:
    words = documented(f"train {recipe}")
    places = {"--data": export, "--from": svd, "--out": tmp_path / "run"}
    for option, place in places.items():
        words[words.index(option) + 1] = str(place)
    done = dailies(*words, *SETS)
    assert done.returncode == 0, done.stderr
    (entry,) = json.loads((tmp_path / "run" / "run.json").read_text())["phases"]
    assert entry["done"]
    before, after = load_file(svd / "unet" / UNET), load_file(tmp_path / "run" / entry["checkpoint"] / "unet" / UNET)
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed
    assert recipe == "finetune" or all("temporal" in name and ".attn" in name for name in changed)
    _pipeline_runs(svd, tmp_path / "run" / entry["checkpoint"] / "unet_ema")
    words = documented("zoo publish")
    words[words.index("my-run")], words[words.index("my-zoo")] = str(tmp_path / "run"), str(tmp_path / "zoo")
    done = dailies(*words)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "zoo" / "my-model" / "model_index.json").is_file()


def _pipeline_runs(svd: Path, unet: Path) -> None:
    """diffusers' own pipeline takes the trained UNet."""
    import numpy as np
    from diffusers import StableVideoDiffusionPipeline, UNetSpatioTemporalConditionModel
    from PIL import Image

    made = UNetSpatioTemporalConditionModel.from_pretrained(unet)
    pipeline = StableVideoDiffusionPipeline.from_pretrained(svd, unet=made)
    pipeline.set_progress_bar_config(disable=True)
    image = Image.fromarray(np.full((24, 32, 3), 90, np.uint8))
    frames = pipeline(image, height=24, width=32, num_frames=3, num_inference_steps=2, output_type="np").frames
    assert frames.shape == (1, 3, 24, 32, 3)
    assert np.isfinite(frames).all()


def test_an_image_model_becomes_a_video_model(dailies: Dailies, export: Path, tmp_path: Path) -> None:
    weights = svd_format.sd(tmp_path / "sd")
    (tmp_path / "mine.py").write_text(RECIPE)
    less = ("save_every", "validate_every", "validation_clips", "samples", "sample_steps")
    more = [word for name in less for word in ("--set", f"*.{name}={SMALL[name]}")]
    done = dailies("train", tmp_path / "mine.py", "--data", export, "--from", weights, "--out", tmp_path / "run", *more)
    assert done.returncode == 0, done.stderr
    assert f"from {weights / 'unet'}" in done.stderr
    assert "from image's averaged weights" in done.stderr
    image, video = json.loads((tmp_path / "run" / "run.json").read_text())["phases"]
    trained = load_file(tmp_path / "run" / image["checkpoint"] / "unet_ema" / UNET)
    given = load_file(weights / "unet" / "diffusion_pytorch_model.safetensors")
    apart = (trained["conv_in.weight"] - given["conv_in.weight"]).abs().max()
    assert 0 < apart < 0.02  # from the given weights by two steps
    assert video["done"]


def test_what_does_not_fit_is_said_before_any_work(dailies: Dailies, export: Path, svd: Path, tmp_path: Path) -> None:
    def refused(*words: object) -> str:
        done = dailies("train", *words, "--data", export, "--out", tmp_path / "run")
        assert done.returncode == 2
        assert not (tmp_path / "run").exists()
        return done.stderr

    assert "unet.channels=(64, 64): the weights to start from have (32, 32)" in refused("tiny", "--from", svd)
    assert "lacks weights to start from (--from), a VAE (--vae), an image encoder" in refused("finetune")
    assert "phase i2v: size.1=570: must be a multiple of 8" in refused(
        "finetune", "--from", svd, "--set", "i2v.size=[1000, 570]"
    )
    assert "no unet/config.json" in refused("finetune", "--from", tmp_path)
    assert "--set video.lr=1: no phase 'video'; allowed: i2v, *\n" in refused("finetune", "--set", "video.lr=1")
    assert "--set i2v.rate=1: a phase has no key 'rate' (did you mean rates?)" in refused(
        "finetune", "--set", "i2v.rate=1"
    )
    assert "phase i2v: steps='many': must be a whole number" in refused("finetune", "--set", "i2v.steps=many")
    assert "no function 'other'" in refused(f"{_file(tmp_path)}:other")


def _file(folder: Path) -> Path:
    (folder / "mine.py").write_text(RECIPE)
    return folder / "mine.py"
