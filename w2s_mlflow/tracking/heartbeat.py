"""Ownership of runs: owning processes, their heartbeats, and detection of dead owners.

A run in progress has two tags: `w2s.worker` names the owning process, and `w2s.heartbeat` is a time updated every BEAT seconds.
The first tag is the fencing token: a process that takes over a result removes it or replaces it by its own name. The owner
reads it with each heartbeat; once it is not its own name, the process writes nothing more into the run (Ownership).
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

from mlflow.entities import Run

from w2s_mlflow.local.process import Worker as Worker
from w2s_mlflow.local.process import machine
from w2s_mlflow.local.process import me as me
from w2s_mlflow.tracking.backend.server import client

BEAT = 10.0
"""Seconds between two heartbeats."""
STALE = 60.0
"""Seconds without a heartbeat after which the owner of a run counts as dead."""
WORKER, HEARTBEAT = "w2s.worker", "w2s.heartbeat"


class SupersededError(Exception):
    """Another process has taken over this result, so the run that this process made does not count."""


def owner_tags() -> dict[str, str]:
    """Return the tags of a run that this process owns: the process, and the current time as its heartbeat."""
    return {WORKER: str(me()), HEARTBEAT: f"{time.time():.1f}"}


@dataclass
class Ownership:
    """Whether a run still belongs to a process.

    Attributes:
        held: whether the run's tag names the process. A run that is resumed names its former owner at first.
        lost: whether another process has taken over the run.
        worker: the process; this one by default.
        confirmed: monotonic time at which the run last belonged to the process.
    """

    run_id: str
    held: bool = True
    lost: bool = False
    worker: str = field(default_factory=lambda: str(me()))
    confirmed: float = field(default_factory=time.monotonic)

    def confirm(self) -> None:
        """Ask the store whether the run still belongs to the process, unless it did less than BEAT seconds ago.

        Within that time no other process can take it over, because it must see STALE seconds without a heartbeat.

        Raises:
            SupersededError: another process has taken over the run.
        """
        if self.held and not self.lost and time.monotonic() - self.confirmed > BEAT:
            self.read()
        if self.lost:
            raise SupersededError

    def read(self) -> None:
        """Read the fencing token. A request that fails leaves things as they are."""
        began = time.monotonic()
        with contextlib.suppress(Exception):
            self.lost = self.held and client().get_run(self.run_id).data.tags.get(WORKER) != self.worker
            self.confirmed = began


@contextlib.contextmanager
def heartbeat(run_id: str, *, held: bool = True) -> Iterator[Ownership]:
    """While the block runs, update the run's heartbeat from a thread every BEAT seconds, as long as this process owns the run.

    Updates that fail are skipped.

    Args:
        held: whether the run's tag already names this process. If not, set `held` of the ownership once it does.
    """
    stop, ownership = threading.Event(), Ownership(run_id, held)

    def beat() -> None:
        while not stop.wait(BEAT):
            ownership.read()
            if ownership.lost:
                return
            with contextlib.suppress(Exception):
                client().set_tag(run_id, HEARTBEAT, f"{time.time():.1f}")

    thread = threading.Thread(target=beat, name=f"heartbeat {run_id}", daemon=True)
    thread.start()
    try:
        yield ownership
    finally:
        stop.set()
        thread.join(timeout=1)  # wait at most 1 s, because an update may hang if the server does not answer


@dataclass
class Watch:
    """Detector of runs whose owner is dead. It watches the heartbeats of runs over time."""

    seen: dict[str, tuple[str, float]] = field(default_factory=dict)
    """Last heartbeat seen of each run, and the monotonic time at which it was first seen, by run id."""

    def dead(self, run: Run) -> bool:
        """Return whether the owner of a run has ended or has a stale heartbeat.

        Whether a process has ended can be checked only on its own machine. A heartbeat is stale if this process has not seen it
        change for STALE seconds of its monotonic clock, which pauses while this machine sleeps. The time in the heartbeat is
        never compared with the time here: the clocks of two machines may differ by hours.
        """
        owner, beat = Worker.parse(run.data.tags.get(WORKER, "")), run.data.tags.get(HEARTBEAT, "0")
        if owner and owner.gone():
            return True
        last, since = self.seen.get(run.info.run_id, ("", 0.0))
        if last != beat:
            self.seen[run.info.run_id] = beat, since = beat, time.monotonic()
        return time.monotonic() - since > STALE


def is_remote(run: Run) -> bool:
    """Return whether the owner of a run is a process on another machine."""
    owner = Worker.parse(run.data.tags.get(WORKER, ""))
    return owner is not None and owner.machine != machine()
