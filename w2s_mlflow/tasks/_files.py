"""Functions that build a task from a user's file. The file's suffix determines its format: parquet, CSV or JSON lines."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping

from w2s_mlflow.data.tables import Cells, Kind, UserTable
from w2s_mlflow.records import Rows
from w2s_mlflow.tasks import Task
from w2s_mlflow.tasks._hub import TEST_SIZE, TRAIN_SIZE
from w2s_mlflow.tasks._rows import Reader, Source, assemble

PARTS = ("train", "heldout")
GROUPED: Mapping[str, Kind] = {"group": "key", "id": "key", "part": "key"}
"""Optional columns of a file of texts."""


def opened(name: str) -> UserTable:
    """Return the table of a task `PREFIX:PATH`, after reading one row, so that an unreadable file is reported immediately.

    Raises:
        ConfigError: the file does not exist or cannot be read.
    """
    table = UserTable.open(f"--task {name}", name.partition(":")[2])
    next(table.rows({}), None)
    return table


def task(family: str, path: str, load: Callable[[UserTable], Rows], head: str, positive: str) -> Task:
    """Build a binary task from a user's file.

    The task's splits depend on the file's name but not on its directory.

    Args:
        family: name of the plug-in file, which is also the prefix of the task's name.
        load: function that returns the rows of the file.

    Raises:
        ConfigError: the file does not exist or cannot be read.
    """
    name = f"{family}:{path}"
    table = opened(name)
    return Task(
        name=name,
        family=family,
        head=head,
        classes=2,
        load=lambda data_dir: load(table),
        train_size=TRAIN_SIZE,
        test_size=TEST_SIZE,
        positive=positive,
        source=table.file.name,
        license="the file's own",
        key=table.file.stem,
    )


def grouped_rows(table: UserTable, columns: Mapping[str, Kind], texts: Iterable[str]) -> Iterator[tuple[int, Cells]]:
    """Yield the number and the cells of each row, with the columns GROUPED, after checking its texts and its part.

    Args:
        columns: further columns to read, with their kinds.
        texts: the columns among them that must hold text in every row.

    Raises:
        ConfigError: the file cannot be used (see `UserTable.rows`), a text is missing, or a part is not in PARTS.
    """
    for number, row in table.rows({**columns, **GROUPED}, needed=tuple(texts)):
        for name in texts:
            if row[name] is None:
                raise table.error(number, name, "text", None)
        if row["part"] not in (None, *PARTS):
            raise table.error(number, "part", " or ".join(PARTS), row["part"])
        yield number, row


def split_by_part(read: Reader, rows: Iterable[Source]) -> Rows:
    """Parse rows and divide them by their column `part`. Rows without a part belong to the part `train`.

    If no row has the part `heldout`, one in HELDOUT_SHARE groups, chosen by hash, is held out.
    """
    parts: dict[str, list[Source]] = {part: [] for part in PARTS}
    for row in rows:
        parts[row["part"] or PARTS[0]].append(row)
    return assemble(read, parts["train"], parts["heldout"] or None)
