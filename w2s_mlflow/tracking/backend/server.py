"""The current MLflow server and experiment, and the run created by `mlflow run`. MLflow's settings are read once and cached.

MLFLOW_TRACKING_URI names the server (default: mlflow.db in the working directory); MLFLOW_EXPERIMENT_NAME or
MLFLOW_EXPERIMENT_ID names the experiment (default: MLflow's default experiment). `mlflow run` sets these variables.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import os
from collections.abc import Iterator
from pathlib import Path

import mlflow
from mlflow.entities import Experiment
from mlflow.exceptions import MlflowException
from mlflow.store.db.db_types import DATABASE_ENGINES
from mlflow.tracking.registry import UnsupportedModelRegistryStoreURIException
from mlflow.utils.file_utils import local_file_uri_to_path
from mlflow.utils.uri import is_local_uri

from w2s_mlflow import __version__
from w2s_mlflow.display import has_raw_password, masked
from w2s_mlflow.exceptions import ConfigError, unknown
from w2s_mlflow.tracking.backend import outages, preflight
from w2s_mlflow.tracking.backend.error_messages import failure as failure
from w2s_mlflow.tracking.backend.error_messages import sentence as sentence
from w2s_mlflow.tracking.names import split as split_names

SCHEMA_VERSION = 1
"""Version of the format of an experiment's runs and tags. Increment it when older releases can no longer read new runs."""
MARKS = {
    "mlflow.experimentKind": "custom_model_development",  # the UI then shows the experiment as model training
    "w2s.schema_version": str(SCHEMA_VERSION),
    "w2s.version": __version__,
}
"""Tags of an experiment, set when this package first uses the experiment."""


@functools.cache
def client() -> mlflow.MlflowClient:
    """Return the client of the current server. Raises ConfigError if the server cannot be used."""
    # MLflow's progress bars would interrupt our own progress line.
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", outages.RETRIES)
    logging.getLogger("alembic").setLevel(logging.WARNING)
    # SQLAlchemy's connection pool logs a traceback when a request is interrupted. The traceback is of no use to the user.
    logging.getLogger("sqlalchemy.pool").setLevel(logging.CRITICAL)
    # MLflow's database module logs errors and then also raises them, so its log messages are redundant.
    logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)
    uri = mlflow.get_tracking_uri()
    try:
        _prepare(uri)
        return outages.PatientClient(uri)
    except UnsupportedModelRegistryStoreURIException as error:
        legal = set(error.supported_uri_schemes) - {"", "file"}
        raise _unusable(str(unknown("the scheme of MLFLOW_TRACKING_URI", preflight.scheme(uri), legal))) from error
    except Exception as error:  # database drivers raise exceptions of many types
        raise _unusable(sentence(error)) from error


@functools.cache
def experiment() -> Experiment:
    """Return the current experiment. On first use, create it and tag it as model training.

    Raises:
        ConfigError: the experiment with the id MLFLOW_EXPERIMENT_ID does not exist; or the experiment was deleted or written by
            a newer version of w2s_mlflow; or its artifacts cannot be written; or the server cannot be used.
    """
    exp = _find_experiment()
    if exp.lifecycle_stage != "active":
        raise ConfigError(
            f"the experiment {exp.name!r} was deleted: restore it with `mlflow experiments restore "
            f"-x {exp.experiment_id}`, or name another experiment in MLFLOW_EXPERIMENT_NAME"
        )
    _check_schema_version(exp)
    _check_artifacts(exp)
    return _set_missing_tags(exp)


def experiment_ids(names: str) -> list[str]:
    """Return the ids of the experiments in a comma-separated list of names; an empty list means the current experiment.

    The name of an existing experiment may contain commas.

    Raises:
        ConfigError: an experiment does not exist.
    """
    if not names.strip(", "):
        return [experiment().experiment_id]
    id_by_name = {exp.name: exp.experiment_id for exp in client().search_experiments()}
    requested = split_names(names, id_by_name)
    if missing := [name for name in requested if name not in id_by_name]:
        raise unknown("--experiments", missing[0], id_by_name)
    return [id_by_name[name] for name in requested]


@contextlib.contextmanager
def in_experiment(experiment_id: str) -> Iterator[None]:
    """Make an experiment the current one within the block."""
    before = os.environ.get("MLFLOW_EXPERIMENT_ID")
    os.environ["MLFLOW_EXPERIMENT_ID"] = experiment_id
    experiment.cache_clear()
    try:
        yield
    finally:
        os.environ.pop("MLFLOW_EXPERIMENT_ID")
        if before is not None:
            os.environ["MLFLOW_EXPERIMENT_ID"] = before
        experiment.cache_clear()


def forget() -> None:
    """Clear the caches, so that changes of the tracking server or experiment take effect."""
    for cached in (client, experiment, launch_run_id):
        cached.cache_clear()


def where() -> str:
    """Return the current tracking URI for display, without its password."""
    return masked(mlflow.get_tracking_uri())


@functools.cache
def launch_run_id() -> str | None:
    """Return the id of the run that `mlflow run` created, which is the parent of new runs; None if there is no such run.

    Raises:
        ConfigError: the run named by MLFLOW_RUN_ID does not exist on the current server, or the server cannot be used.
    """
    run_id = os.environ.get("MLFLOW_RUN_ID")
    if not run_id:
        return None
    try:
        client().set_tag(run_id, "w2s.stage", "launch")
    except MlflowException as error:
        if error.error_code == "RESOURCE_DOES_NOT_EXIST":
            raise _unusable(str(preflight.lost_run(mlflow.get_tracking_uri(), run_id))) from error
        raise ConfigError(f"the run {run_id} in MLFLOW_RUN_ID cannot be used at {where()}: {sentence(error)}") from error
    # If MLFLOW_RUN_ID stayed in the environment, child processes would write into the run of `mlflow run`.
    del os.environ["MLFLOW_RUN_ID"]
    return run_id


def close_launch(result_run_id: str) -> None:
    """Tag the run created by `mlflow run`, if there is one, with the id of the run that holds its result."""
    if launch := launch_run_id():
        client().set_tag(launch, "w2s.result_run_id", result_run_id)


def mark(experiment_id: str, key: str, value: str) -> None:
    """Set a new tag of an experiment, even if another process sets it at the same time."""
    try:
        client().set_experiment_tag(experiment_id, key, value)
    except MlflowException:  # if two processes set a new tag at once, MLflow fails for one of them
        if key not in client().get_experiment(experiment_id).tags:
            raise


def _prepare(uri: str) -> None:
    """Check that `uri` is usable before MLflow uses it. If it is an empty database, create MLflow's tables."""
    if has_raw_password(uri):  # libraries would take a part of the password for the host, and print it
        raise ConfigError(
            "its user or password contains `/`, `?`, `#` or `@`: write these characters in percent-encoding, as %2F, %3F, %23 "
            "and %40"
        )
    if preflight.scheme(uri) in DATABASE_ENGINES:
        from w2s_mlflow.tracking.backend import database  # this import loads SQLAlchemy, which an HTTP server does not need

        database.prepare(uri)
    else:
        preflight.check(uri)


def _unusable(reason: str) -> ConfigError:
    return ConfigError(f"the tracking server {where()} cannot be used: {reason}")


def _find_experiment() -> Experiment:
    id_, name = os.environ.get("MLFLOW_EXPERIMENT_ID"), os.environ.get("MLFLOW_EXPERIMENT_NAME") or "Default"
    try:
        if id_:
            return client().get_experiment(id_)
        return client().get_experiment_by_name(name) or _create_experiment(name)
    except MlflowException as error:
        launch_run_id()  # this raises a more helpful error if `mlflow run` created its run on another server
        hint = " (set by MLFLOW_EXPERIMENT_ID; `mlflow experiments search` lists the existing experiments)" if id_ else ""
        raise ConfigError(f"the experiment {id_ or name} cannot be used at {where()}: {sentence(error)}{hint}") from error


def _create_experiment(name: str) -> Experiment:
    """Create and return an experiment, or return the one that another process created in the meantime."""
    if preflight.scheme(mlflow.get_tracking_uri()) in DATABASE_ENGINES:
        preflight.check_new_artifacts()
    try:
        client().create_experiment(name, tags=MARKS)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    exp = client().get_experiment_by_name(name)
    assert exp is not None
    return exp


def _check_schema_version(exp: Experiment) -> None:
    version = exp.tags.get("w2s.schema_version", str(SCHEMA_VERSION))
    if not version.isdecimal() or int(version) > SCHEMA_VERSION:
        writer = exp.tags.get("w2s.version", "of a later version")
        raise ConfigError(
            f"the experiment {exp.name!r} at {where()} needs w2s_mlflow {writer} (schema version {version}), but "
            f"{__version__} (schema version {SCHEMA_VERSION}) is installed: upgrade w2s_mlflow, or name another experiment in "
            "MLFLOW_EXPERIMENT_NAME"
        )


def _check_artifacts(exp: Experiment) -> None:
    location = exp.artifact_location
    if not is_local_uri(location):  # type: ignore[no-untyped-call]
        return
    if reason := preflight.unwritable(Path(local_file_uri_to_path(location))):  # type: ignore[no-untyped-call]
        raise ConfigError(
            f"the experiment {exp.name!r} at {where()} stores its artifacts in {location}, which is not writable ({reason}): "
            "change the permissions of that directory, or name another experiment in MLFLOW_EXPERIMENT_NAME"
        )


def _set_missing_tags(exp: Experiment) -> Experiment:
    missing = {key: value for key, value in MARKS.items() if key not in exp.tags}
    for key, value in missing.items():
        mark(exp.experiment_id, key, value)
    return client().get_experiment(exp.experiment_id) if missing else exp
