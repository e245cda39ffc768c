"""One reader of rows for the three formats of a user's table: parquet, CSV and JSON lines.

Only the requested columns are read, so that other columns may hold anything. Each cell is normalised once, in the same way for
all formats: a table has the same rows in whatever format it is stored.

- A missing value, NaN, an empty text and white space are all None.
- In a column of kind `text`, numbers, dates and booleans become the text that a CSV file would hold.
- In a column of kind `key`, such as an id, a group or a label, equal values have one spelling: 1, 1.0, "1.0" and " 1 " are "1",
  and True, "True" and "TRUE" are "true".
- A column of kind `any` holds such scalars or lists of them, which are not changed.

Every refusal names the file and the row or line, and the column if there is one.
"""

from __future__ import annotations

import datetime
import decimal
import math
import re
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from w2s_mlflow.data import table_formats, texts
from w2s_mlflow.data.user_files import described, is_unicode, printable, regular_file
from w2s_mlflow.exceptions import ConfigError

Kind = Literal["text", "key", "any"]
Cells = Mapping[str, Any]
"""Values of one row by column. Every requested column has a value, which may be None."""
SCALARS = (bool, int, float, decimal.Decimal, datetime.date, datetime.time, datetime.timedelta)
_WHOLE = re.compile(r"(-?[0-9]+)\.0+")
_BOOLEAN = re.compile(r"true|false", re.IGNORECASE)


@dataclass(frozen=True)
class UserTable:
    """A user's table.

    Attributes:
        option: the option that names the table, as the user wrote it, for error messages.
        suffix: the suffix of the table's format.
    """

    option: str
    file: Path
    suffix: str

    @classmethod
    def open(cls, option: str, path: str | Path) -> UserTable:
        """Return the table in a file.

        Raises:
            ConfigError: the file is not a regular file, or its name does not end in one of the known suffixes.
        """
        suffix = Path(path).suffix
        if suffix not in table_formats.READERS:
            suffixes = ", ".join(table_formats.READERS)
            raise ConfigError(f"{printable(option)} must be a file whose name ends in {suffixes}, got {printable(str(path))}")
        return cls(option, regular_file(option, path), suffix)

    def rows(self, columns: Mapping[str, Kind], needed: Collection[str] = ()) -> Iterator[tuple[int, Cells]]:
        """Yield the number of each row, counted from 1, and its cells in the requested columns.

        Args:
            columns: the columns to read, with their kinds.
            needed: the columns that the table must have. Their cells may be empty.

        Raises:
            ConfigError: the file cannot be read, lacks a needed column, has a requested column twice, or a cell is not of its
                column's kind.
        """
        raw_rows = table_formats.READERS[self.suffix](self.file, frozenset(columns))
        try:
            for number, raw in enumerate(raw_rows, start=1):
                if missing := [name for name in needed if name not in raw.cells]:
                    raise self._lacks(missing[0], number, raw.names)
                yield number, {name: self._cell(name, kind, number, raw.cells.get(name)) for name, kind in columns.items()}
        except table_formats.FormatError as error:
            raise ConfigError(
                f"{self.option} must be a valid {self.suffix} file, but {self.file} cannot be read: {error}"
            ) from error

    def error(self, number: int, column: str, rule: str, value: object) -> ConfigError:
        """Return the error for a cell that breaks a rule, such as "0 or 1"."""
        return ConfigError(
            f"{self.option} must have {rule} in the column {column}, but row {number} of {self.file} has {described(value)}"
        )

    def require_unique(self, values: Iterable[tuple[int, str | None]], column: str) -> None:
        """Raise ConfigError if a value of a column, given with the numbers of its rows, occurs twice. None may repeat."""
        given = [(number, value) for number, value in values if value is not None]
        if repeated := [value for value, count in Counter(value for _, value in given).items() if count > 1]:
            first, second = [number for number, value in given if value == repeated[0]][:2]
            places = f"occurs twice in {self.file}, in the rows {first} and {second}"
            raise ConfigError(f"{self.option} must have unique values in the column {column}, but {repeated[0]!r} {places}")

    def _lacks(self, column: str, number: int, names: Iterable[str]) -> ConfigError:
        has = ", ".join(map(printable, names)) or "no column"
        return ConfigError(f"{self.option} must have the column {column}, but row {number} of {self.file} has only {has}")

    def _cell(self, column: str, kind: Kind, number: int, value: object) -> Any:
        if isinstance(value, table_formats.Unreadable):
            raise self.error(number, column, "values that can be read", f"a value that cannot be: {value.reason}")
        values = value if kind == "any" and isinstance(value, list) else [value]
        if not all(one is None or isinstance(one, (str, *SCALARS)) for one in values):
            raise self.error(number, column, "text or numbers" if kind == "any" else "text", value)
        if invalid := [one for one in values if isinstance(one, str) and not is_unicode(one)]:
            raise self.error(number, column, "valid Unicode text", invalid[0])
        if kind == "any":
            return value
        text = as_text(value)
        if kind == "key":
            return None if text is None or not texts.is_readable(text) else as_key(text)
        if text is not None and not texts.is_readable(text):
            raise self.error(number, column, "text with at least one visible character", text)
        return text


def as_text(value: object) -> str | None:
    """Return a cell as text, or None if it is missing, NaN, empty or white space."""
    if value is None or (isinstance(value, (float, decimal.Decimal)) and math.isnan(value)):
        return None
    text = str(value)
    return text if text.strip() else None


def as_key(text: str) -> str:
    """Return the one spelling of equal values: without outer white space and a fraction of zeros, booleans in lower case."""
    text = text.strip()
    if whole := _WHOLE.fullmatch(text):
        return whole[1]
    return text.lower() if _BOOLEAN.fullmatch(text) else text
