"""What sweeps cost beside training: a grid's second run, workers on the cores of this machine, trials against PostgreSQL.

    PYTHONPATH=. python benchmarks/sweeps.py

Prints one JSON object. `grid`: the default experiment by the command line, twice on one empty store. `workers`: the grid
sweeps/demo.py by 1, 2 and 4 workers, each on an empty store, and the share of the time for which the cores, on an otherwise
idle machine, had nothing to do: what is lost to locks, or to anything else that is waited for, is in it. `trials`: what a trial
costs of which the runs cost nothing, in a study with 200 trials; study and runs lie in PostgreSQL, as tests/servers.py starts
it. `runs`: the results of a search of the confidence loss with 40 trials, by stage.
"""

from __future__ import annotations

import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from tests.servers import postgresql
from w2s_mlflow.search import space as search_space
from w2s_mlflow.search import study as search_study
from w2s_mlflow.search import trials as search_trials
from w2s_mlflow.search import workers as search_workers
from w2s_mlflow.tracking.results import Result

BEFORE, MEASURED, TRIALS = 200, 30, 40


def command(directory: Path, *arguments: str) -> float:
    """Wall seconds of one command on the store in `directory`."""
    environment = os.environ | {
        "MLFLOW_TRACKING_URI": f"sqlite:///{directory}/mlflow.db",
        "W2S_SCRATCH": str(directory / "scratch"),
    }
    started = time.perf_counter()
    subprocess.run([sys.executable, "-m", "w2s_mlflow", *arguments], check=True, cwd=directory, env=environment, stdout=2)
    return round(time.perf_counter() - started, 2)


def grid() -> dict[str, float]:
    """The default experiment, first and again."""
    with tempfile.TemporaryDirectory() as name:
        first, second = (command(Path(name), "main") for _ in range(2))
    return {"first": first, "second": second, "ratio": round(second / first, 4)}


def workers() -> dict[str, dict[str, float]]:
    """The seconds of one grid by so many workers, and the share of all cores that was idle meanwhile."""
    import psutil

    measurements = {}
    for count in (1, 2, 4):
        with tempfile.TemporaryDirectory() as name:
            before = psutil.cpu_times().idle
            seconds = command(Path(name), "sweep", "--sweep", "demo", "--workers", str(count))
            idle = (psutil.cpu_times().idle - before) / (seconds * len(psutil.cpu_times(percpu=True)))
        measurements[str(count)] = {"seconds": seconds, "idle": round(idle, 3)}
    return measurements


def runs() -> dict[str, int]:
    """The finished results of a search, by stage and, of supervisors and ceilings, their number by pair and seed."""
    import mlflow

    with tempfile.TemporaryDirectory() as name:
        command(Path(name), "sweep", "--sweep", "confidence", "--trials", str(TRIALS), "--workers", "2")
        client = mlflow.MlflowClient(f"sqlite:///{name}/mlflow.db")
        runs_data = [run.data for run in client.search_runs(["0"], max_results=1000)]
    results = [data for data in runs_data if "w2s.fingerprint" in data.tags]
    stages = Counter(data.tags["w2s.stage"] for data in results)
    twice = Counter(data.tags["w2s.fingerprint"] for data in results)
    return dict(stages) | {
        "trials": sum(data.tags.get("w2s.stage") == "trial" for data in runs_data),
        "most": max(twice.values()),
    }


@dataclass
class Free:
    """A run that costs nothing."""

    value: float
    stage: str = "free"
    config: Any = None

    def run(self) -> Result:
        """A result that is in no store."""
        return Result("0" * 32, "free", "free", "", "", {}, {"selection/accuracy": self.value}, {}, 0.0, reused=True)


def space(trial: Any) -> dict[str, Any]:
    """The options of sweeps/confidence.py."""
    return {
        "alpha": trial.suggest_float("alpha", 0.0, 1.0),
        "warmup": trial.suggest_float("warmup", 0.0, 1.0),
        "learning_rate": trial.suggest_float("learning_rate", 1e-4, 3e-3, log=True),
    }


def trials() -> dict[str, float]:
    """Milliseconds of a trial, of two runs, in a study that has 200 already."""
    module = ModuleType("search")
    vars(module).update(SETTING={}, PROXY=[{}], space=space)
    search = search_space.load_search("free", module, "", None)

    def jobs(options: Mapping[str, Any]) -> list[Any]:
        return [Free(options["alpha"]), Free(options["warmup"])]

    with postgresql() as storage, search_workers.worker_pool(1) as alone:
        os.environ["MLFLOW_TRACKING_URI"] = storage.replace("/postgres", "/w2s")
        database(storage)
        target = search_study.StudyTarget(storage=storage, trials=BEFORE + MEASURED)
        study = search_study.open_study(search, target, "measured", 2)
        search_trials.run(study, search, target, jobs, alone)
        ends = [trial.datetime_complete.timestamp() for trial in study.get_trials() if trial.datetime_complete]
    each = [after - before for before, after in itertools.pairwise(ends[BEFORE - 1 :])]
    return {"median_ms": round(1000 * statistics.median(each), 1), "longest_ms": round(1000 * max(each), 1)}


def database(uri: str) -> None:
    """Make the database of the runs, beside that of the study."""
    import sqlalchemy

    with sqlalchemy.create_engine(uri, isolation_level="AUTOCOMMIT").connect() as connection:
        connection.execute(sqlalchemy.text("CREATE DATABASE w2s"))


def main() -> None:
    """Measure and print."""
    with tempfile.TemporaryDirectory() as scratch:
        os.chdir(scratch)  # where MLflow puts the artifacts of the free trials
        results = {"trials": trials(), "workers": workers(), "grid": grid(), "runs": runs()}
    print(json.dumps(results))


if __name__ == "__main__":
    main()
