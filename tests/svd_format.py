"""Small random checkpoints in the format of Stable Video Diffusion's and Stable Diffusion 2's pipelines."""

from __future__ import annotations

from pathlib import Path

import torch
from diffusers import (
    AutoencoderKL,
    AutoencoderKLTemporalDecoder,
    DDIMScheduler,
    EulerDiscreteScheduler,
    StableDiffusionPipeline,
    StableVideoDiffusionPipeline,
    UNet2DConditionModel,
)
from transformers import (
    CLIPImageProcessor,
    CLIPTextConfig,
    CLIPTextModel,
    CLIPVisionConfig,
    CLIPVisionModelWithProjection,
)

from dailies.zoo.formats.scheduler import SCHEDULER
from tests.tiny_run import WIDTH, tokenizer, unet

TOWER = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
VAE = {"block_out_channels": (32, 32), "latent_channels": 4, "scaling_factor": 0.5, "sample_size": WIDTH}
DOWN, UP = ("DownEncoderBlock2D",) * 2, ("UpDecoderBlock2D",) * 2


def svd(folder: Path) -> Path:
    """A StableVideoDiffusionPipeline: unet, temporal VAE, image encoder. A latent is 2 px."""
    torch.manual_seed(0)
    vision = CLIPVisionConfig(**TOWER, image_size=224, patch_size=56, projection_dim=32)
    StableVideoDiffusionPipeline(
        vae=AutoencoderKLTemporalDecoder(down_block_types=DOWN, **VAE),
        image_encoder=CLIPVisionModelWithProjection(vision),
        unet=unet(8),
        scheduler=EulerDiscreteScheduler(**SCHEDULER),
        feature_extractor=CLIPImageProcessor(),
    ).save_pretrained(folder)
    return folder


def sd(folder: Path) -> Path:
    """A StableDiffusionPipeline: image UNet, VAE with a post_quant_conv, text encoder and tokenizer."""
    torch.manual_seed(0)
    text = CLIPTextConfig(**TOWER, vocab_size=16, max_position_embeddings=12, eos_token_id=1, bos_token_id=0)
    StableDiffusionPipeline(
        vae=AutoencoderKL(down_block_types=DOWN, up_block_types=UP, **VAE),
        text_encoder=CLIPTextModel(text),
        tokenizer=tokenizer(),
        unet=UNet2DConditionModel(
            sample_size=WIDTH // 2,
            block_out_channels=(32, 32),
            down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
            up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
            layers_per_block=1,
            cross_attention_dim=32,
            attention_head_dim=2,
            use_linear_projection=True,
        ),
        scheduler=DDIMScheduler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    ).save_pretrained(folder)
    return folder
