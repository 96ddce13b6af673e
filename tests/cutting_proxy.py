"""A proxy before a real HTTP or S3 server that cuts answers in mid-body, loses them, or answers with an error instead."""

from __future__ import annotations

import http.client
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Literal

Fault = Literal["cut", "lose", "busy", "no length"]
Choose = Callable[[str, str], Fault | None]  # (method, path) → what to do to the answer
KEPT_BACK = {"connection", "transfer-encoding", "content-length", "expect"}


@dataclass
class Proxy:
    """``url``: of the proxy; ``choose`` may be set at any time; ``faults`` counts how many answers it harmed."""

    url: str = ""
    choose: Choose = lambda method, path: None
    faults: int = 0
    paths: list[str] = field(default_factory=list)

    def once(self, fault: Fault, method: str, part: str) -> None:
        """Harm the next answer to ``method`` on a path with ``part`` in it, and no other."""
        before = self.faults

        def choose(asked: str, path: str) -> Fault | None:
            return fault if self.faults == before and asked == method and part in path else None

        self.choose = choose


@contextmanager
def cutting_proxy(host: str, port: int) -> Iterator[Proxy]:
    """Stand before the server at ``host`` and ``port``."""
    proxy = Proxy()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def forward(self) -> None:
            body = self._body()
            headers = {name: value for name, value in self.headers.items() if name.lower() not in KEPT_BACK}
            server = http.client.HTTPConnection(host, port)
            server.request(self.command, self.path, body, headers)
            answer = server.getresponse()
            content = answer.read()
            fault = proxy.choose(self.command, self.path)
            proxy.faults += fault is not None
            proxy.paths.append(self.path)
            self.close_connection = True
            if fault == "lose":
                return
            if fault == "busy":
                self.send_error(503)
                return
            self.send_response(answer.status)
            for name, value in answer.getheaders():
                if name.lower() not in KEPT_BACK:
                    self.send_header(name, value)
            if fault != "no length":
                length = answer.getheader("Content-Length") if self.command == "HEAD" else str(len(content))
                self.send_header("Content-Length", length or "0")
            self.send_header("Connection", "close")
            self.end_headers()
            with suppress(ConnectionError):
                self.wfile.write(content[: len(content) // 2] if fault == "cut" else content)

        do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = forward  # noqa: N815 - as http.server calls them

        def _body(self) -> bytes:
            if "chunked" not in self.headers.get("Transfer-Encoding", ""):
                return self.rfile.read(int(self.headers.get("Content-Length", 0)))
            body = b""
            while size := int(self.rfile.readline().split(b";")[0], 16):
                body += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
            return body

        def log_message(self, format: str, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        proxy.url = f"http://127.0.0.1:{server.server_address[1]}"
        Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield proxy
        finally:
            server.shutdown()
