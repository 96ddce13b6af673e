"""Exporting a selection: shards made in a staging folder, one file at a time, and shown when all are there.

The export's name carries a fingerprint of its clips and settings, so another selection is another export and the same one
is never made twice. A shard is done when its part of the index is there; a killed export goes on with the next shard.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from importlib.metadata import version
from typing import Any, ClassVar

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from curation import export, schema
from curation.clips import SPLITS
from curation.dataset import Dataset
from curation.export import Encoding
from curation.files import Folder
from curation.isolate import Isolated
from curation.types import Resources
from pipelines import engine as engines
from pipelines.progress import progress
from pipelines.recipe import Recipe
from pipelines.stages import MEMORY_GB
from pipelines.steps import ExportStep, ObserveStep
from pipelines.summary import ExportReport


@dataclass(frozen=True, kw_only=True)
class ShardWritten:
    """Receipt of one shard."""

    name: str
    clips: int
    failed: int


@dataclass(frozen=True, kw_only=True)
class ExportWork:
    """Make shards in ``staging``, cutting clips out in a child process with a time limit."""

    staging: str
    encoding: Encoding
    columns: Sequence[pa.Field]
    stall_seconds: float
    name: ClassVar[str] = "export"
    resources: ClassVar[Resources] = Resources(cpus=1, memory_gb=1)

    @contextmanager
    def open(self) -> Iterator[Callable[[pa.Table], ShardWritten]]:
        with Isolated("curation.export:cut_clip", stall_seconds=self.stall_seconds, memory_gb=MEMORY_GB) as child:

            def cut(clip: Mapping[str, Any]) -> Mapping[str, Any]:
                made: Mapping[str, Any] = child.call(dict(clip), self.encoding)
                return made

            index_schema = schema.export_index(self.columns)

            def call(bundle: pa.Table) -> ShardWritten:
                name = bundle["shard"][0].as_py()
                clips = bundle.drop_columns("shard").to_pylist()
                staging = Folder.at(self.staging)
                with (staging / "data").new_file(name) as file:
                    index = export.write_shard(file, name, clips, self.columns, cut)
                ok = sum(row["status"] == "ok" for row in index)
                if not ok:
                    (staging / "data").delete(name)
                _write_table(staging / "index", name, pa.Table.from_pylist(index, schema=index_schema))
                return ShardWritten(name=name, clips=len(index), failed=len(index) - ok)

            yield call


def _write_table(folder: Folder, name: str, table: pa.Table) -> None:
    with folder.new_file(name) as file:
        pq.write_table(table, file, compression="zstd")


def export_selection(
    dataset: Dataset,
    recipe: Recipe,
    step: ExportStep,
    clips: pa.Table,
    columns: Sequence[pa.Field],
    selection: Mapping[str, Any],
    *,
    engine: engines.Engine,
    quiet: bool,
) -> ExportReport:
    """Make the export of ``clips`` (the kept ones, with ``columns``), or find it made already."""
    if not len(clips):
        return ExportReport(name=step.name, path=None, splits={}, failed=0, bytes=0, seconds=0.0)
    encoding = Encoding(crf=step.crf, preset=step.preset, max_short_side=step.max_short_side)
    scored = [table for table in recipe.tables().values() if not table.startswith("selections/")]
    wanted = sorted(clips["clip_id"].to_pylist())
    meaning = [wanted, asdict(encoding), encoding.meaning, step.seed, step.shard_mb, scored]
    exports = dataset.folder / "exports"
    name, made = _place(dataset, f"{step.name}@{schema.fingerprint(meaning)}", wanted)
    if not made:
        staging = exports / f".staging-{name}"
        shards = export.plan(clips, seed=step.seed, shard_bytes=step.shard_mb * 1_000_000)
        work = ExportWork(
            staging=staging.url, encoding=encoding, columns=columns, stall_seconds=recipe.one(ObserveStep).stall_seconds
        )
        _make(work, staging, shards, engine, quiet)
        facts = {
            "name": name,
            "recipe": recipe.name,
            "recipe_hash": recipe.hash,
            "selection": step.select,
            "rules": selection["rules"],
            "limits": selection["limits"],
            "tables": {**selection["tables"], recipe.observations: dataset.table(recipe.observations).version()},
            "encoding": asdict(encoding),
            "seed": step.seed,
            "version": version("dailies"),
        }
        if not _show(staging, exports / name, shards, facts):
            return ExportReport(name=step.name, path=None, splits={}, failed=len(clips), bytes=0, seconds=0.0)
    return report(step.name, exports / name)


def _place(dataset: Dataset, name: str, wanted: Sequence[str]) -> tuple[str, bool]:
    """The export's name, and whether it stands there with just these clips.

    One that lost clips to a withdrawal keeps its name, and the new one gets a number.
    """
    there = dataset.exports()
    for number in range(1, len(there) + 2):
        numbered = name if number == 1 else f"{name}.{number}"
        if numbered not in there:
            return numbered, False
        index = dataset.folder / "exports" / numbered
        ids = pq.read_table(index.file("index.parquet"), columns=["clip_id"], filesystem=index.fs)["clip_id"]
        if sorted(ids.to_pylist()) == wanted:
            return numbered, True
    raise AssertionError("there are more numbers than exports")


def _make(
    work: ExportWork, staging: Folder, shards: Sequence[export.Shard], engine: engines.Engine, quiet: bool
) -> None:
    todo = [shard for shard in shards if not _is_done(staging, shard.name)]
    units = (shard.clips.append_column("shard", pa.array([shard.name] * len(shard.clips))) for shard in todo)
    total = sum(len(shard.clips) for shard in todo)
    done = sum(len(shard.clips) for shard in shards) - total
    with progress("export", total, "clips", already=done, quiet=quiet) as bar:
        for written in engines.run(work, (unit.combine_chunks() for unit in units), engine):
            bar.advance(written.clips, written.failed)


def _is_done(staging: Folder, shard: str) -> bool:
    """A shard of an unfinished export is done when its part of the index is there and names no failure."""
    parts = staging / "index"
    if not parts.holds(shard):
        return False
    status = pq.read_table(parts.file(shard), columns=["status"], filesystem=parts.fs)["status"]
    return "failed" not in status.to_pylist()


def _show(staging: Folder, final: Folder, shards: Sequence[export.Shard], facts: Mapping[str, Any]) -> bool:
    """Join the parts of the index, write the card, and move the whole into place; not if no clip could be cut out."""
    parts = staging / "index"
    index = pa.concat_tables(pq.read_table(parts.file(shard.name), filesystem=parts.fs) for shard in shards)
    if not pc.any(pc.equal(index["status"], "ok")).as_py():
        return False
    staging.write("README.md", export.card(index, facts).encode())
    _write_table(staging, "index.parquet", index)
    if staging.local:
        parts.fs.delete_dir(parts.path)
        parts.fs.move(staging.path, final.path)
        return True
    # Object stores cannot rename a folder; an export without its index is not one yet, so the index goes last.
    names = [f"data/{(staging / 'data').relative(info)}" for info in (staging / "data").list()]
    for name in [*names, "README.md", "index.parquet"]:
        parts.fs.move(staging.file(name), final.file(name))
    parts.fs.delete_dir(staging.path)
    return True


def report(name: str, folder: Folder) -> ExportReport:
    """What an export holds, from its index."""
    columns = ["split", "status", "bytes", "seconds"]
    rows = pq.read_table(folder.file("index.parquet"), columns=columns, filesystem=folder.fs).to_pylist()
    ok = [row for row in rows if row["status"] == "ok"]
    return ExportReport(
        name=name,
        path=folder.url,
        splits={split: n for split in SPLITS if (n := sum(row["split"] == split for row in ok))},
        failed=len(rows) - len(ok),
        bytes=sum(row["bytes"] for row in ok),
        seconds=sum(row["seconds"] for row in ok),
    )
