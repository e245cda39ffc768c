"""Requests that are repeated when an answer is lost, or that two processes make at the same moment: their effect comes once."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Mapping
from uuid import uuid4

from mlflow.entities import DatasetInput, Run
from mlflow.exceptions import MlflowException

from w2s_mlflow.tracking.backend import outages
from w2s_mlflow.tracking.backend.server import client, experiment

CREATION = "w2s.creation"
"""Tag with the name of the request that created a run."""
ATTEMPTS, PAUSE = 5, 0.2


def create_run(name: str, tags: Mapping[str, str], experiment_id: str = "") -> str:
    """Create a run and return its id. If the server does not answer, try again for a while (outages.py).

    If only the server's answer is lost, the run is found by its tag CREATION. If the request was sent twice, one of the two
    runs is deleted.

    Args:
        experiment_id: the run's experiment. Default: the current one.
    """
    place = experiment_id or experiment().experiment_id
    request = uuid4().hex
    run = outages.repeat(_create, place, name, {**tags, CREATION: request})
    for other in _created(place, request):
        if other.info.run_id != run.info.run_id:
            client().set_terminated(other.info.run_id, "KILLED")
            with contextlib.suppress(MlflowException):  # an earlier request has deleted it, and only its answer was lost
                outages.repeat(client().delete_run, other.info.run_id)
    return str(run.info.run_id)


def _create(experiment_id: str, name: str, tags: Mapping[str, str]) -> Run:
    """Send the request for a run. If it fails, look for the run, which may have been created nevertheless."""
    try:
        return client().create_run(experiment_id, tags=dict(tags), run_name=name)
    except Exception:
        if created := _created(experiment_id, tags[CREATION]):
            return created[0]
        raise


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


def _created(experiment_id: str, request: str) -> list[Run]:
    try:
        return list(client().search_runs([experiment_id], f"tags.`{CREATION}` = '{request}'"))
    except Exception:  # the server does not answer: the caller reports its own failure
        return []


def _is_duplicate(error: MlflowException) -> bool:
    """Return whether a database refused a row because another process has just written it."""
    text = str(error).lower()
    return "unique constraint" in text or "duplicate key" in text or "duplicate entry" in text
