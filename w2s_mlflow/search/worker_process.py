"""Worker process that runs the jobs it receives, on its GPU and its share of the CPU cores."""

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

from w2s_mlflow import exceptions
from w2s_mlflow.search import jobs

if TYPE_CHECKING:
    from types import FrameType

    from w2s_mlflow.tracking.results import Result

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
    """Return the multiprocessing context. On Linux, workers fork from a server that has only imported LOADED; elsewhere, spawn.

    A fork of this process would share MLflow's sockets and torch's threads and locks.
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
) -> None:
    """Run jobs received through the connection and send back their results, until the other end closes.

    Args:
        environment: environment variables of the parent process; the fork server may have outdated ones.
        index: index of this worker among the `count` workers.
        gpus: GPUs to distribute over the workers, as named in CUDA_VISIBLE_DEVICES.
        parent: id of the parent run of the worker's runs, or None.
        since: time in ms; earlier results are not reused. 0: reuse all results.
    """
    os.environ.clear()
    os.environ.update(environment)
    _bind_resources(index, count, gpus)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches every process of a terminal; the parent stops the workers
    signal.signal(signal.SIGTERM, _stopped)
    with contextlib.suppress(KeyboardInterrupt, EOFError, BrokenPipeError, ConnectionResetError):
        from w2s_mlflow.tracking import session

        with session.changed(parent=parent, reuse_since=since):
            while True:
                job, patient = connection.recv()
                outcome = jobs.run_job(job, patient, lambda text: connection.send(("says", text)))
                connection.send(("ended", _picklable(outcome)))
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # the process is already ending


def _stopped(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _picklable(outcome: Result | Exception | None) -> Result | Exception | None:
    """Prepare an error for pickling: append its traceback as a note; replace an unpicklable error by its text."""
    if not isinstance(outcome, Exception) or isinstance(outcome, exceptions.ConfigError):
        return outcome
    outcome.add_note("".join(traceback.format_exception(outcome)))
    try:
        ForkingPickler.loads(ForkingPickler.dumps(outcome))
    except Exception:  # pickling a library's error may raise anything
        return RuntimeError("\n".join([str(outcome), *outcome.__notes__]))
    return outcome


def _bind_resources(index: int, count: int, gpus: list[str]) -> None:
    """Bind this process to one GPU, if there are any, and to its share of the cores. Call before torch computes anything."""
    if gpus:
        os.environ["CUDA_VISIBLE_DEVICES"] = gpus[index % len(gpus)]
    if sys.platform == "linux":
        core_ids = cores(index, count, sorted(os.sched_getaffinity(0)))
        os.sched_setaffinity(0, core_ids)
        import torch

        torch.set_num_threads(int(os.environ.setdefault("OMP_NUM_THREADS", str(len(core_ids)))))


def cores(index: int, count: int, core_ids: list[int]) -> list[int]:
    """Return the cores of one of `count` workers: shares differ by at most one; if workers outnumber cores, they share."""
    if count >= len(core_ids):
        return [core_ids[index % len(core_ids)]]
    return core_ids[index * len(core_ids) // count : (index + 1) * len(core_ids) // count]
