"""Local cache of finished runs, so that MLflow is queried only for runs that have changed.

A run's end time is set again whenever a report is added (reports.attach), so one query for runs that ended since the last
query finds all new data. A second query finds deleted runs. A third query looks up runs that may have been restored after a
deletion, or permanently deleted by `mlflow gc`. The cache has two limits. A run with remote artifacts that was permanently
deleted between two queries stays in the cache; reading its artifacts raises CorruptArtifactError. Manual edits of a finished
run are seen only by an analysis with a filter, which does not use the cache.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import url2pathname

from mlflow.entities import Run, ViewType

from w2s_mlflow.local import kept, scratch
from w2s_mlflow.tracking import results
from w2s_mlflow.tracking.backend.server import where
from w2s_mlflow.tracking.results import Result

MARGIN = 10 * 60 * 1000
"""Allowed clock difference between two machines, in milliseconds."""
NESTED = ("params", "metrics", "tags")
ENDED = "ended"


@dataclass(frozen=True)
class _Known:
    """Content of an experiment's cache file."""

    rows: Mapping[str, dict[str, Any]] = field(default_factory=dict)
    """Finished runs by run id."""
    deleted: frozenset[str] = frozenset()
    """Ids of the deleted runs, finished or not, at the time of the last query."""
    since: int = 0
    """Latest end time of any run found so far, in milliseconds since the epoch."""


def finished(experiment_id: str) -> list[Result]:
    """Update the cache of an experiment, and return the experiment's finished results, oldest first."""
    file, now = _file(experiment_id), int(time.time() * 1000)
    previous = _read(file)
    since = min(previous.since, now)  # an end time from a machine with a fast clock may be in the future
    deleted = frozenset(run.info.run_id for run in results.pages("", [experiment_id], view=ViewType.DELETED_ONLY))
    new = list(results.pages(f"attributes.end_time > {max(0, since - MARGIN)}", [experiment_id]))
    doubtful = (previous.deleted | {run_id for run_id, row in previous.rows.items() if _is_lost(row)}) - deleted
    new += results.by_id(doubtful, [experiment_id])
    outdated = deleted | doubtful | {run.info.run_id for run in new}
    rows = {run_id: row for run_id, row in previous.rows.items() if run_id not in outdated}
    rows |= {run.info.run_id: _row(run) for run in new if _counts(run) and run.info.run_id not in deleted}
    cache = _Known(rows, deleted, min(now, max([since, *(run.info.end_time or 0 for run in new)])))
    if cache != previous:
        _write(file, cache)
    return [_result(row) for row in sorted(rows.values(), key=lambda row: (row["started"], row["run_id"]))]


def _is_lost(row: Mapping[str, Any]) -> bool:
    """Return whether a run's artifacts were in a local directory that no longer exists, for example after `mlflow gc`."""
    uri = str(row["artifact_uri"])
    return urlsplit(uri).scheme in ("", "file") and not Path(url2pathname(urlsplit(uri).path)).exists()


def _counts(run: Run) -> bool:
    return run.info.status == "FINISHED" and results.FINGERPRINT in run.data.tags


def _file(experiment_id: str) -> Path:
    name = hashlib.sha256(f"{where()}\n{experiment_id}".encode()).hexdigest()[:32]
    return scratch.cache_path("index") / f"{name}.runs"


def _row(run: Run) -> dict[str, Any]:
    fields = asdict(results.result(run, reused=True))
    nested = {name: json.dumps(dict(fields[name])) for name in NESTED}
    return fields | nested | {"started": run.info.start_time, ENDED: run.info.end_time or 0}


def _result(row: dict[str, Any]) -> Result:
    fields = {name: value for name, value in row.items() if name not in ("started", ENDED)}
    return Result(**fields | {name: json.loads(row[name]) for name in NESTED})


def _read(file: Path) -> _Known:
    """Read the cache file; return an empty cache if it is missing or damaged."""
    if (tables := kept.read_tables(file, 1)) is None:
        return _Known()
    metadata = json.loads(tables[0].schema.metadata[b"known"])
    rows = {row["run_id"]: row for row in tables[0].to_pylist()}
    return _Known(rows, frozenset(metadata["deleted"]), metadata["since"])


def _write(file: Path, cache: _Known) -> None:
    """Write the cache file, with a digest of its content."""
    import pyarrow as pa

    metadata = json.dumps({"deleted": sorted(cache.deleted), "since": cache.since})
    table = pa.Table.from_pylist(list(cache.rows.values())).replace_schema_metadata({"known": metadata})
    kept.write_tables(file, [table])
