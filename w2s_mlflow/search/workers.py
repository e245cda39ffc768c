"""Worker pools that run the jobs of a sweep, in this process or in several worker processes.

Each worker process has one GPU (if any) and a share of the CPU cores. If another process is computing a run that a job needs,
the job is moved to the end of the queue; when its turn comes again, it waits for such runs. If the process of a job is killed,
a new process runs the job and resumes from its checkpoint.
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

POLL = 1.0
"""Maximum number of seconds for which `ended` waits for the worker processes."""
GRACE = 15.0
"""Seconds that a worker process has to save its checkpoint after SIGTERM. Then it is killed."""
LIVES = 3
"""A job counts as failed once this many processes have been killed while they ran it."""


class Workers(Protocol):
    """A pool that runs jobs and returns their results in the order in which the jobs end."""

    count: int

    @property
    def pending(self) -> int:
        """Return the number of waiting and running jobs."""

    def add(self, key: Hashable, job: Job) -> None:
        """Queue a job. `ended` returns its result together with `key`."""

    def drop(self, unwanted: Callable[[Any], bool]) -> None:
        """Remove the queued jobs for whose key `unwanted` returns True."""

    def ended(self, say: Say) -> list[Ended]:
        """Return a pair (key, result or error) for each job that has ended since the last call. The list may be empty.

        Args:
            say: function that shows what the jobs are doing.
        """


@contextlib.contextmanager
def worker_pool(count: int) -> Iterator[Workers]:
    """Yield a pool of `count` worker processes, which stop when the block ends. With `count` 1, jobs run in this process."""
    if count == 1:
        yield _InlinePool()
        return
    pool = _ProcessPool(count)
    try:
        yield pool
    finally:
        pool.stop()


@dataclass
class _QueuedJob:
    """A queued job.

    Attributes:
        patient: whether the job waits for runs that other processes are computing. If not, it is queued again.
        killed: number of processes that were killed while they ran the job.
    """

    key: Hashable
    job: Job
    patient: bool = False
    killed: int = 0


class _Queue:
    """The queue of jobs that have not started."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.queue: deque[_QueuedJob] = deque()

    def add(self, key: Hashable, job: Job) -> None:
        self.queue.append(_QueuedJob(key, job))

    def drop(self, unwanted: Callable[[Any], bool]) -> None:
        self.queue = deque(queued for queued in self.queue if not unwanted(queued.key))

    def requeue(self, queued: _QueuedJob) -> None:
        queued.patient = True
        self.queue.append(queued)


class _InlinePool(_Queue):
    """A pool that runs one job after the other in this process."""

    def __init__(self) -> None:
        super().__init__(1)

    @property
    def pending(self) -> int:
        return len(self.queue)

    def ended(self, say: Say) -> list[Ended]:
        queued = self.queue.popleft()
        say(queued.job.stage)
        outcome = jobs.run_job(queued.job, queued.patient, say)
        if outcome is None:
            self.requeue(queued)
            return []
        return [(queued.key, outcome)]


@dataclass
class _Worker:
    process: BaseProcess
    connection: Connection[Any, Any]
    busy: _QueuedJob | None = None


class _ProcessPool(_Queue):
    """A pool of worker processes on this machine, each of which runs one job at a time."""

    def __init__(self, count: int) -> None:
        super().__init__(count)
        from w2s_mlflow.tracking import lifecycle, session, source_modules

        code = source_modules.snapshot(source_modules.PACKAGE)
        self.context = lifecycle.current_parent(), session.current().reuse_since, code
        self.gpus = _gpus()
        self.workers = [self._start(index) for index in range(count)]

    def _start(self, index: int) -> _Worker:
        context = worker_process.context()
        parent_end, child_end = context.Pipe()
        arguments = (child_end, dict(os.environ), index, self.count, self.gpus, *self.context)
        process = context.Process(target=worker_process.serve, args=arguments, name=f"worker {index}", daemon=True)
        process.start()
        child_end.close()  # close the child's end here, or recv() would not raise EOFError when the worker ends
        return _Worker(process, parent_end)

    @property
    def pending(self) -> int:
        return len(self.queue) + sum(worker.busy is not None for worker in self.workers)

    def ended(self, say: Say) -> list[Ended]:
        for worker in self.workers:
            if worker.busy is None and self.queue:
                worker.busy = self.queue.popleft()
                with contextlib.suppress(BrokenPipeError):  # if the worker is dead, `_receive` detects it
                    worker.connection.send((worker.busy.job, worker.busy.patient))
        ready = wait([worker.connection for worker in self.workers], POLL)
        indices = [index for index, worker in enumerate(self.workers) if worker.connection in ready]
        return [outcome for index in indices if (outcome := self._receive(index, say))]

    def _receive(self, index: int, say: Say) -> Ended | None:
        worker = self.workers[index]
        try:
            kind, content = worker.connection.recv()
        except (EOFError, ConnectionResetError):
            return self._replace_dead(index)
        if kind == "says":
            say(content)
            return None
        queued, worker.busy = worker.busy, None
        assert queued is not None
        if content is None:
            self.requeue(queued)
            return None
        return queued.key, content

    def _replace_dead(self, index: int) -> Ended | None:
        """Replace a dead process. Put its job first in the queue; the job fails if LIVES processes have died running it."""
        worker = self.workers[index]
        worker.process.join()
        queued, self.workers[index] = worker.busy, self._start(index)
        if queued is None:
            return None
        queued.killed += 1
        if queued.killed < LIVES:
            self.queue.appendleft(queued)
            return None
        reason = f"ended with status {worker.process.exitcode}" if (worker.process.exitcode or 0) >= 0 else "was killed"
        return queued.key, FailedTrainingError(f"{queued.job.stage} failed: its worker process {reason} in {LIVES} attempts")

    def stop(self) -> None:
        """Stop the processes: busy ones save their checkpoints first; idle ones end because their connection is closed."""
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
    """Return the names of the available GPUs, as in CUDA_VISIBLE_DEVICES."""
    if (visible := os.environ.get("CUDA_VISIBLE_DEVICES")) is not None:
        return [name for name in visible.split(",") if name]
    import torch

    return [str(number) for number in range(torch.cuda.device_count())]
