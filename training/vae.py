"""Image VAEs: a small one trained from frames, loading of any, and inflation to a temporal decoder.
 Rombach et al. 2022 (arXiv 2112.10752), §3.1 and App. G: an autoencoder with a slight KL penalty towards N(0, 1). There
is no perceptual or adversarial loss here: an L1 on pixels and one on their differences, which keeps edges.
"""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Callable
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL, AutoencoderKLTemporalDecoder
from torch import Tensor

from training.pixels import Pixels, to_pixels, to_tensor

BLOCKS = 3  # so that one latent stands for 4×4 px, and StableVideoDiffusionPipeline's 2**(blocks − 1) agrees


def build_vae(seed: int = 0, channels: int = 64) -> AutoencoderKL:
    """An untrained AutoencoderKL of factor 4 with 4 latent channels.

    ``channels``: in every block. The temporal decoder fixes 32 groups in its norms; with 32 channels each group would
    be one channel and the last norm would wash the picture's mean colour out, so 64 is the least that works well.
    """
    torch.manual_seed(seed)
    return AutoencoderKL(
        block_out_channels=(channels,) * BLOCKS,
        down_block_types=("DownEncoderBlock2D",) * BLOCKS,
        up_block_types=("UpDecoderBlock2D",) * BLOCKS,
        layers_per_block=1,
        latent_channels=4,
        norm_num_groups=32,
        sample_size=64,
        force_upcast=False,
        use_post_quant_conv=False,  # the temporal decoder has none
    )


TRAINING_EPS = 1.0
# What the temporal decoder of one layer a block has no place for, or does not use; here it stays the identity.
# (Its middle has layers_per_block ResBlocks and an attention after the first one only if a second follows.)
LACKING = ("decoder.mid_block.resnets.1.", "decoder.mid_block.attentions.")


@torch.no_grad()
def start_as_blur(vae: AutoencoderKL) -> None:
    """Set weights so that the untrained model already carries colours: it averages 4×4 px and blows them up again.

    Colour c goes through channels (2c, 2c + 1) as +x and −x, one group of the norms, because silu(x) − silu(−x) = x.
    All ResBlocks and attentions start as identities. From a random start most of a short training goes into finding
    colours.
    """
    for name, weight in vae.named_parameters():
        if "conv2." in name or "to_out.0" in name:
            weight.zero_()
        elif "samplers.0.conv." in name or "conv_in." in name:
            weight[:6] = 0
        elif name.endswith("conv_out.weight"):
            weight.mul_(0.1)
    blur = torch.outer(torch.tensor([1.0, 2, 1]), torch.tensor([1.0, 2, 1])) / 16
    for channel in range(6):
        sign, color = 1 - 2 * (channel % 2), channel // 2
        vae.encoder.conv_in.weight[channel, color, 1, 1] = sign
        vae.decoder.conv_in.weight[channel, color, 1, 1] = sign
        for block in vae.encoder.down_blocks[:-1]:
            block.downsamplers[0].conv.weight[channel, channel, :2, :2] = 0.25  # it pads on the right and below
        for block in vae.decoder.up_blocks[:-1]:
            block.upsamplers[0].conv.weight[channel, channel] = blur
        vae.encoder.conv_out.weight[color, channel, 1, 1] = sign
        vae.decoder.conv_out.weight[color, channel, 1, 1] = sign
    vae.encoder.conv_out.bias[4:] = -5.0  # log-variance
    vae.quant_conv.weight.copy_(torch.eye(8)[:, :, None, None])
    vae.quant_conv.bias.zero_()


def soften_norms(vae: AutoencoderKL) -> None:
    """For training: the norms' ε is 1. With 2 channels a group and diffusers' ε of 1e-6 a flat area keeps only the sign
    of their difference, and colours are lost; with 1 small signals pass nearly as they are."""
    for module in vae.modules():
        if isinstance(module, torch.nn.GroupNorm):
            module.eps = TRAINING_EPS


@torch.no_grad()
def harden_norms(vae: AutoencoderKL, eps: float = 1e-6) -> None:
    """Back to diffusers' ε, the same function: what the norms read is scaled by √(ε/1), for
    GroupNorm(x; 1) = GroupNorm(√ε·x; ε). What writes into the residual streams is scaled; what maps a stream to a
    stream keeps its weights and has its bias scaled."""
    scale = (eps / TRAINING_EPS) ** 0.5
    for name, weight in vae.named_parameters():
        onto_stream = any(part in name for part in (".conv1.", ".conv2.", "to_out.0", "coder.conv_in."))
        if onto_stream or name.endswith(("samplers.0.conv.bias", "conv_shortcut.bias")):
            weight.mul_(scale)
    for module in vae.modules():
        if isinstance(module, torch.nn.GroupNorm):
            module.eps = eps


def fit_vae(
    vae: AutoencoderKL,
    frames_NHWC: Pixels,
    *,
    steps: int,
    batch: int = 8,
    crops: tuple[int, int, int] = (32, 48, 64),
    lr: float = 1.5e-3,
    kl: float = 1e-4,
    edges: float = 0.5,
    seed: int = 0,
    say: Callable[[int, dict[str, float]], None] = lambda step, losses: None,
    every: int = 100,
) -> None:
    """Train in place on uint8 frames (N, H, W, 3): square crops of ``crops`` px: the first side for half of
    the steps, the others for a quarter each.

    The loss is L1 + ``edges``·L1 of the differences of neighbouring pixels + ``kl``·KL per latent value. AdamW, one
    cosine from ``lr`` to 0 after a warm-up of 50 steps. bfloat16 autocast on the CPU, where it is the faster.
    """
    rng = np.random.default_rng([seed, 0xAE])
    torch.manual_seed(seed)  # the posterior's samples
    trained = [weight for name, weight in vae.named_parameters() if not name.startswith(LACKING)]
    optimizer = torch.optim.AdamW(trained, lr=lr, betas=(0.9, 0.99), weight_decay=1e-4)
    vae.train()
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = lr * min(1, (step + 1) / 50) * 0.5 * (1 + math.cos(math.pi * step / steps))
        side = crops[max(0, 4 * step // steps - 1)]
        x = to_tensor(_crops(frames_NHWC, rng, batch, side))
        with torch.autocast("cpu", torch.bfloat16):
            posterior = vae.encode(x).latent_dist
            out = vae.decode(posterior.sample()).sample
        out = out.float()
        pixel = F.l1_loss(out, x)
        edge = F.l1_loss(_diff(out, -1), _diff(x, -1)) + F.l1_loss(_diff(out, -2), _diff(x, -2))
        # KL(N(μ, s²) ‖ N(0, 1)) per latent value.
        mean, logvar = posterior.mean.float(), posterior.logvar.float()
        prior = 0.5 * (mean**2 + logvar.exp() - 1 - logvar).mean()
        loss = pixel + edges * edge + kl * prior
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(vae.parameters(), 1.0)
        optimizer.step()
        if step % every == 0 or step == steps - 1:
            say(step, {"pixel": pixel.item(), "edge": edge.item(), "kl": prior.item()})
    vae.eval()


def _diff(x: Tensor, dim: int) -> Tensor:
    return torch.diff(x, dim=dim)


def _crops(frames: Pixels, rng: np.random.Generator, batch: int, side: int) -> Pixels:
    out = np.empty((batch, side, side, 3), np.uint8)
    for i in range(batch):
        y, x = rng.integers(frames.shape[1] - side + 1), rng.integers(frames.shape[2] - side + 1)
        picture = frames[rng.integers(len(frames)), y : y + side, x : x + side]
        out[i] = picture[:, ::-1] if rng.random() < 0.5 else picture
    return out


@torch.no_grad()
def encode_modes(vae: AutoencoderKL | AutoencoderKLTemporalDecoder, frames_NHWC: Pixels, chunk: int = 16) -> Tensor:
    """The posterior's mode of each frame, not scaled: (N, 4, H/4, W/4)."""
    parts = [
        vae.encode(to_tensor(frames_NHWC[i : i + chunk]).to(vae.device, vae.dtype)).latent_dist.mode()
        for i in range(0, len(frames_NHWC), chunk)
    ]
    return torch.cat(parts)


@torch.no_grad()
def reconstruct(vae: AutoencoderKL, frames_NHWC: Pixels, chunk: int = 16) -> Pixels:
    """Frames through encoder (mode) and decoder."""
    latents = encode_modes(vae, frames_NHWC, chunk)
    return np.concatenate([to_pixels(vae.decode(part).sample) for part in torch.split(latents, chunk)])


def set_scale(vae: AutoencoderKL, frames_NHWC: Pixels) -> float:
    """Measure and register ``scaling_factor`` = 1/std of the latents over ``frames_NHWC``, all channels together."""
    factor = 1 / encode_modes(vae, frames_NHWC).float().std().item()
    vae.register_to_config(scaling_factor=round(factor, 6))
    return factor


@torch.no_grad()
def stretch_latents(vae: AutoencoderKL | AutoencoderKLTemporalDecoder, factor: float) -> None:
    """Multiply the latents by ``factor``, in place; decoded pictures stay the same. Exact in float32 for powers of 2.

    An image-to-video model is given the image's latent as the VAE gives it, not scaled, beside noisy latents of unit variance,
    and its new input weights begin at zero: how large the latents are says how soon it learns to look. SD's have a standard
    deviation of about 5 (1/0.18215).
    """
    vae.quant_conv.weight[:4] *= factor
    vae.quant_conv.bias[:4] *= factor
    vae.quant_conv.bias[4:] += 2 * math.log(factor)  # log-variance
    vae.decoder.conv_in.weight /= factor
    vae.register_to_config(scaling_factor=vae.config.scaling_factor / factor)


def load_vae(folder: str | PathLike[str]) -> AutoencoderKL:
    """The image VAE of a diffusers folder in float32, frozen, for inference; float16 files serve too.

    ``folder``: the VAE's own, or that of a pipeline with a ``vae/``. Raises ``ValueError`` naming the folder where it
    does not hold an ``AutoencoderKL`` with all of its weights in safetensors.
    """
    vae: AutoencoderKL = _load(AutoencoderKL, folder)
    return vae


def load_temporal(folder: str | PathLike[str]) -> AutoencoderKLTemporalDecoder:
    """As ``load_vae``, an ``AutoencoderKLTemporalDecoder``."""
    vae: AutoencoderKLTemporalDecoder = _load(AutoencoderKLTemporalDecoder, folder)
    return vae


def read_config(folder: str | PathLike[str]) -> tuple[Path, dict[str, Any]]:
    """Where in ``folder`` the VAE lies, and its config.json. Raises ``ValueError`` naming the folder."""
    root = Path(folder)
    places = [root, root / "vae"]
    place = next((one for one in places if (one / "config.json").is_file()), None)
    if place is None:
        raise ValueError(f"{root}: a folder with the config.json of a diffusers VAE is expected")
    try:
        config = json.loads((place / "config.json").read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{root}: config.json cannot be read: {error}") from error
    if not isinstance(config, dict):
        raise ValueError(f"{root}: config.json is not an object")
    return place, config


def _load(kind: Any, folder: str | PathLike[str]) -> Any:
    place, config = read_config(folder)
    if config.get("_class_name") != kind.__name__:
        raise ValueError(f"{folder}: holds {config.get('_class_name')}, where {kind.__name__} is expected")
    try:
        vae, said = kind.from_pretrained(
            str(place),
            variant=_variant(place),
            torch_dtype=torch.float32,
            use_safetensors=True,
            local_files_only=True,
            output_loading_info=True,
        )
    except (OSError, RuntimeError, ValueError) as error:
        raise ValueError(f"{folder}: does not load as {kind.__name__}: {str(error).strip().splitlines()[0]}") from error
    # diffusers fills what is missing with noise and only logs it.
    wrong = sorted(str(name) for part in ("missing_keys", "unexpected_keys", "mismatched_keys") for name in said[part])
    if wrong:
        raise ValueError(f"{folder}: {len(wrong)} weights do not fit {kind.__name__}, {wrong[0]} first")
    return vae.eval().requires_grad_(False)


def _variant(place: Path) -> str | None:
    """``fp16`` where the weights lie in that variant alone, as in many copies of Stable Diffusion."""
    names = ("diffusion_pytorch_model{}.safetensors", "diffusion_pytorch_model.safetensors.index{}.json")
    for variant in (None, "fp16"):
        if any((place / name.format(f".{variant}" if variant else "")).is_file() for name in names):
            return variant
    raise ValueError(f"{place}: holds no diffusion_pytorch_model.safetensors, nor one of the variant fp16")


def save_half(vae: AutoencoderKL | AutoencoderKLTemporalDecoder, folder: str | PathLike[str]) -> None:
    """Write a copy in float16 safetensors; the model stays as it is."""
    save_whole(copy.deepcopy(vae).half(), folder)


def save_whole(vae: Any, folder: str | PathLike[str]) -> None:
    """Write a diffusers folder as the model is, in safetensors that all may read, without the path it was loaded from."""
    vae.save_pretrained(folder)
    config = Path(folder) / "config.json"
    row = {name: value for name, value in json.loads(config.read_text()).items() if name != "_name_or_path"}
    config.write_text(json.dumps(row, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    for written in Path(folder).glob("*.safetensors"):
        written.chmod(0o644)  # safetensors writes 0600


def set_threads(count: int) -> None:
    """How many cores torch may use: scripts outside this room say it through here."""
    torch.set_num_threads(count)


# ---- inflation ------------------------------------------------------------------------------------------------------


def inflate(vae: AutoencoderKL) -> AutoencoderKLTemporalDecoder:
    """The same encoder, and a temporal decoder that starts as the image decoder frame by frame, in float32.

    Every temporal ResBlock's last convolution is zero, so that it passes its input on and any blend of the two branches
    is the spatial one; ``time_conv_out`` is the identity kernel. The temporal layers' first convolutions are random,
    always the same for VAEs of one shape.

    The temporal class has no ``post_quant_conv``: it is folded into ``decoder.conv_in``. That is exact except for its
    bias in the outermost ring of latents: conv_in pads with zeros after it, the folded one before it (``_fold``).
    Raises ``ValueError`` naming what else the class has no place for.
    """
    _check_place(vae)
    config = vae.config
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        out = AutoencoderKLTemporalDecoder(
            in_channels=config.in_channels,
            out_channels=config.out_channels,
            block_out_channels=tuple(config.block_out_channels),
            down_block_types=tuple(config.down_block_types),
            layers_per_block=config.layers_per_block,
            latent_channels=config.latent_channels,
            sample_size=config.sample_size,
            scaling_factor=config.scaling_factor,
            force_upcast=config.force_upcast,
        )
    out.encoder.load_state_dict(_filled(out.encoder, vae.encoder.state_dict()))
    if vae.quant_conv is not None:
        out.quant_conv.load_state_dict(vae.quant_conv.state_dict())
    else:
        torch.nn.init.dirac_(out.quant_conv.weight)
        torch.nn.init.zeros_(out.quant_conv.bias)
    given = vae.decoder.state_dict()
    if vae.post_quant_conv is not None:
        given |= _fold(vae)
    if config.layers_per_block == 1:
        given = _without_idle(given)
    given = {_spatial(name) if ".resnets." in name else name: value for name, value in given.items()}
    out.decoder.load_state_dict(_filled(out.decoder, given))
    return out.to(vae.device).eval()


def _check_place(vae: AutoencoderKL) -> None:
    """Raises ``ValueError`` naming a setting that the temporal class cannot have."""
    config = vae.config
    fixed: dict[str, tuple[Any, ...]] = {
        "norm_num_groups": (32,),
        "act_fn": ("silu", "swish"),  # the same function
        # The pipelines that decode with the temporal class only divide by scaling_factor.
        "shift_factor": (None,),
        "latents_mean": (None,),
        "latents_std": (None,),
    }
    for name, allowed in fixed.items():
        if config[name] not in allowed:
            raise ValueError(f"vae: {name} must be {allowed[0]} in a temporal decoder, not {config[name]}")
    if other := sorted(set(config.up_block_types) - {"UpDecoderBlock2D"}):
        raise ValueError(f"vae: up_block_types must all be UpDecoderBlock2D in a temporal decoder, not {other[0]}")


def _fold(vae: AutoencoderKL) -> dict[str, Tensor]:
    """``conv_in`` ∘ ``post_quant_conv`` as one convolution: W'(o, c) = Σ_i W(o, i)·P(i, c), b' = b + Σ W·p.

    Zeros around Pz + p differ from zeros around z by the bias p, which the folded kernel adds outside too. No one
    kernel has both, so b' is that of the inside, which all but the outermost ring of latents is.
    """
    weight, bias = vae.decoder.conv_in.weight.detach().double(), vae.decoder.conv_in.bias.detach().double()
    post = vae.post_quant_conv.weight.detach().double()[:, :, 0, 0]
    folded = torch.einsum("oikl,ic->ockl", weight, post)
    shifted = bias + weight.sum((2, 3)) @ vae.post_quant_conv.bias.detach().double()
    return {"conv_in.weight": folded.float(), "conv_in.bias": shifted.float()}


def _without_idle(given: dict[str, Tensor]) -> dict[str, Tensor]:
    """Drop what a temporal decoder of one layer a block lacks. Raises ``ValueError`` where that does something."""
    for name, value in given.items():
        writes = "conv2." in name or "to_out.0" in name
        if f"decoder.{name}".startswith(LACKING) and writes and value.any():
            raise ValueError(
                f"vae: decoder.{name} must be zero, a temporal decoder of layers_per_block 1 has no such layer"
            )
    return {name: value for name, value in given.items() if not f"decoder.{name}".startswith(LACKING)}


def _filled(part: torch.nn.Module, given: dict[str, Tensor]) -> dict[str, Tensor]:
    """The state of ``part`` with ``given`` in it, and what is not given at its idle start."""
    state = part.state_dict()
    if unknown := sorted(set(given) - set(state)):
        raise ValueError(f"vae: the temporal decoder has no place for {unknown[0]}")
    for name, value in state.items():
        if name in given:
            assert value.shape == given[name].shape, name
            state[name] = given[name]
        elif "temporal_res_block.conv2" in name or "to_out.0" in name or name.startswith("time_conv_out"):
            state[name] = torch.zeros_like(value)
    if "time_conv_out.weight" in state:
        torch.nn.init.dirac_(state["time_conv_out.weight"])
    return state


def _spatial(name: str) -> str:
    """``mid_block.resnets.0.conv1.weight`` → ``mid_block.resnets.0.spatial_res_block.conv1.weight``."""
    head, tail = name.split(".resnets.")
    number, rest = tail.split(".", 1)
    return f"{head}.resnets.{number}.spatial_res_block.{rest}"
