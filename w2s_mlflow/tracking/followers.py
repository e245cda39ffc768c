"""Results in a distributed launch. Rank 0 (the leader) finds, claims and records a result; the other ranks help to make it."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

from w2s_mlflow.distributed import launch
from w2s_mlflow.exceptions import ConfigError
from w2s_mlflow.local import temporary
from w2s_mlflow.records import canonical_json
from w2s_mlflow.tracking.dry_recorder import FollowerRecorder
from w2s_mlflow.tracking.fingerprint import FingerprintParts
from w2s_mlflow.tracking.recorder import Recorder
from w2s_mlflow.tracking.results import Result, get


def announce(parts: FingerprintParts, run_id: str, *, finished: bool, reused: bool = False) -> None:
    """Tell the other ranks a result's run id, and whether it is finished or must be made now. Only the leader calls this."""
    launch.broadcast_from_leader({"parts": _as_json(parts), "run_id": run_id, "finished": finished, "reused": reused})


def follow(parts: FingerprintParts, make: Callable[[Recorder], None]) -> Result:
    """Follow the leader: call `make` each time the leader starts to make the result, and return the finished run.

    Raises:
        ConfigError: this process and the leader request different results.
    """
    while True:
        message = launch.broadcast_from_leader(None)
        if differ := [name for name, value in _as_json(parts).items() if message["parts"].get(name) != value]:
            raise ConfigError(
                f"process {os.environ['RANK']} requests a different result than process 0 (different: {', '.join(differ)}): "
                "all processes must have the same code, libraries, data and options"
            )
        if message["finished"]:
            return replace(get(message["run_id"]), reused=message["reused"])
        with temporary.directory() as directory, launch.peer_failure_guard():
            make(FollowerRecorder(message["run_id"], Path(directory)))


def leader_only(result: Result, step: Callable[[], Result]) -> Result:
    """Call `step` on the leader only, and return the changed run on every rank.

    `step` changes a finished run, for example by adding a report.
    """
    if launch.is_leader():
        changed = step()
        launch.broadcast_from_leader(True)
        return changed
    launch.broadcast_from_leader(None)
    return replace(get(result.run_id), reused=result.reused)


def leader_decides(question: Callable[[], bool]) -> bool:
    """Evaluate `question` on the leader and return its answer on every rank."""
    return bool(launch.broadcast_from_leader(question() if launch.is_leader() else None))


def _as_json(parts: FingerprintParts) -> dict[str, str]:
    return {name: canonical_json(value) for name, value in asdict(parts).items()}
