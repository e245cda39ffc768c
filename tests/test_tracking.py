"""The server in use: what is said of it, and what a run of it keeps."""

from __future__ import annotations

import os

import pytest

from tests.conftest import SMALL, runs
from w2s_mlflow.config import ConfigError
from w2s_mlflow.stages import supervisor
from w2s_mlflow.tracking import server


def test_a_password_is_never_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "postgresql://ann:secret@db.example/w2s")
    assert server.where() == "postgresql://ann:***@db.example/w2s"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:////data/mlflow.db")
    assert server.where() == "sqlite:////data/mlflow.db"


def test_a_server_that_cannot_be_used_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "nonsense://here")
    server.forget()
    with pytest.raises(ConfigError, match="the tracking server nonsense://here cannot be used"):
        server.client()
    server.forget()


def test_the_launcher_s_run_is_adopted_once_as_parent(experiment: str, monkeypatch: pytest.MonkeyPatch) -> None:
    launch = server.client().create_run(server.experiment().experiment_id).info.run_id
    monkeypatch.setenv("MLFLOW_RUN_ID", launch)
    server.forget()
    result = supervisor.run(supervisor.Config(**SMALL))
    server.close_launch(result.run_id)
    assert "MLFLOW_RUN_ID" not in os.environ
    found = {run.info.run_id: run.data.tags for run in runs()}
    assert found[result.run_id]["mlflow.parentRunId"] == launch
    assert (found[launch]["w2s.stage"], found[launch]["w2s.result_run_id"]) == ("launch", result.run_id)


def test_the_experiment_is_marked_as_model_training(experiment: str) -> None:
    server.experiment()
    server.forget()
    assert server.experiment().name == experiment
    assert server.experiment().tags["mlflow.experimentKind"] == "custom_model_development"
