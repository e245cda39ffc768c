"""List tasks and models, check which tasks have data, and write the rows of a split for labelling."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from w2s_mlflow import models, tasks
from w2s_mlflow.config import checked_dataclass, option
from w2s_mlflow.data import loading, splits
from w2s_mlflow.data.loading import mirror
from w2s_mlflow.exceptions import must
from w2s_mlflow.local.scratch import replacing
from w2s_mlflow.tasks import NotFoundError, Task

Table = list[dict[str, Any]]


def task_rows() -> Table:
    """Return one row per named task, and one per PREFIX that `--task PREFIX:PATH` accepts for tasks of a user's own file."""
    files = [{"task": f"{prefix}:PATH", "source": "your own file"} for prefix in tasks.prefixes()]
    named = [
        {
            "task": task.name,
            "head": task.head,
            "classes": task.classes,
            "positive_class": task.positive,
            "human": "" if task.human is None else f"{task.human.score:.3f} {task.human.metric}",
            "source": task.source,
            "licence": task.license,
        }
        for task in tasks.all_tasks()
    ]
    return named + files


def model_rows() -> Table:
    """Return one row per named model."""
    return [
        {
            "model": spec.name,
            "family": spec.family,
            "parameters": spec.parameters,
            "non-embedding": spec.non_embedding,
            "tier": spec.tier,
            "learning rate": spec.learning_rate,
            "pooling": spec.pooling,
            "source": spec.source or "shipped",
        }
        for spec in models.all_specs()
    ]


def check_tasks(data_dir: str | None) -> Iterator[dict[str, Any]]:
    """Load each task and yield a row with the counts of its data, or with `rows: None` if the data is not found.

    Raises:
        ConfigError: the data of a task is found, but the task cannot read its format.
    """
    mirror_path = mirror(data_dir)
    directory = Path(mirror_path).expanduser() if mirror_path else None
    for task in tasks.all_tasks():
        with contextlib.suppress(NotFoundError):
            yield _describe(task, task.load(directory))
            continue
        yield {"task": task.name, "rows": None}


def _describe(task: Task, rows: tasks.Rows) -> dict[str, Any]:
    pool = splits.pool(task.key, rows, classes=task.classes)
    all_rows = [row for part in (rows.train, rows.heldout) for row in part]
    half = min(task.train_size, pool.train_rows()) // 2
    texts = (sum(map(len, row.example.segments + row.example.candidates)) for row in all_rows)
    return {
        "task": task.name,
        "rows": len(all_rows),
        "positive_class": sum(row.label == 1 for row in all_rows) if task.classes == 2 else None,
        "groups": len({row.example.group for row in all_rows}),
        "train": pool.train_rows(),
        "halves": half,
        "selection": sum(map(len, pool.selection)),
        "test": min(task.test_size, pool.test_rows()),
        "longest text": max(texts),
        "left out": "; ".join(f"{count} {reason}" for reason, count in rows.skipped.items()),
    }


@checked_dataclass
class Config:
    """Options for writing the rows of a split without labels."""

    task: str = option(default="chess", lookup=tasks.find)
    """Task: a name that the command `tasks` lists, or PREFIX:PATH for a file of your own."""
    seed: int = option(default=0, ge=0, lt=2**32)
    """Seed of the split."""
    train_size: int | None = option(default=None, ge=1)
    """Number of training rows. Use the same value for the student that trains on the labels. `auto`: the task's default."""
    test_size: int | None = option(default=None, ge=1)
    """Number of test rows. Use the same value for the student. `auto`: the task's default."""
    balance: bool = False
    """Whether to balance the classes of supervision, selection and test. Use the same value for the student."""
    data_dir: str | None = option(default=None)
    """Directory with a mirror of public data sets. Default: W2S_DATA_DIR, else the Hugging Face hub."""
    out: str = "rows.parquet"
    """Parquet file to write, with the columns id, part, segments and candidates. Label the rows of the parts `transfer` and
    `transfer_validation`, and those of `test` if the accuracy of the labels is to be measured."""


def write_rows(config: Config) -> dict[str, int]:
    """Write the rows of a split without labels, and return the number of rows in each part.

    Raises:
        ConfigError: the task has too few rows for the split, or `out` is not a file in an existing directory.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    out = Path(config.out)
    if not config.out or not out.parent.is_dir() or (out.exists() and not out.is_file()):
        raise must("out", "a file in an existing directory", repr(config.out))
    _, split, _ = loading.resolve_and_split(replace(config, data_dir=mirror(config.data_dir)))
    rows = [{"part": part, **asdict(example)} for part, examples in split.parts().items() for example in examples]
    names = ("id", "part", "segments", "candidates")
    table = pa.table({name: [row[name] for row in rows] for name in names})
    with replacing(out) as partial:
        pq.write_table(table, partial)
    return dict(Counter(row["part"] for row in rows))
