"""The life of a worker: a process that makes the runs which are handed to it, on its own GPU or share of the cores."""

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
"""What a worker needs at any rate: torch and MLflow come with it, which take longer to load than a small model to train."""


def context() -> Any:
    """How workers are started: forked off a process that has loaded what all need, and opened, computed and asked nothing.

    A fork of this process would share MLflow's sockets, torch's threads and locks.
    """
    if sys.platform != "linux":
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(LOADED))
    return context


def serve(
    connection: Connection[Any, Any],
    environment: dict[str, str],
    place: int,
    count: int,
    gpus: list[str],
    parent: str | None,
    since: int,
) -> None:
    """A worker's life: jobs come and what came of them goes through the connection, until its other end is closed.

    Args:
        environment: that of the process which hires it; what it is forked off may be older.
        place: its number among the `count` workers.
        gpus: those that are shared out, as CUDA_VISIBLE_DEVICES names them.
        parent: the run under which its own are filed.
        since: results from before this time, in ms, are not reused; 0 reuses all.
    """
    os.environ.clear()
    os.environ.update(environment)
    _settle_down(place, count, gpus)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all processes of a terminal: the parent says when to stop
    signal.signal(signal.SIGTERM, _stopped)
    with contextlib.suppress(KeyboardInterrupt, EOFError, BrokenPipeError, ConnectionResetError):
        from w2s_mlflow.tracking import session

        with session.changed(parent=parent, reuse_since=since):
            while True:
                job, patient = connection.recv()
                found = jobs.run_job(job, patient, lambda text: connection.send(("says", text)))
                connection.send(("ended", _portable(found)))
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # it is ending


def _stopped(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _portable(found: Result | Exception | None) -> Result | Exception | None:
    """An error with its traceback as a note, which would be lost on the way; as plain text where it would be lost, too."""
    if not isinstance(found, Exception) or isinstance(found, exceptions.ConfigError):
        return found
    found.add_note("".join(traceback.format_exception(found)))
    try:
        ForkingPickler.loads(ForkingPickler.dumps(found))
    except Exception:  # whatever an error of a library does when it is taken apart
        return RuntimeError("\n".join([str(found), *found.__notes__]))
    return found


def _settle_down(place: int, count: int, gpus: list[str]) -> None:
    """Take one GPU, or a share of the cores. To be called before torch computes anything."""
    if gpus:
        os.environ["CUDA_VISIBLE_DEVICES"] = gpus[place % len(gpus)]
    if sys.platform == "linux":
        mine = cores(place, count, sorted(os.sched_getaffinity(0)))
        os.sched_setaffinity(0, mine)
        import torch

        torch.set_num_threads(int(os.environ.setdefault("OMP_NUM_THREADS", str(len(mine)))))


def cores(place: int, count: int, every: list[int]) -> list[int]:
    """The cores of one of `count` workers: shares differ by one at most; of more workers than cores several have one."""
    if count >= len(every):
        return [every[place % len(every)]]
    return every[place * len(every) // count : (place + 1) * len(every) // count]
