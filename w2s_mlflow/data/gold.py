"""Ground truth: the only file of stages that holds labels. It cuts a task, trains on gold, and makes the labels of controls.

What trains on weak labels is given a `Split`, which has none. `Gold` counts every read under its reason; stored predictions are
scored against it in `_scoring.py`.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from w2s_mlflow import streams, tasks
from w2s_mlflow.data import loading, splits
from w2s_mlflow.data.loading import Cutting
from w2s_mlflow.exceptions import ConfigError
from w2s_mlflow.records import Example, Gold, Ints, NoLabelError, Predictions, SoftLabels
from w2s_mlflow.stages import _finetune
from w2s_mlflow.stages._finetune import Labelled
from w2s_mlflow.stages._options import GoldTraining

if TYPE_CHECKING:
    from w2s_mlflow.modeling.heads import Head
    from w2s_mlflow.tracking.recorder import Recorder

CEILING_FAILED = "w2s.ceiling_failed"
"""On a ceiling and on each student reported against it: no, or by which of two rules it did not learn. Its training accuracy is
near chance (`stats.near_chance`), or on the reported split it is below the supervisor."""
NEAR_CHANCE = "near chance"
LOOKED_AT = 1000
"""Training rows, at most, on which it is seen whether a fit on ground truth has learned."""
ROWS = "rows.parquet"
"""The rows of a cut, each with its digest, kept by the supervisor: by them `why` names a row that has changed."""


def fit_on_gold(config: GoldTraining, cut: splits.Split, half: str, reason: str, recorder: Recorder) -> Head:
    """A head fitted on the ground truth of one half, `supervision` or `transfer`; each label read is counted.

    Metrics beside the curve: `train/accuracy` and `train/majority` on LOOKED_AT training rows; on the validation slice all of
    `metrics.report`, and the `temperature` that fits it best.
    """
    gold, classes = gold_of(config), tasks.find(config.task).classes
    training, validation = (
        Labelled.joined(examples, _one_hot(examples, read(gold, examples, half, reason), classes))
        for examples in (cut.parts()[half], cut.parts()[f"{half}_validation"])
    )
    head = _finetune.build_head(config)
    _finetune.fit_head(head, config, training, validation if config.early_stopping == "gold" else None, recorder)
    found = _finetune.predictions(head, validation.examples, config)
    recorder.predictions("validation", found)
    recorder.metrics(reads(gold) | _calibration(found, validation))
    near_chance = _near_chance(head, config, training, recorder)
    if reason == "ceiling":
        recorder.tags[CEILING_FAILED] = NEAR_CHANCE if near_chance else "no"
    return head


def _near_chance(head: Head, config: GoldTraining, training: Labelled, recorder: Recorder) -> bool:
    """Whether the training rows are known no better than by their most frequent class alone; both shares are metrics."""
    from w2s_mlflow import stats

    answers_N = _finetune.predictions(head, training.examples[:LOOKED_AT], config).probabilities_NC.argmax(axis=1)
    labels_N = training.labels_NC[:LOOKED_AT].argmax(axis=1)
    accuracy, majority = float((answers_N == labels_N).mean()), float(np.bincount(labels_N).max() / len(labels_N))
    recorder.metrics({"train/accuracy": accuracy, "train/majority": majority})
    return stats.near_chance(accuracy, majority, len(labels_N))


def _calibration(found: Predictions, validation: Labelled) -> dict[str, float]:
    from w2s_mlflow import metrics

    gold_N = validation.labels_NC.argmax(axis=1)
    values = metrics.report(found.probabilities_NC, gold_N)
    values["temperature"] = metrics.temperature(found.probabilities_NC, gold_N)
    return {f"validation/{name}": value for name, value in values.items()}


def oracle_labels(config: Cutting, examples: Sequence[Example], recorder: Recorder) -> SoftLabels:
    """The ground truth of `transfer`'s examples, one-hot, in the place of weak labels; its reads are counted."""
    gold = gold_of(config)
    labels_N = read(gold, examples, "transfer", "oracle")
    recorder.metrics(reads(gold))
    return _one_hot(examples, labels_N, tasks.find(config.task).classes)


def random_labels(config: Cutting, cut: splits.Split, weak: SoftLabels, recorder: Recorder) -> SoftLabels:
    """Labels as often right as the weak ones, but wrong at random, one-hot: what a student can do against noise alone.

    As many rows of `transfer`, and of its validation slice, have a wrong label as the supervisor got wrong; which ones, and
    which wrong class, is drawn by the seed, and by no number that also orders the batches: each has as many wrong rows as
    chance gives it. The reads of ground truth are counted as `control`.
    """
    gold, classes = gold_of(config), tasks.find(config.task).classes
    drawn = streams.generator(config.seed, streams.RANDOM_LABELS)
    parts = []
    for examples in (cut.transfer, cut.transfer_validation):
        labels_N = read(gold, examples, "transfer", "control")
        wrong = int((weak.of([example.id for example in examples]).argmax(axis=1) != labels_N).sum())
        rows = drawn.permutation(len(examples))[:wrong]
        labels_N[rows] = (labels_N[rows] + drawn.integers(1, classes, size=wrong)) % classes
        parts.append(labels_N)
    recorder.metrics(reads(gold))
    return _one_hot(cut.transfer + cut.transfer_validation, np.concatenate(parts), classes)


def _one_hot(examples: Sequence[Example], labels_N: Ints, classes: int) -> SoftLabels:
    ids, groups = (tuple(getattr(example, name) for example in examples) for name in ("id", "group"))
    return SoftLabels(ids, groups, np.eye(classes, dtype=np.float32)[labels_N])


def record_rows(config: Cutting, cut: splits.Split, recorder: Recorder) -> None:
    """Stage `rows.parquet`: id, part and digest of every row of the cut, and what else its source says of it, as JSON."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    digests = _row_digests(config.task, config.data_dir)
    about = {row.example.id: row.about for row in loading.rows(config.task, config.data_dir)}
    used = [(example.id, part) for part, examples in cut.parts().items() for example in examples]
    columns = {"id": [id_ for id_, _ in used], "part": [part for _, part in used]}
    columns["digest"] = [digests[id_] for id_, _ in used]
    columns["about"] = [json.dumps(about[id_]) for id_, _ in used]
    pq.write_table(pa.table(columns), recorder.directory / ROWS)


@dataclass(frozen=True)
class Concept:
    """The ground truth of a task, for a probe: rows to fit on, to choose a layer by, and to be scored on, in this order.

    The first two are of `supervision` and its validation slice, the last of `test`. `reads` is the ledger of what was read.
    """

    task: str
    digest: str
    examples: tuple[Example, ...]
    fit_N: Ints
    choose_N: Ints
    test_N: Ints
    test_groups: tuple[str, ...]
    reads: dict[str, float]

    def parts(self, rows: NDArray[Any]) -> list[NDArray[Any]]:
        """What belongs to the rows of each of the three, of an array with one entry for each of `examples`."""
        return np.split(rows, np.cumsum([len(self.fit_N), len(self.choose_N)]))


def concept(config: Cutting, task: str, rows: int) -> Concept:
    """A concept by its task's name, cut with the student's seed; at most so many rows to fit on, and to be scored on.

    Raises:
        ConfigError: the task is found nowhere, or is too small to be cut.
    """
    sizes = (config.train_size, config.test_size) if task == config.task else (None, None)
    own = _Cut(task, config.seed, *sizes, balance=False, data_dir=config.data_dir)
    sized, found = loading.cut(own)
    gold, parts = gold_of(sized), (found.supervision[:rows], found.supervision_validation, found.test[:rows])
    fit_N, choose_N = (read(gold, part, "supervision", "probe") for part in parts[:2])
    test_N = read(gold, parts[2], "test", "probe")
    examples, groups = sum(parts, ()), tuple(example.group for example in parts[2])
    return Concept(task, found.digest, examples, fit_N, choose_N, test_N, groups, reads(gold))


@dataclass(frozen=True)
class _Cut:
    """How a concept's task is cut."""

    task: str
    seed: int
    train_size: int | None
    test_size: int | None
    balance: bool
    data_dir: str | None


def read(gold: Gold, examples: Sequence[Example], part: str, reason: str) -> Ints:
    """The labels of examples, counted. Raises ConfigError where there are none."""
    try:
        return gold.read(examples, split=part, reason=reason)
    except NoLabelError as error:
        raise ConfigError(f"the task must have the ground truth that is asked for: {error}") from error


def reads(gold: Gold) -> dict[str, float]:
    """The ledger as metrics: `gold/<split>/<reason>`, rows read."""
    return {f"gold/{name}": count for name, count in gold.ledger().items()}


def gold_of(config: Cutting) -> Gold:
    """The task's ground truth, with a ledger of its own."""
    return Gold(_labels(config.task, config.data_dir))


@functools.lru_cache(maxsize=8)
def _labels(task: str, data_dir: str | None) -> dict[str, int]:
    return {row.example.id: row.label for row in loading.rows(task, data_dir)}


@functools.lru_cache(maxsize=8)
def _row_digests(task: str, data_dir: str | None) -> dict[str, str]:
    # Not a field of Split: a digest covers the label, and two labels are soon tried.
    return {row.example.id: splits.row_digest(row) for row in loading.rows(task, data_dir)}
