"""Names and columns of the tables that the stages probe and errors write, and a reader for the error table."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd

    from w2s_mlflow.tracking.results import Result

PROBES = "probes.csv"

ERRORS = "errors.csv"
ON_EVIDENCE = ("on_own_evidence", "on_ceiling_evidence", "on_random")


def read_errors(result: Result) -> pd.DataFrame:
    """Read the table of errors of a run. The text `nan` is kept as text and not read as a missing value.

    Raises:
        ConfigError: the run has no such table.
    """
    import pandas as pd

    missing: Any = {name: [""] for name in ON_EVIDENCE}
    texts: Any = dict.fromkeys(("id", "text", "own_evidence", "ceiling_evidence"), str)
    return pd.read_csv(result.artifact(ERRORS), dtype=texts, keep_default_na=False, na_values=missing)
