"""Checks of the tracking store for the command `doctor`. No check mends what it finds."""

from __future__ import annotations

import contextlib
import email.utils
import sqlite3
import time
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

import mlflow
from mlflow.exceptions import MlflowException
from mlflow.utils.file_utils import local_file_uri_to_path
from mlflow.utils.uri import is_local_uri

from w2s_mlflow.exceptions import ConfigError
from w2s_mlflow.local import disk
from w2s_mlflow.tracking import claims, delivery, heartbeat, spool
from w2s_mlflow.tracking.backend import preflight, server
from w2s_mlflow.tracking.spool import CorruptSpoolError

CLOCK = 30.0
"""Difference in seconds between the clocks of this machine and the server above which the times of runs are confusing."""


class Finding(NamedTuple):
    """What a check has found, and what to do about it; `advice` is empty if all is well."""

    found: str
    advice: str = ""


def _store() -> Finding:
    """Check that the server answers and that the experiment can be used, and say in which mode the store works."""
    uri = mlflow.get_tracking_uri()
    if preflight.scheme(uri) in ("http", "https"):
        preflight.check(uri)
    found = f"{server.where()}, experiment {server.experiment().name!r}"
    if (file := _sqlite_file()) is None:
        return Finding(found)
    with contextlib.closing(sqlite3.connect(f"{file.as_uri()}?mode=ro", uri=True)) as database:
        mode = database.execute("PRAGMA journal_mode").fetchone()[0]
    found = f"{found}, journal mode {mode}, {disk.free(file.parent) / 1e9:.1f} GB free"
    if mode != "wal":
        return Finding(found, "end all processes that use the database; the next command then switches the mode to wal")
    return Finding(found, "free some space" if disk.free(file.parent) < disk.FREE else "")


def _sqlite_file() -> Path | None:
    scheme, _, path = delivery.store_name().partition(":///")
    return Path(path.partition("?")[0]) if scheme.startswith("sqlite") else None


def _clock() -> Finding:
    uri = mlflow.get_tracking_uri()
    if preflight.scheme(uri) not in ("http", "https"):
        return Finding("not checked: only an HTTP server states its time")
    before = time.time()
    try:
        stated = preflight.ask(uri).headers.get("Date", "")
        theirs = email.utils.parsedate_to_datetime(stated).timestamp()
    except (MlflowException, ValueError, TypeError) as error:
        raise ConfigError(f"the server does not state its time: {error}") from error
    ahead = (before + time.time()) / 2 - theirs
    found = f"this machine is {abs(ahead):.0f} s {'ahead of' if ahead > 0 else 'behind'} the server"
    return Finding(found, "set the clock, for example with chrony or systemd-timesyncd" if abs(ahead) > CLOCK else "")


def _artifacts() -> Finding:
    """Check the free space for artifacts. Whether they can be written is checked with the experiment."""
    location = server.experiment().artifact_location
    if not is_local_uri(location):  # type: ignore[no-untyped-call]
        return Finding(location)
    directory = Path(local_file_uri_to_path(location))  # type: ignore[no-untyped-call]
    free = disk.free(directory)
    return Finding(f"{directory}, {free / 1e9:.1f} GB free", "free some space" if free < disk.FREE else "")


def _runs() -> Finding:
    """Count the RUNNING runs whose process has ended, and check that the lock run, which holds the claims, exists."""
    exp = server.experiment()
    running = server.client().search_runs([exp.experiment_id], "attributes.status = 'RUNNING'")
    watch = heartbeat.Watch()
    dead = [run for run in running if heartbeat.WORKER in run.data.tags and watch.dead(run)]
    found = f"running: {len(running)}, of which {len(dead)} have lost their process"
    lock = exp.tags.get(claims.LOCK)
    with contextlib.suppress(MlflowException):  # a run that was purged is replaced
        if lock and server.client().get_run(lock).info.lifecycle_stage != "active":
            return Finding(f"the run {lock}, which holds the claims, was deleted", f"mlflow runs restore --run-id {lock}")
    return Finding(found, "the next command that trains here marks them as KILLED" if dead else "")


def _spools() -> Finding:
    stores = Counter(map(_store_of, (path for path in spool.paths() if not spool.is_used(path))))
    if not stores:
        return Finding("no run on this machine waits to be sent")
    found = "; ".join(f"{count} for {store}" for store, count in stores.items())
    return Finding(f"runs on this machine that wait to be sent: {found}", "python -m w2s_mlflow upload")


def _store_of(path: Path) -> str:
    try:
        return spool.read_header(path).store
    except CorruptSpoolError:
        return f"an unknown server ({path} is damaged)"


STEPS: Mapping[str, Callable[[], Finding]] = {
    "store": _store,
    "clock": _clock,
    "artifacts": _artifacts,
    "runs": _runs,
    "spools": _spools,
}
"""The checks by name. The others need the first."""
