"""Recording of a run. What a run logs goes to a spool on the local disk, from which a background thread sends it (writer.py).

Training never waits for the server. At the end, the run waits until everything is stored, for at most W2S_UPLOAD_WAIT seconds.
A run is FINISHED only after its last record is stored. An interrupted run is resumed, as the same run, from its checkpoint.
"""

from __future__ import annotations

import contextlib
import functools
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlflow.entities import Metric, RunTag
from mlflow.tracking.context.registry import resolve_tags
from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID, MLFLOW_RUN_NAME, MLFLOW_RUN_NOTE

from w2s_mlflow import __version__
from w2s_mlflow.distributed import launch
from w2s_mlflow.exceptions import must
from w2s_mlflow.local import scratch
from w2s_mlflow.records import Predictions, SoftLabels, canonical_json
from w2s_mlflow.tracking import delivery, heartbeat, session
from w2s_mlflow.tracking.backend.server import client, experiment, launch_run_id, sentence, where
from w2s_mlflow.tracking.claims import Claim
from w2s_mlflow.tracking.delivery import PendingUploadError, SupersededError
from w2s_mlflow.tracking.results import ARTIFACTS, WEAK_LABELS, digests_of
from w2s_mlflow.tracking.spool import Record
from w2s_mlflow.tracking.writer import Writer
from w2s_mlflow.training import checkpoint
from w2s_mlflow.training.checkpoint import Checkpoint

if TYPE_CHECKING:
    from torch.nn import Module

PARAM_LIMIT = 6000
BATCH = 1000
"""Maximum number of metrics and tags in one request to MLflow."""
STOP_WAIT, FAILED_WAIT = 0.5, 10.0
"""Longest time in seconds that the last records of a stopped or failed run are waited for. What is not stored by then stays on
disk."""

PROCESSES = "w2s.processes"
"""Tag with the number of processes that made a run. A run made by a single process does not have this tag."""


@dataclass(frozen=True)
class Header:
    """Name, tags, parameters and note of a new run."""

    name: str
    tags: Mapping[str, str]
    params: Mapping[str, Any]
    note: str


@dataclass
class Recorder:
    """Recorder of a run in progress. It is passed to the code that makes the result."""

    run_id: str
    directory: Path
    """Directory in which artifacts are staged."""
    extra_state: dict[str, Any] = field(default_factory=dict)
    """JSON values set by the code that makes the result. Checkpoints save them, and a resumed run restores them."""
    began: float = field(default_factory=time.monotonic)
    _metrics: list[Metric] = field(default_factory=list)
    tags: dict[str, str] = field(default_factory=dict)
    """Tags set by the code that makes the result. They are sent when the run ends."""
    sent: dict[str, int] = field(default_factory=dict)
    """For a resumed run, the last step of each metric that MLflow already stores. It may be later than the checkpoint's."""
    writer: Writer | None = None
    """Background writer of the run's spool. None for a recorder that sends nothing."""
    _holds_metrics: bool = False
    """Whether metrics are sent only after a checkpoint is saved. Otherwise MLflow could have metrics of steps that a resumed
    run repeats."""

    def metrics(self, values: Mapping[str, float], step: int = 0) -> None:
        """Buffer the metrics of one step, except those that were already sent before the run resumed.

        A full buffer is sent at once, unless metrics are held back until the next checkpoint.
        """
        now = int(time.time() * 1000)
        new = {name: value for name, value in values.items() if not 0 < step <= self.sent.get(name, 0)}
        self._metrics += [Metric(name, float(value), now, step) for name, value in new.items()]
        if len(self._metrics) >= BATCH and not self._holds_metrics:
            self.flush()

    def params(self, values: Mapping[str, Any]) -> None:
        """Log further parameters of the run."""
        self._put(delivery.batch(params={key: str(value)[:PARAM_LIMIT] for key, value in values.items()}))

    def note(self, text: str) -> None:
        """Set the run's Markdown note, which is sent when the run ends."""
        self.tags[MLFLOW_RUN_NOTE] = text

    def flush(self, tags: Mapping[str, str] | None = None) -> None:
        """Log the buffered metrics and then `tags`, in one record if they fit."""
        tags = tags or {}
        # The tags must come last, but MLflow's client would send them before the last metrics if one request is not enough.
        if len(self._metrics) + len(tags) > BATCH:
            self._put(delivery.batch(self._metrics))
            self._metrics = []
        # Within one request, MLflow writes the tags after the metrics.
        if self._metrics or tags:
            self._put(delivery.batch(self._metrics, tags=tags))
            self._metrics = []

    def checkpoint(self, every: int) -> Checkpoint | None:
        """Return the run's checkpoint, which saves the training state and the unsent metrics at intervals of `every` steps."""
        self._holds_metrics = every > 0
        return Checkpoint(scratch.cache_path(self.run_id), every, notes=self._notes, saved=self.flush)

    def _notes(self) -> dict[str, Any]:
        unsent = [[metric.key, metric.value, metric.timestamp, metric.step] for metric in self._metrics]
        return {"metrics": unsent, "extra_state": self.extra_state, "seconds": time.monotonic() - self.began}

    def restore(self, notes: Mapping[str, Any]) -> None:
        """Restore the values that `_notes` saved with a checkpoint.

        Metrics keep their timestamps, so MLflow does not store a metric twice if it is sent again.
        """
        self._metrics = [Metric(*values) for values in notes["metrics"]]
        self.extra_state = dict(notes["extra_state"])
        self.began -= notes["seconds"]

    def predictions(self, split: str, predictions: Predictions) -> None:
        """Stage the predictions on a split as an artifact."""
        predictions.write(self.directory / "predictions" / f"{split}.parquet")

    def weak_labels(self, labels: SoftLabels) -> None:
        """Stage the run's weak labels for the transfer split as an artifact."""
        labels.write(self.directory / WEAK_LABELS)

    def json(self, path: str, value: Any) -> None:
        """Stage a small JSON artifact."""
        self.text(path, canonical_json(value) + "\n")

    def text(self, path: str, text: str) -> None:
        """Stage a text artifact."""
        target = self.directory / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text, encoding="utf-8")

    def weights(self, path: str, model: Module) -> None:
        """Stage a model's weights as safetensors."""
        import safetensors.torch

        target = self.directory / path
        target.parent.mkdir(parents=True, exist_ok=True)
        safetensors.torch.save_model(model, str(target))

    def dataset(self, name: str, digest: str, source: str, rows: Mapping[str, int]) -> None:
        """Log a data set as an input of the run, with its digest and the number of rows in each split."""
        self._put(delivery.dataset(name, digest, source, rows))

    def complete(self, claim: Claim | None) -> None:
        """Log the artifacts, then the metrics, the tags and the final status.

        The tag with the digests shows that all artifacts were stored. From now on the result is complete on this machine.

        Args:
            claim: the claim that the run's result seals; None for a run that is never reused.
        """
        self.metrics({"seconds": time.monotonic() - self.began})
        digests = digests_of(self.directory)
        if digests:
            self._put(delivery.artifacts(digests))
        self.flush(self.tags | {ARTIFACTS: canonical_json(digests)})
        if claim:
            self._put(delivery.seal(claim))
        if self.writer:
            self.writer.keep = True
        self._put(delivery.end("FINISHED"))

    def _put(self, record: Record) -> None:
        if self.writer is not None:
            self.writer.put(record)


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
        PendingUploadError: the run is complete, but the server has not stored it within W2S_UPLOAD_WAIT seconds.
    """
    patience = delivery.patience()
    run_id = continued or _create(header)
    with heartbeat.heartbeat(run_id), _writing(run_id, header) as writer:
        recorder = Recorder(run_id, writer.spool.artifacts, writer=writer)
        try:
            if continued:
                _reopen(continued, header, recorder)
            else:
                recorder.params(header.params)
            yield recorder
            with checkpoint.SignalGuard():  # a stop waits until the result is complete on disk
                recorder.complete(claim)
        except BaseException as error:
            _close_failed(recorder, error)
            raise
        _wait(writer, patience)


@contextlib.contextmanager
def plain(name: str, stage: str, params: Mapping[str, Any], note: str) -> Iterator[Recorder]:
    """Record a run without a fingerprint, such as a trial of a search. Such a run is never reused.

    Raises:
        ConfigError: this process is one of several in a distributed launch.
    """
    if launch.size() > 1:
        raise must("WORLD_SIZE", f"1 for {stage}", launch.size())
    heartbeat.cleanup_once()
    delivery.recover_once()
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


@functools.cache
def _origin() -> dict[str, str]:
    """Return the tags that MLflow's fluent API would set, such as user, source and commit."""
    return dict(resolve_tags())


def _tags(header: Header) -> dict[str, str]:
    family = {MLFLOW_PARENT_RUN_ID: parent_id} if (parent_id := current_parent()) else {}
    tags = {"w2s.version": __version__, MLFLOW_RUN_NOTE: header.note, MLFLOW_RUN_NAME: header.name}
    tags |= {PROCESSES: str(launch.size())} if launch.size() > 1 else {}
    return _origin() | tags | dict(header.tags) | family | heartbeat.owner_tags()


def _create(header: Header) -> str:
    return str(client().create_run(experiment().experiment_id, tags=_tags(header), run_name=header.name).info.run_id)


@contextlib.contextmanager
def _writing(run_id: str, header: Header) -> Iterator[Writer]:
    """Create the spool of a run, and start the writer that sends it."""
    try:
        writer = delivery.create(run_id, header.name)
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
    names = client().get_run(run_id).data.metrics
    recorder.sent = {name: max(point.step for point in client().get_metric_history(run_id, name)) for name in names}
    if saved := checkpoint.read(scratch.cache_path(run_id)):
        recorder.restore(saved.notes)
    else:
        checkpoint.clear(scratch.cache_path(run_id))


def _wait(writer: Writer, patience: float) -> None:
    """Wait until the server has stored a complete run."""
    run_id = writer.spool.header.run_id
    try:
        if writer.wait(patience):
            return
    except KeyboardInterrupt:
        _linger(writer)
        raise
    except BaseException as error:
        if isinstance(error, SupersededError):
            writer.keep = False
            checkpoint.clear(scratch.cache_path(run_id))
        with contextlib.suppress(Exception):
            delivery.close(run_id, _status(error))
        raise
    reason = sentence(writer.problem) if writer.problem else "it does not answer"
    raise PendingUploadError(
        f"run {run_id} ({writer.spool.header.name}) is complete in {writer.spool.directory}, but the tracking server {where()} "
        f"has not stored it within {patience:g} s ({reason}): when the server is back, run `python -m w2s_mlflow upload`"
    )


def _close_failed(recorder: Recorder, error: BaseException) -> None:
    writer, stopped = recorder.writer, _is_stop(error)
    assert writer is not None
    if stopped and writer.keep:  # the run is complete, so its last record is that it is finished
        _linger(writer)
        return
    try:
        if not stopped:  # a stopped run can resume: its unsent metrics are in the checkpoint or are computed again
            recorder.flush(recorder.tags)
        writer.put(delivery.end(_status(error)))
        writer.wait(STOP_WAIT if stopped else FAILED_WAIT)
    except Exception:  # the server has refused a record, or the spool cannot be written
        with contextlib.suppress(Exception):
            delivery.close(recorder.run_id, _status(error))


def _linger(writer: Writer) -> None:
    """Give the writer of a stopped run a moment. What is not stored by then stays on disk."""
    with contextlib.suppress(Exception):  # what the server refuses is reported by the next command
        writer.wait(STOP_WAIT)


def _status(error: BaseException) -> str:
    return "KILLED" if _is_stop(error) else "FAILED"


def _is_stop(error: BaseException) -> bool:
    """Return whether `error` means that the user stopped the run or that another process took over the result."""
    return isinstance(error, KeyboardInterrupt | SupersededError)
