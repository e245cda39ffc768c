"""A command that kills itself, as `kill -9` would, at a named point: `python tests/_dying.py POINT ARGUMENTS...`."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlflow

from w2s_mlflow import checkpoint, cli, train
from w2s_mlflow.stages import analyze
from w2s_mlflow.tracking import claims, results, worker

CLIENT = mlflow.MlflowClient


def die(*_: object, **__: object) -> None:
    """What no handler sees."""
    os.kill(os.getpid(), signal.SIGKILL)


def before(owner: Any, name: str, when: Callable[..., bool] = lambda *_, **__: True) -> None:
    """Die in the place of the first call that `when` is true of."""
    call = getattr(owner, name)

    def patched(*arguments: Any, **named: Any) -> Any:
        if when(*arguments, **named):
            die()
        return call(*arguments, **named)

    setattr(owner, name, patched)


def after(owner: Any, name: str, when: Callable[..., bool] = lambda *_, **__: True) -> None:
    """Die after the first call that `when` is true of."""
    call = getattr(owner, name)

    def patched(*arguments: Any, **named: Any) -> Any:
        found = call(*arguments, **named)
        if when(*arguments, **named):
            die()
        return found

    setattr(owner, name, patched)


def is_result(client: Any, experiment: str, tags: dict[str, str], **_: object) -> bool:
    return "w2s.fingerprint" in tags


def is_report(client: Any, run_id: str, metrics: Any = (), params: Any = (), tags: Any = ()) -> bool:
    return any(metric.key.startswith("test/") for metric in metrics)


def is_status(status: str) -> Callable[..., bool]:
    def of_result(client: Any, run_id: str, given: str = "FINISHED", **_: object) -> bool:
        return given == status and "w2s.fingerprint" in client.get_run(run_id).data.tags

    return of_result


def half_sent(client: Any, run_id: str, directory: str, *_: object) -> bool:
    """Send one file of several, and no more."""
    files = sorted(path for path in Path(directory).rglob("*") if path.is_file())
    for file in files[len(files) // 2 :]:
        file.unlink()
    return True


def at_step(number: int) -> Callable[..., bool]:
    return lambda training, *_: training.fit.steps == number


POINTS: dict[str, Callable[[], None]] = {
    "the experiment is made": lambda: after(CLIENT, "set_experiment_tag"),
    "before the election": lambda: before(claims, "_elect"),
    "in the election": lambda: before(CLIENT, "delete_experiment"),
    "a claim without a run": lambda: after(claims, "_write"),
    "a run without parameters": lambda: after(CLIENT, "create_run", is_result),
    "in a training": lambda: after(train._Training, "count", at_step(5)),
    "while a checkpoint is written": lambda: before(checkpoint, "_write_state"),
    "after a checkpoint": lambda: after(checkpoint, "_write_state"),
    "after a checkpoint's metrics": lambda: after(train._Training, "save", at_step(8)),
    "before artifacts": lambda: before(CLIENT, "log_artifacts"),
    "in the middle of artifacts": lambda: after(CLIENT, "log_artifacts", half_sent),
    "before the digests": lambda: before(CLIENT, "set_tag", lambda client, run, key, value: key == results.ARTIFACTS),
    "before the seal": lambda: before(claims.Claim, "seal"),
    "after the seal": lambda: before(CLIENT, "set_terminated", is_status("FINISHED")),
    "in a report": lambda: before(CLIENT, "log_batch", is_report),
    "before the tables": lambda: before(analyze, "record"),
}

if __name__ == "__main__":
    worker.BEAT = 1.0
    POINTS[sys.argv.pop(1)]()
    cli.main()
