"""Curation from end to end: lists the sources, and runs each step of the recipe over what is not done yet.

Every stage works alike: the units whose key is not in its table go through the engine, and a committer appends the
receipts. Resuming needs nothing else.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from dailies.curation import schema
from dailies.curation.addresses import address_of
from dailies.curation.clips import ClipRules
from dailies.curation.observations import unit_of
from dailies.curation.policy import SourcePolicy, opening_by, policy_in_force
from dailies.curation.progress import Progress, reporting, silent
from dailies.curation.select import column_values
from dailies.curation.sources import list_sources
from dailies.curation.tables import Committer, DatasetTables, KeySet, Table, clean_tables
from dailies.pipelines import engine as engines
from dailies.pipelines import footage, places
from dailies.pipelines.contents import tell_apart
from dailies.pipelines.exporting import check_private
from dailies.pipelines.grouping import group_step
from dailies.pipelines.recipes import fetch_models, kind_of_step, obstacles, packages_of
from dailies.pipelines.recipes.recipe import CurationRecipe, resolved
from dailies.pipelines.recipes.steps import Annotation, CutStep, DedupStep, ExportStep, ObserveStep, SelectStep
from dailies.pipelines.reports import (
    AnnotationReport,
    ClipsReport,
    DuplicatesReport,
    ExportReport,
    SelectionReport,
    SourceReport,
    Summary,
)
from dailies.pipelines.run_rows import record_run, record_times
from dailies.pipelines.selecting import (
    check_manifest_rules,
    clips_table,
    export_step,
    joined,
    measures,
    rules_replaced,
    select_step,
)
from dailies.pipelines.spans import cut_units, record_spans, stored_spans
from dailies.pipelines.stages import CutWork, ObserveWork, ScoreWork, StoredColumns
from dailies.pipelines.staleness import withdraw_changed
from dailies.pipelines.units import (
    bundles,
    file_sizes,
    first_units,
    further_units,
    observed_sources,
    with_files,
    with_parts,
    without,
)

COMMIT_EVERY = 2.0  # seconds: what a kill can lose, besides the bundles in progress
log = logging.getLogger("dailies")


def curate(
    arguments: Sequence[str],
    out: str,
    recipe: CurationRecipe,
    *,
    engine: engines.Engine = "auto",
    workers: int | None = None,
    retry_failed: bool = False,
    column: str | None = None,
    readmit: Sequence[str] = (),
    policy: SourcePolicy = SourcePolicy(),  # noqa: B008 - frozen
    follow_links: bool = True,
    private_sources: bool = False,
    progress: Progress = silent,
) -> Summary:
    """Curate ``arguments`` (files, folders, globs, manifests) into the dataset at ``out``; what is done there is not repeated.

    ``engine``, ``workers``: see ``engine.session``. ``column``: manifests' column that names the videos. Sources that were
    withdrawn are left out, unless ``readmit`` names them. ``policy``: what may be opened beside what ``arguments`` name;
    ``follow_links``: whether to look behind the links in folders. ``private_sources``: exports do not say where sources
    lie. Raises ``UsageError`` before any work when the request cannot be met; a source that cannot be used becomes a row.
    """
    engines.check_engine(engine)
    with reporting(progress):
        _check_installed(recipe)
    for step in recipe.steps:
        if isinstance(step, ExportStep):
            check_private(step, private_sources)
    with progress("list", None, "sources"):
        rows = list(list_sources(arguments, column=column, policy=policy, follow_links=follow_links))
    policy = policy.naming([*(row["address"] for row in rows if row["named"]), *readmit])
    dataset = DatasetTables.create(out)
    with (
        reporting(progress),
        opening_by(policy),
        dataset.writer(),
        engines.session(engine, _required(recipe), workers) as session,
    ):
        check_manifest_rules(dataset, recipe, rows)
        if (line := footage.warning(dataset, recipe, rows)) is not None:
            log.warning(line)
        clean_tables(dataset)
        if readmit:
            places.readmit(dataset, readmit)
        for line in rules_replaced(dataset, recipe):
            log.warning(line)
        run_id = record_run(dataset, recipe)
        placed = places.place_sources(dataset, rows)
        rows = placed.rows
        changed = withdraw_changed(dataset, recipe, rows, retry_failed=retry_failed, addresses=placed.addresses)
        record_spans(dataset, recipe.observations, rows, kept=recipe.apart_from_manifests())
        exporting = {"retry_failed": retry_failed, "addresses": placed.addresses, "private_sources": private_sources}
        run = _Run(dataset, recipe, run_id, session, progress, exporting)
        for step in recipe.steps:
            run.step(step, rows)
        record_times(dataset, run_id, run.seconds)
        return Summary(
            dataset=out,
            recipe=recipe.name,
            recipe_hash=recipe.hash,
            sources=SourceReport.of(
                dataset.table(recipe.observations),
                {row["source_id"]: row["uri"] for row in rows},
                changed,
                moved=placed.moved,
                withdrawn=placed.withdrawn,
            ),
            clips=ClipsReport.of(clips_table(dataset, recipe)),
            annotations=tuple(run.annotations),
            duplicates=run.duplicates,
            selections=tuple(run.selections),
            exports=tuple(run.exports),
            notes=run.notes(),
        )


def _check_installed(recipe: CurationRecipe) -> None:
    """Raise what keeps a step from running: a package that only an extra brings, or what its own check finds."""
    for _, error in obstacles(recipe):
        raise error


def _required(recipe: CurationRecipe) -> list[str]:
    """Return the packages that workers need for the recipe's observers, scorers and captioners."""
    return [name for step in recipe.steps if isinstance(step, Annotation | ObserveStep) for name in packages_of(step)]


def dedup_step(
    dataset: DatasetTables, recipe: CurationRecipe, step: DedupStep, session: engines.Session, progress: Progress
) -> DuplicatesReport:
    """Say what the clips look like that are new, and group all: the step of a recipe by itself."""
    return _Run(dataset, recipe, "", session, progress, {}).dedup(step)


class _Run:
    """One pass over a recipe's steps."""

    def __init__(
        self,
        dataset: DatasetTables,
        recipe: CurationRecipe,
        run_id: str,
        session: engines.Session,
        progress: Progress,
        exporting: Mapping[str, Any],
    ) -> None:
        self.dataset, self.recipe, self.run_id, self.session, self.progress = dataset, recipe, run_id, session, progress
        self.exporting = exporting  # what ``export_step`` takes besides
        self.annotations: list[AnnotationReport] = []
        self.duplicates: DuplicatesReport | None = None
        self.selections: list[SelectionReport] = []
        self.exports: list[ExportReport] = []
        self.seconds: dict[str, float] = {}  # wall time of each step

    def notes(self) -> tuple[str, ...]:
        """Return sentences on what the built-in models do not know of the clips."""
        clips = clips_table(self.dataset, self.recipe).read(["source_id"], equals={"status": "ok"})
        return footage.notes(self.dataset, self.recipe, clips["source_id"])

    def step(self, step: Any, rows: Sequence[dict[str, Any]]) -> None:
        begun = time.monotonic()
        self._step(step, rows)
        name = step.name if step.name in self.recipe.tables() else f"{kind_of_step(step)}.{step.name}"
        self.seconds[name] = time.monotonic() - begun

    def _step(self, step: Any, rows: Sequence[dict[str, Any]]) -> None:
        if isinstance(step, ObserveStep):
            self._observe(step, rows)
        elif isinstance(step, CutStep):
            self._cut(step)
        elif isinstance(step, Annotation):
            self._annotate(step)
        elif isinstance(step, DedupStep):
            self.duplicates = self.dedup(step)
        elif isinstance(step, SelectStep):
            with self.progress("select", None, step.name):
                self.selections.append(select_step(self.dataset, self.recipe, step, self.exporting["addresses"]))
        elif isinstance(step, ExportStep):
            self.exports.append(
                export_step(
                    self.dataset,
                    self.recipe,
                    step,
                    run_id=self.run_id,
                    session=self.session,
                    progress=self.progress,
                    **self.exporting,
                )
            )

    def _observe(self, step: ObserveStep, rows: Sequence[dict[str, Any]]) -> None:
        """Observe whole sources and the first segments of long ones, which say how many follow; then the others."""
        table = self.dataset.table(self.recipe.observations, schema.OBSERVATIONS)
        work = ObserveWork(
            table=table.url,
            observers=step.observers,
            evidence=step.evidence,
            stall_seconds=step.stall_seconds,
            segment_seconds=step.segment_seconds,
            policy=policy_in_force(),
        )
        todo = first_units(table, rows)
        sizes = file_sizes({unit_of(unit["source_id"], 0): address_of(unit) for unit in todo.to_pylist()})
        self._run(work, table, todo, "sources", done=len(rows) - len(todo), most=4, key="unit", sizes=sizes)
        todo = further_units(table, rows)
        if len(todo):
            self._run(work, table, todo, "segments", done=0, most=1, key="unit")
        tell_apart(self.dataset, table, clips_table(self.dataset, self.recipe), self.exporting["addresses"])

    def _cut(self, step: CutStep) -> None:
        observers = self.recipe.step(ObserveStep).observers
        table = clips_table(self.dataset, self.recipe)
        observed = observed_sources(self.dataset.table(self.recipe.observations))
        units, done, already = cut_units(observed, stored_spans(self.dataset), table)
        work = CutWork(
            table=table.url,
            detector=step.detector,
            observers=observers,
            rules=ClipRules(**step.model_dump(exclude={"detector"})),
            schema=schema.clips(measures(self.recipe)),
        )
        if len(units):
            table = self.dataset.table(self.recipe.clips, schema.clips(measures(self.recipe)))
        total = pc.sum(units["units"]).as_py() or 0
        what = "sources" if total + already == len(observed) else "units"
        self._run(work, table, units, what, done=already, most=256, keys=done, total=total)

    def _annotate(self, step: Annotation) -> None:
        spec = resolved(step.spec)
        table = self.dataset.table(self.recipe.annotations(step), schema.scores(spec.columns))
        observed = self.dataset.table(self.recipe.observations)
        wanted = ["clip_id", "source_id", "start", "end", "time_base_num", "time_base_den"]
        clips = clips_table(self.dataset, self.recipe).read(wanted, equals={"status": "ok"})
        lists = self.recipe.lists_for(step)
        listed = {known for _, columns in lists for known in columns.values()}
        plain = [name for name in spec.needs if name not in listed and name not in wanted]
        if plain:
            known = joined(self.dataset, self.recipe, before=step)
            needed = {name: column_values(known, name) for name in plain}
            clips = clips.join(pa.table({"clip_id": known["clip_id"], **needed}), "clip_id")
        units = without(clips, "clip_id", table.keys("clip_id"))
        if getattr(spec, "needs_frames", True):
            units = with_files(units, observed)
        stored = []
        for number, (earlier, columns) in enumerate(lists if len(units) else ()):
            stored.append(StoredColumns(file=f"part_{number}", columns=columns))
            units = with_parts(units, self.dataset.table(self.recipe.annotations(earlier)), f"part_{number}")
        if len(units):
            fetch_models(spec)
        work = ScoreWork(name=step.name, table=table.url, scorer=spec, stored=tuple(stored))
        size = getattr(spec, "bundle", None)
        self._run(work, table, units, "clips", done=len(clips) - len(units), most=256, bundle=size)
        self.annotations.append(AnnotationReport.of(step.name, table))

    def dedup(self, step: DedupStep) -> DuplicatesReport:
        """Say what the clips look like that are new, and group all."""
        if step.perceptual is not None:
            table = self.dataset.table(self.recipe.signatures, schema.scores(step.signer.columns))
            wanted = ["clip_id", "source_id", "start", "end", "time_base_num", "time_base_den"]
            clips = clips_table(self.dataset, self.recipe).read(wanted, equals={"status": "ok"})
            units = without(clips, "clip_id", table.keys("clip_id"))
            units = with_files(units, self.dataset.table(self.recipe.observations))
            work = ScoreWork(name="signatures", table=table.url, scorer=step.signer)
            self._run(work, table, units, "clips", done=len(clips) - len(units), most=256)
        with self.progress("dedup", None, step.name):
            return group_step(self.dataset, self.recipe, step)

    def _run(
        self,
        work: Any,
        table: Table,
        units: pa.Table,
        unit: str,
        *,
        done: int,
        most: int,
        bundle: int | None = None,
        key: str | None = None,
        keys: KeySet | None = None,
        total: int | None = None,
        sizes: Mapping[str, float] | None = None,
    ) -> None:
        """Run ``work`` over ``units``, in bundles of ``bundle``, or else of ``most`` at most.

        ``keys``, ``total``: what is done and how much is not, where rows are no units. ``sizes``: of units by key, by which
        they take their time; by default they are alike.
        """
        if len(units):
            self.session.prepare(work)
        count = len(units) if total is None else total
        size = None if sizes is None else sum(sizes.values())
        with (
            self.progress(work.name, count, unit, already=done, size=size) as bar,
            Committer(table, key=key, done=keys, interval=COMMIT_EVERY) as committer,
        ):
            for receipt in engines.run(work, bundles(units, most, bundle), self.session):
                committer.add(receipt)
                done_size = None if sizes is None else sum(sizes[key] for key in receipt.keys)
                bar.advance(len(receipt.keys), receipt.failed, size=done_size)
