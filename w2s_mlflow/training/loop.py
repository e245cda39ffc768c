"""The training loop `fit()`, based on accelerate."""

from __future__ import annotations

import contextlib
import copy
import functools
import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import GradientAccumulationPlugin, patch_environment
from torch import Tensor
from torch.optim import AdamW, Optimizer
from torch.optim.lr_scheduler import LambdaLR
from transformers import set_seed

from w2s_mlflow import streams
from w2s_mlflow.distributed import launch, process_group
from w2s_mlflow.distributed.process_group import Group
from w2s_mlflow.exceptions import FailedTrainingError, check_positive, must
from w2s_mlflow.modeling.heads import Encoded, Head
from w2s_mlflow.records import Floats, Ints
from w2s_mlflow.training import batching, fsdp, microbatches, trainable
from w2s_mlflow.training import checkpoint as checkpoints
from w2s_mlflow.training.checkpoint import Checkpoint, LoadedCheckpoint, SignalGuard
from w2s_mlflow.training.microbatches import Loss

Report = Callable[[int, int, dict[str, float]], None]
AuxiliaryObjective = Callable[[int, Ints, Callable[..., Any]], dict[str, float]]
"""Function (step, indices of the batch's examples, backward function) -> metrics."""

WARMUP = 0.1
"""Fraction of the steps over which the learning rate rises; it then falls linearly to zero."""
CLIP = 1.0
THREADS = torch.get_num_threads()
SMALL = 5_000_000
"""Number of parameters below which a model uses one CPU thread, which is up to a fifth slower on an idle machine but twice as
fast on a shared one (benchmarks/LOG.md).
"""


@dataclass(frozen=True, kw_only=True)
class Options:
    """Training options."""

    epochs: int
    batch_size: int
    learning_rate: float
    seed: int
    weight_decay: float = 0.01
    micro_batch: int | None = None
    """Size limit of a forward pass, in examples as long as the batch's longest; None: the whole batch."""
    dtype: str = "float32"
    """Precision of the forward pass, float32 or bfloat16; weights, optimizer and loss are float32."""
    also: AuxiliaryObjective | None = None
    """Auxiliary objective, called on each batch: it backpropagates a further loss and returns metrics to report."""

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size", "micro_batch"):
            if (value := getattr(self, name)) is not None and value < 1:
                raise must(name, "at least 1", value)
        check_positive("learning_rate", self.learning_rate)


@dataclass
class Fit:
    """Result of a training run: steps and tokens, the validation score after each epoch (higher is better), the best epoch."""

    steps: int = 0
    tokens: int = 0
    scores: list[float] = field(default_factory=list)
    best_epoch: int = 0


def seed_everything(seed: int) -> None:
    """Seed Python, numpy and torch. Call before building a model or head, so that its initial weights are reproducible."""
    set_seed(streams.integer(seed, streams.WEIGHTS))


def use_threads(parameters: int) -> None:
    """Use one CPU thread for a small model, where more would mostly wait for each other; otherwise torch's default number."""
    torch.set_num_threads(1 if parameters < SMALL else THREADS)


def to_device(head: Head) -> None:
    """Move a head to the training device: an accelerator if available."""
    head.to(process_group.state().device)


def fit(
    head: Head,
    data: Encoded,
    labels_NC: Floats | None,
    loss: Loss,
    options: Options,
    *,
    validate: Callable[[int], float] | None = None,
    report: Report = lambda step, steps, metrics: None,
    checkpoint: Checkpoint | None = None,
) -> Fit:
    """Train the parameters of `head` that require a gradient, in place: AdamW, linear decay after 10% warm-up, clipping at 1.0.

    In distributed training each rank trains on its share of every batch, and all ranks reach the same weights
    (distributed/process_group.py).

    After each epoch `validate(step)` scores the head, higher is better; training stops at the first epoch that does not
    improve on the best score, and the best weights are restored. Without `validate` the last weights are kept.

    Args:
        data: the N encoded training examples.
        labels_NC: their soft labels, in the same order; None for language modelling, where the text is the label.
        loss: (logits, targets, progress in [0, 1]) -> scalar, over the whole optimizer batch.
        report: called after each step with (step, steps, {"train/loss": ...}).
        checkpoint: where training saves its state, every few steps and on a stop signal, and resumes (bit for bit on a CPU).

    Raises:
        KeyboardInterrupt: with `checkpoint`, SIGINT or SIGTERM arrived; the current step is finished and saved, unless it
            takes longer than `checkpoint.GRACE`.
        FailedTrainingError: the loss is not finite.
        ConfigError: the checkpoint cannot be written, or the ranks find different ones.
    """
    group = process_group.current()
    whole = GradientAccumulationPlugin(num_steps=1)  # otherwise the launcher's setting would divide every gradient
    with patch_environment(accelerate_use_fsdp="false"):  # otherwise accelerate would manage our FSDP shards itself
        # accelerate's state is global to the process: every training run must use the same settings.
        accelerator = Accelerator(mixed_precision="no", gradient_accumulation_plugin=whole)
    learner = fsdp.split(head, group) if launch.shards() else head
    weights = [parameter for parameter in learner.parameters() if parameter.requires_grad]
    optimizer = accelerator.prepare(_optimizer(weights, options))
    answer = microbatches.computing(learner, options.dtype)
    steps = options.epochs * math.ceil(len(data) / options.batch_size)
    schedule = LambdaLR(optimizer, lambda step: warmup_then_linear(step, steps))
    order = streams.generator(options.seed, streams.BATCH_ORDER)
    training = _Training(learner, optimizer, schedule, order, accelerator.is_main_process)

    with _checkpointed(training, checkpoint, group) as keep:
        while not training.over(options.epochs):
            learner.train()
            for examples in training.batches(data.lengths_N(), options.batch_size):
                labels = None if labels_NC is None else torch.from_numpy(labels_NC[examples]).to(accelerator.device)
                batch = batching.share(data, examples, options.micro_batch, accelerator.device, group, even=learner is not head)
                progress = training.fit.steps / steps
                _seed_dropout(options.seed, group, training.fit.steps, accelerator.device)
                value = microbatches.batch_gradients(
                    answer, learner, batch, labels, loss, progress, accelerator.backward, group
                )
                beside = options.also(training.fit.steps, examples, accelerator.backward) if options.also else {}
                if learner is head:  # FSDP already sums the gradients of its shards
                    group.sum_gradients(weights)
                norm = accelerator.clip_grad_norm_(learner.parameters(), CLIP)
                optimizer.step()
                schedule.step()
                optimizer.zero_grad(set_to_none=True)
                training.count(data.tokens(examples))
                values = {"train/loss": value.item(), "train/gradient_norm": float(norm)}
                if not math.isfinite(values["train/loss"]):
                    what = f"the loss of step {training.fit.steps} of {steps} is not finite"
                    raise FailedTrainingError(f"{what}: the training diverged, lower --learning-rate")
                report(training.fit.steps, steps, values | beside)
                keep()
            if validate is not None:
                with fsdp.joined(head, learner):
                    score = validate(training.fit.steps)
                training.score(score)
            training.next_epoch()
            keep()
    if training.best is not None:
        trainable.load_state(learner, training.best)
    if learner is not head:
        fsdp.join(head, learner)
    return training.fit


def _optimizer(weights: Sequence[Tensor], options: Options) -> AdamW:
    """Return AdamW, fused if torch supports it on the device: about ten times faster (benchmarks/LOG.md)."""
    adamw = functools.partial(AdamW, weights, lr=options.learning_rate, weight_decay=options.weight_decay)
    try:
        return adamw(fused=True)
    except RuntimeError:  # fused AdamW is not supported on this device
        return adamw()


@dataclass
class _Training:
    """All state that changes during training; a checkpoint stores it together with the random states."""

    head: Head
    optimizer: Optimizer
    schedule: LambdaLR
    order: np.random.Generator
    writes: bool
    """Whether this rank writes the checkpoints: true on the main process only."""
    fit: Fit = field(default_factory=Fit)
    best: dict[str, Tensor] | None = None
    """The trainable weights at the best validation score so far."""
    epoch: int = 0
    batch: int = 0
    """Number of finished batches in this epoch."""
    shuffle: Any = None
    """State of `order` at the start of this epoch, which determines its batches."""
    kept: tuple[int, int] | None = None
    """Step and epoch of the last written checkpoint."""

    def __post_init__(self) -> None:
        self.shuffle = self.order.bit_generator.state

    def batches(self, lengths_N: Ints, batch_size: int) -> Iterator[Ints]:
        """Return the remaining batches of this epoch."""
        return itertools.islice(batching.batches(lengths_N, batch_size, self.order), self.batch, None)

    def count(self, tokens: int) -> None:
        """Record a finished step."""
        self.batch += 1
        self.fit.steps += 1
        self.fit.tokens += tokens

    def score(self, value: float) -> None:
        """Record an epoch's validation score, and keep the weights if they are the best so far."""
        self.fit.scores.append(float(value))
        if not self._no_better():
            self.best, self.fit.best_epoch = copy.deepcopy(trainable.state(self.head)), self.epoch

    def next_epoch(self) -> None:
        """Go to the next epoch."""
        self.epoch, self.batch, self.shuffle = self.epoch + 1, 0, self.order.bit_generator.state

    def over(self, epochs: int) -> bool:
        """Return whether all epochs are done, or the last score is no better than the best before it."""
        return self.epoch == epochs or self._no_better()

    def _no_better(self) -> bool:
        scores = self.fit.scores
        return bool(scores) and scores[-1] <= max(scores[:-1], default=-math.inf)

    def save(self, checkpoint: Checkpoint) -> None:
        """Write a checkpoint unless this step and epoch are already saved; all ranks must call this, as shards are gathered."""
        if self.kept == (self.fit.steps, self.epoch):
            return
        self.kept = self.fit.steps, self.epoch
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
        """Restore a checkpoint; random states come last, so that nothing draws from them before the next step."""
        state, tensors = saved.state, checkpoints.tensors(saved)
        slots: dict[int, dict[str, Tensor]] = {}
        here, weights = self.head.state_dict(), self.optimizer.param_groups[0]["params"]
        model, best = (
            {name: fsdp.like(tensor, here[name]) for name, tensor in tensors[part].items()} for part in ("model", "best")
        )
        for name, tensor in tensors["optimizer"].items():
            index, _, slot = name.partition(".")
            slots.setdefault(int(index), {})[slot] = fsdp.like(tensor, weights[int(index)])
        trainable.load_state(self.head, model)
        own = self.optimizer.param_groups  # whether AdamW is fused depends on this device
        groups = [kept | {"fused": now["fused"]} for kept, now in zip(state["optimizer"], own, strict=True)]
        self.optimizer.load_state_dict({"state": slots, "param_groups": groups})
        self.schedule.load_state_dict(state["schedule"])
        self.fit, self.best = Fit(**state["fit"]), best or None
        self.epoch, self.batch = state["epoch"], state["batch"]
        self.order.bit_generator.state = self.shuffle = state["shuffle"]
        checkpoints.restore_random_state(state["random"], tensors["random"])


@contextlib.contextmanager
def _checkpointed(training: _Training, checkpoint: Checkpoint | None, group: Group) -> Iterator[Callable[[], None]]:
    """Resume from the checkpoint, if any; yield a function to call after steps and epochs: it saves if due, and stops.

    All ranks read the same checkpoint and stop at the same step, whichever of them receives the signal.
    """
    if checkpoint is None:
        yield lambda: None
        return
    saved = checkpoints.read(checkpoint.directory)
    if not group.agree_on(saved.file.name if saved else ""):
        raise must("W2S_SCRATCH", "one directory that all processes read", checkpoint.directory)
    if saved:
        training.restore(saved)
    with SignalGuard() as stop:

        def keep() -> None:
            if checkpoint.due(training.fit.steps):
                training.save(checkpoint)
            if group.any(stop.asked):
                training.save(checkpoint)
                raise KeyboardInterrupt

        yield keep


def _seed_dropout(seed: int, group: Group, step: int, device: torch.device) -> None:
    """Seed each step's dropout independently of earlier steps, so that a resumed run equals an uninterrupted one.

    Ranks have different seeds, so that they drop different units; rank 0 has the single-process seed.
    """
    own = streams.integer(seed, streams.DROPOUT, group.rank, step)
    torch.default_generator.manual_seed(own)  # torch.manual_seed would probe every device type, in 0.2 ms
    if device.type != "cpu":
        torch.get_device_module(device).manual_seed(own)


def warmup_then_linear(step: int, steps: int) -> float:
    """Return the learning-rate factor at `step` of `steps`: a linear rise over the first 10%, then a linear fall to zero."""
    warm = max(1, round(WARMUP * steps))
    return (step + 1) / warm if step < warm else (steps - step) / max(1, steps - warm)
