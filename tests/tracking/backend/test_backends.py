"""What the platform relies on, on each kind of tracking store: SQLite, an MLflow server, PostgreSQL."""

from __future__ import annotations

import contextlib
import multiprocessing
from collections.abc import Callable, Iterator
from multiprocessing.queues import Queue
from multiprocessing.synchronize import Barrier
from pathlib import Path
from uuid import uuid4

import mlflow
import numpy as np
import pytest
from mlflow.exceptions import MlflowException

from tests import servers
from tests.conftest import SMALL, runs
from w2s_mlflow.stages import supervisor
from w2s_mlflow.tracking import results, store
from w2s_mlflow.tracking.backend import server

PROCESSES, ROUNDS = 8, 20


@contextlib.contextmanager
def sqlite(directory: Path) -> Iterator[str]:
    """An SQLite database; its URI."""
    yield f"sqlite:///{directory}/mlflow.db"


@contextlib.contextmanager
def postgresql(directory: Path) -> Iterator[str]:
    """A PostgreSQL database; its URI."""
    pytest.importorskip("psycopg2", reason="psycopg2 is not installed")
    with servers.postgresql() as uri:
        yield uri


BACKENDS: dict[str, Callable[[Path], contextlib.AbstractContextManager[str]]] = {
    "sqlite": sqlite,
    "mlflow_server": servers.mlflow_server,
    "postgresql": postgresql,
}


@pytest.fixture(scope="module", params=list(BACKENDS))
def tracking_uri(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Each backend in turn, in place of the database that other tests share."""
    with BACKENDS[request.param](tmp_path_factory.mktemp(request.param)) as uri:
        yield uri


@pytest.mark.server
def test_a_result_is_trained_once_and_read_by_who_trained_it_and_who_found_it(experiment: str) -> None:
    trained = supervisor.run(supervisor.Config(**SMALL))
    server.forget()
    found = supervisor.run(supervisor.Config(**SMALL))
    assert (trained.reused, found.reused, found.run_id) == (False, True, trained.run_id)
    assert [run.info.run_id for run in runs() if "w2s.fingerprint" in run.data.tags] == [trained.run_id]
    assert trained.artifact_uri.startswith("mlflow-artifacts:") == mlflow.get_tracking_uri().startswith("http:")
    for first, second in (trained.weak_labels(), found.weak_labels()), (trained.predictions("test"), found.predictions("test")):
        assert first.ids == second.ids and len(first.ids) > 0
        np.testing.assert_array_equal(first.probabilities_NC, second.probabilities_NC)


@pytest.mark.server
def test_damage_is_seen_where_artifacts_are_fetched_too(experiment: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "POLL", 0.01)
    first = supervisor.run(supervisor.Config(**SMALL))
    server.client().log_text(first.run_id, "something else", results.WEAK_LABELS)
    results.forget(first.run_id)
    again = supervisor.run(supervisor.Config(**SMALL))
    assert again.run_id != first.run_id
    assert again.weak_labels().probabilities_NC.shape[1] == 2


@pytest.mark.server
def test_of_processes_that_write_one_param_at_the_same_moment_one_can(experiment: str) -> None:
    client = mlflow.MlflowClient()
    run_id = client.create_run(server.experiment().experiment_id).info.run_id
    outcomes = contest(mlflow.get_tracking_uri(), run_id)
    standing = client.get_run(run_id).data.params
    for key in map(claim_key, range(ROUNDS)):
        answers = {value: answer for name, value, answer in outcomes if name == key}
        assert sorted(answers.values()) == ["refused"] * (PROCESSES - 1) + ["written"]
        assert answers[standing[key]] == "written"


def contest(uri: str, run_id: str) -> list[tuple[str, str, str]]:
    """Key, value and answer of every write: all processes write each key at once, each a value of its own."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["mlflow.store.tracking.sqlalchemy_store"])
    barrier, answers = context.Barrier(PROCESSES), context.Queue()
    processes = [context.Process(target=contend, args=(uri, run_id, barrier, answers), daemon=True) for _ in range(PROCESSES)]
    for process in processes:
        process.start()
    outcomes = [answers.get(timeout=servers.DEADLINE) for _ in range(PROCESSES * ROUNDS)]
    for process in processes:
        process.join()
    return outcomes


def contend(uri: str, run_id: str, barrier: Barrier, answers: Queue[tuple[str, str, str]]) -> None:
    """Write each key when everyone is there."""
    client = mlflow.MlflowClient(uri)
    client.get_run(run_id)
    for key in map(claim_key, range(ROUNDS)):
        value = uuid4().hex
        barrier.wait(servers.DEADLINE)
        answers.put((key, value, write(client, run_id, key, value)))


def write(client: mlflow.MlflowClient, run_id: str, key: str, value: str) -> str:
    """`written`, `refused` because another value stands there, or what else went wrong."""
    try:
        client.log_param(run_id, key, value)
    except MlflowException as error:
        return "refused" if "Changing param values is not allowed" in str(error) else str(error)
    return "written"


def claim_key(number: int) -> str:
    """The parameter that is claimed in one round."""
    return f"claim-{number}"
