"""Temporary failures of a server, a database or the network, and the time to wait before a request is sent again.

What a run logs is sent by a background thread, for as long as it takes (writer.py). All other requests, such as those that look
for finished runs, are repeated for at most W2S_SERVER_WAIT seconds (PatientClient).
"""

from __future__ import annotations

import contextlib
import email.utils
import errno
import functools
import logging
import os
import threading
import time
from collections.abc import Callable
from typing import Any

import mlflow
import requests
from mlflow.exceptions import MlflowException

from w2s_mlflow.exceptions import must
from w2s_mlflow.tracking.backend import preflight
from w2s_mlflow.tracking.backend.error_messages import sentence

LOG = logging.getLogger("w2s_mlflow")
PATIENT_FAILURES = 3
"""Number of failures of a request after which the user is told that it is repeated."""
PATIENCE = 300.0
"""Default of W2S_SERVER_WAIT: seconds to wait for a server that is away."""
RETRIES = "1"
"""Number of times that MLflow itself repeats a request over HTTP. With its default it is busy for minutes."""
REPEATED = {
    *("create_experiment", "finalize_logged_model", "get_experiment", "get_experiment_by_name", "get_logged_model"),
    *("get_metric_history", "get_run", "log_artifacts", "log_batch", "log_inputs", "log_model_artifacts", "log_outputs"),
    *("log_param", "search_experiments", "search_runs", "search_traces", "set_experiment_tag", "set_logged_model_tags"),
    *("set_tag", "set_terminated", "update_run"),
}
"""Requests whose effect is the same if they are sent twice; the name of an experiment is given once only."""

FIRST, LONGEST = 0.25, 15.0
"""Seconds to wait after the first failure, doubled with each further one, and the longest such wait."""
LONGEST_ASKED = 600.0
"""Longest wait in seconds that a server can ask for with `Retry-After`."""
TEMPORARY = {408, 425, 429}
"""HTTP statuses below 500 after which the same request can succeed."""
DATABASE = ("sqlalchemy", "sqlite3", "psycopg2", "psycopg", "pymysql", "MySQLdb")
"""Packages whose OperationalError and InterfaceError mean that a database is locked, restarting or away."""
STORES = ("boto3", "botocore", "urllib3", "azure", "google")
"""Packages with which MLflow accesses networks and object stores."""
LASTING = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO, errno.ENOENT, errno.ENOTDIR}
"""Error codes of a local disk that will not change by themselves."""


class PatientClient(mlflow.MlflowClient):
    """MLflow's client, whose requests in the main thread are repeated after temporary failures.

    In other threads, failures are raised at once: the writer and the heartbeat repeat their requests in their own time.
    """

    def __getattribute__(self, name: str) -> Any:
        value = super().__getattribute__(name)
        if name in REPEATED and threading.current_thread() is threading.main_thread():
            return functools.partial(repeat, value)
        return value


def repeat(request: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
    """Send a request until it succeeds, at most for W2S_SERVER_WAIT seconds. Return its answer.

    Raises:
        Exception: the failure of the last attempt, or the first failure that is not temporary.
    """
    deadline, failures = time.monotonic() + patience(), 0
    while True:
        try:
            return request(*arguments, **named)
        except Exception as error:
            failures += 1
            if not is_temporary(error) or time.monotonic() >= deadline:
                raise
            if failures == PATIENT_FAILURES:
                LOG.warning("the tracking server does not answer, waiting for it: %s", sentence(error))
            until = time.monotonic() + pause(mlflow.get_tracking_uri(), failures)
        time.sleep(max(0.0, min(until, deadline) - time.monotonic()))


def patience() -> float:
    """Return the value of W2S_SERVER_WAIT. Raises ConfigError if it is not a number of at least 0."""
    text = os.environ.get("W2S_SERVER_WAIT") or str(PATIENCE)
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds < float("inf"):
        raise must("W2S_SERVER_WAIT", "a number of seconds, 0 or more", text)
    return seconds


def is_temporary(error: BaseException) -> bool:
    """Return whether the same request can succeed later without anybody changing it."""
    if isinstance(error, MlflowException):
        status = error.get_http_status_code()  # type: ignore[no-untyped-call]
        return status >= 500 or status in TEMPORARY
    if isinstance(error, requests.HTTPError) and error.response is not None:  # raised by MLflow's artifact clients
        return error.response.status_code >= 500 or error.response.status_code in TEMPORARY
    package = type(error).__module__.split(".")[0]
    if isinstance(error, requests.RequestException) or package in STORES:
        return True
    if package in DATABASE:
        return type(error).__name__ in ("OperationalError", "InterfaceError")
    return isinstance(error, OSError) and error.errno not in LASTING


def pause(uri: str, failures: int) -> float:
    """Return the seconds to wait before a request is sent again, after `failures` (at least 1) failures.

    An HTTP server is asked: it may limit the rate of requests and state with `Retry-After` when the next one is welcome. MLflow
    waits for that time between its own attempts, but does not say it when it gives up.
    """
    seconds = min(FIRST * 2.0 ** min(failures - 1, 10), LONGEST)
    if preflight.scheme(uri) in ("http", "https"):
        with contextlib.suppress(MlflowException):
            return max(seconds, _asked(preflight.ask(uri).headers.get("Retry-After", "")))
    return seconds


def _asked(header: str) -> float:
    """Return the seconds that a `Retry-After` header asks for (RFC 9110, section 10.2.3: seconds or a date); 0 if none."""
    seconds = 0.0
    if header.strip().isascii() and header.strip().isdigit():
        seconds = float(header)
    elif header:
        with contextlib.suppress(ValueError, TypeError):
            seconds = email.utils.parsedate_to_datetime(header).timestamp() - time.time()
    return min(max(seconds, 0.0), LONGEST_ASKED)
