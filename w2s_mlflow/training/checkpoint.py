"""Atomic checkpoints of a training run, and deferral of stop signals.

A checkpoint is a directory with two files: `step-<n>-epoch-<m>.safetensors` holds every tensor; `state.json` holds the other
state, the name and sha256 of the first file and a sha256 of its own content, and is replaced atomically. Torch is imported
only where tensors are used, so `read` is fast.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import random
import shutil
import signal
import threading
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType, TracebackType
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np

from w2s_mlflow.exceptions import ConfigError
from w2s_mlflow.local import scratch

if TYPE_CHECKING:
    from torch import Tensor

Tensors = Mapping[str, Mapping[str, "Tensor"]]
"""Tensors by group (such as `model` or `optimizer`) and name. In the file, each tensor has the name `<group>.<name>`."""

LOG = logging.getLogger("w2s_mlflow")
STATE = "state.json"
GRACE = 4.0
"""Time limit in seconds for finishing the current step after a stop signal. Schedulers kill a process five seconds
after the signal."""


def exists(directory: Path) -> bool:
    """Return whether a directory holds a checkpoint, without checking that it is complete."""
    return (directory / STATE).exists()


@dataclass(frozen=True)
class Checkpoint:
    """Location, frequency and additional content of a training run's checkpoints.

    Each combination of head, data and options needs a directory of its own.
    """

    directory: Path
    every: int
    """Number of steps between checkpoints. If 0, a checkpoint is saved only on a stop signal."""
    notes: Callable[[], Any] = lambda: None
    """Function that is called on each save. It returns additional JSON values, which are stored in the checkpoint."""
    saved: Callable[[], None] = lambda: None
    """Function that is called after each save, when the checkpoint is complete on disk."""

    def due(self, step: int) -> bool:
        """Return whether a checkpoint is due after this step."""
        return self.every > 0 and step % self.every == 0


@dataclass(frozen=True)
class LoadedCheckpoint:
    """A complete and undamaged checkpoint on disk, without its tensors."""

    step: int
    notes: Any
    state: Mapping[str, Any] = field(repr=False)
    """State of the training run except its tensors, as JSON values."""
    file: Path
    """The safetensors file with the tensors."""


# --- on disk ----------------------------------------------------------------------------------------------------------


def read(directory: Path) -> LoadedCheckpoint | None:
    """Return the checkpoint in a directory, or None if there is none or it is damaged. Damage is logged as a warning.

    Raises:
        ConfigError: the checkpoint exists but cannot be read from the file system.
    """
    if not exists(directory):
        return None
    try:
        return _checked(directory)
    except (FileNotFoundError, ValueError) as error:
        LOG.warning("the checkpoint in %s is damaged and ignored; training starts from the beginning: %s", directory, error)
        return None
    except OSError as error:
        reason = f"cannot be read: {error.strerror}; set W2S_SCRATCH to another directory"
        raise ConfigError(f"the scratch directory {directory} {reason}") from None


def _checked(directory: Path) -> LoadedCheckpoint:
    """Return the checkpoint in a directory. Raises ValueError if its content does not match its digests."""
    document = None
    with contextlib.suppress(ValueError):  # a ValueError means that the file is not valid UTF-8 or not valid JSON
        document = json.loads((directory / STATE).read_text(encoding="utf-8"))
    if not isinstance(document, dict) or document.get("sha256") != _digest(document.get("content")):
        raise ValueError(f"{STATE} does not match its digest")
    content = document["content"]
    file = directory / content["file"]
    if _file_digest(file) != content["sha256"]:
        raise ValueError(f"{file.name} does not match its digest")
    return LoadedCheckpoint(content["step"], content["notes"], content["state"], file)


def tensors(saved: LoadedCheckpoint) -> defaultdict[str, dict[str, Tensor]]:
    """Load the tensors of a checkpoint to the CPU, by group and name. A missing group yields an empty dict."""
    from safetensors.torch import load_file

    groups: defaultdict[str, dict[str, Tensor]] = defaultdict(dict)
    for label, tensor in load_file(saved.file).items():
        group, _, name = label.partition(".")
        groups[group][name] = tensor.clone()  # the loaded tensor is an unaligned view that keeps the whole file in memory
    return groups


def save(checkpoint: Checkpoint, step: int, epoch: int, state: Mapping[str, Any], tensors: Tensors) -> None:
    """Atomically replace the previous checkpoint: if the process is killed, either the old or the new one is complete.

    Args:
        epoch: used with `step` to name the tensor file; consecutive checkpoints must differ in at least one of the two.
        state: state of the training run except its tensors, as JSON values.

    Raises:
        ConfigError: the disk is full or the directory cannot be written.
    """
    directory = checkpoint.directory
    file = directory / f"step-{step}-epoch-{epoch}.safetensors"
    content = {"step": step, "notes": checkpoint.notes(), "state": state, "file": file.name}
    try:
        scratch.make_directory(directory)
        _write_tensors(file, tensors)
        _write_state(directory, {**content, "sha256": _file_digest(file)})
    except OSError as error:
        _remove([file, _partial(directory)])
        reason = f"cannot be written: {error.strerror or error}; free some space or set W2S_SCRATCH to another directory"
        raise ConfigError(f"the scratch directory {directory} {reason}") from None
    _remove(other for other in directory.iterdir() if other.name not in (STATE, file.name))
    checkpoint.saved()


def clear(directory: Path) -> None:
    """Remove a checkpoint and its directory."""
    shutil.rmtree(directory, ignore_errors=True)


def _write_tensors(file: Path, tensors: Tensors) -> None:
    """Write the tensors and flush them to disk.

    Each tensor is copied, because safetensors refuses tensors that share memory.
    """
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    copies = {
        f"{group}.{name}": tensor.detach().to("cpu", copy=True, memory_format=torch.contiguous_format)
        for group, named in tensors.items()
        for name, tensor in named.items()
    }
    try:
        save_file(copies, file)
    except SafetensorError as error:
        raise OSError(str(error)) from None
    with file.open("rb") as written:
        os.fsync(written.fileno())


def _write_state(directory: Path, content: Mapping[str, Any]) -> None:
    with _partial(directory).open("w", encoding="utf-8") as file:
        json.dump({"sha256": _digest(content), "content": content}, file)
        file.flush()
        os.fsync(file.fileno())
    _partial(directory).replace(directory / STATE)


def _partial(directory: Path) -> Path:
    return directory / f"{STATE}{scratch.PARTIAL}"


def _remove(files: Iterable[Path]) -> None:
    with contextlib.suppress(OSError):  # leftover files are harmless, and the next save tries again to remove them
        for file in files:
            file.unlink(missing_ok=True)


def _digest(content: Any) -> str:
    """Return the sha256 of the content as JSON, without sorting its keys. NaN is allowed, because a loss may be NaN."""
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()


def _file_digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


# --- random states ----------------------------------------------------------------------------------------------------


def random_state() -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Return the random states of Python and numpy as JSON values, and those of torch (CPU and each GPU) as tensors."""
    import torch

    legacy: dict[str, Any] = dict(np.random.get_state(legacy=False))
    legacy["state"] = {"key": legacy["state"]["key"].tolist(), "pos": legacy["state"]["pos"]}
    states = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_available() and torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        states |= {f"cuda{device}": state for device, state in enumerate(torch.cuda.get_rng_state_all())}
    return {"python": random.getstate(), "numpy": legacy}, states


def restore_random_state(values: Mapping[str, Any], states: Mapping[str, Tensor]) -> None:
    """Restore the states returned by `random_state`. States of GPUs that this machine does not have are ignored."""
    import torch

    version, words, gauss = values["python"]
    random.setstate((version, tuple(words), gauss))
    np.random.set_state(values["numpy"])
    torch.set_rng_state(states["cpu"])
    for device in range(torch.cuda.device_count()):
        if (name := f"cuda{device}") in states:
            torch.cuda.set_rng_state(states[name], device)


# --- stop signals -----------------------------------------------------------------------------------------------------


class SignalGuard:
    """Context manager that defers SIGINT and SIGTERM in the main thread. `requested` is true once a signal has arrived.

    The caller must check `requested` after each step and raise KeyboardInterrupt. Otherwise the guard raises it GRACE seconds
    after the signal, at a second Ctrl-C, or on exit.
    """

    def __init__(self) -> None:
        self.requested = False
        self._interrupted = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> SignalGuard:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                # A signal that is already ignored stays ignored: shells start background jobs of scripts with SIGINT ignored.
                if signal.getsignal(number) is not signal.SIG_IGN:
                    self._before[number] = signal.signal(number, self._hold)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if signal.SIGALRM in self._before:
            signal.setitimer(signal.ITIMER_REAL, 0)
        for number, handler in self._before.items():
            signal.signal(number, handler)
        if self.requested and error is None:
            raise KeyboardInterrupt

    def _hold(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGINT and self._interrupted:
            raise KeyboardInterrupt
        # SIGTERM does not count as a second Ctrl-C, because `mlflow run` sends SIGTERM after the first Ctrl-C.
        self._interrupted |= number == signal.SIGINT
        if not self.requested:
            self.requested = True
            self._before[signal.SIGALRM] = signal.signal(signal.SIGALRM, _interrupt)
            signal.setitimer(signal.ITIMER_REAL, GRACE)


def _interrupt(number: int, frame: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt
