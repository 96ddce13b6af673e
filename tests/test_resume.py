"""Going on with a run: whatever moment it was killed at, on the same models and clips and no others."""

from __future__ import annotations

import dataclasses
import json
import multiprocessing
import random
import time
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("diffusers")
pytest.importorskip("transformers")

from safetensors.torch import load_file  # noqa: E402

from dailies.curation.errors import UsageError  # noqa: E402
from dailies.training import checkpoint  # noqa: E402
from dailies.training.diffusion.encoders import inspect_encoders  # noqa: E402
from dailies.training.loop import train  # noqa: E402
from dailies.training.models import is_temporal  # noqa: E402
from dailies.training.phase_state import check  # noqa: E402
from dailies.training.recipes.phase import Phase  # noqa: E402
from dailies.training.recipes.recipe import TrainingRecipe, UNetSpec  # noqa: E402
from dailies.training.run_log import Run  # noqa: E402
from tests import svd_format  # noqa: E402
from tests.training_export import MODELS, build_export  # noqa: E402

SMALL = {"batch": 2, "size": (32, 24), "validate_every": 2, "validation_clips": 1, "validation_sigmas": (1.0,),
         "save_every": 2, "samples": 2, "sample_steps": 2, "steps": 4, "warmup": 0}  # fmt: skip
RECIPE = TrainingRecipe(
    name="resume",
    unet=UNetSpec(channels=(32,), attention=(True,), heads=1),
    text_tokens=8,
    phases=(
        Phase(name="image", task="text-to-image", **SMALL),
        Phase(name="video", task="image-to-video", frames=3, trains="temporal", **SMALL),
    ),
)


class Killed(BaseException):
    """Nothing in the loop handles it, so that what is left is what kill -9 leaves."""


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def export(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("resume") / "export"
    return build_export(folder, clips=6, size=(64, 48), frames=(24, 30), validation=3)


@pytest.fixture(scope="module")
def whole(export: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.set_num_threads(1)
    return train(RECIPE, export, tmp_path_factory.mktemp("resume") / "run", MODELS, say=lambda line: None).folder


def quiet(line: str) -> None:
    pass


def comparable(run: Path) -> list[Any]:
    """What must be as if nothing had happened: losses, validation losses, checkpoints and weights."""
    found: list[Any] = []
    for entry in json.loads((run / "run.json").read_text())["phases"]:
        lines = [
            json.loads(line) for line in (run / "phases" / entry["name"] / "metrics.jsonl").read_text().splitlines()
        ]
        figures = [(line["step"], line.get("loss"), line.get("validation_loss")) for line in lines]
        weights = (run / entry["checkpoint"] / "unet" / checkpoint.WEIGHTS).read_bytes()
        found.append([entry["validation"], entry["checkpoint"], entry["done"], figures, weights])
    return found


@pytest.mark.parametrize("moment", [1, 2, 3, 4])
def test_a_kill_between_a_checkpoint_and_run_json_loses_nothing(
    moment: int, whole: Path, export: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, saved = checkpoint.save, []

    def save(*args: Any, **how: Any) -> Path:
        made = real(*args, **how)
        saved.append(made)
        if len(saved) == moment:
            raise Killed
        return made

    monkeypatch.setattr(checkpoint, "save", save)
    with pytest.raises(Killed):
        train(RECIPE, export, tmp_path / "run", MODELS, say=quiet)
    monkeypatch.setattr(checkpoint, "save", real)
    train(RECIPE, export, tmp_path / "run", MODELS, say=quiet)
    assert comparable(tmp_path / "run") == comparable(whole)


def test_the_board_shows_what_the_lines_say(whole: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    lines = [json.loads(line) for line in (whole / "phases/image/metrics.jsonl").read_text().splitlines()]
    board = EventAccumulator(str(whole / "phases/image/tensorboard"))
    board.Reload()
    for name in ("loss", "lr", "validation_loss", "samples_per_second", "tflops_per_second"):
        said = [(line["step"], line[name]) for line in lines if name in line]
        assert len(said) >= 3
        shown = [(event.step, event.value) for event in board.Scalars(name)]
        assert shown == [(step, pytest.approx(value, rel=1e-5)) for step, value in said]


def _work(export: str, out: str) -> None:
    torch.set_num_threads(1)
    train(RECIPE, export, out, MODELS, say=quiet)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_killed_at_random_moments_a_run_ends_as_if_it_had_not_been(
    seed: int, whole: Path, export: Path, tmp_path: Path
) -> None:
    """kill -9 until it comes through, each time a random while after its first step of that life."""
    drawn, lives, out = random.Random(seed), 0, tmp_path / "run"
    while True:
        process = multiprocessing.get_context("spawn").Process(target=_work, args=(str(export), str(out)))
        process.start()
        lives += 1
        before = _written(out)
        while process.is_alive() and _written(out) == before:
            time.sleep(0.01)
        process.join(drawn.uniform(0, 1.5) if lives < 6 else 240)
        if process.exitcode is not None:
            break
        process.kill()
        process.join()
    assert process.exitcode == 0
    assert comparable(out) == comparable(whole)


def _written(out: Path) -> list[int]:
    return [path.stat().st_size for path in sorted(out.rglob("metrics.jsonl"))]


def test_new_input_channels_are_trained_whatever_the_phase_trains(whole: Path) -> None:
    image, video = (
        load_file(whole / "phases" / name / "step-000004/unet/" / checkpoint.WEIGHTS) for name in ("image", "video")
    )
    assert image["conv_in.weight"].shape[1] == 4
    assert video["conv_in.weight"][:, 4:].abs().max() > 0
    # It trains temporal layers: of all the rest, only what was widened has moved from the average that it began with.
    image = load_file(whole / "phases/image/step-000004/unet_ema" / checkpoint.WEIGHTS)
    spatial = [name for name in image if not is_temporal(name) and not name.startswith("add_embedding.")]
    attends = [name for name in spatial if ".attn2.to_k." in name or ".attn2.to_v." in name]  # new, random weights
    moved = [name for name in spatial if name not in attends and not torch.equal(image[name], video[name])]
    assert moved == ["conv_in.weight"]


def test_memory_is_saved_by_showing_less_and_the_run_goes_on(whole: Path, export: Path, tmp_path: Path) -> None:
    fewer = tuple(dataclasses.replace(phase, samples=1) for phase in RECIPE.phases)
    recipe = dataclasses.replace(RECIPE, phases=fewer)
    said: list[str] = []

    def kill_after_two(*args: Any, **how: Any) -> Path:
        real(*args, **how)
        raise Killed

    real = checkpoint.save
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(checkpoint, "save", kill_after_two)
        with pytest.raises(Killed):
            train(RECIPE, export, tmp_path / "run", MODELS, phase="image", say=quiet)
    run = train(recipe, export, tmp_path / "run", MODELS, phase="image", say=said.append)
    assert "image: goes on from step 2" in said
    assert [phase["samples"] for phase in json.loads(run.path.read_text())["recipe"]["phases"]] == [1, 1]
    assert comparable(run.folder) == comparable(whole)[:1], "and nothing else is changed by it"


def test_other_models_are_refused_wherever_they_lie(whole: Path, export: Path, tmp_path: Path) -> None:
    """By what they hold: a copy elsewhere is the same model, and another file under the same name is another."""
    from shutil import copytree

    vae = tmp_path / "vae"
    copytree(str(MODELS.vae), vae)
    moved = dataclasses.replace(MODELS, vae=str(vae))
    said: list[str] = []
    train(RECIPE, export, whole, moved, say=said.append)
    assert [line.split(",")[0] for line in said] == ["image: done before", "video: done before"]
    (vae / "README.md").write_text("beside the model")
    train(RECIPE, export, whole, moved, say=quiet)
    weights = next(vae.glob("*.safetensors"))
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    with pytest.raises(UsageError, match=r"models\.vae: .* was begun with zoo:vae-world as its bytes were then"):
        train(RECIPE, export, whole, moved, say=quiet)


def test_a_run_goes_on_where_the_package_lies_elsewhere(whole: Path, export: Path, tmp_path: Path) -> None:
    from shutil import copytree

    from dailies.zoo.run_record import RunRecord

    facts = json.loads((whole / "run.json").read_text())
    assert facts["models"] == {
        "vae": "zoo:vae-world",
        "vae_temporal": "zoo:vae-world-temporal",
        "text": "zoo:clip-world",
        "image": "zoo:clip-world",
    }
    elsewhere = {
        name: f"/somewhere/zoo/builtin/{place.removeprefix('zoo:')}" for name, place in facts["models"].items()
    }
    said: list[str] = []
    copytree(whole, tmp_path / "run")
    for models in (facts["models"], elsewhere):
        (tmp_path / "run" / "run.json").write_text(json.dumps({**facts, "models": models}))
        assert all((place / "config.json").is_file() for place in RunRecord.read(tmp_path / "run").models.values())
        train(RECIPE, export, tmp_path / "run", MODELS, say=said.append)
    assert [line.split(",")[0] for line in said] == ["image: done before", "video: done before"] * 2
    other = {**elsewhere, "vae": "/somewhere/zoo/builtin/vae-other"}
    old = {key: value for key, value in facts.items() if key != "content"}  # as earlier versions wrote it
    (tmp_path / "run" / "run.json").write_text(json.dumps({**old, "models": other}))
    with pytest.raises(UsageError, match=r"models: .* was begun with models\.vae '/somewhere/zoo/builtin/vae-other'"):
        train(RECIPE, export, tmp_path / "run", MODELS, say=quiet)


def test_other_clips_are_refused(export: Path, tmp_path: Path) -> None:
    from shutil import copytree, rmtree

    copytree(export, tmp_path / "export")
    one = dataclasses.replace(RECIPE, phases=RECIPE.phases[:1])
    begun = train(one, tmp_path / "export", tmp_path / "run", MODELS, say=quiet)
    facts = json.loads(begun.path.read_text())
    facts["phases"][0]["done"] = False
    begun.path.write_text(json.dumps(facts))
    rmtree(tmp_path / "export")
    build_export(tmp_path / "export", clips=7, size=(64, 48), frames=(24, 30), validation=3)
    with pytest.raises(UsageError, match=r"data: .* was begun with .* as its bytes were then .* as they are now"):
        train(one, tmp_path / "export", tmp_path / "run", MODELS, say=quiet)


def test_checkpoints_are_in_order_beyond_a_million_steps(tmp_path: Path) -> None:
    for step in (999_999, 1_000_000, 2_000):
        (tmp_path / checkpoint.step_name(step)).mkdir()
    assert checkpoint.newest_step(tmp_path) == 1_000_000
    assert [path.name for path in checkpoint._by_step(tmp_path)] == ["step-002000", "step-999999", "step-1000000"]


# ---- models that are of another kind --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("part", "other", "words"),
    [
        ("vae", "text", "holds clip, not a VAE of diffusers"),
        ("text", "vae", "holds AutoencoderKL, not a CLIP text encoder"),
        ("image", "vae", "holds AutoencoderKL, not a CLIP image encoder with its projection"),
    ],
)
def test_a_model_of_another_kind_is_named(part: str, other: str, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        inspect_encoders(dataclasses.replace(MODELS, **{part: getattr(MODELS, other)}))


def test_weights_that_a_phase_cannot_start_from_are_named(tmp_path: Path) -> None:
    svd = svd_format.svd(tmp_path / "svd")
    parts = {
        name: str(svd / folder) for name, folder in (("vae", "vae"), ("image", "image_encoder"), ("start", "unet"))
    }
    models = dataclasses.replace(MODELS, **parts)
    given = {"unet": None, "models": "given", "init_from": "given"}
    text = dataclasses.replace(RECIPE, phases=(dataclasses.replace(RECIPE.phases[0]),), **given)
    with pytest.raises(UsageError, match="takes 8 channels and 3 time ids, more than text-to-image gives"):
        check(text, text.phases, models)
    between = dataclasses.replace(RECIPE.phases[1], task="interpolation", trains="all", lora=("camera",), frames=5)
    recipe = dataclasses.replace(RECIPE, phases=(between,), **given)
    with pytest.raises(UsageError, match="LoRA cannot add input channels"):
        check(recipe, recipe.phases, models)
    (svd / "unet" / checkpoint.WEIGHTS).unlink()
    with pytest.raises(UsageError, match=r"start=.* no diffusion_pytorch_model"):
        check(dataclasses.replace(recipe, phases=(RECIPE.phases[1],)), RECIPE.phases[1:], models)


def test_halves_alone_serve(tmp_path: Path) -> None:
    """Folders that hold the fp16 variant and nothing else, of every part."""
    from diffusers import StableDiffusionPipeline, StableVideoDiffusionPipeline

    from dailies.training.diffusion.encoders import Encoders, Models
    from dailies.training.models import load_pretrained

    for made, kind in ((svd_format.svd, StableVideoDiffusionPipeline), (svd_format.sd, StableDiffusionPipeline)):
        kind.from_pretrained(made(tmp_path / "full")).save_pretrained(tmp_path / made.__name__, variant="fp16")
    svd, sd = tmp_path / "svd", tmp_path / "sd"
    assert not list(svd.rglob("diffusion_pytorch_model.safetensors"))
    for vae in (svd, sd):
        models = Models(vae=str(vae / "vae"), text=str(sd / "text_encoder"), image=str(svd / "image_encoder"))
        encoders = Encoders(models, text_tokens=8)
        assert encoders.vae.scale == 0.5
    assert encoders.text(["one"]).dtype == torch.float32
    assert encoders.image.model.dtype == torch.float32
    assert load_pretrained(svd / "unet").conv_in.weight.dtype == torch.float32


def test_run_json_of_another_recipe_is_refused(whole: Path, export: Path) -> None:
    from dailies.training.data.export import Export

    with pytest.raises(UsageError, match="recipe: "):
        Run(whole, dataclasses.replace(RECIPE, seed=3), {"main": Export(export)}, MODELS)
