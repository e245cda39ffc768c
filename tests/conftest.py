"""One database per test process, one experiment per test: making a database costs seconds."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import mlflow
import pytest
from mlflow.entities import Run

SMALL: dict[str, Any] = {"train_size": 200, "test_size": 150}
"""Sizes at which a finetuning takes a fraction of a second."""


def pytest_configure() -> None:
    """For this and every child process: torch on one thread, as tests run beside each other, and a scratch directory."""
    os.environ["OMP_NUM_THREADS"] = "1"
    os.environ["W2S_SCRATCH"] = tempfile.mkdtemp(prefix="w2s-scratch-")


def pytest_unconfigure() -> None:
    """Remove the scratch directory."""
    shutil.rmtree(os.environ["W2S_SCRATCH"], ignore_errors=True)


@pytest.fixture(scope="session")
def tracking_uri(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A database that this process shares among its tests."""
    return f"sqlite:///{tmp_path_factory.mktemp('store')}/mlflow.db"


@pytest.fixture
def experiment(tracking_uri: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[str]:
    """A new experiment, the current one for stages called in process; its name."""
    from w2s_mlflow.tracking import server

    name = f"test-{uuid4().hex[:8]}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", tracking_uri)
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", name)
    monkeypatch.chdir(tmp_path)
    server.forget()
    yield name
    server.forget()


def runs() -> list[Run]:
    """Every run of the current experiment, whatever its status."""
    from w2s_mlflow.tracking import server

    found: list[Run] = mlflow.MlflowClient().search_runs([server.experiment().experiment_id])
    return found
