"""ZooEntry: one model, as a row. Metadata is data: nothing here loads a weight."""

from __future__ import annotations

import json
import re
from dataclasses import asdict
from typing import Literal, get_args

from pydantic import Field, TypeAdapter
from pydantic.dataclasses import dataclass

from dailies.curation.config import read_format
from dailies.curation.errors import Damaged, ModelError

ModelTask = Literal["text-to-video", "image-to-video", "text-to-image", "captioner", "component"]
MODEL_TASKS: tuple[str, ...] = get_args(ModelTask)
FORMAT = 1
"""Of ``model.json``. Keys are added, never given another meaning; a reader passes over those it does not know."""

_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")


def check_name(name: str) -> str:
    """Return ``name`` if it can be one: it becomes a folder's name. Raises ``ModelError``."""
    if not _NAME.fullmatch(name) or name.endswith("."):
        raise ModelError(
            f"name={name!r}: not a model's name; use lower-case letters, digits, '.', '_' and '-', at most 63,"
            " with a letter or digit first"
        )
    return name


@dataclass(frozen=True, kw_only=True)
class SamplingDefaults:
    """The values that a pipeline samples with unless told otherwise.

    Args:
        steps: number of sampling steps.
        guidance: the weight at the first and at the last frame, linear between them.
        motion_bucket: 0–255; more is more motion.
        noise_aug: standard deviation of the noise on the conditioning image, pixels in −1…1.
    """

    steps: int = 25
    guidance: tuple[float, float] = (1.0, 3.0)
    motion_bucket: int = 127
    noise_aug: float = 0.02


@dataclass(frozen=True, kw_only=True)
class Sources:
    """The origin of a model; ``None`` where it is not known.

    Args:
        recipe, recipe_hash: of training.
        phase: the phase of that recipe.
        checkpoint: its folder under the run's folder.
        weights: ``ema`` or ``last``.
        data: name of the export trained on; models of before have its path.
        clips: number of clips the phase was trained on.
        selection: the selection that the export was made from.
        curation, curation_hash: the recipe that made the data.
    """

    recipe: str | None = None
    recipe_hash: str | None = None
    phase: str | None = None
    checkpoint: str | None = None
    weights: str | None = None
    data: str | None = None
    clips: int | None = None
    selection: str | None = None
    curation: str | None = None
    curation_hash: str | None = None


@dataclass(frozen=True, kw_only=True)
class ZooEntry:
    """One model of a zoo: the contents of its ``model.json``.

    Args:
        task: one of ``MODEL_TASKS``.
        pipeline: a class of ``dailies.zoo.pipelines.PIPELINES``; ``None`` for a component such as an encoder.
        size: (width, height) in px.
        fps_range: lowest and highest rate that it was trained at, 1/s; ``None`` for ``fps`` alone.
        licence: an SPDX id.
        parameters, bytes: of all weight files.
        about: one sentence on what it is.
        published: time in ISO 8601.
        version: of dailies.
    """

    name: str
    task: ModelTask
    pipeline: str | None = None
    size: tuple[int, int] | None = None
    frames: int | None = None
    fps: float | None = None
    fps_range: tuple[float, float] | None = None
    licence: str | None = None
    parameters: int | None = None
    bytes: int | None = None
    about: str = ""
    published: str | None = None
    version: str | None = None
    sampling: SamplingDefaults = Field(default_factory=SamplingDefaults)
    sources: Sources = Field(default_factory=Sources)
    built_in: bool = False

    def __post_init__(self) -> None:
        check_name(self.name)

    def trained_at(self, fps: float) -> bool:
        """Return whether the model has seen videos of this rate; true where it is not known."""
        low, high = self.fps_range or (self.fps, self.fps)
        return low is None or high is None or low <= fps <= high

    @property
    def kind(self) -> str:
        """``pipeline`` if it can be run by itself, else ``component``."""
        return "component" if self.pipeline is None else "pipeline"

    def to_json(self) -> str:
        """Return the text of ``model.json``."""
        return json.dumps({"format": FORMAT, **asdict(self)}, indent=2) + "\n"

    @classmethod
    def from_json(cls, text: str) -> ZooEntry:
        """Read the text of ``model.json``. Raises ``Damaged`` for text that is not an entry."""
        try:
            return read_format(text, "model.json", FORMAT, _ADAPTER)
        except ModelError as error:
            raise Damaged(f"model.json: {error}") from error


_ADAPTER = TypeAdapter(ZooEntry)
