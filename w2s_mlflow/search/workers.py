"""Worker pools that run the jobs of a sweep, in this process or in several, each with a GPU (if any) and a share of the cores.

If another process is computing a run that a job needs, the job first goes to the end of the queue; when it comes up again, it
waits for that run. A job whose process is killed is given to a new process, which resumes from the checkpoint.
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
"""Maximum seconds that `ended` blocks while worker processes run the jobs."""
GRACE = 15.0
"""Seconds that a process has to save its checkpoint after SIGTERM, before it is killed."""
LIVES = 3
"""Number of killed processes after which a job counts as failed."""


class Workers(Protocol):
    """Pool that takes jobs and returns their results in the order in which they end."""

    count: int

    @property
    def pending(self) -> int:
        """Return the number of waiting and running jobs."""

    def add(self, key: Hashable, job: Job) -> None:
        """Queue a job; `ended` returns its result with this key."""

    def drop(self, unwanted: Callable[[Any], bool]) -> None:
        """Remove the queued jobs whose key is unwanted."""

    def ended(self, say: Say) -> list[Ended]:
        """Return the results since the last call, possibly none; report progress to `say`."""


@contextlib.contextmanager
def worker_pool(count: int) -> Iterator[Workers]:
    """Yield a pool that runs jobs in this process (count 1) or in worker processes, which stop when the block ends."""
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
    """A queued job; if `patient`, it waits for runs of other processes; `killed` counts its killed processes."""

    key: Hashable
    job: Job
    patient: bool = False
    killed: int = 0


class _Queue:
    """Queue of the jobs that have not started."""

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
    """Pool that runs one job after the other in this process."""

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
    """Pool of processes on this machine, each of which runs one job at a time."""

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
        there.close()  # so that recv() raises EOFError when the process ends
        return _Worker(process, here)

    @property
    def pending(self) -> int:
        return len(self.queue) + sum(worker.busy is not None for worker in self.workers)

    def ended(self, say: Say) -> list[Ended]:
        for worker in self.workers:
            if worker.busy is None and self.queue:
                worker.busy = self.queue.popleft()
                with contextlib.suppress(BrokenPipeError):  # a dead worker is detected below
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
        """Replace a dead process; put its job first in the queue, or return it as failed after LIVES deaths."""
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
        """Stop the processes: busy ones save their checkpoints, idle ones end when their connection closes."""
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
    """Return the available GPUs, as named in CUDA_VISIBLE_DEVICES."""
    if (given := os.environ.get("CUDA_VISIBLE_DEVICES")) is not None:
        return [name for name in given.split(",") if name]
    import torch

    return [str(number) for number in range(torch.cuda.device_count())]
