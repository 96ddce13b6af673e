"""The step dedup: looks at what clips have in common, and replaces the table of groups; and what later steps know of it."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from dailies.curation import schema
from dailies.curation.duplicates import (
    EMBEDDING,
    SIGNATURE_COLUMNS,
    Search,
    caption_groups,
    group_clips,
    read_embeddings,
    read_signatures,
)
from dailies.curation.errors import UsageError
from dailies.curation.plain_text import counted
from dailies.curation.schema import CONTENT_KEY
from dailies.curation.tables import DatasetTables, Table
from dailies.pipelines.recipes.recipe import CurationRecipe
from dailies.pipelines.recipes.steps import DedupStep
from dailies.pipelines.reports import DuplicatesReport


def group_step(dataset: DatasetTables, recipe: CurationRecipe, step: DedupStep) -> DuplicatesReport:
    """Group the usable clips by what is there of them, and replace the table of groups in one commit.

    Nothing is decoded and no model is called: signatures and embeddings are those of the tables.
    """
    wanted = dict.fromkeys(("clip_id", "source_id", "manifest", "split", *CONTENT_KEY))
    clips = dataset.table(recipe.clips, schema.clips([])).read([*wanted], equals={"status": "ok"}).sort_by("clip_id")
    clips = clips.combine_chunks()
    ids = clips["clip_id"].combine_chunks()
    ids = ids.chunk(0) if isinstance(ids, pa.ChunkedArray) else ids
    table, read = dataset.table(recipe.duplicates(step), step.schema), [recipe.clips]
    with tempfile.TemporaryDirectory(prefix="dailies-dedup-") as folder:
        signatures, embeddings = None, None
        if step.perceptual is not None:
            signed = dataset.table(recipe.signatures, schema.scores(step.signer.columns))
            read.append(signed.name)
            signatures = read_signatures(signed.batches(SIGNATURE_COLUMNS, equals={"status": "ok"}), ids)
        if step.semantic is not None:
            embedder = recipe.embedder(step)
            embedded = dataset.table(recipe.annotations(embedder), schema.scores(embedder.spec.columns))
            read.append(embedded.name)
            count = embedded.arrow().count_rows()
            batches = embedded.batches(["clip_id", EMBEDDING], equals={"status": "ok"})
            embeddings = read_embeddings(batches, ids, count, Path(folder) / "embeddings")
        search = Search(
            clips,
            exact=step.exact,
            signatures=signatures,
            distance=step.perceptual.distance if step.perceptual else 0.0,
            embeddings=embeddings,
            similarity=step.semantic.similarity if step.semantic else 1.0,
        )
        groups, splits = group_clips(clips, search)
    if step.captions is not None:
        captioned = dataset.table(recipe.annotations(recipe.captioner(step)))
        read.append(captioned.name)
        groups = _with_alike(groups, captioned.read(["clip_id", "text"]), step.captions.similarity)
    properties = {
        "step": step.model_dump(mode="json"),
        "tables": {name: dataset.table(name).version() for name in read},
        "recipe": recipe.name,
        "recipe_hash": recipe.hash,
    }
    if not _is_there(table, groups, properties):  # a new version would make selections look outdated
        table.replace(groups, properties=properties)
    moved = pc.sum(pc.not_equal(groups["duplicate_split"], clips["split"])).as_py() or 0
    return DuplicatesReport.of(step.name, groups, moved=moved, overruled=splits.overruled, largest=splits.largest)


def _with_alike(groups: pa.Table, captions: pa.Table, similarity: float) -> pa.Table:
    """Return the groups with ``schema.ALIKE_COLUMNS``. ``groups`` are in the order of their ids."""
    at = pc.index_in(groups["clip_id"], value_set=captions["clip_id"].combine_chunks())
    alike = caption_groups(captions["text"].take(at).to_pylist(), similarity)
    there = alike >= 0
    size = np.bincount(alike[there], minlength=len(alike))[np.maximum(alike, 0)].astype(np.int32)
    first = groups["clip_id"].take(pa.array(np.maximum(alike, 0)))
    names = pc.if_else(pa.array(there & (size > 1)), first, pa.scalar(None, pa.string()))
    columns = (names, pa.array(size, mask=~there))
    for column, values in zip(schema.ALIKE_COLUMNS, columns, strict=True):
        groups = groups.append_column(column, values)
    return groups


def _is_there(table: Table, groups: pa.Table, properties: Mapping[str, Any]) -> bool:
    """Return whether the table holds these groups already, made from the same versions of the same tables."""
    if not table.exists() or table.properties().get("tables") != properties["tables"]:
        return False
    return bool(table.read(groups.column_names).sort_by("clip_id").equals(groups.sort_by("clip_id")))


def check_grouped(dataset: DatasetTables, recipe: CurationRecipe, step: DedupStep) -> None:
    """Raise ``UsageError`` where there are usable clips that no table of groups has: their copies may lie on the other side of
    a split, and no cap would count them.
    """
    groups = dataset.table(recipe.duplicates(step), step.schema)
    clips = dataset.table(recipe.clips, schema.clips([]))
    if groups.exists() and groups.properties().get("tables", {}).get(clips.name) == clips.version():
        return
    known = groups.keys()
    came = sum(
        name not in known
        for batch in clips.batches(["clip_id"], equals={"status": "ok"})
        for name in batch.column(0).to_pylist()
    )
    if came:
        raise UsageError(
            f"{counted(came, 'clip')} came since clips were grouped, and may be copies of others; "
            f"run dailies dedup {dataset.url}"
        )


def with_groups(dataset: DatasetTables, recipe: CurationRecipe, clips: pa.Table, before: object = None) -> pa.Table:
    """Return ``clips`` with the columns of the dedup step before a step, by default of any, and with the splits that follow the
    groups. Without such a step they are returned as they are.
    """
    step = recipe.dedup(before)
    if step is None:
        return clips
    table = dataset.table(recipe.duplicates(step), step.schema)
    rows = table.read(["clip_id", *step.shown, "duplicate_split"])
    clips = clips.join(rows, "clip_id")
    split = pc.coalesce(clips["duplicate_split"], clips["split"])
    at = clips.schema.get_field_index("split")
    return clips.set_column(at, clips.schema.field(at), split).drop_columns("duplicate_split")
