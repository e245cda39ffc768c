"""Functions that read tables of the Hugging Face hub: from a local mirror if it has them, else with `datasets` and its cache.

The module _mirror.py describes how a mirror may be laid out. If the files of a mirror's copy are not parquet but, for example,
compressed JSON lines, `datasets` reads the copy.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from w2s_mlflow.data import table_formats
from w2s_mlflow.exceptions import ConfigError, first_line
from w2s_mlflow.local import hub
from w2s_mlflow.records import Rows
from w2s_mlflow.tasks import Human, NotFoundError, Task, _mirror
from w2s_mlflow.tasks._rows import Reader, Source, assemble, with_enough_heldout, without_large_groups

if TYPE_CHECKING:
    import pyarrow as pa

BATCH = 10_000
"""Number of rows converted to Python objects at a time."""
TRAIN_SIZE, TEST_SIZE = 20_000, 5_000
CONVERTED = "refs/convert/parquet"
"""Branch that holds the hub's parquet copies of data sets that need a loading script. It has a directory per configuration."""
COMMIT = 40
"""Number of hex digits of a commit hash. A revision of any other length is the name of a branch."""


@dataclass(frozen=True, kw_only=True)
class Table:
    """A table of the hub: its location and the columns that a task reads."""

    path: str
    """Hub id, such as `nyu-mll/glue`."""
    config: str = "default"
    revision: str
    """Commit of the data set's repository, or a branch if no commit is pinned."""
    columns: Mapping[str, str]
    """Columns to read, each with its kind: text, integer, number, boolean, list or struct."""
    optional: Sequence[str] = ()
    """Further columns, of any kind, that are read if the table has them."""
    by_hand: str = ""
    """Instructions for obtaining the table if the hub lacks it, so that it can be read only from the mirror; otherwise ""."""

    def __str__(self) -> str:
        return f"{self.path} ({self.config})" if self.config != "default" else self.path


@dataclass(frozen=True, kw_only=True)
class TaskSource:
    """The hub splits that form a task's training part and its labelled held-out part."""

    table: Table
    train: str = "train"
    heldout: str | None = "validation"
    """Name of the held-out split. If None, some groups of the training split, chosen by hash, are held out instead."""
    heldout_table: Table | None = None
    """Table that contains the held-out split; None if `table` contains it."""

    def __str__(self) -> str:
        revision = self.table.revision
        short = revision[:8] if len(revision) == COMMIT else revision
        return f"{self.table} at {short}" + (f", held out {self.heldout_table}" if self.heldout_table else "")

    def load(self, task: str, read: Reader, data_dir: Path | None) -> Rows:
        """Load the rows of both parts and parse them with `read`. Raises ConfigError if a table cannot be found."""
        heldout = None if self.heldout is None else rows(self.heldout_table or self.table, self.heldout, task, data_dir)
        assembled = assemble(read, rows(self.table, self.train, task, data_dir), heldout)
        return with_enough_heldout(without_large_groups(assembled, TEST_SIZE), task)


def task(
    name: str,
    family: str,
    parts: TaskSource,
    read: Reader,
    *,
    positive: str,
    license: str,
    human: Human | None = None,
    head: str = "classification",
) -> Task:
    """Build a binary task whose rows come from tables of the hub."""
    return Task(
        name=name,
        family=family,
        head=head,
        classes=2,
        load=lambda data_dir: parts.load(name, read, data_dir),
        train_size=TRAIN_SIZE,
        test_size=TEST_SIZE,
        positive=positive,
        source=str(parts),
        license=license,
        human=human,
    )


def rows(table: Table, split: str, task: str, data_dir: Path | None) -> Iterator[Source]:
    """Load one split of a table and return an iterator over its rows. The rows are converted to Python objects in batches.

    Raises:
        ConfigError: the table cannot be found (the message lists the places tried), or a column is missing or of a wrong kind.
    """
    batches = arrow(table, split, task, data_dir).to_batches(max_chunksize=BATCH)
    return (row for batch in batches for row in batch.to_pylist())


def arrow(table: Table, split: str, task: str, data_dir: Path | None) -> pa.Table:
    """Return one split as an Arrow table, with the columns that the task reads.

    Raises:
        NotFoundError: the split cannot be found.
        ConfigError: a file of the mirror is damaged or missing, or a column is missing or of a wrong kind.
    """
    loaded = None if data_dir is None else _from_mirror(table, split, task, data_dir)
    if loaded is None:
        loaded = _from_elsewhere(table, split, task, data_dir)
    check_columns(loaded.schema, table.columns, f"{table}, split {split}")
    return loaded.select([*table.columns, *(name for name in table.optional if name in loaded.column_names)])


def _from_mirror(table: Table, split: str, task: str, data_dir: Path) -> pa.Table | None:
    """Return one split from the parquet files of a mirror, or None if the mirror has none."""
    import pyarrow as pa

    shards = []
    for file in _mirror.files(data_dir, table.path, table.config, table.revision, split):
        try:
            check_columns(table_formats.parquet_schema(file), table.columns, f"{table}, split {split}")
            shards.append(table_formats.parquet_table(file, [*table.columns, *table.optional]))
        except table_formats.FormatError as error:
            raise ConfigError(f"--task {task} needs {file}, which cannot be read: {error}") from error
    return pa.concat_tables(shards, promote_options="permissive") if shards else None


def _from_elsewhere(table: Table, split: str, task: str, data_dir: Path | None) -> pa.Table:
    """Return one split from a copy of the data set in the mirror, whatever its format, or from the hub."""
    file = f"{table.path}/{table.config}/{split}.parquet"
    tried = [] if data_dir is None else [f"no file {data_dir / file}"]
    if table.by_hand:
        missing = tried[0] if tried else f"no --data-dir with a file {file}"
        raise NotFoundError(f"--task {task} needs {table}, split {split}, but there is {missing} ({table.by_hand})")
    for repository in _mirror.repositories(data_dir, table.path, table.revision) if data_dir is not None else []:
        try:
            return _from_repository(str(repository), table, split)
        except Exception as error:  # as below
            tried.append(f"{repository}: {first_line(error)}")
    try:
        return _from_hub(table, split)
    except Exception as error:
        # The hub's client raises many exception types, for instance for a missing or gated data set or a timeout.
        tried.append(f"the hub and its cache: {first_line(error)}")
    raise NotFoundError(f"--task {task} needs {table}, split {split}, which cannot be loaded ({'; '.join(tried)})")


def _from_hub(table: Table, split: str) -> pa.Table:
    hub.detect_offline()
    return _from_repository(table.path, table, split, revision=table.revision)


def _from_repository(path: str, table: Table, split: str, **revision: str) -> pa.Table:
    """Read one split with `datasets`, from the hub or from a directory that holds a copy of the data set."""
    import datasets

    progress_bar = datasets.is_progress_bar_enabled()
    datasets.disable_progress_bars()
    try:
        config = None if table.config == _mirror.DEFAULT else table.config
        options: dict[str, Any] = {"data_dir" if table.revision == CONVERTED else "name": config}
        dataset = datasets.load_dataset(path, split=split, **revision, **options)  # nosec B615
    finally:
        if progress_bar:
            datasets.enable_progress_bars()
    return dataset.with_format("arrow")[:]


def check_columns(schema: pa.Schema, columns: Mapping[str, str], source: str) -> None:
    """Raise ConfigError unless the schema has all the columns and each is of the expected kind."""
    missing = [name for name in columns if name not in schema.names]
    if missing:
        raise ConfigError(f"{source} must have the column {missing[0]}, but it has only {', '.join(schema.names)}")
    for name, kind in columns.items():
        if not _has_kind(schema.field(name).type, kind):
            raise ConfigError(f"{source} must have a column {name} of type {kind}, got {schema.field(name).type}")


def _has_kind(column_type: Any, kind: str) -> bool:
    import pyarrow.types as types

    tests: dict[str, Sequence[Any]] = {
        "text": (types.is_string, types.is_large_string, types.is_string_view),
        "integer": (types.is_integer,),
        "number": (types.is_floating, types.is_integer),
        "boolean": (types.is_boolean,),
        "list": (types.is_list, types.is_large_list),
        "struct": (types.is_struct,),
    }
    if types.is_dictionary(column_type):
        column_type = column_type.value_type
    return any(test(column_type) for test in tests[kind])
