"""The scratch directory, which holds all local files that are not in the MLflow store, and atomic writing of files."""

from __future__ import annotations

import contextlib
import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

from platformdirs import user_cache_path

APP = "w2s_mlflow"
PARTIAL = ".partial"
"""Suffix of the names of files that are being written."""
OLD = 30 * 24 * 3600.0
"""Seconds without use after which a file may be removed."""


def cache_path(name: str) -> Path:
    """Return the path of `name` in the scratch directory.

    The scratch directory is `w2s_mlflow` in the directory W2S_SCRATCH or, if that variable is not set, in the user's cache
    directory.
    """
    chosen = os.environ.get("W2S_SCRATCH")
    return (Path(chosen) / APP if chosen else user_cache_path(APP, appauthor=False)) / name


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
    file.parent.mkdir(parents=True, exist_ok=True)
    partial = file.with_name(f"{file.name}.{uuid4().hex[:8]}{PARTIAL}")
    try:
        yield partial
        partial.replace(file)
    finally:
        partial.unlink(missing_ok=True)
