"""Run the default experiment, which is the grid sweeps/default.py, and analyse its results. No network access is needed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from w2s_mlflow.config import checked_dataclass, option
from w2s_mlflow.stages import sweep

if TYPE_CHECKING:
    from w2s_mlflow.tracking.results import Result


@checked_dataclass
class Config:
    """Options of the default experiment."""

    seeds: str = "0..4"
    """Seeds, as a range `0..4` or a list `0,3,7`."""
    train_size: int | None = None
    """Number of training rows in every setting. Default: the number in the setting, else that of the task."""
    test_size: int | None = None
    """Maximum number of test rows in every setting. Default: the number in the setting, else that of the task."""
    workers: int = option(default=1, ge=1, result=False)
    """Number of parallel processes on this machine."""

    def __post_init__(self) -> None:
        sweep.Config(**vars(self))


def run(config: Config) -> Result:
    """Run the grid, and return its parent run, which contains the tables. For errors, see `sweep.run`."""
    return sweep.run(sweep.Config(sweep="default", **vars(config)))
