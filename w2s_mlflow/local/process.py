"""Processes as owners of what they leave on disk or in the store: who they are, and whether they have ended."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
import platform
import sys
from dataclasses import dataclass
from pathlib import Path

import psutil


@dataclass(frozen=True)
class Worker:
    """A process, identified by its machine (see `machine`), process id and start time."""

    machine: str
    pid: int
    born: str

    def __str__(self) -> str:
        return f"{self.machine}:{self.pid}:{self.born}"

    @classmethod
    def parse(cls, text: str) -> Worker | None:
        """Parse the text of a worker, such as a `w2s.worker` tag; return None if it is invalid."""
        name, _, rest = text.partition(":")
        pid, _, born = rest.partition(":")
        return cls(name, int(pid), born) if pid.isdecimal() and pid.isascii() else None

    def gone(self) -> bool:
        """Return whether the process is known to have ended; always False for a process on another machine."""
        if self.machine != machine():
            return False
        try:
            return start_time(self.pid) != self.born or psutil.Process(self.pid).status() == psutil.STATUS_ZOMBIE
        except (psutil.NoSuchProcess, FileNotFoundError, ProcessLookupError):
            return True


def me() -> Worker:
    """Return this process as a Worker."""
    return Worker(machine(), os.getpid(), start_time(os.getpid()))


def start_time(pid: int) -> str:
    """Return the start time of a process.

    On Linux it is counted in clock ticks since boot, so it is unaffected by changes of the system clock; `machine` identifies
    the boot.
    """
    if sys.platform == "linux":
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    return f"{psutil.Process(pid).create_time():.2f}"


@functools.cache
def machine() -> str:
    """Return an identifier of this machine: its host name and a digest.

    The digest covers the host name, the boot id and the process namespace, which differs between containers.
    """
    parts = [platform.node(), f"{psutil.boot_time():.0f}"]
    with contextlib.suppress(OSError):
        parts = [platform.node(), Path("/proc/sys/kernel/random/boot_id").read_text().strip()]
        parts.append(str(Path("/proc/self/ns/pid").readlink()))
    return f"{platform.node()}-{hashlib.sha256(' '.join(parts).encode()).hexdigest()[:8]}"
