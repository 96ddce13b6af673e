"""What phases can be asked: joint batches, every task as a condition of one network, parts of it trained, other starts."""

from __future__ import annotations

import dataclasses
import json
import math
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("diffusers")
pytest.importorskip("transformers")

from safetensors.torch import load_file  # noqa: E402
from torch.nn.attention import SDPBackend, sdpa_kernel  # noqa: E402
from torch.utils.flop_counter import FlopCounterMode  # noqa: E402

from dailies.curation.errors import RecipeError, UsageError  # noqa: E402
from dailies.training import flops  # noqa: E402
from dailies.training.data.batches import Batches  # noqa: E402
from dailies.training.data.export import Export  # noqa: E402
from dailies.training.data.split import load  # noqa: E402
from dailies.training.diffusion import objective  # noqa: E402
from dailies.training.diffusion.conditioning import Condition  # noqa: E402
from dailies.training.diffusion.encoders import Encoders  # noqa: E402
from dailies.training.diffusion.sample import bind_condition  # noqa: E402
from dailies.training.loop import train  # noqa: E402
from dailies.training.models import VideoUNet, add_lora, is_temporal, lora_weights  # noqa: E402
from dailies.training.models.trainable import build, transfer_weights  # noqa: E402
from dailies.training.recipes.phase import MAIN, Bucket, Phase, Share  # noqa: E402
from dailies.training.recipes.recipe import TrainingRecipe, UNetSpec  # noqa: E402
from dailies.training.recipes.tasks import TASKS  # noqa: E402
from dailies.zoo.formats.time_ids import added_time_ids  # noqa: E402
from tests import tiny_run  # noqa: E402
from tests.training_export import MODELS, MORE, build_export  # noqa: E402

SMALL = {"batch": 4, "size": (32, 24), "validate_every": 9, "validation_clips": 1, "validation_sigmas": (1.0,),
         "save_every": 9, "samples": 1, "sample_steps": 2, "steps": 2, "warmup": 0}  # fmt: skip
VIDEO = Phase(name="video", task="text-to-video", frames=3, **SMALL)
RECIPE = TrainingRecipe(
    name="tasks",
    unet=UNetSpec(channels=(32,), attention=(True,), heads=1),
    text_tokens=8,
    caption=(("caption_coca", 0.5), ("caption_fuse", 0.5)),
    phases=(
        Phase(name="embedding", task="text-to-image", trains="time-embedding", **SMALL),
        dataclasses.replace(VIDEO, image_share=0.25),
        Phase(name="i2v", task="image-to-video", frames=3, sample_every=1, **SMALL),
        Phase(name="between", task="interpolation", frames=5, start="i2v", noise_aug=None, **SMALL),
        Phase(name="orbit", task="multi-view", frames=3, start="i2v", **SMALL),
        Phase(name="camera", task="image-to-video", frames=3, start="i2v", lora=("camera",), lora_rank=2, **SMALL),
    ),
)


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def export(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tasks") / "export"
    return build_export(folder, clips=6, size=(64, 48), frames=(24, 30), validation=3, columns=MORE)


@pytest.fixture(scope="module")
def encoders() -> Encoders:
    return Encoders(MODELS, text_tokens=8)


def batches(export: Path, encoders: Encoders, phase: Phase, recipe: TrainingRecipe = RECIPE) -> Batches:
    return Batches(recipe, phase, load(recipe, phase, {MAIN: Export(export)}), encoders, 5.0)


# ---- conditions -----------------------------------------------------------------------------------------------------


def test_a_joint_batch_is_pictures_and_videos(export: Path, encoders: Encoders) -> None:
    pictures, videos = batches(export, encoders, RECIPE.phase("video")).training(0)
    assert (pictures.clean.shape, videos.clean.shape) == ((1, 4, 6, 8), (3, 3, 4, 6, 8))
    assert pictures.condition.added_time_ids_BK is None
    assert videos.condition.added_time_ids_BK is not None


def test_captions_are_drawn_with_their_probabilities(export: Path, encoders: Encoders) -> None:
    recipe = dataclasses.replace(RECIPE, caption=(("caption_coca", 0.75), ("caption_fuse", 0.25)))
    made = batches(export, encoders, dataclasses.replace(VIDEO, steps=400), recipe)
    drawn = [made._column(spec) for step in range(400) for plan in made._schedule.step(step) for spec in plan.specs]
    assert Counter(drawn)["caption_coca"] / len(drawn) == pytest.approx(0.75, abs=0.04)


def test_frames_between_are_masked(export: Path, encoders: Encoders) -> None:
    phase = RECIPE.phase("between")
    (batch,) = batches(export, encoders, phase).training(1)
    condition = batch.condition
    assert condition.image_latents_BSCHW.shape == (4, 2, 4, 6, 8)
    assert condition.tokens_BLD.shape[1] == 2
    latent = torch.tensor([1.0, 2.0, 3.0, 4.0])
    beside = condition.drop(*torch.tensor([[False] * 4] * 2)).concat_channels(5, latent)
    assert beside.shape == (4, 5, 5, 6, 8)
    assert torch.equal(beside[:, 0, :4], condition.image_latents_BSCHW[:, 0])
    assert torch.equal(beside[:, 4, :4], condition.image_latents_BSCHW[:, 1])
    assert torch.equal(beside[0, 2, :4, 3, 3], latent)
    assert beside[0, :, 4, 0, 0].tolist() == [1, 0, 0, 0, 1]
    assert not condition.unconditional().concat_channels(5, latent).any()
    assert (condition.added_time_ids_BK[:, 2] == 0).all()  # as they are, without noise


def test_the_masked_latent_is_learned(export: Path, encoders: Encoders) -> None:
    phase = RECIPE.phase("between")
    (batch,) = batches(export, encoders, phase).training(1)
    unet = build(phase, RECIPE.unet, 96, (6, 8))
    unet.conv_in.weight.data[:, 4:] = 0.1
    how = objective.of_phase(phase)

    def loss() -> Any:
        return how.loss(bind_condition(unet, batch.condition), batch.clean, batch.noise, batch.sigma).mean()

    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        loss().backward()
    assert flops.training_flops(unet, batch, how) == counter.get_total_flops()  # counted without memory too
    gradient = unet.masked_latent.grad.clone()
    assert (gradient != 0).all()
    # The loss changes by what the gradient says, step by step along each channel.
    for channel in range(4):
        losses = []
        for step in (0.05, -0.05):
            with torch.no_grad():
                unet.masked_latent[channel] += step
                losses.append(float(loss()))
                unet.masked_latent[channel] -= step
        assert (losses[0] - losses[1]) / 0.1 == pytest.approx(float(gradient[channel]), rel=0.05, abs=1e-5)


def test_an_orbit_is_told_its_elevation() -> None:
    ids = added_time_ids(7.0, [127, 127], torch.tensor([0.1, 0.2]), [30.0, -90.0])
    assert ids.shape == (2, 5)
    assert ids[:, 3].tolist() == pytest.approx([0.5, -1.0])
    assert ids[:, 4].tolist() == pytest.approx([math.sqrt(0.75), 0.0], abs=1e-6)


@pytest.mark.parametrize("task", [task for task, spec in TASKS.items() if spec.video])
def test_what_a_task_adds_changes_nothing_at_first(task: str) -> None:
    """Further input channels, ids and a learned latent: a phase starts as the model that it starts from."""
    torch.manual_seed(0)
    before = build(VIDEO, RECIPE.unet, 24, (6, 8)).eval()
    for parameter in before.parameters():
        parameter.data += 0.02 * torch.randn_like(parameter)
    frames = 5
    phase = dataclasses.replace(VIDEO, task=task, frames=frames)
    after = build(phase, RECIPE.unet, 24, (6, 8)).eval()
    assert transfer_weights(before, after) == []
    spec = phase.task_spec
    x, sigma = torch.randn(2, frames, 4, 6, 8), torch.tensor([0.3, -0.2])
    tokens, ids = torch.randn(2, 2, 24), torch.rand(2, spec.num_time_ids)
    shown = torch.randn(2, len(spec.conditioning_frames), 4, 6, 8) if spec.conditioning_frames else None
    with torch.no_grad():
        first = bind_condition(before, Condition(tokens_BLD=tokens, added_time_ids_BK=ids[:, :3]))(x, sigma)
        second = bind_condition(after, Condition(tokens_BLD=tokens, added_time_ids_BK=ids, image_latents_BSCHW=shown))(
            x, sigma
        )
    assert torch.allclose(first, second, atol=1e-5)


# ---- a run of all of them -------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def run(export: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.set_num_threads(1)
    return train(RECIPE, export, tmp_path_factory.mktemp("tasks") / "run", MODELS, say=lambda line: None).folder


def weights(run: Path, phase: str, which: str = "unet") -> dict[str, torch.Tensor]:
    return load_file(run / "phases" / phase / "step-000002" / which / "diffusion_pytorch_model.safetensors")


def changed(run: Path, before: str, after: str) -> set[str]:
    one, two = weights(run, before, "unet_ema"), weights(run, after)
    return {name for name in one if one[name].shape == two[name].shape and not torch.equal(one[name], two[name])}


def test_every_phase_is_done_and_shows_samples(run: Path) -> None:
    facts = json.loads((run / "run.json").read_text())
    assert [entry["name"] for entry in facts["phases"] if entry["done"]] == [phase.name for phase in RECIPE.phases]
    assert all((run / entry["samples"]).is_file() for entry in facts["phases"])
    assert {path.name for path in (run / "phases" / "i2v" / "samples").iterdir()} == {
        f"step-00000{step}.{kind}" for step in (1, 2) for kind in ("png", "mp4")
    }


def test_a_phase_trains_only_what_it_says(run: Path) -> None:
    torch.manual_seed(0)
    begun = build(RECIPE.phases[0], RECIPE.unet, 96, (6, 8)).state_dict()
    embedded = weights(run, "embedding")
    assert {name for name in begun if not torch.equal(begun[name], embedded[name])} == {
        f"time_embedding.linear_{layer}.{kind}" for layer in (1, 2) for kind in ("weight", "bias")
    }
    by_lora = changed(run, "i2v", "camera")
    assert by_lora
    assert all(is_temporal(name) and ".attn" in name and ".to_" in name for name in by_lora)


def test_interpolation_and_orbits_start_from_the_phase_they_name(run: Path) -> None:
    for phase, channels in (("between", 9), ("orbit", 8)):
        made = weights(run, phase)
        assert made["conv_in.weight"].shape[1] == channels
        assert changed(run, "i2v", phase)
    assert weights(run, "orbit")["add_embedding.linear_1.weight"].shape[1] == 5 * 32
    assert weights(run, "between")["masked_latent"].abs().max() > 0


def test_adapters_are_kept_by_themselves_and_merged(run: Path) -> None:
    from diffusers import UNetSpatioTemporalConditionModel

    folder = run / "phases" / "camera" / "step-000002"
    adapters = load_file(folder / "lora" / "adapter_model.safetensors")
    assert adapters
    assert {min(value.shape) for value in adapters.values()} == {2}
    _, said = UNetSpatioTemporalConditionModel.from_pretrained(folder / "unet_ema", output_loading_info=True)
    assert not any(said.values())


@pytest.mark.parametrize("alpha", [2.0, 5.0])
@pytest.mark.parametrize("library", ["peft", "diffusers"])
def test_adapters_have_their_strength_in_other_libraries(tmp_path: Path, library: str, alpha: float) -> None:
    """Rank and α are not peft's defaults (8 and 8), with which the adapters would be of another strength."""
    from diffusers import UNetSpatioTemporalConditionModel
    from diffusers.loaders.peft import PeftAdapterMixin
    from peft import PeftModel

    from dailies.training.models import merge_lora
    from dailies.training.models.io import load
    from dailies.training.models.lora import PREFIX, save_lora

    tiny_run.unet(8).save_pretrained(tmp_path / "unet")
    ours = add_lora(load(tmp_path / "unet"), ["camera"], 2, alpha=alpha)
    generator = torch.Generator().manual_seed(0)
    for value in lora_weights(ours).values():
        value.normal_(generator=generator)
    save_lora(ours, lora_weights(ours), tmp_path / "lora")
    inputs = (torch.randn(1, 4, 8, 8, 8), torch.ones(1), torch.randn(1, 1, 32), torch.tensor([[6.0, 127.0, 0.02]]))
    with torch.no_grad():
        before = load(tmp_path / "unet")(*inputs)
        wanted = merge_lora(ours)(*inputs)
        if library == "peft":
            plain = UNetSpatioTemporalConditionModel.from_pretrained(tmp_path / "unet")
            other = PeftModel.from_pretrained(plain, tmp_path / "lora")
        else:

            class WithAdapters(UNetSpatioTemporalConditionModel, PeftAdapterMixin):  # type: ignore[misc]
                pass

            other = WithAdapters.from_pretrained(tmp_path / "unet")
            other.load_lora_adapter(tmp_path / "lora", weight_name="adapter_model.safetensors", prefix=PREFIX)
        got = other(*inputs, return_dict=False)[0]
    assert (wanted - before).abs().max() > 0.1
    torch.testing.assert_close(got, wanted, rtol=1e-3, atol=1e-3)


def test_a_phase_of_adapters_goes_on_where_it_stopped(run: Path, export: Path, tmp_path: Path) -> None:
    import shutil

    shutil.copytree(run, tmp_path / "run")
    longer = dataclasses.replace(RECIPE.phase("camera"), steps=4, save_every=2)
    recipe = dataclasses.replace(RECIPE, phases=(*RECIPE.phases[:-1], longer))

    def stopping(line: str) -> None:
        if line.startswith("camera: step 4"):
            raise InterruptedError

    facts = json.loads((tmp_path / "run" / "run.json").read_text())
    facts["phases"] = facts["phases"][:-1]
    shutil.rmtree(tmp_path / "run" / "phases" / "camera")
    from dailies.training.run_log import run_hash

    facts["recipe_hash"] = run_hash(recipe)
    (tmp_path / "run" / "run.json").write_text(json.dumps(facts))
    shutil.copytree(tmp_path / "run", tmp_path / "whole")
    train(recipe, export, tmp_path / "whole", MODELS, phase="camera", say=lambda line: None)
    with pytest.raises(InterruptedError):
        train(recipe, export, tmp_path / "run", MODELS, phase="camera", say=stopping)
    shutil.rmtree(tmp_path / "run" / "phases" / "camera" / "step-000004", ignore_errors=True)
    said: list[str] = []
    train(recipe, export, tmp_path / "run", MODELS, phase="camera", say=said.append)
    assert "camera: goes on from step 2" in said
    for which in ("unet", "unet_ema"):
        one, two = (
            (tmp_path / name / "phases/camera/step-000004" / which / "diffusion_pytorch_model.safetensors").read_bytes()
            for name in ("whole", "run")
        )
        assert one == two


# ---- what is refused, and what is left out --------------------------------------------------------------------------


IMAGE = Phase(name="image", task="text-to-image", **SMALL)


@pytest.mark.parametrize(
    ("phase", "change", "words"),
    [
        (VIDEO, {"image_share": 0.1}, "phase video: image_share=0.1: leaves no image or no video in a batch of 4"),
        (VIDEO, {"image_share": 0.3, "task": "image-to-video"},
         "phase video: image_share=0.3: only a text-to-video phase mixes in images"),
        (VIDEO, {"image_share": 0.5, "trains": "temporal"},
         "phase video: trains='temporal': images pass no temporal layer; set image_share to 0"),
        (VIDEO, {"frames": 1}, "phase video: frames=1: a video phase takes 2 frames or more"),
        (IMAGE, {"frames": 8}, "phase image: frames=8: an image phase takes exactly 1 frame"),
        (IMAGE, {"trains": "temporal"}, "phase image: trains='temporal': needs a video phase"),
        (IMAGE, {"lora": ("camera",)},
         "phase image: lora=('camera',): images pass no temporal layer; add a spatial part"),
        (VIDEO, {"buckets": (Bucket(size=(32, 24), frames=1),)},
         "phase video: buckets: frames=1: a video phase takes 2 frames or more"),
        (VIDEO, {"buckets": (Bucket(size=(32, 24), frames=3),) * 2},
         "phase video: buckets: two have the same size and frames"),
        (VIDEO, {"images": "folder"}, "phase video: images='folder': this phase trains on no images"),
        (IMAGE, {"images": "folder"}, "phase image: image_path=None: images='folder' needs a path"),
        (IMAGE, {"image_path": "x"}, "phase image: image_path='x': images='frames' reads none"),
        (VIDEO, {"accumulate": 3}, "phase video: accumulate=3: does not divide batch=4"),
        (VIDEO, {"lora": ("camera",), "trains": "temporal"},
         "phase video: trains='temporal': lora trains adapters alone; leave trains at 'all'"),
        (VIDEO, {"lora_rank": 4}, "phase video: lora_rank=4: needs lora"),
        (VIDEO, {"trains": "some"}, "phase video: trains='some': must be 'all', 'time-embedding' or 'temporal'"),
        (VIDEO, {"sample_every": 0}, "phase video: sample_every=0: must be above 0"),
        (VIDEO, {"steps": "3"}, "phase video: steps='3': must be a whole number"),
        (VIDEO, {"steps": True}, "phase video: steps=True: must be a whole number"),
        (VIDEO, {"ema": 1}, "phase video: ema=1: must be below 1"),
        (VIDEO, {"name": "a b"}, "phase a b: name='a b': use letters, digits, - and _ only"),
        (VIDEO, {"mix": [Share()]}, "phase video: mix: must be a list, such as [a, b]"),
    ],
)  # fmt: skip
def test_a_wrong_phase_is_refused_in_one_line(phase: Phase, change: dict[str, object], words: str) -> None:
    with pytest.raises(RecipeError) as refused:
        dataclasses.replace(phase, **change)
    assert str(refused.value) == words


def test_a_wrong_part_of_a_phase_is_refused_in_one_line() -> None:
    with pytest.raises(RecipeError, match=r"^buckets: size\.1=20: must be a multiple of 8$"):
        Bucket(size=(32, 20), frames=3)
    with pytest.raises(RecipeError, match=r"^mix: weight=-1: must be above 0$"):
        Share(weight=-1)
    with pytest.raises(RecipeError, match=r"^phase video: unknown key 'stesp' \(did you mean steps\?\)$"):
        Phase(name="video", task="text-to-video", frames=3, stesp=2, **SMALL)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"start": "later"}, "phase video: start='later': is no phase before this one"),
        ({"lora": ("arms",)}, "lora='arms': no such part; allowed: "),
        ({"mix": (Share(data="svd-hq"),)}, "mix: data=svd-hq: no export has this name; allowed: main; pass it with"),
        (
            {"buckets": (Bucket(size=(32, 24), frames=3), Bucket(size=(24, 96), frames=3))},
            "buckets=24x96x3: no training clip",
        ),
        ({"frames": 40}, "frames=40: no training clip of 40 frames"),
        ({"select": (("sharpness", 1.0, None),)}, "select: column 'sharpness' is not in the export"),
    ],
)
def test_a_phase_that_cannot_be_trained_is_refused_before_work(
    change: dict[str, object], words: str, export: Path, tmp_path: Path
) -> None:
    def attempt() -> None:
        phase = dataclasses.replace(VIDEO, **change)
        train(dataclasses.replace(RECIPE, phases=(phase,)), export, tmp_path / "run", MODELS)

    with pytest.raises(UsageError, match=words):
        attempt()
    assert not (tmp_path / "run").exists()


def test_probabilities_of_captions_sum_to_one() -> None:
    with pytest.raises(UsageError, match=r"the probabilities sum to 0\.9, not 1"):
        dataclasses.replace(RECIPE, caption=(("a", 0.5), ("b", 0.4)))


def test_clips_too_short_for_every_bucket_are_counted_and_named(tmp_path: Path) -> None:
    folder = build_export(tmp_path / "export", clips=8, size=(64, 48), frames=(12, 40), validation=8, columns=MORE)
    rows = Export(folder).rows
    at_8 = sorted((row.columns["frames"] - 1) // 3 + 1 for row in rows if row.columns["split"] == "train")
    middle = at_8[3]
    phase = dataclasses.replace(VIDEO, frames=middle)
    split = load(dataclasses.replace(RECIPE, phases=(phase,)), phase, {MAIN: Export(folder)})
    assert len(split.short) == sum(length < middle for length in at_8) > 0
    assert any(f"{len(split.short)} clips are shorter than {middle} frames" in note for note in split.notes)
    assert set(split.short).isdisjoint(split.clip_ids)


def test_clips_are_trained_in_the_bucket_of_their_length(tmp_path: Path) -> None:
    folder = build_export(tmp_path / "export", clips=9, size=(64, 48), frames=(12, 40), validation=9, columns=MORE)
    buckets = (Bucket(size=(32, 24), frames=3), Bucket(size=(32, 24), frames=8))
    phase = dataclasses.replace(VIDEO, buckets=buckets, steps=12)
    one = dataclasses.replace(RECIPE, phases=(phase,))
    split = load(one, phase, {MAIN: Export(folder)})
    assert [subset.shape for subset in split.train] == list(buckets)
    for subset in split.train:
        assert all((length >= 8) == (subset.shape.frames == 8) for length in subset.items.lengths)
    made = Batches(one, phase, split, Encoders(MODELS, text_tokens=8), 5.0)
    frames = {batch.clean.shape[1] for step in range(12) for batch in made.training(step)}
    assert frames == {3, 8}
    run = train(one, folder, tmp_path / "run", MODELS, say=lambda line: None)
    assert run.facts["phases"][0]["done"]


def test_selections_are_mixed_by_weight(export: Path) -> None:
    rows = Export(export).rows
    motions = sorted(row.columns["motion"] for row in rows if row.columns["split"] == "train")
    lively = Share(data="svd-hq", weight=3.0, select=(("motion", motions[2], None),))
    phase = dataclasses.replace(VIDEO, mix=(Share(), lively))
    one = dataclasses.replace(RECIPE, phases=(phase,))
    split = load(one, phase, {MAIN: Export(export), "svd-hq": Export(export)})
    assert [(subset.weight, len(subset.items.clip_ids)) for subset in split.train] == [(1.0, 4), (3.0, 2)]


def test_a_video_model_has_the_masked_latent_only_where_it_is_asked(export: Path) -> None:
    assert VideoUNet(build(VIDEO, RECIPE.unet, 24, (6, 8)).config).masked_latent is None
