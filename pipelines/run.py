"""Curation from end to end: lists sources, and carries each step of the recipe out over what is not done yet.

Every stage is the same sentence: the units whose key is not in its table go through the engine, and one committer appends the
receipts. That is the whole of resume.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from importlib.util import find_spec
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from dailies.curation import schema, sources
from dailies.curation.clips import ClipRules
from dailies.curation.errors import UsageError
from dailies.curation.observations import UNIT, unit_of
from dailies.curation.select import select
from dailies.curation.tables import Committer, Dataset, Table
from dailies.pipelines import engine as engines
from dailies.pipelines.cli.progress import progress
from dailies.pipelines.cli.tables import ExportReport, SelectionReport, Summary, source_report
from dailies.pipelines.exporting import export_selection
from dailies.pipelines.recipe import Recipe, parse_recipe, resolved
from dailies.pipelines.stages import CutWork, ObserveWork, ScoreWork
from dailies.pipelines.staleness import withdraw_changed
from dailies.pipelines.steps import Annotation, CutStep, ExportStep, ObserveStep, SelectStep

COMMIT_EVERY = 2.0  # seconds: what a kill can lose, besides the bundles at work


def curate(
    arguments: Sequence[str],
    out: str,
    recipe: Recipe,
    *,
    engine: engines.Engine = "ray",
    retry_failed: bool = False,
    quiet: bool = False,
) -> Summary:
    """Curate ``arguments`` into the dataset at ``out``; whatever is there already is not done again.

    Raises ``UsageError`` before any work when the request cannot be met; a source that cannot be used is a row.
    """
    _check_installed(recipe)
    rows = list(sources.list_sources(arguments))
    dataset = Dataset.create(out)
    with dataset.writer(), engines.session(engine):
        record_run(dataset, recipe)
        changed = withdraw_changed(dataset, recipe, rows, retry_failed=retry_failed)
        run = _Run(dataset, recipe, engine, quiet)
        for step in recipe.steps:
            run.step(step, rows)
        given = [row["source_id"] for row in rows]
        return Summary(
            dataset=out,
            recipe=recipe.name,
            recipe_hash=recipe.hash,
            sources=source_report(dataset.table(recipe.observations), given, changed),
            clips=_clip_counts(clips_table(dataset, recipe)),
            selections=tuple(run.selections),
            exports=tuple(run.exports),
        )


def _check_installed(recipe: Recipe) -> None:
    """What the models need that the core does not bring."""
    needy = [step.name for step in recipe.steps if isinstance(step, Annotation) and hasattr(step.spec, "model")]
    if needy and find_spec("open_clip") is None:
        raise UsageError(f"step {needy[0]} needs open_clip: install dailies[models]")


class _Run:
    """One pass over a recipe's steps."""

    def __init__(self, dataset: Dataset, recipe: Recipe, engine: engines.Engine, quiet: bool) -> None:
        self.dataset, self.recipe, self.engine, self.quiet = dataset, recipe, engine, quiet
        self.selections: list[SelectionReport] = []
        self.exports: list[ExportReport] = []

    def step(self, step: Any, rows: Sequence[dict[str, Any]]) -> None:
        if isinstance(step, ObserveStep):
            self._observe(step, rows)
        elif isinstance(step, CutStep):
            self._cut(step)
        elif isinstance(step, Annotation):
            self._annotate(step)
        elif isinstance(step, SelectStep):
            self.selections.append(select_step(self.dataset, self.recipe, step))
        elif isinstance(step, ExportStep):
            self.exports.append(export_step(self.dataset, self.recipe, step, engine=self.engine, quiet=self.quiet))

    def _observe(self, step: ObserveStep, rows: Sequence[dict[str, Any]]) -> None:
        """First whole sources and the first segments of long ones, which tell how many there are; then the other segments."""
        table = self.dataset.table(self.recipe.observations, schema.OBSERVATIONS)
        work = ObserveWork(
            table=table.url,
            observers=step.observers,
            evidence=step.evidence,
            stall_seconds=step.stall_seconds,
            segment_seconds=step.segment_seconds,
        )
        todo = first_units(table, rows)
        self._run(work, table, todo, "sources", done=len(rows) - len(todo), most=4, key="unit")
        todo = further_units(table, rows)
        if len(todo):
            self._run(work, table, todo, "segments", done=0, most=1, key="unit")

    def _cut(self, step: CutStep) -> None:
        observers = self.recipe.one(ObserveStep).observers
        table = clips_table(self.dataset, self.recipe)
        observed = whole_sources(self.dataset.table(self.recipe.observations))
        done = table.keys("source_id")
        units = _without(observed, "source_id", done)
        work = CutWork(
            table=table.url,
            detector=step.detector,
            observers=observers,
            rules=ClipRules(**step.model_dump(exclude={"detector"})),
            schema=schema.clips(measures(self.recipe)),
        )
        self._run(work, table, units, "sources", done=len(observed) - len(units), most=256, key="source_id")

    def _annotate(self, step: Annotation) -> None:
        spec = resolved(step.spec)
        table = self.dataset.table(self.recipe.annotations(step), schema.scores(spec.columns))
        observed = self.dataset.table(self.recipe.observations)
        wanted = ["clip_id", "source_id", "start", "end", "time_base_num", "time_base_den"]
        clips = clips_table(self.dataset, self.recipe).read(wanted, equals={"status": "ok"})
        if spec.needs:
            have = joined(self.dataset, self.recipe, before=step).select(["clip_id", *spec.needs])
            clips = clips.join(have, "clip_id")
        units = with_files(_without(clips, "clip_id", table.keys("clip_id")), observed)
        work = ScoreWork(name=step.name, table=table.url, scorer=spec)
        self._run(work, table, units, "clips", done=len(clips) - len(units), most=256)

    def _run(
        self, work: Any, table: Table, units: pa.Table, unit: str, *, done: int, most: int, key: str | None = None
    ) -> None:
        shown = progress(work.name, len(units), unit, already=done, quiet=self.quiet)
        with shown as bar, Committer(table, key=key, interval=COMMIT_EVERY) as committer:
            for receipt in engines.run(work, bundles(units, most), self.engine):
                committer.add(receipt)
                bar.advance(len(receipt.keys), receipt.failed)


# ---- units ----------------------------------------------------------------------------------------------------------


def first_units(table: Table, rows: Sequence[dict[str, Any]]) -> pa.Table:
    """Sources that have not been looked at: whole, or the first segment of a long one."""
    done = set(table.read(["source_id"], equals={"segment": 0})["source_id"].to_pylist())
    fresh = {"segment": 0, "segments": None, "origin": None}
    return pa.Table.from_pylist([row | fresh for row in rows if row["source_id"] not in done], schema=UNIT)


def further_units(table: Table, rows: Sequence[dict[str, Any]]) -> pa.Table:
    """The segments that are missing of those of ``rows`` whose first segment says that there are more."""
    given = {row["source_id"]: row for row in rows}
    long = table.read(
        ["source_id", "segments", "origin"], filter=(pc.field("segment") == 0) & (pc.field("segments") > 1)
    )
    done = table.keys("unit")
    units = [
        given[first["source_id"]] | first | {"segment": number}
        for first in long.to_pylist()
        if first["source_id"] in given
        for number in range(1, first["segments"])
        if unit_of(first["source_id"], number) not in done
    ]
    return pa.Table.from_pylist(units, schema=UNIT)


def whole_sources(table: Table) -> pa.Table:
    """``source_id`` and ``files`` of the sources all of whose segments were observed, in the order of files."""
    rows = table.located(["source_id", "segments"], equals={"status": "ok"})
    rows = rows.group_by("source_id").aggregate([("segments", "min"), ([], "count_all"), ("file", "distinct")])
    rows = rows.filter(pc.equal(rows["segments_min"], rows["count_all"]))
    return rows.select(["source_id", "file_distinct"]).rename_columns(["source_id", "files"])


def with_files(clips: pa.Table, table: Table) -> pa.Table:
    """``clips`` with the ``files`` in which the evidence of each lies, in the order of files.

    Of a source that is split these are the segments that the clip lies in, one or more.
    """
    rows = table.located(["source_id", "segment", "segments", "end"], equals={"status": "ok"})
    split = pc.greater(rows["segments"], 1)
    alone = rows.filter(pc.invert(split)).select(["source_id", "file"])
    plain = clips.join(alone, "source_id", join_type="inner")
    out = [plain.set_column(plain.schema.get_field_index("file"), "files", _as_lists(plain["file"]))]
    ends: dict[str, list[tuple[int, int, str]]] = {}
    for row in rows.filter(split).to_pylist():
        ends.setdefault(row["source_id"], []).append((row["segment"], row["end"], row["file"]))
    long = clips.filter(pc.is_in(clips["source_id"], value_set=pa.array(list(ends), pa.string())))
    files = []
    for source, start, end in zip(*(long[name].to_pylist() for name in ("source_id", "start", "end")), strict=True):
        segments = sorted(ends[source])
        begins = [-math.inf, *(last for _, last, _ in segments)]
        files.append(
            [file for begin, (_, last, file) in zip(begins, segments, strict=False) if begin < end and start < last]
        )
    out.append(long.append_column("files", pa.array(files, pa.list_(pa.string()))))
    units = pa.concat_tables([table.select(out[0].column_names) for table in out])
    order = units.append_column("file", pc.list_element(units["files"], 0))
    order = order.sort_by([("file", "ascending"), ("source_id", "ascending"), ("start", "ascending")])
    return order.drop_columns("file")


def _as_lists(values: pa.ChunkedArray) -> pa.Array:
    """Each value as a list of one."""
    flat = values.combine_chunks()
    return pa.ListArray.from_arrays(pa.array(range(len(flat) + 1), pa.int32()), flat)


def bundles(units: pa.Table, most: int) -> Iterator[pa.Table]:
    """``units`` in bundles small enough to share out and to lose, ``most`` at the most."""
    size = max(1, min(most, len(units) // 64))
    for start in range(0, len(units), size):
        yield units.slice(start, size).combine_chunks()


def _without(units: pa.Table, key: str, done: Iterable[str]) -> pa.Table:
    """``units`` whose key is not done: the anti-join."""
    known = pa.array(list(done), pa.string())
    return units.filter(pc.invert(pc.is_in(units[key], value_set=known)))


# ---- selecting and exporting ----------------------------------------------------------------------------------------


def measures(recipe: Recipe) -> list[pa.Field]:
    """The clip columns that the recipe's observers give."""
    return [column for observer in recipe.one(ObserveStep).observers for column in observer.measures]


def clips_table(dataset: Dataset, recipe: Recipe) -> Table:
    """The recipe's clips, which may be none yet."""
    return dataset.table(recipe.clips, schema.clips(measures(recipe)))


def joined(dataset: Dataset, recipe: Recipe, before: Any) -> pa.Table:
    """All clips with the columns of every scorer and captioner that comes before a step."""
    clips = clips_table(dataset, recipe).read()
    for step in recipe.before(before):
        table = dataset.table(recipe.annotations(step), schema.scores(step.spec.columns))
        rows = table.read(["clip_id", *step.shown])
        rows = rows.rename_columns(["clip_id", *(field.name for field in step.shown.values())])
        clips = clips.join(rows, "clip_id")
    return clips


def select_step(dataset: Dataset, recipe: Recipe, step: SelectStep) -> SelectionReport:
    """Judge all clips of the dataset and replace the selection in one commit."""
    clips = joined(dataset, recipe, before=step)
    verdicts, limits = select(clips, step.rules, duplicates=step.duplicates)
    read = [recipe.clips, *(recipe.annotations(one) for one in recipe.before(step))]
    properties = {
        "rules": {column: rule.model_dump(exclude_none=True, mode="json") for column, rule in step.rules.items()},
        "duplicates": step.duplicates,
        "limits": limits,
        "tables": {name: dataset.table(name).version() for name in read},
        "recipe": recipe.name,
        "recipe_hash": recipe.hash,
    }
    dataset.table(f"selections/{step.name}", schema.SELECTIONS).replace(verdicts, properties=properties)
    return SelectionReport.of(step.name, verdicts, clips, limits)


def export_step(
    dataset: Dataset, recipe: Recipe, step: ExportStep, *, engine: engines.Engine, quiet: bool
) -> ExportReport:
    """Cut the kept clips out, unless this very export is there already."""
    clips = joined(dataset, recipe, before=step)
    selection = dataset.table(f"selections/{step.select}")
    kept = selection.read(["clip_id"], equals={"keep": True})
    clips = clips.filter(pc.is_in(clips["clip_id"], value_set=kept["clip_id"].combine_chunks()))
    columns = measures(recipe) + [column for one in recipe.before(step) for column in one.shown.values()]
    return export_selection(dataset, recipe, step, clips, columns, selection.properties(), engine=engine, quiet=quiet)


# ---- again, under other rules ---------------------------------------------------------------------------------------


def last_recipe(dataset: Dataset, overrides: Sequence[str]) -> Recipe:
    """The recipe of the dataset's last run, with overrides."""
    import json

    runs = dataset.table("runs", schema.RUNS).read(["started", "recipe"]).sort_by([("started", "descending")])
    if not len(runs):
        raise UsageError(f"{dataset.url} has no run yet; curate into it first")
    return parse_recipe(json.loads(runs["recipe"][0].as_py()), overrides, where="of the last run")


def select_again(url: str, name: str, overrides: Sequence[str]) -> SelectionReport:
    """Judge again with overrides such as ``main.motion.min=1``; reads columns only."""
    dataset = Dataset.open(url)
    recipe = last_recipe(dataset, overrides)
    step = _named(recipe, SelectStep, name)
    with dataset.writer():
        report = select_step(dataset, recipe, step)
        record_run(dataset, recipe)  # not before: refused rules are not what the next command goes on from
        return report


def export_again(
    url: str, name: str, overrides: Sequence[str], *, engine: engines.Engine, quiet: bool = False
) -> ExportReport:
    """Export the last selection, with overrides such as ``export.crf=23``."""
    dataset = Dataset.open(url)
    recipe = last_recipe(dataset, overrides)
    step = _named(recipe, ExportStep, name)
    with dataset.writer(), engines.session(engine):
        record_run(dataset, recipe)
        return export_step(dataset, recipe, step, engine=engine, quiet=quiet)


def _named(recipe: Recipe, kind: type[Any], name: str) -> Any:
    steps = {step.name: step for step in recipe.steps if isinstance(step, kind)}
    if name not in steps:
        word = kind.__name__.removesuffix("Step").lower()
        raise UsageError(
            f"no {word} named {name!r} in the recipe of the last run; allowed: {', '.join(steps) or 'none'}"
        )
    return steps[name]


def record_run(dataset: Dataset, recipe: Recipe) -> None:
    """Write down what is about to be done, with every parameter: which thresholds were used is never a question."""
    import json

    started = datetime.now(UTC)
    run_id = schema.digest("run", started.isoformat(), recipe.hash)
    row = {
        "run_id": run_id,
        "started": started,
        "command": " ".join(sys.argv),
        "version": version("dailies"),
        "recipe": json.dumps(recipe.source | {"name": recipe.name}, sort_keys=True),
        "recipe_hash": recipe.hash,
        "tables": json.dumps(recipe.tables()),
    }
    dataset.table("runs", schema.RUNS).append([row], keys=(run_id,))


def _clip_counts(clips: Table) -> dict[str, Any]:
    rows = clips.read(["status", "seconds"])
    counts = dict.fromkeys(("ok", "too_short"), 0)
    seconds = dict.fromkeys(counts, 0.0)
    for status, length in zip(rows["status"].to_pylist(), rows["seconds"].to_pylist(), strict=True):
        counts[status] += 1
        seconds[status] += length
    return {"counts": counts, "seconds": seconds}
