"""Curation from end to end: lists the sources, and runs each step of the recipe over what is not done yet.

Every stage works alike: the units whose key is not in its table go through the engine, and a committer appends the
receipts. Resuming needs nothing else.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeVar

import pyarrow as pa
import pyarrow.compute as pc

from dailies.curation import schema
from dailies.curation.addresses import address_of, public
from dailies.curation.clips import ClipRules
from dailies.curation.config import offered, read_object
from dailies.curation.errors import RecipeError, UsageError
from dailies.curation.observations import unit_of
from dailies.curation.packages import need
from dailies.curation.policy import SourcePolicy, opening_by, policy_in_force
from dailies.curation.progress import Progress, reporting, silent
from dailies.curation.select import check_manifest_columns, column_values, select
from dailies.curation.sources import list_sources
from dailies.curation.tables import Committer, DatasetTables, KeySet, Table, clean_tables, with_places
from dailies.pipelines import engine as engines
from dailies.pipelines import footage, places
from dailies.pipelines.exporting import check_private, export_selection
from dailies.pipelines.footage import WorldOnly
from dailies.pipelines.recipes import fetch_models
from dailies.pipelines.recipes.overrides import step_of
from dailies.pipelines.recipes.recipe import CurationRecipe, parse_recipe, resolved
from dailies.pipelines.recipes.steps import Annotation, CutStep, ExportStep, ObserveStep, SelectStep, kind_of_step
from dailies.pipelines.reports import (
    AnnotationReport,
    ClipsReport,
    ExportReport,
    SelectionReport,
    SourceReport,
    Summary,
)
from dailies.pipelines.run_rows import record_run
from dailies.pipelines.spans import cut_units, record_spans, stored_spans
from dailies.pipelines.stages import CutWork, ObserveWork, ScoreWork
from dailies.pipelines.staleness import withdraw_changed
from dailies.pipelines.units import (
    bundles,
    file_sizes,
    first_units,
    further_units,
    observed_sources,
    with_files,
    without,
)

COMMIT_EVERY = 2.0  # seconds: what a kill can lose, besides the bundles in progress
log = logging.getLogger("dailies")
StepT = TypeVar("StepT", SelectStep, ExportStep)


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
        run_id = record_run(dataset, recipe)
        placed = places.place_sources(dataset, rows)
        rows = placed.rows
        changed = withdraw_changed(dataset, recipe, rows, retry_failed=retry_failed, addresses=placed.addresses)
        record_spans(dataset, recipe.observations, rows, kept=recipe.apart_from_manifests())
        exporting = {"retry_failed": retry_failed, "addresses": placed.addresses, "private_sources": private_sources}
        run = _Run(dataset, recipe, run_id, session, progress, exporting)
        for step in recipe.steps:
            run.step(step, rows)
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
            selections=tuple(run.selections),
            exports=tuple(run.exports),
            notes=run.notes(),
        )


def check_manifest_rules(
    dataset: DatasetTables, recipe: CurationRecipe, rows: Sequence[dict[str, Any]], only: SelectStep | None = None
) -> None:
    """Raise ``UsageError`` for a rule, or a scorer or captioner, over a manifest's column that no row named, now or
    before, has.

    ``only``: the step to check, by default all.
    """
    wanted: dict[str, Iterable[str]] = {
        f"select {step.name}": step.rules
        for step in recipe.steps
        if isinstance(step, SelectStep) and only in (None, step)
    }
    if only is None:
        wanted |= {f"step {step.name}": step.spec.needs for step in recipe.before(None)}
    if not any(column.startswith("manifest.") for columns in wanted.values() for column in columns):
        return
    texts = {text for row in rows for text in (row["manifest"], *(span["manifest"] for span in row["spans"]))}
    for table in (dataset.table(recipe.observations, schema.OBSERVATIONS), dataset.table("spans", schema.SPANS)):
        if table.exists():
            texts.update(pc.unique(table.read(["manifest"])["manifest"]).to_pylist())
    names = sorted({name for text in texts if text for name in read_object(text, "manifest of a source", UsageError)})
    for who, columns in wanted.items():
        check_manifest_columns(columns, names, who)


def _check_installed(recipe: CurationRecipe) -> None:
    """Raise ``NotInstalled`` for a step that requires a package which only an extra brings."""
    for step in recipe.steps:
        if isinstance(step, Annotation):
            need(step.spec.requires, by=f"step {step.name}")


def _required(recipe: CurationRecipe) -> list[str]:
    """Return the packages that workers need for the recipe's scorers and captioners."""
    return [name for step in recipe.steps if isinstance(step, Annotation) for name in step.spec.requires]


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
        self.selections: list[SelectionReport] = []
        self.exports: list[ExportReport] = []

    def notes(self) -> tuple[str, ...]:
        """Return sentences on what the built-in models do not know of the clips."""
        clips = clips_table(self.dataset, self.recipe).read(["source_id"], equals={"status": "ok"})
        return footage.notes(self.dataset, self.recipe, clips["source_id"])

    def step(self, step: Any, rows: Sequence[dict[str, Any]]) -> None:
        if isinstance(step, ObserveStep):
            self._observe(step, rows)
        elif isinstance(step, CutStep):
            self._cut(step)
        elif isinstance(step, Annotation):
            self._annotate(step)
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
        if spec.needs:
            known = joined(self.dataset, self.recipe, before=step)
            needed = {name: column_values(known, name) for name in spec.needs if name not in wanted}
            clips = clips.join(pa.table({"clip_id": known["clip_id"], **needed}), "clip_id")
        units = with_files(without(clips, "clip_id", table.keys("clip_id")), observed)
        if len(units):
            fetch_models(spec)
        work = ScoreWork(name=step.name, table=table.url, scorer=spec)
        self._run(work, table, units, "clips", done=len(clips) - len(units), most=256)
        self.annotations.append(AnnotationReport.of(step.name, table))

    def _run(
        self,
        work: Any,
        table: Table,
        units: pa.Table,
        unit: str,
        *,
        done: int,
        most: int,
        key: str | None = None,
        keys: KeySet | None = None,
        total: int | None = None,
        sizes: Mapping[str, float] | None = None,
    ) -> None:
        """Run ``work`` over ``units``.

        ``keys``, ``total``: what is done and how much is not, where rows are no units. ``sizes``: of units by key, by which
        they take their time; by default they are alike.
        """
        count = len(units) if total is None else total
        size = None if sizes is None else sum(sizes.values())
        with (
            self.progress(work.name, count, unit, already=done, size=size) as bar,
            Committer(table, key=key, done=keys, interval=COMMIT_EVERY) as committer,
        ):
            for receipt in engines.run(work, bundles(units, most), self.session):
                committer.add(receipt)
                done_size = None if sizes is None else sum(sizes[key] for key in receipt.keys)
                bar.advance(len(receipt.keys), receipt.failed, size=done_size)


# ---- selecting and exporting ----------------------------------------------------------------------------------------


def measures(recipe: CurationRecipe) -> list[pa.Field]:
    """Return the clip columns that the recipe's observers give."""
    return [column for observer in recipe.step(ObserveStep).observers for column in observer.measures]


def clips_table(dataset: DatasetTables, recipe: CurationRecipe) -> Table:
    """Return the table of the recipe's clips, which may not exist yet."""
    return dataset.table(recipe.clips, schema.clips(measures(recipe)))


def joined(dataset: DatasetTables, recipe: CurationRecipe, before: Any = None) -> pa.Table:
    """Return all clips with the columns of every scorer and captioner that comes ``before`` a step, by default of all."""
    table = clips_table(dataset, recipe)
    # Why a source could not be cut is not for rules, and pyarrow joins no structs.
    columns = [name for name in table.schema.names if name not in ("failure", "failed_version")]
    clips = with_places(dataset, table.read(columns))
    for step in recipe.before(before):
        table = dataset.table(recipe.annotations(step), schema.scores(step.spec.columns))
        rows = table.read(["clip_id", *step.shown])
        rows = rows.rename_columns(["clip_id", *(field.name for field in step.shown.values())])
        clips = clips.join(rows, "clip_id")
    return clips


def select_step(
    dataset: DatasetTables, recipe: CurationRecipe, step: SelectStep, addresses: Mapping[str, str] = {}
) -> SelectionReport:
    """Judge all clips of the dataset by the step's rules, and replace the selection in one commit.

    ``addresses``: by source id, what to read those sources by whose uri lacks a password or a query.
    """
    whole = {public(address): address for address in addresses.values()}
    clips = joined(dataset, recipe, before=step)
    apart = WorldOnly.of(recipe, step)
    other = footage.other_footage(dataset, recipe) if apart.scores.keys() & step.rules.keys() else None
    verdicts, limits = select(
        clips,
        step.rules,
        unjudged={} if other is None else apart.unjudged(other),
        duplicates=step.duplicates,
        overlaps=step.overlaps,
        readable=lambda uri: places.readable(whole.get(uri, uri)),
    )
    read = [recipe.clips, *(recipe.annotations(earlier) for earlier in recipe.before(step))]
    properties = {
        "rules": {column: rule.model_dump(exclude_none=True, mode="json") for column, rule in step.rules.items()},
        "duplicates": step.duplicates,
        "overlaps": step.overlaps,
        "limits": limits,
        "tables": {name: dataset.table(name).version() for name in read},
        "recipe": recipe.name,
        "recipe_hash": recipe.hash,
    }
    dataset.table(f"selections/{step.name}", schema.SELECTIONS).replace(verdicts, properties=properties)
    exports = [each.name for each in recipe.steps if isinstance(each, ExportStep) and each.select == step.name]
    return SelectionReport.of(step.name, verdicts, clips, limits, exports)


def export_step(
    dataset: DatasetTables,
    recipe: CurationRecipe,
    step: ExportStep,
    *,
    run_id: str,
    session: engines.Session,
    progress: Progress,
    retry_failed: bool = False,
    addresses: Mapping[str, str] = {},
    private_sources: bool = False,
) -> ExportReport:
    """Export the selected clips, unless this very export exists already: see ``export_selection``."""
    clips = joined(dataset, recipe, before=step)
    selection = dataset.table(f"selections/{step.select}")
    kept = selection.read(["clip_id"], equals={"keep": True})
    clips = clips.filter(pc.is_in(clips["clip_id"], value_set=kept["clip_id"].combine_chunks()))
    gone = places.withdrawn_table(dataset).read(["source_id"])["source_id"].combine_chunks()
    clips = clips.filter(
        pc.invert(pc.is_in(clips["source_id"], value_set=gone))
    )  # a withdrawal that was killed left some
    columns = measures(recipe) + [column for earlier in recipe.before(step) for column in earlier.shown.values()]
    return export_selection(
        dataset,
        recipe,
        step,
        clips,
        columns,
        selection.properties(),
        notes=footage.notes(dataset, recipe, clips["source_id"], step),
        run_id=run_id,
        session=session,
        progress=progress,
        retry_failed=retry_failed,
        addresses=addresses,
        private_sources=private_sources,
    )


# ---- again, under other rules ---------------------------------------------------------------------------------------


def last_recipe(dataset: DatasetTables, overrides: Sequence[str]) -> CurationRecipe:
    """Return the recipe of the dataset's last run, with overrides."""
    runs = dataset.runs(["recipe"])
    if not len(runs):
        raise UsageError(f"{dataset.url}: the dataset has no run yet; run dailies curate first")
    return parse_recipe(
        read_object(runs["recipe"][-1].as_py() or "", "recipe of the last run", RecipeError),
        overrides,
        where="of the last run",
        recorded=True,
    )


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


def _check_sets(recipe: CurationRecipe, step: SelectStep | ExportStep, overrides: Sequence[str]) -> None:
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
        raise UsageError(f"--set {override}: changes nothing that {ours} {step.name} does; use {command}")


def _named(recipe: CurationRecipe, kind: type[StepT], name: str) -> StepT:
    steps = {step.name: step for step in recipe.steps if isinstance(step, kind)}
    if name not in steps:
        step = kind.__name__.removesuffix("Step").lower()
        raise UsageError(
            f"--name={name}: no {step} step of that name in the last run's recipe{offered(name, steps) or '; it has none'}"
        )
    return steps[name]
