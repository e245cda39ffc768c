"""External weak labels, for example from people or an API model, read from a parquet file of ids and class probabilities."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from w2s_mlflow.exceptions import ConfigError, first_line
from w2s_mlflow.records import Example, Floats, SoftLabels

TOLERANCE = 1e-3
"""Maximum amount by which the sum of a row's probabilities may differ from 1."""


def read(path: str, classes: int) -> SoftLabels:
    """Return the labels in a file, sorted by id.

    Raises:
        ConfigError: the file is not a parquet table with columns `id` and `probabilities`, an id occurs twice, or a row does
            not hold `classes` probabilities that sum to 1.
    """
    columns = _columns(Path(path).expanduser())
    ids = [str(id_) for id_ in columns["id"]]
    if repeated := [id_ for id_, count in Counter(ids).items() if count > 1]:
        raise ConfigError(f"--labels must have unique values in the column id, but {repeated[0]!r} occurs twice in {path}")
    probabilities_NC = _probabilities(columns["probabilities"], ids, classes)
    order = sorted(range(len(ids)), key=ids.__getitem__)
    return SoftLabels(tuple(ids[row] for row in order), ("",) * len(ids), probabilities_NC[order])


def _columns(file: Path) -> dict[str, list[Any]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(file)
    except (pa.ArrowException, OSError) as error:
        raise ConfigError(f"--labels must be a parquet file, but {file} cannot be read: {first_line(error)}") from error
    for name in ("id", "probabilities"):
        if name not in table.column_names:
            raise ConfigError(f"--labels must have the column {name}, but {file} has only {', '.join(table.column_names)}")
    columns: dict[str, list[Any]] = table.select(["id", "probabilities"]).to_pydict()
    return columns


def _probabilities(values: Sequence[Any], ids: Sequence[str], classes: int) -> Floats:
    for id_, row in zip(ids, values, strict=True):
        if not isinstance(row, list) or len(row) != classes or not all(isinstance(value, float) for value in row):
            raise ConfigError(f"--labels must have {classes} probabilities in each row, but the row {id_} has {row}")
        if not (min(row) >= 0 and abs(sum(row) - 1) <= TOLERANCE):
            raise ConfigError(f"--labels must have nonnegative probabilities that sum to 1, but the row {id_} has {row}")
    return np.array(values, dtype=np.float32).reshape(-1, classes)


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
