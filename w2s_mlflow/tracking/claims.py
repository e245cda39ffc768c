"""Write-once claims on results, kept in the experiment's lock run, so that two processes never train the same result.

MLflow's parameters are write-once, so a claim is the parameter `<fingerprint>:<attempt>` of the lock run, which only one
process can write. Attempts count up from 0:

- the owner of attempt n makes the result, then *seals* it by writing attempt n + 1 itself;
- a process that replaces a dead or failed owner writes attempt n + 1 first; the old owner's seal then fails, and its run is
  never marked finished, even if that process was only suspended.
"""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass
from uuid import uuid4

import mlflow
from mlflow.entities import Experiment
from mlflow.exceptions import MlflowException
from mlflow.utils.mlflow_tags import MLFLOW_RUN_NOTE

from w2s_mlflow.exceptions import ConfigError
from w2s_mlflow.tracking import heartbeat
from w2s_mlflow.tracking.backend.server import client, experiment, mark

LOCK, HOME = "w2s.lock_run_id", "w2s claims"
SEALED = "sealed"
NOTE = "Claims on results, one parameter `fingerprint:attempt` each. Without this run, two processes may train the same result."


@dataclass(frozen=True)
class Claim:
    """The exclusive right to make the result with this fingerprint."""

    fingerprint: str
    attempt: int

    def seal(self, run_id: str) -> bool:
        """Seal the result in `run_id`; return True if it counts, False if another process has taken over the claim."""
        return _write(f"{self.fingerprint}:{self.attempt + 1}", f"{SEALED} {run_id}") is None


def claim(fingerprint: str, attempt: int) -> Claim | str:
    """Claim an attempt; return the claim, or the value that another process wrote first ("" if MLflow does not report it)."""
    value = f"{heartbeat.me()} {uuid4().hex}"  # unique per claim, because MLflow accepts the same value twice
    existing = _write(f"{fingerprint}:{attempt}", value)
    return Claim(fingerprint, attempt) if existing is None else existing


def is_over(value: str) -> bool:
    """Return whether the claim with this value is over: a seal, or the claim of an ended process or of this process.

    Used only for a claim without a run: the run was permanently deleted, or the owner failed before creating it.
    """
    owner = heartbeat.Worker.parse(value.partition(" ")[0])
    return value.startswith(SEALED) or (owner is not None and (owner.gone() or owner == heartbeat.me()))


def _write(key: str, value: str) -> str | None:
    """Write a write-once parameter of the lock run; return None on success, else the parameter's existing value."""
    try:
        client().log_param(lock_run_id(), key, value)
    except MlflowException as error:
        if "Changing param" in str(error):
            match = re.search(r"logged with value='([^']*)'", str(error))
            return match[1] if match else ""
        if "'active' state" in str(error) or error.error_code == "RESOURCE_DOES_NOT_EXIST":
            raise ConfigError(
                f"the run {lock_run_id()}, which holds the claims of experiment {experiment().name!r}, was deleted: restore it "
                f"with `mlflow runs restore --run-id {lock_run_id()}`, or name another experiment in MLFLOW_EXPERIMENT_NAME"
            ) from error
        raise
    return None


def lock_run_id() -> str:
    """Return the id of the current experiment's lock run, created on first use."""
    return _lock_run_id(mlflow.get_tracking_uri(), experiment().experiment_id)


@functools.cache
def _lock_run_id(uri: str, experiment_id: str) -> str:
    run_id = client().get_experiment(experiment_id).tags.get(LOCK)
    if not run_id:
        run_id = _elect(experiment_id)
        mark(experiment_id, LOCK, run_id)
    return str(run_id)


def _elect(experiment_id: str) -> str:
    """Create the lock run, or return the one that another process has just created.

    Tags can be overwritten and write-once parameters need a run, but experiment names are unique: the lock run is made by the
    process that creates the experiment `election`, which is deleted at once to hide it.
    """
    tags = {"mlflow.runName": experiment().name, "w2s.stage": "claims", MLFLOW_RUN_NOTE: NOTE}
    run_id = client().create_run(_lock_experiment_id(), tags=tags).info.run_id
    client().set_terminated(run_id)
    election = f"{HOME}: election for {experiment_id} of {experiment().creation_time}"
    try:
        client().delete_experiment(client().create_experiment(election, tags={LOCK: run_id}))
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
        client().delete_run(run_id)
        return str(_experiment_named(election).tags[LOCK])
    return str(run_id)


def _lock_experiment_id() -> str:
    """Return the id of the experiment for lock runs, kept separate because the UI shows a column for each claim."""
    try:
        return str(client().create_experiment(HOME))
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
        return str(_experiment_named(HOME).experiment_id)


def _experiment_named(name: str) -> Experiment:
    exp = client().get_experiment_by_name(name)
    assert exp is not None, f"the experiment {name!r} must exist"
    return exp
