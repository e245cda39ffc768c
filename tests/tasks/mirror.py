"""Small mirrors of public data sets, in the hub's layout, with rows that we wrote."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

Schema = Mapping[str, pa.DataType]
"""The hub's columns, in its order, with its types."""


def write(directory: Path, table: str, split: str, schema: Schema, rows: Sequence[Mapping[str, Any]]) -> Path:
    """Write one split of `table`, such as "nyu-mll/glue/sst2", and return its file."""
    file = directory / table / f"{split}.parquet"
    file.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(list(rows), schema=pa.schema(list(schema.items()))), file)
    return file
