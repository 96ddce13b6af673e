"""Selects and exports again under other rules: reads what the last run left, and decodes nothing that is there."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

from dailies.curation.config import offered
from dailies.curation.errors import UsageError
from dailies.curation.packages import need
from dailies.curation.policy import SourcePolicy, opening_by
from dailies.curation.progress import Progress, reporting, silent
from dailies.curation.select import preview
from dailies.curation.sources import list_sources
from dailies.curation.tables import DatasetTables, clean_tables
from dailies.pipelines import engine as engines
from dailies.pipelines import places
from dailies.pipelines.exporting import check_private
from dailies.pipelines.recipes.overrides import step_of
from dailies.pipelines.recipes.recipe import CurationRecipe
from dailies.pipelines.recipes.steps import DedupStep, ExportStep, SelectStep, kind_of_step
from dailies.pipelines.reports import (
    DuplicatesReport,
    ExportReport,
    SelectionPreview,
    SelectionReport,
)
from dailies.pipelines.run import dedup_step
from dailies.pipelines.run_rows import record_run
from dailies.pipelines.selecting import check_manifest_rules, export_step, judged_by, last_recipe, select_step

StepT = TypeVar("StepT", SelectStep, ExportStep)


def select_again(url: str, name: str, overrides: Sequence[str]) -> SelectionReport:
    """Repeat a selection with overrides such as ``main.rules.motion.min=1``; reads columns only."""
    dataset = DatasetTables.open(url)
    recipe = last_recipe(dataset, overrides)
    step = _named(recipe, SelectStep, name)
    _check_sets(recipe, step, overrides)
    check_manifest_rules(dataset, recipe, (), only=step)
    with dataset.writer():
        report = select_step(dataset, recipe, step)
        record_run(dataset, recipe)  # only now: the next command must not start from rules that were refused
        return report


def preview_selection(url: str, name: str, overrides: Sequence[str]) -> SelectionPreview:
    """Return what ``select_again`` would keep, and what each limit would keep elsewhere; nothing is written."""
    dataset = DatasetTables.open(url)
    recipe = last_recipe(dataset, overrides)
    step = _named(recipe, SelectStep, name)
    _check_sets(recipe, step, overrides)
    check_manifest_rules(dataset, recipe, (), only=step)
    with judged_by(dataset, recipe, step) as judged:
        previewed = preview(judged, step.criteria)
        return SelectionPreview(name=name, previewed=previewed, limits=judged.limits)


def export_again(
    url: str,
    name: str,
    overrides: Sequence[str],
    *,
    engine: engines.Engine = "auto",
    workers: int | None = None,
    retry_failed: bool = False,
    policy: SourcePolicy = SourcePolicy(),  # noqa: B008 - frozen
    sources: Sequence[str] = (),
    column: str | None = None,
    private_sources: bool = False,
    progress: Progress = silent,
) -> ExportReport:
    """Export the last selection again, with overrides such as ``export.crf=23``.

    ``engine``, ``workers``: see ``engine.session``. ``retry_failed``: try the clips again that an export which exists
    lacks. ``policy``: what sources may be opened; a file on this machine may, whatever it says, where it holds what was
    observed. ``sources``: files, folders, globs or manifests (with ``column``) that name sources of the dataset with what
    is not stored of their URLs: passwords and signatures.
    """
    engines.check_engine(engine)
    dataset = DatasetTables.open(url)
    recipe = last_recipe(dataset, overrides)
    step = _named(recipe, ExportStep, name)
    _check_sets(recipe, step, overrides)
    check_private(step, private_sources)
    rows = list(list_sources(sources, column=column, policy=policy))
    policy = policy.naming([row["address"] for row in rows if row["named"]])
    with (
        reporting(progress),
        opening_by(policy),
        dataset.writer(),
        engines.session(engine, workers=workers) as session,
    ):
        clean_tables(dataset)
        run_id = record_run(dataset, recipe)
        return export_step(
            dataset,
            recipe,
            step,
            run_id=run_id,
            session=session,
            progress=progress,
            retry_failed=retry_failed,
            addresses=places.find_addresses(dataset, rows) if rows else {},
            private_sources=private_sources,
        )


def dedup_again(
    url: str,
    overrides: Sequence[str] = (),
    *,
    engine: engines.Engine = "auto",
    workers: int | None = None,
    progress: Progress = silent,
) -> DuplicatesReport:
    """Look for copies among the clips of a dataset, with overrides such as ``dedup.perceptual.distance=0.2``.

    No video is decoded and no model is called. Where the last run's recipe has no dedup step, it gets one, before its first
    selection. ``engine``, ``workers``: see ``engine.session``; evidence is read of clips that were not looked at yet.
    """
    engines.check_engine(engine)
    dataset = DatasetTables.open(url)
    recipe = last_recipe(dataset, overrides, with_dedup=True)
    step = recipe.dedup()
    assert step is not None
    _check_sets(recipe, step, overrides)
    need(step.requires, by=f"step {step.name}")
    with reporting(progress), dataset.writer(), engines.session(engine, workers=workers) as session:
        report = dedup_step(dataset, recipe, step, session, progress)
        record_run(dataset, recipe)  # only now: the next command must not start from what was refused
        return report


def _check_sets(recipe: CurationRecipe, step: DedupStep | SelectStep | ExportStep, overrides: Sequence[str]) -> None:
    """Refuse overrides of other steps than the one that is done again: they would be noted, and nothing would follow them.

    A selection's own values may change along with an export of it, which selects nothing anew, and so are refused too.
    """
    ours = kind_of_step(step)
    steps = {other.name: kind_of_step(other) for other in recipe.steps}
    for override in overrides:
        if (name := step_of(override)) == step.name:
            continue
        kind = steps.get(name, "curate")
        command = f"dailies {kind} --name {name}" if kind in ("select", "export") else "dailies curate"
        command = "dailies dedup" if kind == "dedup" else command
        raise UsageError(f"--set {override}: changes nothing that {ours} {step.name} does; use {command}")


def _named(recipe: CurationRecipe, kind: type[StepT], name: str) -> StepT:
    steps = {step.name: step for step in recipe.steps if isinstance(step, kind)}
    if name not in steps:
        step = kind.__name__.removesuffix("Step").lower()
        raise UsageError(
            f"--name={name}: no {step} step of that name in the last run's recipe{offered(name, steps) or '; it has none'}"
        )
    return steps[name]
