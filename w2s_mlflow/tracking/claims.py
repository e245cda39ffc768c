"""Write-once claims on results, which ensure that two processes never train the same result.

Each experiment has a lock run. Each claim is a parameter of the lock run, named `<fingerprint>:<attempt>`. MLflow refuses to
change the value of a parameter, so only one process can write it. Attempts are numbered from 0:

- The owner of attempt n makes the result and then *seals* it by writing attempt n + 1 itself.
- A process that replaces a dead or failed owner writes attempt n + 1 first. If the old owner was only suspended and continues,
  it cannot seal its result, so its run is never marked as FINISHED.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import itertools
import re
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from uuid import uuid4

import mlflow
from mlflow.entities import Experiment, LifecycleStage
from mlflow.exceptions import MlflowException
from mlflow.utils.mlflow_tags import MLFLOW_RUN_NOTE

from w2s_mlflow.exceptions import ConfigError
from w2s_mlflow.tracking import creation, heartbeat, names
from w2s_mlflow.tracking.backend.server import client, experiment, mark

LOCK, HOME = "w2s.lock_run_id", "w2s claims"
SEALED = "sealed"
PATIENCE, POLL = 60.0, 0.5
"""PATIENCE: seconds that a process of another machine may keep a turn. POLL: seconds between two attempts to take it."""
_turns: defaultdict[str, threading.Lock] = defaultdict(threading.Lock)
_last_turn: dict[str, int] = {}
"""Last attempt of this process for each turn: all earlier attempts are over."""
NOTE = "Each parameter `fingerprint:attempt` is a claim: it keeps other processes from making the same result. Keep this run."


@dataclass(frozen=True)
class Claim:
    """The exclusive right to make the result with this fingerprint."""

    fingerprint: str
    attempt: int

    def seal(self, run_id: str) -> bool:
        """Seal the result of run `run_id`. Return whether the result counts: False if another process has taken over."""
        return _write(f"{self.fingerprint}:{self.attempt + 1}", f"{SEALED} {run_id}") is None


def claim(fingerprint: str, attempt: int) -> Claim | str:
    """Claim an attempt and return the claim.

    If another process has claimed the attempt first, return the value that it wrote ("" if MLflow does not report the value).
    """
    value = f"{heartbeat.me()} {uuid4().hex}"  # MLflow accepts a second write of an equal value, so each value is unique
    existing = _write(f"{fingerprint}:{attempt}", value)
    return Claim(fingerprint, attempt) if existing is None else existing


@contextlib.contextmanager
def turn(name: str) -> Iterator[None]:
    """Let only one process at a time run the block. Others wait, and go on when its process has ended the block or is dead.

    A process of another machine counts as dead if it has kept the turn for PATIENCE seconds.
    """
    key = hashlib.sha256(name.encode()).hexdigest()[:32]
    with _turns[key]:  # the threads of this process take turns, too
        taken = _take_turn(key, name)
        try:
            yield
        finally:
            _write(f"{key}:{taken.attempt + 1}", f"{SEALED} {name}")


def _take_turn(key: str, name: str) -> Claim:
    attempt, refused_at = _last_turn.get(key, 0), time.monotonic()
    while isinstance(value := claim(key, attempt), str):
        if is_over(value) or time.monotonic() - refused_at > PATIENCE:
            attempt, refused_at = attempt + 1, time.monotonic()
        else:
            time.sleep(POLL)
    _last_turn[key] = attempt
    return value


def is_over(value: str) -> bool:
    """Return whether the next attempt may be claimed, given the value of the claim on the current attempt.

    The next attempt may be claimed if the value is a seal, or if the claim's owner has ended or is this process. Call
    this only if the claim has no run: either the run was permanently deleted, or the owner failed before it created the run.
    """
    owner = heartbeat.Worker.parse(value.partition(" ")[0])
    return value.startswith(SEALED) or (owner is not None and (owner.gone() or owner == heartbeat.me()))


def _write(key: str, value: str, *, replaced: bool = False) -> str | None:
    """Write a parameter of the lock run and return None. If the parameter already has another value, return that value.

    Args:
        replaced: whether a lock run that no longer exists has already been replaced.
    """
    try:
        client().log_param(lock_run_id(), key, value)
    except MlflowException as error:
        if "Changing param" in str(error):
            match = re.search(r"logged with value='([^']*)'", str(error))
            return match[1] if match else ""
        if "'active' state" in str(error):
            raise _deleted() from error
        if error.error_code == "RESOURCE_DOES_NOT_EXIST" and not replaced:
            _replace_lock_run()
            return _write(key, value, replaced=True)
        raise
    return None


def _deleted() -> ConfigError:
    """Return the error for a lock run that was deleted, alone or with its experiment. It names the command that restores it."""
    lock = client().get_run(lock_run_id())
    home = client().get_experiment(lock.info.experiment_id)
    if home.lifecycle_stage == LifecycleStage.ACTIVE:
        place, command = (
            f"the run {lock.info.run_id} of the experiment {home.name!r}",
            f"runs restore --run-id {lock.info.run_id}",
        )
    else:
        place, command = f"the experiment {home.name!r}", f"experiments restore -x {home.experiment_id}"
    return ConfigError(
        f"{place}, which holds the claims of experiment {experiment().name!r}, was deleted: restore it with `mlflow "
        f"{command}`, or name another experiment in MLFLOW_EXPERIMENT_NAME"
    )


def _replace_lock_run() -> None:
    """Elect a new lock run, because the old one was permanently deleted (`mlflow gc`) and cannot be restored.

    The claims of processes that are running are lost with the old run. These processes seal in the new one: the first to write
    an attempt has it, as before.
    """
    exp = experiment()
    lost = lock_run_id()
    _lock_run_id.cache_clear()
    if client().get_experiment(exp.experiment_id).tags.get(LOCK) == lost:
        client().set_experiment_tag(exp.experiment_id, LOCK, _elect(exp.experiment_id, f" after {lost}"))


def lock_run_id() -> str:
    """Return the id of the current experiment's lock run, which is created when it is first needed."""
    return _lock_run_id(mlflow.get_tracking_uri(), experiment().experiment_id)


@functools.cache
def _lock_run_id(uri: str, experiment_id: str) -> str:
    run_id = client().get_experiment(experiment_id).tags.get(LOCK)
    if not run_id:
        run_id = _elect(experiment_id)
        mark(experiment_id, LOCK, run_id)
    return str(run_id)


def _elect(experiment_id: str, after: str = "") -> str:
    """Create the lock run, or return the one that another process has just created.

    The processes need something that only one of them can create. Tags can be overwritten, and parameters need a run, but
    experiment names are unique. So each process creates a run and then tries to create the experiment `election`. The run of
    the process that succeeds is the lock run. The experiment is deleted at once, so that the UI does not show it.

    Args:
        after: addition to the name of `election` if the lock run replaces another.
    """
    tags = {"w2s.stage": "claims", MLFLOW_RUN_NOTE: NOTE}
    run_id = creation.create_run(names.run(experiment().name), tags, _lock_experiment_id())
    client().set_terminated(run_id)
    election = f"{HOME}: election for {experiment_id} of {experiment().creation_time}{after}"
    try:
        client().delete_experiment(client().create_experiment(election, tags={LOCK: run_id}))
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
        elected = str(_experiment_named(election).tags[LOCK])
        if elected != run_id:  # equal if this process succeeded, but the answer was lost and the request sent again
            client().delete_run(run_id)
        return elected
    return run_id


def _lock_experiment_id() -> str:
    """Return the id of the experiment that holds the lock runs of all experiments.

    This experiment holds no other runs, because each claim adds a column to the UI's table of its runs. If a user has deleted
    it, the next experiment that needs a lock run gets one in a second such experiment.
    """
    for number in itertools.count(1):
        name = HOME if number == 1 else f"{HOME} {number}"
        try:
            return str(client().create_experiment(name))
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
        home = _experiment_named(name)
        if home.lifecycle_stage == LifecycleStage.ACTIVE:
            return str(home.experiment_id)
    raise AssertionError


def _experiment_named(name: str) -> Experiment:
    exp = client().get_experiment_by_name(name)
    assert exp is not None, f"the experiment {name!r} must exist"
    return exp
