"""Disk cache of facts that are computed from the content of one file, such as its digest or its metadata.

A fact holds as long as the file's path, inode, size, and the times of its modification and of its status change stay the
same, so all processes read it once. A program can set a file's modification time, but not the time of its status change, which
every write renews. A damaged fact is computed again (kept.py).
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from w2s_mlflow.local import kept
from w2s_mlflow.local.scratch import cache_path


def fact(folder: str, file: Path, compute: Callable[[Path], Any]) -> Any:
    """Return `compute(file)`, or the value that an earlier call has cached for the unchanged file.

    Args:
        folder: folder of the scratch directory that holds the cached values of this `compute`.
        compute: function whose value JSON can represent. It must depend only on the content of the file.

    Raises:
        OSError: the file does not exist.
    """
    path, stat = str(file.resolve()), file.stat()
    state, cached_in = [path, stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns], _cache_file(folder, path)
    if (content := kept.read(cached_in)) is not None:
        cached_state, value = json.loads(content)
        if cached_state == state:
            return value
    value = compute(file)
    with contextlib.suppress(OSError):  # if the value cannot be cached, the next call computes it again
        kept.write(cached_in, json.dumps([state, value]).encode())
    return value


def sha256(file: Path) -> str:
    """Return the sha256 of a file's content, cached on disk."""
    return str(fact("digests", file, _sha256))


def _sha256(file: Path) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def _cache_file(folder: str, path: str) -> Path:
    return cache_path(folder) / f"{hashlib.sha256(path.encode()).hexdigest()[:32]}.json"
