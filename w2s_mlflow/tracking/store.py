"""Look-up of results by fingerprint. A finished run is reused. Otherwise this process claims the result and makes it.

Only one process at a time makes a result (see claims.py); it resumes an unfinished run if possible. Other processes that need
the result wait for it, or get a BusyError and can do other work in the meantime.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from mlflow.entities import Run, RunTag

from w2s_mlflow.config import as_dict, flat
from w2s_mlflow.distributed import launch
from w2s_mlflow.local import scratch
from w2s_mlflow.tracking import claims, ending, followers, heartbeat, orphans, recovery, results, session
from w2s_mlflow.tracking.backend.server import client
from w2s_mlflow.tracking.fingerprint import FingerprintParts
from w2s_mlflow.tracking.heartbeat import SupersededError
from w2s_mlflow.tracking.lifecycle import recording
from w2s_mlflow.tracking.recorder import Header, Recorder
from w2s_mlflow.tracking.results import ARTIFACTS, FINGERPRINT, CorruptArtifactError, Result, active, get, result, runs_of
from w2s_mlflow.training import checkpoint

LOG = logging.getLogger("w2s_mlflow")
ATTEMPT, CORRUPT = "w2s.attempt", "w2s.corrupt"
POLL = 0.5
"""Seconds between two checks of a run that another process is making."""
PATIENCE = 60.0
"""Seconds that the owner of a claim may take to create its run before the owner counts as dead."""
CHECKS = 3
"""Number of failed checks after which a run's artifacts count as damaged."""


class BusyError(Exception):
    """Another process is making a result that this process needs."""


@dataclass(frozen=True)
class RunRequest:
    """A request for a result.

    Attributes:
        config: the resolved Config. It is stored as the artifact `config.json` and, flattened, as parameters.
        identity: task, weak and strong model, method and seed, stored as parameters and as `w2s.` tags. The UI can group runs
            by them.
        tags: more tags, such as the run ids of the inputs.
    """

    name: str
    parts: FingerprintParts
    config: Any
    identity: Mapping[str, str]
    tags: Mapping[str, str]
    note: str

    def header(self, attempt: int) -> Header:
        """Return the name, tags, parameters and note of the result's run."""
        tags = {"w2s.stage": self.parts.stage, FINGERPRINT: self.parts.digest(), "w2s.data": self.parts.data}
        tags |= {f"w2s.{key}": value for key, value in self.identity.items()} | dict(self.tags)
        return Header(self.name, tags | {ATTEMPT: str(attempt)}, flat(self.config) | dict(self.identity), self.note)


def produce(request: RunRequest, make: Callable[[Recorder], None]) -> Result:
    """Return the requested result: a finished run if there is one, else a new run, whose result is made by calling `make`.

    When planning, only add the result to the plan. In a distributed launch, the leader (rank 0) finds the result or starts to
    make it, and the other ranks do what the leader announces (see followers.py).

    Raises:
        BusyError: another process is making the result, and the session does not wait.
    """
    if plan := session.current().plan:
        if known := plan.reuse(request.parts.digest()):
            return known
        runs = [run for run in active(runs_of(request.parts.digest())) if _is_reusable(run)]
        return plan.add(request.name, request.parts, request.identity, flat(request.config), runs)
    if not launch.is_leader():
        return followers.follow(request.parts, make)
    recovery.recover_once()
    orphans.cleanup_once()
    search = _RunSearch(request.parts.digest())
    while True:
        outcome = search.step()
        if isinstance(outcome, Result):
            followers.announce(request.parts, outcome.run_id, finished=True, reused=True)
            return outcome
        if outcome is not None:
            # If another process takes over the result, the next step finds the run of that process.
            with contextlib.suppress(SupersededError):
                return _make(request, outcome, make)


def _make(request: RunRequest, turn: _MakeTurn, make: Callable[[Recorder], None]) -> Result:
    header, continued = request.header(turn.claim.attempt), turn.continued
    with recording(header, turn.claim, continued.info.run_id if continued else None) as recorder:
        recorder.json("config.json", as_dict(request.config))
        recorder.json("fingerprint.json", asdict(request.parts))
        followers.announce(request.parts, recorder.run_id, finished=False)
        with launch.peer_failure_guard():
            make(recorder)
    trained = get(recorder.run_id)
    followers.announce(request.parts, trained.run_id, finished=True)
    LOG.info("trained %s in %.1f s%s", request.name, trained.seconds, ", resumed from a checkpoint" if continued else "")
    return trained


@dataclass(frozen=True)
class _MakeTurn:
    """The right to make a result, and the unfinished run to resume, if there is one."""

    claim: claims.Claim
    continued: Run | None


@dataclass
class _RunSearch:
    """Search for one result. `step` must be called repeatedly until it returns the result or the right to make the result.

    Each step looks for a finished run. If there is none and another process is making the result, the step waits POLL seconds.
    Otherwise the step claims the result for this process.
    """

    fingerprint: str
    _watch: heartbeat.Watch = field(default_factory=heartbeat.Watch)
    _began: float = field(default_factory=time.monotonic)
    _refused: tuple[int, float] = (-1, 0.0)
    """Last attempt that this process could not claim because another process had claimed it, and the monotonic time
    at which this was noticed."""
    _last_message: float = 0.0

    def step(self) -> Result | _MakeTurn | None:
        """Return the result if it is finished, or a _MakeTurn if this process has claimed the result.

        Return None if the caller must call `step` again.

        Raises:
            BusyError: another process is making the result, and the session does not wait.
        """
        all_runs = runs_of(self.fingerprint)
        runs = active(all_runs)
        for run in runs:
            if run.info.status == "FINISHED" and _is_reusable(run) and (verified := _verified(run)):
                LOG.debug("reused  %s", verified.name)
                return verified
        unfinished = [run for run in runs if run.info.status != "FINISHED"]
        # A process on this machine may have ended before it had sent everything, even with a complete result.
        left = {run.info.run_id: recovery.recover_run(run.info.run_id) for run in unfinished}
        if {"delivered", "superseded", "damaged"} & set(left.values()):
            return None
        # A run that is not RUNNING may have a live owner: another process may have closed the run while this
        # owner was suspended.
        owned = [run for run in unfinished if _has_owner(run)]
        if alive := next((run for run in owned if not self._watch.dead(run)), None):
            self._wait(f"{alive.info.run_name}, which {_owner(alive)} is making")
            return None
        if sending := next((run for run in unfinished if left[run.info.run_id] != "nothing"), None):
            self._wait(f"{sending.info.run_name}, which this machine has not sent yet")
            return None
        if any(_finish(run) for run in runs):
            return None
        attempt = max([0, *(_next_attempt(run) for run in all_runs)])
        claim = self._claim(attempt)
        if claim and claim.attempt > attempt and _snapshot(runs_of(self.fingerprint)) != _snapshot(all_runs):
            return None  # the runs changed after they were read: the previous owner may have finished the result meanwhile
        if claim:
            return _MakeTurn(claim, _select_resumable(runs))
        self._wait("a result that another process has just claimed")
        return None

    def _claim(self, attempt: int) -> claims.Claim | None:
        """Claim an attempt (see claims.py) and return the claim. Return None if another process has claimed this attempt.

        If that process does not create a run within PATIENCE seconds, claim the following attempt instead.
        """
        refused, refused_at = self._refused
        if attempt <= refused and time.monotonic() - refused_at < PATIENCE:
            return None
        # If the refused attempt still has no run after PATIENCE seconds, assume that the process which claimed it is dead.
        attempt = max(attempt, refused + 1)
        while isinstance(claim := claims.claim(self.fingerprint, attempt), str) and claims.is_over(claim):
            attempt += 1
        if isinstance(claim, claims.Claim):
            return claim
        self._refused = attempt, time.monotonic()
        return None

    def _wait(self, target: str) -> None:
        if not session.current().wait:
            raise BusyError(target)
        waited = time.monotonic() - self._began
        if waited - self._last_message >= heartbeat.BEAT or not self._last_message:
            self._last_message = waited + 1e-9
            session.current().progress(f"waiting for {target} ({waited:.0f} s)")
        time.sleep(POLL)


def _verified(run: Run) -> Result | None:
    """Return a finished run if its artifacts are undamaged. Otherwise log a warning, mark the run as FAILED and return None."""
    for check in range(CHECKS):
        finished = result(run, reused=True)
        try:
            finished.check()
        except CorruptArtifactError as error:
            damage = error
        else:
            return finished
        if check < CHECKS - 1:  # another process may be replacing a report at this moment, so check again
            time.sleep(POLL)
            results.forget(run.info.run_id)
            run = client().get_run(run.info.run_id)
    LOG.warning("%s; the result will be made again", damage)
    # The tag is set by log_batch, because set_tag may fail if two processes set the same tag at the same time.
    client().log_batch(run.info.run_id, tags=[RunTag(CORRUPT, str(damage))])
    client().set_terminated(run.info.run_id, "FAILED")
    return None


def _is_reusable(run: Run) -> bool:
    return int(run.info.start_time) >= session.current().reuse_since


def _snapshot(runs: Iterable[Run]) -> set[tuple[str, str, str, bool]]:
    """Return the id, status and attempt of each run, and whether all its artifacts are written.

    Two snapshots differ if another process has made progress between them.
    """
    return {(run.info.run_id, run.info.status, run.data.tags.get(ATTEMPT, ""), ARTIFACTS in run.data.tags) for run in runs}


def _finish(run: Run) -> bool:
    """Mark a run whose owner died as FINISHED if its last artifact was written. Return whether the run was marked."""
    tags = run.data.tags
    if run.info.status == "FINISHED" or ARTIFACTS not in tags or CORRUPT in tags:
        return False
    # `seal` also returns True if this run was sealed before its owner died.
    sealed = claims.Claim(tags[FINGERPRINT], int(tags[ATTEMPT])).seal(run.info.run_id)
    if sealed:
        checkpoint.clear(scratch.cache_path(run.info.run_id))
        ending.finish(run.info.run_id)
    return sealed


def _next_attempt(run: Run) -> int:
    """Return the first attempt number after those used by a run. A sealed run has used two: for its claim and for its seal."""
    sealed = run.info.status == "FINISHED" or CORRUPT in run.data.tags
    return int(run.data.tags.get(ATTEMPT, "0")) + (2 if sealed else 1)


def _select_resumable(runs: list[Run]) -> Run | None:
    """Return the unfinished run to resume, or None if no run can be resumed. Mark the other RUNNING runs as KILLED.

    A run can be resumed if it has a checkpoint on this machine and its owner has ended. If the owner may only be suspended, on
    this machine or another one, the run is not resumed, because two processes could then write to it. Instead it loses its
    owner, who then stops (heartbeat.py).
    """
    continued = None
    for run in runs:
        if run.info.status == "FINISHED" or not _is_reusable(run):
            continue
        owner = heartbeat.Worker.parse(run.data.tags.get(heartbeat.WORKER, ""))
        over = owner.gone() if owner else run.info.status != "RUNNING"
        if continued is None and over and checkpoint.exists(scratch.cache_path(run.info.run_id)):
            continued = run
            continue
        if owner:
            client().set_tag(run.info.run_id, heartbeat.WORKER, "")
        if run.info.status == "RUNNING":
            client().set_terminated(run.info.run_id, "KILLED")
        if over:
            checkpoint.clear(scratch.cache_path(run.info.run_id))
    return continued


def _has_owner(run: Run) -> bool:
    """Return whether a process may still be making a run. A damaged run has no owner, because it was already finished."""
    return bool(run.data.tags.get(heartbeat.WORKER)) and CORRUPT not in run.data.tags


def _owner(run: Run) -> str:
    owner = heartbeat.Worker.parse(run.data.tags.get(heartbeat.WORKER, ""))
    return f"process {owner.pid} on {owner.machine.rpartition('-')[0]}" if owner else "another process"
