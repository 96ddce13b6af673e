"""Folders at a URL, on a disk or in an object store, and how Parquet lies in them.

A URL is whatever pyarrow and deltalake both understand: a local path, ``file://``, ``s3://``, ``gs://``, ``abfs://``.
Credentials and end points come from the usual environment (``AWS_ENDPOINT_URL``, ``AWS_ALLOW_HTTP``,
``AWS_ACCESS_KEY_ID``, ``AWS_REGION`` …), which both read by themselves.
"""

from __future__ import annotations

import os
import secrets
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

import pyarrow as pa
import pyarrow.fs as pafs
import pyarrow.parquet as pq

from dailies.curation import inside
from dailies.curation.atomic import sync
from dailies.curation.errors import Damaged, DatasetError
from dailies.curation.parquet_files import open_parquet
from dailies.curation.retrying import cause_of
from dailies.curation.tables.filesystem import failed, reached, steady

ROW_GROUP_BYTES = 32 << 20
"""What a reader must hold at once, about, in bytes before compression."""

ROW_GROUP_ROWS = 128 << 10

UNUSABLE = frozenset("%?#\\")
"""Characters of a local path that deltalake takes for a part of a URL, besides control characters."""


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message: Rust and SQL engines add traces and carets."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__


class Unparquet(Damaged, pa.ArrowInvalid):  # type: ignore[misc]  # untyped
    """A Parquet file that is damaged or claims more than it may; whoever reckons with pyarrow's errors reckons with it."""


# ---- folders --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Folder:
    """A folder at a URL, which need not exist yet. ``path`` is what ``fs`` calls it; ``local`` is true on a disk.

    ``root``: on a disk, the path that the user named and that the folder lies at or below. Whatever is done to it or to
    what lies in it goes through ``dailies.curation.inside``, and raises ``Unsafe`` where that leads out of the root; in an
    object store, which has no links, names alone are checked.
    """

    url: str
    fs: pafs.FileSystem
    path: str
    local: bool
    root: str

    @classmethod
    def at(cls, url: str | Path) -> Folder:
        """Open ``url`` without reading. Raises ``DatasetError`` where the URL's scheme or bucket cannot be used."""
        text = str(url)
        scheme, separator, rest = text.partition("://")
        if not separator or scheme == "file":
            path = os.path.abspath(os.path.expanduser(unquote(rest) if separator else text))
            if refused := sorted(set(path) & UNUSABLE | {c for c in path if not c.isprintable() and ord(c) < 0x80}):
                raise DatasetError(f"{path!r}: a dataset's path may not have {refused[0]!r} in it; choose another name")
            if not path.isascii() and any(0xD800 <= ord(c) <= 0xDFFF for c in path):
                raise DatasetError(f"{path!r}: a dataset's path must be UTF-8; choose another name")
            return cls(path, pafs.LocalFileSystem(), path, True, path)
        text = text.rstrip("/")
        try:
            fs, path = pafs.FileSystem.from_uri(f"{scheme}://{quote(rest.rstrip('/'), safe='/@:?=&')}")
        except (OSError, pa.ArrowException) as error:
            raise DatasetError(f"{text}: cannot be used: {cause_of(error)}") from error
        return cls(text, steady(fs, scheme), path, False, path)

    @classmethod
    def beneath(cls, url: str | Path) -> Folder:
        """Open a folder whose name this program has chosen, and not the user: it may be no link itself."""
        parent, _, name = str(url).rpartition("/")
        return cls.at(parent) / name

    def __truediv__(self, name: str) -> Folder:
        inside.check_name(name)
        return Folder(f"{self.url}/{name}", self.fs, f"{self.path}/{name}", self.local, self.root)

    def _below(self, name: str = "") -> str:
        """Return where ``name`` of this folder, or the folder, lies under the root."""
        return "/".join(filter(None, (self.path[len(self.root) :].lstrip("/"), name)))

    def file(self, name: str) -> str:
        """Return the path of a file of this folder, as ``fs`` calls it, for what opens it next."""
        inside.check_name(name)
        if self.local:
            inside.file_inside(self.root, self._below(name))
        return f"{self.path}/{name}"

    def parquet(self, name: str, *, whole: bool = False, checked: bool = False) -> pq.ParquetFile:
        """Open a Parquet file of this folder. Raises ``Unparquet`` for one that is damaged or claims more than it may.

        ``whole``: also for one whose row groups come to more, for what reads them at once. ``checked``: what is read is held
        against the checksums of its pages, where it has some.
        """
        path = self.file(name)
        try:
            return open_parquet(path, self.fs, whole=whole, page_checksum_verification=checked)
        except pa.ArrowInvalid as error:
            raise Unparquet(f"{self.url}/{name}: cannot be read: {first_line(error)}") from error

    def read_parquet(self, name: str, columns: Sequence[str] | None = None) -> pa.Table:
        """Read a Parquet file of this folder; columns that it lacks are left out. Raises as ``parquet`` does."""
        with self.parquet(name, whole=True) as file:
            there = file.schema_arrow.names
            return file.read(columns=None if columns is None else [name for name in columns if name in there])

    def refuse_links(self, name: str = "", known: inside.Stamp | None = None) -> inside.Stamp | None:
        """Raise ``Unsafe`` if a file in the folder ``name`` of this one, or in itself, is a link, as ``inside`` does."""
        return inside.refuse_links(self.root, self._below(name), known) if self.local else None

    def list(self, *, recursive: bool = False) -> list[pafs.FileInfo]:
        """Return files and folders in it; none where it does not exist. Links are of type ``Unknown``, and not followed."""
        if self.local:
            entries = inside.walk(self.root, self._below(), recursive=recursive)
            return sorted(
                (_info(f"{self.path}/{entry.name}", entry) for entry in entries), key=lambda info: str(info.path)
            )
        try:
            selector = pafs.FileSelector(self.path, recursive=recursive, allow_not_found=True)
            infos = self.fs.get_file_info(selector)
        except FileNotFoundError:  # made, or taken away, while pyarrow was looking
            return []
        return sorted((info for info in infos if info.type != pafs.FileType.NotFound), key=lambda info: info.path)

    def relative(self, info: pafs.FileInfo) -> str:
        return str(info.path)[len(self.path) + 1 :]

    def holds(self, name: str) -> bool:
        """Return whether there is a file of that name."""
        if self.local:
            return inside.inside(self.root, self._below(inside.check_name(name))).is_file()
        return bool(self.fs.get_file_info(self.file(name)).type == pafs.FileType.File)

    def reached(self, name: str) -> bool:
        """Return what ``holds`` does, as the first call of a command: see ``reached``."""
        if self.local:
            return self.holds(name)
        return bool(reached(self.fs, self.file(name)).type == pafs.FileType.File)

    def read(self, name: str) -> bytes:
        if self.local:
            return inside.read_bytes(self.root, self._below(name))
        with self.fs.open_input_stream(self.file(name)) as stream:
            return bytes(stream.read())

    def write(self, name: str, content: bytes) -> None:
        with self.new_file(name) as sink:
            sink.write(content)

    def read_link(self, name: str) -> str | None:
        """Return the neighbour that the link ``name`` of this folder names, as ``inside.read_link`` does; none in a store."""
        return inside.read_link(self.root, self._below(inside.check_name(name))) if self.local else None

    def write_link(self, name: str, target: str) -> None:
        """Make ``name`` a link to its neighbour ``target``, as ``inside.write_link`` does. Only on a disk."""
        inside.write_link(self.root, self._below(inside.check_name(name)), target)

    def delete(self, name: str) -> None:
        if self.local:
            inside.remove(self.root, self._below(name))
        else:
            self.fs.delete_file(self.file(name))

    def delete_tree(self, name: str = "") -> None:
        """Delete the folder ``name`` of this one, or this one, with all that lies in it."""
        if self.local:
            inside.remove_tree(self.root, self._below(name))
        else:
            self.fs.delete_dir(self.file(name) if name else self.path)

    def publish(self, final: Folder, *, without: Sequence[str], last: Sequence[str]) -> None:
        """Move this staging folder to ``final``, which does not exist yet; it appears whole.

        On a disk it is renamed. Object stores cannot rename a folder, so its files are moved one by one, those of
        ``last`` at the end and in that order: a reader takes a folder without its last file for unfinished, and a killed
        call can be repeated.

        Args:
            without: Folders of intermediate results, deleted and not published.
            last: Names of files; the last of them marks the folder as complete.
        """
        unfinished = [info for info in self.list(recursive=True) if info.path.endswith(".tmp")]
        for info in unfinished:  # what a killed run was writing
            self.delete(self.relative(info))
        if self.local:
            for name in without:
                if os.path.lexists(f"{self.path}/{name}"):  # where all clips are taken over, nothing was extracted
                    self.delete_tree(name)
            for entry in inside.walk(self.root, self._below()):
                inside.inside(self.root, self._below(entry.name))  # or a link would be published
            if below := final._below():
                inside.inside(final.root, below)
            self.fs.move(self.path, final.path)
            return
        names = [self.relative(info) for info in self.list(recursive=True) if info.type == pafs.FileType.File]
        kept = [name for name in names if not name.startswith(tuple(f"{folder}/" for folder in without))]
        for name in [*(name for name in kept if name not in last), *(name for name in last if name in kept)]:
            self.fs.move(self.file(name), final.file(name))
        self.fs.delete_dir(self.path)

    @contextmanager
    def new_file(self, name: str) -> Iterator[pa.NativeFile]:
        """Yield a file that appears, whole, when the block ends without an error, in place of one of that name.

        On a disk it is written beside its place, synced and renamed, so that neither a kill nor a power cut leaves
        half of it. An object store shows an upload only once it is complete.
        """
        path = self.file(name)
        if not self.local:
            # Closing the stream completes the upload even of half a file, so it goes under a name that nothing refers to
            # wherever a whole one could be lost.
            upload = f"{path}.{uuid.uuid4().hex}.tmp" if self.holds(name) else path
            try:
                with self.fs.open_output_stream(upload) as sink:
                    yield sink
            except BaseException as error:
                if self.fs.get_file_info(upload).type == pafs.FileType.File:
                    self.fs.delete_file(upload)
                if isinstance(error, OSError) and error.errno is None:  # what Arrow's client says has no errno
                    raise failed(f"{self.url}/{name}", error) from error
                raise
            if upload != path:
                self.fs.move(upload, path)
            return
        final = self._below(name)
        parent, _, base = final.rpartition("/")
        if parent:
            inside.make_folder(self.root, parent)
        else:
            os.makedirs(self.root, exist_ok=True)
        unfinished = f"{parent}/.{base}.{os.getpid()}-{secrets.token_hex(4)}.tmp".lstrip("/")
        descriptor = inside.create(self.root, unfinished)
        try:
            with pa.PythonFile(os.fdopen(descriptor, "wb"), mode="w") as sink:
                yield sink
            sync(f"{self.root}/{unfinished}")
            inside.replace(self.root, unfinished, final)
        except BaseException:
            with suppress(FileNotFoundError):
                inside.remove(self.root, unfinished)
            raise
        sync(os.path.dirname(path))


def _info(path: str, entry: inside.Entry) -> pafs.FileInfo:
    kind = (
        pafs.FileType.Directory if entry.is_folder else pafs.FileType.File if entry.is_file else pafs.FileType.Unknown
    )
    size = entry.status.st_size if entry.is_file else None
    return pafs.FileInfo(path, type=kind, mtime_ns=entry.status.st_mtime_ns, size=size)


# ---- parquet --------------------------------------------------------------------------------------------------------


def plain(kind: pa.DataType) -> pa.DataType:
    """Return the type as Delta Lake holds it: without dictionaries, fixed-size lists and 64-bit offsets."""
    types = pa.types
    if types.is_dictionary(kind):
        return plain(kind.value_type)
    if types.is_struct(kind):
        return pa.struct([inner.with_type(plain(inner.type)) for inner in kind])
    if types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind):
        inner = kind.value_field
        return pa.list_(pa.field("element", plain(inner.type), metadata=inner.metadata))
    if types.is_large_string(kind):
        return pa.string()
    return pa.binary() if types.is_large_binary(kind) else kind


def plain_schema(schema: pa.Schema) -> pa.Schema:
    return pa.schema([column.with_type(plain(column.type)) for column in schema], schema.metadata)


def _leaves(kind: pa.DataType, path: str) -> Iterator[tuple[str, pa.DataType]]:
    """Yield Parquet's primitive columns under an Arrow type, by their paths."""
    if pa.types.is_struct(kind):
        for inner in kind:
            yield from _leaves(inner.type, f"{path}.{inner.name}")
    elif pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        yield from _leaves(kind.value_type, f"{path}.list.element")
    elif pa.types.is_map(kind):
        yield from _leaves(kind.key_type, f"{path}.key_value.key")
        yield from _leaves(kind.item_type, f"{path}.key_value.value")
    else:
        yield path, kind


def layout(schema: pa.Schema) -> dict[str, Any]:
    """Return how ``ParquetWriter`` should lay out the columns.

    Media (binary) is stored as it is: it is compressed already, so that another codec, a dictionary or statistics
    would cost time, and copies of JPEGs in the footer. Lists of integers are pts, whose differences are tiny.
    """
    leaves = [leaf for column in schema for leaf in _leaves(column.type, column.name)]
    binary = {path for path, kind in leaves if pa.types.is_binary(kind) or pa.types.is_large_binary(kind)}
    return {
        "compression": {path: "none" if path in binary else "zstd" for path, _ in leaves},
        "use_dictionary": [path for path, kind in leaves if pa.types.is_string(kind) or pa.types.is_large_string(kind)],
        "write_statistics": [path for path, _ in leaves if path not in binary and "." not in path],
        "column_encoding": {
            path: "DELTA_BINARY_PACKED" for path, kind in leaves if ".list." in path and pa.types.is_int64(kind)
        },
    }


def write_parquet(
    folder: Folder,
    name: str,
    tables: Iterable[pa.Table],
    schema: pa.Schema,
    metadata: Mapping[str, str] | None = None,
) -> tuple[int, int]:
    """Write ``tables`` one after the other into a new file; returns its rows and its size in bytes.

    No row group holds more than ``ROW_GROUP_BYTES`` by the mean of its table's rows. ``metadata`` goes into the footer.
    """
    if metadata is not None:
        schema = schema.with_metadata({**(schema.metadata or {}), **metadata})
    rows = 0
    with folder.new_file(name) as sink:
        with pq.ParquetWriter(sink, schema, **layout(schema)) as writer:
            for table in tables:
                if table.num_rows:
                    fitting = max(1, ROW_GROUP_BYTES * table.num_rows // max(1, table.nbytes))
                    writer.write_table(table.cast(schema), row_group_size=min(fitting, ROW_GROUP_ROWS))
                    rows += table.num_rows
        size = int(sink.tell())
    return rows, size
