"""Functions that build a task from a user's file. The file's suffix determines its format: parquet, CSV or JSON lines."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Collection, Iterable, Iterator
from pathlib import Path

from w2s_mlflow.exceptions import ConfigError, first_line
from w2s_mlflow.records import Rows
from w2s_mlflow.tasks import Task
from w2s_mlflow.tasks._hub import TEST_SIZE, TRAIN_SIZE
from w2s_mlflow.tasks._rows import Reader, Source, assemble

SUFFIXES = (".parquet", ".csv", ".jsonl")
PARTS = ("train", "heldout")


def task(family: str, path: str, load: Callable[[str, Path], Rows], head: str, positive: str) -> Task:
    """Build a binary task from a user's file.

    The task's splits depend on the file's name but not on its directory.

    Args:
        family: name of the plug-in file, which is also the prefix of the task's name.
        load: function that returns the file's rows. Its arguments are the option's text for error messages, and the file.

    Raises:
        ConfigError: the file does not exist or cannot be read.
    """
    name, file = f"{family}:{path}", Path(path).expanduser()
    option = f"--task {name}"
    next(rows(option, file, ()), None)  # read one row now, so that an unreadable file is reported immediately
    return Task(
        name=name,
        family=family,
        head=head,
        classes=2,
        load=lambda data_dir: load(option, file),
        train_size=TRAIN_SIZE,
        test_size=TEST_SIZE,
        positive=positive,
        source=file.name,
        license="the file's own",
        key=file.stem,
    )


def checked(option: str, path: Path, needed: Collection[str], optional: Collection[str] = ()) -> Iterator[tuple[int, Source]]:
    """Yield (number, row) for each row, with numbers counted from 1, after checking its texts and its column `part`.

    Args:
        needed: columns that must hold non-empty text.
        optional: columns that, if present and not null, must hold non-empty text.

    Raises:
        ConfigError: the file cannot be used (see `rows`), a text is empty, or a value in the column `part` is not in PARTS.
    """
    for number, row in enumerate(rows(option, path, needed), start=1):
        for name in (*needed, *(name for name in optional if row.get(name) is not None)):
            if not isinstance(row[name], str) or not row[name].strip():
                raise ConfigError(f"{option} must have text in the column {name}, but row {number} has {row[name]!r}")
        if row.get("part", PARTS[0]) not in PARTS:
            raise ConfigError(
                f"{option} must have {' or '.join(PARTS)} in the column part, but row {number} has {row['part']!r}"
            )
        yield number, row


def split_by_part(read: Reader, rows: Iterable[Source]) -> Rows:
    """Parse rows and divide them by their column `part`. Rows without this column belong to the part `train`.

    If no row has the part `heldout`, one in HELDOUT_SHARE groups, chosen by hash, is held out.
    """
    parts: dict[str, list[Source]] = {part: [] for part in PARTS}
    for row in rows:
        parts[row.get("part", PARTS[0])].append(row)
    return assemble(read, parts["train"], parts["heldout"] or None)


def rows(option: str, path: Path, needed: Collection[str]) -> Iterator[Source]:
    """Yield each row of a file as a mapping of columns to values. Values of a CSV file are strings, or None if they are empty.

    Args:
        option: the option as the user wrote it, for error messages.
        needed: the columns that the file must have.

    Raises:
        ConfigError: the file does not exist, is not in the format of its suffix, or lacks a column.
    """
    if path.suffix not in SUFFIXES:
        raise ConfigError(f"{option} must be a file whose name ends in {', '.join(SUFFIXES)}, got {path}")
    if not path.is_file():
        raise ConfigError(f"{option} must be an existing file, got {path}")
    try:
        reader = {".parquet": _parquet, ".csv": _csv, ".jsonl": _json_lines}[path.suffix](path)
        for number, row in enumerate(reader, start=1):
            if missing := [name for name in needed if name not in row]:
                raise ConfigError(
                    f"{option} must have the column {missing[0]}, but row {number} of {path} has only {', '.join(row)}"
                )
            yield row
    except (OSError, UnicodeDecodeError, csv.Error, json.JSONDecodeError, TypeError) as error:
        raise ConfigError(
            f"{option} must be a valid {path.suffix} file, but {path} cannot be read: {first_line(error)}"
        ) from error


def _parquet(path: Path) -> Iterator[Source]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        for batch in pq.ParquetFile(path).iter_batches(10_000):
            yield from batch.to_pylist()
    except pa.ArrowException as error:
        raise OSError(str(error)) from error


def _csv(path: Path) -> Iterator[Source]:
    with path.open(newline="", encoding="utf-8-sig") as file:
        for row in csv.DictReader(file, strict=True):
            if None in row or None in row.values():
                raise csv.Error(f"a line has {'more' if None in row else 'fewer'} values than the header")
            yield {name: value or None for name, value in row.items()}


def _json_lines(path: Path) -> Iterator[Source]:
    with path.open(encoding="utf-8") as file:
        for line in file:
            if line.strip():
                row = json.loads(line)
                if not isinstance(row, dict):
                    raise TypeError(f"a line must be a JSON object, got {line.strip()[:40]}")
                yield row
