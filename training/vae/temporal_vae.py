"""What finetuning a temporal VAE decoder is: its recipe, the windows it sees, its loss and how it is judged.
 Blattmann et al. 2023 (arXiv 2311.15127) finetune the decoder of Stable Diffusion's VAE with temporal layers and do not
publish how. Here the loss is L1 on pixels, on differences of neighbouring pixels and on differences of neighbouring
frames; there is no perceptual (LPIPS) and no adversarial (PatchGAN) loss, so that it removes flicker and invents no
fine texture.

Shape suffixes: B windows, T frames, C channels, H height, W width.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any, Literal, get_args

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from dailies.curation.errors import ExportError
from dailies.curation.video import SourceError
from dailies.training.data.export import Export
from dailies.training.data.reader import Backend, read
from dailies.training.data.sampling import generator, normal
from dailies.training.models.pixels import Pixels, crop, to_tensor

CACHE_BYTES = 1 << 30
NEEDED = ("clip_id", "split", "frames", "fps", "width", "height")
TEMPORAL = ("temporal_res_block", "time_mixer", "time_conv_out")  # in the names of the decoder's temporal layers
# How a run is carried out, not what comes out of it: these may differ when it goes on.
CONDUCT = ("save_every", "keep", "checkpointing")
OUTPUT_UNIT = 0.1  # of time_conv_out: frames are in [−1, 1], where some hundredths are a large error
Trains = Literal["temporal", "decoder"]


@dataclass(frozen=True, kw_only=True)
class VaeRecipe:
    """``batch`` windows a step, each of ``frames`` frames on a grid of ``fps`` 1/s (``None``: each clip's own rate),
    scaled to cover ``size`` (width, height) px and cropped at random. Windows are run one after the other, so that
    memory does not grow with ``batch``.

    ``trains``: the decoder's temporal layers, or the whole decoder; never the encoder. ``edges``, ``flicker``: weights of the
    L1 on differences of neighbouring pixels and frames, where that on pixels is 1. ``lr``, in each parameter's ``units``,
    rises over ``warmup`` steps and falls to 0 over the last ``decay`` of all. No weight decay: it would pull blends and the
    identity kernel to 0. ``autocast``: bfloat16 arithmetic; its 8 bits are coarser than small flicker, so it is off.
    ``checkpointing``: less memory, more time, the same result.
    """

    steps: int = 2000
    batch: int = 4
    frames: int = 8
    size: tuple[int, int] = (256, 256)
    fps: float | None = None
    trains: Trains = "temporal"
    lr: float = 1e-4
    warmup: int = 50
    decay: float = 0.2
    edges: float = 0.5
    flicker: float = 1.0
    seed: int = 0
    validation_clips: int = 8
    validate_every: int = 500
    save_every: int = 500
    keep: int = 2
    autocast: bool = False
    checkpointing: bool = False
    reader: Backend = "pyav"

    def __post_init__(self) -> None:
        least = {"steps": 1, "batch": 1, "frames": 2, "warmup": 0, "seed": 0, "validation_clips": 1}
        least |= {"validate_every": 1, "save_every": 1, "keep": 1}
        for name, lowest in least.items():
            value = getattr(self, name)
            _check(isinstance(value, int) and value >= lowest, name, value, f"a whole number of at least {lowest}")
        for name in ("lr", "fps"):
            value = getattr(self, name)
            free = name == "fps" and value is None
            _check(free or (_number(value) and value > 0), name, value, "a positive number")
        for name in ("edges", "flicker"):
            value = getattr(self, name)
            _check(_number(value) and value >= 0, name, value, "a number that is not negative")
        _check(_number(self.decay) and 0 <= self.decay <= 1, "decay", self.decay, "a share from 0 to 1")
        sides = len(self.size) == 2 and all(isinstance(side, int) and side > 0 for side in self.size)
        _check(sides, "size", self.size, "(width, height) in px")
        for name, allowed in (("trains", get_args(Trains)), ("reader", get_args(Backend))):
            _check(getattr(self, name) in allowed, name, getattr(self, name), f"one of {', '.join(allowed)}")
        installed = self.reader == "pyav" or find_spec("decord") is not None
        _check(installed, "reader", self.reader, "pyav: decord is missing")

    @property
    def meaning(self) -> dict[str, Any]:
        """All that the result depends on, as JSON has it."""
        row = {name: value for name, value in dataclasses.asdict(self).items() if name not in CONDUCT}
        return {**row, "size": list(self.size)}

    def learning_rate(self, step: int) -> float:
        """At optimizer step ``step``, from 0."""
        up = (step + 1) / max(1, self.warmup)
        down = (self.steps - step) / (self.decay * self.steps) if self.decay else 1.0
        return self.lr * min(1.0, up, down)


def _check(holds: bool, name: str, value: object, expected: str) -> None:
    if not holds:
        raise ExportError(f"{name}: {expected} expected, not {value!r}")


def _number(value: object) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


# ---- windows of clips -----------------------------------------------------------------------------------------------


class Windows:
    """Windows of frames of some of an export's clips; which one follows from (seed, position) and the clips alone.

    Clips are decoded once and kept where all of them fit into ``CACHE_BYTES``, otherwise up to a window's end each
    time. ``failed``: clips that could not be read, with the reason; the next one takes such a clip's place.
    """

    def __init__(self, export: Export, numbers: Sequence[int], recipe: VaeRecipe) -> None:
        """``numbers``: of the export's rows."""
        self._export, self.recipe = export, recipe
        self._rows = [export.rows[number] for number in numbers]
        self.ids: list[str] = [row.columns["clip_id"] for row in self._rows]
        self._lengths = [length(row.columns, recipe.fps) for row in self._rows]
        self._keeps = sum(map(self._bytes, range(len(self._rows)))) <= CACHE_BYTES
        self._kept: dict[int, Pixels] = {}
        self.failed: dict[str, str] = {}

    def __len__(self) -> int:
        return len(self.ids)

    def drawn(self, position: int) -> tuple[str, Pixels, np.random.Generator]:
        """Clip id, frames (T, H, W, 3) and the generator for what else is drawn there. Every clip comes once per
        epoch."""
        epoch, place = divmod(position, len(self))
        order = generator(self.recipe.seed, "vae order", epoch).permutation(len(self))
        rng = generator(self.recipe.seed, "vae", position)
        offset, x, y = rng.random(3)
        name, frames = self._readable(int(order[place]), offset, (x, y))
        return name, frames, rng

    def middle(self, number: int) -> tuple[str, Pixels]:
        """Clip id and frames (T, H, W, 3) from the middle of clip ``number``, in time and in space."""
        return self._readable(number, 0.5, (0.5, 0.5))

    def _readable(self, item: int, offset: float, where: tuple[float, float]) -> tuple[str, Pixels]:
        for step in range(len(self)):
            number = (item + step) % len(self)
            if self.ids[number] in self.failed:
                continue
            try:
                return self.ids[number], self._window(number, offset, where)
            except (OSError, SourceError) as error:
                self.failed[self.ids[number]] = str(error)
        raise ExportError(
            f"data: none of {len(self)} clips can be read: {next(iter(self.failed.values()), 'there are none')}"
        )

    def _bytes(self, item: int) -> int:
        """Of a clip's frames on the grid, covering the recipe's size with the sides in proportion."""
        columns, (width, height) = self._rows[item].columns, self.recipe.size
        share = max(width / columns["width"], height / columns["height"])
        area: float = columns["width"] * columns["height"] * share**2
        return math.ceil(self._lengths[item] * area * 3)

    def _window(self, item: int, offset: float, where: tuple[float, float]) -> Pixels:
        count = self.recipe.frames
        room = self._lengths[item] - count
        first = min(room, int(offset * (room + 1)))
        return np.ascontiguousarray(crop(self._frames(item, first, count), self.recipe.size, where))

    def _frames(self, item: int, first: int, count: int) -> Pixels:
        """Frames [first, first + count) of a clip's grid, which cover the recipe's size."""
        if item in self._kept:
            return self._kept[item][first : first + count]
        row, recipe = self._export.with_video(self._rows[item]), self.recipe
        rate = recipe.fps or row["fps"]
        if not self._keeps:
            return read(row, rate, count, recipe.size, recipe.reader, first=first)
        self._kept[item] = read(row, rate, self._lengths[item], recipe.size, recipe.reader)
        return self._kept[item][first : first + count]


def length(columns: dict[str, Any], fps: float | None) -> int:
    """Frames of a clip on a grid of ``fps`` 1/s from its first frame on; all of them where ``fps`` is ``None``."""
    if fps is None:
        return int(columns["frames"])
    return 1 + int((columns["frames"] - 1) / columns["fps"] * fps + 1e-6)


def split(export: Export, recipe: VaeRecipe) -> tuple[Windows, Windows, tuple[str, ...]]:
    """Training and held-out windows, and what people should know of how they were chosen.

    Clips too short for a window are left out, as are those of fewer frames a second than the grid: repeated frames
    would teach that nothing moves. Raises ``ExportError`` where no training clip is left.
    """
    if export.latents is not None:
        raise ExportError(f"data: {export.folder} holds latents; the clips that they were made of are needed")
    if lacking := [name for name in NEEDED if name not in export.columns]:
        raise ExportError(f"data: {export.folder} has no column {lacking[0]}")
    serving = [number for number, row in enumerate(export.rows) if _serves(row.columns, recipe)]
    found: dict[str, list[int]] = {"train": [], "validation": [], "test": []}
    for number in serving:
        found.setdefault(export.rows[number].columns["split"], []).append(number)
    train, held_out = found["train"], found["validation"] or found["test"]
    if not train:
        rate = "its clips' rates" if recipe.fps is None else f"{recipe.fps:g} 1/s"
        raise ExportError(f"data: {export.folder} has no training clip of {recipe.frames} frames at {rate}")
    notes = []
    if left_out := len(export.rows) - len(serving):
        notes.append(f"{left_out} of {len(export.rows)} clips are too short or of too low a rate")
    sizes = [(export.rows[number].columns["width"], export.rows[number].columns["height"]) for number in train]
    if small := sum(width < recipe.size[0] or height < recipe.size[1] for width, height in sizes):
        notes.append(f"{small} of {len(train)} training clips are smaller than size and are enlarged")
    if not held_out:
        notes.append("no clip is held out: training clips stand in, so the figures say nothing of new data")
    return Windows(export, train, recipe), Windows(export, held_out or train, recipe), tuple(notes)


def _serves(columns: dict[str, Any], recipe: VaeRecipe) -> bool:
    slow = recipe.fps is not None and columns["fps"] < recipe.fps * (1 - 1e-3)  # 23.976 serves a grid of 24
    return not slow and length(columns, recipe.fps) >= recipe.frames


# ---- loss and figures -----------------------------------------------------------------------------------------------


def trained(vae: Any, trains: Trains) -> list[tuple[str, torch.nn.Parameter]]:
    """Names and parameters that finetuning changes; all others stop asking for gradients."""
    chosen = []
    for name, weight in vae.named_parameters():
        inside = name.startswith("decoder.") and (trains == "decoder" or any(part in name for part in TEMPORAL))
        weight.requires_grad_(inside)
        if inside:
            chosen.append((name, weight))
    return chosen


@torch.no_grad()
def units(vae: Any, chosen: Sequence[tuple[str, torch.nn.Parameter]], latents_TCHW: Tensor) -> dict[str, float]:
    """For each of the ``chosen`` parameters the size that a step of Adam, which is absolute, is measured in.

    A temporal ResBlock's last convolution starts at zero and adds to a stream, so its unit is that stream's RMS, measured over
    ``latents_TCHW`` of one window: streams of SD's VAE and of the built-in one differ by some thousand times. Other temporal
    layers are of unit size, but ``time_conv_out``. A spatial layer's unit is its weights' RMS beside that of torch's initial
    ones, √(1/(3·fan_in)); so one that is zero throughout stays idle.
    """
    streams: dict[str, float] = {}

    def measure(name: str) -> Callable[[Any, Any], None]:
        return lambda module, given: streams.__setitem__(name, float(given[0].float().square().mean().sqrt()))

    blocks = [(name, block) for name, block in vae.named_modules() if name.endswith("temporal_res_block")]
    hooks = [block.register_forward_pre_hook(measure(name)) for name, block in blocks]
    vae.decode(latents_TCHW, num_frames=len(latents_TCHW))
    for hook in hooks:
        hook.remove()
    made = {}
    for name, _ in chosen:
        layer, _, _ = name.rpartition(".")
        if ".temporal_res_block.conv2" in name:
            made[name] = streams.get(
                layer.removesuffix(".conv2"), 1.0
            )  # diffusers never calls some of more than two layers
        elif any(part in name for part in TEMPORAL):
            made[name] = OUTPUT_UNIT if "time_conv_out" in name else 1.0
        else:
            kernel = vae.get_parameter(f"{layer}.weight")  # a bias goes with its weight
            fan_in = kernel[0].numel() if kernel.ndim > 1 else 1 / 3
            made[name] = float(kernel.float().square().mean().sqrt()) * (3 * fan_in) ** 0.5
    return made


def losses(out_BTCHW: Tensor, x_BTCHW: Tensor) -> dict[str, Tensor]:
    """Mean absolute error of pixels, of their differences to the right and below, and of those to the next frame."""

    def differences(dim: int) -> Tensor:
        return F.l1_loss(torch.diff(out_BTCHW, dim=dim), torch.diff(x_BTCHW, dim=dim))

    return {
        "pixel": F.l1_loss(out_BTCHW, x_BTCHW),
        "edges": differences(-1) + differences(-2),
        "flicker": differences(1),
    }


@dataclass(frozen=True, slots=True, kw_only=True)
class Quality:
    """Over held-out windows. ``psnr``: dB. ``flicker``: mean |Δt out − Δt truth| in levels of 0–255."""

    psnr: float
    flicker: float


Held = list[tuple[Tensor, Pixels]]
"""For each held-out window its latents (T, C, h, w) on the CPU, and its true frames (T, H, W, 3)."""


@torch.no_grad()
def encode(vae: Any, frames_THWC: Pixels, rng: np.random.Generator) -> Tensor:
    """A sample of the posterior (T, C, h, w): what image decoders are trained on, and what UNets are trained to make."""
    posterior = vae.encode(to_tensor(frames_THWC).to(vae.device)).latent_dist
    noise = normal(rng, tuple(posterior.mean.shape)).to(vae.device)
    latents: Tensor = posterior.mean + posterior.std * noise
    return latents


def encode_held_out(vae: Any, windows: Windows) -> Held:
    """The middle windows of clips spread over all held-out ones, each with its fixed sample of the posterior."""
    count = min(windows.recipe.validation_clips, len(windows))
    # Where a clip cannot be read the next one stands in: each counts once.
    found = dict(windows.middle(i * len(windows) // count) for i in range(count))
    seed = windows.recipe.seed
    return [
        (encode(vae, frames, generator(seed, "vae held out", i)).cpu(), frames)
        for i, frames in enumerate(found.values())
    ]


@torch.no_grad()
def quality(decode: Callable[[Tensor], Tensor], held: Held) -> Quality:
    """``decode``: latents (T, C, h, w) of one window → frames (T, 3, H, W) in [−1, 1]."""
    squares, changes, pixels, steps = 0.0, 0.0, 0, 0
    for latents, frames in held:
        out = ((decode(latents).float().cpu().clamp(-1, 1) + 1) * 127.5).double()
        error = out - torch.from_numpy(np.array(frames)).permute(0, 3, 1, 2).double()
        squares, pixels = squares + float((error**2).sum()), pixels + error.numel()
        change = torch.diff(error, dim=0).abs()  # Δt out − Δt truth = Δt (out − truth)
        changes, steps = changes + float(change.sum()), steps + change.numel()
    return Quality(psnr=10 * math.log10(255**2 / max(squares / pixels, 1e-12)), flicker=changes / steps)
