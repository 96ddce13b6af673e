"""Tasks say what a phase learns to make, and what each gives the one network: conditionings, not copies of it.

Nothing here imports torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

Task = Literal["text-to-image", "text-to-video", "image-to-video", "multi-view", "interpolation"]
CrossAttention = Literal["text", "image"]
LATENTS = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskSpec:
    """A task says which conditions the network gets.

    Args:
        video: whether it makes videos, not images.
        cross_attention: whose tokens it attends to.
        conditioning_frames: numbers of the clip's frames whose latents are concatenated to the noisy ones.
        masked: a learned latent stands in for the other frames, and a further channel is 1 at the conditioning frames;
            otherwise the one conditioning frame stands beside every frame.
        num_time_ids: how many numbers are added to the time embedding.
        columns: of the export that the task reads.
    """

    video: bool
    cross_attention: CrossAttention
    conditioning_frames: tuple[int, ...] = ()
    masked: bool = False
    num_time_ids: int = 3
    columns: tuple[str, ...] = ("motion",)

    @property
    def in_channels(self) -> int:
        """The network's input channels: noisy latents, those of a conditioning frame, and the mask."""
        return LATENTS + (LATENTS if self.conditioning_frames else 0) + self.masked


# Blattmann et al. 2023 (arXiv 2311.15127), §4 and App. D. Multi-view: an orbit of 21 views around what the first one shows,
# sin and cos of the camera's elevation as two more time ids. Interpolation: 5 frames, conditioned on the first and the last,
# a learned latent in place of the others; that it attends to those frames' tokens is ours, the paper does not say.
TASKS: Mapping[str, TaskSpec] = {
    "text-to-image": TaskSpec(video=False, cross_attention="text", columns=()),
    "text-to-video": TaskSpec(video=True, cross_attention="text"),
    "image-to-video": TaskSpec(video=True, cross_attention="image", conditioning_frames=(0,)),
    "multi-view": TaskSpec(
        video=True, cross_attention="image", conditioning_frames=(0,), num_time_ids=5, columns=("elevation",)
    ),
    "interpolation": TaskSpec(video=True, cross_attention="image", conditioning_frames=(0, -1), masked=True),
}
