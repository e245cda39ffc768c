"""Read a CSV file of published results and check every row. docs/how-to/import.md describes the columns."""

from __future__ import annotations

import csv
import dataclasses
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from w2s_mlflow.data.user_files import regular_file
from w2s_mlflow.exceptions import must, unknown
from w2s_mlflow.pipeline.options import NONE
from w2s_mlflow.tables import IMPORTED

SUPERVISOR, CEILING, STUDENT = "supervisor", "ceiling", "student"
ROLES = {"supervisor": SUPERVISOR, "weak": SUPERVISOR, "ceiling": CEILING, "student": STUDENT}
"""Stage of a run, by the value of the column `role`."""
NEEDED = ("task", "role", "method", "seed", "accuracy")
"""Columns that every file must have."""
SYNONYMS = {"test_accuracy": "accuracy", "weak_model": "weak", "strong_model": "strong"}
"""Alternative names of columns, and the main name of each."""
ROUNDING = 0.005
"""Maximum accepted difference between accuracy and `correct / rows`: the largest error of rounding to two decimals."""
NOT_A_PARAMETER = {"result": False}
"""Metadata of the dataclass fields that are not logged as parameters of the run."""


@dataclass(frozen=True, kw_only=True)
class PublishedRun:
    """One row of an imported file.

    Attributes:
        repeat: position of the row among the students that differ only in their accuracy, counted from 1; 1 for other roles.
        line: line number of the row in the file.
    """

    task: str
    weak: str
    strong: str
    method: str
    seed: int
    repeat: int = 1
    head: str = IMPORTED
    role: str = field(metadata=NOT_A_PARAMETER)
    accuracy: float = field(metadata=NOT_A_PARAMETER)
    correct: int | None = field(metadata=NOT_A_PARAMETER)
    rows: int | None = field(metadata=NOT_A_PARAMETER)
    line: int = field(metadata=NOT_A_PARAMETER)

    def identity(self) -> dict[str, str]:
        """Return the parameters by which the UI groups runs."""
        return {name: str(vars(self)[name]) for name in ("task", "weak", "strong", "method", "seed")}

    def key(self) -> tuple[object, ...]:
        """Return the key that identifies a run. Student rows with the same key are repeats of one experiment."""
        return self.role, self.task, self.weak, self.strong, self.method, self.seed

    def reference_keys(self) -> dict[str, tuple[object, ...]]:
        """Return the keys of a student's supervisor (`weak`) and `ceiling`; empty for other roles."""
        if self.role != STUDENT:
            return {}
        weak = dataclasses.replace(self, role=SUPERVISOR, method=SUPERVISOR, strong=NONE)
        ceiling = dataclasses.replace(self, role=CEILING, method=CEILING, weak=NONE)
        return {"weak": weak.key(), "ceiling": ceiling.key()}


def read(file: Path) -> list[PublishedRun]:
    """Read and check the rows of a file.

    A supervisor or ceiling that several rows list with the same accuracy is returned once.

    Raises:
        ConfigError: the file is not a CSV file with the needed columns, a row is invalid, or two rows give different
            accuracies for the same supervisor or ceiling.
    """
    students: list[PublishedRun] = []
    references: dict[tuple[object, ...], PublishedRun] = {}
    repeats = Counter[tuple[object, ...]]()
    for line in _lines(file):
        row = _row(line)
        if row.role == STUDENT:
            repeats[row.key()] += 1
            students.append(dataclasses.replace(row, repeat=repeats[row.key()]))
            continue
        first = references.setdefault(row.key(), row)
        if first.accuracy != row.accuracy:
            rule = f"{first.accuracy} as in line {first.line}, because both are the {row.role} of the same task, model and seed"
            raise line.error("accuracy", rule)
    if not students and not references:
        raise must("FILE", "a CSV file with at least one row below its header", file)
    return [*references.values(), *students]


@dataclass(frozen=True)
class _Line:
    """The values of one line of the file by column, and the name that the file uses for each column."""

    file: Path
    number: int
    values: Mapping[str, str]
    names: Mapping[str, str]

    def error(self, column: str, rule: str) -> Exception:
        """Return the error for a value that breaks a rule."""
        return must(self.place(column), rule, repr(self.values[column]))

    def place(self, column: str) -> str:
        """Return the column, line and file, for an error message."""
        return f"{self.names[column]} in line {self.number} of {self.file}"

    def text(self, column: str) -> str:
        """Return the text in a column. Raises ConfigError if it is empty or NONE, which stands for a missing name in runs."""
        if self.values[column] in ("", NONE):
            raise self.error(column, f"nonempty text other than {NONE!r}")
        return self.values[column]

    def model(self, role: str) -> str:
        """Return the name of the weak or strong model: `weak` or `strong` if the file has no column for it."""
        return self.text(role) if role in self.values else role

    def whole(self, column: str, least: int = 0) -> int:
        """Return the whole number in a column. Raises ConfigError if the value is not a whole number or is below `least`."""
        if not re.fullmatch("[0-9]{1,18}", self.values[column]) or int(self.values[column]) < least:
            raise self.error(column, f"a whole number of at least {least}")
        return int(self.values[column])

    def count(self, column: str, least: int) -> int | None:
        """Return the whole number in a column; None if the value or the column is missing."""
        return self.whole(column, least) if self.values.get(column) else None

    def accuracy(self) -> float:
        """Return the accuracy. Raises ConfigError if it is not in [0, 1]."""
        try:
            value = float(self.values["accuracy"])
        except ValueError:
            value = -1
        if not self.values["accuracy"].isascii() or not 0 <= value <= 1:
            raise self.error("accuracy", "a number in [0, 1]")
        return value


def _lines(file: Path) -> Iterator[_Line]:
    """Yield the lines below the header.

    Raises:
        ConfigError: the file cannot be read, its header is wrong, or a line is not valid CSV or has more or
            fewer values than the header.
    """
    try:
        # The encoding utf-8-sig skips the byte order mark that spreadsheet programs write.
        with regular_file("FILE", file).open(newline="", encoding="utf-8-sig") as opened:
            reader = csv.reader(opened, strict=True)
            header = [name.strip() for name in next(reader, [])]
            names = _names(header, file)
            for values in filter(None, reader):
                if len(values) != len(header):
                    rule = f"a row with {len(header)} values, one per column"
                    raise must(f"line {reader.line_num} of {file}", rule, len(values))
                stripped = (value.strip() for value in values)
                yield _Line(file, reader.line_num, dict(zip(names, stripped, strict=True)), names)
    except csv.Error as error:
        raise must(f"line {reader.line_num} of {file}", "valid CSV", f"text with an error ({error})") from error
    except (OSError, UnicodeDecodeError) as error:
        raise must("FILE", "a readable CSV file in UTF-8", f"{file} ({error})") from error


def _names(header: Iterable[str], file: Path) -> dict[str, str]:
    """Return the name that the file uses for each column (possibly a synonym), keyed by the main name of the column.

    Raises:
        ConfigError: a column is missing or occurs twice.
    """
    names: dict[str, str] = {}
    for name in header:
        column = SYNONYMS.get(name, name)
        if column in names:
            raise must("FILE", f"a CSV file with one column for {column}", f"{file} with {names[column]} and {name}")
        names[column] = name
    if missing := [name for name in NEEDED if name not in names]:
        raise must("FILE", f"a CSV file with the columns {', '.join(NEEDED)}", f"{file} without {', '.join(missing)}")
    return names


def _row(line: _Line) -> PublishedRun:
    """Return the checked values of a line. Raises ConfigError if a value is invalid."""
    role = ROLES.get(line.values["role"])
    if role is None:
        raise unknown(line.place("role"), line.values["role"], ROLES)
    accuracy, correct, rows = line.accuracy(), line.count("correct", 0), line.count("rows", 1)
    if correct is not None and rows is not None:
        if correct > rows:
            raise line.error("correct", f"at most the number of rows, {rows}")
        if abs(accuracy - correct / rows) > ROUNDING:
            raise line.error("accuracy", f"correct / rows = {correct / rows:.4f}")
    return PublishedRun(
        task=line.text("task"),
        weak=NONE if role == CEILING else line.model("weak"),
        strong=NONE if role == SUPERVISOR else line.model("strong"),
        method=line.text("method") if role == STUDENT else role,
        seed=line.whole("seed"),
        role=role,
        accuracy=accuracy,
        correct=correct,
        rows=rows,
        line=line.number,
    )
