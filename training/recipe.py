"""What a training run does, as frozen values that are checked before any work.

A recipe is a Python function that returns a ``Recipe`` (``training.recipes``); a variant derives with ``dataclasses.replace``.
Nothing here imports torch.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import Any, Literal, get_args

from curation.schema import fingerprint

Task = Literal["text-to-image", "text-to-video", "image-to-video"]
ImageSource = Literal["frames", "folder", "parquet"]


# Fields younger than the first runs: left out of a recipe's hash while at their default, so that a run begun before there were
# such fields goes on.
LATER = frozenset({"head_width", "models", "objective", "accumulate", "checkpoint_levels"})


def _check(condition: bool, name: str, value: object, allowed: str) -> None:
    if not condition:
        raise ValueError(f"{name}: {allowed} expected, not {value!r}")


@dataclass(frozen=True, kw_only=True)
class Frozen:
    """The frozen models that pictures and captions pass, as far as they fix the network's shapes.

    ``factor``: px per latent on each side. ``text_width``, ``image_width``: of the tokens attended to. ``missing``: weights
    that are not in the package and that a run cannot be given yet.
    """

    factor: int
    text_width: int
    image_width: int
    missing: tuple[str, ...] = ()


FROZEN = {
    "world": Frozen(factor=4, text_width=96, image_width=96),  # zoo/builtin: vae-world, clip-world
    "sd": Frozen(
        factor=8,
        text_width=1024,
        image_width=1024,
        missing=("SD 2.1's UNet to start from", "SD 2.1's VAE", "OpenCLIP ViT-H/14 for text and for images"),
    ),
}


@dataclass(frozen=True, kw_only=True)
class Net:
    """The UNet, in diffusers' words; the same for every phase, so that each starts from the last one's weights.

    ``channels``: block_out_channels. ``attention``: for each level whether it has transformer blocks. ``time_ids``:
    width of the
    sinusoids of each of the three added ids. diffusers' temporal ResBlocks fix 32 groups, so channels are multiples of 32; with
    just 32 each group is one channel and the last norm washes out what is constant over a picture, its mean colour.
    ``heads``: on each level; or ``head_width``, channels of a head, so that wider levels have more of them.
    """

    channels: tuple[int, ...] = (64, 64)
    attention: tuple[bool, ...] = (False, True)
    heads: int = 2
    layers: int = 1
    time_ids: int = 32
    head_width: int | None = None

    def __post_init__(self) -> None:
        _check(all(c > 0 and c % 32 == 0 for c in self.channels), "net.channels", self.channels, "multiples of 32")
        _check(len(self.channels) >= 1, "net.channels", self.channels, "at least one level")
        _check(
            len(self.attention) == len(self.channels), "net.attention", self.attention, "one for each of net.channels"
        )
        fits = self.heads > 0 and all(c % self.heads == 0 for c in self.channels)
        _check(fits, "net.heads", self.heads, f"a divisor of each of {self.channels}")
        _check(self.layers > 0, "net.layers", self.layers, "a positive number")
        _check(self.time_ids > 0 and self.time_ids % 2 == 0, "net.time_ids", self.time_ids, "an even, positive number")
        width = self.head_width
        even = width is None or (width > 0 and all(c % width == 0 for c in self.channels))
        _check(even, "net.head_width", width, f"None or a divisor of each of {self.channels}")

    @property
    def level_heads(self) -> tuple[int, ...]:
        """Heads on each level."""
        return tuple(self.heads if self.head_width is None else c // self.head_width for c in self.channels)


@dataclass(frozen=True, kw_only=True)
class Phase:
    """One phase: what it sees and how long.

    ``size``: (width, height) px. ``frames`` at ``fps`` 1/s; an image phase has 1 frame. ``p_mean``, ``p_std``: ln σ ~ N(p_mean,
    p_std²) in training. ``drop_text``, ``drop_image``: the share of samples whose condition is dropped. ``images``:
    where an image
    phase's pictures come from: ``frames`` of the export's clips (the default), a ``folder`` of pictures with captions in a .txt
    beside each or in metadata.csv (columns file_name, text), or image-text ``parquet`` (columns image or jpg, text or caption);
    ``image_path`` says where the last two lie. ``select``: a SQL-free filter, (column, least, most) with ``None`` for open,
    over the export's columns. ``crop``: ``center``, or ``random``, which no latent can be kept for. ``validate_every``,
    ``save_every``: steps. ``keep``: checkpoints kept.
    """

    name: str
    task: Task
    steps: int
    batch: int
    size: tuple[int, int]
    frames: int = 1
    fps: float = 8.0
    p_mean: float = -1.2
    p_std: float = 1.0
    lr: float = 1e-3
    warmup: int = 10
    decay: float = 0.0
    weight_decay: float = 1e-2
    clip_grad: float = 1.0
    ema: float = 0.99
    drop_text: float = 0.1
    drop_image: float = 0.1
    noise_aug: tuple[float, float] = (-3.0, 0.5)
    select: tuple[tuple[str, float | None, float | None], ...] = ()
    images: ImageSource = "frames"
    image_path: str | None = None
    crop: Literal["center", "random"] = "center"
    validate_every: int = 50
    validation_clips: int = 8
    validation_sigmas: tuple[float, ...] = (0.2, 1.0, 5.0)
    save_every: int = 50
    keep: int = 2
    samples: int = 4
    sample_steps: int = 16
    sigma_max: float = 80.0
    guidance: tuple[float, float] = (1.0, 2.5)
    objective: Literal["edm", "flow"] = "edm"  # of flow, p_mean and p_std are those of the logit of t
    accumulate: int = 1  # in how many parts a batch's gradient is computed; the same but for rounding
    checkpoint_levels: tuple[int, ...] = ()  # whose activations are computed again in the backward pass, 0 the largest

    def __post_init__(self) -> None:
        at = f"phase {self.name}: "
        _check(
            bool(self.name) and self.name.replace("-", "").replace("_", "").isalnum(), "phase.name", self.name, "a word"
        )
        _check(self.task in get_args(Task), at + "task", self.task, f"one of {', '.join(get_args(Task))}")
        for name in ("steps", "batch", "frames", "validate_every", "save_every", "keep", "samples", "sample_steps"):
            value = getattr(self, name)
            _check(isinstance(value, int) and value > 0, at + name, value, "a positive whole number")
        image = self.task == "text-to-image"
        frames = "1 in an image phase, more in a video phase"
        _check((self.frames == 1) == image, at + "frames", self.frames, frames)
        # The VAE's factor 4 and, in the pipelines of diffusers, a multiple of 8.
        _check(all(s > 0 and s % 8 == 0 for s in self.size), at + "size", self.size, "multiples of 8 px")
        for name in ("fps", "p_std", "lr", "clip_grad"):
            value = getattr(self, name)
            _check(math.isfinite(value) and value > 0, at + name, value, "a positive number")
        for name in ("drop_text", "drop_image", "ema"):
            _check(0 <= getattr(self, name) < 1, at + name, getattr(self, name), "a number from 0 to below 1")
        _check(0 <= self.decay <= 1, at + "decay", self.decay, "a share of the steps, 0 to 1")
        _check(
            self.warmup >= 0 and self.weight_decay >= 0, at + "warmup", self.warmup, "not negative, nor weight_decay"
        )
        _check(
            self.images in get_args(ImageSource),
            at + "images",
            self.images,
            f"one of {', '.join(get_args(ImageSource))}",
        )
        _check(image or self.images == "frames", at + "images", self.images, "'frames' in a video phase")
        needs = self.images != "frames"
        _check(
            (self.image_path is not None) == needs,
            at + "image_path",
            self.image_path,
            "a path just where images needs one",
        )
        _check(self.crop in ("center", "random"), at + "crop", self.crop, "center or random")
        _check(len(self.validation_sigmas) > 0 and min(self.validation_sigmas) > 0, at + "validation_sigmas",
               self.validation_sigmas, "positive noise levels")  # fmt: skip
        _check(self.validation_clips > 0, at + "validation_clips", self.validation_clips, "a positive number")
        _check(self.sigma_max > 1, at + "sigma_max", self.sigma_max, "more than 1")
        for rule in self.select:
            _check(len(rule) == 3, at + "select", rule, "(column, least, most)")
        _check(self.objective in ("edm", "flow"), at + "objective", self.objective, "edm or flow")
        parts = isinstance(self.accumulate, int) and self.accumulate > 0 and self.batch % self.accumulate == 0
        _check(parts, at + "accumulate", self.accumulate, f"a divisor of the batch of {self.batch}")
        levels = all(isinstance(level, int) and level >= 0 for level in self.checkpoint_levels)
        _check(levels, at + "checkpoint_levels", self.checkpoint_levels, "numbers of levels from 0")

    @property
    def in_channels(self) -> int:
        """4 latent channels, and 4 more where the image's latent is concatenated."""
        return 8 if self.task == "image-to-video" else 4


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Phases in order, one network, one seed. ``caption``: the export's column that texts come from; ``text_tokens``: how
    many tokens a text is padded or cut to. ``autocast``: bfloat16 arithmetic with float32 weights. ``reader``: see
    ``training.reader``. ``models``: which of ``FROZEN`` it is made for."""

    name: str
    phases: tuple[Phase, ...]
    net: Net = field(default_factory=Net)
    caption: str = "caption_fuse"
    text_tokens: int = 32
    seed: int = 0
    autocast: bool = True
    reader: Literal["pyav", "decord"] = "pyav"
    models: Literal["world", "sd"] = "world"

    def __post_init__(self) -> None:
        names = [phase.name for phase in self.phases]
        _check(len(names) > 0, "phases", names, "at least one phase")
        _check(len(set(names)) == len(names), "phases", names, "different names")
        order = [get_args(Task).index(phase.task) for phase in self.phases]
        _check(
            order == sorted(order),
            "phases",
            [p.task for p in self.phases],
            "images before videos, and text before image",
        )
        _check(self.text_tokens > 0, "text_tokens", self.text_tokens, "a positive number")
        _check(self.reader in ("pyav", "decord"), "reader", self.reader, "pyav or decord")
        _check(
            self.reader == "pyav" or find_spec("decord") is not None, "reader", self.reader, "pyav: decord is missing"
        )
        _check(bool(self.caption), "caption", self.caption, "a column's name")
        _check(self.models in FROZEN, "models", self.models, f"one of {', '.join(FROZEN)}")
        # Our UNet takes any latents; diffusers', which published models must load in, takes those that halve exactly.
        step = self.frozen.factor * 2 ** (len(self.net.channels) - 1)
        for phase in self.phases:
            wanted = f"multiples of {step} px ({self.frozen.factor} px a latent, halved from level to level)"
            _check(all(side % step == 0 for side in phase.size), f"phase {phase.name}: size", phase.size, wanted)

    @property
    def frozen(self) -> Frozen:
        return FROZEN[self.models]

    @property
    def hash(self) -> str:
        """8 hex digits over all values but those of ``LATER`` that are at their default."""
        meaning = dataclasses.asdict(self)
        phases = zip(meaning["phases"], self.phases, strict=True)
        parts: list[tuple[dict[str, Any], Any]] = [(meaning, self), (meaning["net"], self.net), *phases]
        for row, made in parts:
            for one in dataclasses.fields(made):
                if one.name in LATER and getattr(made, one.name) == one.default:
                    del row[one.name]
        return fingerprint(meaning)

    def phase(self, name: str) -> Phase:
        """Raises ``ValueError`` naming the phases there are."""
        for phase in self.phases:
            if phase.name == name:
                return phase
        raise ValueError(f"phase: one of {', '.join(p.name for p in self.phases)} expected, not {name!r}")


def load_recipe(name: str) -> Recipe:
    """The recipe called ``name``. Raises ``ValueError`` naming those there are."""
    from training.recipes import RECIPES

    if name not in RECIPES:
        raise ValueError(f"recipe: one of {', '.join(sorted(RECIPES))} expected, not {name!r}")
    build: Callable[[], Recipe] = RECIPES[name]
    return build()


def columns_needed(recipe: Recipe) -> dict[str, str]:
    """The export's columns a recipe reads besides the contract's own, each with what asks for it."""
    needed = {recipe.caption: "caption"}
    for phase in recipe.phases:
        needed |= {column: f"phase {phase.name}: select" for column, _, _ in phase.select}
    if any(phase.task != "text-to-image" for phase in recipe.phases):
        needed["motion"] = "the motion bucket of the video phases"
    return needed


def check_columns(recipe: Recipe, there: Any) -> None:
    """Raises ``ValueError`` naming the missing column, what asks for it, and the columns there are."""
    for column, why in columns_needed(recipe).items():
        if column not in there:
            raise ValueError(f"{why}: column {column!r} is not in the export, which has {', '.join(sorted(there))}")
