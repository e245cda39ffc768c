"""The scratch directory for local files outside the MLflow store, and atomic file writing."""

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
"""Suffix of the names of incomplete files."""
OLD = 30 * 24 * 3600.0
"""Seconds without use after which a file may be removed."""


def cache_path(name: str) -> Path:
    """Return the path of `name` in the scratch directory: APP in W2S_SCRATCH or in the user's cache directory."""
    chosen = os.environ.get("W2S_SCRATCH")
    return (Path(chosen) / APP if chosen else user_cache_path(APP, appauthor=False)) / name


def is_old(path: Path) -> bool:
    """Return whether a path has not been used for OLD seconds; False if it is gone."""
    try:
        return time.time() - path.stat().st_mtime > OLD
    except OSError:
        return False


def sweep() -> None:
    """Remove only checkpoint directories (named by run id) and partial files that were not used for OLD seconds."""
    for directory in filter(is_old, cache_path("").glob("[0-9a-f]" * 32)):
        shutil.rmtree(directory, ignore_errors=True)
    remove_old(cache_path("").glob(f"*/*{PARTIAL}"))


def remove_old(files: Iterator[Path]) -> None:
    """Remove the files not used for OLD seconds, skipping those that cannot be removed."""
    for file in filter(is_old, files):
        with contextlib.suppress(OSError):
            file.unlink()


@contextlib.contextmanager
def replacing(file: Path) -> Iterator[Path]:
    """Yield a temporary path next to `file`; it replaces `file` atomically on success and is removed on failure."""
    file.parent.mkdir(parents=True, exist_ok=True)
    partial = file.with_name(f"{file.name}.{uuid4().hex[:8]}{PARTIAL}")
    try:
        yield partial
        partial.replace(file)
    finally:
        partial.unlink(missing_ok=True)
