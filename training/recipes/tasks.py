"""What a phase can be asked to make, and what each task gives the one network: conditionings, not copies of it.

Nothing here imports torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

Task = Literal["text-to-image", "text-to-video", "image-to-video", "multi-view", "interpolation"]
Context = Literal["text", "image"]
LATENTS = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """``context``: what the network attends to. ``shown``: frames of the clip that it is given, as latents concatenated
    to the noisy ones; ``masked``: the others are a learned latent, and a further channel says which are shown, else the
    one shown stands beside every frame. ``ids``: how many numbers are added to the time embedding. ``columns``: of the
    export.
    """

    video: bool
    context: Context
    shown: tuple[int, ...] = ()
    masked: bool = False
    ids: int = 3
    columns: tuple[str, ...] = ("motion",)

    @property
    def in_channels(self) -> int:
        """Of the network: the noisy latents, those of a shown frame, and the mask."""
        return LATENTS + (LATENTS if self.shown else 0) + self.masked


# Blattmann et al. 2023 (arXiv 2311.15127), §4 and App. D. Multi-view: an orbit of 21 views around what the first one shows,
# sin and cos of the camera's elevation as two more ids. Interpolation: 5 frames of which the first and the last are shown, a
# learned latent in place of the others; that it attends to the shown frames' tokens is ours, the paper does not say.
TASKS: Mapping[str, Kind] = {
    "text-to-image": Kind(video=False, context="text", columns=()),
    "text-to-video": Kind(video=True, context="text"),
    "image-to-video": Kind(video=True, context="image", shown=(0,)),
    "multi-view": Kind(video=True, context="image", shown=(0,), ids=5, columns=("elevation",)),
    "interpolation": Kind(video=True, context="image", shown=(0, -1), masked=True),
}
