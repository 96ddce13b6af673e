"""Making a video with a model: a prompt or an image → an mp4 file. The request is checked before a weight is loaded."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dailies.curation.errors import NoSuchModel, NotFinite, SourceError, UsageError
from dailies.curation.packages import DIFFUSION, need
from dailies.curation.pictures import open_picture
from dailies.curation.progress import Bar, progress_in_force
from dailies.zoo.entry import ZooEntry
from dailies.zoo.formats.configs import read_config
from dailies.zoo.load import load_pipeline, pipeline_spec
from dailies.zoo.pipelines import PipelineSpec
from dailies.zoo.store import ENTRY, Store

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

SIDE = 8
"""``StableVideoDiffusionPipeline`` takes multiples of this, whatever the VAE's factor."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GenerateRequest:
    """A video that is asked for.

    Args:
        image: path of the first frame.
        guidance: weights of the first and the last frame.
        size: (width, height) in px.
        fps: 1/s.
        motion_bucket: 0–255.
        noise_aug: standard deviation of the noise on the image, pixels in −1…1.
    """

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
class GeneratedVideo:
    """A video that was written, and what it was made with.

    Args:
        load_seconds, seconds: of loading the model, and of sampling.
        prompt: as the model read it.
        flat: whether the pictures have next to no contrast, as those of a model that has learnt nothing.
        notes: what to know of the request, a line each.
    """

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
    prompt: str | None = None
    notes: tuple[str, ...] = ()


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
) -> GeneratedVideo:
    """Run ``model`` and write an mp4 file at ``out``, which appears whole.

    Args:
        model: a name in ``zoo``, or a published folder.
        image: path of the first frame; it is cropped to ``size`` about its middle.
        steps, frames, fps, motion_bucket: as the model's entry says by default.
        guidance: one weight, or those of the first and the last frame.
        size: (width, height) in px.
        device: by default CUDA where there is one.

    Raises ``UsageError`` before loading for what is missing or impossible, ``Damaged`` for a folder that differs from its
    lock, ``NotFinite`` if the model produces NaN or infinite values.
    """
    need([*DIFFUSION, "av"], by="zoo run")
    folder, entry = find(model, zoo)
    if entry.pipeline is None:
        raise UsageError(f"{entry.name} is a component, not a model that runs by itself")
    pair = guidance if isinstance(guidance, tuple) or guidance is None else (guidance, guidance)
    defaults = entry.sampling
    request = GenerateRequest(
        prompt=prompt,
        image=None if image is None else Path(image).expanduser(),
        out=Path(out).expanduser(),
        seed=seed,
        steps=defaults.steps if steps is None else steps,
        guidance=defaults.guidance if pair is None else pair,
        size=size or entry.size or (0, 0),
        frames=(entry.frames or 0) if frames is None else frames,
        fps=(entry.fps or 7) if fps is None else fps,
        motion_bucket=defaults.motion_bucket if motion_bucket is None else motion_bucket,
        noise_aug=defaults.noise_aug,
    )
    spec = pipeline_spec(folder)
    spec.input.check(entry.name, prompt=request.prompt, image=request.image)
    check(request, _side_multiple(folder))
    picture = None if request.image is None else open_image(request.image, request.size)
    return _run(folder, entry, spec, request, picture, device)


def find(model: str | Path, zoo: str | Path | None) -> tuple[Path, ZooEntry]:
    """Return the folder of a name in ``zoo``, or ``model`` itself if it is a published folder; its sizes are checked."""
    path = Path(model).expanduser()
    if (path / ENTRY).is_file():  # a published folder is a zoo of one model
        path = path.resolve()  # what the user names may be a link
        store, name = Store(path.parent), path.name
        if name not in store.names():
            raise UsageError(f"{path}: has no lock, so it was not published whole")
        return store.open(name), store.entry(name)
    from dailies.zoo.catalog import ENTRIES

    name = str(model)
    if name in ENTRIES:
        raise UsageError(f"{name} is a component, not a model that runs by itself")
    if zoo is None:
        raise NoSuchModel(f"{name}: not a published folder; name a zoo to look it up in")
    store = Store(zoo)
    return store.open(name), store.entry(name)


def check(request: GenerateRequest, multiple: int) -> None:
    """Raise ``UsageError`` that names what is impossible. ``multiple``: of which both sides must be multiples, px."""
    width, height = request.size
    if width <= 0 or height <= 0 or width % multiple or height % multiple:
        raise UsageError(f"size={width}x{height}: width and height must be multiples of {multiple}")
    limits: Mapping[str, tuple[float, float, float]] = {
        "frames": (request.frames, 1, 1024),
        "steps": (request.steps, 1, 1000),
        "fps": (request.fps, 1, 240),
        "motion-bucket": (request.motion_bucket, 0, 255),
        "guidance": (request.guidance[0], 0, 100),
        "guidance of the last frame": (request.guidance[1], 0, 100),
        "seed": (request.seed, 0, 2**63 - 1),
    }
    for field, (value, low, high) in limits.items():
        if not low <= value <= high:
            raise UsageError(f"{field}={value:g}: must be between {low:g} and {high:g}")
    if request.out.suffix.lower() != ".mp4":
        raise UsageError(f"out={request.out}: must end in .mp4")
    if request.out.is_dir():
        raise UsageError(f"out={request.out}: is a folder; name a file")


def _side_multiple(folder: Path) -> int:
    """Return what sides must be multiples of: the VAE's factor, and diffusers' own."""
    blocks = read_config(folder / "vae")["block_out_channels"]
    return math.lcm(SIDE, 2 ** (len(blocks) - 1))


def open_image(path: Path, size: tuple[int, int]) -> Any:
    """Return a PIL image in RGB, upright, scaled to cover ``size`` (width, height) and cropped about its middle."""
    from PIL import Image, ImageOps

    try:
        upright = Image.fromarray(open_picture(path))
    except FileNotFoundError as error:
        raise UsageError(f"image={path}: no such file") from error
    except SourceError as error:
        raise UsageError(f"image={path}: cannot be read: {error}") from error
    return ImageOps.fit(upright, size, Image.Resampling.LANCZOS)


def _run(
    folder: Path,
    entry: ZooEntry,
    spec: PipelineSpec,
    request: GenerateRequest,
    picture: Any,
    device: str | None,
) -> GeneratedVideo:
    import numpy as np
    import torch

    from dailies.curation.video import write_clip

    began = time.monotonic()
    show = progress_in_force()
    with show("load", None, entry.name):
        pipeline = load_pipeline(folder, device=device)
    loaded = time.monotonic()
    with show("sample", request.steps, "steps") as bar:
        pipeline.progress_bar = _SamplingBar(bar)  # in place of diffusers' own
        output = pipeline(
            **spec.input.arguments(prompt=request.prompt, image=picture, noise_aug=request.noise_aug),
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
        )
    frames: NDArray[np.float32] = output.frames[0]
    if not np.isfinite(frames).all():
        raise NotFinite(f"{entry.name} produced NaN or infinite values; nothing was written")
    pixels = (frames.clip(0, 1) * 255).round().astype(np.uint8)
    request.out.parent.mkdir(parents=True, exist_ok=True)
    write_clip(pixels, request.fps, request.out)
    return GeneratedVideo(
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
        prompt=request.prompt,
        notes=_notes(entry, request),
    )


class _SamplingBar:
    """Reports sampling steps; pipelines of diffusers enter it and update it, or take the steps from it."""

    def __init__(self, bar: Bar) -> None:
        self._bar = bar

    def __call__(self, steps: Iterable[Any] | None = None, total: int | None = None) -> Any:
        return self if steps is None else self._counted(steps)

    def _counted(self, steps: Iterable[Any]) -> Iterator[Any]:
        for step in steps:
            yield step
            self.update()

    def __enter__(self) -> _SamplingBar:
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.advance(0, note="decoding")

    def update(self, count: int = 1) -> None:
        self._bar.advance(count)


def _notes(entry: ZooEntry, request: GenerateRequest) -> tuple[str, ...]:
    """Return lines on what the model was not trained for."""
    if entry.trained_at(request.fps):
        return ()
    rates = f"{entry.fps:g}" if entry.fps_range is None else "{:g} to {:g}".format(*entry.fps_range)
    return (f"fps={request.fps:g}: {entry.name} was trained at {rates} fps; how much moves may not fit this rate",)
