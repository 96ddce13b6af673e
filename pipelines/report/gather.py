"""Tables → ``ReportData``: every number of the page is counted here, over every clip; of pictures there is a sample."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from importlib.metadata import version

import pyarrow as pa

from dailies.curation import schema
from dailies.curation.progress import Progress, silent
from dailies.curation.tables import DatasetTables
from dailies.pipelines.recipes import CaptionStep, CurationRecipe
from dailies.pipelines.report import samples, scores
from dailies.pipelines.report.captions import captioners, states_of
from dailies.pipelines.report.data import Bars, Beside, Duplicates, ReportData, Score
from dailies.pipelines.report.funnel import DRAWS, funnel
from dailies.pipelines.report.judged import JudgedClips, judged, not_asked, numbers, selection_named, selections
from dailies.pipelines.report.lineage import failures, lineage, times
from dailies.pipelines.selecting import clips_table, joined, last_recipe

NO_CHART = frozenset(column.name for column in schema.CLIP_COLUMNS)


def gather(url: str, *, selection: str | None = None, progress: Progress = silent) -> ReportData:
    """Return all that a report on the dataset at ``url`` says; decodes and writes nothing.

    ``selection``: whose verdicts; by default those of the last of the last run's recipe. Raises ``UsageError`` for one that
    there is not, and where the dataset has no run.
    """
    with progress("report", None, "reading"):
        dataset = DatasetTables.open(url)
        recipe = last_recipe(dataset, ())
        name = selection_named(dataset, recipe, selection)
        clips = judged(dataset, joined(dataset, recipe), name)
        clips = replace(clips, apart=not_asked(dataset, recipe, clips))
        way = funnel(dataset, recipe, clips)
        fields = documented(dataset, recipe)
        captions = [column for column in _captions(recipe) if column in clips.rows.column_names]
        counted = tuple(_scores(clips, fields))
        apart = samples.beside(clips, way.steps)
        told = samples.captioned(clips, captions)
        side_by_side = captioners(clips, captions)
        alike = samples.duplicates(clips)
        ids = [*_ids(counted, apart, alike), *told]
        shown = samples.clips_shown(dataset, recipe, clips, ids, captions)
        return ReportData(
            dataset=dataset.url,
            made_at=f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
            version=version("dailies"),
            funnel=way,
            selections=tuple(selections(dataset)),
            caps=any((clips.properties.get("rules") or {}).get(key) for key in DRAWS),
            scores=counted,
            charts=tuple(_charts(clips, fields, [*captions, *(states_of(captions) if side_by_side else ())])),
            lengths=tuple(_lengths(clips, () if side_by_side else captions)),
            beside=apart,
            captions=tuple(captions),
            captioners=side_by_side,
            captioned=told,
            duplicates=alike,
            failures=failures(dataset, recipe),
            times=times(dataset, recipe),
            lineage=lineage(dataset, recipe, clips),
            clips=shown,
            unpictured=sum(clip.picture is None for clip in shown.values()),
        )


def documented(dataset: DatasetTables, recipe: CurationRecipe) -> dict[str, pa.Field]:
    """Return the columns that the recipe's observers, scorers and captioners make, with what is said of them."""
    fields = [column for column in clips_table(dataset, recipe).schema if column.name not in NO_CHART]
    fields += [known for step in recipe.before(None) for known in step.shown.values()]
    return {column.name: column for column in fields}


def _said(column: pa.Field | None, what: str) -> str:
    metadata = {} if column is None else column.metadata or {}
    return str(metadata.get(what.encode(), b"").decode())


def _captions(recipe: CurationRecipe) -> list[str]:
    return [step.name for step in recipe.steps if isinstance(step, CaptionStep)]


def _scores(clips: JudgedClips, fields: dict[str, pa.Field]) -> Iterator[Score]:
    """Yield what has a rule, in the order of the rules, computed or not; then every other column of numbers."""

    def documented(column: str) -> tuple[str, str]:
        known = fields.get(column)
        return clips.expression(column) or _said(known, "doc"), _said(known, "unit")

    told = set(clips.limited)
    for rule, limit in clips.limits.items():
        if rule in told:
            yield from filter(None, [scores.score(clips, rule, *documented(rule))])
        elif isinstance(limit, Mapping) and "holds" in limit:
            for part in scores.parts(clips, rule, documented):
                if part.column not in told:
                    told.add(part.column)
                    yield part
    for name in clips.rows.column_names:
        if name not in NO_CHART and name not in told:
            yield from filter(None, [scores.score(clips, name, *documented(name))])


def _charts(clips: JudgedClips, fields: dict[str, pa.Field], captions: Sequence[str]) -> Iterator[Bars]:
    """Yield the columns of words: categories, camera motions, whatever scorers and observers say in a few words."""
    for name in clips.rows.column_names:
        text = pa.types.is_string(clips.rows[name].type)
        if text and name not in NO_CHART and name not in captions and name != "why" and not name.endswith("_group"):
            bars = scores.bars(clips, name, _said(fields.get(name), "doc"))
            if bars is not None:
                yield bars


def _lengths(clips: JudgedClips, captions: Sequence[str]) -> Iterator[Score]:
    """Yield how long clips are, and how long captions."""
    seconds = scores.plain(clips, "seconds", "length of a clip", "s", numbers(clips.rows["seconds"]))
    rest = [
        scores.plain(clips, name, "length of a caption", "words", scores.words_in(clips.rows[name]))
        for name in captions
    ]
    yield from (each for each in [seconds, *rest] if each is not None)


def _ids(counted: Sequence[Score], apart: Sequence[Beside], alike: Duplicates) -> Iterator[str]:
    """Yield the clips that the page shows, the most telling first: where it is full, the last ones have no picture."""
    for threshold in (threshold for score in counted for threshold in score.thresholds):
        yield from (each.clip_id for each in (*threshold.outside, *threshold.inside))
    for pair in apart:
        yield from (each.clip_id for each in (*pair.dropped, *pair.kept))
    for group in alike.shown:
        yield from (each.clip_id for each in group.clips)
