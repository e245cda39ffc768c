"""Options that supervisor, ceiling and student share, and the defaults of these options."""

from __future__ import annotations

import importlib.util
from dataclasses import replace
from typing import Any, ClassVar, Literal, Self

from w2s_mlflow import models, tasks
from w2s_mlflow.config import checked_dataclass, option, selected
from w2s_mlflow.data import loading
from w2s_mlflow.exceptions import LARGEST, must, unknown
from w2s_mlflow.local import processor
from w2s_mlflow.models import ModelSpec
from w2s_mlflow.tasks import Task

BATCH_SIZE = 32
LORA_FACTOR, FROZEN_RATE = 10, 1e-3
"""Default learning rates. LoRA adapters use LORA_FACTOR times the model's default rate (Schulman et al. 2025, LoRA Without
Regret). A head on standardised features of a frozen backbone uses FROZEN_RATE with the losses that need AdamW."""
DEPTH = 5 / 6
"""Share of a decoder's layers below the default layer of --freeze backbone. It was fixed once for all models and tasks."""
NONE = "-"
"""Value of a parameter or tag that does not apply to a run, such as the strong model of a supervisor. Because every run has a
value, the UI can group all runs by that parameter or tag."""
GIVEN = "labels:"
"""Prefix that marks the name of a labels file where the name of a weak model is expected."""
RULE = "rule:"
"""Prefix of a rule of the task that takes the place of the weak model: `rule:NAME`."""


def model_name(value: str, option: str) -> str:
    """Return a model's name as shown in runs and the UI, without a path. NONE, labels files and rules stay unchanged."""
    return value if value == NONE or value.startswith((GIVEN, RULE)) else models.find(value, option).name


def rule_name(weak: str) -> str | None:
    """Return the name of the rule that takes the place of the weak model, or None if `weak` names no rule."""
    return weak.removeprefix(RULE) if weak.startswith(RULE) else None


SHARED = (
    *("task", "seed", "train_size", "test_size", "balance", "data_dir", "head", "max_length", "eval_split", "checkpoint_every"),
    *("micro_batch", "dtype", "gradient_checkpointing", "lora", "freeze"),
)
"""Names of the options that must have the same values in the supervisor, ceiling and student of one experiment. `pooling` is
not one of them, because its default depends on the model family."""
OF_STRONG = ("strong", "pooling", "layer", "l2")
"""Names of the options that a student and its ceiling share, but not the supervisor."""
OF_STUDENT = ("weak", *OF_STRONG, "epochs", "batch_size", "learning_rate")
"""Names of the options, besides SHARED, that students and the stages that run debates have in common."""


@checked_dataclass
class EvalConfig:
    """The one option that all stages that make predictions have."""

    eval_split: Literal["none", "selection", "test"] = option(default="test", result=False, formerly="report")
    """Split on which predictions are scored: `test`, `selection` (used by searches) or `none` (no scoring)."""


@checked_dataclass
class TaskOptions:
    """Options of every stage that works on the split of a task."""

    task: str = option(default="chess", lookup=tasks.find)
    """Task, such as chess or chess_preference (see tasks/)."""
    train_size: int | None = option(default=None, ge=1)
    """Number of training rows (supervision and transfer together), sampled with the seed. Default: set by the task."""
    test_size: int | None = option(default=None, ge=1)
    """Maximum number of test rows. The test rows are the same for every seed. Default: set by the task."""
    balance: bool = False
    """Whether to balance the classes of `supervision`, `selection` and `test`. `transfer` is never balanced, because that would
    require its labels."""
    data_dir: str | None = option(default=None, result=False)
    """Directory with copies of public data sets, in files <owner>/<name>/<configuration>/<split>.parquet. Default: the
    environment variable W2S_DATA_DIR. If that is not set, data sets are downloaded from the Hugging Face hub."""

    def find_task(self) -> Task:
        """Return the task that the option `task` names."""
        return tasks.find(self.task)

    def check_weak(self, weak: str) -> None:
        """Raise ConfigError if `weak` is neither a model nor a rule of the task, such as `rule:random`."""
        if rule_name(weak) is None:
            models.find(weak, "weak")
        elif rule_name(weak) not in (rules := (*self.find_task().rules, *self.find_task().features)):
            raise unknown("--weak", weak, [f"{RULE}{name}" for name in rules] or ["a model, as the task has no rules"])

    def resolved(self) -> Self:
        """Return the options with the default of `data_dir` filled in. Default sizes are filled in when the rows are split."""
        return replace(self, data_dir=loading.mirror(self.data_dir))


class OneModel:
    """Mixin for the options of a stage that trains one model."""

    MODEL: ClassVar[str]
    """Name of the option whose value is the model to train, such as `weak` or `strong`."""

    def spec(self) -> ModelSpec:
        """Return the spec of the model to train."""
        return models.find(vars(self)[self.MODEL], self.MODEL)


@checked_dataclass
class Training(EvalConfig, TaskOptions, OneModel):
    """Options of every stage that finetunes a model with a head."""

    seed: int = option(default=0, ge=0, lt=2**32)
    """Random seed for splitting the training rows, initialising new weights, batch order and dropout."""
    head: Literal["lm_choice", "classification", "reward"] | None = option(default=None, former_values=tasks.FORMER_HEADS)
    """Head of the model. `lm_choice`: scores of the candidates by the language-model head; `classification`: a linear
    classifier; `reward`: a scalar reward per response. Default: set by the task."""
    pooling: Literal["last", "first", "mean"] | None = option(default=None)
    """Pooling of hidden states before a linear head: `last` token, `first` token, or `mean` over all tokens. Default: set by
    the model family."""
    max_length: int | None = option(default=None, ge=1)
    """Maximum number of tokens of a text; longer texts are truncated. Default: the model's limit."""
    epochs: int = option(default=2, ge=1)
    """Number of passes over the training half."""
    batch_size: int | None = option(default=None, ge=1)
    """Number of examples per optimizer step. Default: 32, or 16 after generative finetuning."""
    learning_rate: float | None = option(default=None, gt=0, lt=LARGEST)
    """Peak learning rate of AdamW. Default: the learning rate of the model, multiplied by 10 with --lora; 0.001 with
    --freeze backbone. After generative finetuning, half of this value."""
    micro_batch: int | None = option(default=None, ge=1, unset="none")
    """Maximum size of a forward pass, counted in examples of maximum length. The limit in tokens is this number times the
    length of the longest example (of the batch in training, of all rows in prediction), so more examples fit if they are
    shorter. Prediction also has a fixed token limit. With `none`, training uses whole batches, and prediction has only the
    fixed limit. The loss is always computed on the whole batch, so results change only by rounding, except where random numbers
    are drawn (dropout, `align`, explainers that generate text)."""
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """Compute precision of training and stored predictions: `float32` or `bfloat16`. Weights, optimizer, the head's last layer
    and the loss are always float32, and a logged model predicts in float32. `auto`: float32; with --freeze backbone, bfloat16
    if the processor has instructions for it."""
    gradient_checkpointing: bool = option(default=False, result=False)
    """Whether to recompute activations in the backward pass instead of storing them, which takes less memory but more time."""
    lora: int | None = option(default=None, ge=1, unset="none")
    """Rank of LoRA adapters on all linear layers of the backbone. They are trained instead of the backbone and then merged into
    it; the weights of a linear head are trained in full. `none`: train all weights."""
    freeze: Literal["backbone"] | None = option(default=None, unset="none", former_values={"trunk": "backbone"})
    """`backbone`: train only the linear layer of a `classification` or `reward` head, on standardised features of one layer of
    the backbone, which are computed once and cached. Cross-entropy and confidence loss are minimised by L-BFGS until they
    converge; --epochs, --batch-size and --early-stopping have no effect. `none`: freeze nothing."""
    layer: int | None = option(default=None, ge=1, introduced=None)
    """Layer whose hidden states are the features with --freeze backbone. Default: five sixths of the layers of a decoder,
    rounded; the last layer of an encoder."""
    l2: float | None = option(default=None, gt=0, lt=LARGEST, introduced=None)
    """L2 penalty on the weights of the linear layer with --freeze backbone: l2 / 2 times their squared norm is added to the
    mean loss. Default: chosen by cross-validation on the ground truth of `supervision`."""
    checkpoint_every: int = option(default=200, ge=0, result=False)
    """Number of steps between checkpoints. Interrupted training resumes from its last checkpoint. 0: save a checkpoint only on
    interruption."""

    keep_model: Literal["never", "always"] = option(default="never", result=False)
    """`always`: log the trained model to MLflow, for mlflow.pyfunc and MLflow serving; `never`: store only its predictions."""

    def __post_init__(self) -> None:
        task = self.find_task()
        if self.head is not None and self.head not in task.heads:
            raise must("head", f"{' or '.join(task.heads)} for the task {task.name}", self.head)
        self._check_learning(self.head or task.head)

    def _check_learning(self, head: str) -> None:
        """Raise ConfigError if --head, --pooling, --freeze and --lora conflict, or if --lora needs the missing package peft."""
        for name in ("freeze", "pooling"):
            if (value := vars(self)[name]) is not None and head == "lm_choice":
                raise must(name, "none for the head lm_choice, which has no linear layer of its own", value)
        for name in ("layer", "l2"):
            if (value := vars(self)[name]) is not None and self.freeze is None:
                raise must(name, "left out without --freeze backbone", value)
        if self.lora is not None and self.freeze is not None:
            raise must("lora", f"none with --freeze {self.freeze}", self.lora)
        if self.lora is not None and importlib.util.find_spec("peft") is None:
            raise must("lora", 'none unless the package peft is installed (pip install -e ".[lora]")', self.lora)

    def resolved(self) -> Self:
        """Return the options with the defaults that the task and the model set.

        Default sizes are filled in later, when the rows are split.
        """
        head = self.head or self.find_task().head
        values: dict[str, Any] = {
            "head": head,
            "pooling": None if head == "lm_choice" else self.pooling or self.spec().pooling,
            "batch_size": self.batch_size or BATCH_SIZE,
            "learning_rate": self.learning_rate or self.default_rate(),
            "layer": self._resolved_layer(),
            "dtype": self._resolved_dtype(),
        }
        return replace(super().resolved(), **values)

    def _resolved_layer(self) -> int | None:
        """Return --layer, or None if it names the default layer, so that both make the same run.

        Raises:
            ConfigError: the model lacks the layer.
        """
        if self.layer is None:
            return None
        if self.layer > (layers := models.layers(self.spec())):
            raise must("layer", f"in [1, {layers}], the layers of {self.spec().name}", self.layer)
        return None if self.layer == self._default_layer() else self.layer

    def feature_layer(self) -> int:
        """Return the layer that the features come from with --freeze backbone."""
        return self.layer or self._default_layer()

    def _default_layer(self) -> int:
        layers = models.layers(self.spec())
        return max(1, round(DEPTH * layers)) if self.spec().pooling == "last" else layers

    def _resolved_dtype(self) -> str:
        if self.dtype != "auto":
            return self.dtype
        return "bfloat16" if self.freeze is not None and processor.has_bfloat16() else "float32"

    def default_rate(self) -> float:
        """Return the default learning rate, which is higher with LoRA or a frozen backbone."""
        if self.freeze is not None:
            return FROZEN_RATE
        return (LORA_FACTOR if self.lora is not None else 1) * self.spec().learning_rate

    def shared(self) -> dict[str, Any]:
        """Return the options that this stage passes on to the stages that it needs: those on data, head and computation."""
        return selected(self, SHARED)


@checked_dataclass
class SupervisedTraining(Training):
    """Options of the stages that train on ground truth: supervisor and ceiling."""

    early_stopping: Literal["gold", "none"] = "gold"
    """Early stopping. `gold`: stop after the first epoch that does not improve the accuracy on the validation slice, and
    restore the best weights; `none`: train all epochs."""
