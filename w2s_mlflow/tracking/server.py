"""The MLflow server, experiment and launcher's run in use: MLflow's own settings, read once.

The server is MLFLOW_TRACKING_URI (default: mlflow.db in this directory), the experiment MLFLOW_EXPERIMENT_NAME or
MLFLOW_EXPERIMENT_ID (default: MLflow's default experiment), as `mlflow run` sets them.
"""

from __future__ import annotations

import contextlib
import functools
import json
import logging
import os
import re
import sqlite3

import mlflow
from mlflow.entities import Experiment, ViewType
from mlflow.exceptions import MlflowException

from w2s_mlflow.config import ConfigError


@functools.cache
def client() -> mlflow.MlflowClient:
    """The client of the server in use. Raises ConfigError where it cannot be used."""
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")  # it would tear our own progress line
    logging.getLogger("alembic").setLevel(logging.WARNING)
    logging.getLogger("mlflow.store.db.utils").setLevel(logging.WARNING)
    uri = mlflow.get_tracking_uri()
    try:
        found = mlflow.MlflowClient(uri)
        found.search_experiments(ViewType.ALL, max_results=1)
    except Exception as error:  # whatever the driver raises: the user's sentence is the same
        raise ConfigError(f"the tracking server {where()} cannot be used: {sentence(error)}") from error
    if uri.startswith("sqlite:///"):
        _write_ahead(uri.removeprefix("sqlite:///"))
    return found


@functools.cache
def experiment() -> Experiment:
    """The experiment in use, made and marked as model training on first use.

    Raises:
        ConfigError: it was deleted, or the server cannot be used.
    """
    id_, name = os.environ.get("MLFLOW_EXPERIMENT_ID"), os.environ.get("MLFLOW_EXPERIMENT_NAME")
    try:
        found = client().get_experiment(id_) if id_ else client().get_experiment_by_name(name or "Default")
        if found is None:
            found = client().get_experiment(client().create_experiment(name or "Default"))
    except MlflowException as error:
        raise ConfigError(
            f"the experiment {name or id_ or 'Default'} cannot be used at {where()}: {sentence(error)}"
        ) from error
    if found.lifecycle_stage != "active":
        raise ConfigError(
            f"the experiment {found.name!r} was deleted: restore it with `mlflow experiments restore "
            f"-x {found.experiment_id}`, or name another in MLFLOW_EXPERIMENT_NAME"
        )
    if "mlflow.experimentKind" not in found.tags:
        client().set_experiment_tag(found.experiment_id, "mlflow.experimentKind", "custom_model_development")
    return found


def forget() -> None:
    """Read the environment anew: for a process that changes its tracking server or its experiment."""
    for cached in (client, experiment, launch_run_id):
        cached.cache_clear()


def where() -> str:
    """The tracking URI in use, for people: without its password."""
    return re.sub(r"(//[^/:@]*):[^@/]*@", r"\1:***@", mlflow.get_tracking_uri())


@functools.cache
def launch_run_id() -> str | None:
    """The run that `mlflow run` made, adopted once as the parent of what is made here."""
    # Left in the environment, MLFLOW_RUN_ID would make any child process write into the launcher's run.
    run_id = os.environ.pop("MLFLOW_RUN_ID", None)
    if run_id:
        client().set_tag(run_id, "w2s.stage", "launch")
    return run_id


def close_launch(result_run_id: str) -> None:
    """Point the launcher's own run, if `mlflow run` made one, at the result."""
    if launch := launch_run_id():
        client().set_tag(launch, "w2s.result_run_id", result_run_id)


def _write_ahead(path: str) -> None:
    """Switch a new database to a write-ahead log, once for all: readers then do not block the writer."""
    with contextlib.closing(sqlite3.connect(path)) as database:
        if database.execute("PRAGMA journal_mode").fetchone() != ("wal",):
            database.execute("PRAGMA journal_mode=WAL")


def sentence(error: Exception) -> str:
    """The first line of what went wrong, out of the JSON that servers wrap it in."""
    text = str(error.args[0] if error.args else error)
    with contextlib.suppress(ValueError, AttributeError):
        text = json.loads(text)["message"]
    return text.strip().splitlines()[0][:200] if text.strip() else type(error).__name__
