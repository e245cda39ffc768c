"""A search by several commands on real servers: PostgreSQL holds the study, an `mlflow server` its runs; one is killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import mlflow
import optuna
import pytest
import sqlalchemy
from mlflow.entities import Run
from optuna.trial import TrialState

from tests.conftest import SMALL
from tests.search.test_search import SPACE
from tests.search.test_trials import searching
from tests.servers import DEADLINE, end, mlflow_server, postgresql
from w2s_mlflow.search import storage
from w2s_mlflow.search import study as search_study
from w2s_mlflow.search.study import StudyTarget

TRIALS = 4
pytestmark = pytest.mark.server


@pytest.fixture(scope="module")
def database() -> Iterator[str]:
    with postgresql() as uri:
        yield uri


def test_three_commands_share_a_study_and_one_is_killed_in_mid_trial(database: str, tmp_path: Path) -> None:
    (tmp_path / "space.py").write_text(SPACE)
    with mlflow_server(tmp_path) as uri:
        commands = [_command(tmp_path, uri, database, number) for number in range(3)]
        try:
            victim = _once(lambda: _in_mid_trial(uri, commands))
            victim.send_signal(signal.SIGKILL)
            for command in commands:
                command.wait(DEADLINE)
            said = [(tmp_path / f"{number}.log").read_text() for number in range(3)]
            statuses = sorted(command.returncode for command in commands)
            assert statuses == [-signal.SIGKILL, 0, 0], said
        finally:
            for command in commands:
                end(command)
        runs = list(mlflow.MlflowClient(uri).search_runs(["0"], max_results=1000))
    (name,) = optuna.get_all_study_names(database)
    trials = optuna.load_study(study_name=name, storage=database).get_trials()
    _check_trials(trials, runs)
    _check_runs(runs)


OPENING = """
import sys, time
from pathlib import Path
import optuna
from w2s_mlflow.search import storage
_, url, name = sys.argv
Path(f"ready-{name}").touch()
while not Path("go").exists():
    time.sleep(.001)
storage.open_storage("study", url, lambda study, trial: None)
"""


def test_processes_that_open_an_empty_database_at_once_make_its_tables_once(database: str, tmp_path: Path) -> None:
    with sqlalchemy.create_engine(database, isolation_level="AUTOCOMMIT").connect() as connection:
        connection.execute(sqlalchemy.text("CREATE DATABASE at_once"))
    url = database.replace("/postgres", "/at_once")
    started = [
        subprocess.Popen(
            [sys.executable, "-c", OPENING, url, str(number)],
            cwd=tmp_path,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
        for number in range(6)
    ]
    try:
        _once(lambda: len(list(tmp_path.glob("ready-*"))) == len(started))
        (tmp_path / "go").touch()
        errors = [process.communicate(timeout=DEADLINE)[1] for process in started]
        assert [process.returncode for process in started] == [0] * len(started), errors
    finally:
        for process in started:
            end(process)


def _command(directory: Path, uri: str, storage: str, number: int) -> subprocess.Popen[bytes]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("MLFLOW_")}
    environment = kept | {"MLFLOW_TRACKING_URI": uri, "W2S_SCRATCH": str(directory / "scratch")}
    sizes = [word for name, size in SMALL.items() for word in (f"--{name}", str(size))]
    line = [sys.executable, "-m", "w2s_mlflow", "sweep", "--sweep", str(directory / "space.py"), "--seeds", "0,1", *sizes]
    line += ["--trials", str(TRIALS), "--search-seeds", "7,8", "--storage", storage]
    with (directory / f"{number}.log").open("wb") as log:
        return subprocess.Popen(line, cwd=directory, env=environment, stdout=log, stderr=log, start_new_session=True)


def _once(look: Callable[[], Any]) -> Any:
    """What `look` finds, as soon as it finds something."""
    deadline = time.monotonic() + DEADLINE
    while time.monotonic() < deadline:
        if found := look():
            return found
        time.sleep(0.1)
    raise AssertionError("it did not come about")


def _in_mid_trial(uri: str, commands: list[subprocess.Popen[bytes]]) -> subprocess.Popen[bytes] | None:
    """A command that is training a student for a trial, one trial being over."""
    runs = mlflow.MlflowClient(uri).search_runs(["0"], max_results=1000)
    stages = [(run.data.tags.get("w2s.stage"), run.info.status) for run in runs]
    if ("trial", "FINISHED") not in stages:
        return None
    busy = [run for run in runs if run.info.status == "RUNNING" and run.data.tags.get("w2s.stage") == "student"]
    owners = [run.data.tags["w2s.worker"].split(":")[1] for run in busy]
    return next((command for command in commands if str(command.pid) in owners), None)


def _check_trials(trials: list[optuna.trial.FrozenTrial], runs: list[Run]) -> None:
    """As many as wanted, none twice, the one that was killed tried again with its options; each value is that of its runs."""
    complete = [trial for trial in trials if trial.state == TrialState.COMPLETE]
    assert len(complete) == TRIALS and {trial.state for trial in trials} == {TrialState.COMPLETE, TrialState.FAIL}
    assert len({str(trial.params) for trial in complete}) == TRIALS
    owners = Counter(trial.user_attrs[search_study.OWNER] for trial in trials if search_study.WITHDRAWN not in trial.user_attrs)
    assert len(owners) == 3
    killed = [trial for trial in trials if trial.state == TrialState.FAIL and search_study.WITHDRAWN not in trial.user_attrs]
    assert len(killed) == 1 and killed[0].params in [trial.params for trial in complete]
    by_id = {run.info.run_id: run for run in runs}
    for trial in complete:
        used = [by_id[run_id].data.metrics["selection/accuracy"] for run_id in trial.user_attrs[search_study.USED]]
        assert trial.value == pytest.approx(sum(used) / 2)
        assert by_id[trial.user_attrs[search_study.RUN]].data.metrics["objective"] == trial.value


def _check_runs(runs: list[Run]) -> None:
    """Every result was finished once, whoever needed it: two supervisors and ceilings of the proxy, two of what is tuned."""
    results = [run for run in runs if "w2s.fingerprint" in run.data.tags]
    finished = Counter(run.data.tags["w2s.fingerprint"] for run in results if run.info.status == "FINISHED")
    assert set(finished.values()) == {1} and set(finished) == {run.data.tags["w2s.fingerprint"] for run in results}
    stages = Counter(run.data.tags["w2s.stage"] for run in results if run.info.status == "FINISHED")
    assert (stages["supervisor"], stages["ceiling"], stages["student"]) == (4, 4, 2 * TRIALS + 2 * 2)
    trained = Counter(run.data.tags["w2s.fingerprint"] for run in results if run.data.tags["w2s.stage"] == "supervisor")
    assert set(trained.values()) == {1}
    assert not [run for run in runs if run.info.status == "RUNNING"]


def test_a_trial_of_another_machine_is_dead_when_its_heart_is_silent(
    database: str, monkeypatch: pytest.MonkeyPatch, experiment: str
) -> None:
    monkeypatch.setattr(storage, "BEAT", 1)
    monkeypatch.setattr(storage, "SILENCE", 3)
    search, wanted = searching(), StudyTarget(trials=4, storage=database, study="hearts")
    study = search_study.open_study(search, wanted, "digest", 1)
    asked = [search_study.ask(study, search, wanted) for _ in range(2)]
    (alive, dead) = [one[0] for one in asked if one]
    for trial in (alive, dead):
        trial.set_user_attr(search_study.OWNER, "another-12345678:1:1")
        study._storage.record_heartbeat(trial._trial_id)  # type: ignore[attr-defined]
    with storage.heartbeat(study, lambda: [alive._trial_id]):
        time.sleep(5)
        search_study.cleanup_once(study)
    states = [trial.state for trial in study.get_trials()]
    assert states == [TrialState.RUNNING, TrialState.FAIL, TrialState.WAITING]
    assert study.get_trials()[2].system_attrs["fixed_params"] == dead.params


def test_a_plan_makes_no_study(database: str, experiment: str) -> None:
    search = searching()
    assert len(search_study.placeholder_params(search, StudyTarget(trials=3, storage=database, study="planned"), "digest")) == 4
    assert "planned" not in optuna.get_all_study_names(database)
