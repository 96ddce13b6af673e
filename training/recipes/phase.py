"""A phase of a training run says what data it takes, what it trains and how. Nothing here imports torch."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from annotated_types import Gt, Le, MinLen
from pydantic.dataclasses import dataclass

from dailies.training.recipes.spec import (
    STRICT,
    Count,
    Fraction,
    Index,
    LogSigma,
    LogSigmaStd,
    NonNegative,
    Positive,
    ProperFraction,
    Size,
    Spec,
)
from dailies.training.recipes.tasks import TASKS, Task, TaskSpec

ImageSource = Literal["frames", "folder", "parquet"]
Rule = tuple[str, float | None, float | None]
MAIN = "main"  # the export that is passed without a name

# Which weights a phase trains: all, SVD's I-a, or what is new in a video model.
Trains = Literal["all", "time-embedding", "temporal"]


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Bucket(Spec):
    """A shape that clips are trained in: ``size`` (width, height) px, ``frames`` on the phase's grid."""

    size: Size
    frames: Count

    @classmethod
    def label(cls, values: dict[str, Any]) -> str:
        return "buckets: "


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Share(Spec):
    """A part of a phase's samples.

    Args:
        data: the export's name (``--data NAME=EXPORT``).
        weight: of its samples among those of all shares.
        select: as a phase's, beside it.
    """

    data: str = MAIN
    weight: Positive = 1.0
    select: tuple[Rule, ...] = ()

    @classmethod
    def label(cls, values: dict[str, Any]) -> str:
        return "mix: "


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Phase(Spec):
    """One phase: what it sees, what it trains and how long.

    What it sees. ``task``: a name in ``TASKS``. ``size``: (width, height) px. ``frames`` at ``fps`` 1/s; an image phase
    has 1 frame. ``rates``: all rates that clips are trained at, ``fps`` among them, which samples are made at; a clip
    takes part at those that are not above its own, and each sample is told its rate; by default ``fps`` alone.
    ``buckets``: the shapes that clips are sorted into, by aspect ratio and length; by default the one of ``size`` and
    ``frames``, which also are what samples are made in. ``mix``: exports with weights; by default all of the one that
    is passed. ``image_share``: of the samples of a text-to-video phase that are images. ``images``: where images come
    from: ``frames`` of the clips, a ``folder`` of images with captions in a .txt beside each or in metadata.csv
    (columns file_name, text), or image-text ``parquet`` (columns image or jpg, text or caption); ``image_path`` says
    where the last two lie. ``select``: (column, least, most) with ``None`` for open, over the export's columns.
    ``crop``: ``center``, or ``random``.

    What is trained. ``start``: the phase whose averaged weights it starts from; by default the one before it, and for
    the first the recipe's ``init_from``. ``trains``: which weights; ``lora``: adapters on these layers instead
    (``dailies.training.models.lora.LORA_TARGETS``) of rank ``lora_rank``, by default the target's own. ``objective``:
    EDM's denoising or rectified flow. ``p_mean``, ``p_std``: ln σ ~ N(p_mean, p_std²); of flow matching those of the
    logit of t. ``drop_text``, ``drop_image``: the share of samples whose condition is dropped. ``noise_aug``: mean and
    standard deviation of ln σ of the noise on conditioning frames, ``None`` for none.

    How. ``steps`` of ``batch`` samples, of all processes together. ``lr`` rises over the first ``warmup`` steps and
    falls to 0 over the last ``decay`` of all, a share; ``weight_decay`` is AdamW's, ``clip_grad`` the longest gradient.
    ``ema``: how much of the averaged weights each step keeps. ``accumulate``: in how many parts a batch's gradient is
    computed; the same but for rounding. ``checkpoint_levels``: whose activations are computed again in the backward
    pass, 0 the largest. ``validate_every``, ``save_every``, ``sample_every`` (``None``: at the end alone): steps.
    ``keep``: checkpoints kept. ``validation_clips`` held-out clips are measured at each of ``validation_sigmas``, noise
    levels. ``samples`` of them are sampled in ``sample_steps`` steps from ``sigma_max``, with guidance weights at the
    first and the last frame (``guidance``).
    """

    name: str
    task: Task
    steps: Count
    batch: Count
    size: Size
    frames: Count = 1
    fps: Positive = 8.0
    p_mean: LogSigma = -1.2
    p_std: Annotated[float, Gt(0), Le(20)] = 1.0
    lr: Positive = 1e-3
    warmup: Index = 10
    decay: Fraction = 0.0
    weight_decay: NonNegative = 1e-2
    clip_grad: Positive = 1.0
    ema: ProperFraction = 0.99
    drop_text: ProperFraction = 0.1
    drop_image: ProperFraction = 0.1
    noise_aug: tuple[LogSigma, LogSigmaStd] | None = (-3.0, 0.5)
    select: tuple[Rule, ...] = ()
    images: ImageSource = "frames"
    image_path: str | None = None
    crop: Literal["center", "random"] = "center"
    validate_every: Count = 50
    validation_clips: Count = 8
    validation_sigmas: Annotated[tuple[Positive, ...], MinLen(1)] = (0.2, 1.0, 5.0)
    save_every: Count = 50
    keep: Count = 2
    samples: Count = 4
    sample_steps: Count = 16
    sigma_max: Annotated[float, Gt(1)] = 80.0
    guidance: tuple[NonNegative, NonNegative] = (1.0, 2.5)
    objective: Literal["edm", "flow"] = "edm"
    accumulate: Count = 1
    checkpoint_levels: tuple[Index, ...] = ()
    start: str | None = None
    trains: Trains = "all"
    lora: tuple[str, ...] = ()
    lora_rank: Count | None = None
    image_share: ProperFraction = 0.0
    mix: tuple[Share, ...] = ()
    buckets: tuple[Bucket, ...] = ()
    sample_every: Count | None = None
    rates: tuple[Positive, ...] = ()

    @classmethod
    def label(cls, values: dict[str, Any]) -> str:
        return f"phase {values.get('name', 'without a name')}: "

    def __post_init__(self) -> None:
        for problem in (_name_problem, _shape_problem, _rate_problem, _image_problem, _training_problem):
            if message := problem(self):
                raise ValueError(message)

    @property
    def task_spec(self) -> TaskSpec:
        return TASKS[self.task]

    @property
    def shapes(self) -> tuple[Bucket, ...]:
        """The buckets; the one of ``size`` and ``frames`` where none are named."""
        return self.buckets or (Bucket(size=self.size, frames=self.frames),)

    @property
    def trained_fps(self) -> tuple[float, ...]:
        """The rates that clips are trained at, 1/s, rising."""
        return tuple(sorted(self.rates)) or (self.fps,)

    @property
    def shares(self) -> tuple[Share, ...]:
        return self.mix or (Share(),)

    @property
    def pictures(self) -> int:
        """Return how many samples of a batch are images beside videos."""
        return round(self.image_share * self.batch)


# Rules over several fields: each gives what is wrong, or None.


def _name_problem(phase: Phase) -> str | None:
    if not re.fullmatch(r"[\w-]+", phase.name):
        return f"name={phase.name!r}: use letters, digits, - and _ only"
    return None


def _shape_problem(phase: Phase) -> str | None:
    for shape in phase.shapes:
        if (shape.frames == 1) == phase.task_spec.video:
            allowed = "a video phase takes 2 frames or more"
            if not phase.task_spec.video:
                allowed = "an image phase takes exactly 1 frame"
            return f"{'buckets: ' if phase.buckets else ''}frames={shape.frames}: {allowed}"
    if len(set(phase.buckets)) < len(phase.buckets):
        return "buckets: two have the same size and frames"
    return None


def _rate_problem(phase: Phase) -> str | None:
    if not phase.rates:
        return None
    if not phase.task_spec.video:
        return f"rates={phase.rates}: an image phase has no rate"
    if len(set(phase.rates)) < len(phase.rates):
        return f"rates={phase.rates}: one is named twice"
    if phase.fps not in phase.rates:
        return f"rates={phase.rates}: must hold fps={phase.fps:g}, which samples are made at"
    return None


def _image_problem(phase: Phase) -> str | None:
    mixed = phase.image_share > 0
    if mixed and phase.task != "text-to-video":
        return f"image_share={phase.image_share:g}: only a text-to-video phase mixes in images"
    if mixed and not 0 < phase.pictures < phase.batch:
        return f"image_share={phase.image_share:g}: leaves no image or no video in a batch of {phase.batch}"
    if phase.images != "frames" and not mixed and phase.task_spec.video:
        return f"images={phase.images!r}: this phase trains on no images"
    if phase.images != "frames" and phase.image_path is None:
        return f"image_path=None: images={phase.images!r} needs a path"
    if phase.images == "frames" and phase.image_path is not None:
        return f"image_path={phase.image_path!r}: images='frames' reads none"
    return None


def _training_problem(phase: Phase) -> str | None:
    if phase.batch % phase.accumulate:
        return f"accumulate={phase.accumulate}: does not divide batch={phase.batch}"
    if phase.lora and phase.trains != "all":
        return f"trains={phase.trains!r}: lora trains adapters alone; leave trains at 'all'"
    if phase.lora_rank is not None and not phase.lora:
        return f"lora_rank={phase.lora_rank}: needs lora"
    if phase.trains == "temporal" and not phase.task_spec.video:
        return "trains='temporal': needs a video phase"
    images = not phase.task_spec.video or phase.image_share > 0
    if images and phase.trains == "temporal":
        return "trains='temporal': images pass no temporal layer; set image_share to 0"
    if images and phase.lora and not any(part.startswith("spatial") for part in phase.lora):
        return f"lora={phase.lora}: images pass no temporal layer; add a spatial part"
    return None
