"""Functions that load a task's rows and split them for a run. Rows and splits are cached within the process."""

from __future__ import annotations

import functools
import logging
import os
from dataclasses import replace
from pathlib import Path
from typing import Protocol, TypeVar

from w2s_mlflow import tasks
from w2s_mlflow.data import containment, splits
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


def resolve_and_split(config: SplitOptionsT) -> tuple[SplitOptionsT, splits.Split, tasks.Task]:
    """Return three things: the options with default sizes filled in, the task's split, and the task itself.

    Raises:
        ConfigError: the task is not found, or has fewer rows than requested.
    """
    (task, _), pool = _load(config.task, config.data_dir), _pool(config.task, config.data_dir, config.balance)
    sized = replace(  # type: ignore[type-var]
        config,
        train_size=config.train_size or min(task.train_size, pool.train_rows()),
        test_size=config.test_size or min(task.test_size, pool.test_rows()),
    )
    source = (config.task, config.data_dir, config.balance)
    return sized, _split(*source, config.seed, sized.train_size, sized.test_size), task


def questions(config: SplitOptions, size: int | None) -> splits.Questions:
    """Return training rows, without labels, that the split leaves outside both halves (`supervision` and `transfer`).

    Args:
        config: split options, with the sizes filled in.
        size: maximum number of rows; None means the number of rows in both halves together.

    Raises:
        ConfigError: the split leaves too few rows.
    """
    assert config.train_size is not None
    pool = _pool(config.task, config.data_dir, config.balance)
    return splits.unused_questions(pool, seed=config.seed, train_size=config.train_size, size=size or config.train_size)


def rows(task: str, data_dir: str | None) -> tuple[Row, ...]:
    """Return all rows of a task: first the training part, then the held-out part."""
    _, loaded = _load(task, data_dir)
    return loaded.train + loaded.heldout


@functools.lru_cache(maxsize=8)
def _load(name: str, data_dir: str | None) -> tuple[tasks.Task, tasks.Rows]:
    task = tasks.find(name)
    rows = task.load(Path(data_dir).expanduser() if data_dir else None)
    for reason, count in rows.skipped.items():
        LOG.info("%s: skipped %d rows, each of which %s", name, count, reason)
    if rows.moved:
        LOG.info("%s: moved %d rows of the training part to the held-out part, the same for all seeds", name, rows.moved)
    return task, rows


@functools.lru_cache(maxsize=8)
def _pool(name: str, data_dir: str | None, balance: bool) -> splits.Pool:
    task, rows = _load(name, data_dir)
    return splits.pool(task.key, rows, classes=task.classes, balance=balance, partners=_partners(name, data_dir))


@functools.lru_cache(maxsize=8)
def _partners(name: str, data_dir: str | None) -> containment.Partners:
    return containment.partners(_load(name, data_dir)[1])


@functools.lru_cache(maxsize=32)
def _split(task: str, data_dir: str | None, balance: bool, seed: int, train_size: int, test_size: int) -> splits.Split:
    pool = _pool(task, data_dir, balance)
    split = splits.split_task(pool, seed=seed, train_size=train_size, test_size=test_size, balance=balance)
    for part, count in split.dropped.items():
        LOG.info("%s, seed %d: dropped %d rows of %s, which contain or are contained in others", task, seed, count, part)
    return split


def mirror(data_dir: str | None) -> str | None:
    """Return the directory of the local mirror of public data sets, or None if no mirror is set.

    If `data_dir` is not given, the environment variable W2S_DATA_DIR is used.

    Raises ConfigError if the directory does not exist.
    """
    chosen = data_dir or os.environ.get("W2S_DATA_DIR")
    if chosen and not Path(chosen).expanduser().is_dir():
        raise must("data_dir" if data_dir else "W2S_DATA_DIR", "an existing directory", chosen)
    return chosen or None
