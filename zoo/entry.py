"""ZooEntry: one model, as a row. Metadata is data: nothing here loads a weight."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import MISSING, asdict, dataclass, field, fields
from typing import Any, Literal, get_args

from dailies.curation.errors import Damaged, ModelError

Task = Literal["text-to-video", "image-to-video", "text-to-image", "component"]
TASKS: tuple[str, ...] = get_args(Task)
FORMAT = 1
"""Of ``model.json``. Keys are added, never given another meaning; a reader passes over those it does not know."""

_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")


def check_name(name: str) -> str:
    """``name`` if it can be one: it becomes a folder's name. Raises ``ModelError``."""
    if not _NAME.fullmatch(name) or name.endswith("."):
        raise ModelError(f"{name!r} is no name for a model: lower-case letters, digits, '.', '_', '-', at most 63")
    return name


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """What a pipeline is run with unless told otherwise.

    ``guidance``: its weight at the first and at the last frame, linear between them. ``motion_bucket``: 0–255, more
    is more motion. ``noise_aug``: standard deviation of the noise on the conditioning image, pixels in −1…1.
    """

    steps: int = 25
    guidance: tuple[float, float] = (1.0, 3.0)
    motion_bucket: int = 127
    noise_aug: float = 0.02


@dataclass(frozen=True, slots=True, kw_only=True)
class Sources:
    """Where a model came from; ``None`` where it is not known.

    ``recipe`` and ``recipe_hash``: of training. ``curation``: the recipe that made the data, with its hash.
    ``weights``: ``ema`` or ``last``. ``checkpoint``: under the run's folder.
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


@dataclass(frozen=True, slots=True, kw_only=True)
class ZooEntry:
    """One model of a zoo. ``size``: (width, height) in px; ``bytes``: of its weight files; ``pipeline``: a class of
    ``dailies.zoo.load.PIPELINES``, ``None`` for a component such as an encoder."""

    name: str
    task: Task
    pipeline: str | None = None
    size: tuple[int, int] | None = None
    frames: int | None = None
    fps: float | None = None
    licence: str | None = None
    parameters: int | None = None
    bytes: int | None = None
    about: str = ""
    published: str | None = None
    version: str | None = None
    sampling: Sampling = field(default_factory=Sampling)
    sources: Sources = field(default_factory=Sources)
    built_in: bool = False

    def __post_init__(self) -> None:
        check_name(self.name)
        if self.task not in TASKS:
            raise ModelError(f"{self.name}: unknown task {self.task!r}; allowed: {', '.join(TASKS)}")

    @property
    def kind(self) -> str:
        """``pipeline`` if it can be run by itself, else ``component``."""
        return "component" if self.pipeline is None else "pipeline"

    def to_json(self) -> str:
        """The text of ``model.json``."""
        return json.dumps({"format": FORMAT, **asdict(self)}, indent=2) + "\n"

    @classmethod
    def from_json(cls, text: str) -> ZooEntry:
        """Raises ``Damaged`` for text that is no entry."""
        try:
            row = json.loads(text)
            if not isinstance(row, dict) or row.get("format") != FORMAT:
                raise Damaged(f"model.json is not of format {FORMAT}")
            made: ZooEntry = _build(cls, row)
            return made
        except (ModelError, ValueError, TypeError, KeyError) as error:
            raise Damaged(f"model.json cannot be read: {error}") from error


def _build(kind: Any, row: Mapping[str, Any]) -> Any:
    """A dataclass from a JSON object: lists become tuples, keys of a later version are passed over."""
    values: dict[str, Any] = {}
    for known in fields(kind):
        if known.name not in row:
            if known.default is MISSING and known.default_factory is MISSING:
                raise KeyError(f"{known.name} is missing")
            continue
        value = row[known.name]
        inner = {"sampling": Sampling, "sources": Sources}.get(known.name)
        values[known.name] = _build(inner, value) if inner else tuple(value) if isinstance(value, list) else value
    return kind(**values)
