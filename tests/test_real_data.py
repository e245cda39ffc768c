"""What holds for made-up rows holds for real ones: every task that the mirror has loads and is cut without a leak."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from w2s_mlflow import tasks
from w2s_mlflow.data import splits
from w2s_mlflow.exceptions import ConfigError
from w2s_mlflow.tasks import Rows, Task, _hub

pytestmark = pytest.mark.data

ENOUGH = 60
"""Training rows of which three quarters can be cut."""
TASKS = {task.name: task for task in tasks.all_tasks()}


@pytest.fixture
def data_dir(monkeypatch: pytest.MonkeyPatch) -> Path:
    """The mirror; the hub is out of reach."""
    if "W2S_DATA_DIR" not in os.environ:
        pytest.skip("needs W2S_DATA_DIR, a mirror of public data sets")

    def fail(*_: object) -> None:
        raise OSError("not asked")

    monkeypatch.setattr(_hub, "_from_hub", fail)
    return Path(os.environ["W2S_DATA_DIR"])


def load(task: Task, data_dir: Path) -> Rows:
    """Its rows; skips where the mirror has no folder for a table of it, and fails where a folder lacks the file asked for."""
    try:
        return task.load(data_dir)
    except ConfigError as error:
        file = re.search(r"no file (\S+\.parquet)", str(error))
        if file is None or Path(file[1]).parent.exists():
            raise
        pytest.skip(str(error))


def pooled(task: Task, rows: Rows) -> splits.Pool:
    """Its rows in groups; skips where the mirror has a sample that is too small to be cut."""
    found = splits.pool(task.key, rows, classes=task.classes)
    if found.train_rows() < ENOUGH:
        pytest.skip(f"the mirror has {found.train_rows()} training rows of {task.name}")
    return found


@pytest.mark.parametrize("name", TASKS)
def test_task_loads_and_no_group_stands_on_two_sides(name: str, data_dir: Path) -> None:
    task = TASKS[name]
    rows = load(task, data_dir)
    labels = {row.example.id: row.label for row in (*rows.train, *rows.heldout)}
    classes = set(range(task.classes))
    assert set(labels.values()) == classes if task.classes == 2 else set(labels.values()) <= classes
    pool = pooled(task, rows)
    train_size, test_size = min(task.train_size, pool.train_rows()), min(task.test_size, pool.test_rows())
    for seed in range(3):
        parts = splits.split_task(pool, seed=seed, train_size=train_size, test_size=test_size).parts()
        groups = [{example.group for example in part} for part in parts.values()]
        assert all(groups) and sum(map(len, groups)) == len(set.union(*groups))
        for part in ("supervision", "transfer", "test") if task.classes == 2 else ():
            assert {labels[example.id] for example in parts[part]} == classes, part
        texts = [{(example.segments, example.candidates) for example in part} for part in parts.values()]
        assert sum(map(len, texts)) == len(set.union(*texts))


@pytest.mark.parametrize("name", TASKS)
def test_halves_are_as_large_as_whole_groups_allow(name: str, data_dir: Path) -> None:
    task = TASKS[name]
    pool = pooled(task, load(task, data_dir))
    size = min(task.train_size, pool.train_rows()) * 3 // 4
    cut = splits.split_task(pool, seed=1, train_size=size, test_size=min(task.test_size, pool.test_rows()))
    largest = max(map(len, pool.train))
    dropped = cut.dropped.get("transfer", 0) + cut.dropped.get("transfer_validation", 0)
    sizes = (cut.supervision + cut.supervision_validation, 0), (cut.transfer + cut.transfer_validation, dropped)
    for half, missing in sizes:
        assert size // 2 - largest < len(half) + missing <= size // 2
