"""Finetune a strong model as a language model on the task's unlabelled text (Algorithm 6, first half).

The model is trained on the text of `supervision` and `transfer`, never of `selection` or `test`. The text is packed into rows
without padding. The validation text comes from the validation slices of `supervision` and `transfer`. A student with
`--generative-epochs` starts from the resulting weights.

Metrics: per step, `train/loss`; `validation/perplexity_before` and `validation/perplexity`, the perplexity before and after
training (of masked tokens, for an encoder); `generative/texts`, the number of training texts; `generative/heldout_texts`, how
many of them are also in `selection` or `test` (0 in a correct split).
Artifacts: `model/model.safetensors`, the weights.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, ClassVar, Literal, Self

from w2s_mlflow import models, streams
from w2s_mlflow.config import checked_dataclass, option, selected
from w2s_mlflow.data.splits import Split
from w2s_mlflow.exceptions import LARGEST, DivergedError
from w2s_mlflow.pipeline import runs
from w2s_mlflow.pipeline.context import Context, resolve
from w2s_mlflow.pipeline.options import OneModel, TaskOptions
from w2s_mlflow.records import Example

if TYPE_CHECKING:
    from w2s_mlflow.tracking.recorder import Recorder
    from w2s_mlflow.tracking.results import Result
    from w2s_mlflow.training.loop import Options

VERSION = 3
LAUNCHED = True
"""Whether this stage supports distributed training (docs/how-to/launch.md)."""
WEIGHTS = "model/model.safetensors"
WORST = 100.0
"""Training is considered to have diverged if the final validation loss, in nats per token, is at least this value."""
BLOCK = 128
"""Default number of tokens per packed row, unless the model's limit is lower."""
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
"""Options that the stage `student` passes on to this stage."""


@checked_dataclass
class Config(TaskOptions, OneModel):
    """Options of generative finetuning."""

    strong: str = option(default="chess-426k", lookup=models.find)
    """Strong model to train."""
    seed: int = option(default=0, ge=0, lt=2**32)
    """Random seed of the split of the training part, the masked tokens, the order of batches and dropout."""
    epochs: int = option(default=1, ge=1)
    """Number of passes over the text."""
    batch_size: int = option(default=32, ge=1)
    """Number of packed rows per optimizer step."""
    learning_rate: float | None = option(default=None, gt=0, lt=LARGEST)
    """Peak learning rate of AdamW. Default: set by the model."""
    block: int | None = option(default=None, ge=2)
    """Number of tokens per packed row. Default: 128, or the model's limit if that is lower."""
    micro_batch: int | None = option(default=None, ge=1, unset="none")
    """Number of packed rows per forward pass. `none`: process a whole batch at once."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Compute precision: `float32` or `bfloat16`."""
    checkpoint_every: int = option(default=200, ge=0, result=False)
    """Number of steps between checkpoints. Interrupted training resumes from the last checkpoint. 0: save a checkpoint only on
    interruption."""

    MODEL: ClassVar[str] = "strong"

    def resolved(self) -> Self:
        """Return the options with the defaults of `data_dir` and `learning_rate` filled in.

        `resolve_and_split` fills in the sizes.
        """
        return replace(super().resolved(), learning_rate=self.learning_rate or self.spec().learning_rate)


def run(config: Config) -> Result:
    """Find or train the model. Raises ConfigError for invalid options, before anything is written."""
    from w2s_mlflow.tracking import fingerprint, source

    context = resolve(config)
    spec = context.model
    parts = fingerprint.FingerprintParts(
        stage="generative",
        version=VERSION,
        options=runs.result_options(context),
        data=context.split.digest,
        inputs={},
        libraries=fingerprint.libraries(),
        source=source.digests(["stages.generative:make", "data.loading:resolve_and_split", f"models.{spec.family}:load"]),
        weights=models.revision(spec),
    )
    identity = context.names() | {"method": "generative"}
    note = f"`{spec.name}` after language modelling on the unlabelled text of `supervision` and `transfer` (Algorithm 6)."
    return runs.produce(parts, context, identity, note, lambda recorder: make(context, recorder))


def make(context: Context[Config], recorder: Recorder) -> None:
    """Train the model, measure its perplexity before and after training, and save the weights."""
    from w2s_mlflow.modeling import language_modeling
    from w2s_mlflow.training import loop

    options, split, spec = context.options, context.split, context.model
    loop.seed_everything(options.seed)
    loop.use_threads(spec.parameters)
    head = language_modeling.head_for(*models.load(spec, pretrained=True))
    loop.to_device(head)
    length = language_modeling.block_length(head, options.block, BLOCK)

    compare = context.task.head == "reward"
    random = streams.generator(options.seed, streams.MASKED_TOKENS)
    training = head.pack(texts((*split.supervision, *split.transfer), compare), length, random)
    random = streams.generator(options.seed, streams.MASKED_VALIDATION_TOKENS)
    unseen = head.pack(texts((*split.supervision_validation, *split.transfer_validation), compare), length, random)
    before = language_modeling.mean_loss(head, unseen)
    fitted = loop.fit(
        head,
        training,
        None,
        language_modeling.loss,
        _loop_options(options),
        report=lambda step, steps, values: recorder.metrics(values, step),
        checkpoint=recorder.checkpoint(options.checkpoint_every),
    )
    size = {"model/parameters": head.model.num_parameters()}
    recorder.metrics(_counts(split) | size | {"train/steps": fitted.steps, "train/tokens": fitted.tokens})
    after = language_modeling.mean_loss(head, unseen)
    if not after < WORST:
        raise DivergedError(f"the loss on unseen text is {after:.4g} because training diverged; lower --learning-rate")
    recorder.metrics({"validation/perplexity_before": math.exp(before), "validation/perplexity": math.exp(after)})
    recorder.weights(WEIGHTS, head.model)


def texts(examples: Sequence[Example], compare: bool) -> list[tuple[str, ...]]:
    """Return the training texts: the text of each example or, if `compare` is set, the prompt with each of its responses."""
    if not compare:
        return [example.segments for example in examples]
    return [("\n".join(example.segments), response) for example in examples for response in example.candidates]


def _loop_options(options: Config) -> Options:
    from w2s_mlflow.training import loop

    assert options.learning_rate is not None
    shared = selected(options, ("epochs", "batch_size", "seed", "micro_batch", "dtype"))
    return loop.Options(learning_rate=options.learning_rate, **shared)


def _counts(split: Split) -> dict[str, float]:
    """Count the distinct training texts, and how many of them are also in `selection` or `test` (0 in a correct split)."""
    training, heldout = (
        {(example.segments, example.candidates) for part in parts for example in part}
        for parts in ((split.supervision, split.transfer), (split.selection, split.test))
    )
    return {"generative/texts": len(training), "generative/heldout_texts": len(training & heldout)}
