"""The task `file:PATH`, which is built from a user's file in the format parquet, CSV or JSON lines.

The file must have a column `text`. It may have the columns `text_pair` (the second text of a pair), `label` (0 or 1, needed for
scoring), `group` (rows with the same value stay in the same part of a split), `id`, and `part` ("train" or "heldout"). Cells of
these columns may be empty. If no row is marked as held out, one in five groups, chosen by hash, is held out.
"""

from __future__ import annotations

import functools

from w2s_mlflow.data.tables import UserTable
from w2s_mlflow.records import NO_LABEL, Rows
from w2s_mlflow.tasks import Task, _files
from w2s_mlflow.tasks._groups import by_group, digest
from w2s_mlflow.tasks._rows import ParsedRow, Source

TASKS: tuple[Task, ...] = ()
LABELS = {"0": 0, "1": 1, "false": 0, "true": 1, None: NO_LABEL}
"""Labels by the text of their cells (see data/tables.py). An empty cell is no label."""


def load(table: UserTable) -> Rows:
    """Return the rows of a file.

    Raises:
        ConfigError: an id occurs twice, or a text, label or part is invalid.
    """
    numbered = list(_files.grouped_rows(table, {"text": "text", "text_pair": "text", "label": "key"}, ["text"]))
    table.require_unique(((number, row["id"]) for number, row in numbered), "id")
    rows = [{**row, "label": _label(table, number, row["label"])} for number, row in numbered]
    return _files.split_by_part(_read, rows)


FILES = {"file": functools.partial(_files.task, "file", load=load, head="classification", positive="the file's label 1")}


def _read(row: Source, part: str) -> ParsedRow:
    segments = tuple(row[name] for name in ("text", "text_pair") if row[name] is not None)
    return ParsedRow(row["id"] or f"{part}-{digest(*segments)}", segments, row["label"], by_group(row["group"]))


def _label(table: UserTable, number: int, label: str | None) -> int:
    if label not in LABELS:
        raise table.error(number, "label", "0 or 1", label)
    return LABELS[label]
