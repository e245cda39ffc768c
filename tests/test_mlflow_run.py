"""The whole way, as a user goes it: `mlflow run` on an empty database, then again."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import mlflow

from tests.conftest import SMALL

ROOT = Path(__file__).parents[1]
SIZES = [f"-P{name}={value}" for name, value in SMALL.items()]


def test_mlflow_run_trains_what_it_needs_and_then_reuses_it(tmp_path: Path) -> None:
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MLFLOW_")}
    environment |= {"MLFLOW_TRACKING_URI": uri, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    line = ["mlflow", "run", str(ROOT), "--env-manager", "local", "-e", "student", "-P", "method=confidence", *SIZES]
    outputs = [
        subprocess.run(line, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True).stderr for _ in range(2)
    ]
    assert "trained student chess" in outputs[0] and "reused in" in outputs[1]
    client = mlflow.MlflowClient(uri)
    runs = client.search_runs(["0"])
    assert {run.info.status for run in runs} == {"FINISHED"}
    by_stage: dict[str, list[str]] = {}
    for run in runs:
        by_stage.setdefault(run.data.tags["w2s.stage"], []).append(run.info.run_id)
    assert {stage: len(ids) for stage, ids in by_stage.items()} == {"launch": 2, "supervisor": 1, "ceiling": 1, "student": 1}
    launches = [client.get_run(run_id) for run_id in by_stage["launch"]]
    assert {run.data.tags["w2s.result_run_id"] for run in launches} == set(by_stage["student"])
    student = client.get_run(by_stage["student"][0])
    assert student.data.tags["mlflow.parentRunId"] in by_stage["launch"]
    assert "test/accuracy" in student.data.metrics
