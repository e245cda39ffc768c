"""The task `file:PATH`, which is built from a user's file in the format parquet, CSV or JSON lines.

The file must have a column `text`. It may have the columns `text_pair` (the second text of a pair), `label` (0 or 1, needed for
scoring), `group` (rows with the same value stay in the same part of a split), `id`, and `part` ("train" or "heldout"). If no
row is marked as held out, one in five groups, chosen by hash, is held out.
"""

from __future__ import annotations

import functools
from collections import Counter
from pathlib import Path

from w2s_mlflow.exceptions import ConfigError
from w2s_mlflow.records import NO_LABEL, Rows
from w2s_mlflow.tasks import Task, _files
from w2s_mlflow.tasks._groups import by_group, digest
from w2s_mlflow.tasks._rows import ParsedRow, Source

TASKS: tuple[Task, ...] = ()


def load(option: str, path: Path) -> Rows:
    """Return the rows of a file.

    Raises:
        ConfigError: an id occurs twice, or a text, label or part is invalid.
    """
    numbered = _files.checked(option, path, ("text",), ("text_pair",))
    rows = [{**row, "label": _label(option, number, row)} for number, row in numbered]
    ids = [id_ for row in rows if (id_ := row.get("id")) is not None]
    if repeated := [id_ for id_, count in Counter(ids).items() if count > 1]:
        raise ConfigError(f"{option} must have unique values in the column id, but {repeated[0]!r} occurs twice")
    return _files.split_by_part(_read, rows)


FILES = {"file": functools.partial(_files.task, "file", load=load, head="classification", positive="the file's label 1")}


def _read(row: Source, part: str) -> ParsedRow:
    segments = tuple(row[name] for name in ("text", "text_pair") if row.get(name) is not None)
    id_ = str(row["id"]) if row.get("id") is not None else f"{part}-{digest(*segments)}"
    return ParsedRow(id_, segments, row["label"], by_group(row.get("group")))


def _label(option: str, number: int, row: Source) -> int:
    label = row.get("label", NO_LABEL)
    if isinstance(label, str) and label in ("0", "1"):
        return int(label)
    if label in (0, 1) or "label" not in row:
        return int(label)
    raise ConfigError(f"{option} must have 0 or 1 in the column label, but row {number} has {label!r}")
