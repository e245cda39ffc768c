"""`kill -9` at named points of an experiment, started again after each: nothing finished is lost, nothing is there twice."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import mlflow
import numpy as np
import pyarrow.parquet as pq
import pytest
from mlflow.entities import Run

from tests._dying import POINTS, command
from w2s_mlflow.training import checkpoint

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["tests._dying"])  # seconds of imports, once instead of at every start
SIZES = ["--seeds", "0", "--train-size", "200", "--test-size", "150"]
GRID = """
SETTINGS = [
    {"stage": "rule", "rule": "random"},
    {"strong": "chess-121k", "epochs": 4, "early_stopping": "none", "checkpoint_every": 4},
    {
        "strong": "chess-121k",
        "method": "confidence",
        "epochs": 4,
        "early_stopping": "none",
        "checkpoint_every": 4,
        "keep_model": "always",
    },
]
"""


def environment(directory: Path) -> dict[str, str]:
    found = {name: value for name, value in os.environ.items() if not name.startswith("MLFLOW_")}
    return found | {"MLFLOW_TRACKING_URI": f"sqlite:///{directory}/mlflow.db", "W2S_SCRATCH": str(directory / "scratch")}


def started(directory: Path, line: list[str]) -> subprocess.CompletedProcess[str]:
    directory.mkdir(exist_ok=True)
    return subprocess.run(
        [sys.executable, *line], cwd=directory, env=environment(directory), capture_output=True, text=True, timeout=300
    )


def runs_in(directory: Path) -> list[Run]:
    client = mlflow.MlflowClient(f"sqlite:///{directory}/mlflow.db")
    found: list[Run] = client.search_runs(["0"], max_results=1000)
    return found


def predictions_in(directory: Path) -> dict[tuple[str, str], np.ndarray]:
    """Every stored table of probabilities, by its run's fingerprint and its path."""
    found = {}
    for run in runs_in(directory):
        if run.info.status == "FINISHED" and "w2s.fingerprint" in run.data.tags:
            place = Path(run.info.artifact_uri.removeprefix("file://"))
            for path in sorted((*place.glob("predictions/*.parquet"), *place.glob("labels/*.parquet"))):
                table = pq.read_table(path)
                values = np.array(table["probabilities"].to_pylist(), dtype=np.float32)
                order = np.argsort(np.array(table["id"].to_pylist()))
                found[run.data.tags["w2s.fingerprint"], path.name] = values[order]
    return found


def check_whole(directory: Path, whole: Path) -> None:
    """What a store must be at the end, however often its makers were killed."""
    runs = runs_in(directory)
    assert "RUNNING" not in {run.info.status for run in runs}
    finished = Counter(run.data.tags.get("w2s.fingerprint") for run in runs if run.info.status == "FINISHED")
    del finished[None]
    assert set(finished.values()) == {1}
    expected, found = predictions_in(whole), predictions_in(directory)
    assert found.keys() == expected.keys() and len(found) > 5
    assert all(np.array_equal(found[key], expected[key]) for key in expected)
    assert {path.name for path in (directory / "scratch" / "w2s_mlflow").glob("*")} <= {"scores", "index"}  # no checkpoint


def checkpoints_in(directory: Path) -> set[str]:
    """The ids of the runs that have a checkpoint, whole as far as its name says."""
    return {path.parent.name for path in (directory / "scratch").glob(f"*/*/{checkpoint.STATE}")}


def check_continued(directory: Path, unfinished: set[str]) -> None:
    """Every run that had a checkpoint when its maker was killed is the one that is finished, with each step once."""
    assert len(unfinished) > 1
    client = mlflow.MlflowClient(f"sqlite:///{directory}/mlflow.db")
    for run_id in unfinished:
        assert client.get_run(run_id).info.status == "FINISHED"
        history = client.get_metric_history(run_id, "train/loss")
        assert sorted(metric.step for metric in history) == list(range(1, len(history) + 1)) and len(history) > 5


@pytest.mark.slow
def test_a_grid_that_is_killed_at_every_point_ends_as_one_that_is_not(tmp_path: Path) -> None:
    (tmp_path / "grid.py").write_text(GRID)
    line = ["sweep", "--sweep", str(tmp_path / "grid.py"), *SIZES]
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    done = started(whole, ["-m", "w2s_mlflow", *line])
    assert done.returncode == 0, done.stderr
    unfinished: set[str] = set()
    killed.mkdir()
    for point in POINTS:
        log = tmp_path / f"{point}.log"
        process = CONTEXT.Process(target=command, args=(point, line, killed, environment(killed), log))
        process.start()
        process.join()
        assert process.exitcode == -signal.SIGKILL, f"{point}: {process.exitcode} {log.read_text()}"
        unfinished |= checkpoints_in(killed)
    done = started(killed, ["-m", "w2s_mlflow", *line])
    assert done.returncode == 0, done.stderr
    check_whole(killed, whole)
    check_continued(killed, unfinished)


@pytest.mark.slow
def test_the_default_experiment_goes_on_after_kills_at_any_time(tmp_path: Path) -> None:
    """At its smallest setting, five times, each a little later: wherever that happens to be."""
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    line = ["-m", "w2s_mlflow", "main", *SIZES]
    done = started(whole, line)
    assert done.returncode == 0, done.stderr
    killed.mkdir()
    for later in range(5):
        process = subprocess.Popen([sys.executable, *line], cwd=killed, env=environment(killed), stderr=subprocess.DEVNULL)
        try:
            process.wait(timeout=4 + later * 0.9)
        except subprocess.TimeoutExpired:
            process.kill()
        process.wait()
    done = started(killed, line)
    assert done.returncode == 0, done.stderr
    check_whole(killed, whole)
