"""Who makes the runs of a sweep: this process, or several of this machine, each with its own GPU or its share of the cores.

A job that needs what another process is making is put off once, while there are others, and then waits. One whose process
is killed is given to a new process, which goes on from its checkpoint.
"""

from __future__ import annotations

import contextlib
import os
from collections import deque
from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import TYPE_CHECKING, Any, Protocol

from w2s_mlflow.exceptions import FailedTrainingError
from w2s_mlflow.search import jobs, worker_process
from w2s_mlflow.search.jobs import Job

if TYPE_CHECKING:
    from w2s_mlflow.tracking.results import Result

    Ended = tuple[Any, Result | Exception]
    Say = Callable[[str], None]

LOOK = 1.0
"""Seconds after which whoever asks for what has ended is answered at the latest, where other processes do the work."""
GRACE = 15.0
"""Seconds in which a process that is told to stop keeps its checkpoint; it is then killed."""
LIVES = 3
"""How many processes a job may cost before it is called failed."""


class Workers(Protocol):
    """Those who take jobs, and give back results in the order in which they end."""

    count: int

    @property
    def pending(self) -> int:
        """How many jobs are waiting or under way."""

    def add(self, key: Hashable, job: Job) -> None:
        """Take a job, which `ended` will name by its key."""

    def drop(self, unwanted: Callable[[Any], bool]) -> None:
        """Forget the jobs that have not begun and whose key is unwanted."""

    def ended(self, say: Say) -> list[Ended]:
        """What has ended since, perhaps nothing; what is waited for meanwhile is said to `say`."""


@contextlib.contextmanager
def worker_pool(count: int) -> Iterator[Workers]:
    """This process alone for a count of 1, else so many others, which end with the block."""
    if count == 1:
        yield _InlinePool()
        return
    several = _ProcessPool(count)
    try:
        yield several
    finally:
        several.stop()


@dataclass
class _Waiting:
    """A job in the queue; a patient one waits for what it needs."""

    key: Hashable
    job: Job
    patient: bool = False
    killed: int = 0


class _Queue:
    """The jobs that have not begun."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.queue: deque[_Waiting] = deque()

    def add(self, key: Hashable, job: Job) -> None:
        self.queue.append(_Waiting(key, job))

    def drop(self, unwanted: Callable[[Any], bool]) -> None:
        self.queue = deque(waiting for waiting in self.queue if not unwanted(waiting.key))

    def put_off(self, waiting: _Waiting) -> None:
        waiting.patient = True
        self.queue.append(waiting)


class _InlinePool(_Queue):
    """This process, one job after the other."""

    def __init__(self) -> None:
        super().__init__(1)

    @property
    def pending(self) -> int:
        return len(self.queue)

    def ended(self, say: Say) -> list[Ended]:
        waiting = self.queue.popleft()
        say(waiting.job.stage)
        found = jobs.run_job(waiting.job, waiting.patient, say)
        if found is None:
            self.put_off(waiting)
            return []
        return [(waiting.key, found)]


@dataclass
class _Worker:
    process: BaseProcess
    connection: Connection[Any, Any]
    busy: _Waiting | None = None


class _ProcessPool(_Queue):
    """Processes of this machine; each makes one job at a time."""

    def __init__(self, count: int) -> None:
        super().__init__(count)
        from w2s_mlflow.tracking import recorder, session

        self.context = recorder.current_parent(), session.current().reuse_since
        self.gpus = _gpus()
        self.workers = [self._start(place) for place in range(count)]

    def _start(self, place: int) -> _Worker:
        context = worker_process.context()
        here, there = context.Pipe()
        arguments = (there, dict(os.environ), place, self.count, self.gpus, *self.context)
        process = context.Process(target=worker_process.serve, args=arguments, name=f"worker {place}", daemon=True)
        process.start()
        there.close()  # so that the end of the process is seen as the end of what it says
        return _Worker(process, here)

    @property
    def pending(self) -> int:
        return len(self.queue) + sum(worker.busy is not None for worker in self.workers)

    def ended(self, say: Say) -> list[Ended]:
        for worker in self.workers:
            if worker.busy is None and self.queue:
                worker.busy = self.queue.popleft()
                with contextlib.suppress(BrokenPipeError):  # its end is found below
                    worker.connection.send((worker.busy.job, worker.busy.patient))
        heard = wait([worker.connection for worker in self.workers], LOOK)
        places = [place for place, worker in enumerate(self.workers) if worker.connection in heard]
        return [found for place in places if (found := self._heard(place, say))]

    def _heard(self, place: int, say: Say) -> Ended | None:
        worker = self.workers[place]
        try:
            kind, said = worker.connection.recv()
        except (EOFError, ConnectionResetError):
            return self._died(place)
        if kind == "says":
            say(said)
            return None
        waiting, worker.busy = worker.busy, None
        assert waiting is not None
        if said is None:
            self.put_off(waiting)
            return None
        return waiting.key, said

    def _died(self, place: int) -> Ended | None:
        """A process that was killed has another in its place; the job is tried again first, up to LIVES times."""
        worker = self.workers[place]
        worker.process.join()
        waiting, self.workers[place] = worker.busy, self._start(place)
        if waiting is None:
            return None
        waiting.killed += 1
        if waiting.killed < LIVES:
            self.queue.appendleft(waiting)
            return None
        how = f"ended with status {worker.process.exitcode}" if (worker.process.exitcode or 0) >= 0 else "was killed"
        return waiting.key, FailedTrainingError(f"{waiting.job.stage}: the process that made it {how}, {LIVES} times")

    def stop(self) -> None:
        """End the processes; those that are at work keep their checkpoints, the others end as nothing more can come."""
        for worker in self.workers:
            worker.connection.close()
            if worker.busy:
                worker.process.terminate()
        for worker in self.workers:
            worker.process.join(GRACE)
            if worker.process.is_alive():
                worker.process.kill()
                worker.process.join()


def _gpus() -> list[str]:
    """The GPUs that may be used, as CUDA_VISIBLE_DEVICES names them."""
    if (given := os.environ.get("CUDA_VISIBLE_DEVICES")) is not None:
        return [name for name in given.split(",") if name]
    import torch

    return [str(number) for number in range(torch.cuda.device_count())]
