"""Exporting a selection: shards made in a staging folder, one file at a time, and shown when all are there.

The export's name carries a fingerprint of its clips and settings, so another selection is another export and the same one is never
made twice. A shard is done when its part of the index is there; a killed export goes on with the next shard.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from importlib.metadata import version
from typing import Any, ClassVar

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
from curation.dataset import Dataset
from curation.isolate import Isolated

from curation import export, schema
from curation.errors import DailiesError
from curation.export import Encoding
from curation.types import Resources
from pipelines import engine as engines
from pipelines.progress import progress
from pipelines.recipe import ExportStep, ObserveStep, Recipe
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
        with Isolated("curation.export:cut_clip", stall_seconds=self.stall_seconds) as child:

            def cut(clip: Mapping[str, Any]) -> Mapping[str, Any]:
                made: Mapping[str, Any] = child.call(dict(clip), self.encoding)
                return made

            def call(bundle: pa.Table) -> ShardWritten:
                name = bundle["shard"][0].as_py()
                clips = bundle.drop_columns("shard").to_pylist()
                fs, root = fsspec.core.url_to_fs(self.staging)
                with _whole(fs, f"{root}/data/{name}") as file:
                    index = export.write_shard(file, name, clips, self.columns, cut)
                ok = sum(row["status"] == "ok" for row in index)
                if not ok:
                    fs.rm(f"{root}/data/{name}")
                with _whole(fs, f"{root}/index/{name}") as file:
                    pq.write_table(pa.Table.from_pylist(index, schema=schema.export_index(self.columns)), file)
                return ShardWritten(name=name, clips=len(index), failed=len(index) - ok)

            yield call


@contextmanager
def _whole(fs: Any, path: str) -> Iterator[Any]:
    """A file that appears at ``path`` when it is written to the end, or not at all."""
    fs.makedirs(path.rsplit("/", 1)[0], exist_ok=True)
    with fs.open(f"{path}.tmp", "wb") as file:
        yield file
    fs.mv(f"{path}.tmp", path)


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
    """Make the export of ``clips`` (the kept ones, with ``columns``), or find it made. Raises when nothing is left to export."""
    if not len(clips):
        return ExportReport(name=step.name, path=None, splits={}, failed=0, bytes=0, seconds=0.0)
    encoding = Encoding(crf=step.crf, preset=step.preset, max_short_side=step.max_short_side)
    meaning = [sorted(clips["clip_id"].to_pylist()), asdict(encoding), encoding.meaning, step.seed, step.shard_mb, recipe.clips]
    name = f"{step.name}@{schema.fingerprint([*meaning, [column.name for column in columns]])}"
    final = f"{dataset.url}/exports/{name}"
    if name not in dataset.exports():
        staging = f"{dataset.url}/exports/.staging-{name}"
        shards = export.plan(clips, seed=step.seed, shard_bytes=step.shard_mb * 1_000_000)
        work = ExportWork(
            staging=staging, encoding=encoding, columns=columns, stall_seconds=recipe.one(ObserveStep).stall_seconds
        )
        _make(work, shards, engine, quiet)
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
        _show(staging, final, shards, facts)
    return report(step.name, final)


def _make(work: ExportWork, shards: Sequence[export.Shard], engine: engines.Engine, quiet: bool) -> None:
    fs, root = fsspec.core.url_to_fs(work.staging)
    todo = [shard for shard in shards if not fs.exists(f"{root}/index/{shard.name}")]
    units = (shard.clips.append_column("shard", pa.array([shard.name] * len(shard.clips))) for shard in todo)
    total = sum(len(shard.clips) for shard in todo)
    done = sum(len(shard.clips) for shard in shards) - total
    with progress("export", total, "clips", already=done, quiet=quiet) as bar:
        for written in engines.run(work, (unit.combine_chunks() for unit in units), engine):
            bar.advance(written.clips, written.failed)


def _show(staging: str, final: str, shards: Sequence[export.Shard], facts: Mapping[str, Any]) -> None:
    """Join the parts of the index, write the card, and move the whole into place; the index goes last."""
    fs, root = fsspec.core.url_to_fs(staging)
    _, target = fsspec.core.url_to_fs(final)
    parts = []
    for shard in shards:
        with fs.open(f"{root}/index/{shard.name}") as file:
            parts.append(pq.read_table(file))
    index = pa.concat_tables(parts)
    if not pa.compute.any(pa.compute.equal(index["status"], "ok")).as_py():
        reasons = {row["failure"]["message"] for row in index.select(["failure"]).to_pylist()}
        raise DailiesError(f"none of {len(index)} clips could be cut out: {'; '.join(sorted(reasons)[:3])}")
    with fs.open(f"{root}/README.md", "wb") as file:
        file.write(export.card(index, facts).encode())
    with _whole(fs, f"{root}/index.parquet") as file:
        pq.write_table(index, file, compression="zstd")
    fs.rm(f"{root}/index", recursive=True)
    if "file" in fs.protocol:
        fs.mv(root, target, recursive=True)
        return
    # Object stores cannot rename a folder; an export without its index is not one yet, so the index goes last.
    for path in sorted(fs.find(root), key=lambda path: path.endswith("/index.parquet")):
        fs.mv(path, target + path.removeprefix(root))


def report(name: str, path: str) -> ExportReport:
    """What an export holds, from its index."""
    with fsspec.open(f"{path}/index.parquet") as file:
        rows = pq.read_table(file, columns=["split", "status", "bytes", "seconds"]).to_pylist()
    ok = [row for row in rows if row["status"] == "ok"]
    return ExportReport(
        name=name,
        path=path,
        splits={split: n for split in export.SPLITS if (n := sum(row["split"] == split for row in ok))},
        failed=len(rows) - len(ok),
        bytes=sum(row["bytes"] for row in ok),
        seconds=sum(row["seconds"] for row in ok),
    )
