"""This process as others see it: its name on a run, its heartbeat, and whether the owner of another run still lives.

A run that is being made carries two tags: `w2s.worker`, the process, and `w2s.heartbeat`, set anew every BEAT seconds.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
import platform
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import mlflow
import psutil
from mlflow.entities import Run

from w2s_mlflow.local import scratch
from w2s_mlflow.tracking.backend.server import client, experiment, launch_run_id

BEAT = 10.0
"""Seconds between two heartbeats."""
STALE = 60.0
"""Seconds without a heartbeat after which the owner of a run is taken for dead."""
SKEW = 600.0
"""Seconds by which the clocks of two machines may differ."""
LAUNCH = 3600.0
"""Seconds that `mlflow run` may take to build an environment before our process starts and adopts its run."""
WORKER, HEARTBEAT = "w2s.worker", "w2s.heartbeat"


@dataclass(frozen=True)
class Worker:
    """A process: the machine (host name and a digest of its boot and process namespace), its id there, when it began."""

    machine: str
    pid: int
    born: str

    def __str__(self) -> str:
        return f"{self.machine}:{self.pid}:{self.born}"

    @classmethod
    def parse(cls, text: str) -> Worker | None:
        """A worker from its tag; None for text that is none."""
        machine, _, rest = text.partition(":")
        pid, _, born = rest.partition(":")
        return cls(machine, int(pid), born) if pid.isdigit() else None

    def gone(self) -> bool:
        """Whether it is known to have ended: only a process of this machine can be looked up."""
        if self.machine != _machine():
            return False
        try:
            return _born(self.pid) != self.born or psutil.Process(self.pid).status() == psutil.STATUS_ZOMBIE
        except (psutil.NoSuchProcess, FileNotFoundError, ProcessLookupError):
            return True


def me() -> Worker:
    """This process."""
    return Worker(_machine(), os.getpid(), _born(os.getpid()))


def marks() -> dict[str, str]:
    """The tags of a run that this process makes."""
    return {WORKER: str(me()), HEARTBEAT: f"{time.time():.1f}"}


@contextlib.contextmanager
def heartbeat(run_id: str) -> Iterator[None]:
    """Set the run's heartbeat from a thread while the block runs. A server that does not answer is asked again next time."""
    stop = threading.Event()

    def beat() -> None:
        while not stop.wait(BEAT):
            with contextlib.suppress(Exception):
                client().set_tag(run_id, HEARTBEAT, f"{time.time():.1f}")

    thread = threading.Thread(target=beat, name=f"heartbeat {run_id}", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(timeout=1)  # not longer: the server may be the one who does not answer


@dataclass
class Watch:
    """Whether owners of runs live, over the time that one process watches them."""

    _seen: dict[str, tuple[str, float]] = field(default_factory=dict)
    """By run: the last heartbeat seen, and when it was first seen, on this process's own clock."""

    def dead(self, run: Run) -> bool:
        """Whether the owner of a run has ended, or is silent.

        A process of this machine is looked up. A heart is watched on this process's own clock, which stands still while the
        machine sleeps, so that no other clock matters; unless another machine's is silent for longer than clocks may differ.
        """
        owner, beat = Worker.parse(run.data.tags.get(WORKER, "")), run.data.tags.get(HEARTBEAT, "0")
        here = owner is not None and owner.machine == _machine()
        if (owner and owner.gone()) or (not here and time.time() - float(beat) > SKEW):
            return True
        last, since = self._seen.get(run.info.run_id, ("", 0.0))
        if last != beat:
            self._seen[run.info.run_id] = beat, since = beat, time.monotonic()
        return time.monotonic() - since > STALE


def cleanup_once() -> None:
    """Once in a process and experiment: end the runs of dead owners as KILLED, give the launcher's run a heartbeat, and
    remove checkpoints that are too old."""
    _settle(mlflow.get_tracking_uri(), experiment().experiment_id)


@functools.cache
def _settle(uri: str, experiment_id: str) -> None:
    scratch.sweep()
    kill_orphans()
    if launch := launch_run_id():
        for key, value in marks().items():
            client().set_tag(launch, key, value)
        heartbeat(launch).__enter__()  # until this process ends: the launcher then ends its run itself


def kill_orphans() -> None:
    """End the runs of dead owners as KILLED."""
    watch, launch = Watch(), launch_run_id()
    for run in client().search_runs([experiment().experiment_id], "attributes.status = 'RUNNING'"):
        if run.info.run_id != launch and _orphan(run, watch):
            client().set_terminated(run.info.run_id, "KILLED")


def _orphan(run: Run, watch: Watch) -> bool:
    if WORKER in run.data.tags:
        return watch.dead(run)
    # `mlflow run` made it, and no process of ours has adopted it for so long that none will.
    launched = "mlflow.project.entryPoint" in run.data.tags
    return launched and time.time() - run.info.start_time / 1000 > LAUNCH


def _born(pid: int) -> str:
    """When a process began, by a clock that nobody sets: on Linux in ticks since the boot, which the machine's name holds."""
    if sys.platform == "linux":
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    return f"{psutil.Process(pid).create_time():.2f}"


@functools.cache
def _machine() -> str:
    """The host's name with a digest of its boot and, in a container, of its own view of processes."""
    parts = [platform.node(), f"{psutil.boot_time():.0f}"]
    with contextlib.suppress(OSError):
        parts = [platform.node(), Path("/proc/sys/kernel/random/boot_id").read_text().strip()]
        parts.append(str(Path("/proc/self/ns/pid").readlink()))
    return f"{platform.node()}-{hashlib.sha256(' '.join(parts).encode()).hexdigest()[:8]}"
