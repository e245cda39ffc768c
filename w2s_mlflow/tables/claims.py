"""Test whether the runs of each task support or contradict the paper's statements."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import pandas as pd

from w2s_mlflow import stats
from w2s_mlflow.tables import _comparison, pgr
from w2s_mlflow.tables import probes as salience

CAPTION = (
    "The paper's statements about each task (sections 5.1 to 5.3). A statement is supported if the 95% interval lies "
    "entirely in the range that it predicts, contradicted if the interval lies entirely outside, and undetermined otherwise "
    "or if PGR is undetermined for the pair. Differences are paired by seed, and their intervals are over n seeds and test "
    "groups (two-way clustered); a single PGR has Fieller's interval. Only methods with their default options are tested. "
    "`failed_ceilings` counts the ceilings that did not learn, over all sizes and seeds of a supervisor's students. The "
    "intervals are not corrected for the number of statements."
)
FRAMES = ("outcomes", "probes")
COLUMNS = ["claim", "task", "weak", "strong", "head", "other_options", "quantity", "n", "estimate", "low", "high"]
COLUMNS += ["expected", "verdict", "failed_ceilings"]
SUPPORTED, CONTRADICTED, UNDETERMINED = "supported", "contradicted", "undetermined"
INFINITY = float("inf")
REWARD = 0.2
HALF = 0.5


class Finding(NamedTuple):
    """The estimate of a quantity, with its interval."""

    quantity: str
    strong: str
    n: int
    estimate: float
    low: float
    high: float


Findings = Iterator[Finding]
Compare = Callable[[pd.DataFrame, pd.DataFrame], dict[str, Any] | None]
"""Function that tests the second students against the first, paired by seed; None if they cannot be compared."""


class Claim(NamedTuple):
    """A statement of the paper: its domains, a function that measures one supervisor's students, and the predicted range."""

    text: str
    domains: tuple[str, ...]
    measure: Callable[[pd.DataFrame], Findings]
    low: float
    high: float


def _verdict_row(claim: str, finding: Finding, low: float, high: float) -> dict[str, Any]:
    """Return the row of a statement. The verdict says whether the interval lies in (low, high), outside, or partly in it."""
    verdict = UNDETERMINED
    if low < finding.low and finding.high < high:
        verdict = SUPPORTED
    elif finding.low >= high or finding.high <= low:
        verdict = CONTRADICTED
    expected = f"above {low:g}" if high == INFINITY else f"below {high:g}"
    return {"claim": claim, "expected": expected, "verdict": verdict, **finding._asdict()}


def table(outcomes: pd.DataFrame, probes: pd.DataFrame) -> pd.DataFrame:
    """Return one row per combination of statement, task, supervisor and head that has enough runs."""
    students = outcomes[outcomes["weak_accuracy"].notna() & (outcomes["method_options"] == "")]
    keys = ["task", "weak", "head", "other_options", "train_size", "test_size"]
    rows: list[dict[str, Any]] = []
    for claim in CLAIMS:
        for key, group in students[students["domain"].isin(claim.domains)].groupby(keys, sort=False):
            identity = dict(zip(keys, key, strict=True))
            identity["failed_ceilings"] = int(group.groupby(["strong", "seed"])["ceiling_failed"].any().sum())
            rows += [identity | _verdict_row(claim.text, finding, claim.low, claim.high) for finding in claim.measure(group)]
    return pd.DataFrame([*rows, *_salient(probes)], columns=COLUMNS)


def _salient(probes: pd.DataFrame) -> Iterator[dict[str, Any]]:
    """Yield the rows of the statement that training makes concepts more salient, which is tested on the gains of probes."""
    for row in salience.table(probes[probes["method_options"] == ""]).to_dict("records"):
        if row["n"] > 1:
            quantity = f"probe of {row['concept']}, after minus before, {row['method']}"
            finding = Finding(quantity, str(row["strong"]), row["n"], row["gain"], row["gain_low"], row["gain_high"])
            identity = {"task": row["task"], "weak": row["weak"], "head": "-", "other_options": row["other_options"]}
            yield identity | _verdict_row("weak-to-strong training makes concepts more salient", finding, 0, INFINITY)


# --- quantities -------------------------------------------------------------------------------------------------------


def _of(students: pd.DataFrame, method: str) -> list[pd.DataFrame]:
    """Return the students of a method as one frame per size, from smallest to largest. The index is the seed."""
    sizes = students[students["method"] == method].groupby(["parameters", "strong"])
    return [rows.set_index("seed").sort_index() for _, rows in sizes]


def _largest_pgr(students: pd.DataFrame) -> Findings:
    """Yield the PGR of the largest student trained with the baseline."""
    for rows in _of(students, "baseline")[-1:]:
        if pgr.comparable(rows):
            interval = pgr.interval(rows)
            yield Finding(
                "PGR of the largest student", rows["strong"].iloc[0], len(rows), interval.point, interval.low, interval.high
            )


def _gain_of(method: str) -> Callable[[pd.DataFrame], Findings]:
    """Return a function that measures the PGR of the method's largest student minus the baseline's PGR with the same model."""

    def measure(students: pd.DataFrame) -> Findings:
        baseline = {rows["strong"].iloc[0]: rows for rows in _of(students, "baseline")}
        for rows in _of(students, method)[-1:]:
            strong = rows["strong"].iloc[0]
            if strong in baseline:
                yield from _difference(f"PGR, {method} minus baseline", strong, baseline[strong], rows, _pgr)

    return measure


def _growth(method: str, quantity: str, compare: Compare) -> Callable[[pd.DataFrame], Findings]:
    """Return a function that measures the difference in a quantity between the method's largest and smallest student."""

    def measure(students: pd.DataFrame) -> Findings:
        sizes = [rows for rows in _of(students, method) if compare is not _pgr or _determined(rows)]
        if len(sizes) > 1:
            pair = f"{sizes[0]['strong'].iloc[0]}, {sizes[-1]['strong'].iloc[0]}"
            yield from _difference(f"{quantity}, {method}, largest minus smallest", pair, sizes[0], sizes[-1], compare)

    return measure


def _least_step(students: pd.DataFrame) -> Findings:
    """Yield the accuracy gain with the lowest lower bound among those between successive sizes of bootstrapped students."""
    sizes = _of(students, "bootstrap")
    steps = [
        finding
        for small, large in itertools.pairwise(sizes)
        for finding in _difference("accuracy, bootstrap, least step in size", large["strong"].iloc[0], small, large, _accuracy)
    ]
    if steps:
        yield min(steps, key=lambda step: step.low)


def _difference(quantity: str, strong: str, before: pd.DataFrame, after: pd.DataFrame, compare: Compare) -> Findings:
    if test := compare(before.reset_index(), after.reset_index()):
        yield Finding(quantity, strong, test["n"], test["mean_difference"], test["low"], test["high"])


def _pgr(before: pd.DataFrame, after: pd.DataFrame) -> dict[str, Any] | None:
    """Compare PGRs; None if one of them is undetermined."""
    return _comparison.pgr_difference(before, after) if _determined(before) and _determined(after) else None


def _determined(rows: pd.DataFrame) -> bool:
    return pgr.comparable(rows) and pgr.interval(rows).status == stats.OK


def _accuracy(before: pd.DataFrame, after: pd.DataFrame) -> dict[str, Any] | None:
    return _comparison.difference(_comparison.accuracies(before), _comparison.accuracies(after))


def _agreement(before: pd.DataFrame, after: pd.DataFrame) -> dict[str, Any] | None:
    return _comparison.difference(_comparison.agreements(before), _comparison.agreements(after))


def _agreement_against_baseline(students: pd.DataFrame) -> Findings:
    baseline = {rows["strong"].iloc[0]: rows for rows in _of(students, "baseline")}
    for method in ("confidence", "bootstrap", "generative"):
        for rows in _of(students, method)[-1:]:
            if (strong := rows["strong"].iloc[0]) in baseline:
                yield from _difference(f"agreement, {method} minus baseline", strong, baseline[strong], rows, _agreement)


EVERY = ("NLP", "chess", "reward modelling")
CLAIMS: tuple[Claim, ...] = (
    Claim("plain PGR exceeds 50% for the largest students", ("NLP",), _largest_pgr, HALF, INFINITY),
    Claim("plain PGR rarely exceeds 20% in reward modelling", ("reward modelling",), _largest_pgr, -INFINITY, REWARD),
    Claim("PGR grows with student size", ("NLP",), _growth("baseline", "PGR", _pgr), 0, INFINITY),
    Claim("PGR falls with student size", ("chess",), _growth("baseline", "PGR", _pgr), -INFINITY, 0),
    Claim("the confidence loss raises PGR", EVERY, _gain_of("confidence"), 0, INFINITY),
    Claim("bootstrapping raises PGR", EVERY, _gain_of("bootstrap"), 0, INFINITY),
    Claim("generative finetuning raises PGR", EVERY, _gain_of("generative"), 0, INFINITY),
    Claim("bootstrapped accuracy grows monotonically with size", EVERY, _least_step, 0, INFINITY),
    *(
        Claim("agreement falls with student size", EVERY, _growth(method, "agreement", _agreement), -INFINITY, 0)
        for method in ("baseline", "confidence", "bootstrap", "generative")
    ),
    Claim("enhanced methods agree less than the baseline", EVERY, _agreement_against_baseline, -INFINITY, 0),
)
