"""Checks of a tracking URI, made before MLflow uses it. MLflow itself would retry an unresponsive server for minutes.

An error raised in this file or in database.py says why the URI cannot be used and what to do. server.py puts the URI before
this text.
"""

from __future__ import annotations

import json
import re
import tempfile
from pathlib import Path
from urllib.parse import urlsplit

import requests
from mlflow.exceptions import MlflowException
from mlflow.store.tracking import DEFAULT_LOCAL_FILE_AND_ARTIFACT_PATH
from mlflow.utils.credentials import get_default_host_creds
from mlflow.utils.rest_utils import http_request
from mlflow.utils.uri import get_uri_scheme

from w2s_mlflow.exceptions import ConfigError
from w2s_mlflow.tracking.backend.error_messages import sentence

TIMEOUT = 5
"""Seconds that a server may take for its first answer. For later requests, MLflow's own timeouts apply."""
BUSY = 429
"""HTTP status of a server that works but limits the request rate. This status is accepted, because MLflow retries such
requests."""


def check(uri: str) -> None:
    """Check a URI that is not a database: query an HTTP server and reject a directory. Other URIs are not checked.

    Raises:
        ConfigError: the server does not answer or is not an MLflow server, or `uri` is a directory.
    """
    kind = scheme(uri)
    if kind in ("http", "https"):
        _check_server(uri)
    elif kind == "file" or (not kind and uri != "databricks"):
        raise ConfigError(
            "MLflow no longer stores runs in a directory: set MLFLOW_TRACKING_URI to a database such as "
            "sqlite:////data/mlflow.db (`mlflow migrate-filestore` copies old runs into it)"
        )


def ask(uri: str) -> requests.Response:
    """Send one small request to an HTTP server, without retries, and return its answer, whatever its status is.

    Raises:
        MlflowException: the server did not answer within TIMEOUT seconds.
    """
    response: requests.Response = http_request(  # type: ignore[no-untyped-call]
        get_default_host_creds(uri),  # type: ignore[no-untyped-call]
        "/api/2.0/mlflow/experiments/search",
        "GET",
        params={"max_results": 1},
        max_retries=0,
        timeout=TIMEOUT,
        raise_on_status=False,
    )
    return response


def scheme(uri: str) -> str:
    """Return the scheme of a URI without the driver: `postgresql` for `postgresql+psycopg2://host/name`, "" for a path."""
    return str(get_uri_scheme(uri))  # type: ignore[no-untyped-call]


def unwritable(directory: Path) -> str | None:
    """Return the reason why `directory` is not writable, or None if it is writable.

    If the directory does not exist, its nearest existing parent is checked instead.
    """
    try:
        nearest = next(path for path in (directory, *directory.absolute().parents) if path.exists())
        with tempfile.TemporaryFile(dir=nearest):
            return None
    except OSError as error:
        return error.strerror


def check_new_artifacts() -> None:
    """Raise ConfigError if the directory in which MLflow stores the artifacts of a new experiment is not writable."""
    directory = Path(DEFAULT_LOCAL_FILE_AND_ARTIFACT_PATH).absolute()
    if reason := unwritable(directory):
        raise ConfigError(
            f"the artifacts of new experiments would be stored in {directory}, which is not writable ({reason}): "
            "start in another directory"
        )


def lost_run(uri: str, run_id: str) -> ConfigError:
    """Return the error for a run created by `mlflow run` that does not exist at `uri`."""
    database = re.fullmatch(r"sqlite[^:]*:///([^/].*)", uri)
    if not database:
        advice = "unset MLFLOW_RUN_ID, or set MLFLOW_TRACKING_URI to the server that has the run"
    else:
        advice = (
            f"the relative path means {Path(database[1]).absolute()} here, because `mlflow run` starts a project in another "
            f"directory: give an absolute path, MLFLOW_TRACKING_URI=sqlite:////.../{Path(database[1]).name}"
        )
    return ConfigError(f"it does not have the run {run_id}, which MLFLOW_RUN_ID names: {advice}")


def _check_server(uri: str) -> None:
    if not urlsplit(uri).hostname:
        raise ConfigError("the URI must name a host, such as http://127.0.0.1:5000")
    try:
        response = ask(uri)
    except MlflowException as error:
        raise ConfigError(f"{sentence(error)} (start the server, or correct MLFLOW_TRACKING_URI)") from error
    if response.status_code not in (200, BUSY):
        raise ConfigError(f"it answers with status {response.status_code} {response.reason}: {_advice(response.status_code)}")
    if response.status_code == 200 and not _is_answer(response.text):
        kind = response.headers.get("Content-Type", "something else")
        raise ConfigError(
            f"it is not an MLflow server (it answers with {kind}): check the address and the path in MLFLOW_TRACKING_URI"
        )


def _advice(status: int) -> str:
    if status in (401, 403):
        return (
            "set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN, and check that the server "
            "accepts the host name in MLFLOW_TRACKING_URI"
        )
    if status < 500:
        return "check the address and the path in MLFLOW_TRACKING_URI"
    return "see the server's log, or try again later"


def _is_answer(text: str) -> bool:
    """Return whether `text` is MLflow's JSON answer to a search for experiments. If there are none, the answer is `{}`."""
    try:
        answer = json.loads(text)
    except ValueError:
        return False
    return isinstance(answer, dict) and (not answer or "experiments" in answer)
