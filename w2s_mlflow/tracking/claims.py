"""Who makes a result: write-once claims on the experiment's lock run, so that two processes never train the same thing.

MLflow's parameters are write-once, so a claim is the parameter `<fingerprint>:<attempt>` of the lock run: of all who want to
write it, one can. Attempts count up from 0 and every number is written once:

- the owner of attempt n makes the result, then *seals* it by writing attempt n + 1 itself;
- whoever takes a dead or failed owner's place writes attempt n + 1 before; that owner's seal then fails, and what it made
  is never called finished, even if it was only asleep.
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
NOTE = "Who made which result: `fingerprint:attempt`. Keep this run: without it two processes may train the same thing."


@dataclass(frozen=True)
class Claim:
    """The right to make the result with this fingerprint, held by this process."""

    fingerprint: str
    attempt: int

    def seal(self, run_id: str) -> bool:
        """Whether the result made in `run_id` counts: True once, and only if nobody took this claim's place."""
        return _write(f"{self.fingerprint}:{self.attempt + 1}", f"{SEALED} {run_id}") is None


def claim(fingerprint: str, attempt: int) -> Claim | str:
    """The claim, or what another process has written in its place ("" where MLflow does not say)."""
    mine = f"{heartbeat.me()} {uuid4().hex}"  # one value, one claim: writing the same value twice is no error to MLflow
    other = _write(f"{fingerprint}:{attempt}", mine)
    return Claim(fingerprint, attempt) if other is None else other


def is_over(other: str) -> bool:
    """Whether what stands in a claim's place is known to be past: a seal, or a process that has ended, or this one.

    Asked only where no run shows it: the run was deleted for ever, or the claim's owner failed before it had one.
    """
    owner = heartbeat.Worker.parse(other.partition(" ")[0])
    return other.startswith(SEALED) or (owner is not None and (owner.gone() or owner == heartbeat.me()))


def _write(key: str, value: str) -> str | None:
    """None if this value now stands, and ever will, under `key`; else the other that does."""
    try:
        client().log_param(lock_run_id(), key, value)
    except MlflowException as error:
        if "Changing param" in str(error):
            other = re.search(r"logged with value='([^']*)'", str(error))
            return other[1] if other else ""
        if "'active' state" in str(error) or error.error_code == "RESOURCE_DOES_NOT_EXIST":
            raise ConfigError(
                f"the run {lock_run_id()}, which holds the claims of experiment {experiment().name!r}, was deleted: restore it "
                f"with `mlflow runs restore --run-id {lock_run_id()}`, or name another experiment in MLFLOW_EXPERIMENT_NAME"
            ) from error
        raise
    return None


def lock_run_id() -> str:
    """The lock run of the experiment in use, made on first use."""
    return _lock_run_id(mlflow.get_tracking_uri(), experiment().experiment_id)


@functools.cache
def _lock_run_id(uri: str, experiment_id: str) -> str:
    found = client().get_experiment(experiment_id).tags.get(LOCK)
    if not found:
        found = _elect(experiment_id)
        mark(experiment_id, LOCK, found)
    return str(found)


def _elect(experiment_id: str) -> str:
    """One lock run for all who want to make one at the same time.

    Tags can be overwritten and write-once parameters need a run, but names of experiments are unique: whoever makes the
    experiment of this name, deleted at once so that nobody sees it, has made the lock run.
    """
    tags = {"mlflow.runName": experiment().name, "w2s.stage": "claims", MLFLOW_RUN_NOTE: NOTE}
    mine = client().create_run(_home(), tags=tags).info.run_id
    client().set_terminated(mine)
    election = f"{HOME}: election for {experiment_id} of {experiment().creation_time}"
    try:
        client().delete_experiment(client().create_experiment(election, tags={LOCK: mine}))
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
        client().delete_run(mine)
        return str(_named(election).tags[LOCK])
    return str(mine)


def _home() -> str:
    """The experiment of lock runs, apart: the UI would make a column of each of their parameters."""
    try:
        return str(client().create_experiment(HOME))
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
        return str(_named(HOME).experiment_id)


def _named(name: str) -> Experiment:
    found = client().get_experiment_by_name(name)
    assert found is not None, f"MLflow says that the experiment {name!r} exists"
    return found
