"""Arrays that take long to make, kept on disk by a key that names all they hang on.

A file holds a sha256 and, behind it, safetensors: one that is damaged is made again. It is written whole or not at all.
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
    """The arrays kept under `key` in the scratch directory, int64 below 2**31 or float32; what is not there is made."""
    file = cache_path(FOLDER) / f"{key}.safetensors"
    if (found := _read(file)) is None:
        found = make()
        with contextlib.suppress(OSError):  # a full disk costs time only
            _write(file, found)
    return found


def _read(file: Path) -> Arrays | None:
    """The arrays of a file, which is marked as used, or None where there is none or a damaged one."""
    from safetensors.numpy import load

    try:
        digest, content = file.read_bytes().split(b"\n", 1)
        if _digest(content) != digest:
            return None
        os.utime(file)
    except (OSError, ValueError):  # not there, or not two parts
        return None
    return {name: array.astype(np.int64) if array.dtype == np.int32 else array for name, array in load(content).items()}


def _write(file: Path, found: Arrays) -> None:
    """Write the arrays, and remove the files that nobody has used for long."""
    from safetensors.numpy import save

    content = save({name: array.astype(np.int32) if array.dtype == np.int64 else array for name, array in found.items()})
    with replacing(file) as partial:
        partial.write_bytes(_digest(content) + b"\n" + content)
    remove_old(file.parent.iterdir())


def _digest(content: bytes) -> bytes:
    return hashlib.sha256(content).hexdigest().encode()
