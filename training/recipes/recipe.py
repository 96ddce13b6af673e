"""A recipe says what a training run does, in frozen values that are checked before any work.

A recipe is a Python function that returns a ``TrainingRecipe`` (``dailies.training.recipes``); a variant derives with
``dataclasses.replace``. Nothing here imports torch.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import field
from typing import Annotated, Any, Literal

from annotated_types import Ge, Gt, Le, MinLen, MultipleOf
from pydantic import TypeAdapter
from pydantic.dataclasses import dataclass

from dailies.curation.config import offered
from dailies.curation.errors import RecipeError
from dailies.curation.packages import install_line, installed
from dailies.curation.schema import fingerprint
from dailies.training.recipes.old_names import to_new_names, to_old_names
from dailies.training.recipes.phase import MAIN, Bucket, Phase, Share
from dailies.training.recipes.spec import STRICT, Count, Positive, Spec

__all__ = ["ENCODER_DIMS", "MAIN", "Bucket", "EncoderDims", "Phase", "Share", "TrainingRecipe", "UNetSpec"]

# Fields younger than the first runs: left out of a recipe's hash while at their default, so that a run begun before there were
# such fields goes on.
LATER = frozenset(
    {
        "head_width", "models", "objective", "accumulate", "checkpoint_levels", "start", "trains", "lora", "lora_rank",
        "image_share", "mix", "buckets", "sample_every", "init_from", "rates",
    }
)  # fmt: skip

Channels = Annotated[int, Gt(0), MultipleOf(32)]


@dataclasses.dataclass(frozen=True, kw_only=True)
class EncoderDims:
    """The sizes that VAE and CLIP towers, which are not trained, fix for the network.

    Args:
        factor: px per latent on each side.
        text_width, image_width: of the tokens attended to; ``None`` where there is no such encoder.
    """

    factor: int
    text_width: int | None
    image_width: int | None


# What recipes count on before they see weights: the models of zoo/builtin, and SD 2.1's VAE with OpenCLIP ViT-H/14's towers.
ENCODER_DIMS: dict[str, EncoderDims | None] = {
    "world": EncoderDims(factor=4, text_width=96, image_width=96),
    "sd": EncoderDims(factor=8, text_width=1024, image_width=1024),
    "given": None,  # those of the models on the command line
}


@dataclass(frozen=True, kw_only=True, config=STRICT)
class UNetSpec(Spec):
    """The UNet, in diffusers' words; the same for every phase, so that each starts from the last one's weights.

    diffusers' temporal ResBlocks fix 32 groups, so channels are multiples of 32; with just 32 each group is one channel
    and the last norm washes out what is constant over a picture, its mean colour.

    Args:
        channels: block_out_channels.
        attention: for each level whether it has transformer blocks.
        heads: of attention on each level.
        layers: ResBlocks on each level down.
        time_id_width: width of the sinusoids of each added time id; even.
        head_width: channels of a head, instead of ``heads``, so that wider levels have more of them.
    """

    channels: Annotated[tuple[Channels, ...], MinLen(1)] = (64, 64)
    attention: tuple[bool, ...] = (False, True)
    heads: Count = 2
    layers: Count = 1
    time_id_width: Annotated[int, Gt(0), MultipleOf(2)] = 32
    head_width: Count | None = None

    @classmethod
    def label(cls, values: dict[str, Any]) -> str:
        return "unet."

    def __post_init__(self) -> None:
        if len(self.attention) != len(self.channels):
            raise ValueError(f"attention={self.attention}: channels has {len(self.channels)} levels")
        for name in ("heads", "head_width"):
            value = getattr(self, name)
            if value is not None and any(width % value for width in self.channels):
                raise ValueError(f"{name}={value}: does not divide each of channels={self.channels}")

    @property
    def level_heads(self) -> tuple[int, ...]:
        """Heads on each level."""
        return tuple(self.heads if self.head_width is None else c // self.head_width for c in self.channels)


@dataclass(frozen=True, kw_only=True, config=STRICT)
class TrainingRecipe(Spec):
    """Phases in order, one network, one seed.

    Args:
        phases: in the order in which they are trained.
        unet: ``None`` for that of the weights it starts from.
        caption: the export's column that texts come from, or several with the probability of each, drawn for each sample.
        text_tokens: how many tokens a text is padded or cut to.
        seed: of everything that is drawn.
        autocast: bfloat16 arithmetic with float32 weights.
        reader: see ``data.reader``.
        models: which of ``ENCODER_DIMS`` it is made for.
        init_from: what the first phase starts from: random weights, or those given (``--from``).
    """

    name: str
    phases: Annotated[tuple[Phase, ...], MinLen(1)]
    unet: UNetSpec | None = field(default_factory=UNetSpec)
    caption: str | tuple[tuple[str, Positive], ...] = "caption_fuse"
    text_tokens: Count = 32
    seed: Annotated[int, Ge(0), Le(2**63 - 1)] = 0
    autocast: bool = True
    reader: Literal["pyav", "decord"] = "pyav"
    models: Literal["world", "sd", "given"] = "world"
    init_from: Literal["random", "given"] = "random"

    def __post_init__(self) -> None:
        names = [phase.name for phase in self.phases]
        if repeated := next((name for name in names if names.count(name) > 1), None):
            raise ValueError(f"phases: two are called {repeated}")
        for phase in self.phases:
            self._check_start(phase)
        if self.reader == "decord" and not installed("decord"):
            raise ValueError(f"reader='decord': decord is not installed; use pyav, or {install_line(['decord'])}")
        if not all(column for column, _ in self.captions):
            raise ValueError(f"caption={self.caption!r}: a column has no name")
        if not math.isclose(total := sum(share for _, share in self.captions), 1):
            raise ValueError(f"caption={self.caption!r}: the probabilities sum to {total:g}, not 1")
        if self.unet is None and not self.models == self.init_from == "given":
            raise ValueError("unet=None: needs models='given' and init_from='given'")
        if self.encoder_dims is not None and self.unet is not None:
            check_sizes(self, self.unet.channels, self.encoder_dims.factor)

    def _check_start(self, phase: Phase) -> None:
        before = self.phases[: self.phases.index(phase)]
        names = [earlier.name for earlier in before]
        if phase.start is not None and phase.start not in names:
            there = offered(phase.start, names) or "; it is the first"
            raise ValueError(f"phase {phase.name}: start={phase.start!r}: is no phase before this one{there}")
        last = self.before(phase)
        if last is None:
            return
        ours, theirs = phase.task_spec, last.task_spec
        if (
            ours.video < theirs.video
            or ours.in_channels < theirs.in_channels
            or ours.num_time_ids < theirs.num_time_ids
        ):
            raise ValueError(
                f"phase {phase.name}: task={phase.task!r}: cannot start from {last.name} ({last.task}), whose "
                "network takes more; order phases from images to videos, and from text to image conditioning"
            )

    @property
    def captions(self) -> tuple[tuple[str, float], ...]:
        """Columns and probabilities."""
        return ((self.caption, 1.0),) if isinstance(self.caption, str) else self.caption

    @property
    def encoder_dims(self) -> EncoderDims | None:
        return ENCODER_DIMS[self.models]

    @property
    def hash(self) -> str:
        """A hash of 8 hex digits over all values but those of ``LATER`` that are at their default."""
        meaning = dataclasses.asdict(self)
        phases = zip(meaning["phases"], self.phases, strict=True)
        parts: list[tuple[dict[str, Any], Any]] = [(meaning, self), *phases]
        if self.unet is not None:
            parts.append((meaning["unet"], self.unet))
        for row, spec in parts:
            for item in dataclasses.fields(spec):
                if item.name in LATER and getattr(spec, item.name) == item.default:
                    del row[item.name]
        return fingerprint(to_old_names(meaning))

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> TrainingRecipe:
        """Read a recipe as run.json holds it, by its fields' old names too. Raises ``RecipeError``."""
        return TypeAdapter(cls).validate_python(to_new_names(row), strict=False)

    def phase(self, name: str) -> Phase:
        """Return the phase ``name``. Raises ``RecipeError`` naming the phases there are."""
        names = [phase.name for phase in self.phases]
        if name not in names:
            raise RecipeError(f"phase {name!r}: recipe {self.name} has no such phase{offered(name, names)}")
        return self.phases[names.index(name)]

    def before(self, phase: Phase) -> Phase | None:
        """Return the phase that ``phase`` starts from, ``None`` for the first."""
        if phase.start is not None:
            return self.phase(phase.start)
        number = self.phases.index(phase)
        return self.phases[number - 1] if number else None


def check_sizes(recipe: TrainingRecipe, channels: Sequence[int], factor: int) -> None:
    """Raise ``RecipeError`` where a phase's size is not one the network takes at ``factor`` px a latent.

    Our UNet takes any latents; diffusers', which published models must load in, takes those that halve exactly.
    """
    step = factor * 2 ** (len(channels) - 1)
    for phase in recipe.phases:
        for shape in phase.shapes:
            if any(side % step for side in shape.size):
                raise RecipeError(
                    f"phase {phase.name}: size={shape.size}: each side must be a multiple of {step} px "
                    f"({factor} px a latent, halved from level to level)"
                )


def columns_needed(recipe: TrainingRecipe, phases: Sequence[Phase]) -> dict[str, str]:
    """List the export's columns that ``phases`` read besides the contract's own, each with what asks for it."""
    needed: dict[str, str] = {}
    if any(phase.task_spec.cross_attention == "text" for phase in phases):
        needed |= {column: "caption" for column, _ in recipe.captions}
    for phase in phases:
        for rules in (phase.select, *(share.select for share in phase.shares)):
            needed |= {column: f"phase {phase.name}: select" for column, _, _ in rules}
        needed |= {column: f"the {column} of phase {phase.name}" for column in phase.task_spec.columns}
    return needed


def check_columns(recipe: TrainingRecipe, phases: Sequence[Phase], there: Any) -> None:
    """Raise ``RecipeError`` naming the missing column, what asks for it, and the columns there are."""
    for column, why in columns_needed(recipe, phases).items():
        if column not in there:
            raise RecipeError(f"{why}: column {column!r} is not in the export{_remedy(column, why, there)}")


def _remedy(column: str, why: str, there: Any) -> str:
    """Return what to do about a column that an export lacks."""
    if why == "caption" and not [name for name in there if name.startswith("caption")]:
        return ", which has no captions; curate with a recipe that makes them: dailies curate … --recipe captioned"
    return offered(column, sorted(there), label="it has")
