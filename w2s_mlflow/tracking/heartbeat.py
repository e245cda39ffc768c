"""Ownership of runs: owning processes, their heartbeats, and detection of dead owners.

A run in progress has two tags: `w2s.worker` names the owning process, and `w2s.heartbeat` is a time updated every BEAT seconds.
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
"""Seconds without a heartbeat after which the owner of a run counts as dead."""
SKEW = 600.0
"""Allowed clock difference between two machines, in seconds."""
LAUNCH = 3600.0
"""Seconds that `mlflow run` may take to build an environment. If the run that it created still has no owner after that time,
the run is marked as KILLED."""
WORKER, HEARTBEAT = "w2s.worker", "w2s.heartbeat"


@dataclass(frozen=True)
class Worker:
    """A process, identified by its machine (see `_machine`), process id and start time."""

    machine: str
    pid: int
    born: str

    def __str__(self) -> str:
        return f"{self.machine}:{self.pid}:{self.born}"

    @classmethod
    def parse(cls, text: str) -> Worker | None:
        """Parse a `w2s.worker` tag; return None if it is invalid."""
        machine, _, rest = text.partition(":")
        pid, _, born = rest.partition(":")
        return cls(machine, int(pid), born) if pid.isdigit() else None

    def gone(self) -> bool:
        """Return whether the process is known to have ended; always False for a process on another machine."""
        if self.machine != _machine():
            return False
        try:
            return _start_time(self.pid) != self.born or psutil.Process(self.pid).status() == psutil.STATUS_ZOMBIE
        except (psutil.NoSuchProcess, FileNotFoundError, ProcessLookupError):
            return True


def me() -> Worker:
    """Return this process as a Worker."""
    return Worker(_machine(), os.getpid(), _start_time(os.getpid()))


def owner_tags() -> dict[str, str]:
    """Return the tags of a run that this process owns: the process, and the current time as its heartbeat."""
    return {WORKER: str(me()), HEARTBEAT: f"{time.time():.1f}"}


@contextlib.contextmanager
def heartbeat(run_id: str) -> Iterator[None]:
    """While the block runs, update the run's heartbeat from a thread every BEAT seconds. Updates that fail are skipped."""
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
        thread.join(timeout=1)  # wait at most 1 s, because an update may hang if the server does not answer


@dataclass
class Watch:
    """Detector of runs whose owner is dead. It watches the heartbeats of runs over time."""

    _seen: dict[str, tuple[str, float]] = field(default_factory=dict)
    """Last heartbeat seen of each run, and the monotonic time at which it was first seen, by run id."""

    def dead(self, run: Run) -> bool:
        """Return whether the owner of a run has ended or has a stale heartbeat.

        Whether a process has ended can be checked only on its own machine. A heartbeat is stale if this process has not seen it
        change for STALE seconds. The STALE seconds are measured with the monotonic clock, which does not depend on the clocks
        of other machines and pauses while this machine sleeps. A heartbeat from another machine is also stale if its time is
        more than SKEW seconds ago.
        """
        owner, beat = Worker.parse(run.data.tags.get(WORKER, "")), run.data.tags.get(HEARTBEAT, "0")
        is_local = owner is not None and owner.machine == _machine()
        if (owner and owner.gone()) or (not is_local and time.time() - float(beat) > SKEW):
            return True
        last, since = self._seen.get(run.info.run_id, ("", 0.0))
        if last != beat:
            self._seen[run.info.run_id] = beat, since = beat, time.monotonic()
        return time.monotonic() - since > STALE


def cleanup_once() -> None:
    """Mark runs with a dead owner as KILLED and delete old checkpoints, once per process and experiment.

    Also start the heartbeat of the run created by `mlflow run`, if there is one.
    """
    _cleanup(mlflow.get_tracking_uri(), experiment().experiment_id)


@functools.cache
def _cleanup(uri: str, experiment_id: str) -> None:
    scratch.sweep()
    kill_orphans()
    if launch := launch_run_id():
        for key, value in owner_tags().items():
            client().set_tag(launch, key, value)
        # This heartbeat is never stopped: it continues until this process exits. `mlflow run` then sets the run's final status.
        heartbeat(launch).__enter__()


def kill_orphans() -> None:
    """Mark the RUNNING runs of the current experiment whose owner is dead as KILLED."""
    watch, launch = Watch(), launch_run_id()
    for run in client().search_runs([experiment().experiment_id], "attributes.status = 'RUNNING'"):
        if run.info.run_id != launch and _orphan(run, watch):
            client().set_terminated(run.info.run_id, "KILLED")


def _orphan(run: Run, watch: Watch) -> bool:
    if WORKER in run.data.tags:
        return watch.dead(run)
    # A run without an owner is orphaned if `mlflow run` created it more than LAUNCH seconds ago.
    launched = "mlflow.project.entryPoint" in run.data.tags
    return launched and time.time() - run.info.start_time / 1000 > LAUNCH


def _start_time(pid: int) -> str:
    """Return the start time of a process.

    On Linux it is counted in clock ticks since boot, so it is unaffected by changes of the system clock; `_machine` identifies
    the boot.
    """
    if sys.platform == "linux":
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    return f"{psutil.Process(pid).create_time():.2f}"


@functools.cache
def _machine() -> str:
    """Return an identifier of this machine: its host name and a digest.

    The digest covers the host name, the boot id and the process namespace, which differs between containers.
    """
    parts = [platform.node(), f"{psutil.boot_time():.0f}"]
    with contextlib.suppress(OSError):
        parts = [platform.node(), Path("/proc/sys/kernel/random/boot_id").read_text().strip()]
        parts.append(str(Path("/proc/self/ns/pid").readlink()))
    return f"{platform.node()}-{hashlib.sha256(' '.join(parts).encode()).hexdigest()[:8]}"
