"""Stable Video Diffusion's pipeline, with guidance for every pair of weights.

Importing this module imports torch and diffusers.
"""

from __future__ import annotations

from functools import wraps
from typing import Any

import diffusers


class StableVideoDiffusionPipeline(diffusers.StableVideoDiffusionPipeline):  # type: ignore[misc]
    """Animates an image, as diffusers' class of this name, in whose place published folders name it.

    diffusers decides by the last frame's weight alone whether there is guidance, so that 8:1 would have none. Here any
    frame's weight above 1 makes it so, as in training's samples and in ``TextToVideoPipeline``.
    """

    @wraps(diffusers.StableVideoDiffusionPipeline.__call__)
    def __call__(
        self, *args: Any, min_guidance_scale: float = 1.0, max_guidance_scale: float = 3.0, **options: Any
    ) -> Any:
        self._guided = max(min_guidance_scale, max_guidance_scale) > 1
        weights = {"min_guidance_scale": min_guidance_scale, "max_guidance_scale": max_guidance_scale}
        return super().__call__(*args, **weights, **options)

    @property
    def do_classifier_free_guidance(self) -> bool:
        """Whether the unconditional branch is computed too."""
        return self._guided
