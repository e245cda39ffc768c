"""Readers of the three formats of a user's table. They yield the requested cells of each row as the file holds them.

Whatever a file contains, a reader ends in a FormatError, which says where the file is wrong, and never in an exception of the
library that reads it. A cell that cannot be converted becomes `Unreadable`, so that the caller can name its row and column.
"""

from __future__ import annotations

import codecs
import contextlib
import csv
import json
import sys
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from w2s_mlflow.data.user_files import printable
from w2s_mlflow.exceptions import first_line

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

BATCH = 10_000
"""Number of rows of a parquet file that are converted to Python objects at a time."""
MOST_ROWS = 10**9
"""Maximum number of rows that a parquet file may declare."""
EXPANSION, SMALL = 1_000, 2**30
"""A parquet file may declare columns of at most SMALL bytes or, if this is more, EXPANSION times the size of the file."""
MARKS = {
    codecs.BOM_UTF32_LE: "UTF-32",
    codecs.BOM_UTF32_BE: "UTF-32",
    codecs.BOM_UTF16_LE: "UTF-16",
    codecs.BOM_UTF16_BE: "UTF-16",
}
"""Byte order marks of encodings that are not read. That of UTF-32 comes first, because it begins with that of UTF-16."""
DIGITS = 4_000
"""A JSON number of more digits is kept as text, because Python does not convert longer ones."""


class FormatError(Exception):
    """A file is not in the format of its suffix. The message says where and why, in one line."""


@dataclass(frozen=True)
class Unreadable:
    """Stands for a cell that cannot be converted to a Python object, such as a time stamp of the year 10000."""

    reason: str


@dataclass(frozen=True)
class RawRow:
    """The requested cells of one row, by column, and the names of all columns that the row has."""

    cells: Mapping[str, Any]
    names: Collection[str]


# --- CSV --------------------------------------------------------------------------------------------------------------


def csv_rows(file: Path, columns: Collection[str]) -> Iterator[RawRow]:
    """Yield the rows of a CSV file in UTF-8, whose first line names the columns.

    Bytes that are not UTF-8 become surrogates, so that only those in the requested columns matter.
    """
    _require_utf8(file)
    csv.field_size_limit(max(csv.field_size_limit(), min(file.stat().st_size + 1, sys.maxsize)))
    try:
        with file.open(newline="", encoding="utf-8-sig", errors="surrogateescape") as opened:
            reader = csv.reader(opened, strict=True)
            try:
                header = next(reader, [])
                _require_once(header, columns, "the header")
                for values in filter(None, reader):
                    if len(values) != len(header):
                        more = "more" if len(values) > len(header) else "fewer"
                        raise FormatError(f"line {reader.line_num} has {more} values than the header")
                    yield RawRow({name: value for name, value in zip(header, values, strict=True) if name in columns}, header)
            except csv.Error as error:
                raise FormatError(f"line {reader.line_num}: {error}") from error
    except OSError as error:
        raise FormatError(first_line(error)) from error


def _require_utf8(file: Path) -> None:
    """Raise FormatError if a file begins as one in UTF-16 or UTF-32 does. Excel and PowerShell write such files."""
    try:
        with file.open("rb") as opened:
            start = opened.read(4)
    except OSError as error:
        raise FormatError(first_line(error)) from error
    unmarked = "UTF-16 or UTF-32" if b"\0" in start else None
    if encoding := next((name for mark, name in MARKS.items() if start.startswith(mark)), unmarked):
        raise FormatError(f"it is encoded in {encoding}; save it in UTF-8")


# --- JSON lines -------------------------------------------------------------------------------------------------------


class _Object(dict[str, Any]):
    """A JSON object, with the keys that occur twice in it."""

    repeated: tuple[str, ...] = ()


def json_rows(file: Path, columns: Collection[str]) -> Iterator[RawRow]:
    """Yield the rows of a file with one JSON object per line. Empty lines are skipped."""
    _require_utf8(file)
    decoder = json.JSONDecoder(object_pairs_hook=_object, parse_int=_integer)
    try:
        with file.open(encoding="utf-8-sig", errors="surrogateescape") as opened:
            for number, line in enumerate(opened, start=1):
                if line.strip():
                    row = _json_object(decoder, line.strip(), number)
                    _require_once(row.repeated, columns, f"line {number}", twice=1)
                    yield RawRow({name: row[name] for name in columns if name in row}, row)
    except OSError as error:
        raise FormatError(first_line(error)) from error


def _json_object(decoder: json.JSONDecoder, line: str, number: int) -> _Object:
    try:
        row = decoder.decode(line)
    except json.JSONDecodeError as error:
        raise FormatError(f"line {number}, column {error.colno}: {error.msg}") from error
    except RecursionError as error:
        raise FormatError(f"line {number}: it has too many lists or objects inside each other") from error
    if not isinstance(row, _Object):
        raise FormatError(f"line {number}: a line must be a JSON object, got {printable(line[:40])}")
    return row


def _object(pairs: list[tuple[str, Any]]) -> _Object:
    row = _Object(pairs)
    if len(row) < len(pairs):
        row.repeated = tuple(name for name, count in Counter(name for name, _ in pairs).items() if count > 1)
    return row


def _integer(digits: str) -> int | str:
    return int(digits) if len(digits) <= DIGITS else digits


def _require_once(names: Iterable[str], columns: Collection[str], place: str, *, twice: int = 2) -> None:
    """Raise FormatError if a requested column is named at least `twice` times."""
    for name, count in Counter(names).items():
        if count >= twice and name in columns:
            raise FormatError(f"{place} has two columns of the name {name}")


# --- parquet ----------------------------------------------------------------------------------------------------------


def parquet_rows(file: Path, columns: Collection[str]) -> Iterator[RawRow]:
    """Yield the rows of a parquet file."""
    opened = _parquet_file(file, columns)
    names = opened.schema_arrow.names
    requested = [name for name in names if name in columns]
    if not requested and opened.metadata.num_rows:
        yield RawRow({}, names)  # lets the caller notice that a needed column is missing
    for batch in _batches(opened, requested):
        values = [_cells(column) for column in batch.columns]
        for number in range(batch.num_rows):
            cells = {name: column[number] for name, column in zip(batch.schema.names, values, strict=True)}
            yield RawRow(cells, names)


def parquet_table(file: Path, columns: Collection[str]) -> pa.Table:
    """Return the requested columns of a parquet file. Columns that the file does not have are left out.

    Raises:
        FormatError: the file is no parquet file, is damaged, has a column twice, or declares more than it can hold.
    """
    opened = _parquet_file(file, columns)
    with _as_format_errors():
        return opened.read(columns=[name for name in opened.schema_arrow.names if name in columns])


def parquet_schema(file: Path) -> pa.Schema:
    """Return the names and types of the columns of a parquet file. Raises FormatError if it cannot be read."""
    return _parquet_file(file, ()).schema_arrow


def _batches(opened: pq.ParquetFile, requested: list[str]) -> Iterator[pa.RecordBatch]:
    if requested:
        with _as_format_errors():
            yield from opened.iter_batches(BATCH, columns=requested)


def _parquet_file(file: Path, columns: Collection[str]) -> pq.ParquetFile:
    """Open a parquet file, after checking what it declares: its columns, the number of its rows and the sizes of its parts."""
    import pyarrow.parquet as pq

    with _as_format_errors():
        opened = pq.ParquetFile(file)
        _require_once(opened.schema_arrow.names, columns, "the schema")
        _check_declared(opened.metadata, file.stat().st_size, columns)
        return opened


@contextlib.contextmanager
def _as_format_errors() -> Iterator[None]:
    """Turn what pyarrow raises for a damaged file into a FormatError. (Its names, too, may be bytes that are not UTF-8.)"""
    import pyarrow as pa

    try:
        yield
    except (pa.ArrowException, OSError, ValueError, ArithmeticError, MemoryError) as error:
        raise FormatError(first_line(error)) from error


def _check_declared(metadata: pq.FileMetaData, size: int, columns: Collection[str]) -> None:
    """Raise FormatError if a file declares more rows or bytes than it can hold, so that reading it would exhaust the memory."""
    groups = [metadata.row_group(number) for number in range(metadata.num_row_groups)]
    if not 0 <= metadata.num_rows <= MOST_ROWS or sum(group.num_rows for group in groups) != metadata.num_rows:
        raise FormatError(f"it declares {metadata.num_rows} rows")
    chunks = [group.column(number) for group in groups for number in range(group.num_columns)]
    for chunk in chunks:
        if chunk.path_in_schema.split(".")[0] not in columns:
            continue
        compressed, plain = chunk.total_compressed_size, chunk.total_uncompressed_size
        if not 0 <= compressed <= size or not 0 <= plain <= max(SMALL, EXPANSION * size):
            raise FormatError(
                f"it declares {max(compressed, plain)} bytes in the column {chunk.path_in_schema}, but has {size}"
            )


def _cells(column: pa.Array) -> list[Any]:
    """Return the cells of a column. Binary cells are decoded as UTF-8, because old writers store text as binary."""
    try:
        values = column.to_pylist()
    except (ValueError, ArithmeticError):
        values = [_cell(value) for value in column]
    return [_decoded(value) if isinstance(value, bytes) else value for value in values]


def _cell(value: pa.Scalar) -> Any:
    try:
        return value.as_py()
    except (ValueError, ArithmeticError) as error:  # such as a time stamp that Python's datetime cannot represent
        return Unreadable(first_line(error))


def _decoded(value: bytes) -> str:
    return value.decode(errors="surrogateescape")


READERS: Mapping[str, Callable[[Path, Collection[str]], Iterator[RawRow]]] = {
    ".parquet": parquet_rows,
    ".csv": csv_rows,
    ".jsonl": json_rows,
}
"""Readers of the formats, by the suffix of the file's name."""
