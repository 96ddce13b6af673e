"""The report, served live on this machine: the same page, made anew when the dataset changes, with clips that play.

The server listens on 127.0.0.1 alone, behind a token in the path that is new each time, and answers no request that was
meant for another host: a page of somebody else's that a browser shows meanwhile can read nothing here. It answers two
things, the page and a clip by its id, which is looked up in the indexes of the exports: no path of a request leads to a file.
"""

from __future__ import annotations

import re
import secrets
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from dailies.curation.errors import DailiesError, Damaged, UsageError
from dailies.curation.export import find_clips
from dailies.curation.parquet_files import read_group
from dailies.curation.plain_text import clean
from dailies.curation.tables import DatasetTables
from dailies.pipelines.report.gather import gather
from dailies.pipelines.report.page import render
from dailies.pipelines.selecting import clips_table, last_recipe

HOST = "127.0.0.1"
CACHED = 8  # clips in memory: a browser asks for one in several ranges
KINDS = {b"ftypqt": "video/quicktime", b"ftyp": "video/mp4", b"\x1aE\xdf\xa3": "video/x-matroska"}
RANGE = re.compile(r"bytes=(\d{0,18})-(\d{0,18})")
HEADERS = {
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Content-Security-Policy": "frame-ancestors 'none'",
}


class Live:
    """A dataset as the server shows it. Raises what ``gather`` does, before anything is served."""

    def __init__(self, url: str, selection: str | None = None) -> None:
        self.url, self.selection = url, selection
        self._making, self._looking = threading.Lock(), threading.Lock()
        self._placed: Any = None  # the state of the dataset that ``_places`` is of
        self._made: Any = None  # and that ``_page`` is of
        self._looks = 0
        self._page = b""
        self._places = pa.table({})
        self._read = lru_cache(CACHED)(self._video)
        self.page()

    def page(self) -> bytes:
        """Return the page of the dataset as it is now."""
        with self._making:
            self._look()
            state, places = self._placed, self._places
            if self._made != state:
                data = gather(self.url, selection=self.selection)
                shown = pa.array(list(data.clips), pa.string())
                in_export = pc.is_in(shown, value_set=places["clip_id"].combine_chunks())
                playable = set(shown.filter(in_export).to_pylist())
                self._page = render(data, live=True, playable=playable).encode()
                self._made = state
            return self._page

    def video(self, clip_id: str) -> bytes | None:
        """Return the bytes of a clip that an export holds now, None for any other: one that was withdrawn plays no more.

        Raises ``Damaged``.
        """
        return self._read(clip_id, self._look())

    def _look(self) -> int:
        """Find the exported clips anew where the dataset is another than it was; return how often that was so."""
        with self._looking:
            dataset = DatasetTables.open(self.url)
            state = _state(dataset)
            if state != self._placed:
                ids = clips_table(dataset, last_recipe(dataset, ())).read(["clip_id"])["clip_id"]
                exports = [dataset.folder / "exports" / name for name in reversed(dataset.exports_by_age())]
                places, _ = find_clips(exports, ids)
                self._places, self._placed = places.filter(pc.is_valid(places["shard"])), state
                self._looks += 1
                self._read.cache_clear()
            return self._looks

    def _video(self, clip_id: str, _look: int) -> bytes | None:
        places = self._places
        at = pc.index(places["clip_id"], clip_id).as_py()
        if at < 0:
            return None
        place = places.slice(at, 1).to_pylist()[0]
        export = DatasetTables.open(self.url).folder / "exports" / place["export"]
        with export.parquet(place["shard"], checked=True) as file:
            rows = read_group(file, place["row_group"], ["clip_id", "video"])
        if rows["clip_id"][place["row"]].as_py() != clip_id:
            raise Damaged(f"{export.url}/{place['shard']}: holds another clip than its index says")
        video: bytes | None = rows["video"][place["row"]].as_py()
        return video


def _state(dataset: DatasetTables) -> Any:
    """Return what differs whenever the dataset does: versions of tables, and exports' indexes, which withdrawing rewrites."""
    tables = {name: dataset.table(name).version() for name in dataset.tables()}
    folders = [dataset.folder / "exports" / name for name in dataset.exports()]
    indexes = [each.fs.get_file_info(each.file("index.parquet")) for each in folders]
    return tables, [(info.path, info.mtime_ns, info.size) for info in indexes]


class _Handler(BaseHTTPRequestHandler):
    """Answers GET alone, of the page and of clips."""

    live: Live
    token: str
    server_version, sys_version = "dailies", ""

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing: each clip that is played is several requests."""

    def do_GET(self) -> None:
        with suppress(ConnectionError):  # a browser that has seen enough of a clip
            self._answer()

    def _answer(self) -> None:
        port = self.connection.getsockname()[1]
        if self.headers.get("Host", "") not in (f"{HOST}:{port}", f"localhost:{port}"):
            self._send(HTTPStatus.FORBIDDEN, b"this server answers on 127.0.0.1 alone\n")
            return
        token, slash, rest = self.path.removeprefix("/").partition("/")
        if not slash or not secrets.compare_digest(token.encode(), self.token.encode()):
            self._send(HTTPStatus.NOT_FOUND, b"no such page; take the whole address that dailies view printed\n")
            return
        try:
            if rest == "":
                self._send(HTTPStatus.OK, self.live.page(), "text/html; charset=utf-8")
            elif (clip := re.fullmatch(r"clip/([A-Za-z0-9_-]{1,64})", rest)) and (video := self.live.video(clip[1])):
                self._send_range(video)
            else:
                self._send(HTTPStatus.NOT_FOUND, b"no such clip\n")
        except (DailiesError, OSError, pa.ArrowException, IndexError) as error:
            if isinstance(error, ConnectionError):
                raise
            self._send(HTTPStatus.INTERNAL_SERVER_ERROR, f"{clean(str(error))}\n".encode())

    def _send_range(self, video: bytes) -> None:
        """Send the part of a clip that was asked for, as seeking does; all of it for a range that is none."""
        size = len(video)
        kind = next((kind for mark, kind in KINDS.items() if mark in video[:12]), "application/octet-stream")
        asked = RANGE.fullmatch(self.headers.get("Range", ""))
        if asked is None or not (asked[1] or asked[2]):
            self._send(HTTPStatus.OK, video, kind, {"Accept-Ranges": "bytes"})
            return
        first = int(asked[1]) if asked[1] else max(0, size - int(asked[2]))
        last = min(size - 1, int(asked[2])) if asked[1] and asked[2] else size - 1
        if first > last:
            self._send(HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE, b"", kind, {"Content-Range": f"bytes */{size}"})
            return
        more = {"Accept-Ranges": "bytes", "Content-Range": f"bytes {first}-{last}/{size}"}
        self._send(HTTPStatus.PARTIAL_CONTENT, video[first : last + 1], kind, more)

    def _send(
        self, status: HTTPStatus, body: bytes, kind: str = "text/plain", more: Mapping[str, str] = HEADERS
    ) -> None:
        self.send_response(status)
        for name, value in {**HEADERS, "Content-Type": kind, "Content-Length": str(len(body)), **more}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)


@dataclass(frozen=True, slots=True)
class Serving:
    """A server that was begun: ``address`` is what a browser opens, ``run`` answers until it is interrupted."""

    address: str
    run: Callable[[], None]
    stop: Callable[[], None]


def serve(url: str, *, selection: str | None = None, port: int = 0) -> Serving:
    """Make the page of the dataset at ``url``, and listen on a ``port`` of 127.0.0.1; 0 takes any that is free.

    Raises ``UsageError`` for a port that is taken, and what ``gather`` does.
    """
    token = secrets.token_urlsafe(16)
    handler = type("Handler", (_Handler,), {"live": Live(url, selection), "token": token})
    try:
        server = ThreadingHTTPServer((HOST, port), handler)
    except (OSError, OverflowError) as error:
        raise UsageError(f"--port={port}: cannot be listened on ({error}); name another, or leave it out") from None
    server.daemon_threads = True

    def run() -> None:
        try:
            server.serve_forever()
        finally:
            server.server_close()

    return Serving(f"http://{HOST}:{server.server_address[1]}/{token}/", run, server.shutdown)
