"""One-sentence messages, without passwords, for failures of servers, networks, object stores and disks."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
import tempfile
from urllib.parse import urlsplit

import mlflow
import requests
from mlflow.exceptions import MlflowException

from w2s_mlflow.display import masked, printable, redacted
from w2s_mlflow.exceptions import ConfigError

REFUSED = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO}
"""Error codes (errno) of file errors that are caused by the machine, for example by a full disk, and not by the program."""
STORES = ("boto3", "botocore", "azure", "google")
"""Packages with which MLflow accesses object stores; each defines its own exceptions."""
GO_ON = "finished results are kept: fix the problem and run the same command again"


def failure(error: BaseException) -> str | None:
    """Return a message for an error caused by a server, an object store, the network or the disk; None for other errors."""
    import sqlalchemy.exc  # imported only here, because a client of an HTTP server does not need SQLAlchemy otherwise

    if isinstance(error, requests.RequestException):
        return f"{_party(error)} failed: {sentence(error)}; {GO_ON}"
    if isinstance(error, (MlflowException, sqlalchemy.exc.DatabaseError)):
        return f"the tracking server {masked(mlflow.get_tracking_uri())} failed: {sentence(error)}; {GO_ON}"
    if type(error).__module__.split(".")[0] in STORES:
        return f"the artifact store failed: {sentence(error)}; {GO_ON}"
    if isinstance(error, ModuleNotFoundError) and error.name in STORES:  # MLflow imports these packages only when it uses them
        return f"the artifact store needs the package {error.name}, which is not installed; {GO_ON}"
    if code := _refused(error):
        path = getattr(error, "filename2", None) or getattr(error, "filename", None)  # filename2 is the target of a copy
        path = path or f"a file (temporary files are in {tempfile.gettempdir()})"
        return f"{path} cannot be used: {os.strerror(code)}; {GO_ON}"
    return None


def sentence(error: BaseException) -> str:
    """Return the first line of an error's message. JSON and class names that surround the message are removed."""
    if isinstance(error, ConfigError):
        return str(error)
    if isinstance(error, OSError) and error.strerror:
        return f"{error.strerror}: {error.filename}" if error.filename else error.strerror
    text = _network(error) or str(error.args[0] if error.args else error)
    with contextlib.suppress(ValueError, AttributeError, TypeError, KeyError):
        text = str(json.loads(text)["message"])
    # SQLAlchemy puts a hint for its own users, of several words, and the driver's class before the message, as in
    # "(raised as a result of Query-invoked autoflush; ...) (sqlite3.OperationalError) database is locked".
    text = re.sub(r"^(\((raised as a result of [^()]*|[\w.]+)\)\s*)*", "", text.strip())
    return _without_passwords(text.splitlines()[0])[:200] if text else type(error).__name__


def _without_passwords(text: str) -> str:
    uri = mlflow.get_tracking_uri()
    return printable(redacted(text.replace(uri, masked(uri))))


def _party(error: requests.RequestException) -> str:
    """Return a phrase that names the server to which a failed request was sent.

    The phrase names the tracking server, or, if the request was sent to a different host, that host.
    """
    uri, url = mlflow.get_tracking_uri(), str(getattr(error.request, "url", None) or "")
    host = urlsplit(url).hostname
    return f"the tracking server {masked(uri)}" if host in (None, urlsplit(uri).hostname) else f"the host {host}"


def _network(error: BaseException) -> str | None:
    """Return the reason for a network error; None for other errors.

    The reason is stored in an exception of urllib3, which `requests` and MLflow wrap in exceptions of their own.
    """
    chain = (error, error.__cause__, error.__context__)
    request_error = next((cause for cause in chain if isinstance(cause, requests.RequestException)), None)
    reason = getattr(request_error.args[0], "reason", None) if request_error and request_error.args else None
    return re.sub(r"^\w+\(.*?\): ", "", str(reason)) if isinstance(reason, Exception) else None


def _refused(error: BaseException) -> int | None:
    """Return the errno of an error if it is in REFUSED, else None. Rust libraries state the errno only in the message."""
    code = error.errno if isinstance(error, OSError) else None
    if match := re.search(r"\(os error (\d+)\)", str(error)):
        code = int(match[1])
    return code if code in REFUSED else None
