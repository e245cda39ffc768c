"""Recorders that send nothing to MLflow: for refitting a finished run to get its model, and for ranks other than the leader."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from w2s_mlflow.local import scratch
from w2s_mlflow.tracking.recorder import Recorder
from w2s_mlflow.training.checkpoint import Checkpoint

if TYPE_CHECKING:
    from torch.nn import Module


@dataclass
class DryRecorder(Recorder):
    """Recorder for refitting a finished run to get its model; sends nothing to MLflow."""

    last: dict[str, float] = field(default_factory=dict)
    """Last value of each metric."""

    def metrics(self, values: Mapping[str, float], step: int = 0) -> None:
        self.last.update(values)

    def checkpoint(self, every: int) -> Checkpoint | None:
        return None

    def dataset(self, name: str, digest: str, source: str, rows: Mapping[str, int]) -> None:
        pass


@dataclass
class FollowerRecorder(DryRecorder):
    """Recorder for the ranks other than the leader, which alone sends the result."""

    def checkpoint(self, every: int) -> Checkpoint:
        """Return the leader's checkpoint, from which this rank resumes too."""
        return Checkpoint(scratch.cache_path(self.run_id), every)

    def weights(self, path: str, model: Module) -> None:
        pass
