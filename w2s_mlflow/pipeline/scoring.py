"""The step after a fit: stored predictions scored against ground truth, beside supervisor and ceiling, without any model."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from w2s_mlflow import tasks
from w2s_mlflow.data import gold as data_gold
from w2s_mlflow.data import splits
from w2s_mlflow.data.loading import SplitOptions
from w2s_mlflow.records import Predictions, SoftLabels, write_gold

if TYPE_CHECKING:
    from w2s_mlflow.tracking.recorder import Report
    from w2s_mlflow.tracking.results import Result

CEILING_FAILED = "w2s.ceiling_failed"
"""On a ceiling and on each student reported against it: no, or by which of two rules it did not learn. Its training accuracy is
near chance (`stats.near_chance`), or on the reported split it is below the supervisor."""
NEAR_CHANCE = "near chance"

PGR_STATUS = "w2s.pgr_status"
"""ok, undetermined, or what is missing for a PGR."""
BELOW_FLOOR = "below the floor"
"""The second rule by which a ceiling has failed (`CEILING_FAILED`)."""
HUMAN = "w2s.human"
"""weak or strong against the task's published human score, where there is one on accuracy."""


class EvalOptions(SplitOptions, Protocol):
    """The options that cut a task and say what is scored."""

    @property
    def report(self) -> str: ...


def report(
    found: Result,
    config: EvalOptions,
    cut: splits.Split,
    beside: Mapping[str, Result] | None = None,
    given: SoftLabels | None = None,
) -> Result:
    """The step after a fit: score the stored predictions on `--report`'s split, once, and keep their gold beside them.

    Where nobody knows the truth of the split, agreement is all that is reported.

    Args:
        beside: a student's supervisor `weak` and its `ceiling`, which it is reported against, where it has them; of a
            facilitated weak model the supervisor `weak` and the `strong` one that has taught it.
        given: in place of a supervisor's, labels from outside; they are its floor where they cover the split.
    """
    from w2s_mlflow.tracking import followers

    if config.report == "none":
        return found
    beside = beside or {}
    inputs = {f"w2s.{role}_run_id": other.run_id for role, other in beside.items()}
    return followers.attach_once(
        found,
        config.report,
        lambda found: _scored(found, config, cut, beside, given, inputs),
        lambda found: _reported(found, config.report, inputs),
    )


def _scored(
    found: Result,
    config: EvalOptions,
    cut: splits.Split,
    beside: Mapping[str, Result],
    given: SoftLabels | None,
    inputs: Mapping[str, str],
) -> Report:
    from w2s_mlflow.tracking.recorder import Report

    gold, examples = data_gold.gold_of(config), cut.parts()[config.report]
    scored = found.predictions(config.report).aligned([example.id for example in examples])
    if gold.known(examples):
        scored = scored.with_gold(data_gold.read(gold, examples, config.report, "report"))
    others = {role: other.predictions(config.report).aligned(scored.ids) for role, other in beside.items()}
    if given and set(scored.ids) <= set(given.ids):
        others["weak"] = Predictions(scored.ids, scored.groups, given.of(scored.ids))
    values, status = (_facilitated if found.stage == "facilitate" else _scores)(scored, others, config.report)
    tags = _against_human(config, values) | ({PGR_STATUS: status} if found.stage == "student" else {})
    if "ceiling" in beside:
        tags[CEILING_FAILED] = _ceiling_failed(beside["ceiling"], values, config.report)
    for name, count in data_gold.reads(gold).items():
        values[name] = count + found.metrics.get(name, 0)

    def stage(directory: Path) -> None:
        if scored.gold_N is None:
            return
        write_gold(directory / "gold" / f"{config.report}.parquet", scored.ids, scored.gold_N)
        if found.stage == "supervisor":
            _draw_confidence(scored, directory / "figures" / f"confidence_{config.report}.png")

    return Report(stage, values, {**inputs, **tags})


def _against_human(config: EvalOptions, values: Mapping[str, float]) -> dict[str, str]:
    """A tag that says whether a model is weak or strong: below the published human score, or not; none without one."""
    human, accuracy = tasks.find(config.task).human, values.get(f"{config.report}/accuracy")
    if human is None or accuracy is None or human.metric.split(" (")[0] != "accuracy":  # of more options it is another thing
        return {}
    return {HUMAN: "strong" if accuracy >= human.score else "weak"}


def _ceiling_failed(ceiling: Result, values: Mapping[str, float], part: str) -> str:
    """By which rules a student's ceiling has not learned, or no. A value that is missing breaks none."""
    floor, top = (values.get(f"{part}/{role}_accuracy", math.nan) for role in ("weak", "ceiling"))
    rules = {
        NEAR_CHANCE: ceiling.tags.get(CEILING_FAILED) == NEAR_CHANCE,
        BELOW_FLOOR: top < floor,
    }
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


def _facilitated(scored: Predictions, others: Mapping[str, Predictions], part: str) -> tuple[dict[str, float], str]:
    """The metrics of M'_W beside M_W, `weak`, and M_S, `strong` (Definition 3); its gain's interval is over groups alone."""
    from w2s_mlflow import metrics, stats

    agreement = {
        role: metrics.agreement_score(scored.probabilities_NC, other.probabilities_NC) for role, other in others.items()
    }
    values = {"agreement": agreement["strong"], "weak_agreement": agreement["weak"]}
    if scored.gold_N is None:
        return _named(values, part), "no ground truth"
    values |= metrics.report(scored.probabilities_NC, scored.gold_N)
    correct = {role: other.with_gold(scored.gold_N).correct_N() for role, other in others.items()}
    values |= {f"{role}_accuracy": float(correct_N.mean()) for role, correct_N in correct.items()}
    gain = stats.group_interval(scored.correct_N() - correct["weak"], scored.groups)
    return _named(values | gain.named("gain"), part), "ok"


def _named(values: Mapping[str, float], part: str) -> dict[str, float]:
    return {f"{part}/{name}": value for name, value in values.items() if math.isfinite(value)}


def _reported(found: Result, part: str, inputs: Mapping[str, str]) -> bool:
    """Whether the split is scored beside these inputs: the digests of its gold are the last that a report writes."""
    from w2s_mlflow.tracking import results

    return f"{results.ARTIFACTS}.{part}" in found.tags and inputs.items() <= found.tags.items()
