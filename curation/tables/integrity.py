"""Integrity is checked here: whether a dataset's tables, keys, spans and shards agree.

Every check reads key columns and footers; only the deep one reads media.

Keys are compared in memory: about 50 bytes for each clip of the largest table.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.fs as pafs

from dailies.curation import export_schema, schema
from dailies.curation.errors import DatasetError, SourceError, Unsafe, machine_raised
from dailies.curation.parquet_files import open_parquet
from dailies.curation.plain_text import counted
from dailies.curation.progress import Bar, progress_in_force, silent
from dailies.curation.tables.dataset import DatasetTables
from dailies.curation.tables.shards import shards_of
from dailies.curation.tables.storage import Folder, first_line, plain
from dailies.curation.tables.table import Table

NAMED = 20
"""How many keys of one kind of problem are named one by one."""

KEYS = {
    "observations": ["source_id", "segment"],
    "spans": ["span_id"],
    "runs": ["run_id"],
    "withdrawn": ["source_id"],
    "places": ["source_id", "number"],
}

SCHEMAS = {
    "observations": schema.OBSERVATIONS,
    "spans": schema.SPANS,
    "clips": schema.clips([]),
    "scores": schema.scores([]),
    "captions": schema.scores([]),
    "signatures": schema.scores([]),
    "duplicates": schema.DUPLICATES,
    "selections": schema.SELECTIONS,
    "runs": schema.RUNS,
    "withdrawn": schema.WITHDRAWN,
    "places": schema.PLACES,
}


@dataclass(frozen=True, slots=True)
class DatasetProblem:
    """A problem of a table or export: ``where`` is a key, a column or a file of it."""

    table: str
    where: str
    message: str

    def __str__(self) -> str:
        return f"{self.table}: {self.where}: {self.message}"


def verify(dataset: DatasetTables, *, check_media: Callable[[bytes], int] | None = None) -> list[DatasetProblem]:
    """Check a whole dataset and return everything that is wrong; an empty list where nothing is.

    ``check_media`` makes it deep: it gets the bytes of every exported clip and returns the number of its frames, or
    raises ``SourceError``.
    """
    problems: list[DatasetProblem] = []
    sound: dict[str, Table] = {}
    for name in dataset.tables():
        table = dataset.table(name)
        try:
            wrong = [*_files(table), *_columns(table)]
        except Unsafe as error:
            wrong = [DatasetProblem(name, "_delta_log", str(error))]
        problems += wrong
        if not wrong:  # reading on would fail
            sound[name] = table
            problems += _unique(table)
    problems += _orphans(sound)
    problems += _spans(sound)
    for name in dataset.exports():
        problems += _export(name, dataset.folder / "exports" / name, check_media)
    return problems


def _problems(table: str, keys: pa.ChunkedArray | pa.Array, message: str) -> Iterator[DatasetProblem]:
    for key in keys[:NAMED].to_pylist():
        yield DatasetProblem(table, str(key), message)
    if len(keys) > NAMED:
        yield DatasetProblem(table, f"{len(keys) - NAMED} more", message)


def _kind(name: str) -> str:
    return name.partition("/")[0].partition("@")[0]


# ---- tables ---------------------------------------------------------------------------------------------------------


def _files(table: Table) -> Iterator[DatasetProblem]:
    """Yield parts that are missing, or are not what their commit says."""
    folder = table.folder
    sizes = {folder.relative(info): info.size for info in folder.list() if info.type == pafs.FileType.File}
    stored = table.schema
    for path, (size, rows) in table.files().items():
        if sizes.get(path) != size:
            is_now = f"is of {counted(sizes[path], 'byte')}" if path in sizes else "is missing"
            yield DatasetProblem(table.name, path, f"{is_now}; {counted(size, 'byte', 'were', 'was')} committed")
            continue
        try:
            with open_parquet(folder.file(path), folder.fs, whole=True) as part:
                rows_now, columns = part.metadata.num_rows, part.schema_arrow
        except (OSError, pa.ArrowException) as error:
            _machine_raised(error)
            yield DatasetProblem(table.name, path, f"cannot be read: {first_line(error)}")
            continue
        if rows_now != rows:
            yield DatasetProblem(table.name, path, f"has {counted(rows_now, 'row')}; {rows:,} were committed")
        for column in columns:
            if column.name not in stored.names or stored.field(column.name).type != column.type:
                yield DatasetProblem(
                    table.name, path, f"its column {column.name!r} of {column.type} is not the table's"
                )


def _columns(table: Table) -> Iterator[DatasetProblem]:
    """Yield columns of ``dailies.curation.schema`` that it lacks or holds as another type."""
    stored = table.schema
    for column in SCHEMAS[_kind(table.name)]:
        if column.name not in stored.names and f"{_kind(table.name)}.{column.name}" not in schema.LATER:
            yield DatasetProblem(table.name, column.name, "the column is missing")
        elif column.name in stored.names and stored.field(column.name).type != plain(column.type):
            yield DatasetProblem(
                table.name, column.name, f"is {stored.field(column.name).type}, not {plain(column.type)}"
            )


def _unique(table: Table) -> Iterator[DatasetProblem]:
    keys = KEYS.get(_kind(table.name), ["clip_id"])
    rows = table.read(keys)
    null = pc.sum(rows[keys[0]].is_null()).as_py() or 0
    if null:
        yield DatasetProblem(table.name, keys[0], f"is null in {counted(null, 'row')}")
    counts = rows.group_by(keys).aggregate([([], "count_all")])
    yield from _problems(table.name, counts.filter(pc.field("count_all") > 1)[keys[0]], "stands more than once")


def _orphans(tables: dict[str, Table]) -> Iterator[DatasetProblem]:
    """Yield clips without their source, and rows without their clip."""
    sources = _all(tables, "observations", "source_id")
    clips = _all(tables, "clips", "clip_id")
    for name, table in tables.items():
        kind = _kind(name)
        # Spans are stored before their source is observed, and a withdrawal that was cut short leaves places.
        if kind in ("observations", "spans", "runs", "withdrawn", "places"):
            continue
        key, known, origin = ("source_id", sources, "observations") if kind == "clips" else ("clip_id", clips, "clips")
        rows = table.read([key])[key]
        lost = pc.unique(rows.filter(pc.invert(pc.is_in(rows, value_set=known))))
        yield from _problems(name, lost, f"{key} is in no {origin} table")


def _all(tables: dict[str, Table], kind: str, column: str) -> pa.Array:
    chunks = [
        chunk for name, table in tables.items() if _kind(name) == kind for chunk in table.read([column])[column].chunks
    ]
    return pc.unique(pa.chunked_array(chunks, pa.string()))


def _spans(tables: dict[str, Table]) -> Iterator[DatasetProblem]:
    """Yield clips that are empty or reach outside the frames of their source."""
    extents = [_extent(table) for name, table in tables.items() if _kind(name) == "observations"]
    if not extents:
        return
    within = pa.concat_tables(extents).group_by("source_id").aggregate([("first", "min"), ("last", "max")])
    for name, table in tables.items():
        if _kind(name) != "clips":
            continue
        # Neither what could not be cut nor a manifest's span without frames.
        placed = pc.field("status").is_null() | ~pc.field("status").isin(["failed", "outside", "empty"])
        rows = table.read(["clip_id", "source_id", "start", "end"], filter=placed)
        empty = pc.fill_null(pc.greater_equal(rows["start"], rows["end"]), True)
        yield from _problems(name, rows.filter(empty)["clip_id"], "its span is empty: start is not before end")
        rows = rows.filter(pc.invert(empty)).join(within, "source_id", join_type="inner")
        inside = pc.and_(
            pc.greater_equal(rows["start"], rows["first_min"]), pc.less_equal(rows["end"], rows["last_max"])
        )
        outside = rows.filter(pc.invert(pc.fill_null(inside, False)))
        yield from _problems(name, outside["clip_id"], "its span reaches outside the frames of its source")


def _extent(observations: Table) -> pa.Table:
    """Return each observed segment's first tick and first tick after its last frame; null where it has no frame."""
    chunks = [
        pa.table(
            {
                "source_id": pa.array([], pa.string()),
                "first": pa.array([], pa.int64()),
                "last": pa.array([], pa.int64()),
            }
        )
    ]
    for batch in observations.batches(["source_id", "pts", "end"]):
        pts = batch["pts"]
        filled = pc.if_else(pc.greater(pc.list_value_length(pts), 0), pts, pa.scalar([None], pts.type))
        first = pc.list_element(pc.fill_null(filled, pa.scalar([None], pts.type)), 0)
        chunks.append(pa.table({"source_id": batch["source_id"], "first": first, "last": batch["end"]}))
    return pa.concat_tables(chunks)


# ---- exports --------------------------------------------------------------------------------------------------------


def _export(name: str, folder: Folder, check_media: Callable[[bytes], int] | None) -> Iterator[DatasetProblem]:
    table = f"exports/{name}"
    try:
        columns = ["clip_id", "status", "frames", "extraction", "cut", "shard", "row_group", "row"]
        with open_parquet(folder.file("index.parquet"), folder.fs, whole=True) as file:
            there = file.schema_arrow.names  # ``extraction`` was ``cut`` once
            index = file.read(columns=[name for name in columns if name in there])
    except (OSError, pa.ArrowException, DatasetError, Unsafe) as error:
        _machine_raised(error)
        yield DatasetProblem(table, "index.parquet", f"cannot be read: {first_line(error)}")
        return
    export_schema.note_renamed(table, there)
    counts = index.group_by("clip_id").aggregate([([], "count_all")])
    yield from _problems(
        table, counts.filter(pc.field("count_all") > 1)["clip_id"], "stands more than once in the index"
    )
    index = index.filter(pc.equal(index["status"], "ok"))
    try:
        shards_of(folder, index["shard"])
        stored = (folder / "data").list()
    except Unsafe as error:
        yield DatasetProblem(table, "data", str(error))
        return
    present = {
        folder.relative(info) for info in stored if info.type == pafs.FileType.File and info.path.endswith(".parquet")
    }
    show = silent if check_media is None else progress_in_force()
    with show("verify", len(index), "clips") as bar:
        yield from _shards(table, folder, index, present, None if check_media is None else _counted(check_media, bar))


def _counted(check_media: Callable[[bytes], int], bar: Bar) -> Callable[[bytes], int]:
    def check(video: bytes) -> int:
        try:
            return check_media(video)
        finally:
            bar.advance()

    return check


def _shards(
    table: str, folder: Folder, index: pa.Table, present: set[str], check_media: Callable[[bytes], int] | None
) -> Iterator[DatasetProblem]:
    """Yield what is wrong with the shards that are ``present``, and with those that the index names beside them."""
    named = set(pc.unique(index["shard"]).to_pylist())
    for shard in sorted(present - named):
        yield DatasetProblem(table, shard, "is not named by the index")
    for shard in sorted(named, key=str):
        if shard not in present:
            yield DatasetProblem(table, str(shard), "is missing; the index names it")
            continue
        rows = index.filter(pc.equal(index["shard"], shard))
        try:
            yield from _shard(table, folder, shard, rows, check_media)
        except (OSError, pa.ArrowException) as error:
            _machine_raised(error)
            yield DatasetProblem(table, shard, f"cannot be read: {first_line(error)}")


def _shard(
    table: str, folder: Folder, shard: str, index: pa.Table, check_media: Callable[[bytes], int] | None
) -> Iterator[DatasetProblem]:
    """Yield whether the shard holds what the index says, where it says so, and nothing else."""
    expected = {(row["row_group"], row["row"]): row for row in index.to_pylist()}
    with open_parquet(folder.file(shard), folder.fs) as file:
        check_media = check_media if "video" in file.schema_arrow.names else None  # latents have none
        for group in range(file.num_row_groups):
            ids = file.read_row_group(group, ["clip_id"])["clip_id"].to_pylist()
            videos = file.read_row_group(group, ["video"])["video"] if check_media else None
            for number, clip in enumerate(ids):
                row = expected.pop((group, number), None)
                place = f"row {number} of row group {group} of {shard}"
                if row is None:
                    yield DatasetProblem(table, clip, f"{place} is not in the index")
                elif row["clip_id"] != clip:
                    yield DatasetProblem(table, row["clip_id"], f"{place} holds {clip} instead")
                elif videos is not None and check_media is not None and export_schema.extraction_of(row) != "none":
                    yield from _media(table, row, videos[number].as_py(), check_media)
    for (group, number), row in expected.items():
        yield DatasetProblem(table, row["clip_id"], f"there is no row {number} in row group {group} of {shard}")


def _media(
    table: str, row: dict[str, object], video: bytes, check_media: Callable[[bytes], int]
) -> Iterator[DatasetProblem]:
    try:
        frames = check_media(video)
    except SourceError as error:
        yield DatasetProblem(table, str(row["clip_id"]), f"its video cannot be decoded: {first_line(error)}")
        return
    if frames != row["frames"]:
        yield DatasetProblem(
            table,
            str(row["clip_id"]),
            f"{counted(frames, 'frame')} of its video decode{'s' if frames == 1 else ''}; it should have {row['frames']}",
        )


def _machine_raised(error: Exception) -> None:
    """Raise ``error`` again where it is the machine's fault. Arrow's lack of memory may come of an absurd size in a file."""
    if not isinstance(error, MemoryError):
        machine_raised(error)
