"""Temporary directories, whose names say which process owns them, so that those of killed processes can be removed."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from pathlib import Path

from w2s_mlflow.local.process import Worker, me

PREFIX = "w2s="
"""Beginning of the names. A name is `w2s=<machine>=<process id>=<start time>=<random letters>`."""


def directory() -> tempfile.TemporaryDirectory[str]:
    """Return a new temporary directory of this process, which is removed when its context or the process ends."""
    owner = me()
    prefix = f"{PREFIX}{owner.machine}={owner.pid}={owner.born}="
    return tempfile.TemporaryDirectory(prefix=prefix, ignore_cleanup_errors=True)


def sweep() -> None:
    """Remove the temporary directories that killed processes of this user and this machine have left."""
    for path in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
        owner = Worker.parse(":".join(path.name.removeprefix(PREFIX).rsplit("=", 3)[:3]))
        with contextlib.suppress(OSError):  # another process may remove it at the same time
            if owner is not None and owner.gone() and path.lstat().st_uid == os.getuid() and not path.is_symlink():
                shutil.rmtree(path, ignore_errors=True)
