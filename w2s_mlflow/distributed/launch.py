"""Processes that were launched together (`torchrun`, `accelerate launch`): the first leads, the others do as it says.

The leader alone talks to people and writes to MLflow. What it says goes as JSON through torch's key-value store, not through
a collective, which has a time limit and waits for ever for a process that is gone. Whoever ends before its time leaves word
there why; the first word is what people read, and all end by it. Torch is imported only where there are others.
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
"""The keys of the first word, and of the leader's last."""
POLL = 0.05
"""Seconds between two looks for what the leader says."""
PATIENCE = 10.0
"""Seconds that a process which ends before its time gives the leader, to close its run or to say the same."""
STOPPED = 130
"""The exit status after Ctrl-C or SIGTERM."""
SHARDS = "what shards a model here is --use_fsdp --fsdp_version 2"
BUILT = {
    "ACCELERATE_USE_DEEPSPEED": ("false", SHARDS),
    "ACCELERATE_USE_MEGATRON_LM": ("false", SHARDS),
    "ACCELERATE_MIXED_PRECISION": ("no", "what a model computes in is --dtype"),
    "ACCELERATE_GRADIENT_ACCUMULATION_STEPS": ("1", "a batch goes through the model in parts by --micro-batch"),
}
"""What `accelerate launch` may set: its only value that is built here, and why."""
BUILT_SHARDED = {
    "FSDP_VERSION": ("2", "fully_shard, --fsdp_version 2"),
    "FSDP_RESHARD_AFTER_FORWARD": ("true", "a block that is not at work is held in shards"),
    "FSDP_OFFLOAD_PARAMS": ("false", "shards stay on their GPU"),
    "FSDP_ACTIVATION_CHECKPOINTING": ("false", "activations are computed again by --gradient-checkpointing"),
}
"""The same with `--use_fsdp`."""

_turns = itertools.count()


class PeerExitedError(Exception):
    """Another process of the launch has ended before, and has said why."""

    def __init__(self, status: int) -> None:
        super().__init__(f"another process has ended with status {status}")
        self.status = status


def size() -> int:
    """How many processes were launched together; 1 alone."""
    text = os.environ.get("WORLD_SIZE", "1")
    return int(text) if text.isdecimal() else 1


def is_leader() -> bool:
    """Whether this process is the first of those that were launched together, or alone."""
    return size() == 1 or _rank() == 0


def shards() -> bool:
    """Whether each process holds a shard of what is trained: several, by `accelerate launch --use_fsdp` (training/fsdp.py)."""
    return size() > 1 and _fsdp()


def check() -> None:
    """Raise ConfigError for a launch whose processes would not find each other, or that is not of the kind built here."""
    text = os.environ.get("WORLD_SIZE", "1")
    if not text.isdecimal() or text == "0":
        raise must("WORLD_SIZE", "a number of processes", text)
    if size() > 1 and (missing := sorted({"RANK", "MASTER_ADDR", "MASTER_PORT"} - set(os.environ))):
        raise must("WORLD_SIZE", f"1 without {' and '.join(missing)}, which torchrun and accelerate launch set", text)
    for name, (legal, why) in (BUILT | (BUILT_SHARDED if _fsdp() else {})).items():
        if (given := os.environ.get(name, legal)).lower() != legal:
            raise must(name, f"{legal}: {why}", given)
    if _fsdp():
        os.environ["FSDP_CPU_RAM_EFFICIENT_LOADING"] = "false"  # by the launcher's default only the first would read weights


def join() -> None:
    """Meet the other processes, if there are any; they are waited for."""
    if size() > 1:
        _store()


def broadcast_from_leader(value: Any) -> Any:
    """What the leader says, a JSON value, on every process; the others wait for it, and what they give is not used.

    Raises:
        PeerExitedError: another process has ended.
        KeyboardInterrupt: another process was stopped.
    """
    if size() == 1:
        return value
    key = f"w2s/{next(_turns)}"
    if is_leader():
        _store().set(key, json.dumps(value))
        return value
    while not _store().check([key]):
        _listen()
        time.sleep(POLL)
    return json.loads(_store().get(key))


@contextlib.contextmanager
def peer_failure_guard() -> Iterator[None]:
    """Around what all do at once: where it breaks because another process has ended, what is raised is why that one has.

    Raises:
        PeerExitedError: as `broadcast_from_leader`.
        KeyboardInterrupt: as `broadcast_from_leader`.
        ConfigError: another process has ended without a word.
    """
    try:
        yield
    except BaseException as error:
        if size() > 1:
            _listen()
            if _lost(error):
                reason = "is gone without a word (killed, or out of memory?)"
                raise ConfigError(f"one of the {size()} processes {reason}; start them again to go on") from error
        raise


def claims_error_message(status: int) -> bool:
    """Whether this process is the first that ends before its time, so that people are to read why; the others hear of it.

    Before they have met they end alike, by the same wrong option: then the launcher stops the others once the leader has ended.
    Of a stop the leader speaks alone.
    """
    if size() == 1 or not _met():
        return is_leader() or (status != STOPPED and _stays())
    word = json.dumps({"rank": _rank(), "status": status})
    try:
        return bytes(_store().compare_set(ENDED, "", word)).decode() == word
    except RuntimeError:  # the store has gone with the process that held it: said twice is better than never
        return True


def leave(*, failed: bool = False) -> None:
    """Let go of the other processes. One that has failed first wakes those who wait for it, and lets the leader end its run."""
    if size() == 1 or not _met():
        return
    from torch import distributed

    if distributed.is_initialized() and not (failed and distributed.get_backend() == "nccl"):  # it would wait for the others
        distributed.destroy_process_group()
    with contextlib.suppress(RuntimeError):
        if is_leader():
            _store().set(OVER, "")
        elif failed:
            _waits(lambda: _store().check([OVER]))


@functools.cache
def _store() -> Store:
    """The store of the group of processes, which is joined on first use."""
    from torch import distributed

    from w2s_mlflow.distributed import process_group

    process_group.state()
    return distributed.distributed_c10d._get_default_store()


def _stays() -> bool:
    """Whether this process is still there after a while."""
    try:
        _waits(lambda: False)
    except KeyboardInterrupt:
        return False
    return True


def _waits(done: Callable[[], bool]) -> None:
    until = time.monotonic() + PATIENCE
    while time.monotonic() < until and not done():
        time.sleep(POLL)


def _fsdp() -> bool:
    return os.environ.get("ACCELERATE_USE_FSDP", "").lower() == "true"


def _rank() -> int:
    return int(os.environ.get("RANK", "0"))


def _met() -> bool:
    return _store.cache_info().currsize > 0


def _listen() -> None:
    """Raise what another process has ended by, if one has."""
    word = None
    with contextlib.suppress(RuntimeError):  # the store has gone with the process that held it
        word = json.loads(_store().get(ENDED)) if _met() and _store().check([ENDED]) else None
    if word and word["rank"] != _rank():
        raise KeyboardInterrupt if word["status"] == STOPPED else PeerExitedError(word["status"])


def _lost(error: BaseException) -> bool:
    """Whether an error says that another process does not answer."""
    from torch import distributed

    return isinstance(error, distributed.DistError) or (isinstance(error, RuntimeError) and "gloo" in str(error))
