"""Temporary failures of a server, a database or the network, and the time to wait before a request is sent again."""

from __future__ import annotations

import contextlib
import email.utils
import errno
import time

import requests
from mlflow.exceptions import MlflowException

from w2s_mlflow.tracking.backend import preflight

FIRST, LONGEST = 0.25, 15.0
"""Seconds to wait after the first failure, doubled with each further one, and the longest such wait."""
LONGEST_ASKED = 600.0
"""Longest wait in seconds that a server can ask for with `Retry-After`."""
TEMPORARY = {408, 425, 429}
"""HTTP statuses below 500 after which the same request can succeed."""
RACES = ("IntegrityError", "UniqueViolation")
"""Names in MLflow's message when two processes have created the same row, such as a data set, at the same time."""
DATABASE = ("sqlalchemy", "sqlite3", "psycopg2", "psycopg", "pymysql", "MySQLdb")
"""Packages whose OperationalError and InterfaceError mean that a database is locked, restarting or away."""
STORES = ("boto3", "botocore", "urllib3", "azure", "google")
"""Packages with which MLflow accesses networks and object stores."""
LASTING = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO, errno.ENOENT, errno.ENOTDIR}
"""Error codes of a local disk that will not change by themselves."""


def is_temporary(error: BaseException) -> bool:
    """Return whether the same request can succeed later without anybody changing it."""
    if isinstance(error, MlflowException):
        status = error.get_http_status_code()
        return status >= 500 or status in TEMPORARY or any(name in str(error) for name in RACES)
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
