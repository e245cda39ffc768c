"""A small real server of OpenAI's protocol, which says what a test scripts, refuses and fails included."""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

KEY = "sk-of-the-test"


@dataclass
class Reply:
    """What the server sends: a status, a body (JSON unless it is text), and headers, after a pause."""

    status: int = 200
    body: Any = None
    headers: Mapping[str, str] = field(default_factory=dict)
    pause: float = 0.0


def said(text: str | None, tokens: int = 10) -> Reply:
    """A chat completion with one choice."""
    choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": text}}
    return Reply(body={"object": "chat.completion", "choices": [choice], "usage": {"total_tokens": tokens}})


Script = Callable[[dict[str, Any], int], Reply]
"""(the body of the request, how many came before it) -> what is sent."""


@dataclass
class Served:
    """A server under way: where it is, and what it was sent, in order."""

    url: str
    requests: list[tuple[dict[str, Any], Mapping[str, str]]] = field(default_factory=list)
    at_once: int = 0
    most_at_once: int = 0


@contextlib.contextmanager
def serving(script: Script) -> Iterator[Served]:
    """A server on a port of this machine that answers POST /v1/chat/completions by a script, and nothing else."""
    lock = threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            with lock:
                before = len(served.requests)
                served.requests.append((body, dict(self.headers)))
                served.at_once += 1
                served.most_at_once = max(served.most_at_once, served.at_once)
            reply = script(body, before) if self.path == "/v1/chat/completions" else Reply(404, "nothing here")
            time.sleep(reply.pause)
            with lock:
                served.at_once -= 1
            content = reply.body if isinstance(reply.body, str) else json.dumps(reply.body)
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # who asked may have given up
                self.send_response(reply.status)
                for name, value in {"Content-Length": str(len(content.encode())), **reply.headers}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(content.encode())

        def log_message(self, format: str, *arguments: object) -> None:
            """Nothing on the terminal."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        served = Served(f"http://127.0.0.1:{server.server_address[1]}")
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield served
        finally:
            server.shutdown()
            thread.join()
