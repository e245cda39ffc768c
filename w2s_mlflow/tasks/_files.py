"""A user's own rows: parquet, CSV or JSON lines, by the suffix."""

from __future__ import annotations

import csv
import json
from collections.abc import Collection, Iterator
from pathlib import Path

from w2s_mlflow.config import ConfigError
from w2s_mlflow.tasks._rows import Source

SUFFIXES = (".parquet", ".csv", ".jsonl")


def rows(option: str, path: Path, needed: Collection[str]) -> Iterator[Source]:
    """The rows of a file by column; a CSV's values are text, empty ones None.

    Args:
        option: what the user wrote, for the sentence of an error.
        needed: the columns that it must have.

    Raises:
        ConfigError: it is not there, not what its suffix says, or lacks a column.
    """
    if path.suffix not in SUFFIXES:
        raise ConfigError(f"{option} must be a file ending in {', '.join(SUFFIXES)}, got {path}")
    if not path.is_file():
        raise ConfigError(f"{option} must be a file, there is none at {path}")
    try:
        found = {".parquet": _parquet, ".csv": _csv, ".jsonl": _json_lines}[path.suffix](path)
        for number, row in enumerate(found, start=1):
            if missing := [name for name in needed if name not in row]:
                raise ConfigError(f"{option} must have the column {missing[0]}, row {number} of {path} has {', '.join(row)}")
            yield row
    except (OSError, UnicodeDecodeError, csv.Error, json.JSONDecodeError, TypeError) as error:
        said = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ConfigError(f"{option} must be what its suffix says, {path} cannot be read as {path.suffix}: {said}") from error


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
                raise csv.Error(f"a line has {'more' if None in row else 'fewer'} values than the first one names")
            yield {name: value or None for name, value in row.items()}


def _json_lines(path: Path) -> Iterator[Source]:
    with path.open(encoding="utf-8") as file:
        for line in file:
            if line.strip():
                row = json.loads(line)
                if not isinstance(row, dict):
                    raise TypeError(f"a line must be a JSON object, got {line.strip()[:40]}")
                yield row
