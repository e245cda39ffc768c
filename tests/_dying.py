"""A command that kills itself, as `kill -9` would, at a named point."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlflow
from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

from w2s_mlflow.analysis import build
from w2s_mlflow.cli import app
from w2s_mlflow.local import kept
from w2s_mlflow.tracking import claims, heartbeat, logged_model, results, spool
from w2s_mlflow.tracking.backend import database
from w2s_mlflow.training import checkpoint, state

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


def half_of_the_tables() -> None:
    """Die when half of the database's tables are made."""
    statements = database._statements

    def patched() -> Any:
        found = statements()
        yield from found[: len(found) // 2]
        die()

    database._statements = patched


def is_result(client: Any, experiment: str, tags: dict[str, str], **_: object) -> bool:
    return "w2s.fingerprint" in tags


def is_report(client: Any, run_id: str, metrics: Any = (), params: Any = (), tags: Any = ()) -> bool:
    return any(metric.key.startswith("test/") for metric in metrics)


def is_report_tags(store: Any, run_id: str, tags: Any) -> bool:
    """MLflow writes the metrics and the tags of one request in two transactions, in this order."""
    return any(tag.key == f"{results.ARTIFACTS}.test" for tag in tags)


def has_digests(client: Any, run_id: str, metrics: Any = (), params: Any = (), tags: Any = ()) -> bool:
    return any(tag.key == results.ARTIFACTS for tag in tags)


def is_finished(trained: bool) -> Callable[..., bool]:
    """Whether the run of a result is called finished, or only one that was `trained`."""
    needed = "train/loss" if trained else "seconds"

    def of_result(client: Any, run_id: str, given: str = "FINISHED", **_: object) -> bool:
        data = client.get_run(run_id).data
        return given == "FINISHED" and "w2s.fingerprint" in data.tags and needed in data.metrics

    return of_result


def half_sent(client: Any, run_id: str, directory: str, *_: object) -> bool:
    """Send one file of several, and no more."""
    files = sorted(path for path in Path(directory).rglob("*") if path.is_file())
    for file in files[: len(files) // 2]:
        client.log_artifact(run_id, str(file), str(file.parent.relative_to(directory)))
    return True


def at_step(number: int) -> Callable[..., bool]:
    return lambda training, *_: training.fit.steps == number


POINTS: dict[str, Callable[[], None]] = {
    "in the middle of the database": half_of_the_tables,
    "the experiment is made": lambda: after(CLIENT, "set_experiment_tag"),
    "before the election": lambda: before(claims, "_elect"),
    "in the election": lambda: before(CLIENT, "delete_experiment"),
    "a claim without a run": lambda: after(claims, "_write"),
    "a run without parameters": lambda: after(CLIENT, "create_run", is_result),
    "in a report of a rule": lambda: before(SqlAlchemyStore, "_set_tags", is_report_tags),
    "a run without a spool": lambda: before(spool, "create"),
    "a spool without a header": lambda: before(kept, "write", lambda file, *_, **__: file.name == spool.HEADER),
    "a record is written but not sent": lambda: after(spool.Spool, "add"),
    "a record is sent but not removed": lambda: before(spool.Spool, "remove_first"),
    "in a training": lambda: after(state.TrainingState, "count", at_step(3)),
    "while the first checkpoint is written": lambda: before(checkpoint, "_write_state"),
    "after a checkpoint": lambda: after(checkpoint, "_write_state"),
    "a run goes on without a name": lambda: after(CLIENT, "update_run"),
    "while the next checkpoint is written": lambda: before(checkpoint, "_write_state"),
    "in a training that goes on": lambda: after(state.TrainingState, "count", at_step(7)),
    "after a checkpoint's metrics": lambda: after(state.TrainingState, "save", at_step(8)),
    "before artifacts": lambda: before(CLIENT, "log_artifacts"),
    "in the middle of artifacts": lambda: before(CLIENT, "log_artifacts", half_sent),
    "before the digests": lambda: before(CLIENT, "log_batch", has_digests),
    "before the seal": lambda: before(claims.Claim, "seal"),
    "after the seal": lambda: before(CLIENT, "set_terminated", is_finished(trained=False)),
    "after the seal, by the one who comes later": lambda: before(CLIENT, "set_terminated", is_finished(trained=False)),
    "after it is finished, by the one who comes later": lambda: after(CLIENT, "set_terminated", is_finished(trained=True)),
    "while the spool is removed": lambda: after(spool.Spool, "remove_first", lambda sent: not sent.pending()),
    "after a training is finished": lambda: after(CLIENT, "set_terminated", is_finished(trained=True)),
    "in the middle of a model": lambda: before(logged_model, "_upload"),
    "in a report": lambda: before(CLIENT, "log_batch", is_report),
    "before the tables": lambda: before(build, "record"),
}


def command(point: str, arguments: list[str], directory: Path, environment: dict[str, str], log: Path) -> None:
    """Run the command line until it dies; to be called in a process of its own. What it says goes to `log`."""
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(directory)
    with log.open("wb") as file:
        os.dup2(file.fileno(), sys.stderr.fileno())
    sys.argv = ["w2s_mlflow", *arguments]
    heartbeat.BEAT = 1.0
    POINTS[point]()
    app.main()
