"""One shard of latents: read row group by row group, encoded clip by clip, and written with its part of the index."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from dailies.curation import export_schema
from dailies.curation.errors import TooShort, item_error
from dailies.curation.policy import SourcePolicy
from dailies.curation.tables import Folder
from dailies.curation.tables.storage import layout
from dailies.curation.types import Resources
from dailies.pipelines.export_work import Written
from dailies.pipelines.isolate import Isolated
from dailies.pipelines.stages import MEMORY_GB

if TYPE_CHECKING:
    from dailies.training.data.manifest import LatentsManifest
    from dailies.training.diffusion.encoders import Encoders, Models
    from dailies.training.models.pixels import Pixels

# Samples are read one at a time, in random order, and each takes a whole row group from the disk.
GROUP_BYTES = 4 << 20
STALL_SECONDS = 120.0  # a clip that takes longer to decode is given up
INDEX_SCHEMA = export_schema.export_index([])
LOCATION = ("status", "failure", "shard", "row_group", "row", "bytes")  # of its columns


def read_clip(
    row: Mapping[str, Any],
    manifest: LatentsManifest,
    size: tuple[int, int],
    first: int,
    count: int,
    heartbeat: Callable[[], None] = lambda: None,
) -> Pixels:
    """Read frames [first, first + count) of a clip on the grid, covering ``size`` px. Runs in a child process."""
    from dailies.training.data.reader import read

    heartbeat()
    return read(row, manifest.fps, count, size, manifest.reader, first=first)


@dataclass(frozen=True, kw_only=True)
class EncodedClip:
    """A clip is a row of the export, and the columns that stand in place of its video, or why there are none."""

    row: Mapping[str, Any]
    media: Mapping[str, Any] = field(default_factory=dict)
    failure: Mapping[str, str] | None = None

    @property
    def bytes(self) -> int:
        """Size of all media in bytes."""
        crops = sum(len(crop["moments"]) + sum(map(len, crop["shown"])) for crop in self.media["views"])
        return crops + sum(len(value) for name, value in self.media.items() if name != "views")


@dataclass(frozen=True, kw_only=True)
class LatentsWork:
    """The work makes the shards of ``source`` that bundles name again under ``staging``, for ``manifest``."""

    source: str
    staging: str
    manifest: LatentsManifest
    models: Models
    device: str
    policy: SourcePolicy = SourcePolicy()  # noqa: RUF009 - frozen
    name: ClassVar[str] = "latents"
    receipt: ClassVar[type] = Written

    @property
    def resources(self) -> Resources:
        if self.device.startswith("cuda"):
            return Resources(cpus=1, gpus=1, memory_gb=4)
        # A VAE's first level: 128 channels of float32 for each pixel of 16 frames, about three times at once.
        pixels = max(width * height * min(16, frames) for (width, height), frames in self._shapes())
        return Resources(cpus=1, memory_gb=2 + pixels * 128 * 4 * 3 / 1e9)

    def _shapes(self) -> Iterator[tuple[tuple[int, int], int]]:
        for shape in self.manifest.buckets:
            yield shape.size, shape.frames * self.manifest.views

    @contextmanager
    def open(self) -> Iterator[Callable[[pa.Table], Written]]:
        from dailies.training.diffusion.encoders import Encoders
        from dailies.training.distributed import pick_device

        device = pick_device(self.device)
        encoders = Encoders(self.models, text_tokens=self.manifest.text_tokens or 1, device=device)
        with Isolated(
            "dailies.pipelines.latents.work:read_clip",
            answer=np.ndarray,
            policy=self.policy,
            stall_seconds=STALL_SECONDS,
            memory_gb=MEMORY_GB,
        ) as child:
            yield lambda bundle: self._shard(bundle["file"][0].as_py(), encoders, child)

    def _shard(self, name: str, encoders: Encoders, child: Isolated) -> Written:
        from dailies.training.data.latent_crops import media_columns

        source, staging = Folder.at(self.source) / "data", Folder.beneath(self.staging)
        with source.parquet(name) as file:
            plain = [column for column in file.schema_arrow if column.name != "video"]
            shard_schema = pa.schema([*plain, *media_columns(self.manifest)])
            index: list[dict[str, Any]] = []
            with (
                (staging / "data").new_file(name) as sink,
                pq.ParquetWriter(sink, shard_schema, **layout(shard_schema)) as writer,
            ):
                for rows in _grouped(self._clips(file, encoders, child), index, f"data/{name}"):
                    writer.write_table(pa.Table.from_pylist(rows, schema=shard_schema), row_group_size=len(rows))
        failed = sum(row["status"] != "ok" for row in index)
        if failed == len(index):
            (staging / "data").delete(name)
        table = pa.Table.from_pylist(
            index, schema=pa.schema([*plain, *(INDEX_SCHEMA.field(name) for name in LOCATION)])
        )
        with (staging / "index").new_file(name) as sink:
            pq.write_table(table, sink, compression="zstd")
        return Written(name=name, clips=len(index), failed=failed)

    def _clips(self, file: pq.ParquetFile, encoders: Encoders, child: Isolated) -> Iterator[EncodedClip]:
        """Yield the clips that pass select, in order."""
        plain = [name for name in file.schema_arrow.names if name != "video"]
        for group in range(file.num_row_groups):
            rows = file.read_row_group(group, columns=plain).to_pylist()
            chosen = [number for number, row in enumerate(rows) if passes(row, self.manifest.select)]
            if not chosen:
                continue
            videos = file.read_row_group(group, columns=["video"])["video"]
            for number in chosen:
                row = rows[number]
                try:
                    clip = EncodedClip(row=row, media=self._encode(row, videos[number].as_py(), encoders, child))
                except Exception as error:
                    reason = item_error(error)
                    failure = {"stage": self.name, "kind": reason.kind, "message": str(reason)}
                    clip = EncodedClip(row=row, failure=failure)
                yield clip

    def _encode(
        self, row: Mapping[str, Any], data: bytes | None, encoders: Encoders, child: Isolated
    ) -> dict[str, Any]:
        """Return the columns that stand in place of the video. Raises ``SourceError``."""
        from dailies.training.data.export import grid_length
        from dailies.training.data.latent_crops import draw_crops, encode_crops, encode_texts
        from dailies.training.data.schedule import bucket_of
        from dailies.training.data.split import content_key

        manifest = self.manifest
        length = grid_length(row["frames"], row["fps"], manifest.fps)
        bucket = bucket_of((row["width"], row["height"]), length, manifest.buckets)
        if bucket is None:
            least = min(shape.frames for shape in manifest.buckets)
            raise TooShort(f"{length} frames at {manifest.fps:g} fps; {least} are needed")
        size = manifest.buckets[bucket].size

        def frames(first: int, last: int) -> Pixels:
            pixels: Pixels = child.call({**row, "video": data}, manifest, size, first, last - first)
            return pixels

        specs = draw_crops(manifest, content_key(row), held_out=row["split"] != "train")
        texts = encode_texts(row, manifest, encoders.text) if manifest.captions else {}
        return {"views": encode_crops(frames, length, specs, manifest, bucket, encoders.vae.moments), **texts}


def passes(row: Mapping[str, Any], rules: Sequence[tuple[str, float | None, float | None]]) -> bool:
    """Return whether a row passes a phase's select; see ``dailies.training.data.split``."""
    from dailies.training.data.split import passes  # loads torch

    return passes(row, rules)


def _grouped(clips: Iterable[EncodedClip], index: list[dict[str, Any]], shard: str) -> Iterator[list[dict[str, Any]]]:
    """Yield rows in groups of about ``GROUP_BYTES``; each clip's location, or why it has none, goes to ``index``."""
    group: list[dict[str, Any]] = []
    size = number = 0
    for clip in clips:
        if clip.failure is not None:
            index.append({**clip.row, "status": "failed", "failure": clip.failure})
            continue
        if group and size + clip.bytes > GROUP_BYTES:
            yield group
            group, size, number = [], 0, number + 1
        location = {"shard": shard, "row_group": number, "row": len(group), "bytes": clip.bytes}
        index.append({**clip.row, "status": "ok", **location})
        group.append({**clip.row, **clip.media})
        size += clip.bytes
    if group:
        yield group
