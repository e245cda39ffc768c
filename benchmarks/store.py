"""The tracking store at 10,000 runs: milliseconds of each request and of a whole stage, on SQLite with a write-ahead log.

    python benchmarks/store.py

The database lies in a temporary directory. Its runs have the shape of ours (25 parameters, 15 metrics, 15 tags) and are written
by SQL into the tables that MLflow made; what is measured goes through MLflow's client, warm. The stage is a supervisor of the
default experiment whose training takes no time: all that is left is finding, claiming, recording, sealing and reporting.
"""

from __future__ import annotations

import itertools
import json
import os
import sqlite3
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import mlflow
import numpy as np
from mlflow.entities import Param
from mlflow.exceptions import MlflowException

from w2s_mlflow.data.splits import Examples
from w2s_mlflow.pipeline import finetune, ground_truth, runs, scoring
from w2s_mlflow.pipeline.context import resolve
from w2s_mlflow.records import Predictions
from w2s_mlflow.stages import supervisor
from w2s_mlflow.tracking import results
from w2s_mlflow.tracking.backend import server
from w2s_mlflow.tracking.recorder import Recorder

RUNS, PARAMS, METRICS, TAGS, REPEATS = 10_000, 25, 15, 15, 50
CLAIMS = 100, 1_000, 20_000
"""Parameters on one run, each of which a process has claimed by writing it first."""
EXPERIMENT = "0"
ABSENT = "f" * 32
COLUMNS = {
    "runs": "run_uuid, experiment_id, name, status, start_time, end_time, lifecycle_stage, source_type, user_id, artifact_uri",
    "params": "run_uuid, key, value",
    "tags": "run_uuid, key, value",
    "metrics": "run_uuid, key, value, timestamp, step, is_nan",
    "latest_metrics": "run_uuid, key, value, timestamp, step, is_nan",
}


def digits(index: int, factor: int) -> str:
    """32 hexadecimal digits: one to one with `index`, in no order of it, as ids and fingerprints are."""
    return f"{index * factor % 2**32:08x}" * 4


def run_id(index: int) -> str:
    """The id of a run."""
    return digits(index, 2_246_822_519)


def fingerprint(index: int) -> str:
    """The fingerprint of a run."""
    return digits(index, 2_654_435_761)


def tags(index: int) -> dict[str, str]:
    """The tags of a run."""
    values = {"w2s.fingerprint": fingerprint(index), "w2s.stage": "student", "w2s.version": "0.1.0"}
    values |= {"mlflow.runName": f"student chess seed {index % 97}", "mlflow.user": "ann", "mlflow.source.type": "LOCAL"}
    values |= {
        "mlflow.source.name": "w2s_mlflow/__main__.py",
        "mlflow.note.content": "A student finetuned on weak labels. " * 8,
    }
    return values | {f"w2s.tag_{number}": f"value {index % 97}" for number in range(TAGS - len(values))}


def rows(table: str, index: int) -> Iterator[tuple[object, ...]]:
    """The rows of one run in a table."""
    run, started = run_id(index), 1_790_000_000_000 + index * 60_000
    if table == "runs":
        name, artifacts = tags(index)["mlflow.runName"], f"/mlruns/{EXPERIMENT}/{run}/artifacts"
        yield run, EXPERIMENT, name, "FINISHED", started, started + 50_000, "active", "LOCAL", "ann", artifacts
    elif table == "params":
        yield from ((run, f"option_{number}", f"value {index % 97}") for number in range(PARAMS))
    elif table == "tags":
        yield from ((run, key, value) for key, value in tags(index).items())
    else:
        yield from ((run, f"test/metric_{number}", index / RUNS, started, 0, False) for number in range(METRICS))


def fill(path: Path, claims: dict[int, str]) -> None:
    """Write all runs, and as many claims as the key says onto each run in `claims`, into a database that MLflow made."""
    with closing(sqlite3.connect(path)) as database, database:
        for table, columns in COLUMNS.items():
            insert = f"INSERT INTO {table} ({columns}) VALUES ({', '.join('?' * len(columns.split(',')))})"
            database.executemany(insert, (row for index in range(RUNS) for row in rows(table, index)))
        for number, run in claims.items():
            claimed = ((run, f"claim_{claim}", "taken") for claim in range(number))
            database.executemany("INSERT INTO params (run_uuid, key, value) VALUES (?, ?, ?)", claimed)


def check_lookup(times: int, fingerprint: str) -> None:
    """The project's own lookup, which must find so many runs."""
    if len(results.runs_of(fingerprint)) != times:
        raise AssertionError(f"the lookup of {fingerprint} must find {times} runs")


def check_refused(client: mlflow.MlflowClient, run: str, key: str) -> None:
    """A claim that must be refused, since the parameter has another value."""
    try:
        client.log_param(run, key, "other")
    except MlflowException:
        return
    raise AssertionError(f"MLflow must refuse another value of the parameter {key}")


Request = tuple[str, Callable[[int], object]]
"""Its name, and a call that is given the number of the repeat."""


def requests(client: mlflow.MlflowClient) -> Iterator[Request]:
    """What a process asks for each result, in its order."""
    yield "lookup, found", lambda repeat: check_lookup(1, fingerprint(repeat * 197))
    yield "lookup, absent", lambda repeat: check_lookup(0, ABSENT)
    yield "search RUNNING, none", lambda repeat: client.search_runs([EXPERIMENT], "attributes.status = 'RUNNING'")
    yield "get_run", lambda repeat: client.get_run(run_id(repeat * 197))
    fresh = [client.create_run(EXPERIMENT).info.run_id for _ in range(REPEATS + 1)]
    params = [Param(f"option_{number}", "value") for number in range(30)]
    yield "create_run, 15 tags", lambda repeat: client.create_run(EXPERIMENT, tags=tags(RUNS + repeat))
    yield "log_batch, 30 params", lambda repeat: client.log_batch(fresh[repeat], params=params)
    yield "set_tag", lambda repeat: client.set_tag(fresh[repeat], "w2s.stage", "student")
    yield "set_terminated", lambda repeat: client.set_terminated(fresh[repeat])


def contested(client: mlflow.MlflowClient, number: int, run: str) -> Iterator[Request]:
    """What a run that already holds so many claims is asked."""
    yield f"claim beside {number}, written", lambda repeat: client.log_param(run, f"new_{repeat}", "mine")
    yield f"claim beside {number}, refused", lambda repeat: check_refused(client, run, f"claim_{repeat}")
    yield f"get_run, {number} params", lambda repeat: client.get_run(run)


def stages() -> Iterator[Request]:
    """A whole stage but for its training, and the same when it is reused: lookup, digests of all artifacts, no report."""
    context = resolve(supervisor.Config())
    split, parts = context.split, runs.parts("supervisor", 1, context, {}, ["losses.cross_entropy"])

    def even(examples: Examples) -> Predictions:
        return finetune.predict_table(examples, np.full((len(examples), 2), 0.5, dtype=np.float32))

    def make(recorder: Recorder) -> None:
        ground_truth.record_rows(context, recorder)
        for step in range(90):
            recorder.metrics({"train/loss": 0.5, "train/gradient_norm": 1.0}, step)
        recorder.weak_labels(even(split.transfer))
        for part in ("selection", "test"):
            recorder.predictions(part, even(split.parts()[part]))

    def stage(version: int) -> None:
        identity = context.names() | {"method": "supervisor"}
        run = runs.produce(replace(parts, version=version), context, identity, "a note", make)
        scoring.report(run, context)

    yield "whole stage but its training", stage
    yield "whole stage, reused", stage


def created(client: mlflow.MlflowClient) -> str:
    """The id of a new run, which is over: none is RUNNING at first."""
    run = client.create_run(EXPERIMENT).info.run_id
    client.set_terminated(run)
    return str(run)


def milliseconds(call: Callable[[int], object]) -> dict[str, float]:
    """Median and maximum of 50 calls, after a first one."""
    taken = []
    for repeat in range(REPEATS + 1):
        started = time.perf_counter()
        call(repeat)
        taken.append((time.perf_counter() - started) * 1000)
    return {"median": round(statistics.median(taken[1:]), 1), "max": round(max(taken[1:]), 1)}


def main() -> None:
    """Measure and print one JSON object: median and maximum by request."""
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "mlflow.db"
        for name in "MLFLOW_EXPERIMENT_NAME", "MLFLOW_EXPERIMENT_ID":
            os.environ.pop(name, None)
        os.environ["MLFLOW_TRACKING_URI"] = f"sqlite:///{path}"
        client = server.client()
        claims = {number: created(client) for number in CLAIMS}
        fill(path, claims)
        every = itertools.chain(requests(client), stages(), *(contested(client, number, run) for number, run in claims.items()))
        print(json.dumps({name: milliseconds(call) for name, call in every}))


if __name__ == "__main__":
    main()
