"""What killed processes have left behind: runs that are still RUNNING, checkpoints and temporary directories.

It is cleared when a process first uses an experiment.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import time
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import url2pathname

import mlflow
import yaml
from mlflow.entities import Run

from w2s_mlflow import registry
from w2s_mlflow.local import kept, scratch, temporary
from w2s_mlflow.tracking import heartbeat
from w2s_mlflow.tracking.backend.server import client, experiment, launch_run_id, where

PROJECT = "w2s_mlflow"
"""Name of this project in its MLproject file."""
LAUNCH = 120.0
"""Seconds after which a run that `mlflow run` created and no process has adopted is marked as KILLED. If its environment takes
longer to build, the process that adopts the run sets it to RUNNING again."""
ENTRY_POINT, SOURCE = "mlflow.project.entryPoint", "mlflow.source.name"


def cleanup_once() -> None:
    """Mark runs with a dead owner as KILLED, and delete old checkpoints and the temporary directories of killed processes.

    This is done once per process and experiment. Also adopt the run created by `mlflow run`, if there is one.
    """
    _cleanup(mlflow.get_tracking_uri(), experiment().experiment_id)


@functools.cache
def _cleanup(uri: str, experiment_id: str) -> None:
    scratch.sweep()
    temporary.sweep()
    kill_orphans()
    if launch := launch_run_id():
        _adopt(launch)


def _adopt(launch: str) -> None:
    """Own the run that `mlflow run` created until this process exits. `mlflow run` then sets the run's final status."""
    for key, value in heartbeat.owner_tags().items():
        client().set_tag(launch, key, value)
    if client().get_run(launch).info.status != "RUNNING":  # it counted as abandoned while the environment was built
        client().update_run(launch, status="RUNNING")
    heartbeat.heartbeat(launch).__enter__()


def kill_orphans() -> None:
    """Mark the RUNNING runs of the current experiment whose owner is dead as KILLED."""
    file = _file()
    watch, launch = heartbeat.Watch(_recall(file)), launch_run_id()
    waiting = []
    for run in client().search_runs([experiment().experiment_id], "attributes.status = 'RUNNING'"):
        if run.info.run_id == launch:
            continue
        if _is_orphan(run, watch):
            client().set_terminated(run.info.run_id, "KILLED")
        elif heartbeat.is_remote(run):
            waiting.append(run.info.run_id)
    _remember(file, watch, waiting)


def _is_orphan(run: Run, watch: heartbeat.Watch) -> bool:
    if heartbeat.WORKER in run.data.tags:
        return watch.dead(run)
    return time.time() - run.info.start_time / 1000 > LAUNCH and _is_launched(run)


def _is_launched(run: Run) -> bool:
    """Return whether `mlflow run` created a run from this project.

    The project's file MLproject says so if it is on this machine. Otherwise the entry point must be a stage that is not `main`,
    because many projects have an entry point of that name.
    """
    tags = run.data.tags
    if ENTRY_POINT not in tags:
        return False
    source = urlsplit(tags.get(SOURCE, "").partition("#")[0])
    if source.path and source.scheme in ("", "file"):
        with contextlib.suppress(OSError, ValueError, AttributeError, yaml.YAMLError):
            project = yaml.safe_load((Path(url2pathname(source.path)) / "MLproject").read_text(encoding="utf-8"))
            return bool(project.get("name") == PROJECT)
    return tags[ENTRY_POINT] in registry.plugins("stages") and tags[ENTRY_POINT] != "main"


# --- heartbeats of other machines, seen by former processes of this machine -------------------------------------------


def _file() -> Path:
    name = hashlib.sha256(f"{where()}\n{experiment().experiment_id}".encode()).hexdigest()[:32]
    return scratch.cache_path("index") / f"{name}.heartbeats"


def _recall(file: Path) -> dict[str, tuple[str, float]]:
    """Return heartbeats that were seen before, with the monotonic times at which they were first seen."""
    if (content := kept.read(file)) is None:
        return {}
    now, clock = time.time(), time.monotonic()
    return {run_id: (beat, clock - max(0.0, now - seen)) for run_id, (beat, seen) in json.loads(content).items()}


def _remember(file: Path, watch: heartbeat.Watch, run_ids: list[str]) -> None:
    now, clock = time.time(), time.monotonic()
    seen = {run_id: (watch.seen[run_id][0], now - (clock - watch.seen[run_id][1])) for run_id in run_ids}
    if seen or file.exists():
        with contextlib.suppress(OSError):
            kept.write(file, json.dumps(seen).encode())
