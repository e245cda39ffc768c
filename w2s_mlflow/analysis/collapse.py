"""Students whose training collapsed: they predict one class, or their loss was not finite and they have no result."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from w2s_mlflow import metrics
from w2s_mlflow.analysis import selection
from w2s_mlflow.analysis.variants import IDENTITY
from w2s_mlflow.exceptions import ConfigError
from w2s_mlflow.pipeline.runs import COLLAPSED, NO, NOT_FINITE

if TYPE_CHECKING:
    from w2s_mlflow.tracking.results import Result

VALIDATION = "predictions/validation.parquet"


def has_collapsed(result: Result) -> bool:
    """Return whether a student collapsed, by its tag or, for runs without the tag, by its predictions on `validation`."""
    if COLLAPSED in result.tags or VALIDATION not in result.digests:
        return result.tags.get(COLLAPSED, NO) != NO
    try:
        return metrics.collapsed(result.predictions("validation").probabilities_NC)
    except ConfigError:  # the file is damaged, and nothing else needs it
        return False


def diverged(filter_string: str, experiment_ids: Sequence[str]) -> list[Result]:
    """Return the failed runs of students whose loss was not finite: of each result the newest, if it has no finished run."""
    from w2s_mlflow.tracking import results

    clauses = [filter_string] if filter_string else []
    clauses += [f"tags.`{COLLAPSED}` = '{NOT_FINITE}'", "tags.`w2s.stage` = 'student'", "attributes.status = 'FAILED'"]
    failed = [results.result(run, reused=True) for run in results.pages(" AND ".join(clauses), experiment_ids)]
    newest = {run.fingerprint: run for run in failed}
    return list(newest.values())


def is_diverged(result: Result) -> bool:
    """Return whether this is a failed run whose loss was not finite."""
    return result.tags.get(COLLAPSED) == NOT_FINITE


def count_diverged(rows: Iterable[dict[str, Any]], runs: Iterable[Result]) -> list[dict[str, Any]]:
    """Add to each row of `outcomes` the number of diverged runs that differ from it only in their seed."""
    counts = Counter(_options(selection.identified(run)) for run in runs)
    return [row | {"diverged": counts[_options(row)]} for row in rows]


def _options(row: Mapping[str, Any]) -> tuple[Any, ...]:
    return (*(row[name] for name in IDENTITY if name != "seed"), row["settings"])
