"""A real server behind a proxy that delays, drops, limits and goes away: nothing is lost, doubled or waited for."""

from __future__ import annotations

import itertools
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import mlflow
import pytest

from tests import servers
from tests.conftest import runs
from tests.proxy import Faults, proxy
from tests.servers import DEADLINE
from tests.tracking.test_store import request
from w2s_mlflow.tracking import lifecycle, recovery, spool, store
from w2s_mlflow.tracking.backend import outages, server
from w2s_mlflow.tracking.recorder import Recorder

pytestmark = pytest.mark.server

STEPS = 20
LOGGING = "runs/log-batch"


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URI of a real server."""
    with servers.mlflow_server(tmp_path_factory.mktemp("server")) as uri:
        yield uri


@pytest.fixture
def faults(real: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Faults]:
    """The faults of the proxy that is the tracking server of this process, with a new experiment and no spools."""
    monkeypatch.chdir(tmp_path)
    with proxy(real) as (uri, found):
        monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
        monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", f"faults of {tmp_path.name}")
        monkeypatch.setenv("W2S_SCRATCH", str(tmp_path))
        monkeypatch.setattr(outages, "FIRST", 0.05)
        server.forget()
        server.experiment()
        yield found
    server.forget()


def training(spent: list[float] | None = None, then: Callable[[int], None] = lambda step: None) -> Callable[[Recorder], None]:
    """A training that logs in each step. The seconds that logging took are added to `spent`."""

    def make(recorder: Recorder) -> None:
        recorder.dataset("data", "d", "nowhere", {"train": 3})
        for step in range(1, STEPS + 1):
            began = time.monotonic()
            recorder.metrics({"train/loss": 1 / step}, step)
            recorder.flush()
            if spent is not None:
                spent.append(time.monotonic() - began)
            then(step)
        recorder.text("words.txt", "whole")

    return make


def check_whole(run_id: str) -> None:
    """The run has everything, once, and nothing is left on disk."""
    run = server.client().get_run(run_id)
    assert (run.info.status, run.data.params["task"]) == ("FINISHED", "none")
    points = [(point.step, point.value) for point in server.client().get_metric_history(run_id, "train/loss")]
    assert sorted(points) == [(step, 1 / step) for step in range(1, STEPS + 1)]
    assert run.inputs is not None and len(run.inputs.dataset_inputs) == 1
    assert [found.info.run_id for found in runs()] == [run_id]
    assert spool.paths() == []


def test_training_does_not_wait_for_a_slow_server(faults: Faults) -> None:
    spent: list[float] = []
    faults.only, faults.delay = LOGGING, 0.5
    found = store.produce(request(), training(spent))
    check_whole(found.run_id)
    assert sum(spent) < STEPS * 0.5 / 2, "half of the time for which the server was waited for"


def test_a_server_that_limits_the_rate_is_waited_for_as_it_asks(faults: Faults) -> None:
    faults.only, faults.limited, faults.retry_after = "mlflow", 0, "2"

    def limit(step: int) -> None:
        if step == 3:
            faults.limited = 5

    found = store.produce(request(), training(then=limit))
    check_whole(found.run_id)
    limited = [seen.at for seen in faults.seen if seen.status == 429]
    assert len(limited) == 5 and limited[-1] - limited[0] >= 2, "one after the other, and not at once"


@pytest.mark.parametrize("fault", ["drop", "twice"])
def test_lost_and_repeated_requests_lose_and_double_nothing(faults: Faults, fault: str) -> None:
    """Every third answer is lost, or every third request arrives twice, from the first look at the store on."""
    count = itertools.count(1)
    setattr(faults, fault, lambda: next(count) % 3 == 0)
    found = store.produce(request(), training())
    setattr(faults, fault, lambda: False)
    check_whole(found.run_id)
    assert store.produce(request(), training()).run_id == found.run_id


def test_a_server_that_is_gone_for_good_costs_no_result(faults: Faults, monkeypatch: pytest.MonkeyPatch) -> None:
    def leave(step: int) -> None:
        faults.away = step >= 5

    with monkeypatch.context() as impatient, pytest.raises(lifecycle.PendingUploadError) as error:
        impatient.setenv("W2S_SERVER_WAIT", "1")
        store.produce(request(), training(then=leave))
    assert "\n" not in str(error.value) and "is complete in" in str(error.value)
    faults.away = False
    [waiting] = runs()
    printed = command("upload", "--json")
    assert [(row["outcome"], row["finished"]) for row in json.loads(printed)] == [("delivered", True)]
    check_whole(waiting.info.run_id)
    assert store.produce(request(), training()).reused


def test_a_server_that_comes_back_is_found_again_by_all_requests(faults: Faults) -> None:
    """It is away for a second each time that a request is made for the first time, also for those before and after training."""
    met: dict[str, float] = {}

    def drop() -> bool:
        path = faults.seen[-1].path.partition("?")[0]
        return time.monotonic() - met.setdefault(path, time.monotonic()) < 1

    faults.drop = drop
    found = store.produce(request(), training())
    faults.drop = lambda: False
    check_whole(found.run_id)


# --- processes --------------------------------------------------------------------------------------------------------

LINE = ["supervisor", "--weak", "chess-27k", "--train-size", "200", "--test-size", "150"]
LONG = [*LINE, "--epochs", "300", "--early-stopping", "none", "--checkpoint-every", "20"]


def command(*line: str) -> str:
    """Run a command and return its standard output."""
    done = subprocess.run([sys.executable, "-m", "w2s_mlflow", *line], capture_output=True, text=True, timeout=DEADLINE)
    assert done.returncode == 0, done.stderr
    return done.stdout


def start(*line: str) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, "-m", "w2s_mlflow", *line], stderr=subprocess.PIPE, text=True)


def wait_for(found: Callable[[], object]) -> None:
    """Wait until a function returns something."""
    deadline = time.monotonic() + DEADLINE
    while not found():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def checkpoints(directory: Path) -> list[Path]:
    return list((directory / "w2s_mlflow").glob("*/state.json"))


@pytest.mark.parametrize("fault", [{"delay": 60.0}, {"away": True}, {"limited": 10**6, "retry_after": "60"}], ids=str)
def test_sigterm_ends_a_training_in_time_whatever_the_server_does(
    faults: Faults, fault: dict[str, object], tmp_path: Path
) -> None:
    with start(*LONG) as process:
        wait_for(lambda: checkpoints(tmp_path) or process.poll() is not None)
        for name, value in fault.items():
            setattr(faults, name, value)
        time.sleep(1)
        began = time.monotonic()
        process.send_signal(signal.SIGTERM)
        _, printed = process.communicate(timeout=DEADLINE)
        took = time.monotonic() - began
    assert process.returncode == 130, printed
    assert took < 5 + 5, "what is promised, and what a busy machine may add"
    assert "Traceback" not in printed and checkpoints(tmp_path)


def test_killed_writers_lose_and_double_nothing(faults: Faults, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A training is killed again and again while its records wait for a slow server. It ends as if nobody had killed it."""
    chance, line = random.Random(0), [*LINE, "--epochs", "40", "--early-stopping", "none", "--checkpoint-every", "5"]
    faults.only, faults.delay = LOGGING, 0.2
    kills = 0
    while kills < 4:
        with start(*line) as process:
            before = spools(tmp_path)
            wait_for(lambda: spools(tmp_path) - before or process.poll() is not None)  # noqa: B023
            time.sleep(chance.uniform(0, 1))
            process.send_signal(signal.SIGKILL)
            process.wait()
        kills += 1
    killed = json.loads(command(*line, "--json"))["run_id"]
    faults.delay = 0.0
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", f"undisturbed {tmp_path.name}")
    calm = json.loads(command(*line, "--json"))["run_id"]
    client = mlflow.MlflowClient()
    histories = [
        [(point.step, point.value) for point in sorted(client.get_metric_history(run_id, "train/loss"), key=lambda p: p.step)]
        for run_id in (killed, calm)
    ]
    assert histories[0] == histories[1] and len(histories[0]) == len({step for step, _ in histories[0]})
    finished = [run for run in runs_of_experiment(f"faults of {tmp_path.name}") if run.info.status == "FINISHED"]
    assert [run.info.run_id for run in finished] == [killed]
    assert client.get_run(killed).data.metrics["test/accuracy"] == client.get_run(calm).data.metrics["test/accuracy"]
    assert spool.paths() == []


def spools(directory: Path) -> set[str]:
    """The names of records that wait on disk."""
    return {str(path) for path in (directory / "w2s_mlflow").glob("spool-*/0*")}


def runs_of_experiment(name: str) -> list[mlflow.entities.Run]:
    client = mlflow.MlflowClient()
    experiment = client.get_experiment_by_name(name)
    assert experiment is not None
    return list(client.search_runs([experiment.experiment_id]))


def test_recovery_waits_no_longer_than_it_is_told(faults: Faults, monkeypatch: pytest.MonkeyPatch) -> None:
    def leave(step: int) -> None:
        faults.only, faults.away = LOGGING, True

    with monkeypatch.context() as impatient, pytest.raises(lifecycle.PendingUploadError):
        impatient.setenv("W2S_SERVER_WAIT", "0")
        store.produce(request(), training(then=leave))
    began = time.monotonic()
    [found] = recovery.deliver_all(0.5)
    assert found.outcome == "waiting" and time.monotonic() - began < 20
    assert os.environ.get("MLFLOW_EXPERIMENT_ID") is None
