"""Text-to-video over SVD's UNet: the pipeline that diffusers does not have.

Stable Video Diffusion (arXiv 2311.15127) trains its text-to-video model with the same UNet as its image-to-video one,
with cross-attention to text and nothing concatenated; only the latter has a pipeline in diffusers. This class is
imported by name and is never code from a model's folder.

Importing this module imports torch and diffusers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from diffusers import AutoencoderKLTemporalDecoder, DiffusionPipeline, UNetSpatioTemporalConditionModel
from diffusers.schedulers import EulerDiscreteScheduler
from diffusers.utils import BaseOutput
from diffusers.utils.torch_utils import randn_tensor
from diffusers.video_processor import VideoProcessor
from transformers import CLIPTextModel

from dailies.zoo.formats.time_ids import added_time_ids


@dataclass
class TextToVideoOutput(BaseOutput):  # type: ignore[misc]
    """The pipeline's output.

    ``frames``: a list per prompt of PIL images, or (b, t, h, w, 3) floats in 0…1 (``np``), (b, t, 3, h, w) (``pt``).
    """

    frames: Any


class TextToVideoPipeline(DiffusionPipeline):  # type: ignore[misc]
    """Makes one clip of each prompt.

    ``unet``: in and out channels are the VAE's latent channels; its cross-attention takes the last hidden states of
    ``text_encoder``. ``scheduler``: Euler over EDM's sigmas with v-prediction, timesteps ¼ ln σ. ``tokenizer``: any of
    transformers' (a CLIP vocabulary, usually).
    """

    model_cpu_offload_seq = "text_encoder->unet->vae"

    def __init__(
        self,
        vae: AutoencoderKLTemporalDecoder,
        text_encoder: CLIPTextModel,
        tokenizer: Any,
        unet: UNetSpatioTemporalConditionModel,
        scheduler: EulerDiscreteScheduler,
    ) -> None:
        super().__init__()
        self.register_modules(vae=vae, text_encoder=text_encoder, tokenizer=tokenizer, unet=unet, scheduler=scheduler)
        self.vae_scale_factor = 2 ** (len(vae.config.block_out_channels) - 1)
        self.video_processor = VideoProcessor(do_resize=False, vae_scale_factor=self.vae_scale_factor)

    @torch.no_grad()
    def __call__(
        self,
        prompt: str | Sequence[str],
        *,
        height: int,
        width: int,
        num_frames: int | None = None,
        num_inference_steps: int = 25,
        min_guidance_scale: float = 4.0,
        max_guidance_scale: float = 4.0,
        fps: float = 7,
        motion_bucket_id: int = 127,
        decode_chunk_size: int | None = None,
        generator: torch.Generator | list[torch.Generator] | None = None,
        latents: torch.Tensor | None = None,
        output_type: str = "pil",
    ) -> TextToVideoOutput:
        """Sample one clip per prompt.

        Args:
            height, width: px, multiples of the VAE's factor.
            min_guidance_scale, max_guidance_scale: weights at the first and the last frame, linear between them; 1 and
                below is no guidance. The unconditional branch sees a context of zeros, as in training.
            fps: 1/s; with ``motion_bucket_id``, 0–255, it is what the model is told of the clip's motion.
            decode_chunk_size: frames decoded at once; all by default.
            latents: unit noise, (b, t, c, h, w).
            output_type: ``pil``, ``np``, ``pt`` or ``latent``.

        Raises ``ValueError`` for sizes and counts that are impossible.
        """
        prompts = [prompt] if isinstance(prompt, str) else list(prompt)
        frames = num_frames if num_frames is not None else int(self.unet.config.num_frames)
        self._check(prompts, height, width, frames)
        device = self._execution_device
        guided = max(min_guidance_scale, max_guidance_scale) > 1

        context_bld = self.encode_prompt(prompts, device)
        ids_bk = self._time_ids(fps, motion_bucket_id, len(prompts), context_bld.dtype, device)
        if guided:
            context_bld = torch.cat([torch.zeros_like(context_bld), context_bld])
            ids_bk = torch.cat([ids_bk, ids_bk])

        self.scheduler.set_timesteps(num_inference_steps, device=device)
        factor, channels = self.vae_scale_factor, self.unet.config.in_channels
        shape = (len(prompts), frames, channels, height // factor, width // factor)
        if latents is None:
            latents = randn_tensor(shape, generator=generator, device=device, dtype=context_bld.dtype)
        x_btchw = latents.to(device) * self.scheduler.init_noise_sigma
        weight_t = torch.linspace(min_guidance_scale, max_guidance_scale, frames, device=device, dtype=x_btchw.dtype)
        weight_t = weight_t.view(1, -1, 1, 1, 1)

        for t in self.progress_bar(self.scheduler.timesteps):
            model_input = self.scheduler.scale_model_input(torch.cat([x_btchw, x_btchw]) if guided else x_btchw, t)
            v = self.unet(model_input, t, encoder_hidden_states=context_bld, added_time_ids=ids_bk, return_dict=False)[
                0
            ]
            if guided:
                without, with_prompt = v.chunk(2)
                v = without + weight_t * (with_prompt - without)
            x_btchw = self.scheduler.step(v, t, x_btchw).prev_sample

        if output_type == "latent":
            return TextToVideoOutput(frames=x_btchw)
        pixels_bcthw = self.decode_latents(x_btchw, decode_chunk_size or frames)
        clips = self.video_processor.postprocess_video(video=pixels_bcthw, output_type=output_type)
        self.maybe_free_model_hooks()
        return TextToVideoOutput(frames=clips)

    def encode_prompt(self, prompts: Sequence[str], device: torch.device | str) -> torch.Tensor:
        """Return the text encoder's last hidden states, (b, l, d), padded and cut to the tokenizer's length, unmasked."""
        length = min(self.tokenizer.model_max_length, self.text_encoder.config.max_position_embeddings)
        tokens = self.tokenizer(
            list(prompts), padding="max_length", max_length=length, truncation=True, return_tensors="pt"
        )
        states: torch.Tensor = self.text_encoder(tokens.input_ids.to(device))[0]
        return states.to(self.unet.dtype)

    def decode_latents(self, latents_btchw: torch.Tensor, chunk: int) -> torch.Tensor:
        """Decode latents to pixels in −1…1 as (b, c, t, h, w) float32, at most ``chunk`` frames of one clip at a time."""
        clips = []
        for latents_tchw in latents_btchw.to(self.vae.dtype) / self.vae.config.scaling_factor:
            parts = [self.vae.decode(part, num_frames=len(part)).sample for part in latents_tchw.split(chunk)]
            clips.append(torch.cat(parts).transpose(0, 1))
        return torch.stack(clips).float()

    def _time_ids(
        self, fps: float, motion_bucket: int, batch: int, dtype: torch.dtype, device: torch.device
    ) -> torch.Tensor:
        """Return (b, k) added time ids: fps − 1, motion bucket, noise augmentation 0, as many as the UNet takes."""
        config = self.unet.config
        count = config.projection_class_embeddings_input_dim // config.addition_time_embed_dim
        ids = added_time_ids(fps, [motion_bucket], torch.zeros(1))[0, :count].to(device, dtype)
        return ids.expand(batch, count)

    def _check(self, prompts: Sequence[str], height: int, width: int, frames: int) -> None:
        factor = self.vae_scale_factor
        if not prompts or not all(isinstance(prompt, str) for prompt in prompts):
            raise ValueError("prompt: must be a string or a list of strings")
        if height <= 0 or width <= 0 or height % factor or width % factor:
            raise ValueError(f"width={width}, height={height}: both must be multiples of {factor}")
        if frames < 1:
            raise ValueError(f"num_frames={frames}: must be at least 1")
        if self.unet.config.in_channels != self.vae.config.latent_channels:
            have, want = self.unet.config.in_channels, self.vae.config.latent_channels
            raise ValueError(f"in_channels={have} of the UNet: text-to-video over these latents needs {want}")
