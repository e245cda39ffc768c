"""What went wrong outside the program, in one sentence; passwords are not shown."""

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

from w2s_mlflow.exceptions import ConfigError

REFUSED = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO}
"""Errors of files that the machine is the cause of, not the program."""
STORES = ("boto3", "botocore", "azure", "google")
"""The packages by which MLflow reaches object stores; each has errors of its own."""
GO_ON = "what was finished is kept, so run the same command again once this is mended"


def failure(error: BaseException) -> str | None:
    """The sentence for an error that a server, an object store, the network or the disk is the cause of; None for any other."""
    import sqlalchemy.exc  # a program that talks to an HTTP server loads it only here

    if isinstance(error, requests.RequestException):
        return f"{_party(error)} failed: {sentence(error)}; {GO_ON}"
    if isinstance(error, (MlflowException, sqlalchemy.exc.DatabaseError)):
        return f"the tracking server {masked(mlflow.get_tracking_uri())} failed: {sentence(error)}; {GO_ON}"
    if type(error).__module__.split(".")[0] in STORES:
        return f"the artifact store failed: {sentence(error)}; {GO_ON}"
    if isinstance(error, ModuleNotFoundError) and error.name in STORES:  # MLflow loads it when it is needed
        return f"the artifact store needs the package {error.name}, which is not installed; {GO_ON}"
    if code := _refused(error):
        place = getattr(error, "filename2", None) or getattr(error, "filename", None)  # of a copy: the second is written
        place = place or f"a file (temporary ones are in {tempfile.gettempdir()})"
        return f"{place} cannot be used: {os.strerror(code)}; {GO_ON}"
    return None


def sentence(error: BaseException) -> str:
    """The first line of what went wrong, out of the JSON and the names of classes that it is wrapped in."""
    if isinstance(error, ConfigError):
        return str(error)
    if isinstance(error, OSError) and error.strerror:
        return f"{error.strerror}: {error.filename}" if error.filename else error.strerror
    text = _network(error) or str(error.args[0] if error.args else error)
    with contextlib.suppress(ValueError, AttributeError, TypeError, KeyError):
        text = str(json.loads(text)["message"])
    text = re.sub(r"^\([\w.]+\) ", "", text.strip())  # SQLAlchemy's: "(sqlite3.OperationalError) ..."
    return _without_passwords(text.splitlines()[0])[:200] if text else type(error).__name__


def masked(uri: str) -> str:
    """A URI for people: without its password, which may hold any character, also unquoted."""
    shown = re.sub(r"(://[^/:@]*):.*@", r"\1:***@", uri, flags=re.DOTALL)
    return re.sub(r"([?&]\w*(?:pass|secret|token|key)\w*=)[^&]*", r"\1***", shown, flags=re.IGNORECASE)


def _without_passwords(text: str) -> str:
    uri = mlflow.get_tracking_uri()
    return re.sub(r"\w+://\S+", lambda found: masked(found[0]), text.replace(uri, masked(uri)))


def _party(error: requests.RequestException) -> str:
    """Who did not answer: the tracking server, or the host of the request where that is another."""
    uri, url = mlflow.get_tracking_uri(), str(getattr(error.request, "url", None) or "")
    host = urlsplit(url).hostname
    return f"the tracking server {masked(uri)}" if host in (None, urlsplit(uri).hostname) else f"the host {host}"


def _network(error: BaseException) -> str | None:
    """What the network said: below MLflow's text lies that of requests, and below it the reason of urllib3."""
    chain = (error, error.__cause__, error.__context__)
    found = next((one for one in chain if isinstance(one, requests.RequestException)), None)
    reason = getattr(found.args[0], "reason", None) if found and found.args else None
    return re.sub(r"^\w+\(.*?\): ", "", str(reason)) if isinstance(reason, Exception) else None


def _refused(error: BaseException) -> int | None:
    """The number of an operating system's error, also out of the text that libraries in Rust put it into."""
    code = error.errno if isinstance(error, OSError) else None
    if found := re.search(r"\(os error (\d+)\)", str(error)):
        code = int(found[1])
    return code if code in REFUSED else None
