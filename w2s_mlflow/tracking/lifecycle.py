"""The life of a run: it is created or resumed, recorded, and ends.

At its end, a complete run waits until the server has stored everything, for at most W2S_SERVER_WAIT seconds. A run is FINISHED
only after its last record is stored. An interrupted run is resumed, as the same run, from its checkpoint.
"""

from __future__ import annotations

import contextlib
import functools
import logging
from collections.abc import Iterator, Mapping
from typing import Any

from mlflow.entities import RunTag
from mlflow.tracking.context.registry import resolve_tags
from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID, MLFLOW_RUN_NAME, MLFLOW_RUN_NOTE

from w2s_mlflow import __version__
from w2s_mlflow.distributed import launch
from w2s_mlflow.exceptions import ConfigError, must
from w2s_mlflow.local import scratch
from w2s_mlflow.tracking import creation, delivery, heartbeat, names, orphans, recovery, session
from w2s_mlflow.tracking.backend import outages
from w2s_mlflow.tracking.backend.server import client, launch_run_id, where
from w2s_mlflow.tracking.claims import Claim
from w2s_mlflow.tracking.heartbeat import Ownership, SupersededError
from w2s_mlflow.tracking.recorder import Header, Recorder
from w2s_mlflow.tracking.writer import Writer
from w2s_mlflow.training import checkpoint

LOG = logging.getLogger("w2s_mlflow")
QUIET = 5.0
"""Seconds to wait at the end of a run before the user is told so."""
STOP_WAIT, FAILED_WAIT = 0.5, 10.0
"""Longest time in seconds that the last records of a stopped or failed run are waited for. What is not stored by then stays on
disk."""

PROCESSES = "w2s.processes"
"""Tag with the number of processes that made a run. A run made by a single process does not have this tag."""


class PendingUploadError(ConfigError):
    """A run is complete on the local disk, but the server has not stored it yet."""


@contextlib.contextmanager
def recording(header: Header, claim: Claim | None = None, continued: str | None = None) -> Iterator[Recorder]:
    """Context manager that creates or resumes a run. Inside the `with` block, the run is RUNNING and its heartbeat is updated.

    The run ends as FINISHED if its result is sealed, as KILLED after Ctrl-C or if another process has taken over the result,
    and as FAILED after an error.

    Args:
        claim: the claim on the result. Default: the run is no result that other processes could make or reuse.
        continued: the id of the unfinished run to resume from its checkpoint. Default: create a new run.

    Raises:
        SupersededError: another process has taken over the result.
        PendingUploadError: the run is complete, but the server has not stored it within W2S_SERVER_WAIT seconds.
    """
    patience = outages.patience()
    run_id = continued or creation.create_run(names.run(header.name), _tags(header))
    with heartbeat.heartbeat(run_id, held=not continued) as ownership, _writing(run_id, header, ownership) as writer:
        # In a distributed launch only the seal is refused: the other ranks would not know why this one stops.
        known = ownership if launch.size() == 1 else None
        recorder = Recorder(run_id, writer.spool.artifacts, ownership=known, writer=writer)
        try:
            if continued:
                _reopen(continued, header, recorder)
                ownership.held = True
            else:
                recorder.params(header.params)
            yield recorder
            with checkpoint.SignalGuard():  # a stop waits until the result is complete on disk
                recorder.finish(claim)
        except BaseException as error:
            _end_incomplete(recorder, writer, error)
            raise
        _wait(recorder, writer, patience)


@contextlib.contextmanager
def plain(name: str, stage: str, params: Mapping[str, Any], note: str) -> Iterator[Recorder]:
    """Record a run without a fingerprint, such as a trial of a search. Such a run is never reused.

    Raises:
        ConfigError: this process is one of several in a distributed launch.
    """
    if launch.size() > 1:
        raise must("WORLD_SIZE", f"1 for {stage}", launch.size())
    recovery.recover_once()
    orphans.cleanup_once()
    with recording(Header(name, {"w2s.stage": stage}, params, note)) as recorder:
        yield recorder


@contextlib.contextmanager
def parent(name: str, stage: str, params: Mapping[str, Any], note: str) -> Iterator[Recorder]:
    """Record a run as `plain` does, for example for a grid or a search. All runs made within the block are its children."""
    with plain(name, stage, params, note) as recorder, session.changed(parent=recorder.run_id):
        yield recorder


def current_parent() -> str | None:
    """Return the id of the run that is the parent of new runs, or None if new runs have no parent."""
    return session.current().parent or launch_run_id()


# --- beginning --------------------------------------------------------------------------------------------------------


@functools.cache
def _origin() -> dict[str, str]:
    """Return the tags that MLflow's fluent API would set, such as user, source and commit."""
    return dict(resolve_tags())


def _tags(header: Header) -> dict[str, str]:
    family = {MLFLOW_PARENT_RUN_ID: parent_id} if (parent_id := current_parent()) else {}
    tags = {"w2s.version": __version__, MLFLOW_RUN_NOTE: header.note, MLFLOW_RUN_NAME: names.run(header.name)}
    tags |= {PROCESSES: str(launch.size())} if launch.size() > 1 else {}
    merged = _origin() | tags | dict(header.tags) | family | heartbeat.owner_tags()
    return {name: names.plain(value) for name, value in merged.items()}


@contextlib.contextmanager
def _writing(run_id: str, header: Header, ownership: Ownership) -> Iterator[Writer]:
    """Create the spool of a run, and start the writer that sends it. The spool is removed if everything is stored."""
    try:
        writer = delivery.start(run_id, header.name, ownership)
    except BaseException as error:
        with contextlib.suppress(Exception):
            delivery.close(run_id, _status(error))
        raise
    try:
        yield writer
    finally:
        writer.close()


def _reopen(run_id: str, header: Header, recorder: Recorder) -> None:
    """Take over an unfinished run: update its tags, then restore the unsent metrics from the checkpoint.

    The tags are updated first because they name this process as the new owner, and reading a large checkpoint may take long. If
    the checkpoint is damaged, it is deleted and training starts from the beginning. Metrics that were already sent stay in the
    run.
    """
    client().log_batch(run_id, tags=[RunTag(key, value) for key, value in _tags(header).items()])
    client().update_run(run_id, status="RUNNING")
    metrics = client().get_run(run_id).data.metrics
    recorder.sent = {name: max(point.step for point in client().get_metric_history(run_id, name)) for name in metrics}
    if saved := checkpoint.read(scratch.cache_path(run_id)):
        recorder.restore(saved.notes)
    else:
        checkpoint.clear(scratch.cache_path(run_id))


# --- end --------------------------------------------------------------------------------------------------------------


def _wait(recorder: Recorder, writer: Writer, patience: float) -> None:
    """Wait until the server has stored a complete run.

    Raises:
        PendingUploadError: it has not within `patience` seconds, or it refuses a record. The spool stays on disk.
        SupersededError: another process has made the result. The spool is removed.
    """
    header, reason = writer.spool.header, f"has not stored it within {patience:g} s"
    try:
        if writer.wait(min(QUIET, patience)):
            return
        LOG.info("waiting until the tracking server has stored %s", header.name)
        if writer.wait(max(0.0, patience - QUIET)):
            return
    except KeyboardInterrupt:
        _linger(writer)
        raise
    except SupersededError:
        recovery.give_up(writer, recorder.ownership)
        raise
    except Exception:
        reason = "does not accept it"
    raise PendingUploadError(
        f"run {header.run_id} ({header.name}) is complete in {writer.spool.directory}, but the tracking server {where()} "
        f"{reason} ({recovery.problem(writer)}): when the server is back, run `python -m w2s_mlflow upload`"
    )


def _end_incomplete(recorder: Recorder, writer: Writer, error: BaseException) -> None:
    """End a run that was stopped, has failed or was taken over."""
    if recorder.complete:  # the stop came after the last record
        _linger(writer)
        return
    if isinstance(error, SupersededError) or recorder.is_lost():
        recovery.give_up(writer, recorder.ownership)
        return
    try:
        if not _is_stop(error):  # a stopped run can resume: its unsent metrics are in the checkpoint or are computed again
            recorder.flush(recorder.tags)
        writer.put(delivery.end(_status(error)))
        writer.wait(STOP_WAIT if _is_stop(error) else FAILED_WAIT)
    except Exception:
        if writer.error is not None:  # the server refuses a record, so the run cannot be resumed
            recovery.give_up(writer, recorder.ownership, _status(error))
        # Otherwise the spool cannot be written, and the next command finds what a killed process leaves.


def _linger(writer: Writer) -> None:
    """Give the writer of a stopped run a moment. What is not stored by then stays on disk."""
    with contextlib.suppress(Exception):  # what the server refuses is reported by the next command
        writer.wait(STOP_WAIT)


def _status(error: BaseException) -> str:
    return "KILLED" if _is_stop(error) else "FAILED"


def _is_stop(error: BaseException) -> bool:
    """Return whether `error` means that the user stopped the run or that another process took over the result."""
    return isinstance(error, KeyboardInterrupt | SupersededError)
