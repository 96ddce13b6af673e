"""Finetuning a captioner follows a recipe whose values are checked as it is made."""

from __future__ import annotations

import dataclasses
from typing import Annotated, Any, Literal

from annotated_types import Ge
from pydantic.dataclasses import dataclass

from dailies.curation.chat import Prompt
from dailies.training.recipes.spec import STRICT, Count, Fraction, Index, NonNegative, Positive, ProperFraction, Spec

# How a run is carried out, not what comes out of it: these may differ when it goes on.
CONDUCT = ("save_every", "sample_every", "keep", "checkpointing")

Trains = Literal["whole", "lora"]


@dataclass(frozen=True, kw_only=True, config=STRICT)
class CaptionerRecipe(Spec):
    """A recipe says how a captioner is finetuned: on which captions, by which loss, and for how long.

    A step sees ``batch`` clips, each with its text in the export's column ``caption``, in ``accumulate`` parts one after
    the other. CoCa looks at a clip's middle frame; a video-language model at ``frames`` frames spread over it, and is
    asked ``prompt``: the name of one that ships with dailies, a file (.txt, .md), or its text. Frames are scaled down to
    ``short_side`` px, as evidence is by default, before the model's own processor scales them.

    ``contrast_weight``, ``caption_weight``: of CoCa's two losses (its equation 4 has 1 and 2). The contrast is among the
    clips of a part. ``trains``: all weights, or adapters of rank ``rank`` (LoRA) beside the language model's linear layers, for
    video-language models; ``vision``: whether the image tower learns too, where all weights do. ``frozen``: precision of
    weights that do not learn. ``lr`` rises over ``warmup`` steps and falls to 0 over the last ``decay`` of all. ``ema``:
    decay of the averaged weights, which are then what is measured and published; 0 for none.

    ``max_tokens``: longest caption, in tokens of the model: further ones are not learnt, and none is written longer.
    ``validation_clips``: held-out clips that are measured, every ``validate_every`` steps. ``autocast``: bfloat16
    arithmetic. ``checkpointing``: less memory, more time, the same result. ``save_every``, ``sample_every`` (``None``: at the
    end alone): steps. ``keep``: checkpoints kept. Raises ``RecipeError`` naming the field of a wrong value.
    """

    steps: Count = 1000
    batch: Count = 16
    accumulate: Count = 1
    caption: str = "caption_fuse"
    prompt: Prompt = "describe"
    frames: Count = 8
    short_side: Annotated[int, Ge(16)] = 384
    trains: Trains = "whole"
    rank: Count = 16
    vision: bool = True
    frozen: Literal["fp32", "bf16"] = "fp32"
    contrast_weight: NonNegative = 1.0
    caption_weight: Positive = 2.0
    lr: Positive = 1e-5
    warmup: Index = 50
    decay: Fraction = 0.2
    weight_decay: NonNegative = 0.0
    ema: ProperFraction = 0.0
    max_tokens: Annotated[int, Ge(3)] = 128
    seed: Index = 0
    validation_clips: Annotated[int, Ge(2)] = 64
    validate_every: Count = 500
    save_every: Count = 500
    sample_every: Count | None = None
    keep: Count = 2
    autocast: bool = False
    checkpointing: bool = False

    def __post_init__(self) -> None:
        if not self.caption.strip():
            raise ValueError(f"caption={self.caption!r}: must name a column of the export")
        if self.frozen != "fp32" and self.trains != "lora":
            raise ValueError(f"frozen={self.frozen!r}: only where adapters alone learn; add trains=lora")
        if self.accumulate > self.batch:
            raise ValueError(f"accumulate={self.accumulate}: must be at most batch={self.batch}")

    @property
    def clip_grad(self) -> float:
        """The longest gradient."""
        return 1.0

    def meaning(self, *, contrast: bool) -> dict[str, Any]:
        """Return everything that the result depends on, as JSON has it.

        ``contrast``: whether clips of a part are held against each other; where not, ``accumulate`` changes nothing.
        """
        left_out = (*CONDUCT, *([] if contrast else ["accumulate"]))
        return {name: value for name, value in dataclasses.asdict(self).items() if name not in left_out}
