"""A dataset at a URL: a folder of Delta Lake tables and of exports, with one writing run at a time.

::

    dataset.json                     says that this is a dataset
    .lock                            held by the run that writes (local disks only)
    observations@FP/  clips/CUTS@FP/  scores/NAME@FP/  captions/NAME@FP/  selections/NAME/  spans/  runs/
    signatures/NAME@FP/  duplicates/NAME@FP/  withdrawn/  places/
    exports/NAME@FP/                 data/*.parquet, index.parquet, README.md: plain Parquet
    exports/latest                   names the newest of them (local disks only)
    exports/.staging-…/              an export in the making

This module opens, locks, withdraws and collects garbage; ``Table`` reads and commits, and ``write_part`` is the worker's end.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.fs as pafs

from dailies.curation import schema
from dailies.curation.config import read_object
from dailies.curation.errors import DatasetError, Unsafe
from dailies.curation.folders import what_lies_at
from dailies.curation.locking import only_writer
from dailies.curation.progress import Bar, progress_in_force, silent
from dailies.curation.retrying import CREDENTIALS, cause_of
from dailies.curation.tables.regroup import regroup
from dailies.curation.tables.shards import shards_of
from dailies.curation.tables.storage import Folder
from dailies.curation.tables.table import Table
from dailies.curation.tables.withdraw import withdraw_from_export

MARKER = "dataset.json"
LOCK = ".lock"
MANY = 1000  # files, which take some time to delete
FORMAT = 1
LATEST = "latest"  # in ``exports``, on a disk: the link that names the newest one

GROUPS = ("clips", "scores", "captions", "signatures", "duplicates", "selections")
NAME = r"[A-Za-z0-9_.-]+"
TABLE_NAME = re.compile(
    rf"observations@{NAME}|(clips|scores|captions|signatures|duplicates)/{NAME}@{NAME}|"
    rf"selections/{NAME}|spans|runs|withdrawn|places"
)


@dataclass(frozen=True, slots=True)
class Garbage:
    """A file that nothing refers to: ``path`` in the dataset, ``size`` in bytes."""

    path: str
    size: int


class DatasetTables:
    """A dataset in a folder. ``DatasetTables.create`` makes one, ``DatasetTables.open`` opens one that is there."""

    __slots__ = ("_writing", "folder")

    def __init__(self, folder: Folder) -> None:
        self.folder = folder
        self._writing = 0

    def __repr__(self) -> str:
        return f"DatasetTables({self.url!r})"

    @property
    def url(self) -> str:
        return self.folder.url

    @property
    def is_local(self) -> bool:
        """Return whether the dataset lies on a disk, where ``writer`` keeps other runs out."""
        return self.folder.local

    @classmethod
    def create(cls, url: str | Path) -> DatasetTables:
        """Open the dataset at ``url``, making it if there is none. Raises ``DatasetError`` where something else lies there."""
        folder = Folder.at(url)
        if folder.local and what_lies_at(folder.path) == "a file":
            raise DatasetError(f"{folder.url}: a file; name a new or an empty folder for the dataset")
        try:
            if not folder.reached(MARKER):
                if any(not _temporary(info.path) for info in folder.list()):
                    what = what_lies_at(folder.path) if folder.local else None
                    raise DatasetError(
                        f"{folder.url}: {f'{what}, not' if what else 'not empty, and not'} a dataset; "
                        "name a new or an empty folder"
                    )
                folder.write(MARKER, json.dumps({"format": FORMAT, "made_by": "dailies"}).encode())
        except OSError as error:
            raise DatasetError(f"{folder.url}: a dataset cannot be created there: {cause_of(error)}") from error
        return cls.open(url)

    @classmethod
    def open(cls, url: str | Path) -> DatasetTables:
        """Open the dataset at ``url``. Raises ``DatasetError`` where there is none, or one of a later format."""
        folder = Folder.at(url)
        try:
            if not folder.reached(MARKER):
                raise DatasetError(f"{folder.url}: there is no dataset{_instead(folder)}")
            content = folder.read(MARKER)
        except OSError as error:
            raise DatasetError(f"{folder.url}: cannot be read: {cause_of(error)}") from error
        try:
            marker = read_object(content, f"{folder.url}/{MARKER}:", DatasetError)
        except DatasetError as error:
            # Without credentials Arrow frames an upload, and does not sign that it did; some stores then keep the frame.
            framed = b"x-amz-checksum" in content
            why = f"; {CREDENTIALS}, then delete it and try again" if framed else ""
            raise DatasetError(f"{error}{why}") from error
        if marker.get("format") != FORMAT:
            raise DatasetError(
                f"{folder.url}: format {marker.get('format')} is not {FORMAT}, which this version reads; update dailies"
            )
        return cls(folder)

    # ---- what is in it ----------------------------------------------------------------------------------------------

    def table(self, name: str, schema: pa.Schema | None = None) -> Table:
        """Return a table by its name in the dataset; it need not exist yet. For ``schema`` see ``Table``."""
        if not TABLE_NAME.fullmatch(name):
            raise DatasetError(
                f"table={name!r}: not a table's name; allowed: observations@FP, clips/CUTS@FP, scores/NAME@FP, "
                "captions/NAME@FP, signatures/NAME@FP, duplicates/NAME@FP, selections/NAME, spans, runs, withdrawn, places"
            )
        return Table(name, self.folder / name, schema)

    def tables(self) -> list[str]:
        """Return the names of the tables that exist, sorted."""
        return [name for name in self._table_folders() if self.table(name).exists()]

    def runs(self, columns: Sequence[str]) -> pa.Table:
        """Return the runs in the order in which they were recorded: by number, since a clock may be set back.

        Those from before runs had a number come first, by the clock.
        """
        table = self.table("runs")
        if not table.exists():
            return schema.RUNS.empty_table().select(columns)
        order = [name for name in ("number", "started") if name in table.schema.names]
        rows = table.read([*columns, *(name for name in order if name not in columns)])
        keys = [(name, "ascending", "at_start") for name in order]
        return rows.take(pc.sort_indices(rows, sort_keys=keys)).select(columns)

    def exports_by_age(self) -> list[str]:
        """Return the finished exports: the last is the one that the newest run made, or found again.

        Those from before runs named them come first, by the clock.
        """
        runs: dict[str, int] = {}
        for number, tables in enumerate(self.runs(["tables"])["tables"].to_pylist()):
            runs |= dict.fromkeys(tables_named(tables), number)

        def age(name: str) -> tuple[int, float, str]:
            folder = self.folder / "exports" / name
            time = folder.fs.get_file_info(folder.file("index.parquet")).mtime.timestamp()
            return runs.get(f"exports/{name}", -1), time, name

        return sorted(self.exports(), key=age)

    def exports(self) -> list[str]:
        """Return the names (``NAME@FP``) of the finished exports, sorted."""
        exports = self.folder / "exports"
        links = {exports.relative(info) for info in exports.list() if info.type == pafs.FileType.Unknown}
        names = [
            name for name in _folders(exports) if not name.startswith(".") and not (name == LATEST and name in links)
        ]
        return [name for name in names if _is_finished(exports / name)]

    def _table_folders(self) -> list[str]:
        """Return folders that hold a table, or the parts of one whose first commit never came."""
        names = _folders(self.folder)
        for group in GROUPS:
            names += [f"{group}/{name}" for name in _folders(self.folder / group)]
        return sorted(name for name in names if TABLE_NAME.fullmatch(name))

    # ---- one writer at a time ----------------------------------------------------------------------------------------------

    @contextmanager
    def writer(self) -> Iterator[None]:
        """Keep other runs from writing; raises ``DatasetError`` naming the process that does already.

        The lock is the operating system's, so that it goes with the process however that ends, and is not shared
        with its children. May be entered again through the same object. On an object store nothing is locked: there, of
        two runs that write one table the second to commit fails (see ``Table``), and gc must spare young files.
        """
        if self._writing or not self.is_local:
            self._writing += 1
            try:
                yield
            finally:
                self._writing -= 1
            return
        with only_writer(f"{self.folder.path}/{LOCK}", self.url, DatasetError):
            self._writing = 1
            try:
                yield
            finally:
                self._writing = 0

    # ---- withdrawing and garbage --------------------------------------------------------------------------------------------

    def withdraw(
        self, source_ids: Iterable[str], *, keep_spans: bool = False, bar: Bar | None = None
    ) -> dict[str, int]:
        """Delete the rows of these sources from every table and export; returns their number in each.

        ``keep_spans``: leave what manifests named of them, for a source that is to be made again. ``bar``: counts exports.

        What was made from a source goes before the source, and so a run that is killed leaves nothing without its
        origin; a second one finishes. The bytes themselves are gone from the disk after ``gc``.
        """
        sources = sorted(set(source_ids))
        counts = {}
        with self.writer():
            for name in self.exports():
                counts[f"exports/{name}"] = withdraw_from_export(self.folder / "exports" / name, sources)
                if bar is not None:
                    bar.advance()
            derived = ("selections/", "duplicates/", "signatures/", "captions/", "scores/")
            order = (*derived, "clips/", "spans", "observations@", "places")
            for start in order:
                if start == "spans" and keep_spans:
                    continue
                for name in self.tables():
                    if name.startswith(start):
                        counts[name] = self.table(name).delete(sources)
                        if start == "duplicates/":
                            regroup(self.table(name))
        return counts

    def withdraw_spans(self, spans: Iterable[Mapping[str, Any]], *, kept: Collection[str] = ()) -> None:
        """Delete the clips of these rows of ``schema.SPANS`` from every table of clips, and their sources from every export.

        They can then be made again with other columns. ``kept``: the tables of scores and captions that do not depend on
        those, and so keep their rows of these clips; they go from the others, before the clips do, so that a second run
        finishes what a killed one left.
        """
        rows = list(spans)
        sources = sorted({row["source_id"] for row in rows})
        ids = pa.array([row["span_id"] for row in rows], pa.string())
        wholes = pa.array([row["source_id"] for row in rows if row["start"] is None], pa.string())
        with self.writer():
            for name in self.exports():
                withdraw_from_export(self.folder / "exports" / name, sources)
            tables = self.tables()
            dependent = [name for name in tables if name.startswith(("scores/", "captions/")) and name not in kept]
            for name in tables:
                if not name.startswith("clips/"):
                    continue
                table = self.table(name)
                chosen = pc.field("source_id").isin(wholes)
                if "span_id" in table.schema.names:  # else made before there were such spans
                    chosen = (chosen & pc.field("span_id").is_null()) | pc.field("span_id").isin(ids)
                clips = table.read(["clip_id"], filter=chosen)["clip_id"].combine_chunks()
                for other in dependent:
                    self.table(other).delete(sources, filter=pc.field("clip_id").isin(clips))
                table.delete(sources, filter=chosen)

    def gc(self, *, dry_run: bool = False, older_than_hours: float | None = None) -> list[Garbage]:
        """Remove the files that nothing refers to; returns them. Earlier versions of tables cannot be read after it.

        These are parts that no commit names, parts whose rows were replaced or withdrawn, exports that were not
        finished, and temporary files. Younger files than ``older_than_hours`` stay: by default none of them, but 24 on
        an object store, where another run's parts that await their commit look just the same.
        """
        hours = older_than_hours if older_than_hours is not None else 0.0 if self.is_local else 24.0
        before = datetime.now(UTC) - timedelta(hours=hours) if hours else None
        with self.writer():
            garbage = [info for info in self._unreferenced() if before is None or info.mtime < before]
            if not dry_run:
                show = progress_in_force() if len(garbage) >= MANY else silent
                with show("gc", len(garbage), "files") as bar:
                    for info in garbage:
                        self.folder.delete(self.folder.relative(info))
                        bar.advance()
                self._remove_empty_stagings()
        return [Garbage(self.folder.relative(info), info.size) for info in garbage]

    def _unreferenced(self) -> Iterator[pafs.FileInfo]:
        for name in self._table_folders():
            folder = self.folder / name
            current = self.table(name).files()
            for info in folder.list() + (folder / "_delta_log").list():
                path = folder.relative(info)
                part = path.endswith(".parquet") and "/" not in path and path not in current
                if info.type == pafs.FileType.File and (part or _temporary(path)):
                    yield info
        for name in self.exports():
            yield from _unlisted(self.folder / "exports" / name)
        for staging in self._stagings():
            yield from (info for info in staging.list(recursive=True) if info.type == pafs.FileType.File)
        for info in self.folder.list():
            if info.type == pafs.FileType.File and _temporary(self.folder.relative(info)):
                yield info

    def _stagings(self) -> list[Folder]:
        exports = self.folder / "exports"
        return [exports / name for name in _folders(exports) if name.startswith(".staging-")]

    def _remove_empty_stagings(self) -> None:
        for staging in self._stagings():
            if not any(info.type == pafs.FileType.File for info in staging.list(recursive=True)):
                staging.delete_tree()


def _instead(folder: Folder) -> str:
    """Return what lies where a dataset was looked for, and what to give."""
    what = what_lies_at(folder.path) if folder.local else None
    if what in (None, "nothing"):
        return "; dailies curate creates one"
    above = next((place for place in Path(folder.path).parents if (place / MARKER).is_file()), None)
    return f": it is {what}; give {f'the dataset that it lies in, {above}' if above else 'a folder that dailies curate made'}"


def tables_named(text: str | None) -> list[str]:
    """Return the tables and exports that a row of ``runs`` names. Raises ``DatasetError`` for what is no such list."""
    named = read_object(text or "{}", "tables of a run", DatasetError).values()
    if not all(isinstance(name, str) for name in named):
        raise DatasetError("tables of a run: names what is no text; get the dataset whole, from whom you trust")
    return list(named)


def _folders(parent: Folder) -> list[str]:
    """Return the names of its folders, and of the links among them, which whoever opens one refuses."""
    return [parent.relative(info) for info in parent.list() if info.type != pafs.FileType.File]


def _is_finished(export: Folder) -> bool:
    try:
        return export.holds("index.parquet")
    except Unsafe:  # something is there, and whoever reads it learns what
        return True


def _temporary(path: str) -> bool:
    """Return half of a file, ours or deltalake's (``….json#1`` and ``….json.tmp`` in a log)."""
    return path.endswith(".tmp") or re.search(r"\.(json|parquet)#\d+$", path) is not None


def _unlisted(export: Folder) -> Iterator[pafs.FileInfo]:
    """Yield files of a finished export that its index does not name: a withdrawal that was cut short leaves some."""
    shards = export.read_parquet("index.parquet", ["shard"])["shard"]
    listed = set(shards_of(export, shards))
    for info in export.list() + (export / "data").list():
        path = export.relative(info)
        if info.type == pafs.FileType.File and (
            _temporary(path) or (path.startswith("data/") and path.endswith(".parquet") and path not in listed)
        ):
            yield info
