"""Leaderboard of finished runs, averaged over seeds, and comparison of two runs on the same test rows."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

from w2s_mlflow import stats
from w2s_mlflow.analysis import build, scores
from w2s_mlflow.analysis.scores import Scores
from w2s_mlflow.exceptions import ConfigError
from w2s_mlflow.registry import plugin
from w2s_mlflow.tracking import results


def board(filter_string: str = "", experiments: str = "") -> list[dict[str, Any]]:
    """Return the PGR table, sorted by task and by descending accuracy; undefined values are None.

    Raises:
        ConfigError: there is no finished student or rule, or an option is invalid.
    """
    frames = build.load(build.pull(build.Config(filter=filter_string, experiments=experiments)))
    table = plugin("tables", "pgr", "table").table(frames.outcomes)
    table = table.sort_values(["task", "accuracy"], ascending=[True, False], kind="stable")
    return [{name: _plain(value) for name, value in row.items()} for row in table.to_dict("records")]


@dataclass(frozen=True)
class Comparison:
    """Comparison of two runs on the same test rows.

    `rows` and `groups` count the test rows and their groups. `difference` is the second run's accuracy minus the first run's;
    `low` and `high` bound its 95% t interval over test groups, which ignores variation over seeds. `only_first` counts the
    rows that only the first run answers correctly, and `only_second` those that only the second run answers correctly.
    `p_mcnemar` is the p-value of the exact McNemar test of these counts, which assumes independent rows.
    """

    first: str
    second: str
    rows: int
    groups: int
    first_accuracy: float
    second_accuracy: float
    difference: float
    low: float
    high: float
    agreement: float
    only_first: int
    only_second: int
    p_mcnemar: float


def compare(first: str, second: str) -> Comparison:
    """Compare two runs, given by id or name.

    Raises:
        ConfigError: a run does not exist or has no test report, or the two were scored on different rows.
    """
    from scipy.stats import binomtest

    runs = [results.find(name) for name in (first, second)]
    before, after = (_scores_of(run) for run in runs)
    if before.rows.ids != after.rows.ids:
        sizes = [f"{run.name}: {len(scored.rows.ids)}" for run, scored in zip(runs, (before, after), strict=True)]
        raise ConfigError(f"the two runs were scored on different test rows ({', '.join(sizes)}) and cannot be compared")
    difference_N = after.correct_N().astype(float) - before.correct_N()
    interval = stats.group_interval(difference_N, before.rows.groups)
    only_first, only_second = int((difference_N < 0).sum()), int((difference_N > 0).sum())
    either = only_first + only_second
    return Comparison(
        first=f"{runs[0].name}, run {runs[0].run_id}",
        second=f"{runs[1].name}, run {runs[1].run_id}",
        rows=len(difference_N),
        groups=len(set(before.rows.groups)),
        first_accuracy=float(before.correct_N().mean()),
        second_accuracy=float(after.correct_N().mean()),
        difference=interval.mean,
        low=interval.low,
        high=interval.high,
        agreement=float((before.answer_N == after.answer_N).mean()),
        only_first=only_first,
        only_second=only_second,
        p_mcnemar=float(binomtest(only_first, either).pvalue) if either else 1.0,
    )


def describe(comparison: Comparison) -> list[dict[str, str]]:
    """Return a comparison as rows for display, each with a label and a formatted value."""
    fields = ((name.replace("_", " "), value) for name, value in asdict(comparison).items())
    return [{"what": label, "value": f"{value:.3g}" if isinstance(value, float) else str(value)} for label, value in fields]


def _scores_of(run: results.Result) -> Scores:
    loaded = scores.load_scores([run]).get(run.run_id)
    if not isinstance(loaded, Scores):
        missing = "it was imported without predictions" if run.imported else "it has no test report"
        reason = loaded or missing
        raise ConfigError(f"RUN must be a finished run with test predictions, got {run.name}: {reason}")
    return loaded


def _plain(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value
