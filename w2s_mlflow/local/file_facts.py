"""Disk cache of facts that are computed from the content of one file, such as its digest or its metadata.

A fact holds as long as the file's path, inode, size, and the times of its modification and of its status change stay the
same, so all processes read it once. A program can set a file's modification time, but not the time of its status change, which
every write renews. Each cached fact has a digest, by which a damaged one is recognised.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from w2s_mlflow.local.scratch import cache_path, replacing


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
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        cached = json.loads(cached_in.read_text(encoding="utf-8"))
        if cached["state"] == state and cached["check"] == _check(state, cached["value"]):
            return cached["value"]
    value = compute(file)
    with (
        contextlib.suppress(OSError),
        replacing(cached_in) as partial,
    ):  # if the value cannot be cached, the next call computes it again
        entry = {"state": state, "value": value, "check": _check(state, value)}
        partial.write_text(json.dumps(entry), encoding="utf-8")
    return value


def sha256(file: Path) -> str:
    """Return the sha256 of a file's content, cached on disk."""
    return str(fact("digests", file, _sha256))


def _sha256(file: Path) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def _check(state: list[object], value: Any) -> str:
    return hashlib.sha256(json.dumps([state, value]).encode()).hexdigest()


def _cache_file(folder: str, path: str) -> Path:
    return cache_path(folder) / f"{hashlib.sha256(path.encode()).hexdigest()[:32]}.json"
