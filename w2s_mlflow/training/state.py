"""State of a training run that changes from step to step, with methods to save it to checkpoints and restore it."""

from __future__ import annotations

import contextlib
import copy
import itertools
import math
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from w2s_mlflow.distributed.process_group import Group
from w2s_mlflow.exceptions import must
from w2s_mlflow.modeling.heads import Head
from w2s_mlflow.records import Ints
from w2s_mlflow.training import batching, fsdp, trainable
from w2s_mlflow.training import checkpoint as checkpoints
from w2s_mlflow.training.checkpoint import Checkpoint, LoadedCheckpoint, SignalGuard


@dataclass
class Fit:
    """Result of a training run: numbers of steps and tokens, validation scores by epoch, and best epoch.

    Higher scores are better. The best epoch is counted from 0.
    """

    steps: int = 0
    tokens: int = 0
    scores: list[float] = field(default_factory=list)
    best_epoch: int = 0


@dataclass
class TrainingState:
    """All state that changes during training. A checkpoint stores it together with the random states."""

    head: Head
    optimizer: Optimizer
    schedule: LambdaLR
    order: np.random.Generator
    writes: bool
    """Whether this rank writes the checkpoints: true on the main process only."""
    fit: Fit = field(default_factory=Fit)
    best: dict[str, Tensor] | None = None
    """Trainable weights of the epoch with the best validation score so far."""
    epoch: int = 0
    batch: int = 0
    """Number of finished batches in the current epoch."""
    shuffle: Any = None
    """State of the random generator `order` at the start of the current epoch. It determines the epoch's batches."""
    last_saved: tuple[int, int] | None = None
    """Step and epoch of the last written checkpoint."""

    def __post_init__(self) -> None:
        self.shuffle = self.order.bit_generator.state

    def batches(self, lengths_N: Ints, batch_size: int) -> Iterator[Ints]:
        """Return the remaining batches of this epoch."""
        return itertools.islice(batching.batches(lengths_N, batch_size, self.order), self.batch, None)

    def count(self, tokens: int) -> None:
        """Record a finished step and its number of tokens."""
        self.batch += 1
        self.fit.steps += 1
        self.fit.tokens += tokens

    def score(self, value: float) -> None:
        """Record the validation score of an epoch, and keep a copy of the weights if it is the best score so far."""
        self.fit.scores.append(float(value))
        if not self._no_better():
            self.best, self.fit.best_epoch = copy.deepcopy(trainable.state(self.head)), self.epoch

    def next_epoch(self) -> None:
        """Start the next epoch."""
        self.epoch, self.batch, self.shuffle = self.epoch + 1, 0, self.order.bit_generator.state

    def over(self, epochs: int) -> bool:
        """Return whether training is over: all epochs are done, or the last epoch did not improve on the best earlier score."""
        return self.epoch == epochs or self._no_better()

    def _no_better(self) -> bool:
        scores = self.fit.scores
        return bool(scores) and scores[-1] <= max(scores[:-1], default=-math.inf)

    def save(self, checkpoint: Checkpoint) -> None:
        """Save a checkpoint, unless this step and epoch are already saved.

        All ranks must call this method together, because it gathers the shards of the weights.
        """
        if self.last_saved == (self.fit.steps, self.epoch):
            return
        self.last_saved = self.fit.steps, self.epoch
        optimizer, (random, states) = self.optimizer.state_dict(), checkpoints.random_state()
        slots = {f"{index}.{slot}": tensor for index, slots in optimizer["state"].items() for slot, tensor in slots.items()}
        state = {
            "epoch": self.epoch,
            "batch": self.batch,
            "shuffle": self.shuffle,
            "fit": asdict(self.fit),
            "optimizer": optimizer["param_groups"],
            "schedule": self.schedule.state_dict(),
            "random": random,
        }
        tensors = {"model": trainable.state(self.head), "optimizer": slots, "best": self.best or {}, "random": states}
        tensors = {name: fsdp.gathered(group, keep=self.writes) for name, group in tensors.items()}
        if self.writes:
            checkpoints.save(checkpoint, self.fit.steps, self.epoch, state, tensors)

    def restore(self, saved: LoadedCheckpoint) -> None:
        """Restore a checkpoint. Random states are restored last, so that nothing draws random numbers before the next step."""
        state, tensors = saved.state, checkpoints.tensors(saved)
        slots: dict[int, dict[str, Tensor]] = {}
        current, weights = self.head.state_dict(), self.optimizer.param_groups[0]["params"]
        model, best = (
            {name: fsdp.like(tensor, current[name]) for name, tensor in tensors[part].items()} for part in ("model", "best")
        )
        for name, tensor in tensors["optimizer"].items():
            index, _, slot = name.partition(".")
            slots.setdefault(int(index), {})[slot] = fsdp.like(tensor, weights[int(index)])
        trainable.load_state(self.head, model)
        param_groups = self.optimizer.param_groups  # keep the current value of `fused`, which depends on the device
        groups = [
            saved_group | {"fused": group["fused"]} for saved_group, group in zip(state["optimizer"], param_groups, strict=True)
        ]
        self.optimizer.load_state_dict({"state": slots, "param_groups": groups})
        self.schedule.load_state_dict(state["schedule"])
        self.fit, self.best = Fit(**state["fit"]), best or None
        self.epoch, self.batch = state["epoch"], state["batch"]
        self.order.bit_generator.state = self.shuffle = state["shuffle"]
        checkpoints.restore_random_state(state["random"], tensors["random"])


@contextlib.contextmanager
def checkpointed(training: TrainingState, checkpoint: Checkpoint | None, group: Group) -> Iterator[Callable[[], None]]:
    """Context manager that resumes from a checkpoint, if one exists, and yields a function to call after each step and epoch.

    The function saves a checkpoint if one is due. After a stop signal it always saves one, and raises KeyboardInterrupt. All
    ranks read the same checkpoint and stop at the same step, whichever rank receives the signal.
    """
    if checkpoint is None:
        yield lambda: None
        return
    saved = checkpoints.read(checkpoint.directory)
    if not group.agree_on(saved.file.name if saved else ""):
        raise must("W2S_SCRATCH", "a directory that all processes share", checkpoint.directory)
    if saved:
        training.restore(saved)
    with SignalGuard() as stop:

        def save_if_due() -> None:
            if checkpoint.due(training.fit.steps):
                training.save(checkpoint)
            if group.any(stop.requested):
                training.save(checkpoint)
                raise KeyboardInterrupt

        yield save_if_due
