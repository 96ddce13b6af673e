"""Clips with their columns, the verdicts on them, and the export of what was kept: what commands share that select."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from dailies.curation import schema
from dailies.curation.addresses import public
from dailies.curation.config import read_object
from dailies.curation.errors import RecipeError, UsageError
from dailies.curation.progress import Progress
from dailies.curation.select import SPLIT, ClipRows, Judgement, check_manifest_columns, judging
from dailies.curation.tables import DatasetTables, Table, moved_sources, with_places
from dailies.pipelines import engine as engines
from dailies.pipelines import footage, places
from dailies.pipelines.exporting import export_selection
from dailies.pipelines.footage import WorldOnly
from dailies.pipelines.grouping import check_grouped, with_groups
from dailies.pipelines.recipes.recipe import CurationRecipe, parse_recipe
from dailies.pipelines.recipes.steps import ExportStep, ObserveStep, SelectStep, plain_columns
from dailies.pipelines.reports import (
    ExportReport,
    SelectionReport,
)


def last_recipe(dataset: DatasetTables, overrides: Sequence[str], *, with_dedup: bool = False) -> CurationRecipe:
    """Return the recipe of the dataset's last run, with overrides.

    ``with_dedup``: where it has no dedup step, it gets one before its first selection or export.
    """
    runs = dataset.runs(["recipe"])
    if not len(runs):
        raise UsageError(f"{dataset.url}: the dataset has no run yet; run dailies curate first")
    data = read_object(runs["recipe"][-1].as_py() or "", "recipe of the last run", RecipeError)
    if with_dedup:
        _add_dedup(data.get("steps"))
    return parse_recipe(
        data,
        overrides,
        where="of the last run",
        recorded=True,
    )


def _add_dedup(steps: Any) -> None:
    """Put a dedup step into the raw steps of a recipe that has none."""
    kinds = [next(iter(entry), None) if isinstance(entry, dict) else None for entry in steps or ()]
    if isinstance(steps, list) and "dedup" not in kinds:
        place = next((at for at, kind in enumerate(kinds) if kind in ("select", "export")), len(kinds))
        steps.insert(place, {"dedup": {}})


def check_manifest_rules(
    dataset: DatasetTables, recipe: CurationRecipe, rows: Sequence[dict[str, Any]], only: SelectStep | None = None
) -> None:
    """Raise ``UsageError`` for a rule, or a scorer or captioner, over a manifest's column that no row named, now or
    before, has.

    ``only``: the step to check, by default all.
    """
    wanted: dict[str, Iterable[str]] = {
        f"select {step.name}": step.criteria.columns
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


def measures(recipe: CurationRecipe) -> list[pa.Field]:
    """Return the clip columns that the recipe's observers give."""
    return [column for observer in recipe.step(ObserveStep).observers for column in observer.measures]


def clips_table(dataset: DatasetTables, recipe: CurationRecipe) -> Table:
    """Return the table of the recipe's clips, which may not exist yet."""
    return dataset.table(recipe.clips, schema.clips(measures(recipe)))


def joined(dataset: DatasetTables, recipe: CurationRecipe, before: Any = None) -> pa.Table:
    """Return all clips with the columns of every scorer and captioner that comes ``before`` a step, by default of all, and
    with the groups and splits of the dedup step.

    Columns of lists, such as embeddings, stay out: see ``plain_columns``.
    """
    table = clips_table(dataset, recipe)
    # Why a source could not be cut is not for rules, and pyarrow joins no structs.
    columns = [name for name in table.schema.names if name not in ("failure", "failed_version")]
    clips = with_places(dataset, table.read(columns))
    for step in recipe.before(before):
        table = dataset.table(recipe.annotations(step), schema.scores(step.spec.columns))
        plain = plain_columns(step)
        if not plain:
            continue
        rows = table.read(["clip_id", *plain])
        rows = rows.rename_columns(["clip_id", *(field.name for field in plain.values())])
        clips = clips.join(rows, "clip_id")
    return with_groups(dataset, recipe, clips, before)


@contextmanager
def judged_by(
    dataset: DatasetTables, recipe: CurationRecipe, step: SelectStep, addresses: Mapping[str, str] = {}
) -> Iterator[Judgement]:
    """Judge all clips of the dataset by a step, from the tables and by DuckDB, and write nothing.

    ``addresses``: by source id, what to read those sources by whose uri lacks a password or a query.
    """
    whole = {public(address): address for address in addresses.values()}
    apart = WorldOnly.of(recipe, step)
    criteria = step.criteria
    other = footage.other_footage(dataset, recipe) if apart.scores.keys() & criteria.columns.keys() else None
    scores = []
    for earlier in recipe.before(step):
        table = dataset.table(recipe.annotations(earlier), schema.scores(earlier.spec.columns))
        shown = {field.name: stored for stored, field in earlier.shown.items()}
        scores.append(ClipRows(rows=table.arrow(bounded=True), shown=shown))
    if (dedup := recipe.dedup(step)) is not None:
        check_grouped(dataset, recipe, dedup)
        table = dataset.table(recipe.duplicates(dedup), dedup.schema)
        known = {name: name for name in dedup.shown}
        scores.append(ClipRows(rows=table.arrow(bounded=True), shown={**known, SPLIT: "duplicate_split"}))
    with judging(
        ClipRows(rows=clips_table(dataset, recipe).arrow(bounded=True)),
        criteria,
        scores=scores,
        unjudged={} if other is None else apart.unjudged(other),
        readable=lambda uri: places.readable(whole.get(uri, uri)),
        moved=moved_sources(dataset),
    ) as judged:
        yield judged


def read_by(recipe: CurationRecipe, step: SelectStep) -> list[str]:
    """Return the tables that a selection is made from: the clips, and what the steps before it say of them."""
    dedup = recipe.dedup(step)
    read = [recipe.clips, *(recipe.annotations(earlier) for earlier in recipe.before(step))]
    return read if dedup is None else [*read, recipe.duplicates(dedup)]


def select_step(
    dataset: DatasetTables, recipe: CurationRecipe, step: SelectStep, addresses: Mapping[str, str] = {}
) -> SelectionReport:
    """Judge all clips of the dataset by the step's rules, and replace the selection in one commit; see ``judged_by``.

    The selection's properties say how it came about, for whoever reads it later:

    - ``rules``: by column, or by a rule's own name, what was asked, as in the recipe: ``min``, ``one_of``, ``expression``,
      ``any``, …; and, where the recipe has them, ``at_most`` (by column ``count`` and ``keep``), ``balance`` and ``sample``;
    - ``limits``: by the same names what each came to: ``min`` and ``max`` as numbers, ``one_of``; ``expression`` of what
      is computed; ``holds``, in words, of an expression that must be true and of ``all`` and ``any``; ``at_most``, by column;
      of ``balance`` its ``column``, ``median`` and the ``count`` that no value exceeds; of ``sample`` of how many (``of``);
      ``not_applied``, in words, where a rule was not asked of some clips. A reason is ``NAME_low``, ``_high``, ``_other``,
      ``_missing`` or ``_unmet`` of a rule's name, ``COLUMN_cap``, ``balance``, ``sample``, or a word without a limit;
    - ``duplicates``, ``overlaps``; ``tables``: those that were read, with their versions; ``recipe``, ``recipe_hash``.
    """
    with judged_by(dataset, recipe, step, addresses) as judged:
        properties = {
            "rules": step.criteria.told(),
            "duplicates": step.duplicates,
            "overlaps": step.overlaps,
            "limits": judged.limits,
            "tables": {
                name: version
                for name in read_by(recipe, step)
                if (version := dataset.table(name).version()) is not None
            },
            "recipe": recipe.name,
            "recipe_hash": recipe.hash,
        }
        dataset.table(f"selections/{step.name}", schema.SELECTIONS).replace(judged.verdicts(), properties=properties)
    exports = [each.name for each in recipe.steps if isinstance(each, ExportStep) and each.select == step.name]
    return SelectionReport(
        name=step.name,
        clips=judged.clips,
        kept=judged.kept,
        kept_seconds=judged.kept_seconds,
        reasons=judged.reasons,
        limits=judged.limits,
        exports=tuple(exports),
    )


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
    if (dedup := recipe.dedup(step)) is not None:
        check_grouped(dataset, recipe, dedup)
    clips = joined(dataset, recipe, before=step)
    selection = dataset.table(f"selections/{step.select}")
    kept = selection.read(["clip_id"], equals={"keep": True})
    clips = clips.filter(pc.is_in(clips["clip_id"], value_set=kept["clip_id"].combine_chunks()))
    gone = places.withdrawn_table(dataset).read(["source_id"])["source_id"].combine_chunks()
    clips = clips.filter(
        pc.invert(pc.is_in(clips["source_id"], value_set=gone))
    )  # a withdrawal that was killed left some
    columns = measures(recipe) + [
        column for earlier in recipe.before(step) for column in plain_columns(earlier).values()
    ]
    columns += [] if dedup is None else dedup.shown.values()
    report = export_selection(
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
    return replace(report, selection=step.select)


def rules_replaced(dataset: DatasetTables, recipe: CurationRecipe) -> list[str]:
    """Return a line on each selection that the recipe makes by other rules than it was made by, such as by ``select --set``."""
    lines = []
    for step in recipe.steps:
        table = dataset.table(f"selections/{step.name}", schema.SELECTIONS) if isinstance(step, SelectStep) else None
        if table is None or not table.exists():
            continue
        before = table.properties().get("rules", {})
        now = step.criteria.told()
        changes = [
            f"{column} {_rule(before.get(column))} → {_rule(now.get(column))}"
            for column in dict.fromkeys([*before, *now])
            if before.get(column) != now.get(column)
        ]
        if changes:
            lines.append(
                f"selection {step.name}: made by other rules before; now by this recipe's: {', '.join(changes)}"
            )
    return lines


def _rule(rule: Mapping[str, Any] | None) -> str:
    return "no rule" if rule is None else " ".join(f"{name}={value}" for name, value in rule.items() if name != "nulls")
