"""Workers: several processes that make runs side by side; what they say, what goes wrong, and one that is killed."""

from __future__ import annotations

import os
import signal
import time
import weakref
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.conftest import SMALL, runs
from w2s_mlflow.analysis import build
from w2s_mlflow.exceptions import ConfigError, FailedTrainingError
from w2s_mlflow.search import jobs, worker_process
from w2s_mlflow.search import workers as search_workers
from w2s_mlflow.search.jobs import Job
from w2s_mlflow.stages import rule, student, supervisor, sweep
from w2s_mlflow.tracking import session, store
from w2s_mlflow.tracking.backend import server

GRID = """
SETTINGS = [
    {"weak": "chess-27k", "strong": strong, "method": method, "early_stopping": "none", "report": "none"}
    for strong in ("chess-43k", "chess-60k")
    for method in ("baseline", "confidence")
]
"""


def test_cores_are_shared_out_without_one_left_over() -> None:
    assert [worker_process.cores(place, 2, [0, 1, 2, 3, 4]) for place in range(2)] == [[0, 1], [2, 3, 4]]
    assert [worker_process.cores(place, 3, [4, 7]) for place in range(3)] == [[4], [7], [4]]


def test_alone_a_job_is_put_off_while_there_are_others() -> None:
    asked: list[str] = []

    class Told:
        stage, config = "told", None

        def __init__(self, name: str) -> None:
            self.name = name

        def run(self) -> Any:
            asked.append(self.name)
            if self.name == "busy" and not session.current().wait:
                raise store.BusyError("what it needs")
            return self.name

    with search_workers.worker_pool(1) as workers:
        for name in ("busy", "free"):
            workers.add(name, Told(name))  # type: ignore[arg-type]
        ended: list[Any] = [pair for _ in range(3) for pair in workers.ended(lambda text: None)]
    assert asked == ["busy", "free", "busy"] and ended == [("free", "free"), ("busy", "busy")]


def test_a_training_that_comes_to_nothing_leaves_nothing_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    class OutOfMemoryError(RuntimeError):
        """As torch's."""

    class Model:
        """What a training holds."""

    models: list[weakref.ref[Model]] = []

    def run(config: Any) -> Any:
        model = Model()
        models.append(weakref.ref(model))
        raise OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")

    monkeypatch.setattr(supervisor, "run", run)
    error = jobs.run_job(Job("supervisor", None), True, lambda text: None)
    assert isinstance(error, FailedTrainingError) and "supervisor ran out of memory: lower --micro-batch" in str(error)
    assert models[0]() is None


@pytest.mark.slow
def test_a_grid_by_two_processes_is_that_by_one(experiment: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build, "_figures", lambda *_: [])
    monkeypatch.setattr(build, "record", lambda *_: None)
    (tmp_path / "grid.py").write_text(GRID)
    parent = sweep.run(sweep.Config(sweep="grid.py", seeds="0", workers=2, **SMALL))
    below = [run for run in runs() if run.data.tags.get("mlflow.parentRunId") == parent.run_id]
    stages = sorted(run.data.tags["w2s.stage"] for run in below)
    assert stages == ["student"] * 4 + ["supervisor"]  # the supervisor that all four need is trained once
    owners = {run.data.tags["w2s.worker"] for run in runs() if run.data.tags["w2s.stage"] == "student"}
    assert len(owners) == 2 and parent.tags["w2s.worker"] not in owners
    again = [job.run() for job in sweep.jobs(sweep.Config(sweep="grid.py", seeds="0", **SMALL))]
    assert all(result.reused for result in again) and len(runs()) == 6


@pytest.mark.slow
def test_errors_come_back_as_they_were_and_no_process_is_left(experiment: str) -> None:
    wrong = student.Config(weak="chess-27k", strong="chess-43k", labels="weak", **SMALL | {"train_size": 10**9})
    with search_workers.worker_pool(2) as workers:
        workers.add("wrong", Job("student", wrong))
        ((key, error),) = until(workers, 1)
        assert key == "wrong" and isinstance(error, ConfigError) and "--train-size" in str(error)
        assert len(spawned()) == 2
    assert not spawned()


@pytest.mark.slow
def test_what_a_killed_process_was_training_is_gone_on_with(
    experiment: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("W2S_SCRATCH", str(tmp_path / "scratch"))
    monkeypatch.setattr(search_workers, "POLL", 0.02)
    long = supervisor.Config(weak="chess-60k", epochs=60, early_stopping="none", checkpoint_every=5, eval_split="none", **SMALL)
    with search_workers.worker_pool(2) as workers:
        workers.add("killed", Job("supervisor", long))
        while not list(tmp_path.glob("scratch/**/state.json")):
            assert not workers.ended(lambda text: None), "it ended before it could be killed"
        (busy,) = [worker for worker in workers.workers if worker.busy]  # type: ignore[attr-defined]
        os.kill(busy.process.pid, signal.SIGKILL)
        ((key, found),) = until(workers, 1)
    assert key == "killed" and not isinstance(found, Exception)
    (run,) = runs()  # the same run, not another
    assert run.info.run_id == found.run_id and run.info.status == "FINISHED"
    assert f":{busy.process.pid}:" not in run.data.tags["w2s.worker"]
    steps = [metric.step for metric in server.client().get_metric_history(found.run_id, "train/loss")]
    assert steps == list(range(1, len(steps) + 1))


def spawned() -> list[psutil.Process]:
    """The workers that live: what they are forked off is a child of this process, they are not."""
    return [child for child in psutil.Process().children(recursive=True) if alive(child) and child.ppid() != os.getpid()]


def alive(child: psutil.Process) -> bool:
    return child.is_running() and child.status() != psutil.STATUS_ZOMBIE


def until(workers: search_workers.Workers, count: int) -> list[Any]:
    found: list[Any] = []
    deadline = time.monotonic() + 120
    while len(found) < count and time.monotonic() < deadline:
        found += workers.ended(lambda text: None)
    return found


@pytest.mark.slow
def test_a_job_that_kills_every_process_it_is_given_to_is_called_failed(
    experiment: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(search_workers, "LIVES", 1)
    several = search_workers._ProcessPool(1)
    several.add("doomed", Job("rule", rule.Config(rule="random", **SMALL)))
    pid = several.workers[0].process.pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    try:
        ((key, error),) = until(several, 1)
    finally:
        several.stop()
    assert key == "doomed" and "rule failed: its worker process was killed in 1 attempts" in str(error)
