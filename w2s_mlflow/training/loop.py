"""The training loop `fit()`, based on accelerate. The state of a training run is in state.py."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import GradientAccumulationPlugin, patch_environment
from torch import Tensor
from torch.optim import AdamW
from torch.optim.lr_scheduler import LambdaLR
from transformers import set_seed

from w2s_mlflow import streams
from w2s_mlflow.distributed import launch, process_group
from w2s_mlflow.distributed.process_group import Group
from w2s_mlflow.exceptions import DivergedError, check_positive, must
from w2s_mlflow.modeling.heads import Encoded, Head
from w2s_mlflow.records import Floats, Ints
from w2s_mlflow.training import batching, fsdp, microbatches, trainable
from w2s_mlflow.training.checkpoint import Checkpoint
from w2s_mlflow.training.microbatches import Loss
from w2s_mlflow.training.state import Fit, TrainingState, checkpointed

Report = Callable[[int, int, dict[str, float]], None]
AuxiliaryObjective = Callable[[int, Ints, Callable[..., Any]], dict[str, float]]
"""Function that backpropagates an additional loss of a batch and returns metrics. Its arguments are the step, the indices of
the batch's examples and the backward function."""

WARMUP = 0.1
"""Fraction of the steps over which the learning rate rises linearly. Afterwards the learning rate falls linearly to zero."""
CLIP = 1.0
THREADS = torch.get_num_threads()
SMALL = 5_000_000
"""Models with fewer parameters use one CPU thread. One thread is up to a fifth slower than several on an idle machine, but
twice as fast on a shared machine (benchmarks/LOG.md).
"""


@dataclass(frozen=True, kw_only=True)
class Options:
    """Options of the training loop."""

    epochs: int
    batch_size: int
    learning_rate: float
    seed: int
    weight_decay: float = 0.01
    micro_batch: int | None = None
    """Maximum size of a forward pass, counted in examples as long as the longest one in the batch. If None, a pass takes the
    whole batch."""
    dtype: str = "float32"
    """Precision of the backbone's forward pass, float32 or bfloat16; everything else, the head's last layer
    included, is float32."""
    auxiliary: AuxiliaryObjective | None = None
    """Auxiliary objective. It is called on each batch, backpropagates an additional loss and returns metrics to report."""

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size", "micro_batch"):
            if (value := getattr(self, name)) is not None and value < 1:
                raise must(name, "at least 1", value)
        check_positive("learning_rate", self.learning_rate)


def seed_everything(seed: int) -> None:
    """Seed Python, numpy and torch. Call this before building a model or head, to make its initial weights reproducible."""
    set_seed(streams.integer(seed, streams.WEIGHTS))


def use_threads(parameters: int) -> None:
    """Set the number of CPU threads: one for a small model, otherwise torch's default number.

    With a small model, several threads would mostly wait for each other.
    """
    torch.set_num_threads(1 if parameters < SMALL else THREADS)


def to_device(head: Head) -> None:
    """Move a head to the training device: an accelerator if there is one, else the CPU."""
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
    """Train `head` in place. Only parameters that require a gradient are trained.

    The optimizer is AdamW. The learning rate rises linearly over the first 10% of the steps and then falls linearly to zero.
    Gradients are clipped to a norm of 1.0. In distributed training each rank trains on its share of every batch, and all ranks
    reach the same weights (distributed/process_group.py).

    After each epoch `validate(step)` returns a score of the head (higher is better). Training stops after the first epoch that
    does not improve on the best score, and the best weights are restored. Without `validate` the last weights are kept.

    Args:
        data: the N encoded training examples.
        labels_NC: soft labels of the examples, in the same order; None for language modelling, whose targets are in the text.
        loss: function of (logits, targets, progress in [0, 1]) that returns a scalar for the whole optimizer batch.
        report: function called after each step with (step, total number of steps, metrics such as `train/loss`).
        checkpoint: where and how often training saves its state. The state is also saved on a stop signal. Training resumes
            from an existing checkpoint; on a CPU its result equals that of uninterrupted training, bit for bit.

    Raises:
        KeyboardInterrupt: SIGINT or SIGTERM arrived and `checkpoint` is given. The current step is finished and saved first,
            unless it takes longer than `checkpoint.GRACE`.
        DivergedError: the loss is not finite.
        ConfigError: the checkpoint cannot be written, or the ranks find different checkpoints.
    """
    group, accelerator = process_group.current(), _accelerator()
    learner = fsdp.split(head, group) if launch.shards() else head
    weights = [parameter for parameter in learner.parameters() if parameter.requires_grad]
    optimizer = accelerator.prepare(_optimizer(weights, options))
    forward = microbatches.forward_in(learner, options.dtype)
    steps = options.epochs * math.ceil(len(data) / options.batch_size)
    schedule = LambdaLR(optimizer, lambda step: warmup_then_linear(step, steps))
    order = streams.generator(options.seed, streams.BATCH_ORDER)
    training = TrainingState(learner, optimizer, schedule, order, accelerator.is_main_process)

    def train_batch(examples: Ints) -> dict[str, float]:
        """Take one optimizer step and return its metrics."""
        labels = None if labels_NC is None else torch.from_numpy(labels_NC[examples]).to(accelerator.device)
        batch = batching.micro_batches(data, examples, options.micro_batch, accelerator.device, group, even=learner is not head)
        step = training.fit.steps
        _seed_dropout(options.seed, group, step, accelerator.device)
        value = microbatches.batch_gradients(forward, learner, batch, labels, loss, step / steps, accelerator.backward, group)
        auxiliary = options.auxiliary(step, examples, accelerator.backward) if options.auxiliary else {}
        if learner is head:  # with FSDP the gradients are already summed over ranks
            group.sum_gradients(weights)
        norm = accelerator.clip_grad_norm_(learner.parameters(), CLIP)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad(set_to_none=True)
        training.count(data.tokens(examples))
        return {"train/loss": _finite(value.item(), step + 1, steps), "train/gradient_norm": float(norm)} | auxiliary

    with checkpointed(training, checkpoint, group) as save_if_due:
        while not training.over(options.epochs):
            learner.train()
            for examples in training.batches(data.lengths_N(), options.batch_size):
                metrics = train_batch(examples)
                report(training.fit.steps, steps, metrics)
                save_if_due()
            if validate is not None:
                with fsdp.joined(head, learner):
                    score = validate(training.fit.steps)
                training.score(score)
            training.next_epoch()
            save_if_due()
    if training.best is not None:
        trainable.load_state(learner, training.best)
    if learner is not head:
        fsdp.join(head, learner)
    return training.fit


def _accelerator() -> Accelerator:
    """Return an accelerator. Its state is global to the process, so every training run must use the same settings."""
    # Without this plugin, a gradient-accumulation setting of `accelerate launch` would divide every gradient.
    plugin = GradientAccumulationPlugin(num_steps=1)
    # Without this setting, `accelerate launch --use_fsdp` would make accelerate shard the weights, which fsdp.py does.
    with patch_environment(accelerate_use_fsdp="false"):
        return Accelerator(mixed_precision="no", gradient_accumulation_plugin=plugin)


def _finite(loss: float, step: int, steps: int) -> float:
    if not math.isfinite(loss):
        problem = f"the loss of step {step} of {steps} is not finite because training diverged"
        raise DivergedError(f"{problem}; lower --learning-rate")
    return loss


def _optimizer(weights: Sequence[Tensor], options: Options) -> AdamW:
    """Return an AdamW optimizer: the fused variant, about ten times faster (benchmarks/LOG.md), if the device supports it."""
    adamw = functools.partial(AdamW, weights, lr=options.learning_rate, weight_decay=options.weight_decay)
    try:
        return adamw(fused=True)
    except RuntimeError:  # fused AdamW is not supported on this device
        return adamw()


def _seed_dropout(seed: int, group: Group, step: int, device: torch.device) -> None:
    """Seed the dropout of each step independently of earlier steps, so that a resumed run equals an uninterrupted one.

    Ranks have different seeds, so that they drop different units; rank 0 has the seed of single-process training.
    """
    dropout_seed = streams.integer(seed, streams.DROPOUT, group.rank, step)
    torch.default_generator.manual_seed(dropout_seed)  # torch.manual_seed is slower (0.2 ms): it probes every device type
    if device.type != "cpu":
        torch.get_device_module(device).manual_seed(dropout_seed)


def warmup_then_linear(step: int, steps: int) -> float:
    """Return the learning-rate factor at `step` of `steps`: a linear rise over the first 10%, then a linear fall to zero."""
    warm = max(1, round(WARMUP * steps))
    return (step + 1) / warm if step < warm else (steps - step) / max(1, steps - warm)
