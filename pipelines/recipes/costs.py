"""What a step costs, as it was measured: ``costs.json``, which ``benchmarks/costs.py`` writes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Literal

from pydantic import TypeAdapter

from dailies.curation.captioners import CAPTIONERS
from dailies.curation.config import StrictModel, read_format
from dailies.curation.detectors import DETECTORS
from dailies.curation.observers import OBSERVERS
from dailies.curation.scorers import SCORERS
from dailies.pipelines.recipes.own import OwnSpec
from dailies.pipelines.recipes.specs import kind_of
from dailies.pipelines.recipes.steps import CaptionStep, CutStep, DedupStep, ExportStep, ObserveStep, ScoreStep, Step
from dailies.pipelines.recipes.weights import WAYS

FILE = Path(__file__).with_name("costs.json")
FORMAT = 1
TYPICAL = 5.0  # seconds of a clip that totals are said for

Per = Literal["second", "clip"]


class PartCost(StrictModel):
    """What one part of a recipe takes one core.

    Args:
        part: what it is of, such as "scorer text".
        seconds: of one core.
        per: what they are for: a second of video, or a clip.
        settings: values of its parameters that the figure is for.
        command: what measured it.
        date: when.
    """

    part: str
    seconds: float
    per: Per
    settings: dict[str, Any]
    command: str
    date: str

    def of_clip(self, length: float) -> float:
        """Return the seconds of one core that a clip of ``length`` seconds takes."""
        return self.seconds * (length if self.per == "second" else 1)


class Costs(StrictModel):
    """All that was measured, and on what."""

    format: int
    hardware: str
    costs: tuple[PartCost, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class StepCost:
    """What a step costs: of its parts, those that were measured, and the names of those that were not."""

    measured: tuple[PartCost, ...]
    unknown: tuple[str, ...] = field(default=())

    def of_clip(self, length: float = TYPICAL) -> float:
        return sum(cost.of_clip(length) for cost in self.measured)


@cache
def measured_costs() -> Costs:
    """Return the table."""
    return read_format(FILE.read_bytes(), str(FILE), FORMAT, TypeAdapter(Costs))


def cost_of(step: Step) -> StepCost:
    """Return what a step costs, as far as it was measured. A rule, which reads numbers alone, costs next to nothing."""
    measured, unknown = [], []
    for part, spec in _parts(step):
        costs = [cost for cost in measured_costs().costs if cost.part == part and _is_measured(cost, spec)]
        if costs:
            measured.append(costs[0])
        else:
            unknown.append(part)
    return StepCost(measured=tuple(measured), unknown=tuple(unknown))


def _parts(step: Step) -> Iterator[tuple[str, Any]]:
    if isinstance(step, ObserveStep):
        yield "decode", step
        yield "evidence", step.evidence
        for observer in step.observers:
            yield f"observer {kind_of(observer, OBSERVERS)}", observer
    elif isinstance(step, CutStep):
        yield f"detector {kind_of(step.detector, DETECTORS)}", step.detector
    elif isinstance(step, ScoreStep):
        yield f"scorer {kind_of(step.scorer, SCORERS)}", step.scorer
    elif isinstance(step, CaptionStep):
        yield f"captioner {kind_of(step.captioner, CAPTIONERS)}", step.captioner
    elif isinstance(step, DedupStep) and step.perceptual is not None:
        yield "signatures", step.signer  # to compare them is numbers alone
    elif isinstance(step, ExportStep):
        yield "export", step


def _is_measured(cost: PartCost, spec: Any) -> bool:
    """Return whether a figure is for a spec's values. Weights that a figure's settings leave out were not named for it."""
    return not isinstance(spec, OwnSpec) and all(
        getattr(spec, key, None) == cost.settings.get(key) for key in {*WAYS, *cost.settings}
    )
