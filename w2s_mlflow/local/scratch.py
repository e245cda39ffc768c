"""The scratch directory, which holds all local files that are not in the MLflow store, and atomic writing of files.

Only the user may read and write the directory, because its files are trusted: a process continues from checkpoints in it.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
import time
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

from platformdirs import user_cache_path

from w2s_mlflow.exceptions import must

APP = "w2s_mlflow"
PRIVATE = 0o700
"""Permissions of the scratch directory."""
PARTIAL = ".partial"
"""Suffix of the names of files that are being written."""
OLD = 30 * 24 * 3600.0
"""Seconds without use after which a file may be removed."""


def cache_path(name: str) -> Path:
    """Return the path of `name` in the scratch directory.

    The scratch directory is `w2s_mlflow` in the directory W2S_SCRATCH or, if that variable is not set, in the user's cache
    directory.

    Raises:
        ConfigError: the scratch directory belongs to another user.
    """
    root = _root()
    _protect(root)
    return root / name


def make_directory(directory: Path) -> None:
    """Create a directory and its parents. If it lies in the scratch directory, only the user may read and write the latter."""
    root = _root()
    if root == directory or root in directory.parents:
        root.parent.mkdir(parents=True, exist_ok=True)
        root.mkdir(mode=PRIVATE, exist_ok=True)
        _protect(root)
    directory.mkdir(parents=True, exist_ok=True)


def _root() -> Path:
    chosen = os.environ.get("W2S_SCRATCH")
    return Path(chosen) / APP if chosen else user_cache_path(APP, appauthor=False)


def _protect(root: Path) -> None:
    """Raise ConfigError if the scratch directory belongs to another user. Withdraw the permissions of groups and others."""
    try:
        state = root.stat()
    except OSError:  # it does not exist yet, or will be reported when it is used
        return
    if not hasattr(os, "getuid"):  # Windows
        return
    if state.st_uid != os.getuid():
        rule = f"a directory of your own, because {root} belongs to another user (uid {state.st_uid})"
        raise must("W2S_SCRATCH", rule, repr(str(root.parent)))
    if stat.S_IMODE(state.st_mode) & ~PRIVATE:
        with contextlib.suppress(OSError):  # a read-only disk
            root.chmod(PRIVATE)


def is_old(path: Path) -> bool:
    """Return whether a path has not been used for OLD seconds. Return False if it no longer exists."""
    try:
        return time.time() - path.stat().st_mtime > OLD
    except OSError:
        return False


def sweep() -> None:
    """Remove checkpoint directories and partial files that have not been used for OLD seconds.

    A directory is recognised as a checkpoint directory if its name has the form of a run id. No other files are removed.
    """
    for directory in filter(is_old, cache_path("").glob("[0-9a-f]" * 32)):
        shutil.rmtree(directory, ignore_errors=True)
    remove_old(cache_path("").glob(f"*/*{PARTIAL}"))


def remove_old(files: Iterator[Path]) -> None:
    """Remove each of `files` that has not been used for OLD seconds. Files that cannot be removed are skipped."""
    for file in filter(is_old, files):
        with contextlib.suppress(OSError):
            file.unlink()


@contextlib.contextmanager
def replacing(file: Path) -> Iterator[Path]:
    """Yield the path of a temporary file in the directory of `file`. The block must write this temporary file.

    If the block succeeds, the temporary file replaces `file` atomically; if it fails, the temporary file is removed.
    """
    make_directory(file.parent)
    partial = file.with_name(f"{file.name}.{uuid4().hex[:8]}{PARTIAL}")
    try:
        yield partial
        partial.replace(file)
    finally:
        partial.unlink(missing_ok=True)
