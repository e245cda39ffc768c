"""A stop from outside closes every run and keeps what was finished."""

from __future__ import annotations

import contextlib
import os
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import mlflow
import pytest

LINE = [sys.executable, "-m", "w2s_mlflow", "main", "--seeds", "0", "--train-size", "1000", "--test-size", "200"]


def stopped(directory: Path, number: signal.Signals) -> tuple[int, str, dict[str, list[str]]]:
    """Stop the default experiment at its third finished run: exit status, standard error, and stages by run status."""
    uri = f"sqlite:///{directory}/mlflow.db"
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MLFLOW_")}
    process = subprocess.Popen(
        LINE, cwd=directory, env=environment | {"MLFLOW_TRACKING_URI": uri}, stderr=subprocess.PIPE, text=True
    )
    try:
        deadline = time.monotonic() + 90
        while process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.2)
            if _finished(directory / "mlflow.db") >= 3:
                process.send_signal(number)
                break
        _, printed = process.communicate(timeout=60)
    finally:
        process.kill()
    found: dict[str, list[str]] = {}
    for run in mlflow.MlflowClient(uri).search_runs(["0"]):
        found.setdefault(run.info.status, []).append(run.data.tags["w2s.stage"])
    return process.returncode, printed, found


def _finished(database: Path) -> int:
    """Finished runs, read without MLflow, whose client would make the tables in the experiment's place."""
    try:
        with contextlib.closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as connection:
            return int(connection.execute("SELECT COUNT(*) FROM runs WHERE status = 'FINISHED'").fetchone()[0])
    except sqlite3.OperationalError:
        return 0  # not there yet


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stopped_experiment_leaves_no_run_running(number: signal.Signals, tmp_path: Path) -> None:
    status, printed, found = stopped(tmp_path, number)
    assert status == 130
    assert "stopped; what was finished is kept" in printed and "Traceback" not in printed
    assert set(found) == {"FINISHED", "KILLED"}
    assert "sweep" in found["KILLED"] and len(found["FINISHED"]) >= 3
