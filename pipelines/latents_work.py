"""One shard of latents: read row group by row group, encoded clip by clip, and written with its part of the index."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

import pyarrow as pa
import pyarrow.parquet as pq

from dailies.curation import schema
from dailies.curation.errors import SourceError
from dailies.curation.tables import Folder
from dailies.curation.tables.storage import layout
from dailies.curation.types import Resources
from dailies.pipelines.exporting import Written
from dailies.pipelines.isolate import Isolated
from dailies.pipelines.stages import MEMORY_GB
from dailies.training.data.manifest import Facts

if TYPE_CHECKING:
    from dailies.training.diffusion.encoders import Encoders, Models
    from dailies.training.models.pixels import Pixels

# Samples are read one at a time, in random order, and each takes a whole row group from the disk.
GROUP_BYTES = 4 << 20
STALL_SECONDS = 120.0  # a clip that takes longer to decode is given up
INDEX = schema.export_index([])
WHERE = ("status", "failure", "shard", "row_group", "row", "bytes")  # of its columns


def read_clip(
    row: Mapping[str, Any],
    facts: Facts,
    size: tuple[int, int],
    first: int,
    count: int,
    beat: Callable[[], None] = lambda: None,
) -> Pixels:
    """Frames [first, first + count) of a clip on the grid, covering ``size`` px: for a child process."""
    from dailies.training.data.reader import read

    beat()
    return read(row, facts.fps, count, size, facts.reader, first=first)


@dataclass(frozen=True, kw_only=True)
class Clip:
    """A row of the export, and the columns that stand in place of its video, or why there are none."""

    row: Mapping[str, Any]
    media: Mapping[str, Any] = field(default_factory=dict)
    failure: Mapping[str, str] | None = None

    @property
    def bytes(self) -> int:
        views = sum(len(view["moments"]) + sum(map(len, view["shown"])) for view in self.media["views"])
        return views + sum(len(value) for name, value in self.media.items() if name != "views")


@dataclass(frozen=True, kw_only=True)
class LatentsWork:
    """Make the shards of ``source`` that bundles name again under ``staging``, as ``facts`` say."""

    source: str
    staging: str
    facts: Facts
    models: Models
    device: str
    name: ClassVar[str] = "latents"

    @property
    def resources(self) -> Resources:
        if self.device.startswith("cuda"):
            return Resources(cpus=1, gpus=1, memory_gb=4)
        # A VAE's first level: 128 channels of float32 for each pixel of 16 frames, about three times at once.
        pixels = max(width * height * min(16, frames) for (width, height), frames in self._shapes())
        return Resources(cpus=1, memory_gb=2 + pixels * 128 * 4 * 3 / 1e9)

    def _shapes(self) -> Iterator[tuple[tuple[int, int], int]]:
        for shape in self.facts.buckets:
            yield shape.size, shape.frames * self.facts.views

    @contextmanager
    def open(self) -> Iterator[Callable[[pa.Table], Written]]:
        from dailies.training.diffusion.encoders import Encoders
        from dailies.training.distributed import pick_device

        device = pick_device(self.device)
        encoders = Encoders(self.models, text_tokens=self.facts.text_tokens or 1, device=device)
        with Isolated(
            "dailies.pipelines.latents_work:read_clip", stall_seconds=STALL_SECONDS, memory_gb=MEMORY_GB
        ) as child:
            yield lambda bundle: self._shard(bundle["file"][0].as_py(), encoders, child)

    def _shard(self, name: str, encoders: Encoders, child: Isolated) -> Written:
        from dailies.training.data.latent_crops import columns

        source, staging = Folder.at(self.source) / "data", Folder.at(self.staging)
        with pq.ParquetFile(source.file(name), filesystem=source.fs) as file:
            plain = [column for column in file.schema_arrow if column.name != "video"]
            made = pa.schema([*plain, *columns(self.facts)])
            index: list[dict[str, Any]] = []
            with (
                (staging / "data").new_file(name) as sink,
                pq.ParquetWriter(sink, made, **layout(made)) as writer,
            ):
                for rows in _grouped(self._clips(file, encoders, child), index, f"data/{name}"):
                    writer.write_table(pa.Table.from_pylist(rows, schema=made), row_group_size=len(rows))
        failed = sum(row["status"] != "ok" for row in index)
        if failed == len(index):
            (staging / "data").delete(name)
        table = pa.Table.from_pylist(index, schema=pa.schema([*plain, *(INDEX.field(name) for name in WHERE)]))
        with (staging / "index").new_file(name) as sink:
            pq.write_table(table, sink, compression="zstd")
        return Written(name=name, clips=len(index), failed=failed)

    def _clips(self, file: pq.ParquetFile, encoders: Encoders, child: Isolated) -> Iterator[Clip]:
        """The clips that pass select, in order."""
        plain = [name for name in file.schema_arrow.names if name != "video"]
        for group in range(file.num_row_groups):
            rows = file.read_row_group(group, columns=plain).to_pylist()
            chosen = [number for number, row in enumerate(rows) if passes(row, self.facts.select)]
            if not chosen:
                continue
            videos = file.read_row_group(group, columns=["video"])["video"]
            for number in chosen:
                row = rows[number]
                try:
                    yield Clip(row=row, media=self._made(row, videos[number].as_py(), encoders, child))
                except SourceError as error:
                    yield Clip(row=row, failure={"stage": self.name, "kind": error.kind, "message": str(error)})

    def _made(self, row: Mapping[str, Any], data: bytes | None, encoders: Encoders, child: Isolated) -> dict[str, Any]:
        """The columns that stand in place of the video. Raises ``SourceError``."""
        from dailies.training.data.items import grid_length
        from dailies.training.data.latent_crops import NotFinite, encode_texts, encode_views, places
        from dailies.training.data.schedule import bucket_of

        facts = self.facts
        length = grid_length(row["frames"], row["fps"], facts.fps)
        bucket = bucket_of((row["width"], row["height"]), length, facts.buckets)
        if bucket is None:
            least = min(shape.frames for shape in facts.buckets)
            raise _failure("too_short", f"{length} frames at {facts.fps:g} 1/s, and {least} are needed")

        def frames(first: int, last: int) -> Pixels:
            pixels: Pixels = child.call({**row, "video": data}, facts, facts.buckets[bucket].size, first, last - first)
            return pixels

        try:
            where = places(facts, row["clip_id"], held_out=row["split"] != "train")
            texts = encode_texts(row, facts, encoders.text) if facts.captions else {}
            return {"views": encode_views(frames, length, where, facts, bucket, encoders.vae.moments), **texts}
        except NotFinite as error:
            raise _failure("not_finite", str(error)) from error


def _failure(kind: str, message: str) -> SourceError:
    error = SourceError(message)
    error.kind = kind
    return error


def passes(row: Mapping[str, Any], rules: Sequence[tuple[str, float | None, float | None]]) -> bool:
    from dailies.training.data.split import passes  # loads torch

    return passes(row, rules)


def _grouped(clips: Iterable[Clip], index: list[dict[str, Any]], shard: str) -> Iterator[list[dict[str, Any]]]:
    """Rows in groups of about ``GROUP_BYTES``; each clip's place, or why it has none, goes to ``index``."""
    group: list[dict[str, Any]] = []
    held = number = 0
    for clip in clips:
        if clip.failure is not None:
            index.append({**clip.row, "status": "failed", "failure": clip.failure})
            continue
        size = clip.bytes
        if group and held + size > GROUP_BYTES:
            yield group
            group, held, number = [], 0, number + 1
        place = {"shard": shard, "row_group": number, "row": len(group), "bytes": size}
        index.append({**clip.row, "status": "ok", **place})
        group.append({**clip.row, **clip.media})
        held += size
    if group:
        yield group
