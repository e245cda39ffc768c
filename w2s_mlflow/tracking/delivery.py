"""Records of a run: what each kind means, and how it is sent to MLflow.

Sending a record twice has the effect of sending it once: MLflow stores a metric with the same step and timestamp once, a claim
may be sealed again by the same run, and tags, parameters, artifacts and a status are replaced by equal ones.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from mlflow.entities import Dataset, DatasetInput, Metric, Param, RunTag
from mlflow.entities import InputTag as DatasetTag

from w2s_mlflow.distributed import launch
from w2s_mlflow.local import scratch
from w2s_mlflow.records import canonical_json
from w2s_mlflow.tracking import claims, creation, ending, heartbeat, names, spool
from w2s_mlflow.tracking.backend import server
from w2s_mlflow.tracking.backend.server import client, experiment
from w2s_mlflow.tracking.heartbeat import Ownership, SupersededError
from w2s_mlflow.tracking.spool import Record, Spool
from w2s_mlflow.tracking.writer import Writer
from w2s_mlflow.training import checkpoint

PARAM_LIMIT = 6000
"""Maximum length of a parameter in MLflow."""
DIGEST_LIMIT = 36
"""Maximum length of a data set digest in MLflow."""
FINISHED = "FINISHED"


def batch(
    metrics: Iterable[Metric] = (), params: Mapping[str, object] | None = None, tags: Mapping[str, object] | None = None
) -> Record:
    """Return the record of metrics, parameters and tags. MLflow writes the tags last."""
    rows = [[metric.key, metric.value, metric.timestamp, metric.step] for metric in metrics]
    texts = {key: names.plain(value)[:PARAM_LIMIT] for key, value in (params or {}).items()}
    return {
        "kind": "batch",
        "metrics": rows,
        "params": texts,
        "tags": {key: names.plain(value) for key, value in (tags or {}).items()},
    }


def dataset(name: str, digest: str, source: str, rows: Mapping[str, int]) -> Record:
    """Return the record of a data set that is an input of the run."""
    legal = {"name": names.dataset(name), "digest": digest[:DIGEST_LIMIT], "source": names.plain(source)}
    return {"kind": "dataset", **legal, "rows": dict(rows)}


def artifacts(digests: Mapping[str, str]) -> Record:
    """Return the record of the artifacts in the spool, whose digests these are, by relative path."""
    return {"kind": "artifacts", "digests": dict(digests)}


def seal(claim: claims.Claim) -> Record:
    """Return the record that the run is the result of a claim."""
    return {"kind": "seal", "fingerprint": claim.fingerprint, "attempt": claim.attempt}


def end(status: str) -> Record:
    """Return the record of the run's final status, which must be its last one."""
    return {"kind": "end", "status": status}


def is_complete(records: list[Record]) -> bool:
    """Return whether the records end with the one that the run is finished."""
    return bool(records) and records[-1] == end(FINISHED)


def start(run_id: str, name: str, ownership: Ownership) -> Writer:
    """Create the spool of a run of the current experiment and start its writer.

    Args:
        ownership: whether the run belongs to this process.
    """
    header = spool.Header(run_id, names.run(name), store_name(), experiment().experiment_id, ownership.worker)
    return write(spool.create(header), ownership)


def write(locked: Spool, ownership: Ownership) -> Writer:
    """Start the writer of a spool."""
    return Writer(locked, functools.partial(send, locked, ownership))


def store_name() -> str:
    """Return the current tracking URI without user and password, and with an absolute path if it is an SQLite file."""
    uri = re.sub(r"//[^/@]*@", "//", server.where())
    relative = re.fullmatch(r"(sqlite[^:]*:///)([^/].*)", uri)
    return f"{relative[1]}{Path(relative[2]).absolute()}" if relative else uri


def send(sent: Spool, ownership: Ownership, record: Record) -> None:
    """Send one record of a spool.

    Raises:
        SupersededError: another process has taken over the run or its result.
    """
    kind = record["kind"]
    # A seal is refused by itself if the result was taken over. The last record has the same effect in a run that was taken
    # over, or is sent after the seal. In a distributed launch only the seal is refused: other ranks would not know why this
    # one stops.
    if kind not in ("seal", "end") and launch.size() == 1:
        ownership.confirm()
    SENDERS[kind](sent, record)


def _send_batch(sent: Spool, record: Record) -> None:
    metrics = [Metric(*values) for values in record["metrics"]]
    params = [Param(key, value) for key, value in record["params"].items()]
    tags = [RunTag(key, value) for key, value in record["tags"].items()]
    client().log_batch(sent.header.run_id, metrics=metrics, params=params, tags=tags)


def _send_dataset(sent: Spool, record: Record) -> None:
    source, profile = canonical_json({"uri": record["source"]}), canonical_json(record["rows"])
    data = Dataset(record["name"], record["digest"], "w2s_mlflow", source, profile=profile)
    creation.log_dataset(sent.header.run_id, DatasetInput(data, [DatasetTag("mlflow.data.context", "training")]))


def _send_artifacts(sent: Spool, record: Record) -> None:
    upload(sent.header.run_id, str(sent.artifacts))


def _send_seal(sent: Spool, record: Record) -> None:
    if not claims.Claim(record["fingerprint"], record["attempt"]).seal(sent.header.run_id):
        raise SupersededError


def _send_end(sent: Spool, record: Record) -> None:
    run_id = sent.header.run_id
    if record["status"] == FINISHED:
        checkpoint.clear(scratch.cache_path(run_id))
        ending.finish(run_id)
    else:
        close(run_id, record["status"])


SENDERS = {
    "batch": _send_batch,
    "dataset": _send_dataset,
    "artifacts": _send_artifacts,
    "seal": _send_seal,
    "end": _send_end,
}
"""Function that sends a record, by the record's kind."""


def upload(run_id: str, directory: str) -> None:
    """Upload the files of a directory as artifacts of a run."""
    try:
        client().log_artifacts(run_id, directory)
    except FileExistsError:  # another process has just created the same directory, so try again
        client().log_artifacts(run_id, directory)


def close(run_id: str, status: str) -> None:
    """Set the status of an unsuccessful run, then remove its owner, because this process will not write to the run again."""
    client().set_terminated(run_id, status)
    client().set_tag(run_id, heartbeat.WORKER, "")
