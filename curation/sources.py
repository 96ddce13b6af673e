"""Sources: what a user names on the command line becomes one row per video.

A SOURCE is a video file, a folder (searched for videos, deep), a glob, or a manifest: Parquet, CSV or a text file with one
path or URL a line. A manifest's other columns go along as the source's ``manifest``.
"""

from __future__ import annotations

import csv
import glob
import json
import os
from collections.abc import Iterable, Iterator
from datetime import date, datetime
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from dailies.curation.errors import UsageError
from dailies.curation.retrying import cause_of, retried
from dailies.curation.schema import source_id
from dailies.curation.video.bytes_io import local_path

VIDEO_SUFFIXES = frozenset(
    ".mp4 .m4v .mov .mkv .webm .avi .ts .m2ts .mts .flv .mpg .mpeg .wmv .3gp .ogv .mxf .y4m .gif".split()
)
MANIFEST_SUFFIXES = frozenset([".parquet", ".csv", ".txt"])
PATH_COLUMNS = ("uri", "url", "path", "video", "file", "video_path", "filename")


def list_sources(arguments: Iterable[str]) -> Iterator[dict[str, Any]]:
    """List the sources, each once and in a stable order: dicts of ``source_id``, ``uri`` and ``manifest`` (JSON or None).

    Raises ``UsageError`` for an argument that names nothing, before the first source is yielded.
    """
    readers = [_reader(argument) for argument in arguments]
    listed: set[str] = set()
    for reader in readers:
        for uri, columns in reader:
            identity = source_id(uri)
            if identity in listed:
                continue
            listed.add(identity)
            yield {
                "source_id": identity,
                "uri": uri,
                "manifest": json.dumps(columns, sort_keys=True, default=_jsonable) if columns else None,
            }


Row = tuple[str, dict[str, Any]]


def _reader(argument: str) -> Iterable[Row]:
    """Check ``argument`` now, read it later."""
    if "://" in argument:
        return _remote(argument)
    path = Path(argument).expanduser()
    if glob.has_magic(argument) and not path.exists():
        matches = _each_once(p for p in glob.glob(str(path), recursive=True) if os.path.isfile(p))
        if not matches:
            raise UsageError(f"{argument}: no file matches")
        return [row for match in matches for row in _reader(match)]
    if path.is_dir():
        videos = sorted(_videos_below(path))
        if not videos:
            raise UsageError(f"{argument}: no video in this folder; looked for {' '.join(sorted(VIDEO_SUFFIXES))}")
        return [(_absolute(file), {}) for file in videos]
    if not path.exists():
        raise UsageError(f"{argument}: no such file or folder")
    if path.suffix.lower() in MANIFEST_SUFFIXES:
        return _manifest(path)
    return [(_absolute(path), {})]


def _absolute(path: Path | str) -> str:
    """Escape a name that is not UTF-8, which is all that tables hold; its row then says that there is no such file."""
    return os.fsencode(os.path.abspath(path)).decode("utf-8", "backslashreplace")


def _each_once(paths: Iterable[str]) -> list[str]:
    """Return paths in order, but one per file of a real folder: a link to a folder above would show them again."""
    shortest = sorted(paths, key=lambda path: (path.count(os.sep), path))
    return sorted({(os.path.realpath(os.path.dirname(p)), os.path.basename(p)): p for p in reversed(shortest)}.values())


def _videos_below(folder: Path) -> Iterator[Path]:
    """Yield videos at any depth, also behind links; a real folder is entered once, so that a link in a circle ends."""
    entered: set[str] = set()
    for root, folders, files in os.walk(folder, followlinks=True):
        real = os.path.realpath(root)
        if real in entered:
            folders.clear()
            continue
        entered.add(real)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in files:
            if Path(name).suffix.lower() in VIDEO_SUFFIXES and not name.startswith("."):
                yield Path(root) / name


def _remote(url: str) -> Iterable[Row]:
    """Return a remote file, folder or glob, listed through fsspec."""
    import fsspec

    if Path(url).suffix.lower() in MANIFEST_SUFFIXES:
        raise UsageError(f"{url}: a manifest must be a local file; download it first")
    try:
        fs, path = fsspec.core.url_to_fs(url)
    except (ValueError, ImportError) as error:
        raise UsageError(f"{url}: cannot be opened: {error}") from error
    try:
        videos = retried(lambda: _videos_at(fs, path))
    except Exception as error:  # a store's client raises whatever it likes: no credentials, no bucket, no route
        raise UsageError(f"{url}: cannot be listed: {type(error).__name__}: {cause_of(error)}") from error
    if videos is None:
        raise UsageError(f"{url}: no such file or folder")
    if not videos:
        raise UsageError(f"{url}: no video there; looked for {' '.join(sorted(VIDEO_SUFFIXES))}")
    return [(local_path(uri) or uri, {}) for uri in (fs.unstrip_protocol(p) for p in videos)]


def _videos_at(fs: Any, path: str) -> list[str] | None:
    """List a store's videos at a path; None where there is nothing. Only ``*`` makes a glob: keys hold ``[``, queries ``?``."""
    if "*" in path:
        return sorted(p for p in fs.glob(path) if Path(p).suffix.lower() in VIDEO_SUFFIXES)
    if fs.isfile(path):
        return [path]
    if fs.isdir(path):
        return sorted(p for p in fs.find(path) if Path(p).suffix.lower() in VIDEO_SUFFIXES)
    return None


# ---- manifests ------------------------------------------------------------------------------------------------------


def _manifest(path: Path) -> Iterable[Row]:
    """Return rows of a manifest; relative paths are relative to the manifest's folder. Streams, so any size will do."""
    try:
        first = next(_rows(path), None)
        column = _path_column(path, list(first or {})) if first else ""
        named = any(row.get(column) for row in _rows(path))
    except (OSError, ValueError, csv.Error) as error:
        raise UsageError(f"manifest {path}: cannot be read: {' '.join(str(error).split())}") from error
    if first is None or not named:
        raise UsageError(f"manifest {path}: has no rows" + (f" with a {column}" if column else ""))
    return _resolved(path, column)


def _rows(path: Path) -> Iterator[dict[str, Any]]:
    suffix = path.suffix.lower()
    if suffix == ".parquet":
        with pq.ParquetFile(path) as parquet:
            for batch in parquet.iter_batches(batch_size=4096):
                yield from batch.to_pylist()
    else:
        with path.open(newline="", encoding="utf-8-sig") as file:
            if suffix == ".csv":
                yield from csv.DictReader(file)
            else:
                lines = (line.strip() for line in file)
                yield from ({"path": line} for line in lines if line and not line.startswith("#"))


def _path_column(path: Path, names: list[str]) -> str:
    for candidate in PATH_COLUMNS:
        for name in names:
            if name.lower() == candidate:
                return name
    raise UsageError(
        f"manifest {path}: no path column among {', '.join(names)}; call one of them {', '.join(PATH_COLUMNS)}"
    )


def _resolved(manifest: Path, column: str) -> Iterator[Row]:
    for row in _rows(manifest):
        named = str(row.get(column) or "").strip()
        if not named:
            continue
        uri = named if "://" in named else _absolute(manifest.parent / Path(named).expanduser())
        yield uri, {key: value for key, value in row.items() if key != column and key is not None}


def _jsonable(value: Any) -> Any:
    if isinstance(value, datetime | date):
        return value.isoformat()
    if isinstance(value, bytes):
        return value.hex()
    return str(value)
