"""Build the rows of the frame `outcomes`: one per student and rule, scored from stored predictions with its references."""

from __future__ import annotations

import functools
import math
import statistics
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from w2s_mlflow import tasks
from w2s_mlflow.analysis import collapse, selection
from w2s_mlflow.analysis.scores import Scores
from w2s_mlflow.analysis.selection import AnalysisRuns
from w2s_mlflow.analysis.variants import IDENTITY
from w2s_mlflow.exceptions import ConfigError
from w2s_mlflow.pipeline import scoring
from w2s_mlflow.pipeline.options import NONE
from w2s_mlflow.pipeline.runs import TUNED_ON_GOLD
from w2s_mlflow.records import GIVEN, Floats, JoinError, read_predictions

if TYPE_CHECKING:
    from w2s_mlflow.tracking.results import Result

OF_ANSWERS = (
    *("groups", "gold", "answer", "weak_answer", "ceiling_answer", "correct", "weak_correct", "ceiling_correct"),
    *("probabilities", "weak_probabilities", "ceiling_probabilities"),
)
"""Columns of `outcomes` that are None for imported runs, which have no predictions."""
LABEL_ACCURACY = "transfer/label_accuracy"
"""Metric of a student: the accuracy of its training labels on `transfer`, where the task has ground truth."""
TOLERANCE = 1e-9
DOMAINS = {"chess": "chess", "puzzles": "chess", "chess_preference": "reward modelling"}
"""The paper's domain of a task or of a task family. Other tasks are reward modelling if they have its head, otherwise NLP."""


def outcome(result: Result, pulled: AnalysisRuns) -> dict[str, Any] | None:
    """Return one row of `outcomes`, computed from stored predictions, or None if the run is excluded."""
    if "test/accuracy" not in result.metrics:
        pulled.leave_out(result, "not reported", "it has no test report (--eval-split none or selection)")
        return None
    if result.imported:
        return _imported_outcome(result, pulled)
    scored = pulled.scores.get(result.run_id, "its test predictions are missing")
    if isinstance(scored, str):
        pulled.leave_out(result, "damaged", scored)
        return None
    row = selection.identified(result) | {"groups": scored.rows.groups}
    row |= _of_gold(result) | {"domain": domain(row["task"]), "parameters": result.metrics.get("model/parameters", math.nan)}
    row |= {"correct": scored.correct_N(), "answer": scored.answer_N, "gold": scored.rows.gold_N}
    row |= {"probabilities": scored.probabilities_NC, **scored.metrics}
    row |= _references(result, scored, pulled) | {"ceiling_failed": False}
    row["collapsed"] = result.stage == "student" and collapse.has_collapsed(result)
    if row["ceiling_correct"] is not None:
        row["ceiling_failed"] = _ceiling_failed(result, row)
    if found := contradiction(result, scored, _reported(row)):
        pulled.leave_out(result, "contradicted", found)
        return None
    return row


def _of_gold(result: Result) -> dict[str, Any]:
    """Return the columns that tell how ground truth may have entered a run, besides its training labels."""
    file_accuracy = result.metrics.get(LABEL_ACCURACY, math.nan) if GIVEN in result.digests else math.nan
    return {"tuned_on_gold": result.tags.get(TUNED_ON_GOLD, ""), "file_accuracy": file_accuracy}


def _imported_outcome(result: Result, pulled: AnalysisRuns) -> dict[str, Any]:
    """Return the row of an imported student, with the imported accuracies. Columns that need answers are None or NaN."""
    row = selection.identified(result) | dict.fromkeys(OF_ANSWERS) | {"domain": NONE}
    row |= {"accuracy": result.metrics["test/accuracy"], "parameters": math.nan, "agreement": math.nan}
    row |= _of_gold(result)
    for role in ("weak", "ceiling"):
        reference = pulled.runs.get(result.tags.get(f"w2s.{role}_run_id", ""))
        row[f"{role}_accuracy"] = reference.metrics["test/accuracy"] if reference else math.nan
    return row | {"ceiling_failed": bool(row["ceiling_accuracy"] < row["weak_accuracy"]), "collapsed": False}


def mean_of_repeats(rows: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Average the accuracies of imported students with the same options and seed, so that each seed has one row."""
    repeats: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for row in rows:
        key = (*(row[name] for name in IDENTITY if name != "repeat"), row["settings"])
        repeats.setdefault(key, []).append(row)
    return [group[0] | {"accuracy": statistics.fmean(row["accuracy"] for row in group)} for group in repeats.values()]


def _references(result: Result, scored: Scores, pulled: AnalysisRuns) -> dict[str, Any]:
    """Return the columns about supervisor and ceiling. They are None or NaN for a model not scored on the same rows."""
    row: dict[str, Any] = {"agreement": math.nan}
    for role in ("weak", "ceiling"):
        probabilities_NC = _probabilities(result, role, scored, pulled)
        answer_N = None if probabilities_NC is None else probabilities_NC.argmax(axis=1).astype(np.int16)
        correct_N = None if answer_N is None else answer_N == scored.rows.gold_N
        row |= {f"{role}_probabilities": probabilities_NC, f"{role}_answer": answer_N, f"{role}_correct": correct_N}
        row[f"{role}_accuracy"] = math.nan if correct_N is None else float(correct_N.mean())
    if row["weak_answer"] is not None:
        row["agreement"] = float((scored.answer_N == row["weak_answer"]).mean())
    return row


def _probabilities(result: Result, role: str, scored: Scores, pulled: AnalysisRuns) -> Floats | None:
    """Return the probabilities of the run's ceiling or supervisor, or the external labels; None if these lack a test row."""
    if role == "weak" and GIVEN in result.digests:
        try:
            return read_predictions(result.artifact(GIVEN)).of(scored.rows.ids)
        except (ConfigError, JoinError):
            return None
    other = pulled.scores.get(result.tags.get(f"w2s.{role}_run_id", ""))
    return other.probabilities_NC if isinstance(other, Scores) and other.rows.ids == scored.rows.ids else None


def _ceiling_failed(result: Result, row: Mapping[str, Any]) -> bool:
    """Return whether a student's ceiling is near chance on its training rows, or below the supervisor on the test rows."""
    tag = result.tags.get(scoring.CEILING_FAILED, "no")
    return scoring.NEAR_CHANCE in tag or bool(row["ceiling_accuracy"] < row["weak_accuracy"])


def _reported(row: Mapping[str, Any]) -> dict[str, float]:
    """Return the metrics that compare a student with its supervisor and ceiling."""
    from w2s_mlflow import stats

    metrics = {name: row[name] for name in ("agreement", "weak_accuracy", "ceiling_accuracy")}
    return metrics | {"pgr": stats.pgr(row["weak_accuracy"], row["accuracy"], row["ceiling_accuracy"])}


def contradiction(result: Result, scored: Scores, comparisons: Mapping[str, float]) -> str:
    """Describe the first logged metric that the stored predictions contradict; return an empty string if there is none."""
    logged_before = {name: value for name, value in scored.metrics.items() if f"test/{name}" in result.metrics}
    # Check only the metrics that the run logged: others may have been added to the code later.
    for name, value in {**logged_before, **comparisons}.items():
        logged = result.metrics.get(f"test/{name}", math.nan)
        if math.isfinite(value) and not abs(logged - value) <= TOLERANCE:
            return f"it reports test/{name} = {logged}, but its stored predictions give {value}"
    return ""


@functools.cache
def domain(task: str) -> str:
    """Return the paper's domain of a task, by its name: `chess`, `reward modelling` or `NLP`."""
    try:
        spec = tasks.find(task)
    except ConfigError:  # the task of an old run may no longer exist
        return "NLP"
    other = "reward modelling" if spec.head == "reward" else "NLP"
    return DOMAINS.get(spec.name, DOMAINS.get(spec.family, other))
