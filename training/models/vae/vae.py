"""A small image VAE trained from frames.

Rombach et al. 2022 (arXiv 2112.10752), §3.1 and App. G: an autoencoder with a slight KL penalty towards N(0, 1). There
is no perceptual or adversarial loss here: an L1 on pixels and one on their differences, which keeps edges.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL, AutoencoderKLTemporalDecoder
from torch import Tensor

from dailies.training.models.pixels import Pixels, to_pixels, to_tensor
from dailies.training.models.vae.inflate import LACKING

BLOCKS = 3  # so that one latent stands for 4×4 px, and StableVideoDiffusionPipeline's 2**(blocks − 1) agrees


def build_vae(seed: int = 0, channels: int = 64) -> AutoencoderKL:
    """Return an untrained AutoencoderKL of factor 4 with 4 latent channels.

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
    """Set the norms' ε to 1 for training. With 2 channels a group and diffusers' ε of 1e-6 a flat area keeps only the sign
    of their difference, and colours are lost; with 1 small signals pass nearly as they are."""
    for module in vae.modules():
        if isinstance(module, torch.nn.GroupNorm):
            module.eps = TRAINING_EPS


@torch.no_grad()
def harden_norms(vae: AutoencoderKL, eps: float = 1e-6) -> None:
    """Set the norms back to diffusers' ε without changing the function: their input is scaled by √(ε/1), for
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
    """Return the posterior's mode of each frame, not scaled: (N, 4, H/4, W/4)."""
    parts = [
        vae.encode(to_tensor(frames_NHWC[i : i + chunk]).to(vae.device, vae.dtype)).latent_dist.mode()
        for i in range(0, len(frames_NHWC), chunk)
    ]
    return torch.cat(parts)


@torch.no_grad()
def reconstruct(vae: AutoencoderKL, frames_NHWC: Pixels, chunk: int = 16) -> Pixels:
    """Return frames through encoder (mode) and decoder."""
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


def set_threads(count: int) -> None:
    """Set how many cores torch may use, for scripts outside this room."""
    torch.set_num_threads(count)
