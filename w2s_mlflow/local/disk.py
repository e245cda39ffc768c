"""Whether a directory can be written and has enough free space."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

FREE = 1e9
"""Bytes of free disk space below which a warning is given: a checkpoint of a small model with its optimizer needs as many."""


def free(directory: Path) -> int:
    """Return the free bytes for a directory. If it does not exist, its nearest existing parent is checked.

    Raises:
        OSError: the directory cannot be written.
    """
    nearest = next(path for path in (directory, *directory.absolute().parents) if path.exists())
    with tempfile.TemporaryFile(dir=nearest):
        return shutil.disk_usage(nearest).free
