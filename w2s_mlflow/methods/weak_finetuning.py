"""Training on weak labels, used for students and for the models of a bootstrapping chain."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from w2s_mlflow import registry
from w2s_mlflow.config import selected
from w2s_mlflow.exceptions import ConfigError
from w2s_mlflow.methods import labels as label_sources
from w2s_mlflow.methods import presets
from w2s_mlflow.methods.student_options import ORACLE, Config
from w2s_mlflow.pipeline import finetune, frozen, ground_truth, runs
from w2s_mlflow.pipeline.context import Context
from w2s_mlflow.pipeline.finetune import LabelledExamples
from w2s_mlflow.records import SoftLabels

if TYPE_CHECKING:
    from w2s_mlflow.modeling.heads import Head
    from w2s_mlflow.tracking.recorder import Recorder
    from w2s_mlflow.tracking.results import Result

TEMPERATURE = "validation/temperature"
"""Name of the supervisor's metric that contains the fitted temperature, which `--calibrate` applies to the labels."""


def roots(options: Config) -> list[str]:
    """Return the definitions whose source enters the fingerprint of a student or chain model with these options."""
    kind = presets.kind_of_labels(options.labels)
    if options.labels in presets.UNTRAINED:
        return [f"methods.labels.{kind}:labels", "methods.elicitation:record", f"tasks.{options.find_task().family}"]
    trained_by = "train" if options.freeze is None else "train_frozen"
    definitions = [
        f"methods.labels.{kind}:labels",
        *(f"methods.weak_finetuning:{name}" for name in (trained_by, "weak_labels")),
    ]
    definitions += [f"losses.{options.loss}", *(frozen.ROOTS if options.freeze else ())]
    if hasattr(label_sources.source(kind), "epochs"):
        definitions.append(f"methods.labels.{kind}:epochs")
    if options.early_stopping == ORACLE:
        definitions.append("methods.weak_finetuning:validation_labels")
    return definitions


def generative_run(options: Config) -> dict[str, Result]:
    """Find or run the generative finetuning that provides the initial weights.

    Returns:
        {"generative": run}, or {} if there is no generative finetuning.
    """
    if not options.generative_epochs:
        return {}
    stage = registry.plugin("stages", "generative", "the stage")  # an import would be circular: stages import methods
    shared = selected(options, stage.SHARED)
    return {"generative": stage.run(stage.Config(**shared, epochs=options.generative_epochs))}


def start_weights(inputs: Mapping[str, Result]) -> Path | None:
    """Return the weights file of the input `generative`, or None if there is no such input."""
    stage = registry.plugin("stages", "generative", "the stage")
    return inputs["generative"].artifact(stage.WEIGHTS) if "generative" in inputs else None


def weak_labels(labeller: Result, context: Context[Config]) -> SoftLabels:
    """Return the labels that the run `labeller` gives to `transfer` and to the validation slice of `transfer`.

    If the run is a supervisor and `--calibrate` is given, the labels are temperature-scaled.

    Raises:
        JoinError: a row has no label.
        ConfigError: the labels depend on ground truth.
    """
    split, labels = context.split, runs.weak_labels(labeller)
    labels.of([example.id for example in split.transfer + split.transfer_validation])
    scaled = context.options.calibrate and labeller.stage == "supervisor"
    return labels.at_temperature(labeller.metrics[TEMPERATURE]) if scaled else labels


def validation_labels(labels: SoftLabels, context: Context[Config], recorder: Recorder) -> SoftLabels | None:
    """Return the labels of the validation slice for early stopping, or None to disable it.

    Args:
        labels: the labels to train on.
    """
    options = context.options
    if options.early_stopping == ORACLE and options.labels != ORACLE:
        return ground_truth.oracle_labels(context, context.split.transfer_validation, recorder)
    return None if options.early_stopping == "none" else labels


def train(
    context: Context[Config], labels: SoftLabels, watched: SoftLabels | None, start: Path | None, recorder: Recorder
) -> Head:
    """Build a head, train it on the rows of `transfer` that have a label, and store its predictions.

    Args:
        labels: the labels to train on.
        watched: the labels of the validation slice for early stopping. If None, training does not stop early.
        start: weights file from which training starts. If None, it starts from the weights selected by `--weights`.
    """
    options, split = context.options, context.split
    head = finetune.build_head(context, pretrained=options.weights == "pretrained", start=start)
    assert options.loss is not None
    training = LabelledExamples.labelled(split.transfer, labels)
    if not training.examples:
        raise ConfigError(f"--labels {options.labels} leaves no row of transfer to train on")
    validation = LabelledExamples.labelled(split.transfer_validation, watched) if watched else None
    score = "oracle_accuracy" if options.early_stopping == ORACLE else "agreement"
    finetune.fit_head(head, context, training, validation, recorder, options.loss, options.loss_options, score)
    recorder.predictions("validation", finetune.predictions(head, split.transfer_validation, options))
    finetune.record_heldout(head, context, recorder)
    return head


def train_frozen(context: Context[Config], labels: SoftLabels, start: Path | None, recorder: Recorder) -> frozen.FrozenModel:
    """Fit a linear head on a frozen backbone to the rows of `transfer` that have a label, and store its predictions.

    The arguments are those of `train`. The head is fitted until it converges, so there is no early stopping.
    """
    options, split = context.options, context.split
    assert options.loss is not None
    training = LabelledExamples.labelled(split.transfer, labels)
    if not training.examples:
        raise ConfigError(f"--labels {options.labels} leaves no row of transfer to train on")
    model = frozen.FrozenModel(context, pretrained=options.weights == "pretrained", start=start)
    model.fit(training, ground_truth.chosen_l2(model, context, recorder), options.loss, options.loss_options, recorder)
    recorder.predictions("validation", model.predictions(split.transfer_validation))
    model.record_heldout(recorder)
    return model
