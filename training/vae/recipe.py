"""Finetuning a temporal VAE decoder follows a recipe whose values are checked as it is cls."""

from __future__ import annotations

import dataclasses
import functools
from typing import Annotated, Any, Literal, TypeVar

from annotated_types import Ge, Gt, Le
from pydantic import AfterValidator, ConfigDict, ValidationError
from pydantic.dataclasses import dataclass

from dailies.curation.config import format_error, keys_of
from dailies.curation.errors import RecipeError
from dailies.curation.packages import install_line, installed
from dailies.training.data.reader import Backend

# How a run is carried out, not what comes out of it: these may differ when it goes on.
CONDUCT = ("save_every", "sample_every", "keep", "checkpointing")
CHECKED = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)

Trains = Literal["temporal", "decoder"]
Count = Annotated[int, Ge(1)]
T = TypeVar("T")


def _installed(reader: Backend) -> Backend:
    if reader == "decord" and not installed("decord"):
        raise ValueError(
            f"reader='decord': reader='decord': decord is not installed; use pyav, or {install_line(['decord'])}"
        )
    return reader


def _checked(cls: type[T]) -> type[T]:
    """Let a pydantic dataclass raise ``RecipeError`` that names the field, for a value that it refuses."""
    init = cls.__init__

    @functools.wraps(init)
    def checked(self: T, *args: Any, **values: Any) -> None:
        try:
            init(self, *args, **values)
        except ValidationError as error:
            raise RecipeError(format_error(error, keys_of(cls))) from None

    cls.__init__ = checked  # type: ignore[method-assign,assignment]
    return cls


@_checked
@dataclass(frozen=True, kw_only=True, config=CHECKED)
class VaeRecipe:
    """A recipe says how a temporal decoder is finetuned: its data, its loss and its length.

    A step sees ``batch`` windows, each of ``frames`` frames on a grid of ``fps`` 1/s (``None``: each clip's own rate),
    scaled to cover ``size`` (width, height) px and cropped at random. Windows are run one after the other, so that
    memory does not grow with ``batch``.

    ``trains``: the decoder's temporal layers, or the whole decoder; never the encoder. ``edges``, ``flicker``: weights of the
    L1 on differences of neighbouring pixels and frames, where that on pixels is 1. ``lr``, in each parameter's unit (see
    ``objective.units``), rises over ``warmup`` steps and falls to 0 over the last ``decay`` of all. No weight decay: it
    would pull blends and the identity kernel to 0. ``autocast``: bfloat16 arithmetic; its 8 bits are coarser than small
    flicker, so it is off. ``checkpointing``: less memory, more time, the same result. ``validate_every``, ``save_every``,
    ``sample_every`` (``None``: at the end alone): steps. ``keep``: checkpoints kept. Raises ``RecipeError`` naming the
    field of a wrong value.
    """

    steps: Count = 2000
    batch: Count = 4
    frames: Annotated[int, Ge(2)] = 8
    size: tuple[Count, Count] = (256, 256)
    fps: Annotated[float, Gt(0)] | None = None
    trains: Trains = "temporal"
    lr: Annotated[float, Gt(0)] = 1e-4
    warmup: Annotated[int, Ge(0)] = 50
    decay: Annotated[float, Ge(0), Le(1)] = 0.2
    edges: Annotated[float, Ge(0)] = 0.5
    flicker: Annotated[float, Ge(0)] = 1.0
    seed: Annotated[int, Ge(0)] = 0
    validation_clips: Count = 8
    validate_every: Count = 500
    save_every: Count = 500
    sample_every: Count | None = None
    keep: Count = 2
    autocast: bool = False
    checkpointing: bool = False
    reader: Annotated[Backend, AfterValidator(_installed)] = "pyav"

    @property
    def clip_grad(self) -> float:
        """The longest gradient, its parameters measured in their units."""
        return 1.0

    @property
    def meaning(self) -> dict[str, Any]:
        """Everything that the result depends on, as JSON has it."""
        row = {name: value for name, value in dataclasses.asdict(self).items() if name not in CONDUCT}
        return {**row, "size": list(self.size)}
