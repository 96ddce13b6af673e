"""Withdraws what a rerun must do again: sources whose content changed, and failures that are to be tried again."""

from __future__ import annotations

import os
from collections.abc import Collection, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from dailies.curation import schema, video
from dailies.curation.errors import RETRIED, Refused, SourceError
from dailies.curation.policy import policy_in_force
from dailies.curation.tables import DatasetTables, Table
from dailies.pipelines.maintenance import withdraw
from dailies.pipelines.recipes.recipe import CurationRecipe


def withdraw_changed(
    dataset: DatasetTables,
    recipe: CurationRecipe,
    rows: Sequence[dict[str, Any]],
    *,
    retry_failed: bool,
    addresses: Collection[str] = (),
) -> list[str]:
    """Withdraw those sources of ``rows`` that changed since they were observed; returns their uris.

    A local file whose size or modification time differs has changed if its content id differs too. Sources behind a URL
    are not compared: withdraw them by command. Also deletes failures, so that they are tried again, once in this run: with
    ``retry_failed`` all, else those that are no fault of the file (``errors.RETRIED``), what was refused and is not any more
    (what is refused now stays as it is), and what failed to be observed of the sources of ``addresses``: they come with a
    query or a password, which may be a better one than then.
    """
    table = dataset.table(recipe.observations, schema.OBSERVATIONS)
    if not table.exists():
        return []
    uris = {row["source_id"]: row["uri"] for row in rows if not row["refused"]}
    known = table.read(["source_id", "content_id", "bytes", "modified", "status", "sha256"])
    rows_known = [row for row in known.to_pylist() if row["source_id"] in uris]
    changed = list(dict.fromkeys(row["source_id"] for row in rows_known if _changed(uris[row["source_id"]], row)))
    if changed:
        withdraw(dataset, changed, keep_spans=True)  # this run may not name the manifest that they come from
    again = pc.field("status") == "failed"
    if not retry_failed:
        again &= pc.field("failure", "kind").isin(sorted(RETRIED))
    table.delete(uris, filter=again)
    policy = policy_in_force()
    admitted = [row["source_id"] for row in rows if policy.admits_more(row.get("address") or row["uri"])]
    table.delete(admitted, filter=(pc.field("status") == "failed") & (pc.field("failure", "kind") == Refused.kind))
    table.delete(
        set(addresses), filter=(pc.field("status") == "failed") & (pc.field("failure", "kind") != Refused.kind)
    )
    dataset.table(recipe.clips, schema.clips([])).delete(filter=again)
    _delete_failures(dataset, recipe, again)
    return [uris[source] for source in changed]


def _delete_failures(dataset: DatasetTables, recipe: CurationRecipe, again: pc.Expression) -> None:
    """Delete the failures of scorers and captioners that are to be tried again, and what later steps made of them: a clip
    that could not be embedded, say, has no similarity either, and a summary lacks the caption that was unanswered.

    What was made of a failure goes before the failure: who is killed in between finds both to do again.
    """
    retried: dict[str, list[str]] = {}
    deletions: list[tuple[Table, pa.Expression]] = []
    for step in recipe.before(None):
        table = dataset.table(recipe.annotations(step), schema.scores([]))
        if not table.exists():
            continue
        above = [clip for earlier in recipe.feeding(step) for clip in retried.get(earlier.name, ())]
        which = again | pc.field("clip_id").isin(pa.array(above, pa.string())) if above else again
        retried[step.name] = table.read(["clip_id"], filter=which)["clip_id"].to_pylist()
        if retried[step.name]:
            deletions.append((table, which))
    for table, which in reversed(deletions):
        table.delete(filter=which)


def _changed(uri: str, row: dict[str, Any]) -> bool:
    if "://" in uri:
        return False
    try:
        stat = os.stat(uri)
    except OSError:
        return False  # gone: the rows stay until they are withdrawn by command
    if (stat.st_size, stat.st_mtime_ns) == (row["bytes"], row["modified"]):
        return False
    try:
        return row["content_id"] is None or not video.is_source(row, video.content_id(uri)[0], uri)
    except SourceError:
        return True  # it cannot be read any more: observing it again says why
