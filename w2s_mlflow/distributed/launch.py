"""Distributed launch (`torchrun`, `accelerate launch`): rank 0 is the leader, and the other ranks follow it.

Only the leader prints and writes to MLflow. It sends values to the other ranks as JSON through torch's key-value store, because
a collective operation has a time limit and does not notice a dead process. A process that ends early, after an error or a stop
signal, writes its exit status to this store. Only the first status written is kept, and all processes exit with it. Torch is
imported only if there are several processes.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import json
import os
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from w2s_mlflow.exceptions import ConfigError, must

if TYPE_CHECKING:
    from torch._C._distributed_c10d import Store

ENDED, OVER = "w2s/ended", "w2s/over"
"""Keys in torch's key-value store. ENDED holds the rank and exit status of the first process that ended early. OVER is set once
the leader has closed its run."""
POLL = 0.05
"""Polling interval in seconds while a process waits for another one, for example for a value from the leader."""
PATIENCE = 10.0
"""Maximum number of seconds that a failed process waits for the leader to close its run, or to report the same error."""
STOPPED = 130
"""Exit status after Ctrl-C or SIGTERM."""
SHARDS = "to shard a model, use --use_fsdp --fsdp_version 2"
BUILT = {
    "ACCELERATE_USE_DEEPSPEED": ("false", SHARDS),
    "ACCELERATE_USE_MEGATRON_LM": ("false", SHARDS),
    "ACCELERATE_MIXED_PRECISION": ("no", "to set the precision, use --dtype"),
    "ACCELERATE_GRADIENT_ACCUMULATION_STEPS": ("1", "to split a batch, use --micro-batch"),
}
"""Settings of `accelerate launch` that are checked, by environment variable. Each has a pair: its only supported value, and a
reason or an alternative, which is part of the error for any other value."""
BUILT_SHARDED = {
    "FSDP_VERSION": ("2", "use --fsdp_version 2"),
    "FSDP_RESHARD_AFTER_FORWARD": ("true", "blocks are always resharded after their forward pass"),
    "FSDP_OFFLOAD_PARAMS": ("false", "offloading shards to the CPU is not supported"),
    "FSDP_ACTIVATION_CHECKPOINTING": ("false", "to recompute activations, use --gradient-checkpointing"),
}
"""Further settings, in the format of BUILT, that are checked if `accelerate launch --use_fsdp` started the processes."""

_turns = itertools.count()


class PeerExitedError(Exception):
    """Another process of the launch ended early and stored its exit status."""

    def __init__(self, status: int) -> None:
        super().__init__(f"another process ended with status {status}")
        self.status = status


def size() -> int:
    """Return the number of processes in the launch; 1 for a single process."""
    text = os.environ.get("WORLD_SIZE", "1")
    return int(text) if text.isdecimal() else 1


def is_leader() -> bool:
    """Return whether this process is the leader: rank 0 or the only process."""
    return size() == 1 or _rank() == 0


def shards() -> bool:
    """Return whether the model is sharded over several processes, which `accelerate launch --use_fsdp` started."""
    return size() > 1 and _fsdp()


def check() -> None:
    """Check the environment variables of the launch.

    Raises:
        ConfigError: variables that the processes need to find each other are missing, or a setting is not supported.
    """
    text = os.environ.get("WORLD_SIZE", "1")
    if not text.isdecimal() or text == "0":
        raise must("WORLD_SIZE", "a positive whole number", text)
    if size() > 1 and (missing := sorted({"RANK", "MASTER_ADDR", "MASTER_PORT"} - set(os.environ))):
        raise must(
            "WORLD_SIZE", f"1 if the environment lacks {' and '.join(missing)}, which torchrun and accelerate launch set", text
        )
    for name, (legal, reason) in (BUILT | (BUILT_SHARDED if _fsdp() else {})).items():
        if (value := os.environ.get(name, legal)).lower() != legal:
            raise must(name, f"{legal} ({reason})", value)
    if _fsdp():
        os.environ["FSDP_CPU_RAM_EFFICIENT_LOADING"] = "false"  # with "true", only rank 0 would read the weights


def join() -> None:
    """Join the process group and wait for the other processes. In a single process, do nothing."""
    if size() > 1:
        _store()


def broadcast_from_leader(value: Any) -> Any:
    """Return the leader's `value`, a JSON value, on every rank. The other ranks wait for it; their own `value` is ignored.

    Raises:
        PeerExitedError: another process has ended early with an error.
        KeyboardInterrupt: another process was stopped by Ctrl-C or SIGTERM.
    """
    if size() == 1:
        return value
    key = f"w2s/{next(_turns)}"
    if is_leader():
        _store().set(key, json.dumps(value))
        return value
    while not _store().check([key]):
        _raise_if_peer_ended()
        time.sleep(POLL)
    return json.loads(_store().get(key))


@contextlib.contextmanager
def peer_failure_guard() -> Iterator[None]:
    """If the block fails because another process has ended, raise an error that says so. Other errors are raised unchanged.

    Raises:
        PeerExitedError: another process has ended early with an error.
        KeyboardInterrupt: another process was stopped by Ctrl-C or SIGTERM.
        ConfigError: another process has ended without storing its exit status.
    """
    try:
        yield
    except BaseException as error:
        if size() > 1:
            _raise_if_peer_ended()
            if _is_peer_failure(error):
                reason = "ended without reporting an error (killed, or out of memory?)"
                raise ConfigError(f"one of the {size()} processes {reason}; start them again to resume") from error
        raise


def claims_error_message(status: int) -> bool:
    """Return whether this process should print its error.

    After the processes have joined the group, only the first one that ends early should print its error. This call therefore
    writes the exit `status` of this process to the store. Before the processes have joined, usually all of them fail with the
    same error, such as a wrong option, and the leader prints it. Another rank prints its error only if the launcher does not
    stop it within PATIENCE seconds, and never after a stop signal.
    """
    if size() == 1 or not _has_joined():
        return is_leader() or (status != STOPPED and _outlasts_launcher())
    report = json.dumps({"rank": _rank(), "status": status})
    try:
        return bytes(_store().compare_set(ENDED, "", report)).decode() == report
    except RuntimeError:  # the process that hosts the store has ended, so print the error: twice is better than not at all
        return True


def leave(*, failed: bool = False) -> None:
    """Leave the process group, so that a rank that waits for this one in a collective operation gets an error.

    If `failed`, a rank other than the leader then waits until the leader has closed its run, for at most PATIENCE seconds.
    """
    if size() == 1 or not _has_joined():
        return
    from torch import distributed

    # After a failure an NCCL group is not destroyed, because destroying it would wait for the other ranks.
    if distributed.is_initialized() and not (failed and distributed.get_backend() == "nccl"):
        distributed.destroy_process_group()
    with contextlib.suppress(RuntimeError):
        if is_leader():
            _store().set(OVER, "")
        elif failed:
            _wait_until(lambda: _store().check([OVER]))


@functools.cache
def _store() -> Store:
    """Return the key-value store of the process group. The first call joins the group."""
    from torch import distributed

    from w2s_mlflow.distributed import process_group

    process_group.state()
    return distributed.distributed_c10d._get_default_store()


def _outlasts_launcher() -> bool:
    """Wait PATIENCE seconds. Return False if the launcher stops this process in that time, else True."""
    try:
        _wait_until(lambda: False)
    except KeyboardInterrupt:
        return False
    return True


def _wait_until(done: Callable[[], bool]) -> None:
    until = time.monotonic() + PATIENCE
    while time.monotonic() < until and not done():
        time.sleep(POLL)


def _fsdp() -> bool:
    return os.environ.get("ACCELERATE_USE_FSDP", "").lower() == "true"


def _rank() -> int:
    return int(os.environ.get("RANK", "0"))


def _has_joined() -> bool:
    return _store.cache_info().currsize > 0


def _raise_if_peer_ended() -> None:
    """Raise PeerExitedError if another process has ended early, or KeyboardInterrupt if that process was stopped."""
    report = None
    with contextlib.suppress(RuntimeError):  # raised if the process that serves the store has ended
        report = json.loads(_store().get(ENDED)) if _has_joined() and _store().check([ENDED]) else None
    if report and report["rank"] != _rank():
        raise KeyboardInterrupt if report["status"] == STOPPED else PeerExitedError(report["status"])


def _is_peer_failure(error: BaseException) -> bool:
    """Return whether an error of a collective operation or of the store means that another process does not respond."""
    from torch import distributed

    return isinstance(error, distributed.DistError) or (isinstance(error, RuntimeError) and "gloo" in str(error))
