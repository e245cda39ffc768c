"""Spools: what a run has logged and the server has not stored yet, on the local disk of this machine.

The spool of a run is the directory `spool-<run id>` in the scratch directory. It holds

- `header`: the run's id, name and owner, its experiment and its tracking server;
- `00000001`, ...: the records, which must be sent in this order (delivery.py says what a record is). A record is removed once
  the server has stored it;
- `artifacts/`: the run's artifacts, which are staged here from the beginning;
- `lock`: locked by the process that uses the spool. The operating system releases the lock when that process ends.

The header and the records are kept files (local/kept.py): each is written atomically, carries a digest and is flushed to disk.
So a spool survives a kill at any time.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from w2s_mlflow.exceptions import ConfigError
from w2s_mlflow.local import kept, scratch

PREFIX, REMOVED = "spool-", "removed-spool-"
"""Prefixes of the names of spools, and of spools that are being removed."""
HEADER, LOCK, ARTIFACTS = "header", "lock", "artifacts"

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
    worker: str
    """The process that records the run, as in the run's tag (heartbeat.WORKER)."""


@dataclass
class Spool:
    """A spool that this process has locked."""

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
        _write(self.directory / f"{self._last + 1:08d}", dict(record))
        self._last += 1

    def first(self) -> Record:
        """Return the record to send next; there must be one. Raises CorruptSpoolError if its file is damaged."""
        return _read(_records(self.directory)[0])

    def records(self) -> list[Record]:
        """Return all records, in order. Raises CorruptSpoolError if one is damaged."""
        return [_read(file) for file in _records(self.directory)]

    def remove_first(self) -> None:
        """Remove the record that `first` returns."""
        _records(self.directory)[0].unlink()

    def pending(self) -> int:
        """Return the number of records."""
        return count(self.directory)

    def remove(self) -> None:
        """Remove the spool and release its lock. If the process is killed meanwhile, no half of a spool remains."""
        removed = self.directory.with_name(f"{REMOVED}{self.header.run_id}")
        with contextlib.suppress(OSError):
            shutil.rmtree(removed, ignore_errors=True)
            self.directory.rename(removed)
        shutil.rmtree(removed, ignore_errors=True)
        self.release()

    def release(self) -> None:
        """Release the lock and keep the spool, for another process to send."""
        _unlock(self._lock)


def path_of(run_id: str) -> Path:
    """Return the path of a run's spool."""
    return scratch.cache_path(f"{PREFIX}{run_id}")


def paths() -> list[Path]:
    """Return the paths of all spools on this machine, sorted, without those without content."""
    return sorted(filter(has_content, scratch.cache_path("").glob(f"{PREFIX}*")))


def has_content(directory: Path) -> bool:
    """Return whether a spool exists and was used. It was not if its process was killed while creating it."""
    return (directory / HEADER).exists() or count(directory) > 0


def create(header: Header) -> Spool:
    """Create the spool of a run that this process records, without artifacts.

    A resumed run may have a spool. It must hold no records, which `recovery.recover` sends first.

    Raises:
        ConfigError: the directory cannot be written, or another process uses the spool.
    """
    directory = path_of(header.run_id)
    with _explained(directory):
        scratch.make_directory(directory)
        lock = _locked(directory)
        if lock is None:
            raise ConfigError(f"another process on this machine is sending the run {header.run_id}: wait until it has ended")
        shutil.rmtree(directory / ARTIFACTS, ignore_errors=True)
        (directory / ARTIFACTS).mkdir()
    _write(directory / HEADER, asdict(header))
    return Spool(header, directory, lock, _last(directory))


def take(directory: Path) -> Spool | None:
    """Lock a spool that another process has left. Return None if there is none or a process uses it.

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
        return Spool(read_header(directory), directory, lock, _last(directory))
    except CorruptSpoolError:
        _unlock(lock)
        raise


def discard(directory: Path) -> None:
    """Remove a spool, also a damaged one, unless a process uses it."""
    with contextlib.suppress(OSError):
        if (lock := _locked(directory)) is not None:
            shutil.rmtree(directory, ignore_errors=True)
            _unlock(lock)


def sweep() -> None:
    """Remove what killed processes have left of spools without content, which were being created or removed."""
    for directory in scratch.cache_path("").glob(f"{REMOVED}*"):
        shutil.rmtree(directory, ignore_errors=True)
    for directory in set(filter(scratch.is_old, scratch.cache_path("").glob(f"{PREFIX}*"))) - set(paths()):
        discard(directory)


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
    _unlock(lock)
    return False


def count(directory: Path) -> int:
    """Return the number of records in a spool."""
    return len(_records(directory))


# --- files ------------------------------------------------------------------------------------------------------------

_ADVICE = "remove its directory, and run the command that made the run again"


def _records(directory: Path) -> list[Path]:
    return sorted(directory.glob("[0-9]" * 8))


def _last(directory: Path) -> int:
    files = _records(directory)
    return int(files[-1].name) if files else 0


def _locked(directory: Path) -> int | None:
    """Lock a spool and return the file descriptor of the lock; None if another process or thread has locked it.

    Raises:
        OSError: the directory does not exist or cannot be written.
    """
    file = directory / LOCK
    while True:
        lock = os.open(file, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(lock)
            return None
        # If the spool was removed after the file was opened, the lock is worth nothing: try again.
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(lock), file.stat()):
                return lock
        os.close(lock)


def _unlock(lock: int) -> None:
    """Release a lock, also if a forked process still has the file open."""
    fcntl.flock(lock, fcntl.LOCK_UN)
    os.close(lock)


@contextlib.contextmanager
def _explained(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        reason = f"cannot be written: {error.strerror or error}; free some space or set W2S_SCRATCH to another directory"
        raise ConfigError(f"the scratch directory {path} {reason}") from None


def _write(file: Path, content: dict[str, Any]) -> None:
    with _explained(file.parent):
        kept.write(file, json.dumps(content).encode(), durable=True)


def _read(file: Path) -> dict[str, Any]:
    if (content := kept.read(file)) is None:
        raise CorruptSpoolError(f"the file {file} is missing or damaged: {_ADVICE}")
    value: dict[str, Any] = json.loads(content)
    return value
