"""Algorithm 6, its first half: a strong model goes on with language modelling on the task's own text, without labels.

It reads the texts of `supervision` and `transfer`, never one of `selection` or `test`: both halves are packed into rows without
padding, and what it has learned is measured on their validation slices. A student starts from there (`--generative-epochs`).

Metrics: `train/loss` by step; `validation/perplexity_before` and `validation/perplexity` (of hidden tokens, for an encoder);
`generative/texts` and `generative/heldout_texts`, how many it has read, and how many of these are held out: none.
Artifacts: `model/model.safetensors`, the weights.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Literal

from w2s_mlflow import models, streams, tasks
from w2s_mlflow.config import checked_dataclass, option
from w2s_mlflow.data import loading
from w2s_mlflow.data.loading import mirror
from w2s_mlflow.data.splits import Split
from w2s_mlflow.exceptions import LARGEST, FailedTrainingError
from w2s_mlflow.pipeline import runs
from w2s_mlflow.pipeline.options import NONE
from w2s_mlflow.records import Example

if TYPE_CHECKING:
    from w2s_mlflow.tracking.recorder import Recorder
    from w2s_mlflow.tracking.results import Result
    from w2s_mlflow.training.loop import Options

VERSION = 3
LAUNCHED = True
"""Several processes may be launched to train it together (docs/launch.md)."""
WEIGHTS = "model/model.safetensors"
WORST = 100.0
"""A loss, in nats per token, of which nothing can be said any more."""
BLOCK = 128
"""Tokens of a packed row, unless the model reads fewer."""
SHARED = (
    "task",
    "seed",
    "train_size",
    "test_size",
    "balance",
    "data_dir",
    "strong",
    "micro_batch",
    "dtype",
    "checkpoint_every",
)
"""What a student hands on."""


@checked_dataclass
class Config:
    """A strong model that has read the task's text."""

    task: str = option(default="chess", lookup=tasks.find)
    """Whose text is read: a task of tasks/."""
    strong: str = option(default="chess-426k", lookup=models.find)
    """The model that reads."""
    seed: int = option(default=0, ge=0, lt=2**32)
    """Seeds the cut of the training part, what is hidden, the order of batches and dropout."""
    train_size: int | None = option(default=None, ge=1)
    """Rows of the training part drawn by the seed, supervision and transfer together; none takes the task's own."""
    test_size: int | None = option(default=None, ge=1)
    """At most so many test rows; none takes the task's own."""
    balance: bool = False
    """Whether supervision holds as many rows of each class."""
    data_dir: str | None = option(default=None, result=False)
    """A mirror of public data sets; none takes W2S_DATA_DIR, then the hub."""
    epochs: int = option(default=1, ge=1)
    """Passes over the text."""
    batch_size: int = option(default=32, ge=1)
    """Packed rows in one optimizer step."""
    learning_rate: float | None = option(default=None, gt=0, lt=LARGEST)
    """Peak learning rate of AdamW; none takes the model's own."""
    block: int | None = option(default=None, ge=2)
    """Tokens of a packed row; none takes 128, or what the model reads if that is less."""
    micro_batch: int | None = option(default=None, ge=1, unset="none")
    """Packed rows that go through the model at once; none takes whole batches."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """What the model computes in: float32 or bfloat16."""
    checkpoint_every: int = option(default=200, ge=0, result=False)
    """Steps between two checkpoints, from which a killed training goes on; 0 keeps one only when it is stopped."""

    def resolved(self) -> Config:
        """The same with `none` replaced by what the model says; the sizes come from the cut."""
        rate = self.learning_rate or models.find(self.strong, "strong").learning_rate
        return replace(self, data_dir=mirror(self.data_dir), learning_rate=rate)


def run(config: Config) -> Result:
    """The run of the model that has read, found or made. Raises ConfigError before anything is written."""
    from w2s_mlflow.tracking import fingerprint, source

    config, cut = loading.resolve_and_split(config.resolved())
    spec = models.find(config.strong, "strong")
    parts = fingerprint.FingerprintParts(
        stage="generative",
        version=VERSION,
        options=runs.result_options(config),
        data=cut.digest,
        inputs={},
        libraries=fingerprint.libraries(),
        source=source.digests(["stages.generative:make", "data.loading:resolve_and_split", f"models.{spec.family}:load"]),
        weights=models.revision(spec),
    )
    labels = {"weak": NONE, "strong": spec.name, "method": "generative"}
    note = f"`{spec.name}` after language modelling on the unlabelled text of `supervision` and `transfer` (Algorithm 6)."
    return runs.produce(parts, config, cut, labels, note, lambda recorder: make(config, cut, recorder))


def make(config: Config, cut: Split, recorder: Recorder) -> None:
    """Train, measure, and stage the weights."""
    from w2s_mlflow.modeling import language_modeling
    from w2s_mlflow.training import loop

    compare = tasks.find(config.task).head == "compare"
    loop.seed_everything(config.seed)
    loop.use_threads(models.find(config.strong, "strong").parameters)
    head = language_modeling.head_for(*models.load(models.find(config.strong, "strong"), pretrained=True))
    loop.to_device(head)
    length = language_modeling.block_length(head, config.block, BLOCK)
    random = streams.generator(config.seed, streams.MASKED_TOKENS)
    read = head.pack(texts((*cut.supervision, *cut.transfer), compare), length, random)
    random = streams.generator(config.seed, streams.MASKED_VALIDATION_TOKENS)
    held = head.pack(texts((*cut.supervision_validation, *cut.transfer_validation), compare), length, random)
    before = language_modeling.mean_loss(head, held)
    fitted = loop.fit(
        head,
        read,
        None,
        language_modeling.loss,
        _how(config),
        report=lambda step, steps, values: recorder.metrics(values, step),
        checkpoint=recorder.checkpoint(config.checkpoint_every),
    )
    size = {"model/parameters": head.model.num_parameters()}
    recorder.metrics(_counts(cut) | size | {"train/steps": fitted.steps, "train/tokens": fitted.tokens})
    after = language_modeling.mean_loss(head, held)
    if not after < WORST:
        raise FailedTrainingError(f"the loss on unseen text is {after:.4g}: the training diverged, lower --learning-rate")
    recorder.metrics({"validation/perplexity_before": math.exp(before), "validation/perplexity": math.exp(after)})
    recorder.weights(WEIGHTS, head.model)


def texts(examples: Sequence[Example], compare: bool) -> list[tuple[str, ...]]:
    """What there is to read: the text of each example; of a comparison, with each of its responses."""
    if not compare:
        return [example.segments for example in examples]
    return [("\n".join(example.segments), response) for example in examples for response in example.candidates]


def _how(config: Config) -> Options:
    from w2s_mlflow.training import loop

    assert config.learning_rate is not None
    how = {name: getattr(config, name) for name in ("epochs", "batch_size", "seed", "micro_batch", "dtype")}
    return loop.Options(learning_rate=config.learning_rate, **how)


def _counts(cut: Split) -> dict[str, float]:
    """How many texts were read, and how many of them are held out: the cut says none."""
    read, held = (
        {(example.segments, example.candidates) for part in parts for example in part}
        for parts in ((cut.supervision, cut.transfer), (cut.selection, cut.test))
    )
    return {"generative/texts": len(read), "generative/heldout_texts": len(read & held)}
