"""A result that is made and not recorded: once more, for its model, or along with the process that leads a launch."""

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
    """A result made once more, for its model: nothing of it is sent."""

    last: dict[str, float] = field(default_factory=dict)
    """The last value of each metric."""

    def metrics(self, values: Mapping[str, float], step: int = 0) -> None:
        self.last.update(values)

    def checkpoint(self, every: int) -> Checkpoint | None:
        return None

    def dataset(self, name: str, digest: str, source: str, rows: Mapping[str, int]) -> None:
        pass


@dataclass
class FollowerRecorder(DryRecorder):
    """A result that is made along with the process that leads, which alone sends it and keeps its checkpoints."""

    def checkpoint(self, every: int) -> Checkpoint:
        """The leader's, to go on from."""
        return Checkpoint(scratch.cache_path(self.run_id), every)

    def weights(self, path: str, model: Module) -> None:
        pass
