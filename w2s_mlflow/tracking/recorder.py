"""What a run logs. It goes to a spool on the local disk, from which a background thread sends it (writer.py).

Training never waits for the server.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlflow.entities import Metric
from mlflow.utils.mlflow_tags import MLFLOW_RUN_NOTE

from w2s_mlflow.local import scratch
from w2s_mlflow.records import Predictions, SoftLabels, canonical_json
from w2s_mlflow.tracking import delivery, heartbeat, names
from w2s_mlflow.tracking.claims import Claim
from w2s_mlflow.tracking.heartbeat import SupersededError
from w2s_mlflow.tracking.results import ARTIFACTS, WEAK_LABELS, digests_of
from w2s_mlflow.tracking.spool import Record
from w2s_mlflow.tracking.writer import Writer
from w2s_mlflow.training.checkpoint import Checkpoint

if TYPE_CHECKING:
    from torch.nn import Module

BATCH = 1000
"""Maximum number of metrics and tags in one request to MLflow."""


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
    writer: Writer | None = None
    """Background writer of the run's spool. None for a recorder that sends nothing."""
    complete: bool = False
    """Whether the result is complete on this machine: its spool ends with the record that the run is finished."""
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
        """Log further parameters of the run."""
        self._put(delivery.batch(params=values))

    def is_lost(self) -> bool:
        """Return whether another process is known to have taken over the run. The store is not asked."""
        return self.ownership is not None and self.ownership.lost

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

    def finish(self, claim: Claim | None) -> None:
        """Log the artifacts, then the metrics, the tags and the final status. Then the result is complete on this machine.

        The tag with the digests shows that all artifacts were stored.

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
        self._put(delivery.end(delivery.FINISHED))
        self.complete = True

    def _put(self, record: Record) -> None:
        if self.writer is not None:
            self.writer.put(record)
