"""What outlives a killed training: its state on disk, whole or not at all, and a stop that waits for the step in progress.

A checkpoint is a directory of its own with two files: `step-<n>-epoch-<m>.safetensors` with every tensor, then `state.json`,
which names that file, holds its sha256 and one over its own content, and is replaced in one move. Torch is imported only
where tensors are touched, so that `read` is quick.
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
"""Tensors by group and name: in the file, `group.name`."""

LOG = logging.getLogger("w2s_mlflow")
STATE = "state.json"
GRACE = 4.0
"""Seconds that what is in progress may go on after a stop: the process has ended before a scheduler's five are over."""


def exists(directory: Path) -> bool:
    """Whether a checkpoint lies in a directory, whole or not: at once, however large it is."""
    return (directory / STATE).exists()


@dataclass(frozen=True)
class Checkpoint:
    """Where one training keeps its state, and how often. A directory is for one training only: same head, data and options."""

    directory: Path
    every: int
    """Steps between checkpoints; 0: only at a stop."""
    notes: Callable[[], Any] = lambda: None
    """Called at saving: what the caller wants to find beside the checkpoint, as JSON."""
    saved: Callable[[], None] = lambda: None
    """Called once a checkpoint is whole on disk."""

    def due(self, step: int) -> bool:
        """Whether a checkpoint follows this step."""
        return self.every > 0 and step % self.every == 0


@dataclass(frozen=True)
class LoadedCheckpoint:
    """A checkpoint on disk, whole and undamaged."""

    step: int
    notes: Any
    state: Mapping[str, Any] = field(repr=False)
    """What the training keeps beside its tensors."""
    file: Path
    """The tensors."""


# --- on disk ----------------------------------------------------------------------------------------------------------


def read(directory: Path) -> LoadedCheckpoint | None:
    """The checkpoint in a directory, or None where there is none or a damaged one, which is named in a warning.

    Raises:
        ConfigError: there is one that the file system does not let us read.
    """
    if not exists(directory):
        return None
    try:
        return _checked(directory)
    except (FileNotFoundError, ValueError) as error:
        LOG.warning("the checkpoint in %s is damaged and not used, its training starts anew: %s", directory, error)
        return None
    except OSError as error:
        reason = f"cannot be read: {error.strerror}; name another in W2S_SCRATCH"
        raise ConfigError(f"the scratch directory {directory} {reason}") from None


def _checked(directory: Path) -> LoadedCheckpoint:
    """The checkpoint. Raises ValueError for one whose content is not what its digests say."""
    held = None
    with contextlib.suppress(ValueError):  # neither UTF-8 nor JSON
        held = json.loads((directory / STATE).read_text(encoding="utf-8"))
    if not isinstance(held, dict) or held.get("sha256") != _digest(held.get("content")):
        raise ValueError(f"{STATE} is not what was written")
    content = held["content"]
    file = directory / content["file"]
    if _file_digest(file) != content["sha256"]:
        raise ValueError(f"{file.name} is not what was written")
    return LoadedCheckpoint(content["step"], content["notes"], content["state"], file)


def tensors(saved: LoadedCheckpoint) -> defaultdict[str, dict[str, Tensor]]:
    """The tensors of a checkpoint, in the CPU's memory; an empty group is not told from a missing one."""
    from safetensors.torch import load_file

    found: defaultdict[str, dict[str, Tensor]] = defaultdict(dict)
    for label, tensor in load_file(saved.file).items():
        group, _, name = label.partition(".")
        found[group][name] = tensor.clone()  # else it is a view of the file, unaligned, and holds its space
    return found


def save(checkpoint: Checkpoint, step: int, epoch: int, state: Mapping[str, Any], tensors: Tensors) -> None:
    """Write a checkpoint in the place of the one before it: killed at any moment, this leaves the older or the newer whole.

    Args:
        epoch: with `step` it names the file of tensors, which must not be that of the checkpoint before.
        state: JSON values.

    Raises:
        ConfigError: the disk is full or the directory cannot be written.
    """
    directory = checkpoint.directory
    file = directory / f"step-{step}-epoch-{epoch}.safetensors"
    content = {"step": step, "notes": checkpoint.notes(), "state": state, "file": file.name}
    try:
        directory.mkdir(parents=True, exist_ok=True)
        _write_tensors(file, tensors)
        _write_state(directory, {**content, "sha256": _file_digest(file)})
    except OSError as error:
        _remove([file, _partial(directory)])
        reason = f"cannot be written: {error.strerror or error}; free some space or name another in W2S_SCRATCH"
        raise ConfigError(f"the scratch directory {directory} {reason}") from None
    _remove(other for other in directory.iterdir() if other.name not in (STATE, file.name))
    checkpoint.saved()


def clear(directory: Path) -> None:
    """Remove a checkpoint with its directory."""
    shutil.rmtree(directory, ignore_errors=True)


def _write_tensors(file: Path, tensors: Tensors) -> None:
    """Write and flush the tensors, copied one by one, as safetensors refuses those that share memory."""
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
    with contextlib.suppress(OSError):  # what is left over does no harm, and the next checkpoint tries again
        for file in files:
            file.unlink(missing_ok=True)


def _digest(content: Any) -> str:
    """sha256 of the JSON text, in the order in which it was written; NaN is allowed, as a loss may be one."""
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()


def _file_digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


# --- random states ----------------------------------------------------------------------------------------------------


def random_state() -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The random states of Python and numpy as JSON values, and of torch, on the CPU and on each GPU, as tensors."""
    import torch

    legacy: dict[str, Any] = dict(np.random.get_state(legacy=False))
    legacy["state"] = {"key": legacy["state"]["key"].tolist(), "pos": legacy["state"]["pos"]}
    states = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_available() and torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        states |= {f"cuda{device}": state for device, state in enumerate(torch.cuda.get_rng_state_all())}
    return {"python": random.getstate(), "numpy": legacy}, states


def restore_random_state(values: Mapping[str, Any], states: Mapping[str, Tensor]) -> None:
    """Put back what `random_state` gave; a GPU that is gone is passed over."""
    import torch

    version, words, gauss = values["python"]
    random.setstate((version, tuple(words), gauss))
    np.random.set_state(values["numpy"])
    torch.set_rng_state(states["cpu"])
    for device in range(torch.cuda.device_count()):
        if (name := f"cuda{device}") in states:
            torch.cuda.set_rng_state(states[name], device)


# --- a stop -----------------------------------------------------------------------------------------------------------


class SignalGuard:
    """Holds SIGINT and SIGTERM back while it is entered, in the main thread: `asked` is true once one of them came.

    Whoever entered looks at `asked` when a step has ended, and raises KeyboardInterrupt. It is raised here where that takes
    longer than GRACE, at a second Ctrl-C, and at the exit where nobody has.
    """

    def __init__(self) -> None:
        self.asked = False
        self._interrupted = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> SignalGuard:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                if signal.getsignal(number) is not signal.SIG_IGN:  # as under nohup, or in the background of a script
                    self._before[number] = signal.signal(number, self._hold)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if signal.SIGALRM in self._before:
            signal.setitimer(signal.ITIMER_REAL, 0)
        for number, handler in self._before.items():
            signal.signal(number, handler)
        if self.asked and error is None:
            raise KeyboardInterrupt

    def _hold(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGINT and self._interrupted:
            raise KeyboardInterrupt
        self._interrupted |= number == signal.SIGINT  # `mlflow run` sends SIGTERM after a Ctrl-C: that is no second one
        if not self.asked:
            self.asked = True
            self._before[signal.SIGALRM] = signal.signal(signal.SIGALRM, _interrupt)
            signal.setitimer(signal.ITIMER_REAL, GRACE)


def _interrupt(number: int, frame: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt
