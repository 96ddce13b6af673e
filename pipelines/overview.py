"""What a dataset holds, at a glance: sources, clips, selections and exports, how large it is, and what is missing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

import pyarrow.compute as pc
import pyarrow.fs as pafs

from dailies.curation import schema
from dailies.curation.config import read_object
from dailies.curation.errors import DailiesError, RecipeError
from dailies.curation.plain_text import counted
from dailies.curation.tables import DatasetTables
from dailies.pipelines.exporting import report as report_export
from dailies.pipelines.places import withdrawn_table
from dailies.pipelines.recipes.recipe import CurationRecipe
from dailies.pipelines.recipes.steps import Annotation, ExportStep, SelectStep
from dailies.pipelines.reports import AnnotationReport, ClipsReport, ExportReport, SelectionReport
from dailies.pipelines.selecting import clips_table, last_recipe, read_by
from dailies.pipelines.spans import cut_units, stored_spans
from dailies.pipelines.units import observed_sources


@dataclass(frozen=True, slots=True, kw_only=True)
class Missing:
    """Something of the last run's recipe that is not there: ``what``, and the ``command`` that makes it."""

    what: str
    command: str


@dataclass(frozen=True, slots=True, kw_only=True)
class LastRun:
    """The newest of ``count`` runs: when it began (UTC), with which version of dailies, and its recipe."""

    count: int
    started: datetime
    version: str
    recipe: str
    recipe_hash: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SourcesHeld:
    """Sources of the last run's observations: ``ok`` are usable and hold ``seconds`` of video; ``failed`` counts the others
    by kind; ``unfinished`` are long ones of which segments are still to be observed; ``withdrawn`` stay out."""

    ok: int
    seconds: float
    failed: Mapping[str, int]
    unfinished: int
    withdrawn: int


@dataclass(frozen=True, slots=True, kw_only=True)
class AnnotationHeld:
    """What one scorer or captioner made: clips it knows, clips it failed on, and usable clips it has not seen."""

    name: str
    ok: int
    failed: int
    missing: int


@dataclass(frozen=True, slots=True, kw_only=True)
class DatasetOverview:
    """A dataset at a glance.

    ``bytes``: what lies in its folder, by ``observations``, ``clips``, ``scores``, ``captions``, ``selections``, ``exports``
    and ``other``. ``sources`` and ``clips`` are None where the last run's recipe cannot be read here, which ``missing`` then
    says. ``exports``: oldest first; the last is the one that the newest run made, or found again.
    """

    dataset: str
    run: LastRun
    bytes: Mapping[str, int]
    exports: tuple[ExportReport, ...]
    missing: tuple[Missing, ...]
    sources: SourcesHeld | None = None
    clips: ClipsReport | None = None
    annotations: tuple[AnnotationHeld, ...] = ()
    selections: tuple[SelectionReport, ...] = ()


def overview(url: str) -> DatasetOverview:
    """Look at the dataset at ``url``: reads columns of its tables and lists its files; decodes and writes nothing.

    Raises ``DatasetError`` where there is none, and ``UsageError`` where it has no run yet.
    """
    dataset = DatasetTables.open(url)
    exports, broken = _exports(dataset)
    try:
        recipe = last_recipe(dataset, ())
    except RecipeError as error:  # one with code of somebody's own, that is not here or was not allowed to run
        return DatasetOverview(
            dataset=url,
            run=_last_run(dataset),
            bytes=_sizes(dataset),
            exports=exports,
            missing=(*broken, Missing(what=str(error), command=f"dailies curate SOURCE… --out {url} --recipe FILE")),
        )
    annotations = tuple(_annotation(dataset, recipe, step) for step in recipe.steps if isinstance(step, Annotation))
    sources = sources_held(dataset, recipe)
    return DatasetOverview(
        dataset=url,
        run=_last_run(dataset),
        bytes=_sizes(dataset),
        sources=sources,
        clips=ClipsReport.of(clips_table(dataset, recipe)),
        annotations=annotations,
        selections=tuple(_selections(dataset, recipe)),
        exports=exports,
        missing=(*broken, *_missing(dataset, recipe, sources, annotations, readable=not broken)),
    )


def _last_run(dataset: DatasetTables) -> LastRun:
    runs = dataset.runs(["started", "version", "recipe", "recipe_hash"])
    last = runs.slice(len(runs) - 1).to_pylist()[0]
    name = read_object(last.pop("recipe") or "{}", "recipe of the last run", RecipeError).get("name", "")
    return LastRun(count=len(runs), recipe=str(name), **last)


def _exports(dataset: DatasetTables) -> tuple[tuple[ExportReport, ...], tuple[Missing, ...]]:
    """Return the exports, oldest first, and what is wrong with those that cannot be read."""
    reports, broken = [], []
    for name in dataset.exports_by_age():
        try:
            reports.append(report_export(name.rpartition("@")[0], dataset.folder / "exports" / name))
        except DailiesError as error:
            broken.append(Missing(what=f"export {name}: {error}", command=f"dailies verify {dataset.url}"))
    return tuple(reports), tuple(broken)


def _sizes(dataset: DatasetTables) -> dict[str, int]:
    """Return the bytes of the files in a dataset's folder by what they belong to."""
    sizes = dict.fromkeys(("observations", "clips", "scores", "captions", "selections", "exports", "other"), 0)
    for info in dataset.folder.list(recursive=True):
        if info.type == pafs.FileType.File:
            group = dataset.folder.relative(info).partition("/")[0].partition("@")[0]
            sizes[group if group in sizes else "other"] += info.size or 0
    return sizes


def sources_held(dataset: DatasetTables, recipe: CurationRecipe) -> SourcesHeld:
    """Return what became of the sources that the recipe's observations know."""
    table = dataset.table(recipe.observations, schema.OBSERVATIONS)
    rows = table.read(["source_id", "segment", "segments", "status", "seconds", "failure"])
    failed: dict[str, str] = {}  # a segment is enough
    for row in rows.filter(pc.equal(rows["status"], "failed")).select(["source_id", "failure"]).to_pylist():
        failed.setdefault(row["source_id"], row["failure"]["kind"])
    ok = rows.filter(pc.equal(rows["status"], "ok")).select(["source_id", "segments", "seconds"])
    sums = ok.group_by("source_id").aggregate([("segments", "min"), ([], "count_all"), ("seconds", "sum")]).to_pylist()
    usable = [row for row in sums if row["source_id"] not in failed]
    return SourcesHeld(
        ok=len(usable),
        seconds=sum(row["seconds_sum"] or 0.0 for row in usable),
        failed=dict(Counter(failed.values()).most_common()),
        unfinished=sum(row["count_all"] < row["segments_min"] for row in usable),
        withdrawn=len(withdrawn_table(dataset).keys("source_id")),
    )


def _annotation(dataset: DatasetTables, recipe: CurationRecipe, step: Annotation) -> AnnotationHeld:
    table = dataset.table(recipe.annotations(step), schema.scores(step.spec.columns))
    done = table.read(["clip_id"])["clip_id"].combine_chunks()
    usable = clips_table(dataset, recipe).read(["clip_id"], equals={"status": "ok"})["clip_id"]
    failed = AnnotationReport.of(step.name, table).failed
    missing = pc.sum(pc.invert(pc.is_in(usable, value_set=done))).as_py() or 0
    return AnnotationHeld(name=step.name, ok=len(done) - failed, failed=failed, missing=missing)


def _selections(dataset: DatasetTables, recipe: CurationRecipe) -> Iterator[SelectionReport]:
    """Yield what each selection of the recipe that was made came to."""
    for step in recipe.steps:
        if isinstance(step, SelectStep):
            table = dataset.table(f"selections/{step.name}", schema.SELECTIONS)
            if table.exists():
                lengths = clips_table(dataset, recipe).read(["clip_id", "seconds"])
                verdicts = table.read(["clip_id", "keep", "reason"])
                yield SelectionReport.of(step.name, verdicts, lengths, table.properties().get("limits", {}))


def _missing(
    dataset: DatasetTables,
    recipe: CurationRecipe,
    sources: SourcesHeld,
    annotations: Sequence[AnnotationHeld],
    *,
    readable: bool,
) -> Iterator[Missing]:
    """Yield what is not done yet. ``readable``: whether every export can be read."""
    again = f"dailies curate SOURCE… --out {dataset.url} --recipe {recipe.name}"
    lacking = []
    if sources.unfinished:
        lacking.append(f"segments not observed yet: of {counted(sources.unfinished, 'long source')}")
    observed = observed_sources(dataset.table(recipe.observations, schema.OBSERVATIONS))
    uncut = len(cut_units(observed, stored_spans(dataset), clips_table(dataset, recipe))[0]) if len(observed) else 0
    if uncut:
        lacking.append(f"not cut into clips yet: {counted(uncut, 'observed source')}")
    lacking += [
        f"step {each.name}: not done yet for {counted(each.missing, 'clip')}" for each in annotations if each.missing
    ]
    yield from (Missing(what=what, command=again) for what in lacking)
    if lacking:  # the same command selects and exports
        return
    for step in recipe.steps:
        if isinstance(step, SelectStep) and (why := _outdated(dataset, recipe, step)):
            yield Missing(
                what=f"selection {step.name}: {why}", command=f"dailies select {dataset.url} --name {step.name}"
            )
        if isinstance(step, ExportStep) and readable and (why := _unexported(dataset, step)):
            yield Missing(what=f"export {step.name}: {why}", command=f"dailies export {dataset.url} --name {step.name}")


def _outdated(dataset: DatasetTables, recipe: CurationRecipe, step: SelectStep) -> str | None:
    """Return why a selection is not the one that the recipe would make now, ``None`` where it is."""
    table = dataset.table(f"selections/{step.name}", schema.SELECTIONS)
    if not table.exists():
        return "not made yet"
    properties = table.properties()
    if properties.get("rules") != step.criteria.told():
        return "made by other rules"
    if properties.get("tables") != {name: dataset.table(name).version() for name in read_by(recipe, step)}:
        return "clips or scores came or went since it was made"
    return None


def _unexported(dataset: DatasetTables, step: ExportStep) -> str | None:
    """Return why the newest export of a step is not of what its selection keeps, ``None`` where it is."""
    names = [name for name in dataset.exports_by_age() if name.rpartition("@")[0] == step.name]
    selection = dataset.table(f"selections/{step.select}", schema.SELECTIONS)
    kept = set(selection.read(["clip_id"], equals={"keep": True})["clip_id"].to_pylist())
    if not names:
        return "not made yet" if kept else None
    index = (dataset.folder / "exports" / names[-1]).read_parquet("index.parquet", ["clip_id"])
    exported = set(index["clip_id"].to_pylist())
    if exported == kept:
        return None
    lacking, more = len(kept - exported), len(exported - kept)
    return f"lacks {counted(lacking, 'clip')} of selection {step.select}, and holds {more} that it does not keep"
