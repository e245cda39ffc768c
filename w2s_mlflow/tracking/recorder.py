"""A run being made: metrics are buffered, artifacts staged in a directory, both sent in few requests.

It is finished only when its last artifact is written. What is stopped before goes on from its checkpoint, in the same run.
"""

from __future__ import annotations

import contextlib
import functools
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlflow.entities import Dataset, DatasetInput, Metric, Param, RunTag
from mlflow.entities import InputTag as DatasetTag
from mlflow.tracking.context.registry import resolve_tags
from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID, MLFLOW_RUN_NAME, MLFLOW_RUN_NOTE

from w2s_mlflow import __version__
from w2s_mlflow.distributed import launch
from w2s_mlflow.exceptions import must
from w2s_mlflow.local import scratch
from w2s_mlflow.records import Predictions, SoftLabels, canonical_json
from w2s_mlflow.tracking import heartbeat, session
from w2s_mlflow.tracking.backend.server import client, experiment, launch_run_id
from w2s_mlflow.tracking.results import ARTIFACTS, WEAK_LABELS, Result, digests_of
from w2s_mlflow.training import checkpoint
from w2s_mlflow.training.checkpoint import Checkpoint

if TYPE_CHECKING:
    from torch.nn import Module

PARAM_LIMIT = 6000
BATCH = 1000
"""Metrics and tags in one request, the most that MLflow takes."""
DIGEST_LIMIT = 36
"""MLflow cuts the digest of a data set here."""

PROCESSES = "w2s.processes"
"""The tag with the number of processes that make a run together; none for one alone."""


class SupersededError(Exception):
    """Another process has taken this one's place: what was made here does not count."""


@dataclass(frozen=True)
class Header:
    """What a run says of itself before it starts."""

    name: str
    tags: Mapping[str, str]
    params: Mapping[str, Any]
    note: str


@dataclass
class Recorder:
    """The run in the making, handed to the code that makes it."""

    run_id: str
    directory: Path
    """Where artifacts are staged."""
    kept: dict[str, Any] = field(default_factory=dict)
    """Plain values of the code that makes the run, kept with its checkpoints and there again when it goes on."""
    began: float = field(default_factory=time.monotonic)
    _metrics: list[Metric] = field(default_factory=list)
    tags: dict[str, str] = field(default_factory=dict)
    """What the code that makes the run finds out about it, sent at its end."""
    sent: dict[str, int] = field(default_factory=dict)
    """The last step of each metric that a run which goes on has already, though its checkpoint may be of an earlier one."""
    _held: bool = False
    """Metrics wait for the next checkpoint, so that one that is gone back to has none of its future in the run."""

    def metrics(self, values: Mapping[str, float], step: int = 0) -> None:
        """Buffer metrics of one step; a full buffer is sent."""
        now = int(time.time() * 1000)
        new = {name: value for name, value in values.items() if not 0 < step <= self.sent.get(name, 0)}
        self._metrics += [Metric(name, float(value), now, step) for name, value in new.items()]
        if len(self._metrics) >= BATCH and not self._held:
            self.flush()

    def params(self, values: Mapping[str, Any]) -> None:
        """Send what the code that makes the run has chosen, at once."""
        client().log_batch(self.run_id, params=_params(values))

    def note(self, text: str) -> None:
        """Replace the run's Markdown note, at its end."""
        self.tags[MLFLOW_RUN_NOTE] = text

    def flush(self, tags: Sequence[RunTag] = ()) -> None:
        """Send what is buffered, and last these tags, in one request where there is room."""
        if len(self._metrics) + len(tags) > BATCH:  # MLflow's client would split them, and send the tags with the first part
            client().log_batch(self.run_id, metrics=self._metrics)
            self._metrics = []
        client().log_batch(
            self.run_id, metrics=self._metrics, tags=tags
        )  # its store writes the tags last; nothing sends nothing
        self._metrics = []

    def checkpoint(self, every: int) -> Checkpoint | None:
        """Where the training of this run keeps its state every `every` steps, with the metrics that are not sent yet."""
        self._held = every > 0
        return Checkpoint(scratch.cache_path(self.run_id), every, notes=self._notes, saved=self.flush)

    def _notes(self) -> dict[str, Any]:
        waiting = [[metric.key, metric.value, metric.timestamp, metric.step] for metric in self._metrics]
        return {"metrics": waiting, "kept": self.kept, "seconds": time.monotonic() - self.began}

    def restore(self, notes: Mapping[str, Any]) -> None:
        """Go on from a checkpoint. A metric that was sent after all is the same to the time stamp, and stays one to MLflow."""
        self._metrics = [Metric(*values) for values in notes["metrics"]]
        self.kept = dict(notes["kept"])
        self.began -= notes["seconds"]

    def predictions(self, split: str, predictions: Predictions) -> None:
        """Stage the predictions on a split."""
        predictions.write(self.directory / "predictions" / f"{split}.parquet")

    def weak_labels(self, labels: SoftLabels) -> None:
        """Stage a supervisor's labels of `transfer`."""
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
        """Link the data the run used, by its digest, with the number of rows in each part."""
        data = Dataset(name, digest[:DIGEST_LIMIT], "w2s_mlflow", canonical_json({"uri": source}), profile=canonical_json(rows))
        client().log_inputs(self.run_id, [DatasetInput(data, [DatasetTag("mlflow.data.context", "training")])])

    def send(self) -> None:
        """Send all there is: artifacts, metrics, and last the digests that say the artifacts are whole."""
        self.metrics({"seconds": time.monotonic() - self.began})
        if any(self.directory.iterdir()):
            client().log_artifacts(self.run_id, str(self.directory))
        last = self.tags | {ARTIFACTS: canonical_json(digests_of(self.directory))}
        self.flush([RunTag(name, value) for name, value in last.items()])


@contextlib.contextmanager
def recording(header: Header, seal: Callable[[str], bool], continued: str | None = None) -> Iterator[Recorder]:
    """A run that is RUNNING, with a heartbeat, while the block makes it.

    It ends FINISHED once `seal` says that it counts, KILLED after Ctrl-C or where it does not count, FAILED after an error.

    Args:
        seal: called with the run's id when its last artifact is written.
        continued: the unfinished run to go on with, from its checkpoint; else a new one is made.

    Raises:
        SupersededError: `seal` said no.
    """
    run_id = continued or _create(header)
    with tempfile.TemporaryDirectory(prefix="w2s-") as directory, heartbeat.heartbeat(run_id):
        recorder = Recorder(run_id, Path(directory))
        try:
            if continued:
                _reopen(continued, header, recorder)
            yield recorder
            recorder.send()
            if not seal(run_id):
                raise SupersededError
        except BaseException as error:
            _give_up(recorder, error)
            raise
        try:
            _finish(run_id)
        except KeyboardInterrupt:  # it counts by now, and a stop leaves no run running
            _finish(run_id)
            raise


@contextlib.contextmanager
def plain(name: str, stage: str, params: Mapping[str, Any], note: str) -> Iterator[Recorder]:
    """A run that has no fingerprint and is never reused, such as a trial. Raises ConfigError for one of several processes."""
    if launch.size() > 1:
        raise must("WORLD_SIZE", f"1 for {stage}", launch.size())
    heartbeat.cleanup_once()
    with recording(Header(name, {"w2s.stage": stage}, params, note), seal=lambda run_id: True) as recorder:
        yield recorder


@contextlib.contextmanager
def parent(name: str, stage: str, params: Mapping[str, Any], note: str) -> Iterator[Recorder]:
    """A plain run under which the results made inside are filed: a grid or a search."""
    with plain(name, stage, params, note) as recorder, session.changed(parent=recorder.run_id):
        yield recorder


def current_parent() -> str | None:
    """The id of the run under which new runs are filed, if there is one."""
    return session.current().parent or launch_run_id()


@dataclass(frozen=True)
class Report:
    """What is added to a finished run."""

    stage: Callable[[Path], None] = lambda directory: None
    """Writes artifacts into the directory it is given."""
    metrics: Mapping[str, float] = field(default_factory=dict)
    tags: Mapping[str, str] = field(default_factory=dict)


def attach(
    found: Result, name: str, stage: Callable[[Path], None], metrics: Mapping[str, float], tags: Mapping[str, str]
) -> Result:
    """A finished run with a report added: artifacts, then metrics, and last the tags, with the digests that make it count.

    Args:
        name: of the report; one of the same name takes its place.
        stage: writes the artifacts into the directory it is given.
    """
    now = int(time.time() * 1000)
    with tempfile.TemporaryDirectory(prefix="w2s-") as directory:
        stage(Path(directory))
        tags = {**tags, f"{ARTIFACTS}.{name}": canonical_json(digests_of(Path(directory)))}
        _upload(found.run_id, directory)
    client().log_batch(
        found.run_id,
        metrics=[Metric(key, value, now, 0) for key, value in metrics.items()],
        tags=[RunTag(key, value) for key, value in tags.items()],
    )
    client().set_terminated(found.run_id, "FINISHED")  # its end is now: what has ended since is what is new (run_cache.py)
    return replace(found, metrics={**found.metrics, **metrics}, tags={**found.tags, **tags})


def _upload(run_id: str, directory: str) -> None:
    try:
        client().log_artifacts(run_id, directory)
    except FileExistsError:  # another process has just made a directory of the same report
        client().log_artifacts(run_id, directory)


@functools.cache
def _origin() -> dict[str, str]:
    """Who runs what, from which commit: the tags that MLflow's fluent API would set."""
    return dict(resolve_tags())


def _tags(header: Header) -> dict[str, str]:
    family = {MLFLOW_PARENT_RUN_ID: parent_id} if (parent_id := current_parent()) else {}
    own = {"w2s.version": __version__, MLFLOW_RUN_NOTE: header.note, MLFLOW_RUN_NAME: header.name}
    own |= {PROCESSES: str(launch.size())} if launch.size() > 1 else {}
    return _origin() | own | dict(header.tags) | family | heartbeat.marks()


def _params(values: Mapping[str, Any]) -> list[Param]:
    return [Param(key, str(value)[:PARAM_LIMIT]) for key, value in values.items()]


def _create(header: Header) -> str:
    run = client().create_run(experiment().experiment_id, tags=_tags(header), run_name=header.name)
    try:
        client().log_batch(run.info.run_id, params=_params(header.params))
    except BaseException as error:
        _end(run.info.run_id, error)
        raise
    return str(run.info.run_id)


def _reopen(run_id: str, header: Header, recorder: Recorder) -> None:
    """Make an unfinished run this process's own: what a new one would say, and what its checkpoint had not sent.

    The owner comes first, since a large checkpoint is long read. A damaged one is removed: the run then starts anew, and
    the metrics that it has stay as they are.
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
    client().set_terminated(run_id, "FINISHED")


def _give_up(recorder: Recorder, error: BaseException) -> None:
    if isinstance(error, SupersededError):
        checkpoint.clear(scratch.cache_path(recorder.run_id))
    if not _stops(error):  # metrics that a stop left waiting are in its checkpoint, or come after it and will come again
        with contextlib.suppress(Exception):  # as in _end
            recorder.flush([RunTag(name, value) for name, value in recorder.tags.items()])
    _end(recorder.run_id, error)


def _end(run_id: str, error: BaseException) -> None:
    """Close a run that comes to nothing."""
    with contextlib.suppress(Exception):  # the server may be what went wrong; the next start closes the run
        client().set_terminated(run_id, "KILLED" if _stops(error) else "FAILED")
        client().set_tag(run_id, heartbeat.WORKER, "")  # only its owner can say that it will not write here again


def _stops(error: BaseException) -> bool:
    """Whether nothing went wrong: somebody stopped it, or another process took its place."""
    return isinstance(error, KeyboardInterrupt | SupersededError)
