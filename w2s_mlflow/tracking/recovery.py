"""Delivery of spools that ended processes have left on this machine, by the next process or by the command `upload`."""

from __future__ import annotations

import contextlib
import functools
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import mlflow

from w2s_mlflow.exceptions import ConfigError
from w2s_mlflow.local import scratch
from w2s_mlflow.tracking import delivery, spool
from w2s_mlflow.tracking.backend import outages, server
from w2s_mlflow.tracking.heartbeat import Ownership, SupersededError
from w2s_mlflow.tracking.results import digests_of
from w2s_mlflow.tracking.spool import CorruptSpoolError, Record, Spool
from w2s_mlflow.tracking.writer import Writer
from w2s_mlflow.training import checkpoint

LOG = logging.getLogger("w2s_mlflow")

Outcome = Literal["nothing", "in use", "delivered", "waiting", "superseded", "damaged", "refused"]


@dataclass(frozen=True)
class Delivery:
    """What became of a spool.

    Attributes:
        outcome: `nothing`: there is no spool; `in use`: a process is using it; `delivered`: the server has stored all records;
            `waiting`: the server does not answer, or is another one; `superseded`: another process has made the result in the
            meantime; `damaged`: a file of the spool does not match its digest; `refused`: the server refuses a record.
        records: number of records that the spool held.
        finished: whether the run is complete.
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
        return f"{self.outcome:10s}  {self.name}, records: {self.records}{end}"


def recover(directory: Path, seconds: float) -> Delivery:
    """Send the records of a spool that another process has left, and remove the spool if the server has stored them all.

    The run must belong to the current experiment. The spool is also removed if another process has made the result; the run
    then ends as KILLED.

    Args:
        seconds: longest time to wait for the server.
    """
    try:
        taken = spool.take(directory)
    except CorruptSpoolError as error:
        return Delivery("damaged", directory.name, reason=str(error))
    if taken is None:
        return Delivery("in use" if spool.is_used(directory) else "nothing")
    name, count = taken.header.name, taken.pending()
    try:
        records = taken.records()
        _check_artifacts(taken, records)
    except CorruptSpoolError as error:
        taken.release()
        return Delivery("damaged", name, count, reason=str(error))
    outcome, reason = _deliver(taken, seconds)
    return Delivery(outcome, name, count, delivery.is_complete(records), reason)


def _deliver(taken: Spool, seconds: float) -> tuple[Outcome, str]:
    """Send the records of a spool. Return the outcome and, if the records were not delivered, the reason."""
    # The owner is dead and its heartbeat may be stale, so the store is asked before the first record is sent.
    ownership = Ownership(taken.header.run_id, worker=taken.header.worker, confirmed=float("-inf"))
    writer = delivery.write(taken, ownership)
    try:
        if writer.wait(seconds):
            return "delivered", ""
        return "waiting", problem(writer)
    except SupersededError:
        give_up(writer, ownership)
        return "superseded", "another process has made this result in the meantime"
    except Exception as error:  # what the server refuses stays on disk
        return "refused", f"{server.sentence(error)}; to give it up, remove {taken.directory}"
    finally:
        writer.close()


def problem(writer: Writer) -> str:
    """Return the reason why a server has not stored the next record, as one sentence."""
    failure = writer.error or writer.problem
    return server.sentence(failure) if failure else "it does not answer"


def give_up(writer: Writer, ownership: Ownership | None, status: str = "KILLED") -> None:
    """Remove the spool of a run that does not count, and its checkpoint, because what it has logged since is lost.

    The run ends with `status`, unless it belongs to another process, which must find it as it left it.
    """
    writer.close(discard=True)
    checkpoint.clear(scratch.cache_path(writer.spool.header.run_id))
    if ownership is None or not ownership.lost:
        with contextlib.suppress(Exception):  # the server may not answer
            delivery.close(writer.spool.header.run_id, status)


def _check_artifacts(taken: Spool, records: list[Record]) -> None:
    """Raise CorruptSpoolError if the artifacts in a spool differ from the digests that were recorded with them."""
    for record in records:
        if record["kind"] == "artifacts" and digests_of(taken.artifacts) != record["digests"]:
            raise CorruptSpoolError(f"the artifacts in {taken.artifacts} are damaged: make the run again")


def recover_run(run_id: str) -> Outcome:
    """Recover the spool of a run of the current experiment, if this machine has one that no process uses.

    A damaged spool is removed, also with the run's checkpoint, because metrics of the steps before it are lost.

    Raises:
        ConfigError: the server refuses a record.
    """
    directory = spool.path_of(run_id)
    if not spool.has_content(directory):
        spool.discard(directory)
        return "nothing"
    found = recover(directory, outages.patience())
    if found.outcome == "refused":
        raise ConfigError(f"what {found.name} (run {run_id}) has left on this machine cannot be sent: {found.reason}")
    if found.outcome == "damaged":
        LOG.warning("what run %s has left on this machine is damaged and removed: %s", run_id, found.reason)
        spool.discard(directory)
        checkpoint.clear(scratch.cache_path(run_id))
    elif found.outcome == "delivered" and found.records:
        LOG.info("sent what %s had left on this machine (records: %d)", found.name, found.records)
    return found.outcome


def recover_once() -> None:
    """Recover the spools of the current experiment that ended processes have left on this machine, once per process.

    A spool that cannot be delivered now is left as it is.
    """
    _recover_once(mlflow.get_tracking_uri(), server.experiment().experiment_id)


@functools.cache
def _recover_once(uri: str, experiment_id: str) -> None:
    spool.sweep()
    for directory in spool.paths():
        with contextlib.suppress(CorruptSpoolError):
            header = spool.read_header(directory)
            if (header.store, header.experiment_id) != (delivery.store_name(), experiment_id):
                continue
            found = recover(directory, outages.patience())
            if found.reason:
                LOG.warning("%s: %s", found.name, found.reason)
            if found.outcome == "waiting":
                return


def deliver_all(seconds: float) -> Iterator[Delivery]:
    """Send what runs of the current tracking server have left on this machine, and yield what became of each spool.

    Args:
        seconds: longest time to wait for the server, for each run.
    """
    for directory in spool.paths():
        try:
            header = spool.read_header(directory)
        except CorruptSpoolError as error:
            yield Delivery("damaged", directory.name, spool.count(directory), reason=str(error))
            continue
        if header.store != delivery.store_name():
            reason = f"it belongs to {header.store}: set MLFLOW_TRACKING_URI"
            yield Delivery("waiting", header.name, spool.count(directory), reason=reason)
            continue
        with server.in_experiment(header.experiment_id):
            yield recover(directory, seconds)
