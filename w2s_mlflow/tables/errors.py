"""Types of student errors (the paper's Figure 5), assigned by rules from stored answers."""

from __future__ import annotations

import numpy as np
import pandas as pd

from w2s_mlflow import stats

CAPTION = (
    "Test errors of students by type: shares that sum to 1, means over n seeds with 95% t intervals; `errors` is the mean "
    "number of errors per run. An error has the first type that applies. overfitting: the student repeats a wrong answer of "
    "the supervisor, and the ceiling is right. evidence_extraction: the supervisor or the ceiling is right, and the student "
    "is right if it sees only the ceiling's evidence. quote_selection: the student gives another answer if it sees only its "
    "own evidence. other: any other error. The last two columns are the shares with randomly drawn tokens as evidence. "
    "Chess has no evidence, so only overfitting and other are possible."
)
FRAMES = ("errors",)
OVERFITTING, EXTRACTION, QUOTE, OTHER = TYPES = ("overfitting", "evidence_extraction", "quote_selection", "other")
BY_CHANCE = [f"{name}_by_chance" for name in (EXTRACTION, QUOTE)]
KEYS = ["task", "weak", "strong", "method", "method_options", "other_options"]
COLUMNS = [*KEYS, "n", "errors", *(f"{name}{bound}" for name in TYPES for bound in ("", "_low", "_high")), *BY_CHANCE]


def table(errors: pd.DataFrame) -> pd.DataFrame:
    """Return one row per model pair, method and options."""
    rows = []
    for key, group in errors.groupby(KEYS, sort=False):
        runs = [run for _, run in group.groupby("run_id", sort=False)]
        row = dict(zip(KEYS, key, strict=True)) | {"n": len(runs), "errors": float(np.mean([len(run) for run in runs]))}
        shares_by_run = pd.DataFrame([shares(run) for run in runs])
        units = [run["checkpoints"].iloc[0] for run in runs]
        for name in TYPES:
            row |= stats.seed_interval(shares_by_run[name], units=units).named(name)
        rows.append(row | {name: float(shares_by_run[name].mean()) for name in BY_CHANCE})
    return pd.DataFrame(rows, columns=COLUMNS)


def shares(errors: pd.DataFrame) -> dict[str, float]:
    """Return the share of each type among the errors of one run.

    `*_by_chance` are the shares that two of the types have if the evidence is replaced by random tokens; NaN without evidence.
    """
    observed = {name: float((types(errors) == name).mean()) for name in TYPES}
    random = errors.assign(on_ceiling_evidence=errors["on_random"], on_own_evidence=errors["on_random"])
    chance = types(random).where(errors["on_random"].notna())
    values = {name: float((chance == name).sum() / chance.notna().sum()) if chance.notna().any() else np.nan for name in TYPES}
    return observed | {name: values[name.removesuffix("_by_chance")] for name in BY_CHANCE}


def types(errors: pd.DataFrame) -> pd.Series:
    """Return the type of each error: the first of TYPES whose rule holds.

    Args:
        errors: one row per wrong answer of a student, with the classes gold, answer, weak_answer and ceiling_answer, and the
            student's answers on_ceiling_evidence, on_own_evidence and on_random, which are missing if a text has no evidence.
    """
    overfitted = (errors["answer"] == errors["weak_answer"]) & (errors["ceiling_answer"] == errors["gold"])
    answerable = (errors["weak_answer"] == errors["gold"]) | (errors["ceiling_answer"] == errors["gold"])
    extraction = answerable & (errors["on_ceiling_evidence"] == errors["gold"])
    quote = errors["on_own_evidence"].notna() & (errors["on_own_evidence"] != errors["answer"])
    labels = np.select([overfitted, extraction, quote], [OVERFITTING, EXTRACTION, QUOTE], OTHER)
    return pd.Series(labels, index=errors.index, dtype=object)
