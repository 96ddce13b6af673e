"""What a training run does, as frozen values that are checked before any work.

A recipe is a Python function that returns a ``Recipe`` (``dailies.training.recipes``); a variant derives with
``dataclasses.replace``. Nothing here imports torch.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import Any, Literal

from dailies.curation.errors import RecipeError
from dailies.curation.schema import fingerprint
from dailies.training.recipes.phase import MAIN, Bucket, Phase, Share, check, check_types

__all__ = ["FROZEN", "MAIN", "Bucket", "Frozen", "Net", "Phase", "Recipe", "Share"]

# Fields younger than the first runs: left out of a recipe's hash while at their default, so that a run begun before there were
# such fields goes on.
LATER = frozenset(
    {
        "head_width", "models", "objective", "accumulate", "checkpoint_levels", "start", "trains", "lora", "lora_rank",
        "image_share", "mix", "buckets", "sample_every", "begins",
    }
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Frozen:
    """The frozen models that pictures and captions pass, as far as they fix the network's shapes.

    ``factor``: px per latent on each side. ``text_width``, ``image_width``: of the tokens attended to; ``None`` where
    there is no such encoder.
    """

    factor: int
    text_width: int | None
    image_width: int | None


# What recipes count on before they see weights: the models of zoo/builtin, and SD 2.1's VAE with OpenCLIP ViT-H/14's towers.
FROZEN: dict[str, Frozen | None] = {
    "world": Frozen(factor=4, text_width=96, image_width=96),
    "sd": Frozen(factor=8, text_width=1024, image_width=1024),
    "given": None,  # whatever the given weights are
}


@dataclass(frozen=True, kw_only=True)
class Net:
    """The UNet, in diffusers' words; the same for every phase, so that each starts from the last one's weights.

    ``channels``: block_out_channels. ``attention``: for each level whether it has transformer blocks. ``time_ids``:
    width of the sinusoids of each of the three added ids. diffusers' temporal ResBlocks fix 32 groups, so channels are
    multiples of 32; with just 32 each group is one channel and the last norm washes out what is constant over a
    picture, its mean colour. ``heads``: on each level; or ``head_width``, channels of a head, so that wider levels have
    more of them.
    """

    channels: tuple[int, ...] = (64, 64)
    attention: tuple[bool, ...] = (False, True)
    heads: int = 2
    layers: int = 1
    time_ids: int = 32
    head_width: int | None = None

    def __post_init__(self) -> None:
        check(all(c > 0 and c % 32 == 0 for c in self.channels), "net.channels", self.channels, "multiples of 32")
        check(len(self.channels) >= 1, "net.channels", self.channels, "at least one level")
        check(
            len(self.attention) == len(self.channels), "net.attention", self.attention, "one for each of net.channels"
        )
        fits = self.heads > 0 and all(c % self.heads == 0 for c in self.channels)
        check(fits, "net.heads", self.heads, f"a divisor of each of {self.channels}")
        check(self.layers > 0, "net.layers", self.layers, "a positive number")
        check(self.time_ids > 0 and self.time_ids % 2 == 0, "net.time_ids", self.time_ids, "an even, positive number")
        width = self.head_width
        even = width is None or (width > 0 and all(c % width == 0 for c in self.channels))
        check(even, "net.head_width", width, f"None or a divisor of each of {self.channels}")

    @property
    def level_heads(self) -> tuple[int, ...]:
        """Heads on each level."""
        return tuple(self.heads if self.head_width is None else c // self.head_width for c in self.channels)


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Phases in order, one network, one seed.

    ``net``: ``None`` for that of the weights given. ``caption``: the export's column that texts come from, or several
    with the probability of each, drawn for each sample. ``text_tokens``: how many tokens a text is padded or cut to.
    ``autocast``: bfloat16 arithmetic with float32 weights. ``reader``: see ``data.reader``. ``models``: which of
    ``FROZEN`` it is made for.
    """

    name: str
    phases: tuple[Phase, ...]
    net: Net | None = field(default_factory=Net)
    caption: str | tuple[tuple[str, float], ...] = "caption_fuse"
    text_tokens: int = 32
    seed: int = 0
    autocast: bool = True
    reader: Literal["pyav", "decord"] = "pyav"
    models: Literal["world", "sd", "given"] = "world"
    begins: Literal["random", "given"] = "random"

    def __post_init__(self) -> None:
        check_types(self)
        check(0 <= self.seed < 2**63, "seed", self.seed, "a whole number from 0 to 2^63 - 1")
        names = [phase.name for phase in self.phases]
        check(len(names) > 0, "phases", names, "at least one phase")
        check(len(set(names)) == len(names), "phases", names, "different names")
        for phase in self.phases:
            self._check_start(phase)
        check(self.text_tokens > 0, "text_tokens", self.text_tokens, "a positive number")
        check(self.reader in ("pyav", "decord"), "reader", self.reader, "pyav or decord")
        check(
            self.reader == "pyav" or find_spec("decord") is not None, "reader", self.reader, "pyav: decord is missing"
        )
        shares = [share for _, share in self.captions]
        named = len(self.captions) > 0 and all(column for column, _ in self.captions)
        check(named, "caption", self.caption, "a column's name, or several with probabilities")
        sums = all(share > 0 for share in shares) and math.isclose(sum(shares), 1)
        check(sums, "caption", self.caption, "positive probabilities that sum to 1")
        check(self.models in FROZEN, "models", self.models, f"one of {', '.join(FROZEN)}")
        check(self.begins in ("random", "given"), "begins", self.begins, "random or given")
        given = self.models == self.begins == "given"
        check(self.net is not None or given, "net", self.net, "a Net unless models and begins are 'given'")
        if self.frozen is not None and self.net is not None:
            check_sizes(self, self.net.channels, self.frozen.factor)

    def _check_start(self, phase: Phase) -> None:
        names = [one.name for one in self.phases]
        before = names[: names.index(phase.name)]
        at = f"phase {phase.name}: start"
        check(phase.start is None or phase.start in before, at, phase.start, f"None or one of {', '.join(before)}")
        last = self.before(phase)
        if last is None:
            return
        fits = phase.kind.video >= last.kind.video
        fits &= phase.kind.in_channels >= last.kind.in_channels and phase.kind.ids >= last.kind.ids
        words = "images before videos, and text before image, each phase with all that it starts from has"
        check(fits, "phases", [one.task for one in self.phases], words)

    @property
    def captions(self) -> tuple[tuple[str, float], ...]:
        """Columns and probabilities."""
        return ((self.caption, 1.0),) if isinstance(self.caption, str) else self.caption

    @property
    def frozen(self) -> Frozen | None:
        return FROZEN[self.models]

    @property
    def hash(self) -> str:
        """8 hex digits over all values but those of ``LATER`` that are at their default."""
        meaning = dataclasses.asdict(self)
        phases = zip(meaning["phases"], self.phases, strict=True)
        parts: list[tuple[dict[str, Any], Any]] = [(meaning, self), *phases]
        if self.net is not None:
            parts.append((meaning["net"], self.net))
        for row, made in parts:
            for one in dataclasses.fields(made):
                if one.name in LATER and getattr(made, one.name) == one.default:
                    del row[one.name]
        return fingerprint(meaning)

    def phase(self, name: str) -> Phase:
        """Raises ``RecipeError`` naming the phases there are."""
        for phase in self.phases:
            if phase.name == name:
                return phase
        raise RecipeError(f"phase: one of {', '.join(p.name for p in self.phases)} expected, not {name!r}")

    def before(self, phase: Phase) -> Phase | None:
        """The phase that ``phase`` starts from, ``None`` for the first."""
        if phase.start is not None:
            return self.phase(phase.start)
        number = self.phases.index(phase)
        return self.phases[number - 1] if number else None


def check_sizes(recipe: Recipe, channels: Sequence[int], factor: int) -> None:
    """Raises ``RecipeError`` where a phase's size is not one the network takes at ``factor`` px a latent.

    Our UNet takes any latents; diffusers', which published models must load in, takes those that halve exactly.
    """
    step = factor * 2 ** (len(channels) - 1)
    for phase in recipe.phases:
        wanted = f"multiples of {step} px ({factor} px a latent, halved from level to level)"
        for shape in phase.shapes:
            check(all(side % step == 0 for side in shape.size), f"phase {phase.name}: size", shape.size, wanted)


def columns_needed(recipe: Recipe, phases: Sequence[Phase]) -> dict[str, str]:
    """The export's columns that ``phases`` read besides the contract's own, each with what asks for it."""
    needed: dict[str, str] = {}
    if any(phase.kind.context == "text" for phase in phases):
        needed |= {column: "caption" for column, _ in recipe.captions}
    for phase in phases:
        for rules in (phase.select, *(share.select for share in phase.shares)):
            needed |= {column: f"phase {phase.name}: select" for column, _, _ in rules}
        needed |= {column: f"the {column} of phase {phase.name}" for column in phase.kind.columns}
    return needed


def check_columns(recipe: Recipe, phases: Sequence[Phase], there: Any) -> None:
    """Raises ``RecipeError`` naming the missing column, what asks for it, and the columns there are."""
    for column, why in columns_needed(recipe, phases).items():
        if column not in there:
            raise RecipeError(f"{why}: column {column!r} is not in the export, which has {', '.join(sorted(there))}")
