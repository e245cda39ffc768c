"""Imitation cost: what a student loses because its supervisor's errors can be learned and random errors cannot.

The reference is a student of matched noise (`--labels matched_noise`): labels as accurate and as soft as the weak ones, with
errors at random rows. The cost is its accuracy minus that of the student of the weak labels, with strong model and seed equal.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from typing import Any

import pandas as pd

from w2s_mlflow import stats
from w2s_mlflow.tables import LABEL, PAIR, logged

CAPTION = (
    "Imitation cost: test accuracy of the student of noise that matches the weak labels in accuracy and softness, minus that "
    "of the student of the weak labels; positive if the supervisor's errors cost more than random ones. `noise` is the method "
    "of the student of noise: the plain one or, in a row of its own, the one that differs from the student in its labels "
    "alone. `change` is the cost minus the plain student's cost, so a negative change means that the method lowers it. Means "
    "over n seeds with paired 95% t intervals and two-sided p-values, uncorrected; no direction was predicted."
)
FRAMES = ("outcomes",)
COLUMNS = [*LABEL, "noise", "n", "accuracy", "noise_accuracy", "cost", "cost_low", "cost_high", "cost_p"]
COLUMNS += ["change", "change_low", "change_high", "change_p"]
WEAK, NOISE = "weak", "matched_noise"
"""Values of `--labels` of the compared students. The second is also the method of the plain student of noise."""
PLAIN = "baseline"
RATES = ("learning_rate", "batch_size")
"""Options in which a student and the plain student of noise must agree."""


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
    """Return whether the noise's student is the plain one with the same rates, or differs from the student in labels alone."""
    of_student, of_noise = _settings(student), _settings(noise)
    if _method(noise) == NOISE and all(of_student.get(name) == of_noise.get(name) for name in RATES):
        return True
    return {**of_student, "labels": NOISE} == of_noise


def _row(student: pd.DataFrame, noise: pd.DataFrame, cells: list[pd.DataFrame]) -> dict[str, Any]:
    accuracy, reference = (_by_seed(rows) for rows in (student, noise))
    cost = (reference - accuracy).dropna()
    row = {name: student[name].iloc[0] for name in LABEL} | {"noise": _name(noise), "n": len(cost)}
    row |= {"accuracy": accuracy[cost.index].mean(), "noise_accuracy": reference[cost.index].mean()} | _test("cost", cost)
    plain = _plain_cost(student, cells)
    return row | (_test("change", (cost - plain).dropna()) if plain is not None else {})


def _plain_cost(student: pd.DataFrame, cells: list[pd.DataFrame]) -> pd.Series | None:
    """Return the cost of the plain student with the same rates, by seed; None if the student is plain or there is no other."""
    if _method(student) == PLAIN:
        return None
    for plain, noise in _compared(cells):
        same = all(_settings(plain).get(name) == _settings(student).get(name) for name in RATES)
        if same and _method(plain) == PLAIN and _method(noise) == NOISE:
            return _by_seed(noise) - _by_seed(plain)
    return None


def _test(name: str, values: pd.Series) -> dict[str, float]:
    """Return the mean, its interval and p-value over seeds; bounds and p-value are NaN if they cannot be estimated."""
    if len(values) < 2:
        return {name: values.mean(), **dict.fromkeys((f"{name}_low", f"{name}_high", f"{name}_p"), math.nan)}
    test = stats.paired_t_test([0.0] * len(values), values)
    return {name: test.mean_difference, f"{name}_low": test.low, f"{name}_high": test.high, f"{name}_p": test.p}


def _by_seed(rows: pd.DataFrame) -> pd.Series:
    return rows.set_index("seed")["accuracy"]


def _method(rows: pd.DataFrame) -> str:
    return str(rows["method"].iloc[0])


def _name(rows: pd.DataFrame) -> str:
    return f"{_method(rows)} {rows['method_options'].iloc[0]}".strip()


def _labels(rows: pd.DataFrame) -> str:
    return str(_settings(rows)["labels"])


def _settings(rows: pd.DataFrame) -> dict[str, Any]:
    settings: dict[str, Any] = json.loads(rows["settings"].iloc[0])
    return settings
