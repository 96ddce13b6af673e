"""One phase of a training run: what it sees, what it trains and how, checked field by field. Nothing here imports
torch."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, ClassVar, Literal, get_args, get_origin, get_type_hints

from pydantic import ConfigDict, TypeAdapter, ValidationError

from dailies.curation.errors import RecipeError
from dailies.training.recipes.tasks import TASKS, Kind, Task

ImageSource = Literal["frames", "folder", "parquet"]
Rule = tuple[str, float | None, float | None]
MAIN = "main"  # the export that is given without a name

# Which weights a phase trains: all, SVD's I-a, or what is new in a video model.
Trains = Literal["all", "time-embedding", "temporal"]


def check(condition: bool, name: str, value: object, allowed: str) -> None:
    """Raises ``RecipeError`` naming the field, its value and what is allowed."""
    if not condition:
        raise RecipeError(f"{name}: {allowed} expected, not {value!r}")


@lru_cache
def _adapters(owner: type[Any]) -> dict[str, TypeAdapter[Any]]:
    """Of a dataclass's fields, but for those of few words, whose rules name them."""
    hints = get_type_hints(owner)
    return {name: TypeAdapter(hint) for name, hint in hints.items() if get_origin(hint) not in (Literal, ClassVar)}


def check_types(made: Any, at: str = "") -> None:
    """Raises ``RecipeError`` naming the field of a dataclass that holds another type than it says."""
    for name, adapter in _adapters(type(made)).items():  # type: ignore[arg-type]
        value = getattr(made, name)
        try:
            adapter.validate_python(value, strict=True)
        except ValidationError as error:
            raise RecipeError(f"{at}{name}: {error.errors()[0]['msg'].lower()}, not {value!r}") from None


@dataclass(frozen=True, kw_only=True)
class Bucket:
    """A shape that clips are trained in: ``size`` (width, height) px, ``frames`` on the phase's grid."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")
    size: tuple[int, int]
    frames: int


@dataclass(frozen=True, kw_only=True)
class Share:
    """A part of a phase's samples. ``data``: the name under which an export is given; ``weight``: of its samples among
    those of all shares; ``select``: as a phase's, beside it."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")
    data: str = MAIN
    weight: float = 1.0
    select: tuple[Rule, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Phase:
    """One phase: what it sees and how long.

    What it sees. ``size``: (width, height) px. ``frames`` at ``fps`` 1/s; an image phase has 1 frame. ``buckets``: the
    shapes that clips are sorted into, by sides' ratio and length; by default the one of ``size`` and ``frames``, which
    also are what samples are made in. ``mix``: exports with weights; by default all of the one that is given.
    ``image_share``: of the samples of a text-to-video phase that are pictures. ``images``: where pictures come from:
    ``frames`` of the clips, a ``folder`` of pictures with captions in a .txt beside each or in metadata.csv (columns
    file_name, text), or image-text ``parquet`` (columns image or jpg, text or caption); ``image_path`` says where the
    last two lie. ``select``: (column, least, most) with ``None`` for open, over the export's columns. ``crop``:
    ``center``, or ``random``.

    What is trained. ``start``: the phase whose averaged weights it starts from; by default the one before it, and for
    the first the weights that are given, or else random ones. ``trains``: which weights; ``lora``: adapters on these
    parts (``dailies.training.models.lora.PARTS``) instead. ``p_mean``, ``p_std``: ln σ ~ N(p_mean, p_std²); of flow matching
    those of the logit of t. ``drop_text``, ``drop_image``: the share of samples whose condition is dropped.
    ``noise_aug``: mean and standard deviation of ln σ of the noise on shown frames, ``None`` for none.

    How. ``accumulate``: in how many parts a batch's gradient is computed; the same but for rounding.
    ``checkpoint_levels``: whose activations are computed again in the backward pass, 0 the largest. ``validate_every``,
    ``save_every``, ``sample_every`` (``None``: at the end alone): steps. ``keep``: checkpoints kept.
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
    noise_aug: tuple[float, float] | None = (-3.0, 0.5)
    select: tuple[Rule, ...] = ()
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
    objective: Literal["edm", "flow"] = "edm"
    accumulate: int = 1
    checkpoint_levels: tuple[int, ...] = ()
    start: str | None = None
    trains: Trains = "all"
    lora: tuple[str, ...] = ()
    lora_rank: int | None = None
    image_share: float = 0.0
    mix: tuple[Share, ...] = ()
    buckets: tuple[Bucket, ...] = ()
    sample_every: int | None = None

    def __post_init__(self) -> None:
        check_types(self, f"phase {self.name}: ")
        for rule in (_words, _numbers, _pictures, _computing):
            for fine, name, allowed in rule(self):
                check(fine, f"phase {self.name}: {name}", getattr(self, name), allowed)

    @property
    def kind(self) -> Kind:
        return TASKS[self.task]

    @property
    def shapes(self) -> tuple[Bucket, ...]:
        """The buckets; the one of size and frames where none are named."""
        return self.buckets or (Bucket(size=self.size, frames=self.frames),)

    @property
    def shares(self) -> tuple[Share, ...]:
        return self.mix or (Share(),)

    @property
    def pictures(self) -> int:
        """How many samples of a batch are pictures beside videos."""
        return round(self.image_share * self.batch)


Rules = Iterator[tuple[bool, str, str]]  # whether it holds, the field, what is allowed


def _words(phase: Phase) -> Rules:
    yield bool(phase.name) and phase.name.replace("-", "").replace("_", "").isalnum(), "name", "a word"
    for name, values in (
        ("task", tuple(TASKS)),
        ("images", get_args(ImageSource)),
        ("crop", ("center", "random")),
        ("objective", ("edm", "flow")),
        ("trains", get_args(Trains)),
    ):
        yield getattr(phase, name) in values, name, f"one of {', '.join(values)}"


def _numbers(phase: Phase) -> Rules:
    counts = ("steps", "batch", "frames", "validate_every", "save_every", "keep", "samples", "sample_steps")
    for name in (*counts, "validation_clips", "accumulate"):
        value = getattr(phase, name)
        yield isinstance(value, int) and value > 0, name, "a positive whole number"
    for name in ("fps", "p_std", "lr", "clip_grad"):
        value = getattr(phase, name)
        yield math.isfinite(value) and value > 0, name, "a positive number"
    for name in ("drop_text", "drop_image", "ema"):
        yield 0 <= getattr(phase, name) < 1, name, "a number from 0 to below 1"
    yield 0 <= phase.decay <= 1, "decay", "a share of the steps, 0 to 1"
    yield phase.warmup >= 0, "warmup", "no negative number"
    yield phase.weight_decay >= 0, "weight_decay", "no negative number"
    levels = phase.validation_sigmas
    fine = len(levels) > 0 and all(math.isfinite(level) and level > 0 for level in levels)
    yield fine, "validation_sigmas", "positive noise levels"
    yield math.isfinite(phase.sigma_max) and phase.sigma_max > 1, "sigma_max", "more than 1"
    yield abs(phase.p_mean) <= 20, "p_mean", "a number from -20 to 20"  # of ln σ; e^20 is 5e8
    yield phase.p_std <= 20, "p_std", "a number up to 20"
    yield all(math.isfinite(one) and one >= 0 for one in phase.guidance), "guidance", "numbers that are not negative"
    aug = phase.noise_aug
    yield aug is None or (abs(aug[0]) <= 20 and 0 <= aug[1] <= 20), "noise_aug", "None, or (mean, deviation) of ln σ"
    every = phase.sample_every
    yield every is None or every > 0, "sample_every", "a positive whole number, or None"


def _pictures(phase: Phase) -> Rules:
    image = not phase.kind.video
    for shape in phase.shapes:
        field = "buckets" if phase.buckets else "frames"
        yield (shape.frames == 1) == image, field, "1 frame in an image phase, more in a video phase"
        # Pipelines of diffusers take multiples of 8 px.
        sides = all(side > 0 and side % 8 == 0 for side in shape.size)
        yield sides, "buckets" if phase.buckets else "size", "multiples of 8 px"
    yield len({(one.size, one.frames) for one in phase.buckets}) == len(phase.buckets), "buckets", "different shapes"
    for name in ("select", "mix"):
        rules = [phase.select] if name == "select" else [share.select for share in phase.mix]
        yield all(len(rule) == 3 for some in rules for rule in some), name, "rules of (column, least, most)"
    weights = [share.weight for share in phase.mix]
    yield all(math.isfinite(one) and one > 0 for one in weights), "mix", "positive weights"
    yield 0 <= phase.image_share < 1, "image_share", "a share of the batch, 0 to below 1"
    joint = phase.image_share > 0
    yield not joint or phase.task == "text-to-video", "image_share", "0 in any but a text-to-video phase"
    yield not joint or 0 < phase.pictures < phase.batch, "image_share", f"pictures and videos in {phase.batch} samples"
    yield image or joint or phase.images == "frames", "images", "'frames' where there are no pictures"
    needs = phase.images != "frames"
    yield (phase.image_path is not None) == needs, "image_path", "a path just where images needs one"


def _computing(phase: Phase) -> Rules:
    yield phase.batch % phase.accumulate == 0, "accumulate", f"a divisor of the batch of {phase.batch}"
    levels = all(isinstance(level, int) and level >= 0 for level in phase.checkpoint_levels)
    yield levels, "checkpoint_levels", "numbers of levels from 0"
    yield not phase.lora or phase.trains == "all", "trains", "all where lora trains adapters instead"
    joint = phase.image_share > 0
    spatial = any(part.startswith("spatial") for part in phase.lora)
    yield (
        not phase.lora or spatial or (phase.kind.video and not joint),
        "lora",
        "a spatial part where pictures are trained",
    )
    yield phase.trains != "temporal" or not joint, "trains", "anything but temporal where pictures are trained"
    rank = phase.lora_rank
    yield rank is None or (bool(phase.lora) and rank > 0), "lora_rank", "None, or a positive number with lora"
    yield phase.trains != "temporal" or phase.kind.video, "trains", "anything but temporal in an image phase"
