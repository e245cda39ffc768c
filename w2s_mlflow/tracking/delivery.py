"""Records of a run: what each kind means, how it is sent to MLflow, and the delivery of spools that a process left behind.

Sending a record twice has the effect of sending it once: MLflow stores a metric with the same step and timestamp once, a claim
may be sealed again by the same run, and tags, parameters, artifacts and a status are replaced by equal ones.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import mlflow
from mlflow.entities import Dataset, DatasetInput, Metric, Param, RunTag
from mlflow.entities import InputTag as DatasetTag
from mlflow.exceptions import MlflowException

from w2s_mlflow.exceptions import ConfigError, must
from w2s_mlflow.local import scratch
from w2s_mlflow.records import canonical_json
from w2s_mlflow.tracking import claims, heartbeat, spool
from w2s_mlflow.tracking.backend import server
from w2s_mlflow.tracking.backend.server import client, experiment
from w2s_mlflow.tracking.results import digests_of
from w2s_mlflow.tracking.spool import CorruptSpoolError, Record, Spool
from w2s_mlflow.tracking.writer import Writer
from w2s_mlflow.training import checkpoint

LOG = logging.getLogger("w2s_mlflow")
PATIENCE = 300.0
"""Default of W2S_UPLOAD_WAIT: seconds to wait at the end of a run until the server has stored all its records."""
DIGEST_LIMIT = 36
"""Maximum length of a data set digest in MLflow."""

Outcome = Literal["nothing", "in use", "delivered", "waiting", "refused"]


class SupersededError(Exception):
    """Another process has taken over this result, so the run that this process made does not count."""


class PendingUploadError(ConfigError):
    """A run is complete on the local disk, but the server has not stored it yet."""


def patience() -> float:
    """Return the value of W2S_UPLOAD_WAIT. Raises ConfigError if it is not a number of at least 0."""
    text = os.environ.get("W2S_UPLOAD_WAIT") or str(PATIENCE)
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds < float("inf"):
        raise must("W2S_UPLOAD_WAIT", "a number of seconds, 0 or more", text)
    return seconds


# --- kinds of records -------------------------------------------------------------------------------------------------


def batch(
    metrics: Iterable[Metric] = (), params: Mapping[str, str] | None = None, tags: Mapping[str, str] | None = None
) -> Record:
    """Return the record of metrics, parameters and tags. MLflow writes the tags last."""
    rows = [[metric.key, metric.value, metric.timestamp, metric.step] for metric in metrics]
    return {"kind": "batch", "metrics": rows, "params": dict(params or {}), "tags": dict(tags or {})}


def dataset(name: str, digest: str, source: str, rows: Mapping[str, int]) -> Record:
    """Return the record of a data set that is an input of the run."""
    return {"kind": "dataset", "name": name, "digest": digest[:DIGEST_LIMIT], "source": source, "rows": dict(rows)}


def artifacts(digests: Mapping[str, str]) -> Record:
    """Return the record of the artifacts in the spool, whose digests these are, by relative path."""
    return {"kind": "artifacts", "digests": dict(digests)}


def seal(claim: claims.Claim) -> Record:
    """Return the record that the run is the result of a claim."""
    return {"kind": "seal", "fingerprint": claim.fingerprint, "attempt": claim.attempt}


def end(status: str) -> Record:
    """Return the record of the run's final status, which must be its last one."""
    return {"kind": "end", "status": status}


def send(sent: Spool, record: Record) -> None:
    """Send one record of a spool.

    Raises:
        SupersededError: the run cannot be sealed, because another process has taken over the result.
    """
    _SENDERS[record["kind"]](sent, record)


def _send_batch(sent: Spool, record: Record) -> None:
    metrics = [Metric(*values) for values in record["metrics"]]
    params = [Param(key, value) for key, value in record["params"].items()]
    tags = [RunTag(key, value) for key, value in record["tags"].items()]
    client().log_batch(sent.header.run_id, metrics=metrics, params=params, tags=tags)


def _send_dataset(sent: Spool, record: Record) -> None:
    source, profile = canonical_json({"uri": record["source"]}), canonical_json(record["rows"])
    data = Dataset(record["name"], record["digest"], "w2s_mlflow", source, profile=profile)
    client().log_inputs(sent.header.run_id, [DatasetInput(data, [DatasetTag("mlflow.data.context", "training")])])


def _send_artifacts(sent: Spool, record: Record) -> None:
    upload(sent.header.run_id, str(sent.artifacts))


def _send_seal(sent: Spool, record: Record) -> None:
    if not claims.Claim(record["fingerprint"], record["attempt"]).seal(sent.header.run_id):
        raise SupersededError


def _send_end(sent: Spool, record: Record) -> None:
    run_id = sent.header.run_id
    if record["status"] == "FINISHED":
        checkpoint.clear(scratch.cache_path(run_id))
        client().set_terminated(run_id, "FINISHED")
    else:
        close(run_id, record["status"])


_SENDERS = {
    "batch": _send_batch,
    "dataset": _send_dataset,
    "artifacts": _send_artifacts,
    "seal": _send_seal,
    "end": _send_end,
}


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


# --- spools that were left behind -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Delivery:
    """What became of a spool.

    Attributes:
        outcome: `nothing`: the run has no spool on this machine; `in use`: a process is using the spool; `delivered`: the
            server has stored all records; `waiting`: the server does not answer; `refused`: the server or a damaged file ended
            the delivery, and sending it again would not help.
        reason: one sentence, if the records were not delivered.
    """

    outcome: Outcome
    name: str = ""
    records: int = 0
    finished: bool = False
    reason: str = ""

    def describe(self) -> str:
        """Return one line for people."""
        end = f": {self.reason}" if self.reason else " (its result is complete)" if self.finished else ""
        return f"{self.outcome:9s}  {self.name}, records: {self.records}{end}"


def store_name() -> str:
    """Return the current tracking URI without its password, and with an absolute path if it is an SQLite file."""
    uri = server.where()
    relative = re.fullmatch(r"(sqlite[^:]*:///)([^/].*)", uri)
    return f"{relative[1]}{Path(relative[2]).absolute()}" if relative else uri


def create(run_id: str, name: str) -> Writer:
    """Create the spool of a run of the current experiment and start its writer."""
    created = spool.create(spool.Header(run_id, name, store_name(), experiment().experiment_id))
    return Writer(created, functools.partial(send, created))


def recover(directory: Path, seconds: float) -> Delivery:
    """Send the records of a spool that another process has left, and remove the spool if the server has stored them all.

    The run must belong to the current experiment. A run that another process has replaced ends as KILLED.

    Args:
        seconds: longest time to wait for the server.
    """
    try:
        taken = spool.take(directory)
        if taken is None:
            return Delivery("in use" if spool.is_used(directory) else "nothing")
    except CorruptSpoolError as error:
        return Delivery("refused", directory.name, reason=str(error))
    header, records, writer = taken.header, taken.pending(), None
    try:
        finished = spool.is_complete(directory)
        _check_artifacts(taken)
        writer = Writer(taken, functools.partial(send, taken))
        writer.keep = True
        delivered = writer.wait(seconds)
        writer.close()
        reason = "" if delivered else "the tracking server does not answer"
        if writer.problem:
            reason = server.sentence(writer.problem)
        return Delivery("delivered" if delivered else "waiting", header.name, records, finished, reason)
    except SupersededError:
        _supersede(header.run_id)
        taken.remove()
        return Delivery("refused", header.name, records, reason="another process has made this result in the meantime")
    except KeyboardInterrupt:
        if writer:
            writer.close()
        raise
    except Exception as error:  # what the server refuses stays on disk
        writer.close() if writer else taken.release()
        return Delivery("refused", header.name, records, reason=server.sentence(error))


def recover_run(run_id: str) -> Delivery:
    """Recover the spool of a run of the current experiment, if this machine has one that no process uses."""
    directory = spool.path_of(run_id)
    if not directory.exists():
        return Delivery("nothing")
    delivery = recover(directory, patience())
    if delivery.outcome == "refused":
        LOG.warning("what run %s left in %s cannot be sent and is removed: %s", run_id, directory, delivery.reason)
        if taken := spool.take(directory):
            taken.remove()
    elif delivery.outcome == "delivered" and delivery.records:
        LOG.info("sent what %s had left on this machine (records: %d)", delivery.name, delivery.records)
    return delivery


def recover_once() -> None:
    """Recover the spools of the current experiment that ended processes have left on this machine, once per process.

    A spool that cannot be delivered now is left as it is.
    """
    _recover_once(mlflow.get_tracking_uri(), experiment().experiment_id)


@functools.cache
def _recover_once(uri: str, experiment_id: str) -> None:
    for directory in spool.paths():
        with contextlib.suppress(CorruptSpoolError):
            header = spool.read_header(directory)
            if (header.store, header.experiment_id) == (store_name(), experiment_id):
                recover_run(header.run_id)


def deliver_all(seconds: float) -> Iterator[Delivery]:
    """Send what runs of the current tracking server have left on this machine, and yield what became of each spool.

    Args:
        seconds: longest time to wait for the server, for each run.
    """
    for directory in spool.paths():
        try:
            header = spool.read_header(directory)
        except CorruptSpoolError as error:
            yield Delivery("refused", directory.name, reason=str(error))
            continue
        if header.store != store_name():
            reason = f"it belongs to {header.store}: set MLFLOW_TRACKING_URI"
            yield Delivery("waiting", header.name, spool.count(directory), reason=reason)
            continue
        with server.in_experiment(header.experiment_id):
            yield recover(directory, seconds)


def _check_artifacts(taken: Spool) -> None:
    """Raise CorruptSpoolError if the artifacts in a spool differ from the digests that were recorded with them."""
    for record in taken.records():
        if record["kind"] == "artifacts" and digests_of(taken.artifacts) != record["digests"]:
            raise CorruptSpoolError(f"the artifacts in {taken.artifacts} are damaged: make the run again")


def _supersede(run_id: str) -> None:
    checkpoint.clear(scratch.cache_path(run_id))
    with contextlib.suppress(MlflowException):
        close(run_id, "KILLED")
