"""Disk cache of arrays that take long to compute. The key must identify everything on which the arrays depend.

A file holds the arrays in the safetensors format. If it is damaged (kept.py), the arrays are computed again.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from w2s_mlflow.local import kept
from w2s_mlflow.local.scratch import cache_path, remove_old

Arrays = Mapping[str, NDArray[Any]]
FOLDER = "tokens"


def arrays(key: str, make: Callable[[], Arrays]) -> Arrays:
    """Return the arrays cached under `key`. If there are none, call `make` and cache the arrays that it returns.

    Args:
        make: function that computes the arrays. Their type must be float32, or int64 with values below 2**31.
    """
    file = cache_path(FOLDER) / f"{key}.safetensors"
    if (values := read(file)) is None:
        values = make()
        with contextlib.suppress(OSError):  # if the file cannot be written, the arrays are computed again next time
            write(file, values)
    return values


def read(file: Path) -> Arrays | None:
    """Return the arrays in a file, or None if the file is missing or damaged.

    The file's modification time is set to now, because it serves as the time of last use.
    """
    from safetensors.numpy import load

    if (content := kept.read(file)) is None:
        return None
    with contextlib.suppress(OSError):  # another process may have removed the file
        os.utime(file)
    return {name: array.astype(np.int64) if array.dtype == np.int32 else array for name, array in load(content).items()}


def write(file: Path, values: Arrays) -> None:
    """Write the arrays to `file`, and remove cache files that have not been used for a long time."""
    from safetensors.numpy import save

    content = save({name: array.astype(np.int32) if array.dtype == np.int64 else array for name, array in values.items()})
    kept.write(file, content)
    remove_old(file.parent.iterdir())
