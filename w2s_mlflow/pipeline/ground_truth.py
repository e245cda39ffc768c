"""Train on ground truth, and make control labels from ground truth. Each read of gold labels is counted."""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from w2s_mlflow import streams
from w2s_mlflow.data import gold as data_gold
from w2s_mlflow.data import loading, splits
from w2s_mlflow.pipeline import finetune, frozen, label_noise
from w2s_mlflow.pipeline.context import Context, StageOptions
from w2s_mlflow.pipeline.finetune import LabelledExamples
from w2s_mlflow.pipeline.options import SupervisedTraining, Training
from w2s_mlflow.pipeline.scoring import CEILING_FAILED, NEAR_CHANCE
from w2s_mlflow.records import Example, Floats, Ints, Predictions, SoftLabels

if TYPE_CHECKING:
    from w2s_mlflow.modeling.heads import Head
    from w2s_mlflow.tracking.recorder import Recorder

LOOKED_AT = 1000
"""Maximum number of training rows used to check that training on ground truth succeeded."""
ROWS = "rows.parquet"
"""Name of the artifact in which a supervisor stores a digest of each row of the split. The command `why` reads it to find the
rows that have changed."""


def fit_on_gold(context: Context[SupervisedTraining], half: str, reason: str, recorder: Recorder) -> Head:
    """Train a head on the ground truth of one half of the training rows, `supervision` or `transfer`.

    Reads of labels are counted under `reason`. Besides the training curve, two groups of metrics are logged. `train/accuracy`
    and `train/majority` (the share of the most frequent class) are computed on at most LOOKED_AT training rows. The metrics
    `validation/...` are computed on the validation slice: those of `metrics.report`, and the best-fitting `temperature`.
    """
    config, gold, classes = context.options, data_gold.gold_of(context.options), context.task.classes
    training, validation = (
        LabelledExamples.joined(examples, _one_hot(examples, data_gold.read(gold, examples, half, reason), classes))
        for examples in (context.split.parts()[half], context.split.parts()[f"{half}_validation"])
    )
    head = finetune.build_head(context)
    finetune.fit_head(head, context, training, validation if config.early_stopping == "gold" else None, recorder)
    predictions = finetune.predictions(head, validation.examples, config)
    recorder.predictions("validation", predictions)
    recorder.metrics(data_gold.reads(gold) | _calibration(predictions, validation))
    near_chance = _near_chance(head, config, training, recorder)
    if reason == "ceiling":
        recorder.tags[CEILING_FAILED] = NEAR_CHANCE if near_chance else "no"
    return head


def _near_chance(head: Head, config: SupervisedTraining, training: LabelledExamples, recorder: Recorder) -> bool:
    """Return whether training accuracy is near the share of the most frequent class (see `stats.near_chance`).

    The accuracy and the share are logged.
    """
    from w2s_mlflow import stats

    answers_N = finetune.predictions(head, training.examples[:LOOKED_AT], config).probabilities_NC.argmax(axis=1)
    labels_N = training.labels_NC[:LOOKED_AT].argmax(axis=1)
    accuracy, majority = float((answers_N == labels_N).mean()), float(np.bincount(labels_N).max() / len(labels_N))
    recorder.metrics({"train/accuracy": accuracy, "train/majority": majority})
    return stats.near_chance(accuracy, majority, len(labels_N))


def fit_frozen_on_gold(context: Context[SupervisedTraining], half: str, reason: str, recorder: Recorder) -> frozen.FrozenModel:
    """Fit a linear head on a frozen backbone to the ground truth of one half of the training rows.

    The arguments, the metrics and the counts of gold labels are those of `fit_on_gold`. The head is fitted until it converges,
    so the validation slice is not used to stop.
    """
    from w2s_mlflow import stats

    gold, classes = data_gold.gold_of(context.options), context.task.classes
    training, validation = (
        LabelledExamples.joined(examples, _one_hot(examples, data_gold.read(gold, examples, half, reason), classes))
        for examples in (context.split.parts()[half], context.split.parts()[f"{half}_validation"])
    )
    model = frozen.FrozenModel(context)
    model.fit(training, chosen_l2(model, context, recorder), "cross_entropy", {}, recorder)
    predictions = model.predictions(validation.examples)
    recorder.predictions("validation", predictions)
    recorder.metrics(data_gold.reads(gold) | _calibration(predictions, validation))
    answers_N = model.predictions(training.examples[:LOOKED_AT]).probabilities_NC.argmax(axis=1)
    labels_N = training.labels_NC[:LOOKED_AT].argmax(axis=1)
    accuracy, majority = float((answers_N == labels_N).mean()), float(np.bincount(labels_N).max() / len(labels_N))
    recorder.metrics({"train/accuracy": accuracy, "train/majority": majority})
    if reason == "ceiling":
        recorder.tags[CEILING_FAILED] = NEAR_CHANCE if stats.near_chance(accuracy, majority, len(labels_N)) else "no"
    return model


def chosen_l2(model: frozen.FrozenModel, context: Context[Training], recorder: Recorder) -> float:
    """Return the penalty of a linear head: the option `l2` or, by default, the choice of cross-validation on `supervision`.

    The rule is the same for supervisor, student and ceiling: each is cross-validated with its own features on `supervision`
    and its validation slice, and no label of another part is read. Reads are counted as `penalty`.
    """
    if context.options.l2 is not None:
        return context.options.l2
    labels_N = supervision_labels(context, "penalty", recorder)
    examples = context.split.supervision + context.split.supervision_validation
    return model.choose_l2(examples, labels_N, streams.generator(context.options.seed, streams.PENALTY_FOLDS))


def _calibration(predictions: Predictions, validation: LabelledExamples) -> dict[str, float]:
    from w2s_mlflow import metrics

    gold_N = validation.labels_NC.argmax(axis=1)
    values = metrics.report(predictions.probabilities_NC, gold_N)
    values["temperature"] = metrics.temperature(predictions.probabilities_NC, gold_N)
    return {f"validation/{name}": value for name, value in values.items()}


def supervision_accuracies(
    context: Context[StageOptions], answers: Mapping[str, Predictions], recorder: Recorder
) -> dict[str, float]:
    """Return the accuracies of several answers to `supervision` and its validation slice. Reads are counted as `prompt`."""
    gold_N = supervision_labels(context, "prompt", recorder)
    ids = [example.id for example in context.split.supervision + context.split.supervision_validation]
    return {name: float(given.aligned(ids).with_gold(gold_N).correct_N().mean()) for name, given in answers.items()}


def supervision_labels(context: Context[StageOptions], reason: str, recorder: Recorder) -> Ints:
    """Return the gold labels of `supervision` and its validation slice: those that the supervisor learns from.

    Reads are counted under `reason`.
    """
    gold = data_gold.gold_of(context.options)
    examples = context.split.supervision + context.split.supervision_validation
    labels_N = data_gold.read(gold, examples, "supervision", reason)
    recorder.metrics(data_gold.reads(gold))
    return labels_N


def oracle_labels(context: Context[StageOptions], examples: Sequence[Example], recorder: Recorder) -> SoftLabels:
    """Return the ground truth of `transfer` examples as one-hot labels, to be used in place of weak labels.

    Each read of a label is counted.
    """
    gold = data_gold.gold_of(context.options)
    labels_N = data_gold.read(gold, examples, "transfer", "oracle")
    recorder.metrics(data_gold.reads(gold))
    return _one_hot(examples, labels_N, context.task.classes)


def random_labels(context: Context[StageOptions], weak: SoftLabels, recorder: Recorder) -> SoftLabels:
    """Return one-hot labels with as many errors as the weak labels have, but on random rows: a control for label noise.

    The number of wrong labels equals the number of the supervisor's errors, separately in `transfer` and in its validation
    slice. The rows with wrong labels and their wrong classes are sampled from a separate random stream, so that the errors are
    independent of the batch order. Reads of ground truth are counted as `control`.
    """
    gold, classes, split = data_gold.gold_of(context.options), context.task.classes, context.split
    random = streams.generator(context.options.seed, streams.RANDOM_LABELS)
    parts = []
    for examples in (split.transfer, split.transfer_validation):
        labels_N = data_gold.read(gold, examples, "transfer", "control")
        wrong = int((weak.of([example.id for example in examples]).argmax(axis=1) != labels_N).sum())
        rows = random.permutation(len(examples))[:wrong]
        labels_N[rows] = (labels_N[rows] + random.integers(1, classes, size=wrong)) % classes
        parts.append(labels_N)
    recorder.metrics(data_gold.reads(gold))
    return _one_hot(split.transfer + split.transfer_validation, np.concatenate(parts), classes)


def matched_noise(context: Context[StageOptions], weak: SoftLabels, recorder: Recorder) -> SoftLabels:
    """Return labels with the accuracy and the softness of the weak labels, but with errors at random rows.

    See `label_noise.matched`, which is applied to `transfer` and to its validation slice separately. Reads of ground truth are
    counted as `control`.
    """
    gold, split = data_gold.gold_of(context.options), context.split
    random = streams.generator(context.options.seed, streams.MATCHED_NOISE)
    parts = []
    for examples in (split.transfer, split.transfer_validation):
        weak_NC = weak.of([example.id for example in examples])
        parts.append(label_noise.matched(weak_NC, data_gold.read(gold, examples, "transfer", "control"), random))
    recorder.metrics(data_gold.reads(gold))
    return _soft_labels(split.transfer + split.transfer_validation, np.concatenate(parts))


def _one_hot(examples: Sequence[Example], labels_N: Ints, classes: int) -> SoftLabels:
    return _soft_labels(examples, np.eye(classes, dtype=np.float32)[labels_N])


def _soft_labels(examples: Sequence[Example], probabilities_NC: Floats) -> SoftLabels:
    ids, groups = (tuple(getattr(example, name) for example in examples) for name in ("id", "group"))
    return SoftLabels(ids, groups, probabilities_NC)


def record_rows(context: Context[StageOptions], recorder: Recorder) -> None:
    """Write `rows.parquet`: the id, part and digest of every row of the split, and the row's metadata as JSON."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    source = (context.options.task, context.options.data_dir)
    digests = _row_digests(*source)
    about = {row.example.id: row.about for row in loading.rows(*source)}
    used = [(example.id, part) for part, examples in context.split.parts().items() for example in examples]
    columns = {"id": [id_ for id_, _ in used], "part": [part for _, part in used]}
    columns["digest"] = [digests[id_] for id_, _ in used]
    columns["about"] = [json.dumps(about[id_]) for id_, _ in used]
    pq.write_table(pa.table(columns), recorder.directory / ROWS)


@functools.lru_cache(maxsize=8)
def _row_digests(task: str, data_dir: str | None) -> dict[str, str]:
    # A Split must not hold these digests: they cover the labels, so trying every class would reveal a row's label.
    return {row.example.id: splits.row_digest(row) for row in loading.rows(task, data_dir)}
