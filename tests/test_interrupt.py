"""A stop from outside closes every run, keeps what was finished, and what was being trained goes on from there."""

from __future__ import annotations

import contextlib
import os
import signal
import sqlite3
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import mlflow
import pytest
from mlflow.entities import Run

from tests.servers import DEADLINE
from w2s_mlflow.training import checkpoint

GRID = ["main", "--seeds", "0", "--train-size", "1000", "--test-size", "200"]
TRAINING = [
    "supervisor",
    "--weak",
    "chess-27k",
    "--train-size",
    "200",
    "--test-size",
    "150",
    "--epochs",
    "300",
    "--early-stopping",
    "none",
    "--checkpoint-every",
    "0",
]
"""Nothing is kept of it but at a stop; its first metrics are seen after half of its steps."""
STEPS = 900
LIMIT, SLACK = 5.0, 5.0
"""Seconds from a stop to the end of the process: what is promised, and what a busy machine may add."""


@dataclass(frozen=True)
class Place:
    """Where one experiment is made, stopped and made on."""

    directory: Path

    def start(self, line: list[str]) -> subprocess.Popen[str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith("MLFLOW_")}
        new = {"MLFLOW_TRACKING_URI": f"sqlite:///{self.directory}/mlflow.db", "W2S_SCRATCH": str(self.directory / "scratch")}
        line = [sys.executable, "-m", "w2s_mlflow", *line]
        return subprocess.Popen(line, cwd=self.directory, env=kept | new, stderr=subprocess.PIPE, text=True)

    def count(self, query: str) -> int:
        """A number from the database, read without MLflow, whose client would make the tables in the experiment's place."""
        try:
            with contextlib.closing(sqlite3.connect(f"file:{self.directory}/mlflow.db?mode=ro", uri=True)) as database:
                return int(database.execute(query).fetchone()[0])
        except sqlite3.OperationalError:
            return 0  # not there yet

    def client(self) -> mlflow.MlflowClient:
        return mlflow.MlflowClient(f"sqlite:///{self.directory}/mlflow.db")

    def runs(self) -> list[Run]:
        return list(self.client().search_runs(["0"]))

    def checkpoints(self) -> list[str]:
        """The ids of the runs that have one."""
        return [path.parent.name for path in (self.directory / "scratch").glob(f"*/*/{checkpoint.STATE}")]


def stop(process: subprocess.Popen[str], number: signal.Signals, place: Place, query: str) -> float:
    """Send a signal once the query's count is more than zero; the seconds until the process has ended as after a stop."""
    with process:
        try:
            while process.poll() is None and not place.count(query):
                time.sleep(0.1)
            sent = time.monotonic()
            process.send_signal(number)
            _, printed = process.communicate(timeout=DEADLINE)
            took = time.monotonic() - sent
        finally:
            process.kill()
    assert process.returncode == 130
    assert "stopped; finished results are kept" in printed and "Traceback" not in printed
    return took


@pytest.mark.slow
def test_an_experiment_that_ctrl_c_stops_leaves_no_run_running(tmp_path: Path) -> None:
    place = Place(tmp_path)
    stop(
        place.start(GRID), signal.SIGINT, place, "SELECT COUNT(*) > 6 FROM runs WHERE experiment_id = 0 AND status = 'FINISHED'"
    )
    stages: dict[str, list[str]] = {}
    for run in place.runs():
        stages.setdefault(run.info.status, []).append(run.data.tags["w2s.stage"])
    assert set(stages) == {"FINISHED", "KILLED"}
    assert "sweep" in stages["KILLED"] and len(stages["FINISHED"]) > 6


@pytest.mark.slow
def test_a_training_that_sigterm_stops_ends_within_seconds_and_the_next_start_goes_on(tmp_path: Path) -> None:
    place = Place(tmp_path)
    took = stop(place.start(TRAINING), signal.SIGTERM, place, "SELECT COUNT(*) FROM metrics WHERE key = 'train/loss'")
    assert took < LIMIT + SLACK
    [killed] = place.runs()
    assert killed.info.status == "KILLED"
    assert place.checkpoints() == [killed.info.run_id]
    with place.start(TRAINING) as process:
        _, printed = process.communicate(timeout=DEADLINE)
    assert process.returncode == 0 and "resumed from a checkpoint" in printed
    [finished] = place.runs()
    assert (finished.info.run_id, finished.info.status) == (killed.info.run_id, "FINISHED")
    history = place.client().get_metric_history(finished.info.run_id, "train/loss")
    assert sorted(metric.step for metric in history) == list(range(1, STEPS + 1))
    assert place.checkpoints() == []
