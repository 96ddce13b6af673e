"""Web servers on addresses of this machine, which serve a file in ranges or lead elsewhere, and note who asked."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class Web:
    """A server. ``leads``: where each path leads instead of to the file; ``late``: only for what comes after a HEAD."""

    data: bytes
    url: str = ""
    leads: dict[str, str] = field(default_factory=dict)
    late: bool = False
    asked: list[str] = field(default_factory=list)


@contextmanager
def serving(data: bytes = b"", address: str = "127.0.0.1") -> Iterator[Web]:
    """Serve ``data`` at every path of ``address``, at a port of its own."""
    web = Web(data)

    class Handler(BaseHTTPRequestHandler):
        def _answer(self) -> None:
            web.asked.append(f"{self.command} {self.path}")
            if self.path in web.leads and not (web.late and self.command == "HEAD"):
                self.send_response(302)
                self.send_header("Location", web.leads[self.path])
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            first, last = 0, len(web.data) - 1
            if match := re.match(r"bytes=(\d+)-(\d+)", self.headers.get("Range", "")):
                first, last = int(match[1]), min(int(match[2]), last)
            part = web.data[first : last + 1]
            self.send_response(206 if match else 200)
            if match:
                self.send_header("Content-Range", f"bytes {first}-{last}/{len(web.data)}")
            self.send_header("Content-Length", str(len(part)))
            self.send_header("Accept-Ranges", "bytes")
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(part)

        do_GET = do_HEAD = _answer  # noqa: N815 - as http.server calls them

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer((address, 0), Handler) as server:
        web.url = f"http://{address}:{server.server_address[1]}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        thread.start()
        yield web
        server.shutdown()
        thread.join()
