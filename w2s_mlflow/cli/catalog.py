"""List tasks and models, check which tasks have data, and write the rows of a split for labelling."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from w2s_mlflow import models, tasks
from w2s_mlflow.config import checked_dataclass, option
from w2s_mlflow.data import containment, loading, splits
from w2s_mlflow.data.loading import mirror
from w2s_mlflow.exceptions import ConfigError, must
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
    train_size, test_size = min(task.train_size, pool.train_rows()), min(task.test_size, pool.test_rows())
    dropped = _dropped(pool, train_size, test_size)
    groups = Counter(row.example.group for row in all_rows)
    texts = (sum(map(len, row.example.segments + row.example.candidates)) for row in all_rows)
    return {
        "task": task.name,
        "rows": len(all_rows),
        "positive_class": sum(row.label == 1 for row in all_rows) if task.classes == 2 else None,
        "groups": len(groups),
        "largest group": max(groups.values()),
        "joined by": ", ".join(f"{name} {count:,}" for name, count in rows.joined.items()),
        "train": pool.train_rows(),
        "halves": train_size // 2,
        "selection": sum(map(len, pool.selection)),
        "test": test_size,
        "longest text": max(texts),
        "left out": "; ".join(f"{count} {reason}" for reason, count in rows.skipped.items()),
        "dropped": ", ".join(f"{part} {count:,} ({share:.1%})" for part, (count, share) in dropped.items()),
        "warning": "; ".join(_warnings(dropped)),
    }


def _dropped(pool: splits.Pool, train_size: int, test_size: int) -> dict[str, tuple[int, float]]:
    """Return the number of rows that the split of seed 0 drops because of containment, and their share, by part.

    Of a task that is too small to be split, only the held-out parts are counted.
    """
    kept = {"selection": sum(map(len, pool.selection)), "test": pool.test_rows()}
    counts = pool.dropped
    with contextlib.suppress(ConfigError):
        split = splits.split_task(pool, seed=0, train_size=train_size, test_size=test_size)
        kept, counts = {name: len(part) for name, part in split.parts().items()} | kept, split.dropped
    return {part: (count, count / (count + kept[part])) for part, count in counts.items()}


def _warnings(dropped: Mapping[str, tuple[int, float]]) -> Iterator[str]:
    for part, (_, share) in dropped.items():
        if share > containment.MANY:
            yield f"{share:.0%} of {part} contain rows of other parts or are contained in them"


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
