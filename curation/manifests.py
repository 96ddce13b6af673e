"""Manifests are tables of videos: each row names one, or a span of one, and its other columns go along.

What a row may name is for a policy to say: whoever wrote the manifest should not make this machine open what they cannot.
A row with ``start`` and ``end`` (seconds from the first frame, or H:MM:SS) is a span that becomes a clip of its own; a row
without is a whole file, which is cut. Mistakes are named by row before any work.
"""

from __future__ import annotations

import json
import logging
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from itertools import islice
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from dailies.curation.addresses import scrub_json
from dailies.curation.config import offered
from dailies.curation.errors import UsageError
from dailies.curation.policy import SourcePolicy, lies_below, refusal, shown
from dailies.curation.schema import SPLIT_WORDS, split_named
from dailies.curation.table_files import TABLE_SUFFIXES, Cell, TableRow, read_rows
from dailies.curation.video import cell_url

MANIFEST_SUFFIXES = TABLE_SUFFIXES
PATH_COLUMNS = ("uri", "url", "path", "video", "file", "video_path", "filename")
VIDEO_SUFFIXES = frozenset(
    ".mp4 .m4v .mov .mkv .webm .avi .ts .m2ts .mts .flv .mpg .mpeg .wmv .3gp .ogv .mxf .y4m .gif".split()
)
SAMPLE = 100  # rows that are looked at to tell which of several columns names the videos

log = logging.getLogger("dailies")


@dataclass(frozen=True, slots=True, kw_only=True)
class Named:
    """What one row names: a source's ``uri``, its ``span`` in seconds or None for all of it, and its other columns as JSON.

    ``where``: the manifest and row, for people; empty for a file that was named itself. ``refused``: why it is not opened.
    """

    uri: str
    span: tuple[float, float] | None = None
    columns: str | None = None
    where: str = ""
    refused: str | None = None


def absolute(path: Path | str) -> str:
    """Escape a name that is not UTF-8, which is all that tables hold; its row then says that there is no such file."""
    return os.fsencode(os.path.abspath(path)).decode("utf-8", "backslashreplace")


def read_manifest(
    path: Path,
    column: str | None = None,
    policy: SourcePolicy = SourcePolicy(),  # noqa: B008 - frozen
) -> list[Named]:
    """Return what each row of a manifest names; relative paths are relative to the manifest's folder.

    What the ``policy`` does not let be opened is returned too, refused.

    ``column``: the one that names the videos, by default whichever of ``PATH_COLUMNS`` does. Rows that name no video
    are passed over. Raises ``UsageError`` naming the manifest, and the row where one is to blame.
    """
    blobs = frozenset(PATH_COLUMNS if column is None else [column.lower()])
    try:
        head = list(islice(read_rows(path, blobs=blobs), SAMPLE))
        names = list(dict.fromkeys(name for row in head for name in row.values))
        chosen = _path_column(path, names, head, column, policy) if head else ""
        rows = [
            named for row in read_rows(path, blobs=blobs) if (named := _named(path, chosen, row, policy)) is not None
        ]
    except UsageError as error:
        raise UsageError(f"manifest {error}") from error.__cause__
    if not rows:
        raise UsageError(f"manifest {path}: has no rows" + (f" with a {chosen}" if chosen else ""))
    return rows


# ---- which column ---------------------------------------------------------------------------------------------------


def _path_column(
    path: Path, names: Sequence[str], head: Sequence[TableRow], column: str | None, policy: SourcePolicy
) -> str:
    if column is not None:
        if column not in names:
            raise UsageError(f"{path}: --column={column}: no such column{offered(column, names)}")
        return column
    candidates = [name for known in PATH_COLUMNS for name in names if name.lower() == known]
    if not candidates:
        raise UsageError(
            f"{path}: no path column among {', '.join(names)}; call one of them {', '.join(PATH_COLUMNS)}, "
            "or name it with --column"
        )
    values = {name: [row.values.get(name) for row in head] for name in candidates}
    chosen = max(candidates, key=lambda name: _likeness(path.parent, values[name], policy))
    if len(candidates) > 1:
        others = ", ".join(name for name in candidates if name != chosen)
        log.warning(f"manifest {path}: videos are taken from column {chosen!r}, not from {others}; --column chooses")
    return chosen


def _likeness(folder: Path, values: Sequence[Any], policy: SourcePolicy) -> float:
    """Return from 0 to 3 how much these look like videos: those there, those named so, anything else, and web pages."""
    known = [value for value in values if value is not None]
    return sum(_looks(folder, value, policy) for value in known) / len(known) if known else -1.0


def _looks(folder: Path, value: Any, policy: SourcePolicy) -> int:
    if isinstance(value, Cell):
        return 3
    if not isinstance(value, str):
        return 0
    parts = urlsplit(value) if "://" in value else None
    if parts is None:
        path = _place(folder, value)
        if (policy.local or lies_below(path, folder)) and os.path.isfile(path):
            return 3
    if Path(parts.path if parts else value).suffix.lower() in VIDEO_SUFFIXES:
        return 2
    return 0 if parts and parts.scheme in ("http", "https") else 1


# ---- one row --------------------------------------------------------------------------------------------------------


def _named(manifest: Path, column: str, row: TableRow, policy: SourcePolicy) -> Named | None:
    value = row.values.get(column)
    where = f"{manifest}: {row.where}"
    refused = None
    if isinstance(value, Cell):
        uri = cell_url(absolute(manifest), column, value.row)
    elif value is None or not str(value).strip():
        return None
    else:
        text = str(value).strip()
        uri, refused = _address(manifest.parent, text, policy)
    columns = {name: other for name, other in row.values.items() if name != column and not isinstance(other, Cell)}
    if isinstance(value, Cell) and value.name:
        columns[column] = value.name
    start, end = _edges(columns)
    span = None
    if start is not None and end is not None:
        span = _span(where, columns.pop(start), columns.pop(end))
    _check_split(where, columns)
    plain = json.dumps(_plain(columns), sort_keys=True, default=_jsonable) if columns else None
    return Named(uri=uri, span=span, columns=scrub_json(plain), where=where, refused=refused)


def _address(folder: Path, text: str, policy: SourcePolicy) -> tuple[str, str | None]:
    """Return the URI of what a cell names, and why it is refused, where it is."""
    sound = text.encode("utf-8", "backslashreplace").decode()  # JSON can write what UTF-8 and tables cannot hold
    if "\0" in sound:
        written = sound.replace("\0", "\\x00")
        return written, f"{shown(written)}: a NUL stands in its name, which no file has; take it out"
    uri = sound if "://" in sound else absolute(_place(folder, sound))
    return uri, refusal(uri, str(folder), policy)


def _place(folder: Path, text: str) -> Path:
    try:
        return folder / Path(text).expanduser()
    except RuntimeError:  # the home of a user that there is not
        return folder / text


def _edges(columns: dict[str, Any]) -> tuple[str | None, str | None]:
    """Return the names of the columns of a span's start and end; neither makes one without the other."""
    by_word = {name.lower(): name for name in columns}
    return by_word.get("start"), by_word.get("end")


def _span(where: str, start: Any, end: Any) -> tuple[float, float] | None:
    """Return a span in seconds, None where neither edge is given."""
    if start is None and end is None:
        return None
    edges = (_seconds(where, "start", start), _seconds(where, "end", end))
    if edges[0] < 0:
        raise UsageError(f"{where}: start={start}: before the video begins; times count from 0")
    if edges[1] <= edges[0]:
        raise UsageError(f"{where}: end={end}: must be after start={start}")
    return edges


def _seconds(where: str, name: str, value: Any) -> float:
    """Return a number of seconds, or a time as H:MM:SS or MM:SS with or without fractions."""
    if value is None:
        raise UsageError(f"{where}: {name}: is empty; a span needs start and end, a whole file neither")
    try:
        if isinstance(value, bool):
            raise ValueError
        parts = [float(part) for part in value.split(":")] if isinstance(value, str) else [float(value)]
        if len(parts) > 3 or any(part < 0 for part in parts[1:]) or (len(parts) > 1 and parts[0] < 0):
            raise ValueError
    except (TypeError, ValueError):
        raise UsageError(f"{where}: {name}={value!r}: is no time; write seconds, or H:MM:SS") from None
    total = 0.0
    for part in parts:
        total = total * 60 + part
    if not math.isfinite(total):
        raise UsageError(f"{where}: {name}={value}: is no time; write seconds, or H:MM:SS")
    return total


def _check_split(where: str, columns: dict[str, Any]) -> None:
    """Refuse a split by another name: its rows would land in training."""
    for name, value in columns.items():
        if name.lower() == "split" and value is not None and str(value).strip() and split_named(value) is None:
            raise UsageError(
                f"{where}: {name}={value}: no such split{offered(str(value), [*SPLIT_WORDS, 'an empty cell'])}; "
                "call the column something else if it means another thing"
            )


def _plain(value: Any) -> Any:
    """Return a value with null for NaN, which JSON has no word for."""
    if isinstance(value, float) and math.isnan(value):
        return None
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list) else value


def _jsonable(value: Any) -> Any:
    if isinstance(value, Decimal):
        return float(value) if value.as_tuple().exponent else int(value)
    if isinstance(value, datetime | date):
        return value.isoformat()
    if isinstance(value, bytes):
        return value.hex()
    return str(value)
