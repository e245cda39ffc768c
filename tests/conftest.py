"""One database per test process, one experiment per test: making a database costs seconds."""

from __future__ import annotations

import gc
import os
import shutil
import signal
import subprocess
import sys
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
FIRST = ("test_mlflow_run.py", "test_search.py", "test_sweep_and_analyze.py")
"""Files with the longest tests of all: at the end one process would wait for them."""


def pytest_configure() -> None:
    """For this and every child process: torch on one thread, as tests run beside each other, and a scratch directory."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # started in the background of a script
        signal.signal(signal.SIGINT, signal.default_int_handler)
    gc.set_threshold(100_000)  # as the command line does (w2s_mlflow/__main__.py)
    os.environ["OMP_NUM_THREADS"] = "1"
    os.environ["W2S_SCRATCH"] = tempfile.mkdtemp(prefix="w2s-scratch-")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest tests first; the others stay in their order."""
    items.sort(key=lambda item: FIRST.index(item.path.name) if item.path.name in FIRST else len(FIRST))


@pytest.hookimpl(optionalhook=True)  # pytest-xdist's own
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Tests of one file stay in one process, which makes what they share once, until another one runs out of work."""
    if config.getvalue("dist") != "load":  # another one was asked for
        return None
    from xdist.scheduler import WorkStealingScheduling

    return WorkStealingScheduling(config, log)


def pytest_unconfigure() -> None:
    """Remove the scratch directory."""
    shutil.rmtree(os.environ["W2S_SCRATCH"], ignore_errors=True)


@pytest.fixture(scope="session")
def tracking_uri(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A database that this process shares among its tests."""
    return f"sqlite:///{tmp_path_factory.mktemp('store')}/mlflow.db"


@pytest.fixture
def experiment(request: pytest.FixtureRequest, tracking_uri: str, tmp_path: Path) -> Iterator[str]:
    """A new experiment, the current one for stages called in process; its name. One marked `shared` has its file's."""
    if request.node.get_closest_marker("shared"):
        yield request.getfixturevalue("shared")
        return
    with pytest.MonkeyPatch.context() as patch:
        yield from _current(tracking_uri, patch, tmp_path)


@pytest.fixture(scope="module")
def shared(tracking_uri: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """One for all tests of a file that ask for it: what one of them has trained, the others find."""
    with pytest.MonkeyPatch.context() as patch:
        yield from _current(tracking_uri, patch, tmp_path_factory.mktemp("shared"))


@pytest.fixture
def tidy(shared: str) -> Iterator[None]:
    """Inside the file's experiment, nothing is left of what the test has made."""
    before = {run.info.run_id for run in runs()}
    yield
    for run in runs():
        if run.info.run_id not in before:
            mlflow.MlflowClient().delete_run(run.info.run_id)


@pytest.fixture(autouse=True)
def signals() -> Iterator[None]:
    """The command line changes what this process does at a signal: back to what it was after each test."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGALRM)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def _current(tracking_uri: str, patch: pytest.MonkeyPatch, directory: Path) -> Iterator[str]:
    from w2s_mlflow.tracking.backend import server

    name = f"test-{uuid4().hex[:8]}"
    patch.setenv("MLFLOW_TRACKING_URI", tracking_uri)
    patch.setenv("MLFLOW_EXPERIMENT_NAME", name)
    patch.chdir(directory)
    server.forget()
    yield name
    server.forget()


def runs() -> list[Run]:
    """Every run of the current experiment, whatever its status."""
    from w2s_mlflow.tracking.backend import server

    found: list[Run] = mlflow.MlflowClient().search_runs([server.experiment().experiment_id])
    return found


def purge(run_id: str, uri: str) -> None:
    """Delete a run for good, with its artifacts."""
    client = mlflow.MlflowClient()
    if client.get_run(run_id).info.lifecycle_stage == "active":
        client.delete_run(run_id)
    # In a process of its own, as it changes the address in use.
    line = ["mlflow", "gc", "--backend-store-uri", uri, "--tracking-uri", uri, "--run-ids", run_id]
    subprocess.run([sys.executable, "-m", *line], check=True, capture_output=True)
