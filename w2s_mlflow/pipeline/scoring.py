"""Score stored predictions against ground truth, and compare them with supervisor and ceiling. No model is loaded."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from w2s_mlflow.data import gold as data_gold
from w2s_mlflow.pipeline.context import Context, StageOptions
from w2s_mlflow.records import Gold, Predictions, SoftLabels, write_gold

if TYPE_CHECKING:
    from w2s_mlflow.tracking.reports import Report
    from w2s_mlflow.tracking.results import Result

CEILING_FAILED = "w2s.ceiling_failed"
"""Tag on a ceiling, and on each student that is compared with it. Its value is `no` if the ceiling has not failed. Otherwise it
lists the reasons: the ceiling's training accuracy is near chance (NEAR_CHANCE), or the ceiling is less accurate than the
supervisor on the scored split (BELOW_FLOOR, on students only)."""
NEAR_CHANCE = "near chance"
"""Value of CEILING_FAILED for a ceiling whose training accuracy is near chance (`stats.near_chance`)."""

PGR_STATUS = "w2s.pgr_status"
"""Tag of a student with the status of its PGR: `ok`, `undetermined`, or the missing input, such as `no ceiling`. It describes
this run alone. The status `elicited` depends on other runs of the store, so only the tables of the analysis have it."""
BELOW_FLOOR = "below the floor"
"""Value of CEILING_FAILED for a ceiling that is less accurate than the supervisor."""
LABEL_GAP = "w2s.label_gap"
"""Tag of a student whose weak labels are not as accurate on `transfer` as the same labeller is on `test`: the difference and
its 95% interval, which does not contain 0. The PGR's floor is then not the accuracy of the labels that the student learned."""
VS_HUMAN = "w2s.vs_human"
"""Tag with the value `weak` if a run's accuracy is below the task's published human accuracy, `strong` if it is above, and
`equal` if it is neither (Definitions 1 and 2). It is not set if no comparable human accuracy is published."""


class EvalOptions(StageOptions, Protocol):
    """Options that define a task's split and which part of it is scored."""

    @property
    def eval_split(self) -> str: ...


def report(
    run: Result,
    context: Context[EvalOptions],
    references: Mapping[str, Result] | None = None,
    file_labels: SoftLabels | None = None,
) -> Result:
    """Score a run's predictions on the split `--eval-split`, and store the split's gold labels in the run.

    If the run is already scored, nothing is done. If the split has no ground truth, only agreement is reported. Return the run
    with its metrics.

    Args:
        references: the runs to compare with, by role. A student is compared with its supervisor (role `weak`) and its ceiling
            (role `ceiling`), if they exist. A facilitated weak model is compared with the supervisor (`weak`) and the teacher
            (`strong`).
        file_labels: labels from a file that were used in place of a supervisor. If they cover the split, their accuracy takes
            the place of the supervisor's.
    """
    from w2s_mlflow.tracking import reports

    part, references = context.options.eval_split, references or {}
    if part == "none":
        return run
    tags = {f"w2s.{role}_run_id": reference.run_id for role, reference in references.items()}
    return reports.attach_once(
        run,
        part,
        lambda run: _scored(run, context, references, file_labels, tags),
        lambda run: _is_scored(run, part, tags),
    )


def _scored(
    run: Result,
    context: Context[EvalOptions],
    references: Mapping[str, Result],
    file_labels: SoftLabels | None,
    tags: Mapping[str, str],
) -> Report:
    from w2s_mlflow.tracking.reports import Report

    part = context.options.eval_split
    gold, examples = data_gold.gold_of(context.options), context.split.parts()[part]
    scored = run.predictions(part).aligned([example.id for example in examples])
    if gold.known(examples):
        scored = scored.with_gold(data_gold.read(gold, examples, part, "report"))
    others = {role: reference.predictions(part).aligned(scored.ids) for role, reference in references.items()}
    if file_labels and set(scored.ids) <= set(file_labels.ids):
        others["weak"] = Predictions(scored.ids, scored.groups, file_labels.of(scored.ids))
    values, status = (_facilitated if run.stage == "facilitate" else _scores)(scored, others, part)
    outcome = _against_human(context, values) | ({PGR_STATUS: status} if run.stage == "student" else {})
    if "ceiling" in references:
        outcome[CEILING_FAILED] = _ceiling_failed(references["ceiling"], values, part)
    gap = None
    if run.stage == "student" and part == "test" and "weak" in others and scored.gold_N is not None:
        labels = file_labels or references["weak"].weak_labels()
        gap = _label_gap(labels, others["weak"].with_gold(scored.gold_N), context, gold)
    if gap is not None:
        values["transfer/label_accuracy"] = gap.accuracy
        outcome |= {LABEL_GAP: gap.describe()} if gap.is_clear() else {}
    for name, count in data_gold.reads(gold).items():
        values[name] = count + run.metrics.get(name, 0)

    def stage(directory: Path) -> None:
        if scored.gold_N is None:
            return
        write_gold(directory / "gold" / f"{part}.parquet", scored.ids, scored.gold_N)
        if run.stage == "supervisor":
            _draw_confidence(scored, directory / "figures" / f"confidence_{part}.png")

    return Report(stage, values, {**tags, **outcome}, gap.remark() if gap is not None and gap.is_clear() else "")


@dataclass(frozen=True)
class LabelGap:
    """Accuracy of weak labels on `transfer`, and how far it is above the accuracy of the same labeller on `test`.

    Attributes:
        margin: half of the difference's 95% interval, from the two group-clustered intervals, whose rows are disjoint.
    """

    accuracy: float
    test_accuracy: float
    margin: float

    def is_clear(self) -> bool:
        """Return whether the interval of the difference does not contain 0."""
        return abs(self.accuracy - self.test_accuracy) > self.margin

    def describe(self) -> str:
        """Return the difference with its interval."""
        gap = self.accuracy - self.test_accuracy
        return f"{gap:+.3f} [{gap - self.margin:+.3f}, {gap + self.margin:+.3f}]"

    def remark(self) -> str:
        """Return a sentence about the difference, for the run's note."""
        return (
            f"The weak labels are right in {self.accuracy:.3f} of the `transfer` rows, their labeller in "
            f"{self.test_accuracy:.3f} of the `test` rows (difference {self.describe()}): the PGR's floor is not the accuracy "
            "of the labels trained on."
        )


def _label_gap(labels: SoftLabels, tested: Predictions, context: Context[EvalOptions], gold: Gold) -> LabelGap | None:
    """Compare the accuracy of weak labels on `transfer` with that of their labeller on `test`.

    Reads of the ground truth of `transfer` are counted as `report`. Return None if no labelled row of `transfer` has gold.
    """
    from w2s_mlflow import stats

    known = set(labels.ids)
    examples = [example for example in context.split.transfer if example.id in known and gold.known([example])]
    if not examples:
        return None
    answers_N = labels.of([example.id for example in examples]).argmax(axis=1)
    correct_N = answers_N == data_gold.read(gold, examples, "transfer", "report")
    transfer = stats.group_interval(correct_N, [example.group for example in examples])
    test = stats.group_interval(tested.correct_N(), tested.groups)
    margins = [(interval.high - interval.low) / 2 for interval in (transfer, test)]
    return LabelGap(transfer.mean, test.mean, math.hypot(*margins))


def _against_human(context: Context[EvalOptions], values: Mapping[str, float]) -> dict[str, str]:
    """Return the tag VS_HUMAN, or no tag if no comparable human accuracy is published."""
    human, accuracy = context.task.human, values.get(f"{context.options.eval_split}/accuracy")
    # Human scores with another metric, such as "accuracy over four endings", are not comparable with a model's accuracy.
    if human is None or accuracy is None or human.metric.split(" (")[0] != "accuracy":
        return {}
    if accuracy == human.score:
        return {VS_HUMAN: "equal"}
    return {VS_HUMAN: "strong" if accuracy > human.score else "weak"}


def _ceiling_failed(ceiling: Result, values: Mapping[str, float], part: str) -> str:
    """Return the reasons why a student's ceiling failed, or `no`. A missing metric or tag does not count as a failure."""
    floor, upper = (values.get(f"{part}/{role}_accuracy", math.nan) for role in ("weak", "ceiling"))
    rules = {
        NEAR_CHANCE: ceiling.tags.get(CEILING_FAILED) == NEAR_CHANCE,
        BELOW_FLOOR: upper < floor,
    }
    return ", ".join(rule for rule, broken in rules.items() if broken) or "no"


def _draw_confidence(scored: Predictions, file: Path) -> None:
    """Write a figure that compares a supervisor's confidence with its accuracy."""
    from w2s_mlflow.figures import _confidence, save

    probabilities_NC, gold_N = scored.probabilities_NC, scored.gold_N
    assert gold_N is not None
    save(lambda: _confidence.figure(probabilities_NC, gold_N), file)


def _scores(scored: Predictions, others: Mapping[str, Predictions], part: str) -> tuple[dict[str, float], str]:
    """Return the metrics of one split and the PGR status.

    The metrics include comparisons with those of the roles `weak` and `ceiling` that `others` has.
    """
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
    """Return the metrics of a facilitated weak model M'_W and a status: `ok`, or `no ground truth`.

    M'_W is compared with the weak model M_W (role `weak`) and the strong model M_S (role `strong`). The confidence interval of
    the accuracy gain over M_W is clustered by group.
    """
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


def _is_scored(run: Result, part: str, tags: Mapping[str, str]) -> bool:
    """Return whether the run is already scored on the split `part`, compared with the runs whose ids are in `tags`.

    The last step of scoring is to set a tag with the digests of the written artifacts, so a run with this tag is completely
    scored.
    """
    from w2s_mlflow.tracking import results

    return f"{results.ARTIFACTS}.{part}" in run.tags and tags.items() <= run.tags.items()
