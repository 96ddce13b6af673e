"""The steps of a curation recipe: their keys, what is allowed in them and what they stand for when left out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Annotated, Any, Literal

import pyarrow as pa
from pydantic import BeforeValidator, Field, TypeAdapter, ValidationError, model_validator

from dailies.curation.captioners import CAPTIONERS
from dailies.curation.config import StrictModel, did_you_mean, format_error
from dailies.curation.detectors import DETECTORS
from dailies.curation.errors import RecipeError
from dailies.curation.export import ExtractSettings
from dailies.curation.observe import EvidenceGrid
from dailies.curation.observers import OBSERVERS
from dailies.curation.schema import field
from dailies.curation.scorers import SCORERS
from dailies.curation.select import Rule
from dailies.curation.video.encode import Codec, Encoding, Preset
from dailies.curation.video.extract import Mode


def _build(table: Mapping[str, Any], what: str) -> BeforeValidator:
    """``name`` or ``{name: {parameter: value}}`` → the spec that ``table`` makes of it."""

    def build(value: Any) -> Any:
        if isinstance(value, str):
            value = {value: {}}
        if not isinstance(value, dict) or len(value) != 1:
            raise RecipeError(f"{what}: expected a name, or one name with its parameters, not {value!r}")
        ((name, parameters),) = value.items()
        if not isinstance(parameters or {}, dict):
            raise RecipeError(f"the parameters of {what} {name} are a mapping, not {parameters!r}")
        if name not in table:
            raise RecipeError(f"unknown {what} {name!r}; allowed: {', '.join(table)}{did_you_mean(name, table)}")
        allowed = [f.name for f in fields(table[name])]
        for key in parameters or {}:
            if key not in allowed:
                raise RecipeError(
                    f"unknown parameter {key!r} of {what} {name}; allowed: {', '.join(allowed)}{did_you_mean(key, allowed)}"
                )
        try:
            return TypeAdapter(table[name]).validate_python(parameters or {})
        except ValidationError as error:
            raise RecipeError(f"{what} {name}: {format_error(error)}") from None

    return BeforeValidator(build)


class ObserveStep(StrictModel):
    """One decode of each source."""

    observers: tuple[Annotated[Any, _build(OBSERVERS, "observer")], ...]
    evidence: EvidenceGrid = EvidenceGrid()
    stall_seconds: Annotated[float, Field(gt=0)] = 60.0
    segment_seconds: Annotated[float, Field(ge=30)] = 900.0  # longer sources are observed in parts of about this length

    @model_validator(mode="after")
    def _names_differ(self) -> ObserveStep:
        names = [observer.name for observer in self.observers]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"observer {twice[0]!r} is listed twice")
        return self

    @property
    def name(self) -> str:
        return "observe"


class CutStep(StrictModel):
    """Tracks to clips."""

    detector: Annotated[Any, _build(DETECTORS, "detector")]
    min_seconds: Annotated[float, Field(gt=0)] = 2.0
    max_seconds: Annotated[float, Field(gt=0)] = 10.0
    margin_frames: Annotated[int, Field(ge=0)] = 0
    validation_share: Annotated[float, Field(ge=0, lt=1)] = 0.05
    test_share: Annotated[float, Field(ge=0, lt=1)] = 0.05

    @model_validator(mode="after")
    def _in_order(self) -> CutStep:
        if self.max_seconds < self.min_seconds:
            raise ValueError(f"max_seconds {self.max_seconds:g} is below min_seconds {self.min_seconds:g}")
        if self.validation_share + self.test_share >= 1:
            raise ValueError("validation_share and test_share leave nothing to train on")
        return self

    @property
    def name(self) -> str:
        return "cut"


class ScoreStep(StrictModel):
    """One model over the evidence of all clips."""

    scorer: Annotated[Any, _build(SCORERS, "scorer")]

    @property
    def name(self) -> str:
        return next(name for name, made in SCORERS.items() if isinstance(self.scorer, made))

    @property
    def spec(self) -> Any:
        return self.scorer

    @property
    def group(self) -> str:
        return "scores"

    @property
    def shown(self) -> dict[str, pa.Field]:
        """Column of its table → the field that later steps know it by."""
        return {column.name: column for column in self.scorer.columns}


class CaptionStep(StrictModel):
    """Text for all clips."""

    captioner: Annotated[Any, _build(CAPTIONERS, "captioner")]

    @property
    def name(self) -> str:
        kind = next(name for name, made in CAPTIONERS.items() if isinstance(self.captioner, made))
        return f"caption_{kind}"

    @property
    def spec(self) -> Any:
        return self.captioner

    @property
    def group(self) -> str:
        return "captions"

    @property
    def shown(self) -> dict[str, pa.Field]:
        """The text goes by ``caption_NAME``."""
        return {"text": field(self.name, pa.string(), f"caption by {self.name.removeprefix('caption_')}")}


class SelectStep(StrictModel):
    """Rules over columns; quantiles are resolved over the whole table."""

    name: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_-]*$")] = "main"
    rules: dict[str, Rule] = Field(default_factory=dict)
    duplicates: Literal["drop", "keep"] = "drop"


class ExportStep(StrictModel):
    """Selected clips to training shards."""

    name: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_-]*$")] = "export"
    select: str = "main"
    mode: Mode = "encode"
    codec: Codec = "h264"
    crf: int = 18
    preset: Preset = "veryfast"
    encoder: Literal["software", "auto"] = "software"
    max_short_side: int | None = None
    max_fps: float | None = None
    crop: Literal["none", "borders"] = "none"
    shard_mb: Annotated[int, Field(ge=1)] = 256
    seed: int = 0

    @model_validator(mode="after")
    def _holds_together(self) -> ExportStep:
        try:
            _ = self.settings.encoding
        except ValidationError as error:
            raise RecipeError(f"step {self.name}: {format_error(error)}") from None
        allowed = {
            "encode": list(EXTRACTION_KEYS),
            "smart": ["mode", "crf", "preset"],
            "none": ["mode", "crop"],
            "copy": ["mode"],
        }
        for key in EXTRACTION_KEYS:
            if key not in allowed[self.mode] and getattr(self, key) != type(self).model_fields[key].default:
                raise ValueError(f"{key} is for mode encode; mode {self.mode} leaves pictures as they are")
        return self

    @property
    def settings(self) -> ExtractSettings:
        encoding = Encoding(
            codec=self.codec,
            crf=self.crf,
            preset=self.preset,
            encoder=self.encoder,
            max_short_side=self.max_short_side,
            max_fps=self.max_fps,
        )
        return ExtractSettings(mode=self.mode, encoding=encoding, crop=self.crop == "borders")

    @property
    def extraction(self) -> dict[str, Any]:
        """The keys that say how clips are extracted, with their values."""
        return self.model_dump(include=set(EXTRACTION_KEYS))


EXTRACTION_KEYS = ("mode", "codec", "crf", "preset", "encoder", "max_short_side", "max_fps", "crop")
Annotation = ScoreStep | CaptionStep
Step = ObserveStep | CutStep | ScoreStep | CaptionStep | SelectStep | ExportStep
STEPS: dict[str, type[Any]] = {
    "observe": ObserveStep,
    "cut": CutStep,
    "score": ScoreStep,
    "caption": CaptionStep,
    "select": SelectStep,
    "export": ExportStep,
}
