"""The temporal VAE decoder: inflation of Stable Diffusion's kind of VAE, loading, finetuning, resuming."""

from __future__ import annotations

import dataclasses
import json
import math
import multiprocessing
import os
import signal
import socket
from collections.abc import Callable
from pathlib import Path
from shutil import copytree, rmtree
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("diffusers")
pytest.importorskip("transformers")

from diffusers import AutoencoderKL, AutoencoderKLTemporalDecoder, StableVideoDiffusionPipeline  # noqa: E402
from safetensors.torch import load_file, save_file  # noqa: E402
from torch.nn.attention import SDPBackend, sdpa_kernel  # noqa: E402
from torch.utils.flop_counter import FlopCounterMode  # noqa: E402

from dailies.curation.errors import Damaged, NotFinite, UsageError  # noqa: E402
from dailies.pipelines.train_vae import train_vae_run  # noqa: E402
from dailies.training import loop  # noqa: E402
from dailies.training.data.export import Export  # noqa: E402
from dailies.training.models.vae.inflate import inflate  # noqa: E402
from dailies.training.models.vae.io import load_temporal, load_vae, save_half  # noqa: E402
from dailies.training.vae.objective import TEMPORAL, trainable_params  # noqa: E402
from dailies.training.vae.plan import plan_vae  # noqa: E402
from dailies.training.vae.recipe import VaeRecipe  # noqa: E402
from dailies.training.vae.task import train_vae  # noqa: E402
from dailies.training.vae.windows import split  # noqa: E402
from tests.conftest import Dailies  # noqa: E402
from tests.training_export import BUILTIN, build_export  # noqa: E402

WEIGHTS = "diffusion_pytorch_model.safetensors"
RECIPE = VaeRecipe(
    steps=4, batch=1, frames=3, size=(24, 16), warmup=2, validation_clips=2, validate_every=2, save_every=2
)


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def export(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("vae") / "export"
    return build_export(folder, clips=6, size=(96, 64), frames=(12, 20), validation=3)


def image_vae(**settings: Any) -> AutoencoderKL:
    """Stable Diffusion's VAE in small: two layers a block, attention in the middle, quant and post_quant convolutions."""
    torch.manual_seed(1)
    shape = {
        "block_out_channels": (32, 64),
        "down_block_types": ("DownEncoderBlock2D",) * 2,
        "up_block_types": ("UpDecoderBlock2D",) * 2,
        "layers_per_block": 2,
        "latent_channels": 4,
        "scaling_factor": 0.18215,
    }
    return AutoencoderKL(**{**shape, **settings}).eval()


def decoded(vae: AutoencoderKL, frames: int, clips: int = 1) -> tuple[Any, Any]:
    """What the image decoder and the inflated one make of the same latents, of the size of SD's (std 1/0.18215)."""
    z = torch.randn(clips * frames, 4, 12, 16, generator=torch.Generator().manual_seed(2)) / 0.18215
    with torch.no_grad():
        return vae.decode(z).sample, inflate(vae).decode(z, num_frames=frames).sample


# ---- inflation ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("frames", [1, 4])
@pytest.mark.parametrize(
    "settings",
    [
        {"use_post_quant_conv": False},
        {"use_post_quant_conv": False, "layers_per_block": 3},
        {"use_post_quant_conv": False, "use_quant_conv": False, "mid_block_add_attention": False},
    ],
)
def test_inflated_decodes_each_frame_as_before(settings: dict[str, Any], frames: int) -> None:
    image, video = decoded(image_vae(**settings), frames, clips=2)
    assert image.std() > 0.05
    assert torch.allclose(image, video, atol=1e-5)


def test_post_quant_conv_is_folded_exactly_but_for_its_bias_at_the_border() -> None:
    vae = image_vae()
    with torch.no_grad():
        vae.post_quant_conv.bias.zero_()
    image, video = decoded(vae, 4)
    assert torch.allclose(image, video, atol=1e-5)
    with torch.no_grad():
        vae.post_quant_conv.bias.copy_(torch.tensor([0.3, -0.2, 0.25, 0.1]))
        z = torch.randn(2, 4, 12, 16, generator=torch.Generator().manual_seed(2))
        before = vae.decoder.conv_in(vae.post_quant_conv(z))
        after = inflate(vae).decoder.conv_in(z)
    assert torch.allclose(before[..., 1:-1, 1:-1], after[..., 1:-1, 1:-1], atol=1e-5)
    assert not torch.allclose(before, after, atol=1e-3)
    image, video = decoded(vae, 4)
    assert 1e-6 < (image - video).abs().mean() / image.std() < 0.02


def test_the_encoder_is_kept() -> None:
    for settings in ({}, {"use_quant_conv": False, "mid_block_add_attention": False}):
        vae = image_vae(**settings)
        x = torch.rand(2, 3, 24, 32) * 2 - 1
        with torch.no_grad():
            one, other = vae.encode(x).latent_dist, inflate(vae).encode(x).latent_dist
        assert torch.allclose(one.parameters, other.parameters, atol=1e-5)


def test_inflation_is_a_function_of_the_vae_alone() -> None:
    vae = image_vae()
    torch.manual_seed(5)
    state = torch.get_rng_state()
    one = inflate(vae).state_dict()
    assert torch.equal(state, torch.get_rng_state())
    torch.manual_seed(6)
    assert all(torch.equal(value, one[name]) for name, value in inflate(vae).state_dict().items())


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"norm_num_groups": 16}, "norm_num_groups"),
        ({"act_fn": "relu"}, "act_fn"),
        ({"shift_factor": 0.1}, "shift_factor"),
        ({"up_block_types": ("UpDecoderBlock2D", "AttnUpDecoderBlock2D")}, "AttnUpDecoderBlock2D"),
        ({"layers_per_block": 1}, r"decoder\.mid_block\..* is not zero"),
    ],
)
def test_what_the_temporal_class_lacks_is_named(settings: dict[str, Any], named: str) -> None:
    with pytest.raises(UsageError, match=named):
        inflate(image_vae(**settings))


# ---- loading --------------------------------------------------------------------------------------------------------


def test_an_sd_folder_loads_in_each_way_it_is_published(tmp_path: Path) -> None:
    vae = image_vae()
    vae.save_pretrained(tmp_path / "full")
    vae.save_pretrained(tmp_path / "pipeline" / "vae")
    save_half(vae, tmp_path / "half")
    save_half(vae, tmp_path / "variant")
    (tmp_path / "variant" / WEIGHTS).rename(tmp_path / "variant" / WEIGHTS.replace(".safe", ".fp16.safe"))
    # Stable Diffusion's own files name the attention's layers as diffusers did then.
    vae.save_pretrained(tmp_path / "old")
    renamed = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    state = load_file(tmp_path / "old" / WEIGHTS)
    for new, old in renamed.items():
        state = {name.replace(f"attentions.0.{new}", f"attentions.0.{old}"): value for name, value in state.items()}
    save_file(state, tmp_path / "old" / WEIGHTS, {"format": "pt"})
    for name, tolerance in (("full", 0.0), ("pipeline", 0.0), ("old", 0.0), ("half", 1e-3), ("variant", 1e-3)):
        loaded = load_vae(tmp_path / name)
        assert {value.dtype for value in loaded.state_dict().values()} == {torch.float32}
        assert not any(weight.requires_grad for weight in loaded.parameters())
        for key, value in vae.state_dict().items():
            assert torch.allclose(loaded.state_dict()[key], value, atol=tolerance, rtol=0), (name, key)


def test_a_saved_temporal_decoder_is_what_svd_takes(tmp_path: Path) -> None:
    made = inflate(image_vae())
    made.save_pretrained(tmp_path)
    loaded = load_temporal(tmp_path)
    assert StableVideoDiffusionPipeline.__init__.__annotations__["vae"] in (
        AutoencoderKLTemporalDecoder,
        "AutoencoderKLTemporalDecoder",
    )
    assert isinstance(loaded, AutoencoderKLTemporalDecoder)
    assert all(torch.equal(value, loaded.state_dict()[name]) for name, value in made.state_dict().items())


def test_a_wrong_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="vae-world-temporal: holds AutoencoderKLTemporalDecoder, not AutoencoderKL"):
        load_vae(BUILTIN / "vae-world-temporal")
    with pytest.raises(UsageError, match="vae-world: holds AutoencoderKL, not AutoencoderKLTemporalDecoder"):
        load_temporal(BUILTIN / "vae-world")
    with pytest.raises(UsageError, match=r"absent: holds no model: config\.json is missing"):
        load_vae(tmp_path / "absent")
    image_vae().save_pretrained(tmp_path / "lacking")
    state = load_file(tmp_path / "lacking" / WEIGHTS)
    del state["decoder.conv_in.weight"]
    save_file(state, tmp_path / "lacking" / WEIGHTS, {"format": "pt"})
    with pytest.raises(
        UsageError, match=r"lacking: does not fit AutoencoderKL: 1 tensors are missing, decoder\.conv_in\.weight first"
    ):
        load_vae(tmp_path / "lacking")
    (tmp_path / "lacking" / WEIGHTS).unlink()
    with pytest.raises(UsageError, match=r"holds no diffusion_pytorch_model\.safetensors"):
        load_vae(tmp_path / "lacking")


# ---- windows --------------------------------------------------------------------------------------------------------


def test_windows_are_consecutive_frames_drawn_from_the_position_alone(
    export: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train, held_out, notes = split(Export(export), RECIPE)
    assert (len(train), len(held_out), notes) == (4, 2, ())
    ids = [train.draw(position).clip_id for position in range(8)]
    assert sorted(ids[:4]) == sorted(ids[4:]) == sorted(train.clip_ids)
    monkeypatch.setattr("dailies.training.vae.windows.CACHE_BYTES", 0)
    uncached = split(Export(export), RECIPE)[0]
    for position in (5, 2):
        window, again = uncached.draw(position), train.draw(position)
        assert window.clip_id == again.clip_id
        assert window.frames.shape == (3, 16, 24, 3)
        assert (window.frames == again.frames).all()
        assert window.rng.random() == again.rng.random()


def test_clips_that_cannot_serve_are_left_out_and_said(export: Path) -> None:
    with pytest.raises(UsageError, match="no training clip has 3 frames at 30 fps"):
        split(Export(export), dataclasses.replace(RECIPE, fps=30))
    with pytest.raises(UsageError, match="no training clip has 50 frames at its own rate"):
        split(Export(export), dataclasses.replace(RECIPE, frames=50))
    _, _, notes = split(Export(export), dataclasses.replace(RECIPE, size=(128, 128), fps=12))
    assert notes == ("4 of 4 training clips are smaller than size and are enlarged",)


def test_a_clip_that_cannot_be_read_is_replaced(export: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = Export(export)
    train = split(opened, RECIPE)[0]
    with_video = opened.with_video
    bad = train.clip_ids[1]

    def damaged(row: Any) -> dict[str, Any]:
        row = with_video(row)
        return {**row, "video": b"\0" * 100} if row["clip_id"] == bad else row

    monkeypatch.setattr(opened, "with_video", damaged)
    assert bad not in [train.draw(position).clip_id for position in range(8)]
    assert list(train.failed) == [bad]


# ---- finetuning -----------------------------------------------------------------------------------------------------


def _flickering(folder: Path) -> Path:
    """The built-in VAE with a posterior half as wide as its latents: noise that differs from frame to frame, so flicker."""
    vae = load_vae(BUILTIN / "vae-world")
    with torch.no_grad():
        vae.quant_conv.weight[4:] = 0
        vae.quant_conv.bias[4:] = 2 * math.log(0.54 / vae.config.scaling_factor)
    vae.save_pretrained(folder)
    return folder


def test_it_takes_flicker_away_and_changes_only_what_it_may(export: Path, tmp_path: Path) -> None:
    recipe = dataclasses.replace(RECIPE, steps=12, frames=4, lr=1e-3, edges=0.0, validate_every=4)
    source, out = _flickering(tmp_path / "start"), tmp_path / "out"
    report = train_vae(source, Export(export), out, recipe=recipe, device="cpu", say=lambda line: None)
    assert report.image is not None
    assert report.before.psnr == pytest.approx(report.image.psnr, abs=1e-3)
    assert report.before.flicker == pytest.approx(report.image.flicker, abs=1e-3)
    assert report.after.flicker < 0.85 * report.image.flicker
    assert report.after.psnr > report.image.psnr + 0.3
    made, start = load_temporal(report.folder).state_dict(), inflate(load_vae(source)).state_dict()
    changed = {name for name, value in made.items() if not torch.equal(value, start[name])}
    assert changed
    assert all(name.startswith("decoder.") and any(part in name for part in TEMPORAL) for name in changed)
    rows = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    steps = [row for row in rows if "loss" in row]
    assert [row["step"] for row in steps] == list(range(12))
    names = {"pixel", "edges", "flicker", "lr", "gradient_norm", "samples_per_second"}
    assert all(names <= set(row) for row in steps)
    measured = [row for row in rows if "loss" not in row]
    assert [row["step"] for row in measured] == [0, 4, 8, 12]
    assert measured[-1]["held_out_psnr"] == report.after.psnr
    assert (out / "samples.png").is_file()
    assert train_vae(source, Export(export), out, recipe=recipe, say=lambda line: None) == report


class Killed(BaseException):
    """Nothing in the loop handles it, so that what is left is what kill -9 leaves."""


LONGER = dataclasses.replace(RECIPE, steps=5, trains="decoder")


def test_killed_and_interrupted_runs_go_on_bit_for_bit(
    export: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    start = tmp_path / "start"
    image_vae(block_out_channels=(32, 32)).save_pretrained(start)

    def run(out: str, say: Callable[[str], None] = lambda line: None) -> Path:
        made = train_vae(start, Export(export), tmp_path / out, recipe=LONGER, device="cpu", say=say)
        return made.folder / WEIGHTS

    def die(line: str) -> None:
        if line.startswith("vae: step 4/"):  # after four steps, of which the first two are saved
            raise Killed

    whole = run("whole").read_bytes()
    with pytest.raises(Killed):
        run("killed", die)
    checkpoints = tmp_path / "killed" / "checkpoints"
    assert [path.name for path in checkpoints.glob("*step-*")] == ["step-000002"]
    (checkpoints / ".part-1-step-000004" / "vae").mkdir(parents=True)
    with (tmp_path / "killed" / "metrics.jsonl").open("a") as file:
        file.write('{"step": 3, "lo')
    assert run("killed").read_bytes() == whole
    assert sorted(path.name for path in checkpoints.glob("*step-*")) == ["step-000004", "step-000005"]

    step = loop.train_step

    def interrupted(*args: Any) -> dict[str, float]:
        if args[-1] == 2:
            os.kill(os.getpid(), signal.SIGINT)
        return step(*args)

    monkeypatch.setattr(loop, "train_step", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run("stopped")
    monkeypatch.undo()
    assert (tmp_path / "stopped" / "checkpoints" / "step-000003").is_dir()
    assert run("stopped").read_bytes() == whole
    losses = [
        [
            (row["step"], row.get("loss"), row.get("held_out_psnr"))
            for row in map(json.loads, (tmp_path / out / "metrics.jsonl").open())
        ]
        for out in ("whole", "killed", "stopped")
    ]
    assert losses[0] == losses[1] == losses[2]
    assert [step for step, loss, _ in losses[0] if loss is not None] == list(range(5))


def test_a_run_that_an_earlier_version_began_goes_on(
    export: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It kept the places of start and export alone, no figures in checkpoints and no file that names the newest."""

    def run(out: str, say: Callable[[str], None] = lambda line: None) -> Any:
        return train_vae("zoo", Export(export), tmp_path / out, recipe=RECIPE, device="cpu", say=say)

    def die(line: str) -> None:
        if line.startswith("vae: step 4/"):
            raise Killed

    copytree(BUILTIN / "vae-world", tmp_path / "vae-world")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "zoo").symlink_to(BUILTIN / "vae-world")
    whole = run("whole")
    with pytest.raises(Killed):
        run("old", die)
    facts = json.loads((tmp_path / "old" / "vae.json").read_text())
    assert facts["start"] == "zoo:vae-world"
    facts["start"] = "/somewhere/zoo/builtin/vae-world"
    del facts["content"]
    (tmp_path / "old" / "vae.json").write_text(json.dumps(facts))
    (tmp_path / "old" / "checkpoints" / "latest").unlink()
    path = tmp_path / "old" / "checkpoints" / "step-000002" / "state.pt"
    state = torch.load(path)
    del state["facts"]
    torch.save(state, path)
    said: list[str] = []
    again = run("old", said.append)
    assert said[0].startswith("vae: goes on from step 2")
    assert (again.folder / WEIGHTS).read_bytes() == (whole.folder / WEIGHTS).read_bytes()
    assert (again.before, again.after) == (whole.before, whole.after)
    done: list[str] = []
    assert run("old", done.append) == again
    assert done == [f"vae: done before: {again.folder}"]
    facts = json.loads((tmp_path / "old" / "vae.json").read_text())
    del facts["content"]
    (tmp_path / "old" / "vae.json").write_text(json.dumps(facts))
    with pytest.raises(UsageError, match=r"start=.*vae-world: .* was begun with zoo:vae-world"):
        train_vae("vae-world", Export(export), tmp_path / "old", recipe=RECIPE, device="cpu")


def test_a_run_knows_start_and_export_by_what_they_hold(export: Path, tmp_path: Path) -> None:
    """Both may move; other bytes of the same name are refused, and the length may change."""
    start, data, out = tmp_path / "start", tmp_path / "data", tmp_path / "run"
    copytree(BUILTIN / "vae-world", start)
    copytree(export, data)
    short = dataclasses.replace(RECIPE, steps=1, validate_every=1)

    def run(recipe: VaeRecipe, say: Callable[[str], None] = lambda line: None) -> Any:
        return train_vae(start, Export(data), out, recipe=recipe, device="cpu", say=say)

    run(short)
    start, data = start.rename(tmp_path / "other-start"), data.rename(tmp_path / "other-data")
    said: list[str] = []
    run(short, said.append)
    assert said == [f"vae: done before: {out / 'vae'}"]
    said.clear()
    assert run(dataclasses.replace(short, steps=2), said.append).steps == 2
    assert said[0].startswith("vae: goes on from step 1,")
    with pytest.raises(UsageError, match="steps=1: 2 are done already"):
        run(short)
    with pytest.raises(UsageError, match=r"^recipe=.* was begun with "):
        run(dataclasses.replace(short, steps=2, lr=0.5))

    (shard,) = (data / "data").glob("train-*")
    for file, old, new, field in (
        (shard, b"mdat", b"mdaT", "data"),
        (start / WEIGHTS, None, None, "start"),
    ):
        kept = file.read_bytes()
        file.write_bytes(kept[:-1] + bytes([kept[-1] ^ 1]) if old is None else kept.replace(old, new, 1))
        with pytest.raises(UsageError, match=rf"^{field}=.*, whose content was another \("):
            run(dataclasses.replace(short, steps=2))
        file.write_bytes(kept)

    (out / "vae.json").write_text("")
    with pytest.raises(Damaged, match=r"^.*/vae\.json: is not JSON: .*; put back a copy of it"):
        run(short)


def test_killed_after_its_last_checkpoint_a_run_is_finished(export: Path, tmp_path: Path) -> None:
    whole = train_vae(BUILTIN / "vae-world", Export(export), tmp_path / "run", recipe=RECIPE, device="cpu")
    path = tmp_path / "run" / "vae.json"
    facts = json.loads(path.read_text())
    path.write_text(json.dumps({**facts, "after": None, "done": False}))
    rmtree(whole.folder)
    again = train_vae(BUILTIN / "vae-world", Export(export), tmp_path / "run", recipe=RECIPE, device="cpu")
    assert again.after == whole.after
    assert (again.folder / WEIGHTS).is_file()


def test_the_board_shows_the_losses_and_the_figures(export: Path, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    train_vae(BUILTIN / "vae-world", Export(export), tmp_path, recipe=RECIPE, device="cpu", say=lambda line: None)
    board = EventAccumulator(str(tmp_path / "tensorboard"))
    board.Reload()
    assert [event.step for event in board.Scalars("flicker")] == [0, 1, 2, 3]
    assert [event.step for event in board.Scalars("held_out_psnr")] == [0, 2, 4]


def _work(rank: int, port: int, export: str, out: str) -> None:
    torch.set_num_threads(1)
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2"}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    train_vae(BUILTIN / "vae-world", Export(export), out, recipe=SHARED, device="cpu", say=lambda line: None)


SHARED = dataclasses.replace(RECIPE, batch=3, trains="decoder")


@pytest.mark.slow
def test_two_processes_train_as_one(export: Path, tmp_path: Path) -> None:
    one = train_vae(BUILTIN / "vae-world", Export(export), tmp_path / "one", recipe=SHARED, device="cpu")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    spawn = multiprocessing.get_context("spawn")
    processes = [
        spawn.Process(target=_work, args=(rank, port, str(export), str(tmp_path / "two"))) for rank in range(2)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(240)
    assert [process.exitcode for process in processes] == [0, 0]
    two = train_vae(BUILTIN / "vae-world", Export(export), tmp_path / "two", recipe=SHARED, device="cpu")
    assert two.before.psnr == pytest.approx(one.before.psnr, abs=1e-4)
    assert two.after.psnr == pytest.approx(one.after.psnr, abs=0.02)
    assert two.after.flicker == pytest.approx(one.after.flicker, rel=0.01)
    rows = [[json.loads(line) for line in (tmp_path / out / "metrics.jsonl").open()] for out in ("one", "two")]
    losses = [[row["loss"] for row in some if "loss" in row] for some in rows]
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)


# ---- the plan -------------------------------------------------------------------------------------------------------


def test_the_plan_counts_what_a_step_computes_and_says_what_lacks(export: Path, tmp_path: Path) -> None:
    made = plan_vae(BUILTIN / "vae-world", Export(export), RECIPE)
    vae = inflate(load_vae(BUILTIN / "vae-world"))
    chosen = trainable_params(vae, "temporal")
    assert made.parameters == sum(weight.numel() for weight in vae.parameters())
    assert made.trained == sum(weight.numel() for _, weight in chosen)
    assert (made.windows, made.clips, made.epochs, made.lacks) == (4, 4, 1.0, ())
    x = torch.rand(3, 3, 16, 24)
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        with torch.no_grad():
            latents = vae.encode(x).latent_dist.mean
        vae.decode(latents.requires_grad_(), num_frames=3).sample.mean().backward()
    assert made.tflop == pytest.approx(counter.get_total_flops() / 1e12)
    assert made.pflop == pytest.approx(4 * made.tflop / 1e3)
    whole = plan_vae(BUILTIN / "vae-world", None, dataclasses.replace(RECIPE, trains="decoder"))
    assert whole.trained > made.trained
    assert whole.lacks == ("an export of clips to train on (--data)",)
    assert plan_vae(BUILTIN / "vae-world", Export(export), dataclasses.replace(RECIPE, batch=6)).lacks == (
        "2 more clips for one batch without repeats",
    )
    (long,) = plan_vae(BUILTIN / "vae-world", Export(export), dataclasses.replace(RECIPE, frames=50)).lacks
    assert "no training clip has 50 frames" in long
    assert not list(tmp_path.iterdir())


def test_the_command_plans_and_refuses(dailies: Dailies, export: Path) -> None:
    start = ("train", "vae", "--from", "zoo:vae-world", "--set", "frames=3", "--set", "size=[24, 16]")
    done = dailies(*start, "--data", export, "--dry-run", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["clips"] == 4
    assert "GFLOP a window" in dailies(*start, "--dry-run").stdout
    assert "--phase=image: train vae has no phases" in dailies(*start, "--phase", "image").stderr


def test_a_wrong_number_stops_before_the_weights_change(export: Path, tmp_path: Path) -> None:
    made = inflate(image_vae(block_out_channels=(32, 32)))
    with torch.no_grad():
        made.decoder.time_conv_out.bias[0] = float("nan")
    made.save_pretrained(tmp_path / "start")
    opened = Export(export)
    first = split(opened, RECIPE)[0].draw(0).clip_id
    with pytest.raises(NotFinite, match=rf"vae, step 0: loss \(nan\) is not finite on samples {first}$"):
        train_vae(tmp_path / "start", opened, tmp_path / "out", recipe=RECIPE, device="cpu")
    assert not (tmp_path / "out" / "vae").exists()


# ---- what is refused ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("field", "value"),
    [("steps", 0), ("batch", 0), ("frames", 1), ("size", (24,)), ("fps", -1.0), ("lr", float("nan")), ("decay", 2.0),
     ("edges", -1.0), ("flicker", float("inf")), ("trains", "encoder"), ("reader", "opencv"), ("keep", 0)],
)  # fmt: skip
def test_a_wrong_value_names_its_field(field: str, value: Any) -> None:
    with pytest.raises(UsageError, match=rf"^{field}[.=:]"):
        dataclasses.replace(RECIPE, **{field: value})


def test_the_command_says_what_does_not_fit(export: Path, tmp_path: Path) -> None:
    def run(start: str = "zoo:vae-world", data: Path = export, device: str = "cpu", **settings: object) -> None:
        given = {"frames": 3, "size": [24, 16], **settings}
        sets = [f"{name}={value}" for name, value in given.items()]
        train_vae_run(start, str(data), str(tmp_path / "out"), sets=sets, device=device, say=lambda line: None)

    for named, change in {
        "no model 'nothing'": {"start": "zoo:nothing"},
        "model=nothing: no such folder; give one, zoo:NAME or a hub id": {"start": "nothing"},
        "start=.*: holds None": {"start": str(BUILTIN / "clip-world")},
        "data=.*: holds no data": {"data": tmp_path / "empty"},
        "--set colour=1: the recipe has no key 'colour'; allowed: steps, ": {"colour": 1},
        r"size=\(26, 16\): this VAE takes multiples of 4 px": {"size": [26, 16]},
        "--set trains=encoder: must be 'temporal' or 'decoder'": {"trains": "encoder"},
        "device=abacus: ": {"device": "abacus"},
    }.items():
        with pytest.raises(UsageError, match=named):
            run(**change)  # type: ignore[arg-type]
    assert not (tmp_path / "out").exists()
    with pytest.raises(UsageError, match=r"out=.*: there is no run to resume"):
        train_vae_run(
            "zoo:vae-world", str(export), str(tmp_path / "out"), device="cpu", resume=True, say=lambda line: None
        )
