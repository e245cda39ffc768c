"""Imitation cost: what a student loses because its supervisor's errors can be learned and random errors cannot.

The reference is a student of matched noise (`--labels matched_noise`): labels as accurate and as soft as the weak ones, with
errors at random rows. The cost is its accuracy minus that of the student of the weak labels, with strong model and seed equal.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pandas as pd

from w2s_mlflow.tables import LABEL, PAIR, _comparison, logged

CAPTION = (
    "Imitation cost: test accuracy of the student of noise that matches the weak labels in accuracy and softness, minus that "
    "of the student of the weak labels; positive if the supervisor's errors cost more than random ones. `noise` is the method "
    "of the student of noise: the plain one or, in a row of its own, the one that differs from the student in its labels "
    "alone. `change` is the cost minus the plain student's cost, so a negative change means that the method lowers it. 95% "
    "intervals and two-sided p-values over n seeds and test groups (two-way clustered), uncorrected; `p_seeds` is that of the "
    "paired t-test over seeds. No direction was predicted."
)
FRAMES = ("outcomes",)
COLUMNS = [*LABEL, "noise", "n", "accuracy", "noise_accuracy"]
COLUMNS += [f"{name}{part}" for name in ("cost", "change") for part in ("", "_low", "_high", "_p", "_p_seeds")]
WEAK, NOISE = "weak", "matched_noise"
"""Values of `--labels` of the compared students. The second is also the method of the plain student of noise."""
PLAIN = "baseline"
SHARED_OPTIONS = ("weights", "learning_rate", "batch_size")
"""Options that a student and the plain student of noise must have in common: their initial weights and training rates."""


def table(outcomes: pd.DataFrame) -> pd.DataFrame:
    """Return one row per method of students of weak labels and comparable method of students of matched noise."""
    labels = logged(outcomes, "labels")
    rows = []
    for _, pair in outcomes[labels.isin([WEAK, NOISE])].groupby(PAIR, sort=False):
        cells = [cell for _, cell in pair.groupby([*LABEL, "settings"], sort=False)]
        rows += [row for student, noise in _compared(cells) if (row := _row(student, noise, cells))["n"]]
    return pd.DataFrame(rows, columns=COLUMNS)


def _compared(cells: list[pd.DataFrame]) -> Iterator[tuple[pd.DataFrame, pd.DataFrame]]:
    """Yield the students of weak labels, each with the students of noise with which it is compared."""
    for student in cells:
        for noise in cells:
            if _labels(student) == WEAK and _labels(noise) == NOISE and _comparable(student, noise):
                yield student, noise


def _comparable(student: pd.DataFrame, noise: pd.DataFrame) -> bool:
    """Return whether a student and a student of noise are compared.

    They are if the student of noise is the plain one and has the same SHARED_OPTIONS, or if they differ in labels alone.
    """
    if _method(noise) == NOISE and _share_options(student, noise):
        return True
    return {**_settings(student), "labels": NOISE} == _settings(noise)


def _share_options(one: pd.DataFrame, other: pd.DataFrame) -> bool:
    return all(_settings(one).get(name) == _settings(other).get(name) for name in SHARED_OPTIONS)


def _row(student: pd.DataFrame, noise: pd.DataFrame, cells: list[pd.DataFrame]) -> dict[str, Any]:
    accuracy, reference = (_comparison.accuracies(rows) for rows in (student, noise))
    shared = accuracy.index.intersection(reference.index)
    row = {name: student[name].iloc[0] for name in LABEL} | {"noise": _name(noise), "n": len(shared)}
    row |= {"accuracy": accuracy.loc[shared, "score"].mean(), "noise_accuracy": reference.loc[shared, "score"].mean()}
    row |= {"cost": row["noise_accuracy"] - row["accuracy"]} | _test("cost", _comparison.difference(accuracy, reference))
    plain = _plain(student, cells)
    if plain is None:
        return row
    costs = [_comparison.minus(reference, accuracy), _comparison.minus(*(_comparison.accuracies(rows) for rows in plain))]
    return row | _test("change", _comparison.difference(costs[1], costs[0]))


def _plain(student: pd.DataFrame, cells: list[pd.DataFrame]) -> tuple[pd.DataFrame, pd.DataFrame] | None:
    """Return the plain student of noise and the plain student of weak labels that have the student's SHARED_OPTIONS.

    Return None if there are none, or if the student is itself the plain one.
    """
    if _method(student) == PLAIN:
        return None
    for plain, noise in _compared(cells):
        if _share_options(plain, student) and _method(plain) == PLAIN and _method(noise) == NOISE:
            return noise, plain
    return None


def _test(name: str, test: dict[str, Any] | None) -> dict[str, float]:
    """Return a mean difference with its interval, p and p over seeds; nothing if fewer than two seeds are shared."""
    if test is None:
        return {}
    values = {"": "mean_difference", "_low": "low", "_high": "high", "_p": "p", "_p_seeds": "p_seeds"}
    return {f"{name}{suffix}": test[key] for suffix, key in values.items()}


def _method(rows: pd.DataFrame) -> str:
    return str(rows["method"].iloc[0])


def _name(rows: pd.DataFrame) -> str:
    return f"{_method(rows)} {rows['method_options'].iloc[0]}".strip()


def _labels(rows: pd.DataFrame) -> str:
    return str(_settings(rows)["labels"])


def _settings(rows: pd.DataFrame) -> dict[str, Any]:
    settings: dict[str, Any] = json.loads(rows["settings"].iloc[0])
    return settings
