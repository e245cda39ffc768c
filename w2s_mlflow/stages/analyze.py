"""Pull finished runs, recompute every headline number from their stored predictions, build every table and figure.

A number that a run reports and its predictions do not give is refused: nothing is written. Artifacts: `tables/<name>.csv`,
`tables/<name>.md`, `figures/<name>.png`. Metrics: the aggregates `<task>/<label>/pgr` and `.../accuracy` over seeds.
"""

from __future__ import annotations

import functools
import json
import logging
import math
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from w2s_mlflow import config as options
from w2s_mlflow.config import ConfigError
from w2s_mlflow.records import GIVEN, Predictions, read_predictions
from w2s_mlflow.stages import _gold
from w2s_mlflow.stages._options import NONE
from w2s_mlflow.tables import LABEL

if TYPE_CHECKING:
    import pandas as pd

    from w2s_mlflow.tracking.recorder import Recorder
    from w2s_mlflow.tracking.results import Result

    TestPredictions = Callable[[str], Predictions]  # of a run, by its id

LOG = logging.getLogger("w2s_mlflow")
IDENTITY = ("task", "weak", "strong", "method", "seed", "head")
TOLERANCE = 1e-9


@dataclass(frozen=True, kw_only=True)
class Config:
    """What to analyse."""

    filter: str = ""
    """MLflow's own filter string, such as "tags.`w2s.task` = 'chess'"; nothing takes every finished student and rule."""


def run(config: Config) -> Result:
    """Analyse the finished runs of the experiment into a run of its own. Raises ConfigError where there are none."""
    from w2s_mlflow.tracking import planned, recorder, results

    found = results.finished(config.filter)
    if plan := planned.current():
        return plan.placeholder("analyze", "analyze")
    outcomes = load(found)
    note = "Tables and figures recomputed from stored predictions."
    with recorder.parent("analyze", "analyze", options.flat(config), note) as recording:
        record(outcomes, recording)
    return results.get(recording.run_id)


def load(found: Iterable[Result]) -> pd.DataFrame:
    """The frame that tables and figures are made from (columns: see tables/__init__.py), from students and rules.

    Raises:
        ConfigError: there is no such run, or one reports a number that its stored predictions do not give.
    """
    import pandas as pd

    from w2s_mlflow.tracking import results

    scored = [result for result in found if result.stage in ("student", "rule") and "test/accuracy" in result.metrics]
    newest = {result.fingerprint: result for result in scored}  # the oldest comes first
    if not newest:
        raise ConfigError("there is no finished student to analyse: run `python -m w2s_mlflow student` or `main` first")
    test = functools.cache(lambda run_id: _test_predictions(results.get(run_id)))
    outcomes = pd.DataFrame([_outcome(result, test) for result in newest.values()])
    return outcomes.assign(variant=_variants(outcomes)).drop(columns="settings")


def record(outcomes: pd.DataFrame, recorder: Recorder) -> None:
    """Write every table with rows and every figure as artifacts of a run, and the aggregates as its metrics."""
    for name in options.plugins("tables"):
        plugin = options.plugin("tables", name, "table")
        table = plugin.table(outcomes)
        if table.empty:
            continue
        recorder.text(f"tables/{name}.csv", table.to_csv(index=False))
        recorder.text(f"tables/{name}.md", f"{plugin.CAPTION}\n\n{markdown(table)}")
    for name in options.plugins("figures"):
        target = recorder.directory / "figures" / f"{name}.png"
        target.parent.mkdir(exist_ok=True)
        options.plugin("figures", name, "figure").figure(outcomes).savefig(target, dpi=150)
    recorder.metrics(aggregates(outcomes))


def aggregates(outcomes: pd.DataFrame) -> dict[str, float]:
    """Mean, interval and n over seeds per label, as metrics for the parent run."""
    table = options.plugin("tables", "pgr", "table").table(outcomes)
    found = {}
    for row in table.to_dict("records"):
        label = re.sub(r"[^\w./ -]", " ", " ".join(str(row[name]) for name in LABEL if row[name] not in ("", NONE)))
        for name in ("accuracy", "pgr", "pgr_low", "pgr_high", "n"):
            if math.isfinite(row.get(name, math.nan)):
                found[f"{label}/{name}"] = row[name]
    return found


def markdown(table: pd.DataFrame) -> str:
    """A Markdown table: numbers at three decimals, p-values at two digits, what is not defined as a dash."""
    lines = ["| " + " | ".join(table.columns) + " |", "|" + "---|" * len(table.columns)]
    for row in table.to_dict("records"):
        lines.append("| " + " | ".join(cell(str(name), value) for name, value in row.items()) + " |")
    return "\n".join(lines) + "\n"


def cell(column: str, value: Any) -> str:
    """One value as a person reads it."""
    if isinstance(value, float):
        if math.isnan(value):
            return NONE
        return f"{value:.2g}" if column.startswith("p_") or column == "p" else f"{value:.3f}"
    return str(value)


def _outcome(result: Result, test: TestPredictions) -> dict[str, Any]:
    """One row of the frame: what the run says of itself and what its predictions give."""
    from w2s_mlflow import metrics, stats

    found = test(result.run_id)
    assert found.gold_N is not None, "a run with test metrics keeps the gold they were scored against"
    row: dict[str, Any] = {name: result.params.get(name, NONE) for name in IDENTITY}
    row |= {name: int(result.params[name]) for name in ("train_size", "test_size")}
    row |= {"run_id": result.run_id, "settings": _settings(result), "groups": found.groups}
    row |= {"correct": found.correct_N(), "accuracy": float(found.correct_N().mean())}
    recomputed = metrics.report(found.probabilities_NC, found.gold_N)
    if result.stage == "student":
        others = _others(result, found, test)
        row["parameters"] = result.metrics.get("model/parameters", math.nan)
    else:
        others, row["parameters"] = {}, math.nan
    row |= _beside(found, others) | {"ceiling_failed": False}
    if "ceiling" in others:
        row["ceiling_failed"] = _ceiling_failed(result, row)
    recomputed |= {name: row[name] for name in ("agreement", "weak_accuracy", "ceiling_accuracy")}
    recomputed["pgr"] = stats.pgr(row["weak_accuracy"], row["accuracy"], row["ceiling_accuracy"])
    _refuse_other(result, recomputed)
    return row


def _others(result: Result, found: Predictions, test: TestPredictions) -> dict[str, Predictions]:
    """What the student's supervisor (or labels from outside, where they cover these rows) and ceiling say of its test rows."""
    tags = {role: f"w2s.{role}_run_id" for role in ("weak", "ceiling")}
    others = {role: test(result.tags[tag]).aligned(found.ids) for role, tag in tags.items() if tag in result.tags}
    if GIVEN in result.digests:
        given = read_predictions(result.artifact(GIVEN))
        if set(found.ids) <= set(given.ids):
            others["weak"] = Predictions(found.ids, found.groups, given.of(found.ids))
    return others


def _beside(found: Predictions, others: Mapping[str, Predictions]) -> dict[str, Any]:
    """The columns of a frame that compare with the supervisor and the ceiling; None or not a number without one."""
    from w2s_mlflow import metrics

    assert found.gold_N is not None
    row: dict[str, Any] = {"agreement": math.nan}
    if "weak" in others:
        row["agreement"] = metrics.agreement_score(found.probabilities_NC, others["weak"].probabilities_NC)
    for role in ("weak", "ceiling"):
        correct_N = others[role].with_gold(found.gold_N).correct_N() if role in others else None
        row |= {f"{role}_correct": correct_N, f"{role}_accuracy": math.nan if correct_N is None else float(correct_N.mean())}
    return row


def _ceiling_failed(result: Result, row: Mapping[str, Any]) -> bool:
    """By the two rules of `w2s.ceiling_failed`, of which the one on the reported split is computed anew."""
    tag = result.tags.get(_gold.CEILING_FAILED, "no")
    return _gold.NEAR_CHANCE in tag or bool(row["ceiling_accuracy"] < row["weak_accuracy"])


def _test_predictions(result: Result) -> Predictions:
    found = result.predictions("test")
    return found.aligned(sorted(found.ids))


def _refuse_other(result: Result, recomputed: Mapping[str, float]) -> None:
    for name, value in recomputed.items():
        logged = result.metrics.get(f"test/{name}", math.nan)
        if math.isfinite(value) and not abs(logged - value) <= TOLERANCE:
            raise ConfigError(
                f"run {result.run_id} ({result.name}) reports test/{name} = {logged}, but its stored predictions give {value}: "
                "it is refused"
            )


def _settings(result: Result) -> str:
    """All options but those that name the run, as JSON."""
    return json.dumps({key: value for key, value in sorted(result.params.items()) if key not in IDENTITY})


def _variants(outcomes: pd.DataFrame) -> list[str]:
    """For runs whose label is shared by different settings, the options in which they differ."""
    label = [name for name in LABEL if name != "variant"]
    settings = outcomes["settings"].map(json.loads)
    differing = {}
    for key, rows in settings.groupby([outcomes[name] for name in label], sort=False):
        names = sorted({name for row in rows for name in row})
        differing[key] = [name for name in names if len({row.get(name) for row in rows}) > 1]
    keys = outcomes[label].itertuples(index=False, name=None)
    return [
        " ".join(f"{name}={row.get(name, NONE)}" for name in differing[key]) for key, row in zip(keys, settings, strict=True)
    ]
