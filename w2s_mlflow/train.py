"""fit(): the only training loop, on accelerate."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor
from torch.optim.lr_scheduler import LambdaLR
from transformers import set_seed

from w2s_mlflow.config import must
from w2s_mlflow.heads import Batch, Encoded, Head
from w2s_mlflow.records import Floats, Ints

Loss = Callable[[Tensor, Tensor, float], Tensor]
Report = Callable[[int, int, dict[str, float]], None]

WARMUP = 0.1
"""Fraction of the steps over which the learning rate grows; it then falls linearly to zero."""
CLIP = 1.0
THREADS = torch.get_num_threads()
SMALL = 5_000_000
"""Parameters below which one thread is taken: it costs up to a fifth on an idle machine and halves the time on a shared one
(benchmarks/LOG.md)."""
POOL = 50
"""Batches that are shuffled together and then sorted by length, so that little is padded and much is random."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """How to train."""

    epochs: int
    batch_size: int
    learning_rate: float
    seed: int
    weight_decay: float = 0.01

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size"):
            if getattr(self, name) < 1:
                raise must(name, "at least 1", getattr(self, name))
        if not (math.isfinite(self.learning_rate) and self.learning_rate > 0):
            raise must("learning_rate", "a positive, finite number", self.learning_rate)


@dataclass
class Fit:
    """What a training did: steps taken, and the validation score after each epoch (higher is better)."""

    steps: int = 0
    tokens: int = 0
    scores: list[float] = field(default_factory=list)
    best_epoch: int = 0


def seed_everything(seed: int) -> None:
    """Seed Python, numpy and torch. Call before a model or head is built: new weights come from this state."""
    set_seed(seed)


def use_threads(parameters: int) -> None:
    """One CPU thread for a small model, whose threads would mostly wait for each other; else all that torch takes."""
    torch.set_num_threads(1 if parameters < SMALL else THREADS)


def fit(
    head: Head,
    data: Encoded,
    labels_NC: Floats | None,
    loss: Loss,
    options: Options,
    *,
    validate: Callable[[int], float] | None = None,
    report: Report = lambda step, steps, metrics: None,
) -> Fit:
    """Train `head` in place: AdamW, linear decay after 10% warm-up, clipping at 1.0.

    After each epoch `validate(step)` scores the head, higher is better; training stops at the first epoch that is no
    better and the best weights come back. Without it the last weights stay.

    Args:
        data: the encoded training examples, N of them.
        labels_NC: their soft labels, joined by id before; None where the text is its own label (head `language`).
        loss: (logits, targets, progress in [0, 1]) -> scalar, over the whole optimizer batch.
        report: called after each step with (step, steps, {"train/loss": ...}).
    """
    accelerator = Accelerator()
    optimizer = torch.optim.AdamW(head.parameters(), lr=options.learning_rate, weight_decay=options.weight_decay)
    learner, optimizer = accelerator.prepare(head, optimizer)
    steps = options.epochs * math.ceil(len(data) / options.batch_size)
    schedule = LambdaLR(optimizer, lambda step: warmup_then_linear(step, steps))
    order = np.random.default_rng(options.seed)
    fitted, best = Fit(), None

    for epoch in range(options.epochs):
        learner.train()
        for examples in batches(data.lengths_N(), options.batch_size, order):
            batch = _to(data.batch(examples), labels_NC, examples, accelerator.device)
            value = loss(learner(batch), head.targets(batch), fitted.steps / steps)
            accelerator.backward(value)
            norm = accelerator.clip_grad_norm_(head.parameters(), CLIP)
            optimizer.step()
            schedule.step()
            optimizer.zero_grad(set_to_none=True)
            fitted.steps += 1
            fitted.tokens += int(batch["attention_mask"].sum())
            report(fitted.steps, steps, {"train/loss": value.item(), "train/gradient_norm": float(norm)})
        if validate is None:
            continue
        fitted.scores.append(validate(fitted.steps))
        if fitted.scores[-1] <= max(fitted.scores[:-1], default=-math.inf):
            break
        best, fitted.best_epoch = copy.deepcopy(head.state_dict()), epoch
    if best is not None:
        head.load_state_dict(best)
    return fitted


def warmup_then_linear(step: int, steps: int) -> float:
    """The learning rate's factor at `step` of `steps`: up over the first 10%, then linearly to zero."""
    warm = max(1, round(WARMUP * steps))
    return (step + 1) / warm if step < warm else (steps - step) / max(1, steps - warm)


def batches(lengths_N: Ints, batch_size: int, order: np.random.Generator) -> Iterator[Ints]:
    """One epoch: every example once, in random batches of similar length; the last batch may be smaller, none is dropped."""
    shuffled = order.permutation(len(lengths_N))
    found: list[Ints] = []
    for start in range(0, len(shuffled), POOL * batch_size):
        pool = shuffled[start : start + POOL * batch_size]
        pool = pool[np.argsort(lengths_N[pool], kind="stable")]
        found += [pool[i : i + batch_size] for i in range(0, len(pool), batch_size)]
    for index in order.permutation(len(found)):
        yield found[index]


def _to(batch: Batch, labels_NC: Floats | None, examples: Ints, device: torch.device) -> Batch:
    if labels_NC is not None:
        batch["labels"] = torch.from_numpy(labels_NC[examples])
    return {name: tensor.to(device) for name, tensor in batch.items()}
