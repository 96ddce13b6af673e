"""What a report says, as plain values: made from tables in ``gather``, turned into a page in ``render``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Side = Literal["min", "max"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Amount:
    """So many clips, and how many seconds of video they are."""

    clips: int = 0
    seconds: float = 0.0

    def __add__(self, other: Amount) -> Amount:
        return Amount(clips=self.clips + other.clips, seconds=self.seconds + other.seconds)

    def __sub__(self, other: Amount) -> Amount:
        return Amount(clips=self.clips - other.clips, seconds=max(0.0, self.seconds - other.seconds))


@dataclass(frozen=True, slots=True, kw_only=True)
class FunnelStep:
    """A step of the funnel: one reason, a word of a selection's ``reasons``.

    ``dropped``: clips that no earlier step dropped; ``fell``: all that fell by it, whatever else they fell by; ``alone``:
    those that fell by nothing else; ``left``: clips after it. ``limit``: what it asks, such as ``motion < 0.3``.
    """

    reason: str
    limit: str
    dropped: Amount
    fell: Amount
    alone: Amount
    left: Amount


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceCounts:
    """SourceCounts of the dataset: ``ok`` are usable and hold ``seconds`` of video; ``failed`` counts the others by kind."""

    ok: int
    seconds: float
    failed: Mapping[str, int]
    withdrawn: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Funnel:
    """From sources to the clips that a selection kept; ``selection`` is None where the dataset has none yet.

    ``clips``: all rows of the table of clips, of which ``steps`` drop some, in the order in which rules are given.
    """

    dataset: str
    selection: str | None
    sources: SourceCounts
    clips: Amount
    steps: tuple[FunnelStep, ...]
    kept: Amount


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """Frames of one clip side by side: a JPEG of ``frames`` pictures, each ``width`` × ``height`` px."""

    jpeg: bytes
    frames: int
    width: int
    height: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Clip:
    """A clip that a report shows: where it is from, what its selection says, its captions by column, and its frames.

    ``place``: its span in the source, such as ``0:04.2–0:09.0``. ``picture`` is None where its source left no frame, or
    where the page is full.
    """

    clip_id: str
    source: str
    place: str
    seconds: float
    keep: bool | None
    reasons: tuple[str, ...]
    captions: Mapping[str, str] = field(default_factory=dict)
    picture: Picture | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ClipNote:
    """A clip as one part of the page shows it: its id, and a note such as ``motion 0.31``."""

    clip_id: str
    note: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Threshold:
    """A limit of a rule, and what moving it would keep, with every other rule as it is.

    ``positions``: values in order, one of them the limit itself, at ``at``; ``clips`` and ``seconds``: what is kept with the
    limit at each. ``setting``: what ``--set`` of ``dailies select`` calls it. ``quantile``: the limit is set as a
    share, which is ``shares`` at each position, and empty where it is not. ``inside``, ``outside``: clips nearest to it on
    the side that it keeps, and on the other.
    """

    column: str
    side: Side
    reason: str
    value: float
    positions: tuple[float, ...]
    clips: tuple[int, ...]
    seconds: tuple[float, ...]
    at: int
    setting: str
    quantile: bool
    shares: tuple[float, ...]
    inside: tuple[ClipNote, ...]
    outside: tuple[ClipNote, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Histogram:
    """Clips by a number: in bin ``n``, from ``edges[n]`` to ``edges[n + 1]``, so many were kept, dropped by the rule over this
    number, and dropped by others. The first and last bin also hold what lies beyond them, ``below`` and ``above`` clips."""

    edges: tuple[float, ...]
    kept: tuple[int, ...]
    by_rule: tuple[int, ...]
    by_others: tuple[int, ...]
    below: int = 0
    above: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """A column of numbers over the usable clips: ``known`` have a value, ``missing`` have none.

    ``quantiles``: least, 5 %, median, 95 % and greatest value; ``marks``: limits that rules within ``all`` and ``any`` have.
    """

    column: str
    doc: str
    unit: str
    known: int
    missing: int
    quantiles: tuple[float, float, float, float, float]
    histogram: Histogram
    thresholds: tuple[Threshold, ...] = ()
    marks: tuple[tuple[Side, float], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Bars:
    """Clips by a word, such as a category: (word, kept, dropped), the most frequent first; ``others``: in words left out."""

    column: str
    doc: str
    rows: tuple[tuple[str, int, int], ...]
    others: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class CaptionerPart:
    """What one captioner made of the ``usable`` clips: ``texts`` of them have a caption, ``flagged`` of these one with flags.

    ``statuses``, ``flags``: how many there are of each, the most frequent first; ``lengths``: in words, None without any.
    """

    column: str
    texts: int
    usable: int
    statuses: tuple[tuple[str, int], ...]
    flagged: int
    flags: tuple[tuple[str, int], ...]
    lengths: Score | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Beside:
    """What one rule dropped beside what the selection kept."""

    step: FunnelStep
    dropped: tuple[ClipNote, ...]
    kept: tuple[ClipNote, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class AlikeClips:
    """Clips that are alike: ``kind`` says how, and ``size`` how many there are, of which some are shown."""

    kind: str
    size: int
    clips: tuple[ClipNote, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Duplicates:
    """Groups of clips that are alike, a sample of ``groups`` that hold ``clips``."""

    groups: int
    clips: int
    shown: tuple[AlikeClips, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Failures:
    """What a stage could not do, by kind: how often, and one of the messages, with where it was."""

    stage: str
    kind: str
    count: int
    message: str
    where: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StageTime:
    """Wall time that a step took, over those ``runs`` that noted it."""

    step: str
    seconds: float
    runs: int


@dataclass(frozen=True, slots=True, kw_only=True)
class MadeBy:
    """A step of the recipe, the table that it makes, and what its values depend on.

    ``version``: of the table as it is now, None where there is none.
    """

    step: str
    kind: str
    identity: str
    meaning: str
    weights: str
    table: str
    version: int | None
    rows: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RunNoted:
    """A run as the dataset has it on record. Times are UTC."""

    started: str
    command: str
    version: str
    recipe_hash: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportNoted:
    """An export: its folder's name, its clips by split, and how they were extracted."""

    name: str
    splits: Mapping[str, int]
    failed: int
    bytes: int
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Lineage:
    """Enough to say later what was chosen and why.

    ``recipe``: as YAML, overrides applied; ``in_recipe``: it has a selection of this name. ``selected``: what the selection
    was made by: its rules, the numbers that they came to, and the versions of the tables that it read. ``stale``: why these
    are no longer the recipe's, None where they are.
    """

    recipe: str
    recipe_name: str
    recipe_hash: str
    selected: Mapping[str, Any]
    stale: str | None
    in_recipe: bool
    steps: tuple[MadeBy, ...]
    runs: tuple[RunNoted, ...]
    more_runs: int
    exports: tuple[ExportNoted, ...]
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportData:
    """All that a report says. Numbers are of every clip; ``clips`` are those that are shown, by id.

    ``unpictured``: clips of these that have no frames on the page.
    """

    dataset: str
    made_at: str
    version: str
    funnel: Funnel
    selections: tuple[str, ...]
    caps: bool
    scores: tuple[Score, ...]
    charts: tuple[Bars, ...]
    lengths: tuple[Score, ...]
    beside: tuple[Beside, ...]
    captions: tuple[str, ...]
    captioners: tuple[CaptionerPart, ...]
    captioned: tuple[str, ...]
    duplicates: Duplicates
    failures: tuple[Failures, ...]
    times: tuple[StageTime, ...]
    lineage: Lineage
    clips: Mapping[str, Clip]
    unpictured: int = 0
