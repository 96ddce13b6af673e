"""The video UNet: diffusers' function and keys, images among videos, a start that changes nothing, and folders."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("diffusers")
pytest.importorskip("transformers")

from diffusers import UNet2DConditionModel, UNetSpatioTemporalConditionModel  # noqa: E402
from safetensors.torch import load_file, save_file  # noqa: E402

from dailies.curation.errors import UsageError  # noqa: E402
from dailies.training import models  # noqa: E402
from dailies.training.models import SVD, SVD_TEXT, UNetConfig, VideoUNet  # noqa: E402

# Levels with and without attention, of different heads; two transformer layers on one of them; sides that halve unevenly.
SMALL = UNetConfig(in_channels=8, channels=(64, 96), attention=(True, False), heads=(2, 4), layers=1,
                   transformer_layers=(2, 1), cross_attention_dim=24, time_id_width=8, frames=3)  # fmt: skip
BOTH = [SMALL, dataclasses.replace(SMALL, attention=(False, True), layers=2, transformer_layers=(1, 2))]

TINY = dataclasses.replace(SMALL, channels=(32,), attention=(True,), heads=(2,), transformer_layers=(1,))


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)


def shake(model: Any) -> Any:
    """Random weights everywhere, biases and zero layers too."""
    for parameter in model.parameters():
        parameter.data += 0.05 * torch.randn_like(parameter)
    return model


def theirs(config: UNetConfig) -> Any:
    row = config.to_diffusers()
    del row["_class_name"]
    return UNetSpatioTemporalConditionModel(**row)


def pair(config: UNetConfig) -> tuple[Any, VideoUNet]:
    their, our = shake(theirs(config)), VideoUNet(config)
    our.load_state_dict(their.state_dict())
    return their, our


def inputs(config: UNetConfig, samples: int = 2, frames: int = 3) -> tuple[Any, ...]:
    """x (odd sides), c_noise, context, ids."""
    x = torch.randn(samples, frames, config.in_channels, 7, 10)
    ids = torch.tensor([[6.0, 127.0, 0.02], [7.0, 30.0, 0.1], [9.0, 255.0, 0.0]])[:samples]
    return x, torch.linspace(-0.5, 0.5, samples), torch.randn(samples, 5, config.cross_attention_dim), ids


def far(one: Any, other: Any) -> float:
    """The largest difference, relative to the largest number."""
    return ((one - other).abs().max() / other.abs().max()).item()


# ---- the same function as diffusers' --------------------------------------------------------------------------------


@pytest.mark.parametrize("config", BOTH)
def test_keys_shapes_and_types_are_diffusers(config: UNetConfig) -> None:
    their, our = theirs(config), VideoUNet(config)

    def kinds(model: Any) -> dict[str, Any]:
        return {name: (value.shape, value.dtype) for name, value in model.state_dict().items()}

    assert kinds(our) == kinds(their)
    our.load_state_dict(their.state_dict())
    their.load_state_dict(VideoUNet(config).state_dict())


@pytest.mark.parametrize("config", BOTH)
def test_outputs_and_gradients_are_diffusers(config: UNetConfig) -> None:
    their, our = pair(config)
    given = inputs(config)
    out, wanted = our(*given), their(*given, return_dict=False)[0]
    assert far(out, wanted) < 1e-5
    error = torch.randn_like(out)
    out.backward(error)
    wanted.backward(error)
    gradients = {name: (p.grad, dict(our.named_parameters())[name].grad) for name, p in their.named_parameters()}
    # A mix factor is one number, summed up with much cancelling: by themselves their float32 gradients hold 5 digits at most,
    # so they are compared as one vector here, and one by one in float64 below.
    mixed = [gradients.pop(name) for name in list(gradients) if name.endswith("mix_factor")]
    gradients["mix_factors"] = tuple(torch.cat(side) for side in zip(*mixed, strict=True))
    assert max(far(mine, real) for real, mine in gradients.values()) < 1e-5


@pytest.mark.parametrize("config", BOTH)
def test_in_float64_each_gradient_is_diffusers(config: UNetConfig) -> None:
    their, our = (model.double() for model in pair(config))
    given = [value.double() for value in inputs(config)]
    out, wanted = our(*given), their(*given, return_dict=False)[0]
    assert far(out, wanted) < 1e-12
    error = torch.randn_like(out)
    out.backward(error)
    wanted.backward(error)
    mine = dict(our.named_parameters())
    assert max(far(mine[name].grad, p.grad) for name, p in their.named_parameters()) < 1e-9


def test_svds_sizes_are_those_published() -> None:
    def sizes(config: UNetConfig) -> tuple[int, int]:
        with torch.device("meta"):
            model = VideoUNet(config)
        temporal = [p.numel() for name, p in model.named_parameters() if models.is_temporal(name)]
        return models.count_parameters(model), sum(temporal)

    assert sizes(SVD) == (1_524_623_082, 656_076_838)
    # The paper: 1521M, 656M of them temporal. What is left is the UNet of SD 2.1, which it starts from.
    assert sizes(SVD_TEXT) == (1_521_987_562, 656_076_838)
    assert 1_521_987_562 - 656_076_838 == 865_910_724 == models.count_parameters(sd_2_1())


def sd_2_1() -> Any:
    """stabilityai/stable-diffusion-2-1's UNet, without weights."""
    with torch.device("meta"):
        return UNet2DConditionModel(attention_head_dim=(5, 10, 20, 20), cross_attention_dim=1024,
                                    use_linear_projection=True, upcast_attention=True, sample_size=96)  # fmt: skip


def test_sd_2_1_becomes_svd() -> None:
    flat = sd_2_1()
    with torch.device("meta"):
        video = models.widen_input(models.insert_temporal(flat.state_dict(), flat.config, frames=25), 8)
    assert video.config == SVD
    assert models.count_parameters(video) == 1_524_623_082


def test_the_context_is_attended_once() -> None:
    from torch.utils.flop_counter import FlopCounterMode

    config = dataclasses.replace(SVD_TEXT, time_id_width=256)
    with torch.device("meta"):
        our, their = VideoUNet(config), theirs(config).to("meta")  # its mix factors stay behind otherwise
        given = (torch.empty(1, 14, 4, 32, 48), torch.empty(1), torch.empty(1, 77, 1024), torch.empty(1, 3))

    def flops(model: Any) -> int:
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            model(*given)
        return int(counter.get_total_flops())

    mine, whole = flops(our), flops(their)
    assert mine / 1e12 == pytest.approx(6.29, abs=0.01)
    assert 1 - mine / whole == pytest.approx(0.184, abs=0.001)


def test_more_pixels_than_a_kernel_takes_are_attended_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    model, given = shake(VideoUNet(SMALL)), inputs(SMALL)
    with torch.no_grad():
        whole = model(*given)
        monkeypatch.setattr("dailies.training.models.attention.MOST", 3)
        assert far(model(*given), whole) < 1e-5


def test_half_precision_and_autocast_keep_to_the_function() -> None:
    model = shake(VideoUNet(SMALL))
    given = inputs(SMALL)
    mixed = torch.tensor([True, False])
    with torch.no_grad():
        wanted = model(*given, mixed)
        with torch.autocast("cpu", torch.bfloat16):
            assert far(model(*given, mixed).float(), wanted) < 0.05
        half = model.bfloat16()(*(value.bfloat16() for value in given), mixed)
    assert half.dtype == torch.bfloat16
    assert far(half.float(), wanted) < 0.05


# ---- images among videos --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("config", BOTH)
def test_an_image_in_a_joint_batch_passes_as_in_the_image_model(config: UNetConfig) -> None:
    model = shake(VideoUNet(config))
    x, noise, context, ids = inputs(config, samples=3)
    with torch.no_grad():
        joint = model(x, noise, context, ids, torch.tensor([True, False, True]))
        flat = model(x, noise, context, ids, torch.ones(3, dtype=torch.bool))
        video = model(x, noise, context, ids)
        alone = model(x[1:2], noise[1:2], context[1:2], ids[1:2])
        each = [model(x[:, t], noise, context, ids) for t in range(3)]  # 4-D: images
    assert torch.equal(joint[[0, 2]], flat[[0, 2]])
    assert far(joint[1], video[1]) < 1e-5
    assert far(joint[1], alone[0]) < 1e-5  # the images beside a video do not touch it
    assert far(video, flat) > 1e-2  # temporal layers do change something
    assert far(flat, torch.stack(each, 1)) < 1e-5


def test_gradients_of_a_joint_batch_are_the_sum_of_its_parts() -> None:
    model = shake(VideoUNet(SMALL)).double()
    given = [value.double() for value in inputs(SMALL)]
    weight = torch.randn(2, 3, 4, 7, 10, dtype=torch.float64)
    (model(*given, torch.tensor([True, False])) * weight).sum().backward()
    joint = {name: p.grad.clone() for name, p in model.named_parameters()}
    model.zero_grad(set_to_none=False)
    for row, image in ((0, True), (1, False)):
        part = [value[row : row + 1] for value in given]
        (model(*part, torch.tensor([image])) * weight[row : row + 1]).sum().backward()
    assert max(far(p.grad, joint[name]) for name, p in model.named_parameters()) < 1e-10


def test_images_train_no_temporal_layer() -> None:
    model = shake(VideoUNet(SMALL))
    x, noise, context, _ = inputs(SMALL)
    model(x[:, 0], noise, context).sum().backward()
    trained = {name for name, p in model.named_parameters() if p.grad is not None}
    wanted = {name for name, _ in model.named_parameters() if not models.is_temporal(name) and "add_emb" not in name}
    assert trained == wanted


def test_a_wrong_input_is_refused() -> None:
    x, noise, context, ids = inputs(SMALL)
    with pytest.raises(ValueError, match=r"added_time_ids_BK: shape \(2, 2\): the model takes \(2, 3\)"):
        VideoUNet(SMALL)(x, noise, context, ids[:, :2])
    with pytest.raises(ValueError, match=r"added_time_ids_BK: .* takes none"):
        VideoUNet(dataclasses.replace(SMALL, time_id_width=None))(x, noise, context, ids)
    with pytest.raises(ValueError, match="x: "):
        VideoUNet(SMALL)(x[0, 0], noise, context)


# ---- the start ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("config", BOTH)
def test_a_new_model_is_its_image_model(config: UNetConfig) -> None:
    model = VideoUNet(config)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            zero = not parameter.any()
            parameter += 0.0 if zero and "norm" not in name else 0.1 * torch.randn_like(parameter)
    x, noise, context, ids = inputs(config)
    with torch.no_grad():
        video = model(x, noise, context, ids)
        assert torch.equal(video, model(x, noise, context, None, torch.ones(2)))
    # And it can learn from there: of each temporal layer something gets a gradient.
    model(x, noise, context, ids).square().mean().backward()
    moved = {name.rsplit(".", 1)[0] for name, p in model.named_parameters() if p.grad.any()}
    last = {name.rsplit(".", 1)[0] for name, _ in model.named_parameters() if models.is_last(name)}
    assert last <= moved


def image_model(linear: bool, config: UNetConfig = BOTH[1]) -> Any:
    kinds = ["CrossAttn" if has else "" for has in config.attention]
    model = UNet2DConditionModel(
        in_channels=4,
        block_out_channels=config.channels,
        down_block_types=[f"{kind}DownBlock2D" for kind in kinds],
        up_block_types=[f"{kind}UpBlock2D" for kind in reversed(kinds)],
        layers_per_block=config.layers,
        attention_head_dim=config.heads,
        cross_attention_dim=config.cross_attention_dim,
        transformer_layers_per_block=config.transformer_layers,
        use_linear_projection=linear,
    )
    return shake(model)


@pytest.mark.parametrize("linear", [True, False])
def test_inserting_temporal_layers_keeps_the_image_model(linear: bool) -> None:
    flat = image_model(linear)
    video = models.insert_temporal(flat, time_id_width=8)
    assert video.state_dict().keys() == theirs(video.config).state_dict().keys()
    mixes = [p for name, p in video.named_parameters() if name.endswith("mix_factor")]
    assert all(p.item() == 0.5 for p in mixes)
    x, noise, context, ids = inputs(video.config)
    with torch.no_grad():
        out = video(x, noise, context, ids)
        assert torch.equal(out, video(x, noise, context, None, torch.ones(2)))
        wanted = torch.stack([flat(x[:, t], noise, context).sample for t in range(3)], 1)
    # Only diffusers' own eps stands between: 1e-6 in some norms of its video model, 1e-5 in all of its image model.
    assert far(out, wanted) < 1e-4
    for name, module in video.named_modules():
        if isinstance(module, torch.nn.GroupNorm) and ".spatial_res_block." in name:
            module.eps = 1e-5
    with torch.no_grad():
        assert far(video(x, noise, context, ids), wanted) < 1e-6
    again = models.insert_temporal(flat.state_dict(), dict(flat.config), time_id_width=8).state_dict()
    same = [name for name in again if not models.is_temporal(name) and "add_embedding" not in name]
    assert all(torch.equal(again[name], video.state_dict()[name]) for name in same)


def test_another_image_model_is_refused() -> None:
    flat = image_model(True)
    with pytest.raises(UsageError, match="act_fn='gelu': Stable Diffusion has 'silu'"):
        models.insert_temporal(flat.state_dict(), {**flat.config, "act_fn": "gelu"})
    state = flat.state_dict()
    del state["conv_in.bias"]
    with pytest.raises(UsageError, match=r"conv_in\.bias: missing"):
        models.insert_temporal(state, flat.config)
    with pytest.raises(UsageError, match=r"conv_in\.weight: \(64, 4, 3, 3\) in the image model, \(64, 8, 3, 3\) here"):
        models.insert_temporal(flat.state_dict(), {**flat.config, "in_channels": 8})


def test_new_input_channels_change_nothing_at_first() -> None:
    config = dataclasses.replace(SMALL, in_channels=4)
    model = shake(VideoUNet(config))
    x, noise, context, ids = inputs(config)
    with torch.no_grad():
        before = model(x, noise, context, ids)
        wide = models.widen_input(model, 8)
        image = torch.randn(2, 1, 4, 7, 10).expand(-1, 3, -1, -1, -1)
        assert far(wide(torch.cat([x, image], 2), noise, context, ids), before) < 1e-5
    assert wide.config.in_channels == wide.state_dict()["conv_in.weight"].shape[1] == 8
    wide(torch.cat([x, image], 2), noise, context, ids).sum().backward()
    assert wide.conv_in.weight.grad[:, 4:].any()
    with pytest.raises(UsageError, match="channels=4: the model already has 8"):
        models.widen_input(wide, 4)


# ---- memory ---------------------------------------------------------------------------------------------------------


def kept_bytes(model: Any, given: tuple[Any, ...]) -> tuple[int, Any]:
    """What autograd keeps of one forward besides weights; and the output."""
    weights = {p.data_ptr() for p in model.parameters()}
    kept: dict[int, int] = {}

    def see(tensor: Any) -> Any:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(see, lambda tensor: tensor):
        out = model(*given)
    out = out if isinstance(out, torch.Tensor) else out.sample
    return sum(kept.values()), out


def test_checkpointing_changes_memory_and_no_gradient() -> None:
    their, model = pair(SMALL)
    given = inputs(SMALL)
    found: list[tuple[int, dict[str, Any]]] = []
    for levels in ((), (1,), (0,), (0, 1)):
        model.checkpoint_levels(levels)
        model.zero_grad()
        size, out = kept_bytes(model, given)
        out.square().mean().backward()
        found.append((size, {name: p.grad for name, p in model.named_parameters()}))
    sizes = [size for size, _ in found]
    assert sizes[0] > sizes[1] > sizes[2] > sizes[3]
    for _, gradients in found[1:]:
        assert all(torch.equal(value, found[0][1][name]) for name, value in gradients.items())
    # diffusers' own covers no temporal transformer block.
    their.enable_gradient_checkpointing()
    assert sizes[3] < kept_bytes(their, given)[0] / 4
    with pytest.raises(UsageError, match="checkpoint_levels: no level 2; there are 0 to 1"):
        model.checkpoint_levels([2])


# ---- adapters -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("parts", "word"), [(["camera"], "temporal_tr"), (["spatial_attention"], ".transformer_bl")])
def test_adapters_alone_train_and_merge(parts: list[str], word: str) -> None:
    pytest.importorskip("peft")
    model = shake(VideoUNet(SMALL))
    given, base = inputs(SMALL), {name: value.clone() for name, value in model.state_dict().items()}
    with torch.no_grad():
        before = model(*given)
        assert torch.equal(models.add_lora(model, parts)(*given), before)
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    assert trained.keys() == models.lora_weights(model).keys()
    assert all(".lora_" in name and word in name and ".attn" in name for name in trained)
    assert {min(p.shape) for p in trained.values()} == {16}
    # Down, middle, and two up: 1 + 1 + 2 transformers, of 2, 1, and 2 layers; 2 attentions of 4 matrices, each with A and B.
    assert len(trained) == (2 + 1 + 2 * 2) * 2 * 4 * 2
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    for _ in range(2):
        optimizer.zero_grad()
        model(*given).square().mean().backward()
        optimizer.step()
    with torch.no_grad():
        after = model(*given)
        assert far(after, before) > 1e-2
        assert all(torch.equal(p, base[name.replace(".base_layer", "")]) for name, p in model.named_parameters()
                   if name not in trained)  # fmt: skip
        for again in (lambda: models.add_lora(model, parts), lambda: model.save_pretrained("nowhere")):
            with pytest.raises(UsageError, match=r"model: (already )?has adapters"):
                again()
        assert far(models.merge_lora(model)(*given), after) < 1e-5
    assert model.state_dict().keys() == base.keys()
    assert all(p.requires_grad for p in model.parameters())


def test_wrong_adapters_are_refused() -> None:
    model = VideoUNet(SMALL)
    for parts, rank, word in ((["zoom"], None, "parts: .*'zoom'"), ([], None, "parts"), (["camera"], 0, "rank")):
        with pytest.raises(UsageError, match=word):
            models.add_lora(model, parts, rank)
    with pytest.raises(UsageError, match="has no adapters"):
        models.merge_lora(model)


# ---- folders --------------------------------------------------------------------------------------------------------


def test_our_folder_loads_in_diffusers_and_runs_equal(tmp_path: Path) -> None:
    model = shake(VideoUNet(SMALL))
    model.extra_config = {"task": "image-to-video"}
    model.save_pretrained(tmp_path)
    their, said = UNetSpatioTemporalConditionModel.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(said.values())
    given = inputs(SMALL)
    with torch.no_grad():
        assert far(model(*given), their(*given).sample) < 1e-5
    again = models.load(tmp_path)
    assert again.config == SMALL
    assert again.extra_config == model.extra_config
    assert all(torch.equal(again.state_dict()[name], value) for name, value in model.state_dict().items())
    assert all(p.requires_grad for p in again.parameters())


def test_diffusers_folders_load_whole_halved_and_in_shards(tmp_path: Path) -> None:
    their = shake(theirs(TINY))
    their.save_pretrained(tmp_path / "whole")
    their.save_pretrained(tmp_path / "shards", max_shard_size="500KB")
    assert len(list((tmp_path / "shards").glob("*.safetensors"))) > 2
    their.half().save_pretrained(tmp_path / "whole", variant="fp16")
    their.save_pretrained(tmp_path / "half", variant="fp16", max_shard_size="500KB")
    whole, shards = models.load(tmp_path / "whole"), models.load(tmp_path / "shards")
    half, halves = models.load(tmp_path / "whole", variant="fp16"), models.load(tmp_path / "half")
    for name, value in their.state_dict().items():
        assert torch.equal(whole.state_dict()[name], shards.state_dict()[name])
        assert torch.equal(half.state_dict()[name], value)
        assert torch.equal(halves.state_dict()[name], value)
    assert half.conv_in.weight.dtype == torch.float16
    assert models.load(tmp_path / "half", dtype=torch.float32).conv_in.weight.dtype == torch.float32


def test_a_broken_folder_is_named(tmp_path: Path) -> None:
    VideoUNet(TINY).save_pretrained(tmp_path)
    file = tmp_path / "diffusion_pytorch_model.safetensors"
    state = load_file(file)
    save_file({name: value for name, value in state.items() if name != "conv_in.bias"}, file)
    with pytest.raises(UsageError, match=r"1 weights do not fit its config\.json, conv_in\.bias first"):
        models.load(tmp_path)
    with pytest.raises(FileNotFoundError, match="of variant fp16"):
        models.load(tmp_path, variant="fp16")
    index = tmp_path / "diffusion_pytorch_model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"conv_in.bias": "../elsewhere.safetensors"}}))
    file.unlink()
    with pytest.raises(UsageError, match="files in another folder"):
        models.load(tmp_path)


def test_svds_configuration_is_that_of_its_folder() -> None:
    # config.json of stabilityai/stable-video-diffusion-img2vid-xt, as published.
    row = {
        "_class_name": "UNetSpatioTemporalConditionModel",
        "_diffusers_version": "0.24.0.dev0",
        "addition_time_embed_dim": 256,
        "block_out_channels": [320, 640, 1280, 1280],
        "cross_attention_dim": 1024,
        "down_block_types": ["CrossAttnDownBlockSpatioTemporal"] * 3 + ["DownBlockSpatioTemporal"],
        "in_channels": 8,
        "layers_per_block": 2,
        "num_attention_heads": [5, 10, 20, 20],
        "num_frames": 25,
        "out_channels": 4,
        "projection_class_embeddings_input_dim": 768,
        "sample_size": 96,
        "transformer_layers_per_block": 1,
        "up_block_types": ["UpBlockSpatioTemporal"] + ["CrossAttnUpBlockSpatioTemporal"] * 3,
    }
    assert UNetConfig.from_diffusers(row) == SVD
    for config in (*BOTH, SVD, SVD_TEXT):
        again = UNetConfig.from_diffusers(config.to_diffusers())
        assert again == dataclasses.replace(config, num_time_ids=again.num_time_ids)
    for change, word in (
        ({"_class_name": "UNet2DConditionModel"}, "_class_name"),
        ({"layers_per_block": [1, 2, 2, 2]}, "layers_per_block"),
        ({"down_block_types": ["DownBlock3D"] * 4}, "down_block_types"),
        ({"up_block_types": ["UpBlockSpatioTemporal"] * 4}, "up_block_types"),
        ({"num_attention_heads": [5, 10, 20]}, "heads"),
        ({"num_attention_heads": 7}, "heads"),
        ({"projection_class_embeddings_input_dim": 700}, "projection_class"),
    ):
        with pytest.raises(UsageError, match=word):
            UNetConfig.from_diffusers({**row, **change})


def test_the_pipeline_of_svd_runs_on_it(tmp_path: Path) -> None:
    from PIL import Image

    from dailies.zoo.assemble import assemble, check
    from dailies.zoo.pipelines import BY_TASK
    from tests.tiny_run import make_models

    folders = {name: Path(folder) for name, folder in make_models(tmp_path / "models").items()}
    config = dataclasses.replace(SMALL, cross_attention_dim=32)
    shake(VideoUNet(config)).save_pretrained(tmp_path / "unet")
    spec = BY_TASK["image-to-video"]
    check(spec, tmp_path / "unet", folders)
    pipe = assemble(spec, tmp_path / "unet", folders, {"sigma_max": 80.0})
    pipe.set_progress_bar_config(disable=True)

    def frames() -> Any:
        noise = torch.Generator().manual_seed(0)
        made = pipe(Image.new("RGB", (64, 32), "teal"), 32, 64, num_inference_steps=2, num_frames=3, generator=noise,
                    output_type="pt")  # fmt: skip
        return made.frames

    first = frames()
    assert first.shape == (1, 3, 3, 32, 64)
    assert torch.isfinite(first).all()
    # What the pipeline asks of its UNet is what ours gives.
    asked: list[Any] = []
    pipe.unet.register_forward_hook(lambda *call: asked.append(call), with_kwargs=True)
    frames()
    our = models.load(tmp_path / "unet")
    _, (x, noise), named, (wanted,) = asked[0]
    with torch.no_grad():
        out = our(x, noise, named["encoder_hidden_states"], named["added_time_ids"])
    assert far(out, wanted) < 1e-5


@pytest.mark.parametrize(("alpha", "change"), [(None, 4.0), (2.0, 2.0)])
def test_adapters_weigh_by_alpha_over_rank(alpha: float | None, change: float) -> None:
    """W becomes W + (α/rank)·B·A, α being the rank by default: with A and B of ones and rank 4, W + α."""
    model = VideoUNet(SMALL)
    before = model.state_dict()
    names = [name for name in before if ".temporal_transformer_blocks." in name and name.endswith(".to_q.weight")]
    old = {name: before[name].clone() for name in names}
    models.add_lora(model, ["camera"], 4, alpha=alpha)
    with torch.no_grad():
        for name, value in model.named_parameters():
            if ".lora_" in name:
                value.fill_(1.0)
    after = models.merge_lora(model).state_dict()
    assert names
    for name in names:
        torch.testing.assert_close(after[name], old[name] + change)
