"""What footage is made of: stills, cut-outs and free videos from a folder, and textures of the rendered world."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

import cv2
import numpy as np
from numpy.typing import NDArray

from dailies.curation.observers.likeness import HEIGHT, WIDTH
from dailies.curation.world import BACKGROUNDS, Background
from dailies.curation.world.render import plane
from dailies.curation.world.script import Texture

Pixels = NDArray[np.uint8]
Rng = np.random.Generator
W, H = 2 * WIDTH, 2 * HEIGHT  # px at which it is drawn
LONG = 320  # px of the longer side at which pictures are kept


@dataclass(frozen=True, kw_only=True)
class Material:
    """``pictures``: (h, w, 3) BGR stills; ``sprites``: (h, w, 4) BGRA cut-outs; ``videos``: (t, H, W, 3) at ``rates`` fps."""

    pictures: Sequence[Pixels]
    sprites: Sequence[Pixels] = ()
    videos: Sequence[Pixels] = ()
    rates: Sequence[float] = ()


def load(folder: Path | None, textures: int = 20) -> Material:
    """Every picture and video below ``folder``, and textures of the rendered world. A PNG with holes is a sprite."""
    pictures: list[Pixels] = []
    sprites: list[Pixels] = []
    videos: list[Pixels] = []
    rates: list[float] = []
    for path in sorted(folder.rglob("*")) if folder else ():
        if path.suffix.lower() in (".mp4", ".avi", ".mkv", ".webm"):
            shots, fps = _video(path)
            videos += shots
            rates += [fps] * len(shots)
        elif path.suffix.lower() in (".jpg", ".jpeg", ".png", ".webp"):
            image = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
            if image is None or image.ndim != 3 or min(image.shape[:2]) < 48 or image.dtype != np.uint8:
                continue
            scale = LONG / max(image.shape[:2])
            size = (max(48, round(image.shape[1] * scale)), max(48, round(image.shape[0] * scale)))
            image = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
            if image.shape[2] == 4 and (image[..., 3] < 128).mean() > 0.1:
                sprites.append(cv2.resize(image, (size[0] // 2, size[1] // 2), interpolation=cv2.INTER_AREA))
            else:
                pictures.append(np.ascontiguousarray(image[..., :3]))
    rng = np.random.default_rng(7)
    for _ in range(textures):
        ground = Background(
            texture=str(rng.choice(get_args(Texture))),  # type: ignore[arg-type]
            color=str(rng.choice(list(BACKGROUNDS))),
            seed=int(rng.integers(2**31)),
        )
        pictures.append(np.ascontiguousarray(plane(ground, (160, 90))[..., ::-1]))
    return Material(pictures=pictures, sprites=sprites, videos=videos, rates=rates)


def _video(path: Path) -> tuple[list[Pixels], float]:
    """The shots of a video, at least a second each, split where a frame has little in common with the one before."""
    from dailies.curation import video

    source = video.open_source(str(path))
    fps = float(source.decoder.rate or 25)
    size = (round(1.25 * W), round(1.25 * H))
    shots: list[list[Pixels]] = [[]]
    for picture in itertools.islice(video.stream(source), 1200):
        frame = cv2.resize(picture.rgb(2 * H), size, interpolation=cv2.INTER_AREA)[..., ::-1]
        if shots[-1] and cv2.norm(frame, shots[-1][-1], cv2.NORM_L1) / frame.size > 20:
            shots.append([])
        shots[-1].append(frame)
    return [np.stack(shot) for shot in shots if len(shot) >= fps], fps


def log_uniform(rng: Rng, low: float, high: float) -> float:
    return float(np.exp(rng.uniform(math.log(low), math.log(high))))


def picture(rng: Rng, material: Material) -> Pixels:
    """A still, in colours of its own."""
    image = material.pictures[int(rng.integers(len(material.pictures)))]
    return tinted(rng, image)


def tinted(rng: Rng, image: Pixels) -> Pixels:
    """Mirrored, darker or brighter, of more or less contrast, saturation and another hue."""
    if rng.random() < 0.5:
        image = image[:, ::-1]
    if rng.random() < 0.6:
        x = image[..., :3].astype(np.float32)
        grey = x.mean(axis=2, keepdims=True)
        x = grey + (x - grey) * float(rng.choice([0, rng.uniform(0.2, 1.6)], p=[0.12, 0.88]))
        x = x * rng.uniform(0.85, 1.15, 3).astype(np.float32)
        x = 255 * np.clip(x / 255, 0, 1) ** np.float32(log_uniform(rng, 0.5, 2.2))
        x = np.clip((x - 128) * log_uniform(rng, 0.5, 1.3) + 128 + rng.uniform(-30, 30), 0, 255)
        image = np.concatenate([x.astype(np.uint8), image[..., 3:]], axis=2)
    return np.ascontiguousarray(image)
