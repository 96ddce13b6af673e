"""The pipelines that the zoo publishes, loads and runs: one row each in ``PIPELINES``, and all that sets them apart.

To add a pipeline, add its row here and, if it is conditioned on something new, a function to ``ENCODERS`` of
``dailies.zoo.assemble``. Nothing heavy is imported before ``PipelineSpec.load_class``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Literal

from dailies.curation.errors import UsageError

TOKENIZERS = frozenset({"CLIPTokenizer", "CLIPTokenizerFast", "PreTrainedTokenizerFast", "TokenizersBackend"})
PROCESSORS = frozenset({"CLIPImageProcessor", "CLIPImageProcessorPil", "CLIPImageProcessorFast"})
VIDEO_PARTS = {
    "vae": frozenset({"AutoencoderKLTemporalDecoder"}),
    "unet": frozenset({"UNetSpatioTemporalConditionModel"}),
    "scheduler": frozenset({"EulerDiscreteScheduler"}),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class PromptInput:
    """A pipeline that makes video from a text prompt."""

    encoder: Literal["text", "image"] = "text"
    phrase: str = "a prompt"
    option: str = '--prompt "…"'

    def check(self, name: str, *, prompt: str | None, image: object) -> None:
        """Raise ``UsageError`` where the prompt is missing, or an image is given."""
        if not (prompt or "").strip():
            raise UsageError(f"{name} makes video from text: give it a --prompt")
        if image is not None:
            raise UsageError(f"{name} makes video from text: leave --image out")

    def arguments(self, *, prompt: str | None, image: Any, noise_aug: float) -> Mapping[str, Any]:
        """Return the keyword arguments that condition a call of the pipeline."""
        return {"prompt": prompt}


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageInput:
    """A pipeline that makes video from its first frame."""

    encoder: Literal["text", "image"] = "image"
    phrase: str = "an image"
    option: str = "--image first.png"

    def check(self, name: str, *, prompt: str | None, image: object) -> None:
        """Raise ``UsageError`` where the image is missing, or a prompt is given."""
        if image is None:
            raise UsageError(f"{name} makes video from an image: give it an --image")
        if prompt is not None:
            raise UsageError(f"{name} makes video from an image: leave --prompt out")

    def arguments(self, *, prompt: str | None, image: Any, noise_aug: float) -> Mapping[str, Any]:
        """Return the keyword arguments that condition a call of the pipeline."""
        return {"image": image, "noise_aug_strength": noise_aug}


@dataclass(frozen=True, slots=True, kw_only=True)
class PipelineSpec:
    """One class of pipeline.

    Args:
        name: of the class, as a published folder names it.
        module: that holds the class, or one of that name derived from it.
        task: what it does.
        input: what it is conditioned on; its ``encoder`` names the model of a run that reads it.
        latents_in: how many latents the UNet takes beside one another: 1, or 2 with those of the first frame.
        time_ids: how many added time ids the UNet may take.
        guidance: weights at the first and last frame, unless a recipe says otherwise.
        parts: component → classes it may be, all of diffusers or transformers.
    """

    name: str
    module: str
    task: str
    input: PromptInput | ImageInput
    latents_in: int
    time_ids: frozenset[int]
    guidance: tuple[float, float]
    parts: Mapping[str, frozenset[str]]

    @property
    def models(self) -> tuple[str, str]:
        """The models of a training run that it is put together from, beside the UNet."""
        return ("vae_temporal", self.input.encoder)

    def load_class(self) -> Any:
        """Return the class itself. Imports torch and diffusers."""
        return getattr(import_module(self.module), self.name)


PIPELINES: Mapping[str, PipelineSpec] = {
    spec.name: spec
    for spec in (
        PipelineSpec(
            name="StableVideoDiffusionPipeline",
            module="dailies.zoo.image_to_video",
            task="image-to-video",
            input=ImageInput(),
            latents_in=2,
            time_ids=frozenset({3}),
            guidance=(1.0, 3.0),  # SVD's: weak at the first frame, which is given
            parts=VIDEO_PARTS
            | {"image_encoder": frozenset({"CLIPVisionModelWithProjection"}), "feature_extractor": PROCESSORS},
        ),
        PipelineSpec(
            name="TextToVideoPipeline",
            module="dailies.zoo.text_to_video",
            task="text-to-video",
            input=PromptInput(),
            latents_in=1,
            time_ids=frozenset({1, 2, 3}),
            guidance=(4.0, 4.0),
            parts=VIDEO_PARTS | {"text_encoder": frozenset({"CLIPTextModel"}), "tokenizer": TOKENIZERS},
        ),
    )
}
"""Class name → row. No other class is ever loaded from a folder."""

BY_TASK: Mapping[str, PipelineSpec] = {spec.task: spec for spec in PIPELINES.values()}
"""Task → the pipeline that a phase of it is published as."""
