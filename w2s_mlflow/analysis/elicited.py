"""Label-free answers of the strong model that are better than its gold ceiling.

Such a ceiling is no upper bound, so PGR is also held against the label-free answers (tables/pgr.py). Whether they are better is
decided by accuracy on `selection`, never on `test`.
"""

from __future__ import annotations

import json
import math
import statistics
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from w2s_mlflow.analysis.selection import AnalysisRuns
from w2s_mlflow.tables import UNTRAINED_METHODS

MODEL = ("task", "strong", "head", "train_size", "test_size", "balance")
"""Columns in which runs must agree to have the same strong model and test rows."""
ACCURACY = "selection/accuracy"

Rows = list[dict[str, Any]]


def with_elicited(rows: Iterable[dict[str, Any]], pulled: AnalysisRuns) -> Rows:
    """Add the columns `elicited_correct` and `elicited_accuracy` to rows of `outcomes`.

    They describe the strong model's best label-free answers with the same seed, if these answers are better than the ceiling on
    `selection`, on average over the seeds; otherwise they are None and NaN.
    """
    rows = list(rows)
    better = {model: _better(of_model, pulled) for model, of_model in _grouped(rows, MODEL).items()}
    return [row | _columns(better[_key(row, MODEL)].get(row["seed"])) for row in rows]


def _columns(answers: Mapping[str, Any] | None) -> dict[str, Any]:
    if answers is None:
        return {"elicited_correct": None, "elicited_accuracy": math.nan}
    return {"elicited_correct": answers["correct"], "elicited_accuracy": answers["accuracy"]}


def _better(rows: Rows, pulled: AnalysisRuns) -> dict[str, dict[str, Any]]:
    """Return the rows, by seed, of the best label-free answers if these are better than the ceiling; else nothing."""
    label_free = [row | _selection(row, pulled) for row in rows if row["method"] in UNTRAINED_METHODS]
    asked = _grouped([row for row in label_free if row["gain"] is not None], ("method", "prompt"))
    best = max(asked.values(), key=lambda answers: _mean(answers, "on_selection"), default=[])
    if not best or _mean(best, "gain") <= 0:
        return {}
    return {row["seed"]: row for row in best}


def _selection(row: Mapping[str, Any], pulled: AnalysisRuns) -> dict[str, Any]:
    """Return the prompt of a row, its accuracy on `selection` and its gain over the ceiling; None if one was not scored."""
    run = pulled.runs[row["run_id"]]
    ceiling = pulled.runs.get(run.tags.get("w2s.ceiling_run_id", ""))
    own, other = (None if found is None else found.metrics.get(ACCURACY) for found in (run, ceiling))
    gain = None if own is None or other is None else own - other
    return {"prompt": json.loads(row["settings"]).get("prompt"), "on_selection": own, "gain": gain}


def _mean(rows: Sequence[Mapping[str, Any]], column: str) -> float:
    return statistics.fmean(row[column] for row in rows)


def _grouped(rows: Iterable[dict[str, Any]], columns: Sequence[str]) -> dict[tuple[Any, ...], Rows]:
    groups: dict[tuple[Any, ...], Rows] = defaultdict(list)
    for row in rows:
        groups[_key(row, columns)].append(row)
    return groups


def _key(row: Mapping[str, Any], columns: Sequence[str]) -> tuple[Any, ...]:
    return tuple(row[name] for name in columns)
