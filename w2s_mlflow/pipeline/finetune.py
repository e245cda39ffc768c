"""Finetuning and prediction with a head, shared by the stages.

No function here reads gold labels: an `Example` has no label, and the caller passes the labels to train on.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from w2s_mlflow import losses, models, registry
from w2s_mlflow.pipeline import runs
from w2s_mlflow.pipeline.context import Context
from w2s_mlflow.pipeline.options import Training
from w2s_mlflow.records import Example, Floats, Predictions, SoftLabels

if TYPE_CHECKING:
    from torch import Tensor

    from w2s_mlflow.modeling.heads import Encoded, Head
    from w2s_mlflow.tracking.recorder import Recorder
    from w2s_mlflow.tracking.results import Result
    from w2s_mlflow.training.loop import AuxiliaryObjective, Options
    from w2s_mlflow.training.microbatches import Loss


@dataclass(frozen=True)
class LabelledExamples:
    """Examples, their soft labels in the same order, and an optional auxiliary objective (training/loop.py)."""

    examples: Sequence[Example]
    labels_NC: Floats
    auxiliary: AuxiliaryObjective | None = None

    @classmethod
    def joined(cls, examples: Sequence[Example], labels: SoftLabels) -> LabelledExamples:
        """Join examples with their labels by id. Raises JoinError if an example has no label."""
        return cls(examples, labels.of([example.id for example in examples]))

    @classmethod
    def labelled(cls, examples: Sequence[Example], labels: SoftLabels) -> LabelledExamples:
        """Leave out the examples without a label, and join the other examples with their labels by id."""
        known = set(labels.ids)
        return cls.joined([example for example in examples if example.id in known], labels)


def build_head(context: Context[Training], *, pretrained: bool = True, start: Path | None = None) -> Head:
    """Build the model with its head on the training device. New weights depend only on the seed.

    Args:
        pretrained: load the pretrained weights instead of initialising the model at random.
        start: file of weights that replace the pretrained or random weights of the model. If None, no weights are replaced.
    """
    import safetensors.torch

    from w2s_mlflow.modeling import heads
    from w2s_mlflow.training import loop

    options = context.options
    loop.seed_everything(options.seed)
    loop.use_threads(context.model.parameters)
    model, tokenizer = models.load(context.model, pretrained=pretrained)
    if start is not None:
        safetensors.torch.load_model(model, str(start))
    head = heads.build(str(options.head), model, tokenizer, context.task.classes, options.pooling, options.max_length)
    loop.to_device(head)
    return head


def load_kept_model(run: Result, parameters: int | None = None) -> Head:
    """Load the logged model of a run, and move it to the training device.

    Args:
        parameters: parameter count of the largest model in use, which determines the number of CPU threads. If None, the
            parameter count of the loaded model is used.
    """
    from w2s_mlflow.tracking import logged_model
    from w2s_mlflow.training import loop

    head = logged_model.load(run.tags[runs.MODEL])
    loop.use_threads(parameters or head.model.num_parameters())
    loop.to_device(head)
    return head


def fit_head(
    head: Head,
    context: Context[Training],
    training: LabelledExamples,
    validation: LabelledExamples | None,
    recorder: Recorder,
    loss: str = "cross_entropy",
    loss_options: Mapping[str, Any] | None = None,
    score_name: str = "agreement",
) -> None:
    """Train `head` on the labelled examples `training`, and log the training curve.

    Args:
        validation: examples for early stopping: after each epoch, the agreement of the predictions with their labels is
            measured. If None, there is no early stopping.
        score_name: name of this agreement in the metrics. Its value after each epoch is logged as `validation/<score_name>`,
            and its value in the epoch whose weights are kept is logged as `validation/best_<score_name>`.
    """
    from w2s_mlflow import metrics
    from w2s_mlflow.training import loop, trainable

    config, minimised = context.options, _loss(loss, loss_options or {}, large=context.model.large)
    watched = _encoded(head, validation.examples, config) if validation else None

    def validate(step: int) -> float:
        assert validation is not None and watched is not None
        score = metrics.agreement_score(probabilities(head, watched, config), validation.labels_NC)
        recorder.metrics({f"validation/{score_name}": score}, step)
        return score

    with trainable.learning(head, lora=config.lora, freeze=config.freeze, gradient_checkpointing=config.gradient_checkpointing):
        fitted = loop.fit(
            head,
            _encoded(head, training.examples, config),
            training.labels_NC,
            minimised,
            _loop_options(config, training.auxiliary),
            validate=validate if validation else None,
            report=lambda step, steps, values: recorder.metrics(values, step),
            checkpoint=recorder.checkpoint(config.checkpoint_every),
        )
    recorder.metrics({"train/steps": fitted.steps, "train/tokens": fitted.tokens, "train/best_epoch": fitted.best_epoch + 1})
    if fitted.scores:
        recorder.metrics({f"validation/best_{score_name}": fitted.scores[fitted.best_epoch]})


def _loss(name: str, given: Mapping[str, Any], *, large: bool) -> Loss:
    from w2s_mlflow.training import microbatches

    plugin = registry.plugin("losses", name, "--loss")
    chosen = losses.resolve(plugin.Options(**given), large=large)

    def loss(logits_NC: Tensor, labels_NC: Tensor, progress: float) -> Tensor:
        value: Tensor = plugin.loss(logits_NC, labels_NC, progress, chosen)
        return value

    return microbatches.PerExampleLoss(loss) if plugin.PER_EXAMPLE else loss


def _loop_options(config: Training, auxiliary: AuxiliaryObjective | None) -> Options:
    from w2s_mlflow.training import loop

    assert config.learning_rate is not None and config.batch_size is not None
    return loop.Options(
        epochs=config.epochs,
        batch_size=config.batch_size,
        learning_rate=config.learning_rate,
        seed=config.seed,
        micro_batch=config.micro_batch,
        dtype=config.dtype,
        auxiliary=auxiliary,
    )


def _encoded(head: Head, examples: Sequence[Example], config: Training) -> Encoded:
    """Tokenise examples for training. If the backbone is frozen, also compute and store its outputs."""
    from w2s_mlflow.modeling import heads, inference

    data = head.encode(examples)
    if config.freeze is None:
        return data
    assert isinstance(head, heads.Classification)
    return inference.pooled(head, data, config.micro_batch, config.dtype)


def probabilities(head: Head, data: Encoded, config: Training) -> Floats:
    """Return the head's probabilities on tokenised examples, (N, C). All stored predictions come from this function."""
    from w2s_mlflow.modeling import inference

    return inference.probabilities(head, data, config.micro_batch, config.dtype)


def predictions(head: Head, examples: Sequence[Example], config: Training) -> Predictions:
    """Return the head's predictions on `examples`."""
    return predict_table(examples, probabilities(head, head.encode(examples), config))


def predict_table(examples: Sequence[Example], probabilities_NC: Floats) -> Predictions:
    """Combine probabilities with the ids and groups of the examples, in the same order, and return them as predictions."""
    ids, groups = (tuple(getattr(example, name) for example in examples) for name in ("id", "group"))
    return Predictions(ids, groups, probabilities_NC)


def record_heldout(head: Head, context: Context[Training], recorder: Recorder) -> None:
    """Store the head's predictions on the splits `selection` and `test`, so that they can be scored without the model."""
    for part in ("selection", "test"):
        recorder.predictions(part, predictions(head, context.split.parts()[part], context.options))
