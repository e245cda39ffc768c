"""Spools: what a run has logged and the server has not stored yet, on the local disk of this machine.

The spool of a run is the directory `spool-<run id>` in the scratch directory. It holds

- `header.json`: the run's id and name, its experiment and its tracking server;
- `00000001.json`, ...: the records, which must be sent in this order (delivery.py says what a record is). A record is removed
  once the server has stored it;
- `artifacts/`: the run's artifacts, which are staged here from the beginning;
- `lock`: locked by the process that uses the spool. The operating system releases the lock when that process ends.

Each JSON file carries a digest of its content. A file is written atomically and flushed to disk, so a spool survives a kill at
any time.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from w2s_mlflow.exceptions import ConfigError
from w2s_mlflow.local import scratch

PREFIX = "spool-"
HEADER, LOCK, ARTIFACTS = "header.json", "lock", "artifacts"

Record = Mapping[str, Any]
"""One thing to send, as JSON values. Its `kind` says how it is sent (delivery.py)."""


class CorruptSpoolError(ConfigError):
    """A file of a spool is missing or damaged."""


@dataclass(frozen=True)
class Header:
    """The run that a spool belongs to."""

    run_id: str
    name: str
    store: str
    """The tracking URI, without a password."""
    experiment_id: str


@dataclass
class Spool:
    """A spool that this process has locked. Only the thread that sends may call `remove_first`."""

    header: Header
    directory: Path
    _lock: int
    """File descriptor of the locked file `lock`."""
    _last: int
    """Number of the last record that was added."""

    @property
    def artifacts(self) -> Path:
        """Directory of the run's artifacts."""
        return self.directory / ARTIFACTS

    def add(self, record: Record) -> None:
        """Append a record.

        Raises:
            ConfigError: the disk is full or the directory cannot be written.
        """
        _write(self.directory / f"{self._last + 1:08d}.json", dict(record))
        self._last += 1

    def first(self) -> Record | None:
        """Return the record to send next, or None if there is none. Raises CorruptSpoolError if its file is damaged."""
        files = _records(self.directory)
        return _read(files[0]) if files else None

    def records(self) -> list[Record]:
        """Return all records, in order. Raises CorruptSpoolError if one is damaged."""
        return [_read(file) for file in _records(self.directory)]

    def remove_first(self) -> None:
        """Remove the record that `first` returns."""
        _records(self.directory)[0].unlink()

    def pending(self) -> int:
        """Return the number of records."""
        return len(_records(self.directory))

    def remove(self) -> None:
        """Remove the spool and release its lock."""
        shutil.rmtree(self.directory, ignore_errors=True)
        self.release()

    def release(self) -> None:
        """Release the lock and keep the spool, for another process to send."""
        os.close(self._lock)


def path_of(run_id: str) -> Path:
    """Return the path of a run's spool."""
    return scratch.cache_path(f"{PREFIX}{run_id}")


def paths() -> list[Path]:
    """Return the paths of all spools on this machine, sorted."""
    return sorted(scratch.cache_path("").glob(f"{PREFIX}*"))


def create(header: Header) -> Spool:
    """Create the spool of a run that this process records, without artifacts.

    A resumed run may have a spool. It must hold no records, which `delivery.recover` sends first.

    Raises:
        ConfigError: the directory cannot be written, or another process uses the spool.
    """
    directory = path_of(header.run_id)
    with _said(directory):
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        lock = _locked(directory)
        if lock is None:
            raise ConfigError(f"another process on this machine is sending the run {header.run_id}: wait until it has ended")
        shutil.rmtree(directory / ARTIFACTS, ignore_errors=True)
        (directory / ARTIFACTS).mkdir()
    _write(directory / HEADER, asdict(header))
    return Spool(header, directory, lock, _number(directory))


def take(directory: Path) -> Spool | None:
    """Lock a spool that another process has left. Return None if it does not exist or a process uses it.

    Raises:
        CorruptSpoolError: the header is damaged.
    """
    try:
        lock = _locked(directory)
    except OSError:
        return None
    if lock is None:
        return None
    try:
        return Spool(read_header(directory), directory, lock, _number(directory))
    except BaseException:
        os.close(lock)
        raise


def read_header(directory: Path) -> Header:
    """Return the header of a spool. Raises CorruptSpoolError if it is missing or damaged."""
    try:
        return Header(**_read(directory / HEADER))
    except TypeError:  # other keys than those of a header
        raise CorruptSpoolError(f"the file {directory / HEADER} is not the header of a spool: {_ADVICE}") from None


def is_used(directory: Path) -> bool:
    """Return whether a process uses a spool."""
    try:
        lock = _locked(directory)
    except OSError:
        return False
    if lock is None:
        return True
    os.close(lock)
    return False


def count(directory: Path) -> int:
    """Return the number of records in a spool."""
    return len(_records(directory))


def is_complete(directory: Path) -> bool:
    """Return whether a spool ends with the record that its run is finished.

    Raises:
        CorruptSpoolError: the last record is damaged.
    """
    files = _records(directory)
    return bool(files) and _read(files[-1]).get("status") == "FINISHED"


# --- files ------------------------------------------------------------------------------------------------------------

_ADVICE = "remove its directory, and run the command that made the run again"


def _records(directory: Path) -> list[Path]:
    return sorted(directory.glob("[0-9]*.json"))


def _number(directory: Path) -> int:
    files = _records(directory)
    return int(files[-1].stem) if files else 0


def _locked(directory: Path) -> int | None:
    """Lock a spool and return the file descriptor of the lock; None if another process or thread has locked it.

    Raises:
        OSError: the directory does not exist or cannot be written.
    """
    while True:
        lock = os.open(directory / LOCK, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # If the spool was removed after the file was opened, the lock is worth nothing: try again.
            if os.fstat(lock).st_nlink:
                return lock
        except BlockingIOError:
            os.close(lock)
            return None
        os.close(lock)


@contextlib.contextmanager
def _said(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        reason = f"cannot be written: {error.strerror or error}; free some space or set W2S_SCRATCH to another directory"
        raise ConfigError(f"the scratch directory {path} {reason}") from None


def _write(file: Path, content: dict[str, Any]) -> None:
    text = json.dumps({"sha256": _digest(content), "content": content})
    with _said(file.parent), scratch.replacing(file) as partial, partial.open("w", encoding="utf-8") as opened:
        opened.write(text)
        opened.flush()
        os.fsync(opened.fileno())


def _read(file: Path) -> dict[str, Any]:
    document = None
    with contextlib.suppress(ValueError, OSError):  # a ValueError means that the file is not valid UTF-8 or not valid JSON
        document = json.loads(file.read_text(encoding="utf-8"))
    if not isinstance(document, dict) or document.get("sha256") != _digest(document.get("content")):
        raise CorruptSpoolError(f"the file {file} is missing or damaged: {_ADVICE}")
    content: dict[str, Any] = document["content"]
    return content


def _digest(content: Any) -> str:
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()
