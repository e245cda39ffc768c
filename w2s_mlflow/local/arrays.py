"""Disk cache of arrays that take long to compute. The key must identify everything on which the arrays depend.

A file holds a sha256 digest followed by the arrays in the safetensors format. If the digest does not match, the arrays are
computed again. Files are written atomically.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from w2s_mlflow.local.scratch import cache_path, remove_old, replacing

Arrays = Mapping[str, NDArray[Any]]
FOLDER = "tokens"


def arrays(key: str, make: Callable[[], Arrays]) -> Arrays:
    """Return the arrays cached under `key`. If there are none, call `make` and cache the arrays that it returns.

    Args:
        make: function that computes the arrays. Their type must be float32, or int64 with values below 2**31.
    """
    file = cache_path(FOLDER) / f"{key}.safetensors"
    if (values := _read(file)) is None:
        values = make()
        with contextlib.suppress(OSError):  # if the file cannot be written, the arrays are computed again next time
            _write(file, values)
    return values


def _read(file: Path) -> Arrays | None:
    """Return the arrays in a file, or None if the file is missing or damaged.

    The file's modification time is set to now, because it serves as the time of last use.
    """
    from safetensors.numpy import load

    try:
        digest, content = file.read_bytes().split(b"\n", 1)
        if _digest(content) != digest:
            return None
        os.utime(file)
    except (OSError, ValueError):  # the file is missing or has no digest
        return None
    return {name: array.astype(np.int64) if array.dtype == np.int32 else array for name, array in load(content).items()}


def _write(file: Path, values: Arrays) -> None:
    """Write the arrays to `file`, and remove cache files that have not been used for a long time."""
    from safetensors.numpy import save

    content = save({name: array.astype(np.int32) if array.dtype == np.int64 else array for name, array in values.items()})
    with replacing(file) as partial:
        partial.write_bytes(_digest(content) + b"\n" + content)
    remove_old(file.parent.iterdir())


def _digest(content: bytes) -> bytes:
    return hashlib.sha256(content).hexdigest().encode()
