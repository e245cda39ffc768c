"""A worker process of a sweep. It runs the jobs that it receives, on one GPU (if there is one) and a share of the CPU cores."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import sys
import traceback
from multiprocessing.connection import Connection
from multiprocessing.reduction import ForkingPickler
from typing import TYPE_CHECKING, Any

from w2s_mlflow import display, exceptions
from w2s_mlflow.search import jobs

if TYPE_CHECKING:
    from types import FrameType

    from w2s_mlflow.tracking.results import Result
    from w2s_mlflow.tracking.source_modules import Snapshot

LOADED = (
    *("w2s_mlflow.stages.student", "w2s_mlflow.pipeline.finetune", "w2s_mlflow.pipeline.scoring"),
    *(
        "w2s_mlflow.modeling.heads",
        "w2s_mlflow.training.loop",
        "w2s_mlflow.modeling.inference",
        "w2s_mlflow.tracking.backend.database",
        "w2s_mlflow.tracking.store",
    ),
)
"""Modules that every worker needs. They import torch and MLflow, which takes longer than training a small model."""


def context() -> Any:
    """Return the multiprocessing context that starts the workers.

    On Linux, workers are forked from a server process that has imported the modules in LOADED and done nothing else. On other
    systems, each worker is a new interpreter (`spawn`). Workers are never forked from this process, because they would share
    its MLflow sockets and torch's threads and locks.
    """
    if sys.platform != "linux":
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(LOADED))
    return context


def serve(
    connection: Connection[Any, Any],
    environment: dict[str, str],
    index: int,
    count: int,
    gpus: list[str],
    parent: str | None,
    since: int,
    code: Snapshot,
) -> None:
    """Run jobs received through the connection and send back their results, until the other end closes.

    Args:
        environment: environment variables of the parent process. Those of the fork server may be outdated.
        index: index of this worker among the `count` workers.
        gpus: names of the available GPUs, as in CUDA_VISIBLE_DEVICES; this worker uses one of them.
        parent: id of the parent run of the worker's runs, or None.
        since: time in ms. Results of runs that started before this time are not reused. If it is 0, all results may be reused.
        code: source files as the parent process has read them (source_modules.snapshot).
    """
    os.environ.clear()
    os.environ.update(environment)
    _bind_resources(index, count, gpus)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # ignore Ctrl-C, which signals all processes: the parent stops the workers
    signal.signal(signal.SIGTERM, _stopped)
    with (
        display.guarded_streams(),
        contextlib.suppress(KeyboardInterrupt, EOFError, BrokenPipeError, ConnectionResetError),
    ):
        from w2s_mlflow.tracking import session, source_modules

        source_modules.adopt(code)
        with session.changed(parent=parent, reuse_since=since):
            while True:
                job, patient = connection.recv()
                outcome = jobs.run_job(job, patient, lambda text: connection.send(("says", text)))
                connection.send(("ended", _picklable(outcome)))
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # ignore SIGTERM, because this process ends anyway


def _stopped(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _picklable(outcome: Result | Exception | None) -> Result | Exception | None:
    """Return an outcome that can be pickled.

    The traceback of an error is added to the error as a note, because pickling drops it. An error that cannot be pickled is
    replaced by a RuntimeError with the same text.
    """
    if not isinstance(outcome, Exception) or isinstance(outcome, exceptions.ConfigError):
        return outcome
    outcome.add_note("".join(traceback.format_exception(outcome)))
    try:
        ForkingPickler.loads(ForkingPickler.dumps(outcome))
    except Exception:  # pickling a library's error may raise any exception
        return RuntimeError("\n".join([str(outcome), *outcome.__notes__]))
    return outcome


def _bind_resources(index: int, count: int, gpus: list[str]) -> None:
    """Restrict this process to one GPU (if any) and its share of the cores. Call this before torch computes anything."""
    if gpus:
        os.environ["CUDA_VISIBLE_DEVICES"] = gpus[index % len(gpus)]
    if sys.platform == "linux":
        core_ids = cores(index, count, sorted(os.sched_getaffinity(0)))
        os.sched_setaffinity(0, core_ids)
        import torch

        torch.set_num_threads(int(os.environ.setdefault("OMP_NUM_THREADS", str(len(core_ids)))))


def cores(index: int, count: int, core_ids: list[int]) -> list[int]:
    """Return the ids of the cores that worker `index` of `count` workers uses.

    The workers' shares differ by at most one core. If there are more workers than cores, several workers use the same core.
    """
    if count >= len(core_ids):
        return [core_ids[index % len(core_ids)]]
    return core_ids[index * len(core_ids) // count : (index + 1) * len(core_ids) // count]
