"""Reports: artifacts, metrics and tags that are added to a run after it has finished, such as its scores."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from mlflow.entities import Metric, RunTag
from mlflow.utils.mlflow_tags import MLFLOW_RUN_NOTE

from w2s_mlflow.local import temporary
from w2s_mlflow.records import canonical_json
from w2s_mlflow.tracking import claims, delivery, ending, followers, names, session
from w2s_mlflow.tracking.backend.server import client
from w2s_mlflow.tracking.results import ARTIFACTS, Result, digests_of, get


@dataclass(frozen=True)
class Report:
    """Artifacts, metrics and tags to add to a finished run."""

    stage: Callable[[Path], None] = lambda directory: None
    """Function that writes the artifacts into the given directory."""
    metrics: Mapping[str, float] = field(default_factory=dict)
    tags: Mapping[str, str] = field(default_factory=dict)
    remark: str = ""
    """Sentence to add to the run's description (note), if it is not there yet."""


def attach(result: Result, name: str, report: Report) -> Result:
    """Add a report to a finished run and return the updated run.

    The artifacts are sent first, then the metrics and the tags. One tag holds the digests of the artifacts.

    Args:
        name: name of the report; an existing report of that name is replaced.
    """
    now = int(time.time() * 1000)
    with temporary.directory() as directory:
        report.stage(Path(directory))
        tags = {**_note(result, report), **report.tags, f"{ARTIFACTS}.{name}": canonical_json(digests_of(Path(directory)))}
        delivery.upload(result.run_id, directory)
    # A process that was killed after this request and before its tags has logged some of the metrics already.
    new = {key: value for key, value in report.metrics.items() if result.metrics.get(key) != value}
    client().log_batch(
        result.run_id,
        metrics=[Metric(names.metric(key), value, now, 0) for key, value in new.items()],
        tags=[RunTag(key, names.plain(value)) for key, value in tags.items()],
    )
    ending.finish(result.run_id)  # the new end time tells run_cache.py that the run changed
    return replace(result, metrics={**result.metrics, **report.metrics}, tags={**result.tags, **tags})


def _note(result: Result, report: Report) -> dict[str, str]:
    """Return the tag with the run's note and the report's remark; empty if there is nothing to add."""
    note = result.tags.get(MLFLOW_RUN_NOTE, "")
    return {} if not report.remark or report.remark in note else {MLFLOW_RUN_NOTE: f"{note}\n\n{report.remark}".strip()}


def attach_once(
    result: Result, name: str, build: Callable[[Result], Report], has_report: Callable[[Result], bool] | None = None
) -> Result:
    """Add a report to a finished run unless the run already has it. Return the run; when planning, return it unchanged.

    Only one process at a time adds a report to a run (claims.turn). So what a report reads of ground truth is read once, and
    the counts of two reports of a run add up.

    Args:
        name: name of the report. If `has_report` returns False, an existing report of that name is replaced.
        build: function that builds the report from the latest state of the run. It is called on the leader only.
        has_report: function that returns whether a run has the report. Default: check for a report called `name`.
    """
    has = has_report or (lambda run: f"{ARTIFACTS}.{name}" in run.tags)
    # Some ranks may have read the run before the report was added and others after it, so only the leader decides.
    if session.current().plan or followers.leader_decides(lambda: has(result)):
        return result

    def add() -> Result:
        with claims.turn(f"reports of {result.run_id}"):
            latest = replace(get(result.run_id), reused=result.reused)
            if has(latest):  # another process that uses this run has added the report in the meantime
                return latest
            return attach(latest, name, build(latest))

    return followers.leader_only(result, add)
