"""One run of a sweep: a stage with its options, and what comes of it here."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

from w2s_mlflow import registry
from w2s_mlflow.exceptions import FailedTrainingError

if TYPE_CHECKING:
    from w2s_mlflow.tracking.results import Result

    Say = Callable[[str], None]


class Job(NamedTuple):
    """One stage to run."""

    stage: str
    config: Any

    def run(self) -> Result:
        """Its result. Raises FailedTrainingError where the training diverged or does not fit the memory."""
        try:
            found: Result = registry.plugin("stages", self.stage, "stage").run(self.config)
        except RuntimeError as error:
            if type(error).__name__ == "OutOfMemoryError":  # torch's, which is not imported for its name alone
                raise FailedTrainingError(f"{self.stage} does not fit the memory of its device: {error}") from error
            raise
        return found


def run_job(job: Job, patient: bool, say: Say) -> Result | Exception | None:
    """The result, or what went wrong, or None where another process is making something that it needs."""
    from w2s_mlflow.tracking import session, store

    try:
        with session.changed(progress=say, wait=patient):
            return job.run()
    except store.BusyError:
        return None
    except FailedTrainingError as error:
        error.__cause__ = error.__context__ = None
        return error.with_traceback(None)  # whose frames would hold the model for as long as the error is kept
    except Exception as error:
        return error
