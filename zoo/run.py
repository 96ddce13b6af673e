"""A model + a prompt or an image → an mp4 file. What is asked for is checked before a weight is loaded."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dailies.curation.errors import NoSuchModel, NotFinite, UsageError
from dailies.curation.packages import need
from dailies.zoo.entry import ZooEntry
from dailies.zoo.load import class_name, load_pipeline
from dailies.zoo.store import ENTRY, Store

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

SIDE = 8
"""``StableVideoDiffusionPipeline`` takes multiples of this, whatever the VAE's factor."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """A request that has been checked. ``size``: (width, height) in px; ``guidance``: first and last frame's."""

    prompt: str | None
    image: Path | None
    out: Path
    seed: int
    steps: int
    guidance: tuple[float, float]
    size: tuple[int, int]
    frames: int
    fps: float
    motion_bucket: int
    noise_aug: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """What was made. ``seconds``: of loading and sampling; ``flat``: whether the pictures hold next to no contrast,
    as those of a model that has learnt nothing."""

    model: str
    out: str
    device: str
    load_seconds: float
    seconds: float
    flat: bool
    seed: int
    steps: int
    size: tuple[int, int]
    frames: int
    fps: float


def run(
    model: str | Path,
    *,
    out: str | Path,
    zoo: str | Path | None = None,
    prompt: str | None = None,
    image: str | Path | None = None,
    seed: int = 0,
    steps: int | None = None,
    guidance: float | tuple[float, float] | None = None,
    size: tuple[int, int] | None = None,
    frames: int | None = None,
    fps: float | None = None,
    motion_bucket: int | None = None,
    device: str | None = None,
) -> Made:
    """Run ``model``, a name in ``zoo`` or a published folder, and write an mp4 at ``out``, which appears whole.

    What is not given is as the model's entry says. ``guidance``: one weight, or those of the first and the last frame.
    ``size``: (width, height) in px. ``image`` is cropped to it about its middle. ``device``: CUDA where there is one.
    Raises ``UsageError`` before loading for what is missing or cannot be, ``Damaged`` for a folder that is not what
    its lock says, ``NotFinite`` if the model makes numbers that are none.
    """
    folder, entry = find(model, zoo)
    pair = guidance if isinstance(guidance, tuple) or guidance is None else (guidance, guidance)
    usual = entry.sampling
    request = Request(
        prompt=prompt,
        image=None if image is None else Path(image).expanduser(),
        out=Path(out).expanduser(),
        seed=seed,
        steps=usual.steps if steps is None else steps,
        guidance=usual.guidance if pair is None else pair,
        size=size or entry.size or (0, 0),
        frames=(entry.frames or 0) if frames is None else frames,
        fps=(entry.fps or 7) if fps is None else fps,
        motion_bucket=usual.motion_bucket if motion_bucket is None else motion_bucket,
        noise_aug=usual.noise_aug,
    )
    check(entry, request, _multiple(folder))
    picture = None if request.image is None else open_image(request.image, request.size)
    need(["torch", "diffusers", "transformers", "av"], by="zoo run")
    return _run(folder, entry, request, picture, device)


def find(model: str | Path, zoo: str | Path | None) -> tuple[Path, ZooEntry]:
    """The folder of a name in ``zoo``, or ``model`` itself if it is a published folder; its sizes checked."""
    path = Path(model).expanduser()
    if (path / ENTRY).is_file():  # a folder is a zoo of one
        path = path.absolute()
        store, name = Store(path.parent), path.name
        if name not in store.names():
            raise UsageError(f"{path}: no lock in it, so it was not published whole")
        return store.open(name), store.entry(name)
    from dailies.zoo.catalog import ENTRIES

    name = str(model)
    if name in ENTRIES:
        raise UsageError(f"{name} is a component, not a model that runs by itself")
    if zoo is None:
        raise NoSuchModel(f"{name}: not a published folder, and no zoo given to look in")
    store = Store(zoo)
    return store.open(name), store.entry(name)


def check(entry: ZooEntry, request: Request, multiple: int) -> None:
    """Raise ``UsageError`` that names what is missing or cannot be. ``multiple``: of which sides must be, px."""
    name = entry.name
    if entry.pipeline is None:
        raise UsageError(f"{name} is a component, not a model that runs by itself")
    if entry.task == "text-to-video":
        if not (request.prompt or "").strip():
            raise UsageError(f"{name} makes video from text: give it a --prompt")
        if request.image is not None:
            raise UsageError(f"{name} makes video from text: it takes no --image")
    if entry.task == "image-to-video":
        if request.image is None:
            raise UsageError(f"{name} makes video from an image: give it an --image")
        if request.prompt is not None:
            raise UsageError(f"{name} makes video from an image: it takes no --prompt")
    width, height = request.size
    if width <= 0 or height <= 0 or width % multiple or height % multiple:
        raise UsageError(f"size: width and height must be multiples of {multiple}, not {width}x{height}")
    limits: Mapping[str, tuple[float, float, float]] = {
        "frames": (request.frames, 1, 1024),
        "steps": (request.steps, 1, 1000),
        "fps": (request.fps, 1, 240),
        "motion-bucket": (request.motion_bucket, 0, 255),
        "guidance": (min(request.guidance), 0, 100),
        "seed": (request.seed, 0, 2**63 - 1),
    }
    for what, (value, low, high) in limits.items():
        if not low <= value <= high:
            raise UsageError(f"{what}: {value:g} is not within {low:g} … {high:g}")
    if request.out.suffix.lower() != ".mp4":
        raise UsageError(f"out: {request.out} must end in .mp4")
    if request.out.is_dir():
        raise UsageError(f"out: {request.out} is a folder")


def _multiple(folder: Path) -> int:
    """Of what sides must be multiples: the VAE's factor, and diffusers' own. Raises ``Damaged``."""
    class_name(folder)
    blocks = json.loads((folder / "vae" / "config.json").read_text())["block_out_channels"]
    return math.lcm(SIDE, 2 ** (len(blocks) - 1))


def open_image(path: Path, size: tuple[int, int]) -> Any:
    """A PIL image in RGB, upright, scaled to cover ``size`` (width, height) and cropped about its middle."""
    from PIL import Image, ImageOps

    try:
        with Image.open(path) as opened:
            upright = ImageOps.exif_transpose(opened).convert("RGB")
    except FileNotFoundError as error:
        raise UsageError(f"image: no file {path}") from error
    except (OSError, ValueError, Image.DecompressionBombError) as error:
        raise UsageError(f"image: {path} cannot be read: {error}") from error
    return ImageOps.fit(upright, size, Image.Resampling.LANCZOS)


def _run(folder: Path, entry: ZooEntry, request: Request, picture: Any, device: str | None) -> Made:
    import numpy as np
    import torch

    from dailies.curation.video import write_clip

    began = time.monotonic()
    pipeline = load_pipeline(folder, device=device)
    loaded = time.monotonic()
    pipeline.set_progress_bar_config(desc=entry.name, leave=False, disable=None)  # None: only in a terminal
    extra = {"noise_aug_strength": request.noise_aug} if picture is not None else {}
    made = pipeline(
        picture if picture is not None else request.prompt,
        width=request.size[0],
        height=request.size[1],
        num_frames=request.frames,
        num_inference_steps=request.steps,
        min_guidance_scale=request.guidance[0],
        max_guidance_scale=request.guidance[1],
        fps=request.fps,
        motion_bucket_id=request.motion_bucket,
        generator=torch.Generator("cpu").manual_seed(request.seed),  # the same noise on any device
        output_type="np",
        **extra,
    )
    frames: NDArray[np.float32] = made.frames[0]
    if not np.isfinite(frames).all():
        raise NotFinite(f"{entry.name} made numbers that are none (NaN or infinite): nothing was written")
    pixels = (frames.clip(0, 1) * 255).round().astype(np.uint8)
    request.out.parent.mkdir(parents=True, exist_ok=True)
    write_clip(pixels, request.fps, request.out)
    return Made(
        model=entry.name,
        out=str(request.out),
        device=str(pipeline.device),
        load_seconds=round(loaded - began, 2),
        seconds=round(time.monotonic() - loaded, 2),
        flat=bool(pixels.std() < 2),
        seed=request.seed,
        steps=request.steps,
        size=request.size,
        frames=request.frames,
        fps=request.fps,
    )
