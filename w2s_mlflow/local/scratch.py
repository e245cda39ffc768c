"""The scratch directory: what is kept on this machine beside the store, and files that are written whole or not at all."""

from __future__ import annotations

import contextlib
import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

PARTIAL = ".partial"
"""What the name of a file ends in that is not whole yet."""
OLD = 30 * 24 * 3600.0
"""Seconds after which what nobody has used may be removed."""


def cache_path(name: str) -> Path:
    """The file or directory of this name: in `w2s_mlflow` in W2S_SCRATCH, else in the user's cache directory."""
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(os.environ.get("W2S_SCRATCH") or cache) / "w2s_mlflow" / name


def is_old(path: Path) -> bool:
    """Whether nobody has used a file or a directory for OLD seconds; one that is gone is not."""
    try:
        return time.time() - path.stat().st_mtime > OLD
    except OSError:
        return False


def sweep() -> None:
    """Remove what nobody has used for OLD seconds: checkpoints of runs, by their ids, partial files, and nothing else."""
    for directory in filter(is_old, cache_path("").glob("[0-9a-f]" * 32)):
        shutil.rmtree(directory, ignore_errors=True)
    remove_old(cache_path("").glob(f"*/*{PARTIAL}"))


def remove_old(files: Iterator[Path]) -> None:
    """Remove those of the files that nobody has used for OLD seconds; one that cannot be removed stays."""
    for file in filter(is_old, files):
        with contextlib.suppress(OSError):
            file.unlink()


@contextlib.contextmanager
def replacing(file: Path) -> Iterator[Path]:
    """A path beside a file, to be written, which then takes its place in one move: whole or, after a failure, not at all."""
    file.parent.mkdir(parents=True, exist_ok=True)
    partial = file.with_name(f"{file.name}.{uuid4().hex[:8]}{PARTIAL}")
    try:
        yield partial
        partial.replace(file)
    finally:
        partial.unlink(missing_ok=True)
