"""Built-in models know the rendered world only: what that means for a run over other footage, and how such is told.

A file of the rendered world says so in its comment, and its observation keeps that. Rows of an older dailies, and files that
an older quickstart rendered, are told by what that renders: a file's name holds its seed and number, and so its size, rate and
number of frames are known. Whatever is not known to be rendered is other footage.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from dailies.curation import schema
from dailies.curation.chat import TransformersChat
from dailies.curation.policy import local_path
from dailies.curation.select import Unjudged
from dailies.curation.tables import DatasetTables
from dailies.curation.types import RENDERED
from dailies.pipelines.recipes import built_in_models
from dailies.pipelines.recipes.recipe import CurationRecipe
from dailies.pipelines.recipes.steps import CaptionStep, plain_columns

QUICKSTART_SHOTS = (4, 7)
NAME = re.compile(r"world-(\d{1,9})-(\d{4,9})\.mp4")
ENDS = 1 << 16  # bytes at either end of a file, where its comment stands
FOR_REAL = {
    "caption": "coca_ViT-L-14:mscoco_finetuned_laion2b_s13b_b90k",
    "chat": "Qwen/Qwen2.5-VL-7B-Instruct",
    "score": "ViT-L-14:openai",
}
"""Models for real footage, by the kind of step: open_clip's, and transformers' for what is asked by chat."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WorldOnly:
    """What a recipe makes by models that know the rendered world only.

    ``models``: their names, by step; ``captions``: columns of texts of theirs, and of what is made of these; ``scores``:
    columns of numbers, each with its model.
    """

    models: Mapping[str, str]
    captions: tuple[str, ...]
    scores: Mapping[str, str]
    advice: str

    @classmethod
    def of(cls, recipe: CurationRecipe, before: Any = None) -> WorldOnly:
        """Return it of a recipe's steps, of those ``before`` one if given."""
        models: dict[str, str] = {}
        captions: list[str] = []
        scores: dict[str, str] = {}
        advice = []
        for step in recipe.before(before):
            columns = [column.name for column in plain_columns(step).values()]
            if named := built_in_models(step.spec):
                models[step.name] = ", ".join(named.values())
                kind = "caption" if isinstance(step, CaptionStep) else "score"
                kind = "chat" if isinstance(step.spec, TransformersChat) else kind
                set_elsewhere = getattr(
                    step.spec, "embed", None
                )  # the model is that of the step whose embeddings it reads
                advice += [
                    f"--set {step.name}.{parameter}={FOR_REAL[kind]}" for parameter in named if not set_elsewhere
                ]
            if isinstance(step, CaptionStep):
                captions += [step.name] if named or set(step.spec.needs) & set(captions) else []
            elif named:
                scores |= dict.fromkeys(columns, models[step.name])
        return cls(models=models, captions=tuple(captions), scores=scores, advice=" ".join(advice))

    def unjudged(self, sources: pa.Array) -> dict[str, Unjudged]:
        """Return whose clips no rule over ``scores`` is asked about. ``sources``: ids of those of other footage."""
        return {column: Unjudged(why=knows(model), sources=sources) for column, model in self.scores.items()}

    def notes(self, other: int, sources: int) -> tuple[str, ...]:
        """Return sentences on ``other`` of ``sources`` that are other footage; none where there are no such."""
        if not other or not self.models:
            return ()
        of = "the sources are" if other == sources else f"{other} of {sources} sources are"
        lines = []
        if self.captions:
            lines.append(
                f"{', '.join(self.captions)}: captions by a built-in model, which knows the rendered world only; "
                f"{of} other footage, which they do not describe."
            )
        if self.scores:
            lines.append(
                f"{', '.join(self.scores)}: measured by a built-in model, which knows the rendered world only; "
                f"{of} other footage, of which the numbers say nothing, so no rule over them was applied to it."
            )
        return tuple(lines)


def knows(model: str) -> str:
    """Say what a built-in model knows."""
    return f"{model} knows the rendered world only"


def warning(dataset: DatasetTables, recipe: CurationRecipe, rows: Sequence[Mapping[str, Any]]) -> str | None:
    """Say, before any work, what a recipe's built-in models cannot do for these sources; None where they can.

    ``rows``: of ``list_sources``. A source that was not observed yet is looked at where it is a local file.
    """
    world_only = WorldOnly.of(recipe)
    if not world_only.models:
        return None
    table = dataset.table(recipe.observations, schema.OBSERVATIONS)
    observed = set(table.read(["source_id"], equals={"status": "ok"})["source_id"].to_pylist())
    other = set(other_footage(dataset, recipe).to_pylist())
    if not any(
        row["source_id"] in other if row["source_id"] in observed else not is_marked(row["uri"])
        for row in rows
        if not row["refused"]
    ):
        return None
    steps = ", ".join(world_only.models)
    who = knows(", ".join(dict.fromkeys(world_only.models.values())))
    parts = ["its captions do not describe other footage"] if world_only.captions else []
    parts += [f"no clip of other footage is dropped by {', '.join(world_only.scores)}"] if world_only.scores else []
    return f"{steps}: {who}: {', and '.join(parts)}. For real footage: {world_only.advice}"


def is_marked(uri: str) -> bool:
    """Return whether a local file has the comment of the rendered world; nothing of it is parsed."""
    path = local_path(uri)
    if path is None:
        return False
    try:
        with open(path, "rb") as file:
            head = file.read(ENDS)
            file.seek(max(0, file.seek(0, 2) - ENDS))
            return RENDERED.encode() in head or RENDERED.encode() in file.read(ENDS)
    except OSError:  # observing it says why
        return False


def other_footage(dataset: DatasetTables, recipe: CurationRecipe) -> pa.Array:
    """Return the ids of the observed sources that are not known to be of the rendered world."""
    table = dataset.table(recipe.observations, schema.OBSERVATIONS)
    first = {"status": "ok", "segment": 0}
    rows = table.read(["source_id", "uri", "rendered"], equals=first)
    rows = rows.filter(pc.invert(pc.fill_null(rows["rendered"], False)))
    named = [row["source_id"] for row in rows.select(["source_id", "uri"]).to_pylist() if _drawn(row["uri"])]
    known: list[str] = []
    if named:
        probes = table.read(["source_id", "uri", "probe"], filter=pc.field("source_id").isin(named), equals=first)
        known = [row["source_id"] for row in probes.to_pylist() if _is_of_quickstart(row["uri"], row["probe"])]
    ids = rows["source_id"].combine_chunks()
    return ids.filter(pc.invert(pc.is_in(ids, value_set=pa.array(known, pa.string()))))


def _drawn(uri: str) -> re.Match[str] | None:
    return NAME.fullmatch(uri.rpartition("/")[2])


def _is_of_quickstart(uri: str, probe: Mapping[str, Any]) -> bool:
    """Return whether a file has the size, rate and frames that the quickstart renders under its name."""
    name = _drawn(uri)
    if name is None:
        return False
    from dailies.curation import world  # which draws and encodes: few files have such a name

    script = world.write_script((int(name[1]), int(name[2])), shots=QUICKSTART_SHOTS)
    size = (probe["width"], probe["height"])
    frames = world.truth(script).frames
    return size == script.size and probe["frames"] == frames and probe["fps"] == script.fps


def notes(
    dataset: DatasetTables, recipe: CurationRecipe, sources: pa.ChunkedArray, before: Any = None
) -> tuple[str, ...]:
    """Return sentences on what the models of the steps ``before`` one do not know of ``sources``, ids that may repeat."""
    world_only = WorldOnly.of(recipe, before)
    if not world_only.models or not len(sources):
        return ()
    ids = pc.unique(sources)
    count = pc.sum(pc.is_in(ids, value_set=other_footage(dataset, recipe))).as_py() or 0
    return world_only.notes(count, len(ids))
