"""The journal of a study: a file with one record a line, each with its number and a digest.

Optuna's own journal file is trusted as it is: a flipped bit changes a trial's value, and a truncated record makes every later
start fail. Here a record counts only if its digest matches. A last record that is cut short is removed by the next writer. A
journal with any other damage is set aside when it is opened, and restore.py makes it anew from the MLflow runs of the trials.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from optuna.storages.journal import BaseJournalBackend, JournalFileSymlinkLock

from w2s_mlflow.exceptions import ConfigError
from w2s_mlflow.local import kept

LOG = logging.getLogger("w2s_mlflow")
LENGTH = 16
"""Number of hexadecimal digits of a record's digest."""


class Journal(BaseJournalBackend):
    """A journal for `optuna.storages.JournalStorage`, which the processes of one machine share.

    Raises:
        OSError: the file cannot be read or written.
    """

    def __init__(self, file: Path) -> None:
        self._file = file
        self._ends = [0]
        """Offset at which each known record ends; that of record n is at position n + 1."""
        with locked(file):
            file.touch()
            if self._scan() is not None:
                aside = file.with_name(f"{file.name}.damaged")
                LOG.warning("the journal %s is damaged; it is kept as %s and made anew from the runs of trials", file, aside)
                file.replace(aside)
                file.touch()
                self._ends = [0]
        self._inode = file.stat().st_ino

    def read_logs(self, log_number_from: int) -> Iterator[dict[str, Any]]:
        """Yield the records from the given number on. Raises ConfigError if the journal was damaged since it was opened."""
        self._check(self._scan())
        with self._file.open("rb") as opened:
            opened.seek(self._ends[log_number_from])
            for number in range(log_number_from, len(self._ends) - 1):
                record = _record(number, opened.read(self._ends[number + 1] - self._ends[number]))
                self._check(b"" if record is None else None)
                assert record is not None
                yield record

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        """Append records and flush them to disk. Raises ConfigError if the journal was damaged since it was opened."""
        with locked(self._file):
            self._check(self._scan())
            first = len(self._ends) - 1
            with self._file.open("r+b") as opened:
                opened.truncate(self._ends[-1])  # a record that a killed process has not completed
                opened.seek(self._ends[-1])
                opened.write(b"".join(_line(first + index, log) for index, log in enumerate(logs)))
                opened.flush()
                os.fsync(opened.fileno())

    def _scan(self) -> bytes | None:
        """Find the ends of the records that were added. Return the first damaged one, or None if there is none.

        A last record that is cut short does not count as damaged.
        """
        with self._file.open("rb") as opened:
            opened.seek(self._ends[-1])
            for line in opened:
                if not line.endswith(b"\n"):
                    return None
                if _record(len(self._ends) - 1, line) is None:
                    return line
                self._ends.append(self._ends[-1] + len(line))
        return None

    def _check(self, damaged: bytes | None) -> None:
        if damaged is not None or self._file.stat().st_ino != self._inode:
            raise ConfigError(f"the journal {self._file} was damaged or replaced during the search: start the search again")


@contextlib.contextmanager
def locked(file: Path) -> Iterator[None]:
    """Keep other processes out of a file. The lock of a killed process is broken after 30 s."""
    file.parent.mkdir(parents=True, exist_ok=True)
    lock = JournalFileSymlinkLock(str(file))
    lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _line(number: int, log: dict[str, Any]) -> bytes:
    text = json.dumps(log, separators=(",", ":")).encode()
    return b"%s %s\n" % (_digest(number, text), text)


def _record(number: int, line: bytes) -> dict[str, Any] | None:
    """Return the record of a line, or None if the line is truncated, damaged or another record's."""
    recorded, _, text = line.removesuffix(b"\n").partition(b" ")
    if recorded != _digest(number, text):
        return None
    record: dict[str, Any] = json.loads(text)
    return record


def _digest(number: int, text: bytes) -> bytes:
    return kept.digest(b"%d %s" % (number, text))[:LENGTH]
