"""Requests that two processes may make at the same moment: they are repeated until their effect has come."""

from __future__ import annotations

import time

from mlflow.entities import DatasetInput
from mlflow.exceptions import MlflowException

from w2s_mlflow.tracking.backend.server import client

ATTEMPTS, PAUSE = 5, 0.2


def log_dataset(run_id: str, data: DatasetInput) -> None:
    """Log a data set as an input of a run.

    MLflow fails if two processes log a data set for the first time at the same moment; the request is then repeated.
    """
    for attempt in range(ATTEMPTS):
        try:
            client().log_inputs(run_id, [data])
        except MlflowException as error:
            if attempt == ATTEMPTS - 1 or not _is_duplicate(error):
                raise
            time.sleep(PAUSE * (attempt + 1))
        else:
            return


def _is_duplicate(error: MlflowException) -> bool:
    """Return whether a database refused a row because another process has just written it."""
    text = str(error).lower()
    return "unique constraint" in text or "duplicate key" in text or "duplicate entry" in text
