"""A proxy in front of a real tracking server, which delays, drops, limits and refuses as tests tell it."""

from __future__ import annotations

import contextlib
import http.client
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

HOP = {"connection", "keep-alive", "transfer-encoding", "host", "content-length"}
"""Headers that concern one connection only."""
LIMITED = b'{"error_code": "REQUEST_LIMIT_EXCEEDED", "message": "too many requests"}'


@dataclass
class Request:
    """A request that the proxy has seen."""

    path: str
    at: float
    """Monotonic time."""
    status: int = 0
    """Status of the answer; 0 if the client got none."""


@dataclass
class Faults:
    """What the proxy does to the requests whose path contains `only`. It may be changed at any time."""

    only: str = ""
    delay: float = 0.0
    """Seconds between a request and its delivery to the server."""
    away: bool = False
    """Whether connections are closed without an answer, and requests do not reach the server."""
    drop: Callable[[], bool] = lambda: False
    """Function that says whether an answer is lost: the server gets the request, the client no answer."""
    twice: Callable[[], bool] = lambda: False
    """Function that says whether the server gets a request twice."""
    limited: int = 0
    """Number of the next requests that are answered with status 429 and `Retry-After`."""
    retry_after: str = "1"
    seen: list[Request] = field(default_factory=list)

    def met(self, path: str) -> bool:
        """Return whether the faults concern a path."""
        return self.only in path


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    faults: Faults
    target: tuple[str, int]

    def handle_request(self) -> None:
        faults, body = self.faults, self.rfile.read(int(self.headers.get("Content-Length") or 0))
        seen = Request(self.path, time.monotonic())
        faults.seen.append(seen)
        concerned = faults.met(self.path)
        if concerned and faults.delay:
            time.sleep(faults.delay)
        if concerned and faults.away:
            self._hang_up()
            return
        if concerned and faults.limited > 0:
            faults.limited -= 1
            seen.status = 429
            self._answer(
                429, [("Retry-After", faults.retry_after)], b'{"error_code": "REQUEST_LIMIT_EXCEEDED", "message": "slow"}'
            )
            return
        if concerned and faults.twice():
            self._forward(body)
        status, headers, answer = self._forward(body)
        if concerned and faults.drop():
            self._hang_up()
            return
        seen.status = status
        with contextlib.suppress(OSError):  # the client has gone
            self._answer(status, headers, answer)

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = do_HEAD = handle_request

    def _forward(self, body: bytes) -> tuple[int, list[tuple[str, str]], bytes]:
        headers = {name: value for name, value in self.headers.items() if name.lower() not in HOP}
        with contextlib.closing(http.client.HTTPConnection(*self.target, timeout=60)) as connection:
            connection.request(self.command, self.path, body, headers)
            response = connection.getresponse()
            kept = [(name, value) for name, value in response.getheaders() if name.lower() not in HOP]
            return response.status, kept, response.read()

    def _answer(self, status: int, headers: list[tuple[str, str]], body: bytes) -> None:
        self.send_response_only(status)
        for name, value in [*headers, ("Content-Length", str(len(body)))]:
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _hang_up(self) -> None:
        self.close_connection = True
        with contextlib.suppress(OSError):
            self.connection.shutdown(socket.SHUT_RDWR)

    def log_message(self, format: str, *arguments: object) -> None:
        """Say nothing."""


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing of clients and servers that hang up."""


@contextlib.contextmanager
def proxy(uri: str) -> Iterator[tuple[str, Faults]]:
    """A proxy in front of the server at `uri`; its own URI, and its faults."""
    faults, target = Faults(), urlsplit(uri)
    assert target.hostname is not None and target.port is not None
    handler = type("Handler", (_Handler,), {"faults": faults, "target": (target.hostname, target.port)})
    with _Server(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}", faults
        finally:
            server.shutdown()
            thread.join()
