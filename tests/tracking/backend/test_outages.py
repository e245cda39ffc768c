"""Which failures pass by themselves, and how long is waited before the next attempt."""

from __future__ import annotations

import email.utils
import errno
import sqlite3
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
import requests
import sqlalchemy.exc
from mlflow.exceptions import MlflowException, RestException
from mlflow.protos.databricks_pb2 import PERMISSION_DENIED, REQUEST_LIMIT_EXCEEDED, TEMPORARILY_UNAVAILABLE

from w2s_mlflow.tracking.backend import outages
from w2s_mlflow.tracking.backend.error_messages import sentence

LOCKED = (
    "(raised as a result of Query-invoked autoflush; consider using a session.no_autoflush block if this flush is occurring "
)
LOCKED += "prematurely)\n(sqlite3.OperationalError) database is locked\n[SQL: INSERT INTO metrics]"


def answer(status: int) -> requests.HTTPError:
    response = requests.Response()
    response.status_code = status
    return requests.HTTPError("failed", response=response)


@pytest.mark.parametrize(
    ("error", "temporary"),
    [
        (MlflowException("API request failed with exception: connection refused"), True),
        (MlflowException(LOCKED, error_code=TEMPORARILY_UNAVAILABLE), True),
        (MlflowException("too many requests", error_code=REQUEST_LIMIT_EXCEEDED), True),
        (MlflowException("not yours", error_code=PERMISSION_DENIED), False),
        (MlflowException.invalid_parameter_value("the run must be in the 'active' state"), False),
        (RestException({"error_code": "RESOURCE_DOES_NOT_EXIST", "message": "no run"}), False),  # type: ignore[no-untyped-call]
        (answer(503), True),
        (answer(429), True),
        (answer(403), False),
        (requests.ConnectionError(), True),
        (sqlalchemy.exc.OperationalError("INSERT", {}, sqlite3.OperationalError("server closed the connection")), True),
        (sqlalchemy.exc.ProgrammingError("INSERT", {}, sqlite3.ProgrammingError("no such table")), False),
        (ConnectionResetError(), True),
        (OSError(errno.ENOSPC, "no space"), False),
        (FileNotFoundError(errno.ENOENT, "gone"), False),
        (KeyError("a mistake of the program"), False),
    ],
)
def test_a_failure_is_temporary_if_nobody_must_change_anything(error: Exception, temporary: bool) -> None:
    assert outages.is_temporary(error) is temporary


def test_a_locked_database_is_called_so() -> None:
    assert sentence(MlflowException(LOCKED)) == "database is locked"


def test_pauses_grow_to_a_limit() -> None:
    pauses = [outages.pause("sqlite:///mlflow.db", failures) for failures in (1, 2, 3, 100)]
    assert pauses == [0.25, 0.5, 1.0, 15.0]


@pytest.fixture
def limited() -> Iterator[HTTPServer]:
    """A server that limits the rate of requests; its attribute `header` is its `Retry-After`."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(429)
            self.send_header("Retry-After", self.server.header)  # type: ignore[attr-defined]
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.mark.parametrize(("header", "seconds"), [("7", 7), ("100000", 600), ("0", 0.25), ("soon", 0.25), ("DATE", 60)])
def test_a_server_is_asked_when_it_wants_the_next_request(limited: HTTPServer, header: str, seconds: float) -> None:
    limited.header = email.utils.formatdate(time.time() + 60) if header == "DATE" else header  # type: ignore[attr-defined]
    slack = 59 if header == "DATE" else 0  # a date passes while a busy machine asks
    assert seconds - slack <= outages.pause(f"http://127.0.0.1:{limited.server_port}", 1) <= seconds


def test_a_server_that_is_gone_is_asked_again_soon() -> None:
    assert outages.pause("http://127.0.0.1:9", 1) == 0.25
