"""Training: the objective, the draws, the models' inheritance, and a run that is killed and goes on."""

from __future__ import annotations

import dataclasses
import json
import multiprocessing
import os
import re
import signal
import time
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("diffusers")
pytest.importorskip("transformers")

from dailies.curation.errors import NotFinite, UsageError  # noqa: E402
from dailies.curation.progress import reporting  # noqa: E402
from dailies.training.data import batches  # noqa: E402
from dailies.training.data.export import Export  # noqa: E402
from dailies.training.data.pictures import folder_pictures, parquet_pictures  # noqa: E402
from dailies.training.data.sampling import draw_spec  # noqa: E402
from dailies.training.data.split import MAIN, load  # noqa: E402
from dailies.training.diffusion.conditioning import Condition  # noqa: E402
from dailies.training.diffusion.encoders import Encoders  # noqa: E402
from dailies.training.diffusion.sample import bind_condition  # noqa: E402
from dailies.training.loop import train  # noqa: E402
from dailies.training.models import is_temporal  # noqa: E402
from dailies.training.models.pixels import psnr  # noqa: E402
from dailies.training.models.trainable import build, transfer_weights  # noqa: E402
from dailies.training.models.vae.inflate import inflate  # noqa: E402
from dailies.training.models.vae.io import load_vae  # noqa: E402
from dailies.training.models.vae.vae import reconstruct  # noqa: E402
from dailies.training.recipes import load_recipe  # noqa: E402
from dailies.training.recipes.recipe import Phase, TrainingRecipe, UNetSpec  # noqa: E402
from dailies.zoo.formats.time_ids import motion_bucket  # noqa: E402
from tests.test_progress import Recorder  # noqa: E402
from tests.training_export import COLUMNS, MODELS, build_export  # noqa: E402

SMALL = {"batch": 2, "size": (32, 24), "validate_every": 2, "validation_clips": 1, "validation_sigmas": (1.0,),
         "save_every": 2, "samples": 1, "sample_steps": 2}  # fmt: skip
RECIPE = TrainingRecipe(
    name="test",
    unet=UNetSpec(channels=(32,), attention=(True,), heads=1),
    text_tokens=8,
    phases=(
        Phase(name="image", task="text-to-image", steps=4, **SMALL),
        Phase(name="video", task="text-to-video", steps=4, frames=3, **SMALL),
        Phase(name="hq", task="image-to-video", steps=4, frames=3, p_mean=0.7, p_std=1.6, **SMALL),
    ),
)


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def export(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("training") / "export"
    return build_export(folder, clips=6, size=(64, 48), frames=(24, 30), validation=3)


@pytest.fixture(scope="session")
def encoders() -> Encoders:
    return Encoders(MODELS, text_tokens=8)


# ---- recipe and data ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"steps": 0}, "steps"), ({"size": (30, 24)}, "size"), ({"frames": 3}, "frames"), ({"p_std": 0.0}, "p_std"),
        ({"task": "video"}, "task"), ({"drop_text": 1.5}, "drop_text"), ({"images": "folder"}, "image_path"),
        ({"images": "web"}, "images"), ({"crop": "left"}, "crop"), ({"lr": float("nan")}, "lr"),
    ],
)  # fmt: skip
def test_a_wrong_phase_is_refused_by_field(change: dict[str, object], word: str) -> None:
    with pytest.raises(UsageError, match=word):
        dataclasses.replace(RECIPE.phases[0], **change)


def test_a_wrong_recipe_is_refused_by_field() -> None:
    with pytest.raises(UsageError, match=r"unet\.channels\.0=48: must be a multiple of 32"):
        UNetSpec(channels=(48,))
    with pytest.raises(UsageError, match="phases"):
        dataclasses.replace(RECIPE, phases=RECIPE.phases[::-1])
    with pytest.raises(UsageError, match="tiny"):
        load_recipe("huge")
    assert load_recipe("tiny").hash == load_recipe("tiny").hash


def test_a_missing_column_is_named(tmp_path: Path, export: Path) -> None:
    plain = build_export(
        tmp_path / "export", clips=3, size=(64, 48), frames=(24, 24), validation=3, columns=COLUMNS[:1]
    )
    with pytest.raises(
        UsageError, match=r"caption: column 'caption_fuse' is not in the export, which has no captions;"
    ):
        train(RECIPE, plain, tmp_path / "run", MODELS)
    assert not (tmp_path / "run").exists()
    with pytest.raises(UsageError, match="no data"):
        Export(tmp_path)


def test_an_epoch_holds_every_item_once() -> None:
    items = [draw_spec(3, "p", position, 7).item for position in range(14)]
    assert sorted(items[:7]) == sorted(items[7:]) == list(range(7))
    assert items[:7] != items[7:]


def test_batches_depend_on_seed_and_position_only(export: Path, encoders: Encoders) -> None:
    phase = RECIPE.phases[2]
    split = load(RECIPE, phase, {MAIN: Export(export)})

    def make(recipe: TrainingRecipe, step: int, before: tuple[int, ...] = ()) -> batches.Batch:
        source = batches.Batches(recipe, phase, split, encoders, 5.0)
        for other in before:
            source.training(other)
        (batch,) = source.training(step)
        return batch

    one, two = make(RECIPE, 3), make(RECIPE, 3, before=(2, 0))
    assert one.clip_ids == two.clip_ids
    for name in ("clean", "noise", "sigma"):
        assert torch.equal(getattr(one, name), getattr(two, name))
    assert torch.equal(one.condition.image_latents_BSCHW, two.condition.image_latents_BSCHW)
    assert not torch.equal(one.noise, make(RECIPE, 1).noise)
    assert not torch.equal(one.noise, make(dataclasses.replace(RECIPE, seed=1), 3).noise)
    assert one.condition.added_time_ids_BK[:, 0].tolist() == [7.0, 7.0]


def test_pictures_from_folders_and_parquet(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq
    from PIL import Image

    for name in ("a", "b"):
        Image.fromarray(np.full((30, 50, 3), 90, np.uint8)).save(tmp_path / f"{name}.png")
    (tmp_path / "a.txt").write_text("one\n")
    with pytest.raises(UsageError, match=r"b\.png has no caption"):
        folder_pictures(tmp_path, (32, 24))
    (tmp_path / "metadata.csv").write_text("file_name,text\nb.png,two\n")
    pictures = folder_pictures(tmp_path, (32, 24))
    assert pictures.captions == ["one", "two"]
    (tmp_path / "metadata.csv").write_text('file_name,text\na.png,7\nb.png,"two, of three"\n')
    assert folder_pictures(tmp_path, (32, 24)).captions == ["7", "two, of three"]
    (tmp_path / "metadata.csv").write_text("file_name,text\na.png,x\nb.png,a red ball, left of a cube, on grass\n")
    with pytest.raises(UsageError, match=r"image_path=.*row 2 \(line 3\): has 4 cells where the header has 2"):
        folder_pictures(tmp_path, (32, 24))
    (tmp_path / "metadata.csv").write_text("file_name,text\nb.png,two\n")
    assert np.array_equal(pictures.frames(0, 0, 1), np.full((1, 24, 40, 3), 90, np.uint8))
    images = [{"bytes": (tmp_path / "a.png").read_bytes()}] * 2
    pq.write_table(pa.table({"image": images, "text": ["x", None]}), tmp_path / "p.parquet")
    pictures = parquet_pictures(tmp_path / "p.parquet", (32, 24))
    assert pictures.captions == ["x", ""]
    assert np.array_equal(pictures.frames(1, 0, 1), np.full((1, 24, 40, 3), 90, np.uint8))


# ---- conditioning ---------------------------------------------------------------------------------------------------


def test_dropping_zeroes_tokens_and_image_but_not_ids() -> None:
    whole = Condition(
        tokens_BLD=torch.ones(2, 3, 4),
        added_time_ids_BK=torch.ones(2, 3),
        image_latents_BSCHW=torch.ones(2, 1, 4, 2, 2),
    )
    dropped = whole.drop(torch.tensor([True, False]), torch.tensor([False, True]))
    assert dropped.tokens_BLD.flatten(1).sum(1).tolist() == [0, 12]
    assert dropped.concat_channels(3).flatten(1).sum(1).tolist() == [3 * 16, 0]
    assert torch.equal(dropped.added_time_ids_BK, whole.added_time_ids_BK)
    free = whole.unconditional()
    assert not free.tokens_BLD.any()
    assert not free.concat_channels(3).any()
    assert free.added_time_ids_BK.all()


def test_motion_buckets() -> None:
    assert [motion_bucket(m, 4.0) for m in (0.0, 4.0, 8.0, 99.0, None)] == [0, 127, 254, 255, 127]


# ---- models ---------------------------------------------------------------------------------------------------------


def test_the_video_model_starts_as_the_image_model() -> None:
    torch.manual_seed(0)
    net = UNetSpec(channels=(32, 64), attention=(False, True))
    flat, deep, wide = (build(phase, net, 24, (6, 8)).eval() for phase in RECIPE.phases)
    for name, parameter in flat.named_parameters():  # biases and zero layers too, but for what no image trains
        if not is_temporal(name) and not name.startswith("add_embedding."):
            parameter.data += 0.02 * torch.randn_like(parameter)
    assert transfer_weights(flat, deep) == []
    x, t = torch.randn(2, 3, 4, 6, 8), torch.tensor([0.3, -0.2])
    tokens, ids = torch.randn(2, 5, 24), torch.tensor([[7.0, 127, 0.0]] * 2)
    with torch.no_grad():
        video = bind_condition(deep, Condition(tokens_BLD=tokens, added_time_ids_BK=ids))(x, t)
        image = bind_condition(flat, Condition(tokens_BLD=tokens.repeat_interleave(3, 0)))(
            x.flatten(0, 1), t.repeat_interleave(3)
        )
        assert torch.allclose(video, image.reshape_as(video), atol=1e-5)
        assert transfer_weights(deep, wide) == []
        shown = torch.randn(2, 1, 4, 6, 8)
        both = bind_condition(wide, Condition(tokens_BLD=tokens, added_time_ids_BK=ids, image_latents_BSCHW=shown))(
            x, t
        )
    assert torch.allclose(both, video, atol=1e-5)


def test_other_tokens_start_the_cross_attention_anew() -> None:
    net = RECIPE.unet
    narrow, wide = build(RECIPE.phases[1], net, 24, (6, 8)), build(RECIPE.phases[2], net, 40, (6, 8))
    fresh = transfer_weights(narrow, wide)
    assert fresh
    assert all("attn2.to_k" in name or "attn2.to_v" in name for name in fresh)
    with pytest.raises(UsageError, match="net: "):
        transfer_weights(build(RECIPE.phases[0], UNetSpec(channels=(64,), attention=(True,)), 24, (6, 8)), narrow)


# ---- the built-in VAE -----------------------------------------------------------------------------------------------


def test_the_builtin_vae_knows_the_world() -> None:
    from diffusers import AutoencoderKLTemporalDecoder

    from scripts.builtin.train_vae import HELD_OUT, render

    vae = load_vae(MODELS.vae)
    frames = render(HELD_OUT + 500, 2)[:32]
    assert psnr(frames, reconstruct(vae, frames)) > 26
    temporal = AutoencoderKLTemporalDecoder.from_pretrained(MODELS.vae_temporal).float()
    assert temporal.config.scaling_factor == vae.config.scaling_factor
    z = torch.randn(4, 4, 6, 8)
    with torch.no_grad():
        image, video = vae.decode(z).sample, temporal.decode(z, num_frames=4).sample
        assert torch.allclose(image, video, atol=1e-3)
        assert torch.allclose(image, inflate(vae).decode(z, num_frames=4).sample, atol=1e-4)


# ---- whole runs -----------------------------------------------------------------------------------------------------


def _lines(run: Path, phase: str) -> list[tuple[int, float]]:
    text = (run / "phases" / phase / "metrics.jsonl").read_text()
    return [(one["step"], one["loss"]) for one in map(json.loads, text.splitlines()) if "loss" in one]


def _train_until_killed(export: str, out: str) -> None:
    torch.set_num_threads(1)

    def say(line: str) -> None:
        if line.startswith("video: step 2/"):  # after its validation and before its checkpoint
            os.kill(os.getpid(), signal.SIGKILL)

    train(RECIPE, export, out, MODELS, say=say)


def test_a_killed_run_goes_on_bit_for_bit(tmp_path: Path, export: Path) -> None:
    whole = train(RECIPE, export, tmp_path / "whole", MODELS, say=lambda line: None)
    process = multiprocessing.get_context("spawn").Process(
        target=_train_until_killed, args=(str(export), str(tmp_path / "killed"))
    )
    process.start()
    process.join(120)
    assert process.exitcode == -signal.SIGKILL
    assert [entry["done"] for entry in json.loads((tmp_path / "killed" / "run.json").read_text())["phases"]] == [
        True,
        False,
    ]
    said: list[str] = []
    again = train(RECIPE, export, tmp_path / "killed", MODELS, say=said.append)
    assert said[0].startswith("image: done before")
    for one, other in zip(whole.facts["phases"], again.facts["phases"], strict=True):
        assert one["validation"] == other["validation"]
        for kind in ("unet", "unet_ema"):
            name = Path(one["checkpoint"]) / kind / "diffusion_pytorch_model.safetensors"
            assert (whole.folder / name).read_bytes() == (again.folder / name).read_bytes()
        assert _lines(whole.folder, one["name"]) == _lines(again.folder, one["name"])
    _holds_the_contract(whole.folder)
    with pytest.raises(UsageError, match="recipe: "):
        train(dataclasses.replace(RECIPE, seed=5), export, tmp_path / "whole", MODELS)


def _holds_the_contract(run: Path) -> None:
    from diffusers import UNetSpatioTemporalConditionModel

    facts = json.loads((run / "run.json").read_text())
    assert {"recipe", "recipe_hash", "data", "export", "models", "phases"} <= set(facts)
    assert facts["export"] == json.loads((Path(facts["data"]) / "export.json").read_text())
    for entry in facts["phases"]:
        folder = run / "phases" / entry["name"]
        assert (folder / "latest").read_text() == Path(entry["checkpoint"]).name
        assert (run / entry["checkpoint"] / "state.pt").exists()
        assert (run / entry["samples"]).exists()
        assert (folder / "sample.mp4").exists() == (entry["frames"] > 1)
        assert entry["clips"] == 4
        assert len(entry["first_clip_ids"]) == 4
        checkpoint = run / entry["checkpoint"] / "unet_ema"
        unet, said = UNetSpatioTemporalConditionModel.from_pretrained(checkpoint, output_loading_info=True)
        assert not any(said.values())
        assert unet.config.in_channels == (8 if entry["task"] == "image-to-video" else 4)


def test_later_phases_count_as_steps_of_this_one() -> None:
    """By the pixels that a step shows: three frames take three times as long as one."""
    from dailies.training.loop import steps_after

    image, video, hq = RECIPE.phases
    assert steps_after(image, [video, hq]) == pytest.approx(3 * 8)
    assert steps_after(video, [hq]) == pytest.approx(4)
    assert steps_after(hq, []) == 0


def test_interrupting_saves_and_a_wrong_number_names_its_samples(
    tmp_path: Path, export: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dailies.training import loop

    recipe = dataclasses.replace(RECIPE, phases=(dataclasses.replace(RECIPE.phases[0], save_every=100),))
    real = loop.train_step

    def interrupted(*args: object) -> dict[str, float]:
        if args[-1] == 1:
            os.kill(os.getpid(), signal.SIGINT)  # within the step, which is finished before all is saved
        return real(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(loop, "train_step", interrupted)
    said: list[str] = []
    recorder = Recorder()
    with pytest.raises(KeyboardInterrupt), reporting(recorder):
        train(recipe, export, tmp_path / "run", MODELS, say=said.append)
    stopping, validated, stopped = said[-3:]  # what the step is due to come with is still done
    assert stopping == "stopping after this step; Ctrl-C again stops at once and saves nothing"
    assert validated.startswith("image: step 2/4, validation loss ")
    assert stopped == "image: stopped; step 2 is saved"
    assert recorder.told[0] == ("image", 4, "steps", {"already": 0, "size": 4, "after": 0.0})
    notes = [named["note"] for _, _, named in recorder.told[1:]]
    assert (notes[0], notes[3:]) == ("validating", ["validating"])
    assert all(re.fullmatch(r"loss \d+\.\d{3}", note) for note in notes[1:3])
    assert sum(done for done, _, _ in recorder.told[1:]) == 2
    monkeypatch.setattr(loop, "train_step", real)
    assert (tmp_path / "run" / "phases" / "image" / "latest").read_text() == "step-000002"
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    with pytest.raises(UsageError, match="out="):
        train(recipe, export, tmp_path / "other", MODELS, resume=True)
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match=r"out=.*: is a file"):
        train(recipe, export, tmp_path / "file", MODELS)

    def broken(*_: object) -> torch.Tensor:
        return torch.tensor([float("nan")], requires_grad=True)

    monkeypatch.setattr("dailies.training.unet_task.batch_loss", broken)
    begun = time.monotonic()
    with pytest.raises(NotFinite, match=r"phase image, step 2: loss \(nan\) is not finite on samples [0-9a-f]{24}"):
        train(recipe, export, tmp_path / "run", MODELS, say=lambda line: None)
    assert time.monotonic() - begun < 20
