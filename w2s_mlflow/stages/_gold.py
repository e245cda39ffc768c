"""Ground truth: the only file of stages that sees labels. It cuts a task, trains on gold, and scores stored predictions.

What trains on weak labels is given a `Split`, which has none. `Gold` stays here and counts every read under its reason.
"""

from __future__ import annotations

import functools
import json
import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from w2s_mlflow import split, tasks
from w2s_mlflow.config import ConfigError
from w2s_mlflow.records import Example, Gold, Ints, NoLabelError, Predictions, Row, SoftLabels, write_gold
from w2s_mlflow.stages import _finetune
from w2s_mlflow.stages._finetune import Labelled
from w2s_mlflow.stages._options import Cutting, GoldTraining, Scoring

if TYPE_CHECKING:
    from w2s_mlflow.heads import Head
    from w2s_mlflow.tracking.recorder import Recorder
    from w2s_mlflow.tracking.results import Result

LOG = logging.getLogger("w2s_mlflow")
PGR_STATUS = "w2s.pgr_status"
"""ok, undetermined, or what is missing for a PGR."""
CEILING_FAILED = "w2s.ceiling_failed"
"""On a ceiling and on each student reported against it: no, or by which of two rules it did not learn. Its training accuracy is
near chance (`stats.near_chance`), or on the reported split it is below the supervisor."""
NEAR_CHANCE, BELOW_FLOOR = "near chance", "below the floor"
HUMAN = "w2s.human"
"""weak or strong against the task's published human score, where there is one on accuracy."""
LOOKED_AT = 1000
"""Training rows, at most, on which it is seen whether a fit on ground truth has learned."""
ROWS = "rows.parquet"
"""The rows of a cut, each with its digest, kept by the supervisor: by them `why` names a row that has changed."""


Cut = TypeVar("Cut", bound=Cutting)


def cut(config: Cut) -> tuple[Cut, split.Split]:
    """A stage's options with the sizes filled in, and its cut.

    Raises:
        ConfigError: the task is found nowhere, or does not have the sizes asked for.
    """
    task, pool = tasks.find(config.task), _pool(config.task, config.data_dir, config.balance)
    sized = replace(  # type: ignore[type-var]
        config,
        train_size=config.train_size or min(task.train_size, pool.train_rows()),
        test_size=config.test_size or min(task.test_size, pool.test_rows()),
    )
    return sized, _cut(config.task, config.data_dir, config.balance, config.seed, sized.train_size, sized.test_size)


def fit_on_gold(config: GoldTraining, cut: split.Split, half: str, reason: str, recorder: Recorder) -> Head:
    """A head fitted on the ground truth of one half, `supervision` or `transfer`; each label read is counted.

    Metrics beside the curve: `train/accuracy` and `train/majority` on LOOKED_AT training rows; on the validation slice all of
    `metrics.report`, and the `temperature` that fits it best.
    """
    gold, classes = _gold(config), tasks.find(config.task).classes
    training, validation = (
        Labelled.joined(examples, _one_hot(examples, _read(gold, examples, half, reason), classes))
        for examples in (cut.parts()[half], cut.parts()[f"{half}_validation"])
    )
    head = _finetune.build_head(config)
    _finetune.fit_head(head, config, training, validation if config.early_stopping == "gold" else None, recorder)
    found = _finetune.predictions(head, validation.examples, config)
    recorder.predictions("validation", found)
    recorder.metrics(_reads(gold) | _calibration(found, validation))
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
    from w2s_mlflow import calibration, metrics

    gold_N = validation.labels_NC.argmax(axis=1)
    values = metrics.report(found.probabilities_NC, gold_N)
    return _named(values | {"temperature": calibration.temperature(found.probabilities_NC, gold_N)}, "validation")


def oracle_labels(config: Cutting, examples: Sequence[Example], recorder: Recorder) -> SoftLabels:
    """The ground truth of `transfer`'s examples, one-hot, in the place of weak labels; its reads are counted."""
    gold = _gold(config)
    labels_N = _read(gold, examples, "transfer", "oracle")
    recorder.metrics(_reads(gold))
    return _one_hot(examples, labels_N, tasks.find(config.task).classes)


def random_labels(config: Cutting, cut: split.Split, weak: SoftLabels, recorder: Recorder) -> SoftLabels:
    """Labels as often right as the weak ones, but wrong at random, one-hot: what a student can do against noise alone.

    As many rows of `transfer`, and of its validation slice, have a wrong label as the supervisor got wrong; which ones, and
    which wrong class, is drawn by the seed. The reads of ground truth are counted as `control`.
    """
    gold, classes, drawn = _gold(config), tasks.find(config.task).classes, np.random.default_rng(config.seed)
    parts = []
    for examples in (cut.transfer, cut.transfer_validation):
        labels_N = _read(gold, examples, "transfer", "control")
        wrong = int((weak.of([example.id for example in examples]).argmax(axis=1) != labels_N).sum())
        rows = drawn.permutation(len(examples))[:wrong]
        labels_N[rows] = (labels_N[rows] + drawn.integers(1, classes, size=wrong)) % classes
        parts.append(labels_N)
    recorder.metrics(_reads(gold))
    return _one_hot(cut.transfer + cut.transfer_validation, np.concatenate(parts), classes)


def _one_hot(examples: Sequence[Example], labels_N: Ints, classes: int) -> SoftLabels:
    ids, groups = (tuple(getattr(example, name) for example in examples) for name in ("id", "group"))
    return SoftLabels(ids, groups, np.eye(classes, dtype=np.float32)[labels_N])


def record_rows(config: Cutting, cut: split.Split, recorder: Recorder) -> None:
    """Stage `rows.parquet`: id, part and digest of every row of the cut, and what else its source says of it, as JSON."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    digests = _row_digests(config.task, config.data_dir)
    about = {row.example.id: row.about for row in _rows(config.task, config.data_dir)}
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
    sized, found = cut(own)
    gold, parts = _gold(sized), (found.supervision[:rows], found.supervision_validation, found.test[:rows])
    fit_N, choose_N = (_read(gold, part, "supervision", "probe") for part in parts[:2])
    test_N = _read(gold, parts[2], "test", "probe")
    examples, groups = sum(parts, ()), tuple(example.group for example in parts[2])
    return Concept(task, found.digest, examples, fit_N, choose_N, test_N, groups, _reads(gold))


@dataclass(frozen=True)
class _Cut:
    """How a concept's task is cut."""

    task: str
    seed: int
    train_size: int | None
    test_size: int | None
    balance: bool
    data_dir: str | None


def report(
    found: Result,
    config: Scoring,
    cut: split.Split,
    beside: Mapping[str, Result] | None = None,
    given: SoftLabels | None = None,
) -> Result:
    """The step after a fit: score the stored predictions on `--report`'s split, once, and keep their gold beside them.

    Where nobody knows the truth of the split, agreement is all that is reported.

    Args:
        beside: a student's supervisor `weak` and its `ceiling`, which it is reported against, where it has them.
        given: in place of a supervisor's, labels from outside; they are its floor where they cover the split.
    """
    from w2s_mlflow.tracking import planned, recorder, results

    inputs = {f"w2s.{role}_run_id": other.run_id for role, other in (beside or {}).items()}
    if planned.current() or config.report == "none" or _reported(found, config.report, inputs):
        return found
    latest = replace(results.get(found.run_id), reused=found.reused)
    if _reported(latest, config.report, inputs):  # by another process that found this run
        return latest
    gold, examples = _gold(config), cut.parts()[config.report]
    scored = found.predictions(config.report).aligned([example.id for example in examples])
    if gold.known(examples):
        scored = scored.with_gold(_read(gold, examples, config.report, "report"))
    others = {role: other.predictions(config.report).aligned(scored.ids) for role, other in (beside or {}).items()}
    if given and set(scored.ids) <= set(given.ids):
        others["weak"] = Predictions(scored.ids, scored.groups, given.of(scored.ids))
    values, status = _scores(scored, others, config.report)
    tags = _against_human(config, values) | ({PGR_STATUS: status} if found.stage == "student" else {})
    if beside and "ceiling" in beside:
        tags[CEILING_FAILED] = _ceiling_failed(beside["ceiling"], values, config.report)
    for name, count in _reads(gold).items():
        values[name] = count + found.metrics.get(name, 0)

    def stage(directory: Path) -> None:
        if scored.gold_N is None:
            return
        write_gold(directory / "gold" / f"{config.report}.parquet", scored.ids, scored.gold_N)
        if found.stage == "supervisor":
            _draw_confidence(scored, directory / "figures" / f"confidence_{config.report}.png")

    return recorder.attach(found, config.report, stage, values, inputs | tags)


def _against_human(config: Scoring, values: Mapping[str, float]) -> dict[str, str]:
    """A tag that says whether a model is weak or strong: below the published human score, or not; none without one."""
    human, accuracy = tasks.find(config.task).human, values.get(f"{config.report}/accuracy")
    if human is None or accuracy is None or not human.metric.startswith("accuracy"):
        return {}
    return {HUMAN: "strong" if accuracy >= human.score else "weak"}


def _ceiling_failed(ceiling: Result, values: Mapping[str, float], part: str) -> str:
    """By which rules a student's ceiling has not learned, or no. A value that is missing breaks none."""
    floor, top = (values.get(f"{part}/{role}_accuracy", math.nan) for role in ("weak", "ceiling"))
    rules = {NEAR_CHANCE: ceiling.tags.get(CEILING_FAILED) == NEAR_CHANCE, BELOW_FLOOR: top < floor}
    return ", ".join(rule for rule, broken in rules.items() if broken) or "no"


def _draw_confidence(scored: Predictions, file: Path) -> None:
    """Draw how sure a supervisor is, and how right: what its labels are worth as probabilities."""
    from w2s_mlflow.figures import _confidence

    file.parent.mkdir()
    assert scored.gold_N is not None
    _confidence.figure(scored.probabilities_NC, scored.gold_N).savefig(file, dpi=150)


def _scores(scored: Predictions, others: Mapping[str, Predictions], part: str) -> tuple[dict[str, float], str]:
    """The metrics of one split beside those of `weak` and `ceiling`, where there are such; and whether PGR is determined."""
    from w2s_mlflow import metrics, stats

    values = {}
    if "weak" in others:
        values["agreement"] = metrics.agreement_score(scored.probabilities_NC, others["weak"].probabilities_NC)
    if scored.gold_N is None:
        return _named(values, part), "no ground truth"
    values |= metrics.report(scored.probabilities_NC, scored.gold_N)
    correct = {role: other.with_gold(scored.gold_N).correct_N() for role, other in others.items()}
    values |= {f"{role}_accuracy": float(correct_N.mean()) for role, correct_N in correct.items()}
    if missing := [role for role in ("weak", "ceiling") if role not in correct]:
        return _named(values, part), f"no {missing[0]}"
    interval = stats.pgr_interval([correct["weak"]], [scored.correct_N()], [correct["ceiling"]], scored.groups)
    values |= {"pgr": interval.point, "pgr_low": interval.low, "pgr_high": interval.high}
    return _named(values, part), interval.status


def _named(values: Mapping[str, float], part: str) -> dict[str, float]:
    return {f"{part}/{name}": value for name, value in values.items() if math.isfinite(value)}


def _reported(found: Result, part: str, inputs: Mapping[str, str]) -> bool:
    """Whether the split is scored beside these inputs: the digests of its gold are the last that a report writes."""
    from w2s_mlflow.tracking import results

    return f"{results.ARTIFACTS}.{part}" in found.tags and inputs.items() <= found.tags.items()


def _read(gold: Gold, examples: Sequence[Example], part: str, reason: str) -> Ints:
    try:
        return gold.read(examples, split=part, reason=reason)
    except NoLabelError as error:
        raise ConfigError(f"the task must have the ground truth that is asked for: {error}") from error


def _reads(gold: Gold) -> dict[str, float]:
    """The ledger as metrics: `gold/<split>/<reason>`, rows read."""
    return {f"gold/{name}": count for name, count in gold.ledger().items()}


def _gold(config: Cutting) -> Gold:
    """The task's ground truth, with a ledger of its own."""
    return Gold(_labels(config.task, config.data_dir))


@functools.lru_cache(maxsize=8)
def _labels(task: str, data_dir: str | None) -> dict[str, int]:
    return {row.example.id: row.label for row in _rows(task, data_dir)}


@functools.lru_cache(maxsize=8)
def _row_digests(task: str, data_dir: str | None) -> dict[str, str]:
    # Not a field of Split: a digest covers the label, and two labels are soon tried.
    return {row.example.id: split.row_digest(row) for row in _rows(task, data_dir)}


def _rows(task: str, data_dir: str | None) -> tuple[Row, ...]:
    return _load(task, data_dir).train + _load(task, data_dir).heldout


@functools.lru_cache(maxsize=8)
def _load(task: str, data_dir: str | None) -> tasks.Rows:
    rows = tasks.find(task).load(Path(data_dir).expanduser() if data_dir else None)
    for reason, count in rows.left_out.items():
        LOG.info("%s: %d rows left out, each %s", task, count, reason)
    return rows


@functools.lru_cache(maxsize=8)
def _pool(task: str, data_dir: str | None, balance: bool) -> split.Pool:
    found = tasks.find(task)
    return split.pool(found.key, _load(task, data_dir), classes=found.classes, balance=balance)


@functools.lru_cache(maxsize=32)
def _cut(task: str, data_dir: str | None, balance: bool, seed: int, train_size: int, test_size: int) -> split.Split:
    pool = _pool(task, data_dir, balance)
    return split.cut(pool, seed=seed, train_size=train_size, test_size=test_size, balance=balance)
