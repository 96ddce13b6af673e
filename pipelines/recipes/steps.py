"""The steps of a curation recipe: their keys, what is allowed in them and what they stand for when left out.

A step of scoring or captioning is called by the name of its scorer or captioner, unless it has a ``name`` of its own, with
which two of one kind stand side by side. Its table and its columns are called by it:

================================================  ==========================  ==============================
step                                              table                       columns that later steps know
================================================  ==========================  ==============================
``score: {scorer: clip}``                         ``scores/clip@FP``          ``clip_similarity``
``score: {scorer: clip, name: clip_large}``       ``scores/clip_large@FP``    ``clip_large_clip_similarity``
``caption: {captioner: coca}``                    ``captions/coca@FP``        ``caption_coca``, ``tokens_coca`` …
``caption: {captioner: coca, name: coca_large}``  ``captions/coca_large@FP``  ``caption_coca_large`` …
``dedup: {}``                                     ``duplicates/dedup@FP``     ``duplicate_group`` and others
================================================  ==========================  ==============================

``FILE.py:CLASS`` in place of a scorer's or captioner's name is one of the user's: see ``recipes.own``. In Python a
step takes an object too: ``ScoreStep(scorer=MyScorer())``.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

import pyarrow as pa
from pydantic import AfterValidator, BeforeValidator, Field, ValidationError, model_validator

from dailies.curation.captioners import CAPTIONERS, ORIGIN, STATUSES
from dailies.curation.config import StrictModel, format_error
from dailies.curation.detectors import DETECTORS
from dailies.curation.duplicates import FrameSignatures
from dailies.curation.errors import RecipeError
from dailies.curation.export import ExtractSettings
from dailies.curation.observe import EvidenceGrid
from dailies.curation.observers import OBSERVERS
from dailies.curation.schema import ALIKE_COLUMNS, DUPLICATE_COLUMNS, DUPLICATES, field, is_listed
from dailies.curation.scorers import SCORERS
from dailies.curation.select import Balance, Cap, ClipSample, Criteria, Rule
from dailies.curation.video.encode import Codec, Encoding, Preset
from dailies.curation.video.extract import Mode
from dailies.curation.video.soundtrack import Audio
from dailies.pipelines.recipes.specs import changed_values, kind_of, spec_data, spec_of

StepName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_-]*$")]


class ObserveStep(StrictModel):
    """Decode each source once.

    Args:
        observers: what is measured; each may have parameters.
        evidence: the pictures that scorers and captioners look at.
        stall_seconds: without progress after which a source's process is stopped.
        segment_seconds: longer sources are observed in parts of about this length.
    """

    observers: tuple[Annotated[Any, spec_of(OBSERVERS, "observer")], ...]
    evidence: EvidenceGrid = EvidenceGrid()
    stall_seconds: Annotated[float, Field(gt=0)] = 60.0
    segment_seconds: Annotated[float, Field(ge=30)] = 900.0

    @model_validator(mode="after")
    def _names_differ(self) -> Self:
        names = [observer.name for observer in self.observers]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"observers={names}: {twice[0]!r} is listed twice; leave one out")
        return self

    @property
    def name(self) -> str:
        return "observe"


class CutStep(StrictModel):
    """Cut each source into clips.

    Args:
        detector: how cuts are found.
        min_seconds: shorter shots are no clips.
        max_seconds: longer shots are divided.
        margin_frames: frames that a clip gives up at each cut.
        validation_share: of the sources, for validation.
        test_share: of the sources, for testing.
    """

    detector: Annotated[Any, spec_of(DETECTORS, "detector")]
    min_seconds: Annotated[float, Field(gt=0)] = 2.0
    max_seconds: Annotated[float, Field(gt=0)] = 10.0
    margin_frames: Annotated[int, Field(ge=0)] = 0
    validation_share: Annotated[float, Field(ge=0, lt=1)] = 0.05
    test_share: Annotated[float, Field(ge=0, lt=1)] = 0.05

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.max_seconds < self.min_seconds:
            raise ValueError(f"max_seconds={self.max_seconds:g}: must not be below min_seconds={self.min_seconds:g}")
        if self.validation_share + self.test_share >= 1:
            raise ValueError(
                f"validation_share={self.validation_share:g}, test_share={self.test_share:g}: nothing is left to train on; "
                "their sum must be below 1"
            )
        return self

    @property
    def name(self) -> str:
        return "cut"


class ScoreStep(StrictModel):
    """Measure each clip by a model.

    Args:
        scorer: which one.
        name: of its own, with which two of one kind stand side by side.
    """

    scorer: Annotated[Any, spec_of(SCORERS, "scorer", own=True)]
    name: StepName = Field(default_factory=lambda data: kind_of(data["scorer"], SCORERS))

    @property
    def spec(self) -> Any:
        return self.scorer

    @property
    def table(self) -> str:
        """The name of its table, without the fingerprint."""
        return f"scores/{self.name}"

    @property
    def shown(self) -> dict[str, pa.Field]:
        """Each column of its table, and the field that later steps know it by: a ``name`` of its own stands before it."""
        prefix = "" if self.name == kind_of(self.scorer, SCORERS) else f"{self.name}_"
        return {column.name: column.with_name(f"{prefix}{column.name}") for column in self.scorer.columns}


def plain_columns(step: ScoreStep | CaptionStep) -> dict[str, pa.Field]:
    """Return what a step shows of single values: no lists, such as embeddings, which workers read from the parts alone.

    No rule, export or page for people has them, and the driver joins none: a million clips would take gigabytes.
    """
    return {name: known for name, known in step.shown.items() if not is_listed(known.type)}


def caption_name(name: str) -> str:
    """Return a captioner's name as later steps know its text."""
    return name if name.startswith("caption_") else f"caption_{name}"


class CaptionStep(StrictModel):
    """Caption each clip.

    Args:
        captioner: which one.
        name: of its own, with or without the caption_ that it is known by.
    """

    captioner: Annotated[Any, spec_of(CAPTIONERS, "captioner", own=True)]
    name: Annotated[StepName, AfterValidator(caption_name)] = Field(
        default_factory=lambda data: caption_name(kind_of(data["captioner"], CAPTIONERS))
    )

    @model_validator(mode="after")
    def _has_text(self) -> Self:
        if "text" not in [column.name for column in self.captioner.columns]:
            raise ValueError(
                f"captioner of step {self.name}: has no column 'text'; write dailies.curation.captioners.COLUMNS"
            )
        return self

    @property
    def spec(self) -> Any:
        return self.captioner

    @property
    def table(self) -> str:
        """The name of its table, without the fingerprint."""
        return f"captions/{self.name.removeprefix('caption_')}"

    @property
    def shown(self) -> dict[str, pa.Field]:
        """The text goes by the step's name, ``caption_NAME``, and what else is said of it by ``COLUMN_NAME``."""
        name = self.name.removeprefix("caption_")
        others = [column for column in self.captioner.columns if column.name != "text" and column.name not in ORIGIN]
        status = field("status", pa.string(), f"what came of the caption: {', '.join(STATUSES)}")
        return {
            "text": field(self.name, pa.string(), f"caption by {name}"),
            **{column.name: column.with_name(f"{column.name}_{name}") for column in (status, *others)},
        }


class Perceptual(StrictModel):
    """Copies that look the same.

    Args:
        distance: most that two may be apart, as the root mean square of normalised luma.
    """

    distance: Annotated[float, Field(gt=0, le=1)] = 0.25


class Semantic(StrictModel):
    """Clips that show much the same by a model's embeddings.

    Args:
        embed: the step of scoring that makes the embeddings.
        similarity: least cosine of two.
    """

    embed: str = "embed"
    similarity: Annotated[float, Field(gt=0, le=1)] = 0.95


class AlikeCaptions(StrictModel):
    """Clips whose captions are nearly the same.

    Args:
        caption: the column with the captions.
        similarity: least share of their words and pairs of words that two have in common.
    """

    caption: str = "caption_fuse"
    similarity: Annotated[float, Field(gt=0, le=1)] = 0.8


def _on_or_off(value: Any) -> Any:
    """Let true stand for a kind with its defaults, and false for none of the kind."""
    return {True: {}, False: None}[value] if isinstance(value, bool) else value


class DedupStep(StrictModel):
    """Group copies of clips, which selections may then thin, and keep each group in one split.

    Args:
        name: of the step.
        exact: whether the same bytes and span make copies.
        perceptual: whether looking the same does, by evidence frames.
        semantic: whether like embeddings do.
        captions: whether clips with nearly the same caption are counted; they are no copies, and share no split for it.
    """

    name: StepName = "dedup"
    exact: bool = True
    perceptual: Annotated[Perceptual | None, BeforeValidator(_on_or_off)] = Perceptual()
    semantic: Annotated[Semantic | None, BeforeValidator(_on_or_off)] = None
    captions: Annotated[AlikeCaptions | None, BeforeValidator(_on_or_off)] = None

    @model_validator(mode="after")
    def _looks_for_something(self) -> Self:
        if not self.exact and self.perceptual is None and self.semantic is None and self.captions is None:
            raise ValueError("exact=false, perceptual=false, semantic=false: nothing is looked for; leave the step out")
        return self

    @property
    def signer(self) -> FrameSignatures:
        """What says what a clip looks like."""
        return FrameSignatures()

    @property
    def requires(self) -> tuple[str, ...]:
        """Importable names of the packages that it needs."""
        return () if self.semantic is None else ("faiss",)

    @property
    def table(self) -> str:
        """The name of its table, without the fingerprint."""
        return f"duplicates/{self.name}"

    @property
    def shown(self) -> dict[str, pa.Field]:
        """The columns that later steps know."""
        more = [] if self.captions is None else ALIKE_COLUMNS
        return {column.name: column for column in (*DUPLICATE_COLUMNS, *more)}

    @property
    def schema(self) -> pa.Schema:
        """The schema of its table."""
        return DUPLICATES if self.captions is None else pa.schema([*DUPLICATES, *ALIKE_COLUMNS])


class SelectStep(StrictModel):
    """Choose clips by rules over columns; quantiles are resolved over the whole table.

    Clips are asked in this order: copies and overlaps, rules, caps, balance, sample. Each of the last three is asked of what
    all before it leave.

    Args:
        name: of the selection.
        rules: what a column must be, for each that decides; or a rule with a name of its own.
        duplicates: copies of a clip.
        overlaps: clips that share frames with an earlier span that a manifest names.
        at_most: how many clips of one value of a column stay, and which.
        balance: a column no value of which has many more clips than others.
        sample: how many clips are drawn of the rest.
    """

    name: StepName = "main"
    rules: dict[str, Rule] = Field(default_factory=dict)
    duplicates: Literal["drop", "keep"] = "drop"
    overlaps: Literal["drop", "keep"] = "drop"
    at_most: dict[str, Cap] = Field(default_factory=dict)
    balance: Balance | None = None
    sample: ClipSample | None = None

    @property
    def criteria(self) -> Criteria:
        return Criteria(**{name: getattr(self, name) for name in type(self).model_fields if name != "name"})


class ExportStep(StrictModel):
    """Write the selected clips as training shards.

    Args:
        name: of the export.
        select: the selection that is exported.
        mode: how clips are cut out: encode anew, copy packets, smart for both, or none for an index alone.
        codec: of the clips.
        crf: quality on the codec's own scale, 0 the best.
        preset: effort, by x264's names.
        encoder: auto takes a hardware encoder where there is one.
        max_short_side: px of the shorter side that larger clips are scaled to.
        max_fps: rate that faster clips are thinned to.
        crop: borders takes black bars off.
        audio: keep gives clips their sound.
        shard_mb: size of a shard, MB.
        seed: of the order of clips.
    """

    name: StepName = "export"
    select: str = "main"
    mode: Mode = "encode"
    codec: Codec = "h264"
    crf: int = 18
    preset: Preset = "veryfast"
    encoder: Literal["software", "auto"] = "software"
    max_short_side: int | None = None
    max_fps: float | None = None
    crop: Literal["none", "borders"] = "none"
    audio: Audio = "drop"
    shard_mb: Annotated[int, Field(ge=1)] = 256
    seed: int = 0

    @model_validator(mode="after")
    def _holds_together(self) -> Self:
        try:
            _ = self.settings.encoding
        except ValidationError as error:
            raise RecipeError(f"step {self.name}: {format_error(error)}") from None
        allowed = {
            "encode": list(EXTRACTION_KEYS),
            "smart": ["mode", "crf", "preset", "audio"],
            "none": ["mode", "crop", "audio"],
            "copy": ["mode", "audio"],
        }
        for key in EXTRACTION_KEYS:
            if key not in allowed[self.mode] and getattr(self, key) != type(self).model_fields[key].default:
                raise ValueError(
                    f"{key}={getattr(self, key)!r}: {key} is for mode encode; mode {self.mode} leaves pictures as they are"
                )
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
        return ExtractSettings(mode=self.mode, encoding=encoding, crop=self.crop == "borders", audio=self.audio)

    @property
    def extraction(self) -> dict[str, Any]:
        """The keys that say how clips are extracted, with their values."""
        return self.model_dump(include=set(EXTRACTION_KEYS))


EXTRACTION_KEYS = ("mode", "codec", "crf", "preset", "encoder", "max_short_side", "max_fps", "crop", "audio")
Annotation = ScoreStep | CaptionStep
Step = ObserveStep | CutStep | ScoreStep | CaptionStep | DedupStep | SelectStep | ExportStep
STEPS: dict[str, type[Any]] = {
    "observe": ObserveStep,
    "cut": CutStep,
    "score": ScoreStep,
    "caption": CaptionStep,
    "dedup": DedupStep,
    "select": SelectStep,
    "export": ExportStep,
}
SPECS: dict[str, tuple[str, dict[str, Any]]] = {
    "cut": ("detector", DETECTORS),
    "score": ("scorer", SCORERS),
    "caption": ("captioner", CAPTIONERS),
}
"""Kind of step → its key that holds a spec, and the table that names what may stand there."""


def kind_of_step(step: Step) -> str:
    """Return the word that a recipe calls such a step by."""
    return next(kind for kind, cls in STEPS.items() if type(step) is cls)


def step_data(step: Step) -> dict[str, Any]:
    """Return a step as a recipe's file has it: what was left out stays out."""
    kind = kind_of_step(step)
    body = {key: getattr(step, key) for key in type(step).model_fields if key in step.model_fields_set}
    if kind in SPECS:
        key, table = SPECS[kind]
        body[key] = spec_data(body[key], table)
    if "observers" in body:
        body["observers"] = [spec_data(observer, OBSERVERS) for observer in body["observers"]]
    if "evidence" in body:
        body["evidence"] = changed_values(body["evidence"])
    for key in ("rules", "at_most"):
        if key in body:
            body[key] = {name: each.model_dump(exclude_none=True) for name, each in body[key].items()}
    for key in ("balance", "sample"):
        if body.get(key) is not None:
            body[key] = body[key].model_dump(exclude_none=True)
    for key in ("perceptual", "semantic", "captions"):
        if isinstance(body.get(key), StrictModel):
            body[key] = body[key].model_dump(exclude_unset=True)
    return {kind: body}
