"""An analysis of 10,000 runs: against one bare read of the same runs and files, and the second time, as ratios in one run.

    python benchmarks/analysis.py

Supervisors, ceilings and students of 2 weak and 15 strong models, 5 methods and 60 seeds, written by SQL into the tables that
MLflow made, each with predictions on 500 test rows and their gold as parquet files. Prints one JSON object: seconds, and
`first_to_bare`, the first analysis by the bare read (every page of search_runs, and every parquet file once);
`second_to_first`, the same command again; the peak memory of each process.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import resource
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

from w2s_mlflow import metrics, stats
from w2s_mlflow.analysis import variants
from w2s_mlflow.records import Predictions, write_gold
from w2s_mlflow.stages import analyze
from w2s_mlflow.tracking import results
from w2s_mlflow.tracking.backend import server

WEAK, STRONG, METHODS, SEEDS, ROWS = 2, 15, 5, 60, 500
STARTED = 1_790_000_000_000
RUNS = "run_uuid, experiment_id, name, status, start_time, end_time, lifecycle_stage, source_type, user_id, artifact_uri"


@dataclass(frozen=True)
class SyntheticRun:
    """One synthetic run."""

    number: int
    stage: str
    weak: str
    strong: str
    method: str
    seed: int
    skill: float
    above: tuple[str, ...] = ()
    """The ids of its supervisor and its ceiling."""

    @property
    def run_id(self) -> str:
        """Its id."""
        return f"{self.number * 2_246_822_519 % 2**32:08x}" * 4


def all_runs() -> list[SyntheticRun]:
    """All runs, supervisors and ceilings first."""
    runs: list[SyntheticRun] = []
    ids: dict[tuple[str, int], str] = {}

    def add(stage: str, weak: str, strong: str, method: str, seed: int, skill: float) -> None:
        above = (ids[weak, seed], ids[strong, seed]) if stage == "student" else ()
        runs.append(SyntheticRun(len(runs) + 1, stage, weak, strong, method, seed, skill, above))
        if stage != "student":
            ids[weak if stage == "supervisor" else strong, seed] = runs[-1].run_id

    for seed in range(SEEDS):
        for weak in range(WEAK):
            add("supervisor", f"w{weak}", "-", "supervisor", seed, 0.6 + 0.02 * weak)
        for strong in range(STRONG):
            add("ceiling", "-", f"s{strong}", "ceiling", seed, 0.8 + 0.01 * strong)
    for seed, weak, strong, method in itertools.product(range(SEEDS), range(WEAK), range(STRONG), range(METHODS)):
        name = ("baseline", "confidence", "generative", "hard_labels", "random_labels")[method]
        add("student", f"w{weak}", f"s{strong}", name, seed, 0.68 + 0.01 * method + 0.005 * strong)
    return runs


def fill(directory: Path) -> None:
    """Write all runs, with their files, into a database that MLflow made."""
    rng, gold_N = np.random.default_rng(0), np.arange(ROWS) % 2
    ids = tuple(f"row-{row:05d}" for row in range(ROWS))
    answers: dict[str, Predictions] = {}
    with closing(sqlite3.connect(directory / "mlflow.db")) as database, database:
        for run in all_runs():
            right_N = rng.random(ROWS) < run.skill
            first_N = np.where(right_N == (gold_N == 0), rng.uniform(0.5, 1, ROWS), rng.uniform(0, 0.5, ROWS))
            table = Predictions(ids, ids, np.stack([first_N, 1 - first_N], axis=1).astype(np.float32))
            if run.stage != "student":
                answers[run.run_id] = table
            place = directory / "mlruns" / "0" / run.run_id / "artifacts"
            table.write(place / "predictions" / "test.parquet")
            write_gold(place / "gold" / "test.parquet", ids, gold_N)
            _insert(database, run, place, _metrics(table.with_gold(gold_N), [answers[above] for above in run.above]))


def _metrics(predictions: Predictions, above: list[Predictions]) -> dict[str, float]:
    assert predictions.gold_N is not None
    values = metrics.report(predictions.probabilities_NC, predictions.gold_N)
    if above:
        accuracies = [float(other.with_gold(predictions.gold_N).correct_N().mean()) for other in above]
        values |= dict(zip(("weak_accuracy", "ceiling_accuracy"), accuracies, strict=True))
        values["agreement"] = metrics.agreement_score(predictions.probabilities_NC, above[0].probabilities_NC)
        values["pgr"] = stats.pgr(accuracies[0], values["accuracy"], accuracies[1])
    used = {"train/tokens": 1e6, "model/parameters": 1e5, "seconds": 10.0, "gold/test/report": ROWS}
    return {f"test/{name}": value for name, value in values.items()} | used


def _insert(database: sqlite3.Connection, run: SyntheticRun, place: Path, values: dict[str, float]) -> None:
    name, started = f"{run.stage} chess {run.weak}->{run.strong} {run.method} seed {run.seed}", STARTED + run.number * 1000
    row = (run.run_id, "0", name, "FINISHED", started, started + 900, "active", "LOCAL", "ann", str(place))
    database.execute(f"INSERT INTO runs ({RUNS}) VALUES ({', '.join('?' * 10)})", row)
    params = variants.defaults() | {"task": "chess", "weak": run.weak, "strong": run.strong, "method": run.method}
    params |= {"seed": str(run.seed), "head": "lm_choice", "train_size": "3000", "test_size": str(ROWS)}
    digests = results.digests_of(place)
    split = {path: digest for path, digest in digests.items() if path.startswith("gold")}
    tags = {"w2s.stage": run.stage, "w2s.fingerprint": run.run_id, "w2s.data": f"{run.seed:032x}", "mlflow.runName": name}
    tags |= {"w2s.artifacts": json.dumps({path: digests[path] for path in digests if path not in split})}
    tags |= {"w2s.artifacts.test": json.dumps(split), "w2s.pgr_status": "ok", "w2s.ceiling_failed": "no"}
    tags |= dict(zip(("w2s.weak_run_id", "w2s.ceiling_run_id"), run.above, strict=False))
    for table, pairs in (("params", params), ("tags", tags)):
        rows = ((run.run_id, key, value) for key, value in pairs.items())
        database.executemany(f"INSERT INTO {table} (run_uuid, key, value) VALUES (?, ?, ?)", rows)
    for table in ("metrics", "latest_metrics"):
        numbers = ((run.run_id, key, value, started, 0, False) for key, value in values.items())
        columns = "run_uuid, key, value, timestamp, step, is_nan"
        database.executemany(f"INSERT INTO {table} ({columns}) VALUES (?, ?, ?, ?, ?, ?)", numbers)


def bare() -> None:
    """Every run through MLflow's own search, page by page, and every file of theirs once."""
    for run in results.pages("", ["0"]):
        repository = get_artifact_repository(run.info.artifact_uri)
        for path in ("predictions/test.parquet", "gold/test.parquet"):
            pq.read_table(repository.download_artifacts(path))  # type: ignore[no-untyped-call]


def child(name: str) -> dict[str, float]:
    """Seconds and peak memory of one of these in a process of its own."""
    line = [sys.executable, __file__, "--child", name]
    output = subprocess.run(line, check=True, stdout=subprocess.PIPE, text=True).stdout
    measurements: dict[str, float] = json.loads(output.splitlines()[-1])
    return measurements


def measured(name: str) -> Iterator[tuple[str, float]]:
    """In the child."""
    calls: dict[str, Callable[[], object]] = {"bare": bare, "analyze": lambda: analyze.run(analyze.Config())}
    server.experiment()
    started = time.perf_counter()
    calls[name]()
    yield "seconds", round(time.perf_counter() - started, 2)
    yield "gigabytes", round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6, 2)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--child", choices=("bare", "analyze"))
    if command := parser.parse_args().child:
        print(json.dumps(dict(measured(command))))
        return
    with tempfile.TemporaryDirectory() as name:
        os.environ |= {"MLFLOW_TRACKING_URI": f"sqlite:///{name}/mlflow.db", "W2S_SCRATCH": f"{name}/scratch"}
        server.experiment()
        fill(Path(name))
        read, first, second = (child(command) for command in ("bare", "analyze", "analyze"))
        ratios = {
            "first_to_bare": round(first["seconds"] / read["seconds"], 2),
            "second_to_first": round(second["seconds"] / first["seconds"], 3),
        }
        print(json.dumps({"runs": len(all_runs()), "bare": read, "first": first, "second": second} | ratios))


if __name__ == "__main__":
    main()
