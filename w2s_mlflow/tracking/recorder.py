"""Recording of a run. Metrics are buffered and artifacts are staged in a directory, so that few requests are sent.

A run is FINISHED only after its last artifact is written. An interrupted run is resumed, as the same run, from its checkpoint.
"""

from __future__ import annotations

import contextlib
import functools
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlflow.entities import Dataset, DatasetInput, Metric, Param, RunTag
from mlflow.entities import InputTag as DatasetTag
from mlflow.tracking.context.registry import resolve_tags
from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID, MLFLOW_RUN_NAME, MLFLOW_RUN_NOTE

from w2s_mlflow import __version__
from w2s_mlflow.distributed import launch
from w2s_mlflow.exceptions import must
from w2s_mlflow.local import scratch, temporary
from w2s_mlflow.records import Predictions, SoftLabels, canonical_json
from w2s_mlflow.tracking import creation, ending, heartbeat, names, orphans, session
from w2s_mlflow.tracking.backend.server import client, launch_run_id
from w2s_mlflow.tracking.results import ARTIFACTS, WEAK_LABELS, digests_of
from w2s_mlflow.training import checkpoint
from w2s_mlflow.training.checkpoint import Checkpoint

if TYPE_CHECKING:
    from torch.nn import Module

PARAM_LIMIT = 6000
BATCH = 1000
"""Maximum number of metrics and tags in one request to MLflow."""
DIGEST_LIMIT = 36
"""Maximum length of a data set digest in MLflow."""

PROCESSES = "w2s.processes"
"""Tag with the number of processes that made a run. A run made by a single process does not have this tag."""


class SupersededError(Exception):
    """Another process has taken over this result, so the run that this process made does not count."""


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
    ownership: heartbeat.Ownership | None = None
    """Whether the run still belongs to this process. None for a recorder that sends nothing, or in a distributed launch."""
    _holds_metrics: bool = False
    """Whether metrics are sent only after a checkpoint is saved. Otherwise MLflow could have metrics of steps that a resumed
    run repeats."""

    def metrics(self, values: Mapping[str, float], step: int = 0) -> None:
        """Buffer the metrics of one step, except those that were already sent before the run resumed.

        A full buffer is sent at once, unless metrics are held back until the next checkpoint.

        Raises:
            SupersededError: another process has taken over the run.
        """
        if self.is_lost():
            raise SupersededError
        now = int(time.time() * 1000)
        legal = {names.metric(name): value for name, value in values.items()}
        new = {name: value for name, value in legal.items() if not 0 < step <= self.sent.get(name, 0)}
        self._metrics += [Metric(name, float(value), now, step) for name, value in new.items()]
        if len(self._metrics) >= BATCH and not self._holds_metrics:
            self.flush()

    def params(self, values: Mapping[str, Any]) -> None:
        """Send further parameters of the run immediately."""
        client().log_batch(self.run_id, params=_params(values))

    def is_lost(self) -> bool:
        """Return whether another process is known to have taken over the run. The store is not asked."""
        return self.ownership is not None and self.ownership.lost

    def note(self, text: str) -> None:
        """Set the run's Markdown note, which is sent when the run ends."""
        self.tags[MLFLOW_RUN_NOTE] = text

    def flush(self, tags: Sequence[RunTag] = ()) -> None:
        """Send the buffered metrics and then `tags`, in one request if they fit.

        Raises:
            SupersededError: another process has taken over the run.
        """
        self._confirm()
        # The tags must come last, but MLflow's client would send them before the last metrics if one request is not enough.
        if len(self._metrics) + len(tags) > BATCH:
            client().log_batch(self.run_id, metrics=self._metrics)
            self._metrics = []
        # Within one request, MLflow writes the tags after the metrics. If both are empty, MLflow writes nothing.
        client().log_batch(self.run_id, metrics=self._metrics, tags=tags)
        self._metrics = []

    def _confirm(self) -> None:
        """Raise SupersededError if another process has taken over the run, for example while this process was stopped."""
        if self.ownership is not None and not self.ownership.confirm():
            raise SupersededError

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
        place = canonical_json({"uri": names.plain(source)})
        data = Dataset(names.dataset(name), digest[:DIGEST_LIMIT], "w2s_mlflow", place, profile=canonical_json(rows))
        creation.log_dataset(self.run_id, DatasetInput(data, [DatasetTag("mlflow.data.context", "training")]))

    def send(self) -> None:
        """Send the artifacts, then the metrics, then the tags. The tag with the digests shows that all artifacts were sent."""
        self.metrics({"seconds": time.monotonic() - self.began})
        self._confirm()
        if any(self.directory.iterdir()):
            client().log_artifacts(self.run_id, str(self.directory))
        last = self.tags | {ARTIFACTS: canonical_json(digests_of(self.directory))}
        self.flush(_run_tags(last))


@contextlib.contextmanager
def recording(header: Header, seal: Callable[[str], bool], continued: str | None = None) -> Iterator[Recorder]:
    """Context manager that creates or resumes a run. Inside the `with` block, the run is RUNNING and its heartbeat is updated.

    The run ends as FINISHED if `seal` returns True, as KILLED after Ctrl-C or if `seal` returns False, and as FAILED after an
    error.

    Args:
        seal: function that is called with the run's id after the run's last artifact is written. It returns whether the run
            counts as the result: False if another process has taken over.
        continued: the id of the unfinished run to resume from its checkpoint. Default: create a new run.

    Raises:
        SupersededError: `seal` returned False.
    """
    run_id = continued or _create(header)
    with temporary.directory() as directory, heartbeat.heartbeat(run_id, held=not continued) as ownership:
        # In a distributed launch only the seal is refused: the other ranks would not know why this one stops.
        recorder = Recorder(run_id, Path(directory), ownership=ownership if launch.size() == 1 else None)
        try:
            if continued:
                _reopen(continued, header, recorder)
                ownership.held = True
            yield recorder
            recorder.send()
            if not seal(run_id):
                raise SupersededError
        except BaseException as error:
            _close_failed(recorder, error)
            raise
        try:
            _finish(run_id)
        except KeyboardInterrupt:  # the result is already sealed, so mark the run as FINISHED before stopping
            _finish(run_id)
            raise


@contextlib.contextmanager
def plain(name: str, stage: str, params: Mapping[str, Any], note: str) -> Iterator[Recorder]:
    """Record a run without a fingerprint, such as a trial of a search. Such a run is never reused.

    Raises:
        ConfigError: this process is one of several in a distributed launch.
    """
    if launch.size() > 1:
        raise must("WORLD_SIZE", f"1 for {stage}", launch.size())
    orphans.cleanup_once()
    with recording(Header(name, {"w2s.stage": stage}, params, note), seal=lambda run_id: True) as recorder:
        yield recorder


@contextlib.contextmanager
def parent(name: str, stage: str, params: Mapping[str, Any], note: str) -> Iterator[Recorder]:
    """Record a run as `plain` does, for example for a grid or a search. All runs made within the block are its children."""
    with plain(name, stage, params, note) as recorder, session.changed(parent=recorder.run_id):
        yield recorder


def current_parent() -> str | None:
    """Return the id of the run that is the parent of new runs, or None if new runs have no parent."""
    return session.current().parent or launch_run_id()


def upload(run_id: str, directory: str) -> None:
    """Upload the files of a directory as artifacts of a run."""
    try:
        client().log_artifacts(run_id, directory)
    except FileExistsError:  # another process has just created the same directory, so try again
        client().log_artifacts(run_id, directory)


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


def _run_tags(tags: Mapping[str, str]) -> list[RunTag]:
    return [RunTag(name, names.plain(value)) for name, value in tags.items()]


def _params(values: Mapping[str, Any]) -> list[Param]:
    return [Param(key, names.plain(value)[:PARAM_LIMIT]) for key, value in values.items()]


def _create(header: Header) -> str:
    run_id = creation.create_run(names.run(header.name), _tags(header))
    try:
        client().log_batch(run_id, params=_params(header.params))
    except BaseException as error:
        _end(run_id, error)
        raise
    return run_id


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


def _finish(run_id: str) -> None:
    checkpoint.clear(scratch.cache_path(run_id))
    ending.finish(run_id)


def _close_failed(recorder: Recorder, error: BaseException) -> None:
    if recorder.is_lost():  # the run belongs to another process: write nothing more into it
        return
    if isinstance(error, SupersededError):
        checkpoint.clear(scratch.cache_path(recorder.run_id))
    if not _is_stop(error):  # a stopped run can resume: its unsent metrics are in the checkpoint or are computed again
        with contextlib.suppress(Exception):  # the failure may be that the server does not answer
            recorder.flush(_run_tags(recorder.tags))
    _end(recorder.run_id, error)


def _end(run_id: str, error: BaseException) -> None:
    """Mark an unsuccessful run as KILLED if it was stopped or taken over, else as FAILED. Then remove the run's owner."""
    # If the server does not answer, the run stays RUNNING until another process starts and finds that its owner is dead.
    with contextlib.suppress(Exception):
        client().set_terminated(run_id, "KILLED" if _is_stop(error) else "FAILED")
        client().set_tag(run_id, heartbeat.WORKER, "")  # remove the owner, because this process will not write to the run again


def _is_stop(error: BaseException) -> bool:
    """Return whether `error` means that the user stopped the run or that another process took over the result."""
    return isinstance(error, KeyboardInterrupt | SupersededError)
