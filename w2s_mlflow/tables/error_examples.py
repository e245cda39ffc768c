"""Sample of student errors for a person to read and annotate."""

from __future__ import annotations

import hashlib

import pandas as pd

from w2s_mlflow.tables import errors as by_rule

CAPTION = (
    "A sample of at most 50 errors of each run, chosen by a hash of the id. To annotate, fill the column `annotation` with "
    f"one of {', '.join(by_rule.TYPES)} and pass the CSV to `analyze --error-annotations FILE`."
)
FRAMES = ("errors",)
SIZE = 50
COLUMNS = [
    "run_id",
    "task",
    "weak",
    "strong",
    "method",
    "seed",
    "id",
    "text",
    "gold",
    "answer",
    "weak_answer",
    "ceiling_answer",
]
COLUMNS += ["own_evidence", "ceiling_evidence", "type", "annotation"]


def table(errors: pd.DataFrame) -> pd.DataFrame:
    """Return a sample of at most SIZE errors of each run."""
    mark = errors["id"].map(lambda id_: hashlib.sha256(str(id_).encode()).hexdigest())
    ordered = errors.assign(mark=mark, type=by_rule.types(errors)).sort_values(["run_id", "mark"])
    return ordered.groupby("run_id").head(SIZE)[COLUMNS].reset_index(drop=True)
