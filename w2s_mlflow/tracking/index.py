"""Finished runs, kept on this machine: what an experiment has already said of a run is not asked for again.

A run's end is when its last report was written (recorder.attach), so that one question, what has ended since, finds all that
is new. What people change by hand on a finished run is seen after `forget`, or in an analysis with a filter.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import tempfile
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from mlflow.entities import Run, ViewType

from w2s_mlflow import checkpoint
from w2s_mlflow.tracking import results
from w2s_mlflow.tracking.results import Result
from w2s_mlflow.tracking.server import where

MARGIN = 10 * 60 * 1000
"""Milliseconds by which the clocks of two machines may differ."""
NESTED = ("params", "metrics", "tags")
ENDED = "ended"


def finished(experiment_id: str) -> list[Result]:
    """Every finished result of an experiment, the oldest first: those known here, and what has ended since."""
    file = _file(experiment_id)
    known, since = _read(file)
    new = list(results.pages(f"attributes.end_time > {max(0, since - MARGIN)}", [experiment_id]))
    gone = [run.info.run_id for run in results.pages("", [experiment_id], view=ViewType.DELETED_ONLY)]
    for run_id in (*gone, *(run.info.run_id for run in new)):
        known.pop(run_id, None)
    known |= {run.info.run_id: _row(run) for run in new if _counts(run)}
    if new or gone or not file.exists():
        _write(file, known.values(), max([since, *(run.info.end_time or 0 for run in new)]))
    return [_result(row) for row in sorted(known.values(), key=lambda row: (row["started"], row["run_id"]))]


def forget(experiment_id: str) -> None:
    """Ask for everything anew next time."""
    _file(experiment_id).unlink(missing_ok=True)


def _counts(run: Run) -> bool:
    return run.info.status == "FINISHED" and results.FINGERPRINT in run.data.tags


def _file(experiment_id: str) -> Path:
    name = hashlib.sha256(f"{where()}\n{experiment_id}".encode()).hexdigest()[:32]
    return checkpoint.place("index") / f"{name}.parquet"


def _row(run: Run) -> dict[str, Any]:
    found = asdict(results.result(run, reused=True))
    nested = {name: json.dumps(dict(found[name])) for name in NESTED}
    return found | nested | {"started": run.info.start_time, ENDED: run.info.end_time or 0}


def _result(row: dict[str, Any]) -> Result:
    own = {name: value for name, value in row.items() if name not in ("started", ENDED)}
    return Result(**own | {name: json.loads(row[name]) for name in NESTED})


def _read(file: Path) -> tuple[dict[str, dict[str, Any]], int]:
    """The rows of the file by run, and the last end among them; none where it is not there or damaged."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(file)
    except (OSError, pa.ArrowException):
        return {}, 0
    rows = table.to_pylist()
    return {row["run_id"]: row for row in rows}, int((table.schema.metadata or {}).get(b"since", b"0"))


def _write(file: Path, rows: Iterable[dict[str, Any]], since: int) -> None:
    """Write the file, whole or not at all; a full disk costs time only."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = list(rows)
    if not rows:
        return
    table = pa.Table.from_pylist(rows).replace_schema_metadata({"since": str(since)})
    with contextlib.suppress(OSError):
        file.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=file.parent, suffix=".partial", delete=False) as partial:
            pq.write_table(table, partial)
        Path(partial.name).replace(file)
