"""Files that this package keeps for itself, such as caches. Each carries a sha256 of its content and is written atomically.

A file whose digest does not match counts as missing, so what it held is made again. Nothing is ever read from a damaged file.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from w2s_mlflow.local.scratch import replacing

if TYPE_CHECKING:
    import pyarrow as pa

SEPARATOR = b"\n"


def write(file: Path, content: bytes, *, durable: bool = False) -> None:
    """Write the digest and the content.

    Args:
        durable: whether to flush the file to disk before it counts as written, for files that cannot be made anew.

    Raises:
        OSError: for example, the disk is full.
    """
    with replacing(file) as partial, partial.open("wb") as opened:
        opened.write(digest(content) + SEPARATOR + content)
        if durable:
            opened.flush()
            os.fsync(opened.fileno())


def read(file: Path) -> bytes | None:
    """Return the content of a file, or None if the file is missing, unreadable or damaged."""
    try:
        recorded, _, content = file.read_bytes().partition(SEPARATOR)
    except OSError:
        return None
    return content if recorded == digest(content) else None


def write_tables(file: Path, tables: Sequence[pa.Table]) -> None:
    """Write tables in Arrow's IPC format. A file that cannot be written is left out, because it only saves time."""
    import pyarrow as pa

    sink = pa.BufferOutputStream()
    for table in tables:
        with pa.ipc.new_stream(sink, table.schema) as stream:
            stream.write_table(table)
    with contextlib.suppress(OSError):
        write(file, sink.getvalue().to_pybytes())


def read_tables(file: Path, count: int) -> list[pa.Table] | None:
    """Return the `count` tables of a file, or None if the file is missing or damaged."""
    import pyarrow as pa

    if (content := read(file)) is None:
        return None
    source = pa.BufferReader(content)
    try:
        return [pa.ipc.open_stream(source).read_all() for _ in range(count)]
    except pa.ArrowException:  # another version of this package wrote another number of tables
        return None


def digest(content: bytes) -> bytes:
    """Return the hexadecimal sha256 of a content."""
    return hashlib.sha256(content).hexdigest().encode()
