"""Run the default experiment, which is the grid sweeps/default.py, and analyse its results. No network access is needed."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from w2s_mlflow.config import checked_dataclass, option
from w2s_mlflow.stages import sweep

if TYPE_CHECKING:
    from w2s_mlflow.tracking.results import Result

MOST_WORKERS = 4
"""Largest default number of processes. Each takes about .7 GB of memory."""


@checked_dataclass
class Config:
    """Options of the default experiment."""

    seeds: str = "0..4"
    """Seeds, as a range `0..4` or a list `0,3,7`."""
    train_size: int | None = None
    """Number of training rows in every setting. Default: the number in the setting, else that of the task."""
    test_size: int | None = None
    """Maximum number of test rows in every setting. Default: the number in the setting, else that of the task."""
    workers: int | None = option(default=None, ge=1, result=False)
    """Number of parallel processes on this machine. Default: one per core, at most 4. The results do not depend on it."""

    def __post_init__(self) -> None:
        self.grid()

    def grid(self) -> sweep.Config:
        """Return the options of the sweep that makes the default experiment."""
        return sweep.Config(sweep="default", **(vars(self) | {"workers": self.workers or min(MOST_WORKERS, _cores())}))


def _cores() -> int:
    """Return the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def run(config: Config) -> Result:
    """Run the grid, and return its parent run, which contains the tables. For errors, see `sweep.run`."""
    return sweep.run(config.grid())
