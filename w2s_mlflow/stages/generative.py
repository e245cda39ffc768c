"""Algorithm 6, first half: train a strong model further as a language model, on the task's unlabelled text.

The model is trained on the text of `supervision` and `transfer`, never of `selection` or `test`. The text is packed into rows
without padding, and validated on both validation slices. A student starts from the weights (`--generative-epochs`).

Metrics: `train/loss` by step; `validation/perplexity_before` and `validation/perplexity` (of masked tokens, for an encoder);
`generative/texts`, the number of training texts, and `generative/heldout_texts`, how many are also held out (0).
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
"""Whether this stage supports distributed training (docs/how-to/launch.md)."""
WEIGHTS = "model/model.safetensors"
WORST = 100.0
"""Validation loss, in nats per token, at which training counts as diverged."""
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
"""Options that a student passes on to this stage."""


@checked_dataclass
class Config:
    """Options of generative finetuning."""

    task: str = option(default="chess", lookup=tasks.find)
    """Task that provides the text (see tasks/)."""
    strong: str = option(default="chess-426k", lookup=models.find)
    """Strong model to train."""
    seed: int = option(default=0, ge=0, lt=2**32)
    """Random seed of the split of the training part, the masked tokens, the order of batches and dropout."""
    train_size: int | None = option(default=None, ge=1)
    """Number of training rows (supervision and transfer together), sampled by the seed. Default: set by the task."""
    test_size: int | None = option(default=None, ge=1)
    """Maximum number of test rows. Default: set by the task."""
    balance: bool = False
    """Whether to balance the classes of supervision."""
    data_dir: str | None = option(default=None, result=False)
    """Mirror of public data sets. Default: W2S_DATA_DIR, else the hub."""
    epochs: int = option(default=1, ge=1)
    """Number of passes over the text."""
    batch_size: int = option(default=32, ge=1)
    """Packed rows per optimizer step."""
    learning_rate: float | None = option(default=None, gt=0, lt=LARGEST)
    """Peak learning rate of AdamW. Default: set by the model."""
    block: int | None = option(default=None, ge=2)
    """Tokens per packed row. Default: 128, or the model's limit if that is lower."""
    micro_batch: int | None = option(default=None, ge=1, unset="none")
    """Packed rows per forward pass. `none`: the whole batch."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Compute precision: `float32` or `bfloat16`."""
    checkpoint_every: int = option(default=200, ge=0, result=False)
    """Steps between checkpoints, from which an interrupted training resumes. 0: write a checkpoint only on interruption."""

    def resolved(self) -> Config:
        """Return the options with the model's defaults filled in; the split fills in the sizes."""
        rate = self.learning_rate or models.find(self.strong, "strong").learning_rate
        return replace(self, data_dir=mirror(self.data_dir), learning_rate=rate)


def run(config: Config) -> Result:
    """Find or train the model. Raises ConfigError before anything is written."""
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
    """Train the model, measure its perplexity before and after, and save the weights."""
    from w2s_mlflow.modeling import language_modeling
    from w2s_mlflow.training import loop

    compare = tasks.find(config.task).head == "reward"
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
        raise FailedTrainingError(f"the loss on unseen text is {after:.4g} because training diverged; lower --learning-rate")
    recorder.metrics({"validation/perplexity_before": math.exp(before), "validation/perplexity": math.exp(after)})
    recorder.weights(WEIGHTS, head.model)


def texts(examples: Sequence[Example], compare: bool) -> list[tuple[str, ...]]:
    """Return the training texts: the text of each example or, for a comparison, the prompt with each response."""
    if not compare:
        return [example.segments for example in examples]
    return [("\n".join(example.segments), response) for example in examples for response in example.candidates]


def _how(config: Config) -> Options:
    from w2s_mlflow.training import loop

    assert config.learning_rate is not None
    how = {name: getattr(config, name) for name in ("epochs", "batch_size", "seed", "micro_batch", "dtype")}
    return loop.Options(learning_rate=config.learning_rate, **how)


def _counts(cut: Split) -> dict[str, float]:
    """Count the distinct training texts, and how many of them are also held out (0 in a correct split)."""
    read, held = (
        {(example.segments, example.candidates) for part in parts for example in part}
        for parts in ((cut.supervision, cut.transfer), (cut.selection, cut.test))
    )
    return {"generative/texts": len(read), "generative/heldout_texts": len(read & held)}
