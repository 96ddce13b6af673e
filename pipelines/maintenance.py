"""Maintains a dataset: verifies it, collects garbage, takes down sources."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from dailies.curation.addresses import public
from dailies.curation.errors import SourceError, UsageError
from dailies.curation.export.card import disagreement, recount
from dailies.curation.export.manifest import MANIFEST
from dailies.curation.progress import Bar, progress_in_force, silent
from dailies.curation.tables import DatasetProblem, DatasetTables, Garbage, misled, uncleaned, verify
from dailies.curation.video import content_id, is_source
from dailies.pipelines.contents import copies_of
from dailies.pipelines.exporting import shows_secrets
from dailies.pipelines.isolate import Isolated
from dailies.pipelines.places import known_sources, remember_withdrawn, withdrawn_table
from dailies.pipelines.stages import MEMORY_GB

REPORT = re.compile(r"report(-[a-z][a-z0-9_-]*)?\.html")  # as ``dailies report`` calls them by itself
SECRETS = "holds passwords or signatures of URLs; the next dailies curate or dailies export writes it anew without them"
EXPORTED_SECRETS = (
    "holds passwords or signatures of URLs; dailies export makes one without them beside it: delete this folder then"
)


def verify_dataset(url: str, *, deep: bool) -> list[DatasetProblem]:
    """Return problems found; ``deep`` decodes every exported clip, in a process of its own, and compares its frame count."""
    dataset = DatasetTables.open(url)
    with Isolated("dailies.curation.video:count_frames", answer=int, memory_gb=MEMORY_GB) as child:
        problems = verify(dataset, check_media=child.call if deep else None)
    broken = {problem.table for problem in problems}
    for name in dataset.tables():
        if name not in broken:
            problems += [DatasetProblem(name, column, SECRETS) for column in uncleaned(dataset, name)]
    for name in dataset.exports():
        table = f"exports/{name}"
        if table not in broken and shows_secrets(dataset.folder / table):
            problems.append(DatasetProblem(table, "index.parquet", EXPORTED_SECRETS))
        message = disagreement(dataset.folder / table) if table not in broken else None
        if message is not None:
            problems.append(DatasetProblem(table, MANIFEST, message))
    if (message := misled(dataset)) is not None:
        problems.append(DatasetProblem("exports", "latest", message))
    return problems


def collect(url: str, *, dry_run: bool, older_than: float | None) -> list[Garbage]:
    """Remove unreferenced files that are older than ``older_than`` hours, see ``DatasetTables.gc``; returns them."""
    return DatasetTables.open(url).gc(dry_run=dry_run, older_than_hours=older_than)


def take_down(url: str, sources: Sequence[str]) -> dict[str, int]:
    """Delete ``sources`` (paths, URLs or source ids) from every table and export, and keep them out from now on.

    Copies of them go too: what is withdrawn is a content, wherever it lies.

    Returns the rows deleted per table. Raises ``UsageError``, before deleting anything, for a source that is not in the
    dataset. It is noted as withdrawn before its first row goes, so that a second call finishes what a killed one left.
    """
    dataset = DatasetTables.open(url)
    known = {row["source_id"]: row for row in withdrawn_table(dataset).read().to_pylist()} | known_sources(dataset)
    wanted = []
    for source in sources:
        identity = source if source in known else known_as(source, known)
        if identity is None:
            raise UsageError(
                f"{source}: no such source in {url}; `dailies sql {url} 'select uri from observations'` lists them"
            )
        wanted.append(identity)
    wanted += [name for name in copies_of(known, wanted) if name not in wanted]
    with dataset.writer(), _counting_exports(dataset) as bar:
        remember_withdrawn(dataset, [known[identity] for identity in wanted])
        counts = _withdraw(dataset, wanted, bar)
        delete_reports(dataset)
        dataset.gc(older_than_hours=0.0 if dataset.is_local else None)  # or the bytes would stay on the disk
    return counts


def delete_reports(dataset: DatasetTables) -> None:
    """Delete the reports that lie in a dataset's folder, since they hold frames of what is withdrawn; others are not known."""
    for info in dataset.folder.list() if dataset.is_local else ():
        name = dataset.folder.relative(info)
        if REPORT.fullmatch(name):
            dataset.folder.delete(name)


def known_as(source: str, known: Mapping[str, Mapping[str, Any]]) -> str | None:
    """Return the id of what a path or URL leads to, ``None`` for none. Of several at one URL, the content decides.

    Raises ``UsageError`` where it cannot be read.
    """
    place = public(source) if "://" in source else os.path.abspath(source)
    there = [identity for identity, row in known.items() if public(row["uri"] or "") == place]
    if len(there) < 2:
        return there[0] if there else None
    try:
        content = content_id(source)[0]
    except SourceError as error:
        raise UsageError(
            f"{source}: {len(there)} sources came from there, {', '.join(there)}; name one ({error})"
        ) from None
    return next((identity for identity in there if is_source(known[identity], content, source)), None)


def bytes_left(url: str) -> str | None:
    """Say when and by which command the bytes of what was withdrawn are gone from a store; ``None`` where they are gone."""
    dataset = DatasetTables.open(url)
    if dataset.is_local or not dataset.gc(dry_run=True, older_than_hours=0.0):
        return None
    return (
        f"its bytes are still in the store: in 24 hours `dailies gc {url}` removes them; "
        f"at once, if no other run writes to the dataset, `dailies gc {url} --older-than 0`"
    )


def withdraw(dataset: DatasetTables, source_ids: Sequence[str], *, keep_spans: bool = False) -> dict[str, int]:
    """Delete the rows of these sources, and bring what the exports say of themselves up to date; rows deleted per table.

    ``keep_spans``: see ``DatasetTables.withdraw``.
    Every export is looked at, so that a second call finishes what a killed one left.
    """
    with _counting_exports(dataset) as bar:
        return _withdraw(dataset, source_ids, bar, keep_spans=keep_spans)


@contextmanager
def _counting_exports(dataset: DatasetTables) -> Iterator[Bar]:
    """Show how far a withdrawal is; its last line comes after all that can go wrong."""
    exports = dataset.exports()
    with (progress_in_force() if exports else silent)("withdraw", len(exports), "exports") as bar:
        yield bar


def _withdraw(
    dataset: DatasetTables, source_ids: Sequence[str], bar: Bar, *, keep_spans: bool = False
) -> dict[str, int]:
    counts = dataset.withdraw(source_ids, keep_spans=keep_spans, bar=bar)
    for name in dataset.exports():
        recount(dataset.folder / "exports" / name)
    return counts
