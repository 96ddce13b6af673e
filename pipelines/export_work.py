"""The two stages of an export: clips are extracted from their sources into files, and put together to shards from these and
from earlier exports."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, ClassVar

import pyarrow as pa
import pyarrow.parquet as pq

from dailies.curation import export, export_schema
from dailies.curation.export import ExtractSettings
from dailies.curation.policy import SourcePolicy
from dailies.curation.tables import Folder
from dailies.curation.types import Resources
from dailies.pipelines.isolate import Isolated
from dailies.pipelines.stages import MEMORY_GB

EXTRACTED = "extracted"  # the folder, within a staging folder, of files that clips were extracted into
LOCATION = ["extracted", "at", "row", "export"]
"""Columns that say where a clip's bytes lie: a file that it was extracted into, or a shard of an earlier export, row group and
row, and that export's name."""

TAKEN_OVER = (
    "taken_over"  # a column that the index has until the export is whole: whether a clip is of an earlier export
)


@dataclass(frozen=True, kw_only=True)
class Written:
    """Receipt of one file: of a batch's clips, or of a shard.

    ``lost``: by clip, why it cannot be taken from an earlier export; where there are any, the shard is still to be written.
    """

    name: str
    clips: int
    failed: int
    lost: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class ExtractWork:
    """Extract batches of clips into files under ``staging``, in a child process with a time limit."""

    staging: str
    settings: ExtractSettings
    stall_seconds: float
    policy: SourcePolicy = SourcePolicy()  # noqa: RUF009 - frozen
    private_sources: bool = False
    name: ClassVar[str] = "extract"
    receipt: ClassVar[type] = Written
    resources: ClassVar[Resources] = Resources(cpus=1, memory_gb=1)

    @contextmanager
    def open(self) -> Iterator[Callable[[pa.Table], Written]]:
        with Isolated(
            "dailies.curation.export.extraction:extract_clip",
            answer=dict[str, Any],
            policy=self.policy,
            stall_seconds=self.stall_seconds,
            memory_gb=MEMORY_GB,
        ) as child:

            def extract(clip: Mapping[str, Any]) -> Mapping[str, Any]:
                row: dict[str, Any] = child.call(dict(clip), self.settings)
                return row | {"clip_id": clip["clip_id"]}  # a file that took the child over speaks for no other clip

            def call(bundle: pa.Table) -> Written:
                name = bundle["file"][0].as_py()
                with (Folder.beneath(self.staging) / EXTRACTED).new_file(name) as file:
                    failed = export.write_extracted(
                        file, bundle.drop_columns("file").to_pylist(), extract, private_sources=self.private_sources
                    )
                return Written(name=name, clips=len(bundle), failed=failed)

            yield call


@dataclass(frozen=True, kw_only=True)
class ShardWork:
    """Put shards in ``staging`` together from the files that clips were extracted into, and from earlier ``exports``.

    ``exports``: the folder that these lie in; ``settings``: by which the clips of both are extracted.
    """

    staging: str
    exports: str
    settings: ExtractSettings
    columns: Sequence[pa.Field]
    memory_gb: float
    name: ClassVar[str] = "export"
    receipt: ClassVar[type] = Written

    @property
    def resources(self) -> Resources:
        return Resources(cpus=1, memory_gb=self.memory_gb)

    @contextmanager
    def open(self) -> Iterator[Callable[[pa.Table], Written]]:
        staging, index_schema = Folder.beneath(self.staging), export_schema.export_index(self.columns)

        def call(bundle: pa.Table) -> Written:
            name = bundle["file"][0].as_py()
            clips = bundle.to_pylist()
            extracted, lost = self._read(staging / EXTRACTED, clips)
            if lost:
                return Written(name=name, clips=0, failed=0, lost=lost)
            taken_over = {clip["clip_id"] for clip in clips if clip["export"] is not None}

            def extract(clip: Mapping[str, Any]) -> Mapping[str, Any]:
                return export.read_extracted(extracted.pop(clip["clip_id"]))

            for clip in clips:
                for column in ("file", *LOCATION):
                    del clip[column]
            with (staging / "data").new_file(name) as file:
                index = export.write_shard(file, name, clips, self.columns, extract)
            ok = sum(row["status"] == "ok" for row in index)
            if not ok:
                (staging / "data").delete(name)
            rows = pa.Table.from_pylist(index, schema=index_schema)
            taken = pa.array([row["clip_id"] in taken_over for row in index], pa.bool_())
            with (staging / "index").new_file(name) as file:
                pq.write_table(rows.append_column(TAKEN_OVER, taken), file, compression="zstd")
            return Written(name=name, clips=len(index), failed=len(index) - ok)

        yield call

    def _read(
        self, extracted: Folder, clips: Sequence[Mapping[str, Any]]
    ) -> tuple[dict[str, dict[str, Any]], dict[str, str]]:
        """Return rows of ``export.EXTRACTED`` by clip, and, by clip, why those of earlier exports cannot be taken.

        Each file is opened once.
        """
        places: dict[tuple[str | None, str], dict[int, dict[int, Mapping[str, Any]]]] = {}
        rows: dict[str, dict[str, Any]] = {}
        lost: dict[str, str] = {}
        for clip in clips:
            place = places.setdefault((clip["export"], clip["extracted"]), {}).setdefault(clip["at"], {})
            if place.setdefault(clip["row"], clip) is not clip:
                shard = f"{self.exports}/{clip['export']}/{clip['extracted']}"
                lost[clip["clip_id"]] = f"{shard}: its index names its row twice"
        for (earlier, name), groups in places.items():
            if earlier is not None:
                taken, wrong = export.take_clips(Folder.at(self.exports) / earlier, name, groups, self.settings)
                rows |= {row["clip_id"]: row for row in taken}
                lost |= wrong
                continue
            with extracted.parquet(name) as file:
                for group, there in groups.items():
                    for row in file.read_row_group(group).take(list(there)).to_pylist():
                        rows[row["clip_id"]] = row
        return rows, lost
