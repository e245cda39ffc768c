"""The options that supervisor, ceiling and student share, and what `none` stands for."""

from __future__ import annotations

import importlib.util
from dataclasses import replace
from typing import Any, ClassVar, Literal, Self

from w2s_mlflow import models, tasks
from w2s_mlflow.config import checked_dataclass, option
from w2s_mlflow.data import loading
from w2s_mlflow.exceptions import LARGEST, must

BATCH_SIZE = 32
LORA_FACTOR, FROZEN_RATE = 10, 1e-2
"""Learning rates: of adapters, as a multiple of the model's own (Schulman et al. 2025, LoRA Without Regret), and of a head
alone (benchmarks/LOG.md)."""
NONE = "-"
"""The parameter of a run that has no such thing (a supervisor has no strong model), so that the UI can group by all."""
GIVEN = "labels:"
"""What begins the name of labels from outside, in the place of a weak model's."""


def model_name(value: str, option: str) -> str:
    """A model as runs and the UI call it, wherever its files lie; what stands in the place of one is its own name."""
    return value if value == NONE or value.startswith(GIVEN) else models.find(value, option).name


SHARED = (
    *("task", "seed", "train_size", "test_size", "balance", "data_dir", "head", "max_length", "report", "checkpoint_every"),
    *("micro_batch", "dtype", "gradient_checkpointing", "lora", "freeze"),
)
"""What supervisor, ceiling and student have in common; not the pooling, which a supervisor takes from its own family."""
OF_STUDENT = ("weak", "strong", "pooling", "epochs", "batch_size", "learning_rate")
"""What students and the stages that argue with one have in common beside."""


@checked_dataclass
class EvalConfig:
    """The option of every stage with predictions."""

    report: Literal["none", "selection", "test"] = option(default="test", result=False)
    """What is scored, as a step after fitting that needs no model: test, selection (what searches may look at) or none."""


@checked_dataclass
class Training(EvalConfig):
    """The options of every stage that trains."""

    task: str = option(default="chess", lookup=tasks.find)
    """What is learned: a task of tasks/, such as chess or chess_preference."""
    seed: int = option(default=0, ge=0, lt=2**32)
    """Seeds the cut of the training part, new weights, the order of batches and dropout."""
    train_size: int | None = option(default=None, ge=1)
    """Rows of the training part drawn by the seed, supervision and transfer together; none takes the task's own."""
    test_size: int | None = option(default=None, ge=1)
    """At most so many test rows, the same for every seed; none takes the task's own."""
    balance: bool = False
    """Whether supervision, selection and test hold as many rows of each class; transfer never does: it has no labels."""
    data_dir: str | None = option(default=None, result=False)
    """A mirror of public data sets, <owner>/<name>/<configuration>/<split>.parquet; none takes W2S_DATA_DIR, then the hub."""
    head: Literal["choose", "classify", "compare"] | None = option(default=None)
    """How the model answers: choose, classify or compare; none takes the task's own."""
    pooling: Literal["last", "first", "mean"] | None = option(default=None)
    """What a linear head reads of the text: the last token, the first, or the mean; none takes the model family's own."""
    max_length: int | None = option(default=None, ge=1)
    """Tokens that a text is cut to; none takes all that the model can read."""
    epochs: int = option(default=2, ge=1)
    """Passes over the training half."""
    batch_size: int | None = option(default=None, ge=1)
    """Examples in one optimizer step; none takes 32, or 16 after generative finetuning."""
    learning_rate: float | None = option(default=None, gt=0, lt=LARGEST)
    """Peak learning rate of AdamW; none takes the model's own, ten times it with --lora, and 0.01 with --freeze trunk."""
    micro_batch: int | None = option(default=None, ge=1, unset="none")
    """At most as many tokens, padding included, go through the model at once as so many of the longest examples have: in
    training of a batch, which none takes whole; in predictions of all rows, and never more than a fixed number of tokens. A
    loss sees the whole batch all the same, so the result differs in the last bits alone (with dropout, in what is drawn, and
    so in the draws of align and of debate --explainer rationale or line)."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """What the model computes in, in training and in stored predictions: float32 or bfloat16; weights, optimizer and loss are
    float32 in both, and so is a model that was kept when it answers."""
    gradient_checkpointing: bool = option(default=False, result=False)
    """Whether activations are computed again when the gradient needs them, instead of being held: less memory, more time."""
    lora: int | None = option(default=None, ge=1, unset="none")
    """The rank of low-rank adapters, which are trained in place of the trunk, on all its linear layers, and then merged into
    it; a head's own weights are trained in full. none trains all weights."""
    freeze: Literal["trunk"] | None = option(default=None, unset="none")
    """trunk: only the own weights of a head classify or compare are trained, on what the trunk says once; none: all."""
    checkpoint_every: int = option(default=200, ge=0, result=False)
    """Steps between two checkpoints, from which a killed training goes on; 0 keeps one only when it is stopped."""

    keep_model: Literal["never", "always"] = option(default="never", result=False)
    """always: log the fitted model, to be loaded by mlflow.pyfunc or served by MLflow; never: its predictions are enough."""

    MODEL: ClassVar[str]
    """The field that names the model which is trained."""

    def __post_init__(self) -> None:
        task = tasks.find(self.task)
        if self.head is not None and self.head != task.head and "compare" in (self.head, task.head):
            raise must("head", f"{task.head} for the task {task.name}", self.head)
        self._check_learning(self.head or task.head)

    def _check_learning(self, head: str) -> None:
        """Whether the head has what is asked for, and what goes together."""
        for name in ("freeze", "pooling"):
            if getattr(self, name) is not None and head == "choose":
                raise must(name, "none for the head choose, which has no linear layer of its own", getattr(self, name))
        if self.lora is not None and self.freeze is not None:
            raise must("lora", f"none under --freeze {self.freeze}", self.lora)
        if self.lora is not None and importlib.util.find_spec("peft") is None:
            raise must("lora", 'none, unless the extra is there that has adapters (pip install -e ".[lora]")', self.lora)

    def resolved(self) -> Self:
        """The same with every `none` but the sizes replaced by what the task and the model say; the sizes come from the cut."""
        head = self.head or tasks.find(self.task).head
        values: dict[str, Any] = {
            "data_dir": loading.mirror(self.data_dir),
            "head": head,
            "pooling": None if head == "choose" else self.pooling or self.spec().pooling,
            "batch_size": self.batch_size or BATCH_SIZE,
            "learning_rate": self.learning_rate or self.own_rate(),
        }
        return replace(self, **values)

    def own_rate(self) -> float:
        """The learning rate of what is trained of the model, where none is given: a few new weights take larger steps."""
        if self.freeze is not None:
            return FROZEN_RATE
        return (LORA_FACTOR if self.lora is not None else 1) * self.spec().learning_rate

    def spec(self) -> models.ModelSpec:
        """The model that is trained."""
        return models.find(getattr(self, self.MODEL), self.MODEL)

    def shared(self) -> dict[str, Any]:
        """What a stage hands on to the stages it needs: the same data, head and way to compute, nothing of its method."""
        return {name: getattr(self, name) for name in SHARED}


@checked_dataclass
class SupervisedTraining(Training):
    """The options of the stages that train on ground truth: supervisor and ceiling."""

    early_stopping: Literal["gold", "none"] = "gold"
    """gold: stop at the first epoch that is no better on the validation slice, best weights back; none: all epochs."""
