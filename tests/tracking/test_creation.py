"""Requests whose answer is lost, and requests of two processes at the same moment: their effect comes once."""

from __future__ import annotations

from typing import Any

import pytest
from mlflow.entities import Dataset, DatasetInput
from mlflow.exceptions import MlflowException

from tests.conftest import runs
from w2s_mlflow.tracking import claims, creation, heartbeat
from w2s_mlflow.tracking.backend import server

pytestmark = pytest.mark.usefixtures("experiment")


def test_a_run_whose_answer_was_lost_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    create = server.client().create_run

    def lost(*given: Any, **named: Any) -> Any:
        create(*given, **named)
        create(*given, **named)  # the client's own second attempt
        raise ConnectionError("the answer is lost")

    monkeypatch.setattr(server.client(), "create_run", lost)
    created = creation.create_run("a run", {})
    assert [run.info.run_id for run in runs()] == [created]


def test_a_run_that_was_not_created_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*given: Any, **named: Any) -> Any:
        raise ConnectionError("refused")

    monkeypatch.setenv("W2S_SERVER_WAIT", "0")
    monkeypatch.setattr(server.client(), "create_run", refused)
    with pytest.raises(ConnectionError, match="refused"):
        creation.create_run("a run", {})
    assert not runs()


@pytest.mark.parametrize(("words", "asked"), [("UNIQUE constraint failed: datasets", 2), ("no such table", 1)])
def test_a_data_set_that_another_process_logs_at_the_same_moment_is_logged_again(
    words: str, asked: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(creation, "PAUSE", 0.0)
    monkeypatch.setenv("W2S_SERVER_WAIT", "0")
    run_id, log, count = creation.create_run("a run", {}), server.client().log_inputs, []

    def race(*given: Any) -> None:
        count.append(given)
        if len(count) == 1:
            raise MlflowException(words)
        log(*given)

    monkeypatch.setattr(server.client(), "log_inputs", race)
    data = DatasetInput(Dataset("chess", "digest", "w2s_mlflow", "{}"), [])
    if asked == 1:
        with pytest.raises(MlflowException, match=words):
            creation.log_dataset(run_id, data)
    else:
        creation.log_dataset(run_id, data)
        inputs = server.client().get_run(run_id).inputs
        assert inputs is not None and [found.dataset.name for found in inputs.dataset_inputs] == ["chess"]
    assert len(count) == asked


def test_a_turn_is_waited_for_and_that_of_a_dead_process_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(claims, "POLL", 0.01)
    monkeypatch.setattr(claims, "PATIENCE", 0.2)
    with claims.turn("reports"):
        pass
    with monkeypatch.context() as elsewhere, claims.turn("reports"):
        elsewhere.setattr(heartbeat, "me", lambda: heartbeat.Worker("elsewhere", 1, "1"))
    claims._last_turn.clear()  # as another process
    with claims.turn("reports"):
        keys = sorted(server.client().get_run(claims.lock_run_id()).data.params)
    assert [key.partition(":")[2] for key in keys] == ["0", "1", "2", "3", "4"]
