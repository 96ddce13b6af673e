"""What phases can be asked: joint batches, every task as a condition of one network, parts of it trained, other starts."""

from __future__ import annotations

import dataclasses
import json
import math
from collections import Counter
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("diffusers")
pytest.importorskip("transformers")

from safetensors.torch import load_file  # noqa: E402

from dailies.curation.errors import UsageError  # noqa: E402
from dailies.training import flops  # noqa: E402
from dailies.training.data.batches import Batches  # noqa: E402
from dailies.training.data.items import Export  # noqa: E402
from dailies.training.data.split import load  # noqa: E402
from dailies.training.diffusion import objective  # noqa: E402
from dailies.training.diffusion.conditioning import Condition  # noqa: E402
from dailies.training.diffusion.encoders import Encoders  # noqa: E402
from dailies.training.diffusion.sample import network  # noqa: E402
from dailies.training.loop import train  # noqa: E402
from dailies.training.models import VideoUNet, add_lora, build, carry, is_temporal, lora_weights  # noqa: E402
from dailies.training.recipes.phase import MAIN, Bucket, Phase, Share  # noqa: E402
from dailies.training.recipes.recipe import Net, Recipe  # noqa: E402
from dailies.training.recipes.tasks import TASKS  # noqa: E402
from dailies.zoo.formats.time_ids import added_ids  # noqa: E402
from tests.training_export import MODELS, MORE, build_export  # noqa: E402

SMALL = {"batch": 4, "size": (32, 24), "validate_every": 9, "validation_clips": 1, "validation_sigmas": (1.0,),
         "save_every": 9, "samples": 1, "sample_steps": 2, "steps": 2, "warmup": 0}  # fmt: skip
VIDEO = Phase(name="video", task="text-to-video", frames=3, **SMALL)
RECIPE = Recipe(
    name="tasks",
    net=Net(channels=(32,), attention=(True,), heads=1),
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


def batches(export: Path, encoders: Encoders, phase: Phase, recipe: Recipe = RECIPE) -> Batches:
    return Batches(recipe, phase, load(recipe, phase, {MAIN: Export(export)}), encoders, 5.0)


# ---- conditions -----------------------------------------------------------------------------------------------------


def test_a_joint_batch_is_pictures_and_videos(export: Path, encoders: Encoders) -> None:
    pictures, videos = batches(export, encoders, RECIPE.phase("video")).training(0)
    assert (pictures.clean.shape, videos.clean.shape) == ((1, 4, 6, 8), (3, 3, 4, 6, 8))
    assert pictures.condition.ids_BK is None
    assert videos.condition.ids_BK is not None


def test_captions_are_drawn_with_their_probabilities(export: Path, encoders: Encoders) -> None:
    recipe = dataclasses.replace(RECIPE, caption=(("caption_coca", 0.75), ("caption_fuse", 0.25)))
    made = batches(export, encoders, dataclasses.replace(VIDEO, steps=400), recipe)
    drawn = [made._column(draw) for step in range(400) for some in made._schedule.step(step) for draw in some.draws]
    assert Counter(drawn)["caption_coca"] / len(drawn) == pytest.approx(0.75, abs=0.04)


def test_frames_between_are_masked(export: Path, encoders: Encoders) -> None:
    phase = RECIPE.phase("between")
    (batch,) = batches(export, encoders, phase).training(1)
    condition = batch.condition
    assert condition.shown_BSCHW.shape == (4, 2, 4, 6, 8)
    assert condition.tokens_BLD.shape[1] == 2
    latent = torch.tensor([1.0, 2.0, 3.0, 4.0])
    beside = condition.drop(*torch.tensor([[False] * 4] * 2)).beside(5, latent)
    assert beside.shape == (4, 5, 5, 6, 8)
    assert torch.equal(beside[:, 0, :4], condition.shown_BSCHW[:, 0])
    assert torch.equal(beside[:, 4, :4], condition.shown_BSCHW[:, 1])
    assert torch.equal(beside[0, 2, :4, 3, 3], latent)
    assert beside[0, :, 4, 0, 0].tolist() == [1, 0, 0, 0, 1]
    assert not condition.without().beside(5, latent).any()
    assert (condition.ids_BK[:, 2] == 0).all()  # as they are, without noise


def test_the_masked_latent_is_learned(export: Path, encoders: Encoders) -> None:
    phase = RECIPE.phase("between")
    (batch,) = batches(export, encoders, phase).training(1)
    unet = build(phase, RECIPE.net, 96, (6, 8))
    unet.conv_in.weight.data[:, 4:] = 0.1
    how = objective.of(phase)
    how.loss(network(unet, batch.condition), batch.clean, batch.noise, batch.sigma).mean().backward()
    assert unet.masked_latent.grad.abs().min() > 0
    assert flops.training_flops(unet, batch, how) > 0  # counted without memory too


def test_an_orbit_is_told_its_elevation() -> None:
    ids = added_ids(7.0, [127, 127], torch.tensor([0.1, 0.2]), [30.0, -90.0])
    assert ids.shape == (2, 5)
    assert ids[:, 3].tolist() == pytest.approx([0.5, -1.0])
    assert ids[:, 4].tolist() == pytest.approx([math.sqrt(0.75), 0.0], abs=1e-6)


@pytest.mark.parametrize("task", [task for task, kind in TASKS.items() if kind.video])
def test_what_a_task_adds_changes_nothing_at_first(task: str) -> None:
    """Further input channels, ids and a learned latent: a phase starts as the model that it starts from."""
    torch.manual_seed(0)
    before = build(VIDEO, RECIPE.net, 24, (6, 8)).eval()
    for parameter in before.parameters():
        parameter.data += 0.02 * torch.randn_like(parameter)
    frames = 5
    phase = dataclasses.replace(VIDEO, task=task, frames=frames)
    after = build(phase, RECIPE.net, 24, (6, 8)).eval()
    assert carry(before, after) == []
    kind = phase.kind
    x, sigma = torch.randn(2, frames, 4, 6, 8), torch.tensor([0.3, -0.2])
    tokens, ids = torch.randn(2, 2, 24), torch.rand(2, kind.ids)
    shown = torch.randn(2, len(kind.shown), 4, 6, 8) if kind.shown else None
    with torch.no_grad():
        first = network(before, Condition(tokens_BLD=tokens, ids_BK=ids[:, :3]))(x, sigma)
        second = network(after, Condition(tokens_BLD=tokens, ids_BK=ids, shown_BSCHW=shown))(x, sigma)
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
    begun = build(RECIPE.phases[0], RECIPE.net, 96, (6, 8)).state_dict()
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
    from peft import set_peft_model_state_dict

    folder = run / "phases" / "camera" / "step-000002"
    adapters = load_file(folder / "lora.safetensors")
    assert adapters
    assert {min(value.shape) for value in adapters.values()} == {2}
    other = add_lora(build(RECIPE.phase("camera"), RECIPE.net, 96, (6, 8)), ["camera"], 2)
    assert not set_peft_model_state_dict(other, adapters, adapter_name="default").unexpected_keys
    there = {name.replace(".default.", "."): value for name, value in lora_weights(other).items()}
    assert all(torch.equal(value, there[name]) for name, value in adapters.items())
    _, said = UNetSpatioTemporalConditionModel.from_pretrained(folder / "unet_ema", output_loading_info=True)
    assert not any(said.values())


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


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"image_share": 0.1}, r"image_share: pictures and videos in 4 samples expected"),
        ({"image_share": 0.5, "task": "image-to-video"}, "image_share: 0 in any but a text-to-video phase"),
        ({"buckets": (Bucket(size=(32, 24), frames=1),)}, "buckets: 1 frame in an image phase"),
        ({"buckets": (Bucket(size=(32, 20), frames=3),)}, "buckets: multiples of 8"),
        ({"mix": (Share(weight=-1),)}, "mix: positive weights"),
        ({"lora": ("camera",), "trains": "temporal"}, "trains: all where lora"),
        ({"lora_rank": 4}, "lora_rank: None, or"),
        ({"trains": "some"}, "trains: one of all, time-embedding, temporal"),
        ({"sample_every": 0}, "sample_every"),
        ({"task": "text-to-3d"}, "task: one of text-to-image"),
    ],
)
def test_a_wrong_phase_is_refused_by_field(change: dict[str, object], words: str) -> None:
    with pytest.raises((UsageError, KeyError), match=words):
        dataclasses.replace(VIDEO, **change)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"start": "later"}, "phase video: start: None or one of"),
        ({"lora": ("arms",)}, "lora='arms': no such part; there are spatial_attention, "),
        ({"mix": (Share(data="svd-hq"),)}, "mix: export 'svd-hq' is not given; given: main"),
        ({"buckets": (Bucket(size=(32, 24), frames=3), Bucket(size=(24, 96), frames=3))}, "buckets: .*24x96x3"),
        ({"frames": 40}, "frames: no training clip of 40 frames"),
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
    with pytest.raises(UsageError, match="caption: positive probabilities that sum to 1"):
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
    assert set(split.short).isdisjoint(split.ids)


def test_clips_are_trained_in_the_bucket_of_their_length(tmp_path: Path) -> None:
    folder = build_export(tmp_path / "export", clips=9, size=(64, 48), frames=(12, 40), validation=9, columns=MORE)
    buckets = (Bucket(size=(32, 24), frames=3), Bucket(size=(32, 24), frames=8))
    phase = dataclasses.replace(VIDEO, buckets=buckets, steps=12)
    one = dataclasses.replace(RECIPE, phases=(phase,))
    split = load(one, phase, {MAIN: Export(folder)})
    assert [lane.shape for lane in split.train] == list(buckets)
    for lane in split.train:
        assert all((length >= 8) == (lane.shape.frames == 8) for length in lane.items.lengths)
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
    assert [(lane.weight, len(lane.items.ids)) for lane in split.train] == [(1.0, 4), (3.0, 2)]


def test_a_video_model_has_the_masked_latent_only_where_it_is_asked(export: Path) -> None:
    assert VideoUNet(build(VIDEO, RECIPE.net, 24, (6, 8)).config).masked_latent is None
