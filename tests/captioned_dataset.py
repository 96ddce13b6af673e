"""A dataset of rows with two captioners, ``motion`` and ``other``, whose captions and CLIP similarities the tests choose."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dailies.curation import schema
from dailies.curation.tables import DatasetTables
from dailies.pipelines.recipes.recipe import CurationRecipe, parse_recipe
from dailies.pipelines.recipes.steps import SelectStep
from dailies.pipelines.run_rows import record_run
from dailies.pipelines.selecting import select_step
from tests import report_dataset

OTHER = {"caption": {"captioner": "motion", "name": "other"}}
FITS = [
    {"score": {"scorer": {"clip": {"caption": f"caption_{name}"}}, "name": f"fit_{name}"}}
    for name in ("motion", "other")
]


def build(
    path: Path,
    others: Sequence[str | None],
    *,
    fits: tuple[Sequence[float | None], Sequence[float | None]] | None = None,
    flags: Sequence[str | None] = (),
    status: Sequence[str] = (),
) -> tuple[DatasetTables, CurationRecipe, list[str]]:
    """Return a dataset, its recipe, and the ids of its usable clips in order, to which ``others`` and ``fits`` belong.

    ``others``: captions of the second captioner; the first one's are ``report_dataset``'s. ``fits``: similarities of both.
    """
    truth = report_dataset.build(path, 2 * len(others))
    at = next(number for number, step in enumerate(report_dataset.STEPS) if "select" in step)
    more: list[dict[str, Any]] = [OTHER, *(FITS if fits else [])]
    recipe = parse_recipe(
        {"name": "reported", "steps": [*report_dataset.STEPS[:at], *more, *report_dataset.STEPS[at:]]}
    )
    dataset = DatasetTables.open(truth.path)
    clips = dataset.table(recipe.clips).read(["clip_id", "source_id"], equals={"status": "ok"}).to_pylist()
    known = {row["clip_id"]: row for row in clips}
    ids = [clip for clip in truth.ids if clip in known][: len(others)]
    for step in recipe.before(None):
        values: dict[str, Sequence[Any]] = {}
        if step.name == "caption_other":
            values = {
                "text": others,
                "flags": flags or [None] * len(others),
                "status": status or ["ok" if text else "failed" for text in others],
            }
        elif fits and step.name in ("fit_motion", "fit_other"):
            values = {"clip_similarity": fits[step.name == "fit_other"]}
        else:
            continue
        table = dataset.table(recipe.annotations(step), schema.scores(step.spec.columns))
        rows = [
            {"status": "ok", **known[clip], **dict(zip(values, told, strict=True))}
            for clip, told in zip(ids, zip(*values.values(), strict=True), strict=True)
        ]
        table.append(rows, keys=())
    record_run(dataset, recipe)
    select_step(dataset, recipe, recipe.step(SelectStep))
    return dataset, recipe, ids
