"""Recorders that send nothing to MLflow.

They are used when a finished run is trained again to recover its model, and by all ranks except the leader (rank 0).
"""

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
    """Recorder for training a finished run again to recover its model. It sends nothing to MLflow."""

    last: dict[str, float] = field(default_factory=dict)
    """Last value of each metric, by name."""

    def metrics(self, values: Mapping[str, float], step: int = 0) -> None:
        self.last.update(values)

    def checkpoint(self, every: int) -> Checkpoint | None:
        return None

    def dataset(self, name: str, digest: str, source: str, rows: Mapping[str, int]) -> None:
        pass


@dataclass
class FollowerRecorder(DryRecorder):
    """Recorder for all ranks except the leader (rank 0), because only the leader sends the result to MLflow."""

    def checkpoint(self, every: int) -> Checkpoint:
        """Return the leader's checkpoint, from which this rank also resumes."""
        return Checkpoint(scratch.cache_path(self.run_id), every)

    def weights(self, path: str, model: Module) -> None:
        pass
