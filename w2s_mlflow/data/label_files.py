"""External weak labels, for example from people or an API model, read from a parquet file of ids and class probabilities."""

from __future__ import annotations

import decimal
import hashlib
from collections.abc import Sequence

import numpy as np

from w2s_mlflow.data.tables import UserTable, as_key, as_text
from w2s_mlflow.data.user_files import regular_file
from w2s_mlflow.exceptions import ConfigError
from w2s_mlflow.records import Example, SoftLabels

NUMBERS = (int, float, decimal.Decimal)
TOLERANCE = 1e-3
"""Maximum amount by which the sum of a row's probabilities may differ from 1."""


def read(path: str, classes: int) -> SoftLabels:
    """Return the labels in a file, sorted by id.

    Raises:
        ConfigError: the file is not a parquet table with columns `id` and `probabilities`, an id occurs twice, or a row does
            not hold `classes` probabilities that sum to 1.
    """
    table = UserTable("--labels", regular_file("--labels", path, "an existing parquet file"), ".parquet")
    labels = {}
    ids = []
    for number, row in table.rows({"id": "any", "probabilities": "any"}, needed=("id", "probabilities")):
        ids.append((number, _id(table, number, row["id"])))
        labels[ids[-1][1]] = _probabilities(table, number, row["probabilities"], classes)
    table.require_unique(ids, "id")
    probabilities_NC = np.array([labels[id_] for id_ in sorted(labels)], dtype=np.float32).reshape(-1, classes)
    return SoftLabels(tuple(sorted(labels)), ("",) * len(labels), probabilities_NC)


def _id(table: UserTable, number: int, value: object) -> str:
    """Return an id as text. Numbers are written as they are in the ids of a task from a user's file."""
    text = None if isinstance(value, list) else as_text(value)
    if text is None:
        raise table.error(number, "id", "an id", value)
    return text if isinstance(value, str) else as_key(text)


def _probabilities(table: UserTable, number: int, values: object, classes: int) -> list[float]:
    """Return the probabilities of a row. Hard labels may be whole numbers."""
    numbers = values if isinstance(values, list) else []
    if len(numbers) != classes or not all(isinstance(one, NUMBERS) and not isinstance(one, bool) for one in numbers):
        raise table.error(number, "probabilities", f"{classes} probabilities", values)
    probabilities = [float(one) for one in numbers]
    if not (min(probabilities) >= 0 and abs(sum(probabilities) - 1) <= TOLERANCE):
        raise table.error(number, "probabilities", "nonnegative probabilities that sum to 1", values)
    return probabilities


def check(labels: SoftLabels, examples: Sequence[Example], path: str) -> None:
    """Raise ConfigError unless every example has a label."""
    known = set(labels.ids)
    if missing := [example.id for example in examples if example.id not in known]:
        rows = f"{len(missing)} of {len(examples)} rows, such as {missing[0]}"
        raise ConfigError(
            f"--labels must have a label for every row of transfer and transfer_validation, but {path} has none for {rows} "
            "(`python -m w2s_mlflow rows` writes a file of the rows that need labels)"
        )


def digest(labels: SoftLabels) -> str:
    """Return the first 32 hex digits of the sha256 over the ids and probabilities of labels."""
    content = hashlib.sha256("\n".join(labels.ids).encode())
    content.update(np.ascontiguousarray(labels.probabilities_NC).tobytes())
    return content.hexdigest()[:32]
