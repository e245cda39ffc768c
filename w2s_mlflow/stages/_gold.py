"""Ground truth: the only file of stages that sees labels. It cuts a task, trains on gold, and scores stored predictions.

What trains on weak labels is given a `Split`, which has none. `Gold` stays here and counts every read under its reason.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from w2s_mlflow import split, tasks
from w2s_mlflow.records import Example, Gold, Predictions, Row, write_gold
from w2s_mlflow.stages import _finetune
from w2s_mlflow.stages._finetune import Labelled
from w2s_mlflow.stages._options import Cutting, GoldTraining, Scoring

if TYPE_CHECKING:
    from w2s_mlflow.heads import Head
    from w2s_mlflow.tracking.recorder import Recorder
    from w2s_mlflow.tracking.results import Result

ROWS = "rows.parquet"
"""The rows of a cut, each with its digest, kept by the supervisor: by them `why` names a row that has changed."""


def cut(config: Cutting) -> split.Split:
    """The split of one stage's run. Raises ConfigError for sizes the task does not have."""
    assert config.train_size is not None and config.test_size is not None
    return _cut(config.task, config.seed, config.train_size, config.test_size)


def fit_on_gold(config: GoldTraining, cut: split.Split, half: str, reason: str, recorder: Recorder) -> Head:
    """A head fitted on the ground truth of one half, `supervision` or `transfer`; each label read is counted."""
    gold = _gold(config.task)

    def labelled(examples: Sequence[Example]) -> Labelled:
        labels_N = gold.read(examples, split=half, reason=reason)
        return Labelled(examples, np.eye(tasks.find(config.task).classes, dtype=np.float32)[labels_N])

    head = _finetune.build_head(config)
    slice_ = cut.parts()[f"{half}_validation"]
    validation = labelled(slice_) if config.early_stopping == "gold" else None
    _finetune.fit_head(head, config, labelled(cut.parts()[half]), validation, recorder)
    recorder.predictions("validation", _finetune.predictions(head, slice_))
    recorder.metrics(_reads(gold))
    return head


def record_rows(config: Cutting, cut: split.Split, recorder: Recorder) -> None:
    """Stage `rows.parquet`: id, part and digest of every row of the cut."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    digests = _row_digests(config.task)
    used = [(example.id, part) for part, examples in cut.parts().items() for example in examples]
    columns = {"id": [id_ for id_, _ in used], "part": [part for _, part in used]}
    columns["digest"] = [digests[id_] for id_, _ in used]
    pq.write_table(pa.table(columns), recorder.directory / ROWS)


def report(found: Result, config: Scoring, cut: split.Split, beside: Mapping[str, Result] | None = None) -> Result:
    """The step after a fit: score the stored predictions on `--report`'s split, once, and keep their gold beside them.

    Args:
        beside: a student's supervisor `weak` and its `ceiling`, which it is reported against.
    """
    from w2s_mlflow.tracking import planned, recorder, results

    inputs = {f"w2s.{role}_run_id": other.run_id for role, other in (beside or {}).items()}
    if planned.current() or config.report == "none" or _reported(found, config.report, inputs):
        return found
    latest = replace(results.get(found.run_id), reused=found.reused)
    if _reported(latest, config.report, inputs):  # by another process that found this run
        return latest
    gold, examples = _gold(config.task), cut.parts()[config.report]
    predicted = found.predictions(config.report).aligned([example.id for example in examples])
    scored = predicted.with_gold(gold.read(examples, split=config.report, reason="report"))
    values, status = _scores(scored, beside or {}, config.report)
    for name, count in _reads(gold).items():
        values[name] = count + found.metrics.get(name, 0)

    def stage(directory: Path) -> None:
        assert scored.gold_N is not None
        write_gold(directory / "gold" / f"{config.report}.parquet", scored.ids, scored.gold_N)

    return recorder.attach(found, config.report, stage, values, inputs | status)


def _scores(scored: Predictions, beside: Mapping[str, Result], part: str) -> tuple[dict[str, float], dict[str, str]]:
    """The metrics of one split, and of a student's the tag that says whether its PGR is determined."""
    from w2s_mlflow import metrics, stats

    assert scored.gold_N is not None
    values = {f"{part}/{name}": value for name, value in metrics.report(scored.probabilities_NC, scored.gold_N).items()}
    if not beside:
        return values, {}
    floor, roof = (beside[role].predictions(part).aligned(scored.ids).with_gold(scored.gold_N) for role in ("weak", "ceiling"))
    interval = stats.pgr_interval([floor.correct_N()], [scored.correct_N()], [roof.correct_N()], scored.groups)
    compared = {
        "agreement": metrics.agreement_score(scored.probabilities_NC, floor.probabilities_NC),
        "weak_accuracy": float(floor.correct_N().mean()),
        "ceiling_accuracy": float(roof.correct_N().mean()),
        "pgr": interval.point,
        "pgr_low": interval.low,
        "pgr_high": interval.high,
    }
    values |= {f"{part}/{name}": value for name, value in compared.items() if math.isfinite(value)}
    return values, {"w2s.pgr_status": interval.status}


def _reported(found: Result, part: str, inputs: Mapping[str, str]) -> bool:
    """Whether the split is scored beside these inputs: the digests of its gold are the last that a report writes."""
    from w2s_mlflow.tracking import results

    return f"{results.ARTIFACTS}.{part}" in found.tags and inputs.items() <= found.tags.items()


def _reads(gold: Gold) -> dict[str, float]:
    """The ledger as metrics: `gold/<split>/<reason>`, rows read."""
    return {f"gold/{name}": count for name, count in gold.ledger().items()}


def _gold(task: str) -> Gold:
    """The task's ground truth, with a ledger of its own."""
    return Gold(_labels(task))


@functools.lru_cache(maxsize=8)
def _labels(task: str) -> dict[str, int]:
    return {row.example.id: row.label for row in _rows(task)}


@functools.lru_cache(maxsize=8)
def _row_digests(task: str) -> dict[str, str]:
    # Not a field of Split: a digest covers the label, and two labels are soon tried.
    return {row.example.id: split.row_digest(row) for row in _rows(task)}


def _rows(task: str) -> tuple[Row, ...]:
    return _load(task).train + _load(task).heldout


@functools.lru_cache(maxsize=8)
def _load(task: str) -> tasks.Rows:
    return tasks.find(task).load()


@functools.lru_cache(maxsize=32)
def _cut(task: str, seed: int, train_size: int, test_size: int) -> split.Split:
    return split.cut(task, _load(task), seed=seed, train_size=train_size, test_size=test_size)
