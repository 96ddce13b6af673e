"""Checks of a curation recipe as a whole: what a step needs must come from an earlier one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import pyarrow as pa

from dailies.curation.config import did_you_mean, offered
from dailies.curation.duplicates import EMBEDDING
from dailies.curation.errors import RecipeError, UsageError
from dailies.curation.schema import CLIP_COLUMNS, is_listed
from dailies.curation.select import check_rules
from dailies.pipelines.recipes.steps import (
    Annotation,
    CaptionStep,
    CutStep,
    DedupStep,
    ExportStep,
    ObserveStep,
    ScoreStep,
    SelectStep,
    Step,
)


def check_steps(steps: Sequence[Step], where: str) -> None:
    """Check that what each step needs comes from an earlier one. Raises ``RecipeError`` naming the step and what is allowed.

    ``where``: the recipe, in errors.
    """
    kinds = [type(step) for step in steps]
    if kinds[:2] != [ObserveStep, CutStep] or kinds.count(ObserveStep) != 1 or kinds.count(CutStep) != 1:
        raise RecipeError(f"recipe {where}: the first two steps must be observe and cut, once each")
    observe, cut = steps[0], steps[1]
    assert isinstance(observe, ObserveStep)
    assert isinstance(cut, CutStep)
    _check_cut(observe, cut)
    columns = {column.name: column.type for column in (*CLIP_COLUMNS, *_measures(observe))}
    grouped: dict[str, pa.DataType] = {}  # for rules alone: groups change when clips join
    selections: list[str] = []
    names: list[str] = []
    for step in steps:
        names.append(step.name)
        if names.count(step.name) > 1:
            hint = "; give one a name: of its own" if isinstance(step, Annotation) else ""
            raise RecipeError(f"recipe {where}: two steps are named {step.name!r}{hint}")
        if isinstance(step, Annotation):
            _need(step.spec.needs, columns, step.name)
            _add(step, columns)
        elif isinstance(step, DedupStep):
            _check_dedup(step, steps, selections, where)
            _check_captions(step, steps)
            grouped = {name: column.type for name, column in step.shown.items()}
        elif isinstance(step, SelectStep):
            _check_criteria(step, columns | grouped)
            selections.append(step.name)
        elif isinstance(step, ExportStep):
            _check_export(step, selections, columns)


def _add(step: Annotation, columns: dict[str, pa.DataType]) -> None:
    """Let later steps know the columns of a scorer or captioner."""
    for column in step.shown.values():
        if column.name in columns:
            raise RecipeError(
                f"step {step.name}: column {column.name!r} is there already; give the step a name: of its own"
            )
        columns[column.name] = column.type


def _check_dedup(step: DedupStep, steps: Sequence[Step], selections: Sequence[str], where: str) -> None:
    if any(isinstance(other, DedupStep) and other is not step for other in steps):
        raise RecipeError(f"recipe {where}: two dedup steps; one step looks for copies of all kinds")
    if selections:
        raise RecipeError(
            f"step {step.name}: comes after select {selections[0]}, whose splits follow it; put it before"
        )
    if step.semantic is None:
        return
    before = steps[: next(number for number, other in enumerate(steps) if other is step)]
    makers = [
        other.name
        for other in before
        if isinstance(other, ScoreStep) and EMBEDDING in [column.name for column in other.spec.columns]
    ]
    if step.semantic.embed not in makers:
        raise RecipeError(
            f"step {step.name}: semantic.embed={step.semantic.embed!r}: no earlier step makes embeddings by that name"
            f"{offered(step.semantic.embed, makers) if makers else '; add score: {scorer: embed} before it'}"
        )


def _check_captions(step: DedupStep, steps: Sequence[Step]) -> None:
    if step.captions is None:
        return
    before = steps[: next(number for number, other in enumerate(steps) if other is step)]
    captions = [other.name for other in before if isinstance(other, CaptionStep)]
    if step.captions.caption not in captions:
        hint = offered(step.captions.caption, captions) if captions else "; put a caption step before it"
        raise RecipeError(
            f"step {step.name}: captions.caption={step.captions.caption!r}: no earlier step writes captions by that name{hint}"
        )


def _check_export(step: ExportStep, selections: Sequence[str], columns: Iterable[str]) -> None:
    if step.select not in selections:
        raise RecipeError(f"step {step.name}: no earlier selection {step.select!r}{offered(step.select, selections)}")
    if step.crop == "borders" and "border_left" not in columns:
        raise RecipeError(f"step {step.name}: crop needs the observer borders in step observe")


def _check_cut(observe: ObserveStep, cut: CutStep) -> None:
    have = [observer.name for observer in observe.observers]
    for observer in cut.detector.observers:
        if observer not in have:
            raise RecipeError(
                f"step cut: its detector needs the observer {observer!r}; step observe lists {', '.join(have)}"
            )
    if cut.min_seconds < 1 / observe.evidence.fps:
        raise RecipeError(
            f"step cut: min_seconds={cut.min_seconds:g}: below the {1 / observe.evidence.fps:g} s between evidence frames; "
            "raise it, or observe.evidence.fps"
        )


def _measures(observe: ObserveStep) -> list[pa.Field]:
    return [field for observer in observe.observers for field in observer.measures]


def _check_criteria(step: SelectStep, columns: Mapping[str, pa.DataType]) -> None:
    """Check that the columns which a selection reads are there, and are what it asks of them."""
    who = f"select {step.name}"
    for column in step.criteria.columns:
        if column in columns and is_listed(columns[column]):
            raise RecipeError(f"{who}: column {column!r} holds lists; rules are over single values")
    try:
        check_rules(step.criteria, columns)
    except UsageError as error:
        raise RecipeError(f"{who}: {error}") from None
    _need(step.criteria.columns, columns, who)


def _need(wanted: Iterable[str], columns: Iterable[str], who: str) -> None:
    for column in wanted:
        if column not in columns and not column.startswith("manifest."):
            raise RecipeError(f"{who}: unknown column {column!r}{_meant(column, columns)}")


def _meant(column: str, columns: Iterable[str]) -> str:
    """Return which column may have been meant; of a manifest, whose names are not known yet, by ``manifest`` alone."""
    first, dot, rest = column.partition(".")
    if dot and did_you_mean(first, ("manifest",)):
        return f" (did you mean manifest.{rest}?)"
    return offered(column, [*columns, "manifest.NAME"])
