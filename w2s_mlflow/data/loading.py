"""Loading of a task's rows, once per process, and their split for a run."""

from __future__ import annotations

import functools
import logging
import os
from dataclasses import replace
from pathlib import Path
from typing import Protocol, TypeVar

from w2s_mlflow import tasks
from w2s_mlflow.data import splits
from w2s_mlflow.exceptions import must
from w2s_mlflow.records import Row

LOG = logging.getLogger("w2s_mlflow")


class SplitOptions(Protocol):
    """The options that determine how a task is split."""

    @property
    def task(self) -> str: ...
    @property
    def seed(self) -> int: ...
    @property
    def train_size(self) -> int | None: ...
    @property
    def test_size(self) -> int | None: ...
    @property
    def balance(self) -> bool: ...
    @property
    def data_dir(self) -> str | None: ...


SplitOptionsT = TypeVar("SplitOptionsT", bound=SplitOptions)


def resolve_and_split(config: SplitOptionsT) -> tuple[SplitOptionsT, splits.Split]:
    """Return a stage's options with default sizes filled in, and the task's split.

    Raises:
        ConfigError: the task is not found, or has fewer rows than requested.
    """
    task, pool = tasks.find(config.task), _pool(config.task, config.data_dir, config.balance)
    resolved = replace(  # type: ignore[type-var]
        config,
        train_size=config.train_size or min(task.train_size, pool.train_rows()),
        test_size=config.test_size or min(task.test_size, pool.test_rows()),
    )
    return resolved, _split(config.task, config.data_dir, config.balance, config.seed, resolved.train_size, resolved.test_size)


def questions(config: SplitOptions, size: int | None) -> splits.Questions:
    """Return unlabelled rows of the training part that are in neither half of the split.

    Args:
        config: split options, with the sizes filled in.
        size: maximum number of rows; None: as many as both halves together.

    Raises:
        ConfigError: the split leaves too few rows.
    """
    assert config.train_size is not None
    pool = _pool(config.task, config.data_dir, config.balance)
    return splits.unused_questions(pool, seed=config.seed, train_size=config.train_size, size=size or config.train_size)


def rows(task: str, data_dir: str | None) -> tuple[Row, ...]:
    """Return all rows of a task, the training part first."""
    return _load(task, data_dir).train + _load(task, data_dir).heldout


@functools.lru_cache(maxsize=8)
def _load(task: str, data_dir: str | None) -> tasks.Rows:
    rows = tasks.find(task).load(Path(data_dir).expanduser() if data_dir else None)
    for reason, count in rows.skipped.items():
        LOG.info("%s: skipped %d rows, each of which %s", task, count, reason)
    return rows


@functools.lru_cache(maxsize=8)
def _pool(task: str, data_dir: str | None, balance: bool) -> splits.Pool:
    spec = tasks.find(task)
    return splits.pool(spec.key, _load(task, data_dir), classes=spec.classes, balance=balance)


@functools.lru_cache(maxsize=32)
def _split(task: str, data_dir: str | None, balance: bool, seed: int, train_size: int, test_size: int) -> splits.Split:
    pool = _pool(task, data_dir, balance)
    return splits.split_task(pool, seed=seed, train_size=train_size, test_size=test_size, balance=balance)


def mirror(data_dir: str | None) -> str | None:
    """Return the path of the public data sets' local mirror, or None if unset. Raises ConfigError if it is not a directory."""
    chosen = data_dir or os.environ.get("W2S_DATA_DIR")
    if chosen and not Path(chosen).expanduser().is_dir():
        raise must("data_dir" if data_dir else "W2S_DATA_DIR", "an existing directory", chosen)
    return chosen or None
