"""The default experiment: the grid sweeps/default.py with its tables and figure, offline."""

from __future__ import annotations

from typing import TYPE_CHECKING

from w2s_mlflow.config import checked_dataclass, option
from w2s_mlflow.stages import sweep

if TYPE_CHECKING:
    from w2s_mlflow.tracking.results import Result


@checked_dataclass
class Config:
    """The default experiment."""

    seeds: str = "0..4"
    """Seeds, as a range `0..4` or a list `0,3,7`."""
    train_size: int | None = None
    """Rows of the training part for every setting; none takes each task's own."""
    test_size: int | None = None
    """Test rows for every setting; none takes each task's own."""
    workers: int = option(default=1, ge=1, result=False)
    """How many processes of this machine make runs side by side."""

    def __post_init__(self) -> None:
        sweep.Config(**vars(self))


def run(config: Config) -> Result:
    """The parent run of the grid, with its tables. Raises ConfigError before the first job starts."""
    return sweep.run(sweep.Config(sweep="default", **vars(config)))
