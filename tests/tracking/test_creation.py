"""Requests of two processes at the same moment: their effect comes once."""

from __future__ import annotations

from typing import Any

import pytest
from mlflow.entities import Dataset, DatasetInput
from mlflow.exceptions import MlflowException

from w2s_mlflow.tracking import creation
from w2s_mlflow.tracking.backend import server

pytestmark = pytest.mark.usefixtures("experiment")


@pytest.mark.parametrize(("words", "asked"), [("UNIQUE constraint failed: datasets", 2), ("no such table", 1)])
def test_a_data_set_that_another_process_logs_at_the_same_moment_is_logged_again(
    words: str, asked: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(creation, "PAUSE", 0.0)
    run_id = server.client().create_run(server.experiment().experiment_id).info.run_id
    log, count = server.client().log_inputs, []

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
