"""The main claim: weak-to-strong finetuning gives more than the supervisor, self-training and label-free answers.

One family of tests per claim. A grid file may declare its claim before it runs (`CLAIM`, docs/how-to/sweeps.md); the family is
then all comparisons of that declaration. Otherwise the family of each pair of models is the student `baseline` against
REFERENCES.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import pandas as pd

from w2s_mlflow import stats
from w2s_mlflow.tables import IMPORTED, PAIR, UNTRAINED_METHODS, _comparison

SUPERVISOR, LABEL_FREE = "supervisor", "label_free"
"""References that are no methods: the student's supervisor, and the best answer that needs no labels of `transfer`."""
REFERENCES = (SUPERVISOR, "self_training", LABEL_FREE)
METHOD = "baseline"
LABEL_FREE_METHODS = (*UNTRAINED_METHODS, "rule:most_*", "rule:searched_rule")
"""Patterns of the methods among which the best label-free answer is chosen."""
UNDECLARED = "(not declared)"
ALPHA = 0.05
HOLDS, DOES_NOT_HOLD, NOT_TESTED = "holds", "does not hold", "not tested"
CAPTION = (
    "The main claim, test by test: mean test accuracy of the student (`method`) and of a reference, and their difference with "
    "its 95% interval and p, over seeds and test groups (two-way clustered). `label_free` is the best answer without labels of "
    "the student's task: the untrained strong model, a prompt, or a rule (`answer` names it; it is chosen by its accuracy on "
    "`test`, which favours it). `p_seeds` is the paired t-test over seeds. Seeds that share their "
    "pretrained checkpoints are one cluster; `pretrainings` counts these. Holm's p is over the tests of one `claim`, which a "
    f"sweep declared before it ran; {UNDECLARED} is one family per pair of models. A test without runs is not tested and "
    f"counts as failed. A test holds if the difference is positive and Holm's p is below {ALPHA:g}. `collapsed` counts the "
    "collapsed students."
)
FRAMES = ("outcomes", "claims")
COLUMNS = ["claim", *PAIR[:5], "method", "reference", "answer", "n", "pretrainings", "reference_accuracy", "accuracy"]
COLUMNS += ["difference", "low", "high", "p", "p_holm", "p_seeds", "verdict", "collapsed"]
VARIANT = ["head", "other_options", "train_size", "test_size"]
"""Columns in which the runs of one family have the same values."""


class Comparison(NamedTuple):
    """One comparison of a claim."""

    task: str
    weak: str
    strong: str
    method: str
    reference: str


def table(outcomes: pd.DataFrame, claims: pd.DataFrame) -> pd.DataFrame:
    """Return one row per claim, setting and comparison."""
    runs = outcomes[(outcomes["method_options"] == "") & (outcomes["head"] != IMPORTED)]
    rows = [row for claim, family in _families(runs, claims) for row in _tested(claim, family, runs)]
    return pd.DataFrame(rows, columns=COLUMNS)


def _families(runs: pd.DataFrame, claims: pd.DataFrame) -> Iterator[tuple[str, list[Comparison]]]:
    """Yield the name and the comparisons of each declared claim, and of each further pair of models with a plain student."""
    declared = set()
    for claim, rows in claims.groupby("claim", sort=False):
        family = [Comparison(*row) for row in rows[list(Comparison._fields)].itertuples(index=False, name=None)]
        declared |= {comparison[:3] for comparison in family}
        yield str(claim), family
    students = runs[runs["weak_accuracy"].notna() & (runs["method"] == METHOD) & (runs["weak"] != runs["strong"])]
    for pair in dict.fromkeys(students[["task", "weak", "strong"]].itertuples(index=False, name=None)):
        if pair not in declared:
            yield UNDECLARED, [Comparison._make((*pair, METHOD, reference)) for reference in REFERENCES]


def _tested(claim: str, family: Sequence[Comparison], runs: pd.DataFrame) -> Iterator[dict[str, Any]]:
    """Yield the rows of a claim, for each setting in which one of its students ran; one `not tested` row each if none did."""
    pairs = {comparison[:4] for comparison in family}
    columns = ["task", "weak", "strong", "method"]
    own = _mask(runs, [key in pairs for key in runs[columns].itertuples(index=False, name=None)])
    settings = list(runs[own][VARIANT].drop_duplicates().itertuples(index=False, name=None)) or [("-", "", "-", "-")]
    for setting in settings:
        variant = dict(zip(VARIANT, setting, strict=True))
        rows = [_row(comparison, variant, runs) for comparison in family]
        adjusted = stats.holm([row.get("p", float("nan")) for row in rows], len(family))
        for row, p_holm in zip(rows, adjusted, strict=True):
            yield {"claim": claim} | row | {"p_holm": p_holm, "verdict": _verdict(row, p_holm)}


def _verdict(row: dict[str, Any], p_holm: float) -> str:
    if "difference" not in row:
        return NOT_TESTED
    return HOLDS if row["difference"] > 0 and p_holm < ALPHA else DOES_NOT_HOLD


def _row(comparison: Comparison, variant: dict[str, Any], runs: pd.DataFrame) -> dict[str, Any]:
    """Return one row without Holm's p and verdict. It has no difference if student or reference share fewer than two seeds."""
    row = comparison._asdict() | {"head": variant["head"], "other_options": variant["other_options"]}
    keys = dict(zip(("task", "weak", "strong"), comparison[:3], strict=True)) | variant
    pair = runs[(runs[list(keys)] == pd.Series(keys)).all(axis=1)]
    student = pair[pair["method"] == comparison.method]
    if student.empty:
        return row
    row |= {"collapsed": int(student["collapsed"].sum())}
    after, (answer, before) = _comparison.accuracies(student), _reference(comparison.reference, student, pair, runs)
    test = None if before is None else _comparison.difference(before, after)
    if test is None or before is None:
        return row
    shared = before.index.intersection(after.index)
    means = {"reference_accuracy": before.loc[shared, "score"].mean(), "accuracy": after.loc[shared, "score"].mean()}
    return row | test | means | {"answer": answer, "difference": test["mean_difference"]}


def _reference(
    reference: str, student: pd.DataFrame, pair: pd.DataFrame, runs: pd.DataFrame
) -> tuple[str, pd.DataFrame | None]:
    """Return the name and the accuracies of the model that a student is compared with; None if it did not run."""
    if reference == SUPERVISOR:
        return student["weak"].iloc[0], _comparison.accuracies(student, "weak")
    answers = pd.concat([pair, _rules(student, runs)])
    patterns = LABEL_FREE_METHODS if reference == LABEL_FREE else (reference,)
    chosen = answers[_mask(answers, [any(fnmatch.fnmatchcase(name, it) for it in patterns) for name in answers["method"]])]
    if chosen.empty:
        return "", None
    best = chosen.groupby("method", sort=True)["accuracy"].mean().idxmax()
    rows = chosen[chosen["method"] == best]
    model = _comparison.accuracies(rows)
    return str(best), _comparison.repeated(model, pd.Index(student["seed"])) if rows["strong"].iloc[0] == "-" else model


def _rules(student: pd.DataFrame, runs: pd.DataFrame) -> pd.DataFrame:
    """Return the rules that were scored on the student's test rows."""
    task, groups = student[["task", "groups"]].iloc[0]
    rules = runs[_mask(runs, list((runs["strong"] == "-") & (runs["task"] == task)))]
    return rules[_mask(rules, [own == groups for own in rules["groups"]])]


def _mask(frame: pd.DataFrame, chosen: Sequence[bool]) -> pd.Series:
    return pd.Series(chosen, index=frame.index, dtype=bool)
